// AdamW over a model's weights and thresholds.
#pragma once

#include "network.hpp"

#include <cstdint>
#include <vector>

namespace encoder {

/// Learning rates of a step and what does not change between steps.
struct step_size {
    double rate, threshold_rate;
    double decay = 0.01; ///< of matrices, not of biases and normalisations; times the rate
    double longest = 1;  ///< gradients of the weights longer than this are scaled down to it
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// Adam with decoupled weight decay (arXiv:1711.05101). Rows of the word embeddings that a step has
/// no gradient for stay as they are, and so do their moments. Results do not depend on the number
/// of threads.
class adamw {
  public:
    /// Moments of 0 for weights of these shapes.
    explicit adamw(const model& shape);

    /// Changes weights and thresholds (not below 0), and sets the gradients to 0.
    void step(model& weights, std::vector<double>& thresholds, gradients& found,
              const step_size& size);

    /// What a checkpoint needs.
    struct moments {
        model first, second;
        std::vector<double> first_of_thresholds, second_of_thresholds;
        std::int64_t steps = 0;
    };
    moments state;
};

} // namespace encoder
