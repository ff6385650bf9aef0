// Whether a pruned model says what the dense one says where masks are 0 for the units that are gone.
#pragma once

#include "encoder/gpu/device.hpp"
#include "prune.hpp"

namespace encoder {

/// The dense model with those masks, and with what became of the weights of the units kept; in the
/// place of `where`. It drops no tokens.
std::unique_ptr<engine> with_masks(const engine& where, const model& dense, const model& pruned,
                                   const kept_units& kept);

/// Largest difference of two outputs that rounding explains, for weights stored as `type` and used
/// in that precision: embeddings of length 1, or logits.
double tolerance(data_type type, precision used, const matrix& outputs);

} // namespace encoder
