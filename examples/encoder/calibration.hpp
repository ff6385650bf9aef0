// The text that an encoder is pruned with, and passes over it.
#pragma once

#include "text.hpp"

#include <functional>

namespace encoder {

/// What the model is pruned with.
struct calibration {
    std::vector<sequence> sequences;
    /// With labels, sequences 2 p and 2 p + 1 are a pair whose cosine should be labels[p]; else
    /// empty.
    std::vector<double> labels;
    /// Parts of the same texts at other lengths, so that the pruned model keeps what it can do with
    /// lengths that the texts do not have.
    std::vector<sequence> recut;

    /// The sequences, and behind them those recut.
    std::vector<sequence> all() const;
};

/// At most `samples` documents of a text file, a document a line, or, if `labelled`, pairs of a
/// file of score, text, text; chosen by the seed. Scores become cosines: 0 (or the lowest, if
/// below) -> 0, the highest -> 1. A quarter of the sequences, drawn at random, is also recut.
/// Throws file_error.
calibration read_calibration(const std::filesystem::path& file, bool labelled, std::size_t samples,
                             std::uint64_t seed, const tokenizer& words, std::size_t max_tokens);

/// The matrix that reads a layer's units.
const dense& reader(const layer& l, unit_kind kind);
dense& reader(layer& l, unit_kind kind);

/// Takes the residual stream x through one sublayer, and says what its matrix read and what it
/// summed up to before the normalisation.
void advance(network& net, std::size_t l, unit_kind kind, const batch& b, matrix& x, matrix& inputs,
             matrix& sum);

/// Samples of the calibration data in one batch: a sequence each, or a pair that shares a label.
struct gradient_batch {
    std::int64_t first_sample, samples, first_token;
    const std::vector<std::int64_t>& offsets; ///< of samples, in the batch's tokens
};

/// A backward pass over the sequences, with labels of the squared error of pairs' cosines, else of
/// random projections of embeddings, drawn by sample.
void backward_over(
    network& net, const calibration& data, std::uint64_t seed,
    const std::function<void(const gradient_batch&, const network::sublayer_gradients&)>& visit);

/// The sequences of that pass: with labels not those recut.
std::vector<sequence> gradient_sequences(const calibration& data);

} // namespace encoder
