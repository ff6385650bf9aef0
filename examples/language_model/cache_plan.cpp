#include "cache_plan.hpp"

#include "streaming.hpp"

#include <pare/search.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace language {
namespace {

/// Beside the caches that have all keys of a text, those that have what a rule leaves.
class shadow {
  public:
    shadow(const model& m, index_t pass, index_t length, std::unique_ptr<eviction> rule)
        : m_(m), rule_(std::move(rule)), caches_(make_cache(m, *rule_, pass, length)) {}

    /// What each group loses in this pass, a sum over its tokens, and what is left.
    void add_losses(const layer_pass& p, const matrix& k, const matrix& v, index_t place,
                    cache_losses& to) {
        layer_cache& c = caches_[static_cast<std::size_t>(p.layer)];
        c.append(k, v, {0, k.rows()}, {place});
        attend(m_.config, p.queries, p.offsets, c, rule_->scores(), context_, received_, scratch_);
        const pare::view<const float, 2> received(received_.data(),
                                                  received_.empty() ? 0 : c.sequences(), c.room());
        rule_->after({p.layer, c, p.stream, p.normed, p.queries, context_, p.offsets, received});
        const matrix& projection = m_.layers[static_cast<std::size_t>(p.layer)].projection.weight;
        const index_t tokens = p.normed.rows(), width = context_.cols();
        for (index_t g = 0; g < c.sequences(); ++g) {
            const matrix lost = (context_ - p.context).middleRows(g * tokens, tokens) *
                                projection.middleCols(g * width, width).transpose();
            for (index_t t = 0; t < tokens; ++t) {
                const auto whole = static_cast<double>(p.stream.row(t).squaredNorm());
                // The embedding of a token that nothing has been learned of may be 0.
                if (whole > 0)
                    to.losses(p.layer, g) += static_cast<double>(lost.row(t).squaredNorm()) / whole;
            }
        }
    }
    void add_shares(index_t length, cache_losses& to) const {
        for (std::size_t l = 0; l < caches_.size(); ++l)
            for (index_t g = 0; g < caches_[l].sequences(); ++g)
                to.shares(static_cast<index_t>(l), g) +=
                    static_cast<double>(caches_[l].length(g)) / static_cast<double>(length);
    }

  private:
    const model& m_;
    std::unique_ptr<eviction> rule_;
    cache caches_;
    matrix context_;
    std::vector<float> received_;
    pare::workspace scratch_;
};

/// The last `tokens` keys, or values, of each group, [tokens x groups * head size].
matrix last_rows(const layer_cache& c, const pare::view<const float, 3>& of, index_t tokens) {
    const index_t size = of.extent(2);
    matrix rows(tokens, c.sequences() * size);
    for (index_t g = 0; g < c.sequences(); ++g)
        for (index_t t = 0; t < tokens; ++t)
            std::copy_n(&of(g * c.room() + c.length(g) - tokens + t, 0, 0), size,
                        rows.row(t).data() + g * size);
    return rows;
}

} // namespace

std::vector<cache_losses> measure_losses(const model& m,
                                         const std::vector<std::vector<std::int32_t>>& texts,
                                         index_t pass, std::size_t settings,
                                         const rule_of_settings& rule) {
    const auto layers = static_cast<index_t>(m.layers.size()), groups = m.config.groups;
    const of_groups<double> none = of_groups<double>::Zero(layers, groups);
    std::vector<cache_losses> found(settings, {none, none});
    double tokens = 0;
    for (const auto& text : texts) {
        const auto length = static_cast<index_t>(text.size());
        tokens += static_cast<double>(length);
        std::vector<shadow> shadows;
        shadows.reserve(settings);
        for (std::size_t i = 0; i < settings; ++i)
            shadows.emplace_back(m, pass, length,
                                 rule(of_groups<std::size_t>::Constant(layers, groups, i), length));
        cache all = make_cache(m, length);
        for (index_t at = 0; at < length; at += pass) {
            const std::vector<std::int32_t> some(text.begin() + at,
                                                 text.begin() + std::min(length, at + pass));
            forward(m, {some, at}, all, {}, [&](const layer_pass& p) {
                const matrix k = last_rows(p.cache, p.cache.keys(), p.normed.rows()),
                             v = last_rows(p.cache, p.cache.values(), p.normed.rows());
                for (std::size_t i = 0; i < settings; ++i)
                    shadows[i].add_losses(p, k, v, at, found[i]);
            });
        }
        for (std::size_t i = 0; i < settings; ++i) shadows[i].add_shares(length, found[i]);
    }
    for (cache_losses& x : found) {
        x.losses /= tokens;
        x.shares /= static_cast<double>(texts.size());
    }
    return found;
}

of_groups<std::size_t> plan_settings(const std::vector<cache_losses>& of, double share) {
    // A group is a sublayer to the search, and the place of its setting among all its width.
    const index_t layers = of.front().losses.rows(), groups = of.front().losses.cols();
    std::vector<pare::prunable> choices;
    std::vector<index_t> planned;
    for (index_t i = 0; i < layers * groups; ++i) {
        std::vector<double> losses, shares;
        for (const cache_losses& setting : of) {
            losses.push_back(setting.losses(i / groups, i % groups));
            shares.push_back(setting.shares(i / groups, i % groups));
        }
        if (*std::max_element(shares.begin(), shares.end()) <= 0)
            continue; // there is no such group
        planned.push_back(i);
        std::reverse(losses.begin(), losses.end()); // by units removed
        choices.push_back({std::move(losses), pare::cost_table(std::move(shares))});
    }
    const double budget = share * static_cast<double>(planned.size());
    pare::width_choice best = pare::width_search(choices, budget).best(budget);
    if (!best.feasible) best = pare::width_search(choices, best.cost).best(best.cost);
    of_groups<std::size_t> settings = of_groups<std::size_t>::Zero(layers, groups);
    for (std::size_t i = 0; i < planned.size(); ++i)
        settings(planned[i] / groups, planned[i] % groups) = static_cast<std::size_t>(best.kept[i]);
    return settings;
}

} // namespace language
