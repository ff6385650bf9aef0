// Removing half of the filters of an FFN and refitting the matrix behind them.
#include <pare/policy/simd.hpp>
#include <pare/shrink.hpp>
#include <pare/tune.hpp>

#include <Eigen/Core>

#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const int tokens = 2000, hidden = 16, filters = 32;
    const matrix x = matrix::Random(tokens, hidden);
    const matrix w1 = matrix::Random(filters, hidden),
                 w2 = matrix::Random(hidden, filters); // out x in
    const Eigen::VectorXf b1 = Eigen::VectorXf::Random(filters),
                          b2 = Eigen::VectorXf::Random(hidden);
    std::vector<std::uint8_t> mask(filters);
    for (int f = 0; f < filters; ++f) mask[static_cast<std::size_t>(f)] = f % 2;
    const auto active = [](const matrix& in, const matrix& w, const Eigen::VectorXf& b) {
        return matrix(((in * w.transpose()).rowwise() + b.transpose()).cwiseMax(0.0f));
    };
    const matrix target = (active(x, w1, b1) * w2.transpose()).rowwise() + b2.transpose();

    // [example]
    const auto kept = pare::kept_positions(mask);
    matrix small_w1(kept.size(), hidden), small_w2(hidden, kept.size());
    Eigen::VectorXf small_b1(kept.size()), small_b2 = b2;
    pare::keep_rows(pare::simd, w1, kept, small_w1);    // filters out of the first matrix,
    pare::keep_entries(pare::simd, b1, kept, small_b1); // its bias,
    pare::keep_columns(pare::simd, w2, kept, small_w2); // and the second

    // The pruned layer's own inputs to w2, and what it should add: batch after batch.
    pare::least_squares statistics(static_cast<int>(kept.size()), hidden);
    statistics.add(pare::simd, active(x, small_w1, small_b1), target);
    pare::tune_result r = pare::reconstruct(pare::simd, statistics, small_w2, small_b2);
    if (!r) std::printf("left as it is: %s\n", r.failure.c_str());
    // [example]

    std::printf("mean squared error %.3f -> %.3f of variance %.3f\n", r.error_before, r.error_after,
                r.variance);
    return r && r.error_after < r.error_before ? 0 : 1;
}
