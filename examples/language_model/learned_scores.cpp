#include "learned_scores.hpp"

#include <pare/compact.hpp>
#include <pare/policy/simd.hpp>
#include <pare/tune.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>

namespace language {

matrix learned_scores::guess(index_t layer, const matrix& normed) const {
    const auto l = static_cast<std::size_t>(layer);
    return (normed * weights[l].transpose()).rowwise() + biases[l];
}

float learned_scores::threshold(index_t layer, index_t group, double share) const {
    const auto& sorted = guesses[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)];
    if (share >= 1) return -std::numeric_limits<float>::max();
    const auto below =
        static_cast<std::size_t>(std::floor((1 - share) * static_cast<double>(sorted.size())));
    return sorted[std::min(below, sorted.size() - 1)];
}

learned_scores learn_scores(const model& m, const std::vector<std::vector<std::int32_t>>& texts,
                            index_t last) {
    const shape& c = m.config;
    std::vector<pare::least_squares> statistics;
    for (const layer& l : m.layers) statistics.emplace_back(c.hidden, groups_of(l, c));
    std::vector<std::vector<matrix>> inputs(m.layers.size());
    for (const auto& text : texts) {
        const auto length = static_cast<index_t>(text.size()), rows = length - last;
        cache keys = make_cache(m, length);
        forward(m, {text, 0}, keys, pare::counted_queries::all(), [&](const layer_pass& p) {
            matrix targets(rows, p.cache.sequences());
            for (index_t g = 0; g < targets.cols(); ++g)
                for (index_t t = 0; t < rows; ++t) {
                    const auto queries = static_cast<float>(length - t);
                    targets(t, g) = std::log(
                        std::max(p.received(g, t) * static_cast<float>(length) / queries, 1e-8f));
                }
            const auto l = static_cast<std::size_t>(p.layer);
            inputs[l].push_back(p.normed.topRows(rows));
            statistics[l].add(pare::simd, inputs[l].back(), targets);
        });
    }
    learned_scores learned;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const index_t groups = statistics[l].outputs();
        learned.weights.push_back(matrix::Zero(groups, c.hidden));
        learned.biases.push_back(vector::Zero(groups));
        const auto result = pare::reconstruct(pare::simd, statistics[l], learned.weights.back(),
                                              learned.biases.back());
        if (!result) throw std::runtime_error(result.failure);
        learned.guesses.emplace_back(static_cast<std::size_t>(groups));
        for (const matrix& x : inputs[l]) {
            const matrix guessed = learned.guess(static_cast<index_t>(l), x);
            for (index_t g = 0; g < groups; ++g) {
                auto& of_group = learned.guesses[l][static_cast<std::size_t>(g)];
                for (index_t t = 0; t < guessed.rows(); ++t) of_group.push_back(guessed(t, g));
            }
        }
        for (auto& of_group : learned.guesses[l]) std::sort(of_group.begin(), of_group.end());
    }
    return learned;
}

namespace {

class guessed final : public eviction {
  public:
    guessed(const learned_scores& scores, const of_groups<float>& thresholds,
            const pare::pins& always)
        : scores_(scores), thresholds_(thresholds), always_(always) {}

    void after(const layer_pass& p) override {
        const matrix more = scores_.guess(p.layer, p.normed);
        for (index_t g = 0; g < p.cache.sequences(); ++g) {
            std::vector<float>& of_keys = of_keys_[{p.layer, g}];
            for (index_t t = 0; t < more.rows(); ++t) of_keys.push_back(more(t, g));
            std::vector<std::int32_t> kept(of_keys.size());
            kept.resize(static_cast<std::size_t>(
                pare::keep_above(pare::seq, of_keys, thresholds_(p.layer, g), kept, always_)));
            pare::gather_rows(pare::seq, kept, of_keys);
            of_keys.resize(kept.size());
            p.cache.keep(g, pare::view(kept.data(), static_cast<index_t>(kept.size())));
        }
    }

  private:
    const learned_scores& scores_;
    of_groups<float> thresholds_;
    pare::pins always_;
    std::map<std::pair<index_t, index_t>, std::vector<float>> of_keys_;
};

} // namespace

std::unique_ptr<eviction> keep_guessed(const learned_scores& scores,
                                       const of_groups<float>& thresholds, index_t first,
                                       index_t last) {
    return std::make_unique<guessed>(scores, thresholds, pare::pins{first, last});
}

} // namespace language
