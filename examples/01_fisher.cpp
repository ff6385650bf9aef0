// Importance of filters, from two buffers that a model with a backward pass has.
#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>

#include <cstdio>
#include <random>
#include <vector>

int main() {
    // Stand-ins for a model's buffers: three samples of 4, 2 and 5 tokens, 8 filters; filter 3 is
    // dead.
    const std::vector<int> offsets = {0, 4, 6, 11};
    const int samples = 3, tokens = 11, filters = 8;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> activation(tokens * filters), gradient(tokens * filters);
    for (float& x : activation) x = normal(random);
    for (float& x : gradient) x = normal(random);
    for (int t = 0; t < tokens; ++t) activation[static_cast<std::size_t>(t * filters + 3)] = 0;

    // [example]
    // What a mask of ones would multiply, and dL/d of it. Both [tokens x filters].
    std::vector<float> g(samples * filters);
    pare::mask_gradients(pare::simd, pare::view(activation.data(), tokens, filters),
                         pare::view(gradient.data(), tokens, filters), offsets, /*unit=*/1,
                         pare::view(g.data(), samples, filters));

    // Add as many batches as there are; merge what other threads have.
    pare::fisher<> fisher(filters);
    fisher.add(pare::simd, pare::view(g.data(), samples, filters));
    std::vector<double> importance = fisher.diagonal();
    // [example]

    for (double x : importance) std::printf("%.3f ", x);
    std::printf("\n");
    return importance[3] == 0 && importance[2] > 0 ? 0 : 1;
}
