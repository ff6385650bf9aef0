// Which filters least squares can do without, from a layer's buffers: its inputs, its output and
// the gradient there.
#include <pare/eliminate.hpp>
#include <pare/least_squares.hpp>
#include <pare/policy/simd.hpp>

#include <cstdio>
#include <random>
#include <vector>

int main() {
    // Stand-ins for a model's buffers: of 12 filters the last 4 are mixtures of the first 8.
    const int tokens = 200, filters = 12, hidden = 6;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(tokens * filters), y(tokens * hidden), dy(tokens * hidden);
    std::vector<float> weight(hidden * filters);
    for (float& a : x) a = normal(random);
    for (float& a : dy) a = normal(random);
    for (float& a : weight) a = normal(random);
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t f = 8; f < filters; ++f)
            x[t * filters + f] = x[t * filters + f - 8] - x[t * filters + f - 5];
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t o = 0; o < hidden; ++o)
            for (std::size_t f = 0; f < filters; ++f)
                y[t * hidden + o] += weight[o * filters + f] * x[t * filters + f];

    // [example]
    pare::least_squares inputs(filters, hidden); // also what pare::reconstruct needs
    inputs.add(pare::simd, pare::view(x.data(), tokens, filters),
               pare::view(y.data(), tokens, hidden));
    pare::gram<double> metric(hidden);
    metric.add(pare::simd, pare::view(dy.data(), tokens, hidden));
    std::vector<double> mean = metric.mean();
    pare::loss_curve curve =
        pare::eliminate(pare::simd, inputs.covariance(),
                        pare::view(mean.data(), hidden, hidden), // {} without gradients
                        pare::view(weight.data(), hidden, filters), /*unit=*/1, /*ridge=*/1e-6);
    // [example]

    for (std::size_t k = 0; k < curve.order.size(); ++k)
        std::printf("filter %2d goes, loss %10.4f\n", static_cast<int>(curve.order[k]),
                    curve.loss[k + 1]);
    return curve.loss[4] < 1e-3 * curve.loss[5] ? 0 : 1; // four cost nothing
}
