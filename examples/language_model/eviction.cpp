#include "eviction.hpp"

#include <pare/cache.hpp>
#include <pare/importance.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <utility>

namespace language {
namespace {

using positions = std::vector<std::int32_t>;

/// Group g keeps `count` keys, those of the highest scores.
template <class Scores>
positions keep_best(layer_cache& c, index_t g, const Scores& scores, index_t count,
                    const pare::pins& always) {
    positions kept(static_cast<std::size_t>(c.length(g)));
    kept.resize(static_cast<std::size_t>(pare::keep_top_k(pare::seq, scores, count, kept, always)));
    c.keep(g, pare::view(kept.data(), static_cast<index_t>(kept.size())));
    return kept;
}

class everything final : public eviction {
  public:
    void after(const layer_pass&) override {}
};

/// A number of keys for each group.
class bounded : public eviction {
  public:
    explicit bounded(const budget& b) : b_(b) {}
    index_t most_keys(index_t layer, index_t length) const override {
        return std::min(length, b_.keys.row(layer).maxCoeff());
    }

  protected:
    index_t keys(index_t layer, index_t g) const { return b_.keys(layer, g); }
    const budget& all() const { return b_; }
    pare::pins always() const { return {b_.first, b_.last}; }

  private:
    budget b_;
};

class window final : public bounded {
  public:
    using bounded::bounded;
    void after(const layer_pass& p) override {
        layer_cache& c = p.cache;
        for (index_t g = 0; g < c.sequences(); ++g) {
            const index_t n = c.length(g), count = std::min(n, keys(p.layer, g));
            const index_t first = std::min(all().first, count);
            positions kept(static_cast<std::size_t>(count));
            std::iota(kept.begin(), kept.begin() + first, 0);
            std::iota(kept.begin() + first, kept.end(),
                      static_cast<std::int32_t>(n - (count - first)));
            c.keep(g, pare::view(kept.data(), count));
        }
    }
};

/// What the keys of a text have received of all queries since they are there.
class attention_sums {
  public:
    static scoring scores() { return pare::counted_queries::all(); }
    /// Adds what those of group g received in this pass. Sums over queries, or means of them.
    std::vector<float> add(const layer_pass& p, index_t g, bool means) {
        const auto n = p.cache.length(g);
        std::vector<float> scores(&p.received(g, 0), &p.received(g, 0) + n);
        // They are means over the queries of this pass, of which others have more or fewer.
        for (float& x : scores) x *= static_cast<float>(p.normed.rows());
        pare::score_accumulator& sums = sums_[{p.layer, g}];
        sums.add(scores);
        const auto* const places = p.cache.places(g);
        for (index_t j = 0; j < n; ++j) {
            const double queries = means ? 1.0 + places[n - 1] - places[j] : 1.0;
            scores[static_cast<std::size_t>(j)] = static_cast<float>(sums.sums()(j) / queries);
        }
        return scores;
    }
    void keep(index_t layer, index_t g, const positions& kept) { sums_[{layer, g}].keep(kept); }

  private:
    std::map<std::pair<index_t, index_t>, pare::score_accumulator> sums_;
};

class heavy final : public bounded {
  public:
    heavy(const budget& b, bool means) : bounded(b), means_(means) {}
    scoring scores() const override { return attention_sums::scores(); }
    void after(const layer_pass& p) override {
        for (index_t g = 0; g < p.cache.sequences(); ++g) {
            const auto scores = sums_.add(p, g, means_);
            if (p.cache.length(g) > keys(p.layer, g))
                sums_.keep(p.layer, g, keep_best(p.cache, g, scores, keys(p.layer, g), always()));
        }
    }

