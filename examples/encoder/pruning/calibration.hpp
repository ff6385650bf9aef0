// The text that an encoder is pruned with, and passes over it.
#pragma once

#include "encoder/task/task.hpp"

#include <functional>

namespace encoder {

/// What the model is pruned with.
struct calibration {
    dataset examples; ///< without targets, gradients need no labels
    /// Parts of the same texts at other lengths, so that the pruned model keeps what it can do with
    /// lengths that the texts do not have. None of pairs.
    std::vector<sequence> recut;

    /// The texts, and behind them those recut.
    std::vector<sequence> all() const;
};

/// At most `samples` examples of a file, chosen by the seed. For a model without a classifier,
/// documents, a document a line, or, if `labelled`, score, text, text; for one with a classifier,
/// text or text, text, behind a label if `labelled`. A quarter of the texts, drawn at random, is
/// also recut. Throws file_error.
calibration read_calibration(const std::filesystem::path& file, bool labelled, std::size_t samples,
                             std::uint64_t seed, const tokenizer& words, const model& m);

/// The matrix that reads a layer's units.
const dense& reader(const layer& l, unit_kind kind);
dense& reader(layer& l, unit_kind kind);

/// Takes the residual stream x through one sublayer, and says what its matrix read and what it
/// summed up to before the normalisation.
void advance(engine& net, std::size_t l, unit_kind kind, const batch& b, rows& x, rows& inputs,
             rows& sum);

/// Samples of the calibration data in one batch: a sequence each, or a pair that shares a label.
struct gradient_batch {
    std::int64_t first_sample, samples, first_token;
    const std::vector<std::int64_t>& offsets; ///< of samples, in the batch's tokens
};

/// A backward pass over the examples and, without targets, what is recut of them: of their loss, or
/// without targets of a random function of each text's outputs, drawn by sample, whose gradient has
/// mean zero and as covariance the metric in which outputs differ: of embeddings the identity, of
/// logits the Fisher information of the classes, diag(p) - p p'.
void backward_over(
    engine& net, const calibration& data, std::uint64_t seed,
    const std::function<void(const gradient_batch&, const engine::unit_gradients&)>& visit);

/// The texts of that pass.
std::vector<sequence> gradient_sequences(const calibration& data);

} // namespace encoder
