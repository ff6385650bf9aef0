// How good and how fast a sentence encoder is.
#pragma once

#include "encoder/network/engine.hpp"
#include "encoder/text/text.hpp"

#include <string>
#include <vector>

namespace encoder {

/// What engine::forward gives of all sequences, a row each or, with a head on tokens, a row a token, in
/// batches of 32; and `use`.
matrix embed(engine& net, const std::vector<sequence>& sequences, const std::string& stage,
             std::vector<token_use>* use = nullptr);

/// Pairs of texts as rows of `sequences`, each distinct text once.
struct similarity_task {
    std::vector<sequence> sequences;
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    std::vector<double> scores;
};
similarity_task make_task(const tokenizer& words, const std::vector<scored_pair>& pairs,
                          std::size_t max_tokens);

/// Correlation of the cosines of embedded pairs with the scores. NaN where one of them is constant.
struct correlations {
    double spearman, pearson;
};
correlations correlate(const similarity_task& task, const matrix& embeddings);

/// Mean over rows of the cosine between two sets of embeddings of length 1.
double mean_cosine(const matrix& a, const matrix& b);

/// Share of rows whose largest value is in the same column, as the class of logits is.
double same_class(const matrix& a, const matrix& b);

/// What a forward pass takes.
double seconds_of(engine& net, const batch& b);

/// Two models in turn on the same batches.
struct speed {
    double tokens_per_second_dense, tokens_per_second_pruned; ///< medians over rounds and batches
    double speedup;                                           ///< median of the paired ratios
};
speed compare_speed(engine& dense, engine& pruned, const std::vector<sequence>& sequences,
                    std::int64_t sequences_a_batch = 32);

} // namespace encoder
