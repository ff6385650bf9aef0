// What training asks of an encoder, wherever that runs: gradients, and steps against them.
#pragma once

#include "engine.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace encoder {

/// How tokens leave while an encoder learns.
struct learning {
    /// > 0: tokens fade out by soft masks sigmoid((score - threshold) / temperature), which gives
    /// thresholds gradients. A token of which c is left by the product of its masks has log(c)
    /// added to its key's logits, and to its row in a maximum, and counts c times as a query in the
    /// scores and in the mean; what c falls by in a layer counts there as a dropped token would. 0:
    /// tokens are dropped as in forward().
    double temperature = 0;
    /// The price of a token, and its part that the layers behind each layer have in it (a layer
    /// each, or none): lambda * sum over layers of weight * the mean over sequences of the share of
    /// their tokens that is left behind the layer is added to the loss. Only soft masks have
    /// gradients.
    double lambda = 0;
    std::vector<double> weights;
};

/// What a pass of learning finds besides the gradients of weights.
struct token_gradients {
    std::vector<double> thresholds; ///< added to
    std::vector<double> left;       ///< by layer, the share of tokens that is left behind it
    /// By layer, what the weighted sum of the shares left grows by with its threshold, were the
    /// scores not to change.
    std::vector<double> left_by_threshold;

    /// Before a pass over so many layers.
    void begin(std::size_t layers) {
        thresholds.resize(layers);
        left.assign(layers, 1);
        left_by_threshold.assign(layers, 0);
    }
};

/// Learning rates of a step and what does not change between steps.
struct step_size {
    double rate, threshold_rate;
    double decay = 0.01; ///< of matrices, not of biases and normalisations; times the rate
    double longest = 1;  ///< gradients of the weights longer than this are scaled down to it
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// What AdamW remembers of the steps that it made.
struct moments {
    model first, second; ///< of the model's shapes
    std::vector<double> first_of_thresholds, second_of_thresholds;
    std::int64_t steps = 0;
};

/// Learns the weights of an engine, which must outlive it and is changed by nothing else meanwhile;
/// its model() has what was learned. Gradients and moments begin with 0 and are where the engine
/// runs.
///
/// Steps are Adam's with decoupled weight decay (arXiv:1711.05101). Rows of the word embeddings that
/// a step has no gradient for stay as they are, and so do their moments. Results are the same in
/// every run.
class learner {
  public:
    virtual ~learner() = default;

    /// One forward and one backward pass, without masks: adds to the gradients of all weights and
    /// to what is found(). Throws std::invalid_argument for a batch or numbers that do not fit.
    virtual void learn(const batch& b, const engine::loss_gradient& loss, const learning& how) = 0;
    /// The caller may change it until step().
    virtual token_gradients& found() = 0;

    /// Changes weights and thresholds (not below 0), and sets their gradients to 0. On a GPU it
    /// throws std::runtime_error, with nothing changed, for gradients that are not finite.
    virtual void step(std::vector<double>& thresholds, const step_size& size) = 0;

    /// Changes the moments, shapes kept. They are in the host's memory meanwhile.
    virtual void update(const std::function<void(moments&)>& change) = 0;
};

} // namespace encoder
