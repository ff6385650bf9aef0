#include "learned_scores.hpp"

#include <pare/compact.hpp>
#include <pare/policy/simd.hpp>
#include <pare/tune.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <utility>

namespace language {

matrix learned_scores::guess(index_t layer, const matrix& normed) const {
    const auto l = static_cast<std::size_t>(layer);
    return (normed * weights[l].transpose()).rowwise() + biases[l];
}

float learned_scores::threshold(double share) const {
    const auto n = static_cast<double>(guesses.size());
    const auto below = static_cast<std::size_t>(std::floor((1 - share) * n));
    return guesses[std::min(below, guesses.size() - 1)];
}

learned_scores learn_scores(const model& m, const std::vector<std::vector<std::int32_t>>& texts,
                            index_t last) {
    const shape& c = m.config;
    std::vector<pare::least_squares> statistics;
    for (std::size_t l = 0; l < m.layers.size(); ++l) statistics.emplace_back(c.hidden, c.groups);
    std::vector<std::vector<matrix>> inputs(m.layers.size());
    const scoring most{true, pare::counted_queries::all(), pare::score_scale::per_query,
                       pare::score_reduction::max};
    for (const auto& text : texts) {
        const auto length = static_cast<index_t>(text.size()), rows = length - last;
        if (rows < 1) continue;
        cache keys;
        for (std::size_t l = 0; l < m.layers.size(); ++l) keys.emplace_back(c, length);
        forward(m, text, 0, keys, most,
                [&](index_t layer, layer_cache&, const matrix& normed,
                    const pare::view<const float, 2>& received) {
                    matrix targets(rows, c.groups);
                    for (index_t g = 0; g < c.groups; ++g)
                        for (index_t t = 0; t < rows; ++t)
                            targets(t, g) = std::log(std::max(received(g, t), 1e-8f));
                    const auto l = static_cast<std::size_t>(layer);
                    inputs[l].push_back(normed.topRows(rows));
                    statistics[l].add(pare::simd, inputs[l].back(), targets);
                });
    }
    learned_scores learned;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        if (statistics[l].tokens() == 0)
            throw std::invalid_argument("there is no text to learn from that is longer than " +
                                        std::to_string(last) + " tokens");
        learned.weights.push_back(matrix::Zero(c.groups, c.hidden));
        learned.biases.push_back(vector::Zero(c.groups));
        const auto result = pare::reconstruct(pare::simd, statistics[l], learned.weights.back(),
                                              learned.biases.back());
        if (!result) throw std::runtime_error(result.failure);
        for (const matrix& x : inputs[l]) {
            const matrix guessed = learned.guess(static_cast<index_t>(l), x);
            learned.guesses.insert(learned.guesses.end(), guessed.data(),
                                   guessed.data() + guessed.size());
        }
    }
    std::sort(learned.guesses.begin(), learned.guesses.end());
    return learned;
}

namespace {

class guessed final : public eviction {
  public:
    guessed(const learned_scores& scores, double threshold, const budget& b)
        : scores_(scores), threshold_(threshold), b_(b) {}

    void after(index_t layer, layer_cache& c, const matrix& normed,
               const pare::view<const float, 2>&) override {
        const matrix more = scores_.guess(layer, normed);
        for (index_t g = 0; g < c.groups(); ++g) {
            std::vector<float>& of_keys = of_keys_[{layer, g}];
            for (index_t t = 0; t < more.rows(); ++t) of_keys.push_back(more(t, g));
            std::vector<std::int32_t> kept(of_keys.size());
            kept.resize(static_cast<std::size_t>(pare::keep_above(
                pare::seq, of_keys, threshold_, kept, pare::pins{b_.first, b_.last})));
            pare::gather_rows(pare::seq, kept, of_keys);
            of_keys.resize(kept.size());
            c.keep(g, pare::view(kept.data(), static_cast<index_t>(kept.size())));
        }
    }

  private:
    const learned_scores& scores_;
    double threshold_;
    budget b_;
    std::map<std::pair<index_t, index_t>, std::vector<float>> of_keys_;
};

} // namespace

std::unique_ptr<eviction> keep_guessed(const learned_scores& scores, double threshold,
                                       const budget& b) {
    return std::make_unique<guessed>(scores, threshold, b);
}

} // namespace language