  private:
    bool means_;
    attention_sums sums_;
};

class thresholded final : public eviction {
  public:
    thresholded(const of_groups<float>& thresholds, const pare::pins& always)
        : thresholds_(thresholds), always_(always) {}
    scoring scores() const override { return attention_sums::scores(); }
    void after(const layer_pass& p) override {
        for (index_t g = 0; g < p.cache.sequences(); ++g) {
            const auto scores = sums_.add(p, g, true);
            positions kept(scores.size());
            kept.resize(static_cast<std::size_t>(
                pare::keep_above(pare::seq, scores, thresholds_(p.layer, g), kept, always_)));
            p.cache.keep(g, pare::view(kept.data(), static_cast<index_t>(kept.size())));
            sums_.keep(p.layer, g, kept);
        }
    }

  private:
    of_groups<float> thresholds_;
    pare::pins always_;
    attention_sums sums_;
};

/// By what keys receive from the last queries of a pass.
class snapshot final : public bounded {
  public:
    snapshot(const budget& b, index_t queries, bool shared)
        : bounded(b), queries_(queries), shared_(shared) {}
    index_t most_keys(index_t layer, index_t length) const override {
        return shared_ ? length : bounded::most_keys(layer, length);
    }
    scoring scores() const override { return pare::counted_queries::last(queries_); }
    void after(const layer_pass& p) override {
        layer_cache& c = p.cache;
        const auto& lengths = c.lengths();
        const index_t longest = *std::max_element(lengths.begin(), lengths.end());
        auto counts = all().keys.row(p.layer).head(c.sequences()).cast<std::int32_t>().eval();
        if (std::accumulate(lengths.begin(), lengths.end(), index_t{0}) <= counts.sum()) return;
        // Groups of fewer keys end in scores that nothing is kept for.
        matrix pooled = matrix::Constant(c.sequences(), longest, -1);
        for (index_t g = 0; g < c.sequences(); ++g) {
            const positions offsets = {0, static_cast<std::int32_t>(c.length(g))};
            pare::pool_scores(pare::simd, pare::view(&p.received(g, 0), c.length(g)), offsets, 3,
                              pare::pooling::max, pare::view(pooled.row(g).data(), c.length(g)));
        }
        if (shared_) share(c, pooled, pare::view(counts.data(), counts.size()));
        for (index_t g = 0; g < c.sequences(); ++g)
            if (c.length(g) > counts(g))
                keep_best(c, g, pare::view<const float, 1>(pooled.row(g).data(), c.length(g)),
                          counts(g), always());
    }

  private:
    /// Each group keeps a fifth of its budget at least, as the paper has it.
    void share(const layer_cache& c, const matrix& pooled,
               const pare::view<std::int32_t, 1>& counts) const {
        index_t total = 0;
        for (index_t g = 0; g < counts.extent(0); ++g) total += counts(g);
        const index_t first = all().first, last = all().last,
                      least = std::max<index_t>({first + last, total / counts.extent(0) / 5, 1});
        // What always stays is at the ends of groups of different lengths: it is a part of `least`.
        matrix scores = pooled;
        for (index_t g = 0; g < c.sequences(); ++g) {
            const index_t n = c.length(g);
            scores.row(g).head(std::min(first, n)).setConstant(most);
            scores.row(g)
                .segment(std::max<index_t>(0, n - last), std::min(last, n))
                .setConstant(most);
        }
        pare::share_budget(scores, total, least, counts);
    }
    static constexpr float most = 1e30f;

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
    return std::make_unique<heavy>(b, false);
}
std::unique_ptr<eviction> keep_attended(const budget& b) {
    return std::make_unique<heavy>(b, true);
}
std::unique_ptr<eviction> keep_thresholds(const of_groups<float>& thresholds, index_t first,
                                          index_t last) {
    return std::make_unique<thresholded>(thresholds, pare::pins{first, last});
}
std::unique_ptr<eviction> keep_snap(const budget& b, index_t queries) {
    return std::make_unique<snapshot>(b, queries, false);
}
std::unique_ptr<eviction> keep_shared(const budget& b, index_t queries) {
    return std::make_unique<snapshot>(b, queries, true);
}

} // namespace language
