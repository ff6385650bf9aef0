// AdamW over a model's weights and thresholds: what a step is made of, and the CPU's.
#pragma once

#include "network.hpp"

#include <vector>

namespace encoder {

/// The factors of a step of AdamW, for a weight x with the gradient dx and the moments m and v:
///
///     m = b1 m + (1 - b1) clip dx,  v = b2 v + (1 - b2) (clip dx)^2
///     x = x kept(x) - rate m / (sqrt(v) root + epsilon)
struct step_factors {
    /// Of step `steps`, the first being 1; `length` is that of all weights' gradients.
    step_factors(const step_size& size, std::int64_t steps, double length);

    float kept(bool is_matrix) const { return is_matrix ? kept_of_matrices : 1.f; }

    float b1, b2, clip, rate, root, epsilon, kept_of_matrices;
};

/// The same for thresholds, of step state.steps; their gradients become 0.
void step_thresholds(moments& state, std::vector<double>& thresholds,
                     std::vector<double>& gradients, const step_size& size);

/// AdamW on the CPU, by the rules that a learner keeps. Results do not depend on the number of
/// threads.
class adamw {
  public:
    /// Moments of 0 for weights of these shapes.
    explicit adamw(const model& shape);

    /// Changes weights and thresholds (not below 0), and sets the gradients to 0.
    void step(model& weights, std::vector<double>& thresholds, gradients& found,
              const step_size& size);

    moments state;
};

} // namespace encoder
