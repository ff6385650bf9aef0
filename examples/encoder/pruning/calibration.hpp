// The text that an encoder is pruned with, and passes over it.
#pragma once

#include "encoder/network/pruner.hpp"
#include "encoder/task/dataset.hpp"

namespace encoder {

/// What the model is pruned with.
struct calibration {
    dataset examples; ///< without targets, gradients need no labels
    /// Without targets, texts beside them: parts of the same ones at other lengths, so that the pruned
    /// model keeps what it can do with lengths that the texts do not have, though not of pairs; and
    /// texts of other kinds.
    std::vector<sequence> beside;

    /// The texts, and behind them those beside.
    std::vector<sequence> all() const;
};

/// At most `samples` examples of a file, chosen by the seed. For a model without a head, documents, a
/// document a line, or, if `labelled`, score, text, text; for one with a head, text or text, text,
/// behind a label or score if `labelled`; for one with a head on tokens as read_dataset() has it. A
/// quarter of the texts, drawn at random, is also recut. `generic`: a file of texts of other kinds, of
/// which as many samples are put beside, without labels, or empty. Throws file_error.
calibration read_calibration(const std::filesystem::path& file, bool labelled, std::size_t samples,
                             std::uint64_t seed, const tokenizer& words, const model& m,
                             const std::filesystem::path& generic = {});

/// What the gradients of a backward pass are of.
enum class gradient_source {
    /// The loss of the targets. A sample is a text, or a pair that shares a label.
    labels,
    /// Random functions of each text's outputs, whose gradient has mean zero and as covariance the
    /// metric in which outputs differ: of embeddings and scores the identity, of logits the Fisher
    /// information of the classes, diag(p) - p p', which for answers are the text's tokens.
    outputs
};

/// What backward passes run over: the examples and, for gradients of outputs, what is beside them.
/// `data` must outlive it.
pruning_text gradient_text(const engine& net, const calibration& data, gradient_source source,
                           std::uint64_t seed);

/// What forward passes run over.
pruning_text forward_text(const engine& net, const std::vector<sequence>& sequences);

} // namespace encoder
