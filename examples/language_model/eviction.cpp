#include "eviction.hpp"

#include <pare/cache.hpp>
#include <pare/importance.hpp>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace language {
namespace {

using positions = std::vector<std::int32_t>;

void keep(layer_cache& c, index_t g, const positions& kept) {
    c.keep(g, pare::view(kept.data(), static_cast<index_t>(kept.size())));
}

class everything final : public eviction {
  public:
    void after(index_t, layer_cache&, const matrix&, const pare::view<const float, 2>&) override {}
};

class window final : public eviction {
  public:
    explicit window(const budget& b) : b_(b) {}
    void after(index_t, layer_cache& c, const matrix&, const pare::view<const float, 2>&) override {
        for (index_t g = 0; g < c.groups(); ++g) {
            if (c.length(g) <= b_.keys) continue;
            positions kept(static_cast<std::size_t>(b_.keys));
            const index_t first = std::min(b_.first, b_.keys);
            std::iota(kept.begin(), kept.begin() + first, 0);
            std::iota(kept.begin() + first, kept.end(),
                      static_cast<std::int32_t>(c.length(g) - (b_.keys - first)));
            keep(c, g, kept);
        }
    }

  private:
    budget b_;
};

class heavy final : public eviction {
  public:
    explicit heavy(const budget& b) : b_(b) {}
    scoring scores() const override {
        return {true, pare::counted_queries::all(), pare::score_scale::per_query,
                pare::score_reduction::sum};
    }
    void after(index_t layer, layer_cache& c, const matrix& normed,
               const pare::view<const float, 2>& received) override {
        for (index_t g = 0; g < c.groups(); ++g) {
            pare::score_accumulator& sums = sums_[{layer, g}];
            const auto n = c.length(g);
            // Means over the queries of a pass, of which there may be more or fewer.
            std::vector<float> of_pass(&received(g, 0), &received(g, 0) + n);
            for (float& x : of_pass) x *= static_cast<float>(normed.rows());
            sums.add(of_pass);
            if (n <= b_.keys) continue;
            positions kept(static_cast<std::size_t>(n));
            kept.resize(static_cast<std::size_t>(pare::keep_top_k(
                pare::seq, sums.sums(), b_.keys, kept, pare::pins{b_.first, b_.last})));
            sums.keep(kept);
            keep(c, g, kept);
        }
    }

  private:
    budget b_;
    std::map<std::pair<index_t, index_t>, pare::score_accumulator> sums_;
};

/// By what keys receive from the last queries of a pass.
class snapshot final : public eviction {
  public:
    snapshot(const budget& b, index_t queries, bool shared)
        : b_(b), queries_(queries), shared_(shared) {}
    scoring scores() const override {
        // Not relative: groups whose lengths differ are compared.
        return {true, pare::counted_queries::last(queries_), pare::score_scale::per_query,
                pare::score_reduction::sum};
    }
    void after(index_t, layer_cache& c, const matrix&,
               const pare::view<const float, 2>& received) override {
        index_t all = 0, longest = 0;
        for (index_t g = 0; g < c.groups(); ++g) {
            all += c.length(g);
            longest = std::max(longest, c.length(g));
        }
        if (all <= b_.keys * c.groups()) return;
        // Groups of fewer keys end in scores that nothing is kept for.
        matrix pooled = matrix::Constant(c.groups(), longest, -1);
        for (index_t g = 0; g < c.groups(); ++g) {
            const positions offsets = {0, static_cast<std::int32_t>(c.length(g))};
            pare::pool_scores(pare::simd, pare::view(&received(g, 0), c.length(g)), offsets, 3,
                              pare::pooling::max, pare::view(pooled.row(g).data(), c.length(g)));
        }
        const pare::pins always{b_.first, b_.last};
        positions counts(static_cast<std::size_t>(c.groups()), static_cast<std::int32_t>(b_.keys));
        if (shared_) share(c, pooled, counts);
        for (index_t g = 0; g < c.groups(); ++g) {
            const index_t n = c.length(g), count = counts[static_cast<std::size_t>(g)];
            if (n <= count) continue;
            positions kept(static_cast<std::size_t>(n));
            kept.resize(static_cast<std::size_t>(
                pare::keep_top_k(pare::seq, pare::view<const float, 1>(pooled.row(g).data(), n),
                                 count, kept, always)));
            keep(c, g, kept);
        }
    }

  private:
    /// Each group keeps a fifth of its budget at least, as the paper has it.
    void share(const layer_cache& c, const matrix& pooled, positions& counts) const {
        const index_t least = std::max<index_t>({b_.first + b_.last, b_.keys / 5, 1});
        // What always stays is at the ends of groups of different lengths: it is a part of `least`.
        matrix scores = pooled;
        for (index_t g = 0; g < c.groups(); ++g) {
            scores.row(g).head(std::min(b_.first, c.length(g))).setConstant(most);
            scores.row(g)
                .segment(std::max<index_t>(0, c.length(g) - b_.last),
                         std::min(b_.last, c.length(g)))
                .setConstant(most);
        }
        pare::share_budget(scores, b_.keys * c.groups(), least, counts);
    }
    static constexpr float most = 1e30f;

    budget b_;
    index_t queries_;
    bool shared_;
};

} // namespace

std::unique_ptr<eviction> keep_all() {
    return std::make_unique<everything>();
}
std::unique_ptr<eviction> keep_window(const budget& b) {
    return std::make_unique<window>(b);
}
std::unique_ptr<eviction> keep_heavy(const budget& b) {
    return std::make_unique<heavy>(b);
}
std::unique_ptr<eviction> keep_snap(const budget& b, index_t queries) {
    return std::make_unique<snapshot>(b, queries, false);
}
std::unique_ptr<eviction> keep_shared(const budget& b, index_t queries) {
    return std::make_unique<snapshot>(b, queries, true);
}

} // namespace language
