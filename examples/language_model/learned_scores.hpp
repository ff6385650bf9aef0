// What a token will receive, guessed from its hidden state when it comes: a ridge regression
// (as KVzap does it, arXiv:2601.07891, which guesses the most instead of the mean), and a threshold on
// it by which keys leave.
#pragma once

#include "eviction.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace language {

/// Of each layer: the logarithm of what the average query behind a token gives its key, for each
/// group, is about weights [groups x hidden] times the layer's normed input, plus biases.
struct learned_scores {
    std::vector<matrix> weights;
    std::vector<vector> biases;
    /// What it guesses for the texts that it has learned from, of each group of each layer, ascending.
    std::vector<std::vector<std::vector<float>>> guesses;

    /// Of tokens whose normed inputs are rows, [tokens x groups].
    matrix guess(index_t layer, const matrix& normed) const;
    /// Above which a share of a group's guesses are.
    float threshold(index_t layer, index_t group, double share) const;
};

/// Learns from texts, each in one pass: its last tokens, which few queries are behind, do not count. Has
/// the normed inputs of all layers of all of them in memory. They are longer than
/// these.
learned_scores learn_scores(const model& m, const std::vector<std::vector<std::int32_t>>& texts,
                            index_t last);

/// Keys stay whose guess is not below their group's threshold, and the first and the last ones.
/// `scores` live as long as the rule.
std::unique_ptr<eviction> keep_guessed(const learned_scores& scores,
                                       const of_groups<float>& thresholds, index_t first,
                                       index_t last);

} // namespace language
