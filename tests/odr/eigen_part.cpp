// The same for the headers that need Eigen.
#include <pare/eliminate.hpp>
#include <pare/policy/simd.hpp>
#include <pare/prune.hpp>
#include <pare/prune/statistics_file.hpp>
#include <pare/tune.hpp>

#include <vector>

double PART(int tokens, int inputs) {
    std::vector<float> x(static_cast<std::size_t>(tokens * inputs)), w(x.size()), b(8);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * i % 17);
    pare::least_squares s(inputs, 8);
    const pare::view<const float, 2> rows(x.data(), tokens, inputs), y(x.data(), tokens, 8);
    s.add(pare::simd, rows, y);
    const pare::view<float, 2> weight(w.data(), 8, inputs);
    const double lost =
        pare::eliminate(pare::simd, s.covariance(), pare::view<double, 2>(), weight, 1).loss.back();
    return lost + pare::reconstruct(pare::simd, s, weight, b).error_after;
}
