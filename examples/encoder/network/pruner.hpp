// The stages of pare/prune.hpp that run where an encoder does.
#pragma once

#include "engine.hpp"

#include <pare/prune/refit.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace encoder {

/// Batches of calibration text and, for gradients, what is done with each.
struct pruning_text {
    std::vector<batch> batches;
    /// [batch] offsets of the samples, of one or more sequences each, in the batch's tokens.
    std::vector<std::vector<std::int64_t>> samples;
    /// Writes the gradient at what forward() gives for a batch; null: there are no gradients.
    std::function<void(std::int64_t batch, const matrix& outputs, matrix& gradient)> loss;
};

/// Of one engine, which must outlive it. Sublayer 2 l is the heads of layer l, 2 l + 1 its filters.
/// Throws as pare/prune.hpp and the engine do.
class pruner {
  public:
    virtual ~pruner() = default;

    /// pare::collect: of gradients if the text has a loss, or else of forward passes.
    virtual std::vector<pare::sublayer_statistics>
    collect(const pruning_text& text, const pare::prune_callback& callback) = 0;
    /// pare::collect_fisher; the text has a loss.
    virtual std::vector<pare::fisher<>> collect_fisher(const pruning_text& text,
                                                       const pare::fisher_options& options) = 0;
    /// pare::refit of an engine that was made of this one's, without the units that the plan removes.
    virtual std::vector<pare::refit_report>
    refit(engine& pruned, const pruning_text& text, const pare::prune_plan& plan,
          const std::vector<pare::sublayer_statistics>& statistics,
          const pare::refit_options& options) = 0;
};

} // namespace encoder
