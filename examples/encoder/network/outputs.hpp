// What becomes of the pooled rows: embeddings, or what a model's head makes of them. On the host, for
// every engine.
#pragma once

#include "encoder/files/model.hpp"

namespace encoder {

/// Of the sequences' mean or first rows [sequences x hidden], what forward() gives: logits, scores, or
/// rows of length 1. Results do not depend on the number of threads.
matrix outputs_of(const model& m, const matrix& pooled);

/// What a backward pass finds there.
struct outputs_gradient {
    matrix at_pooled; ///< [sequences x hidden]
    /// Of a head with a layer before its output, what the output layer reads, and the gradient at
    /// what that layer gives, before its activation; otherwise empty.
    matrix inner, at_before;
};
outputs_gradient outputs_backward(const model& m, const matrix& pooled, const matrix& outputs,
                                  const matrix& gradient);

} // namespace encoder
