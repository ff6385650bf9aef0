// Importance of given probabilities: limited by reading them.
#include "race.hpp"

#include <pare/importance.hpp>

#include <Eigen/Core>

namespace {

void importance_of_probabilities(benchmark::State& state) {
    using namespace bench;
    using rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const int threads = static_cast<int>(state.range(0));
    const index_t batch = state.range(1), heads = 12, n = state.range(2);
    const std::vector<float> p(static_cast<std::size_t>(batch * heads * n * n),
                               1 / static_cast<float>(n));
    std::vector<float> scores(static_cast<std::size_t>(batch * n)), eigen(scores);
    pare::workspace scratch;
    race(state, "eigen")
        .work(static_cast<double>(batch * heads * n * n),
              4.0 * static_cast<double>(batch * heads * n * n))
        .run(
            [&] {
                pare::importance(pare::simd.with(bench::threads{threads}),
                                 pare::view<const float, 4>(p.data(), batch, heads, n, n),
                                 std::vector<int>{}, pare::view<float, 2>(scores.data(), batch, n),
                                 {}, scratch);
            },
            [&] { return read_seconds(p.data(), batch * heads * n * n, threads); },
            [&] {
                bench::threads{threads}.run(batch, [&](index_t b, index_t) {
                    const Eigen::Map<const rows> all(p.data() + b * heads * n * n, heads * n, n);
                    Eigen::Map<Eigen::RowVectorXf>(eigen.data() + b * n, n) = all.colwise().mean();
                });
            });
}
BENCHMARK(importance_of_probabilities)
    ->ArgNames({"threads", "batch", "length"})
    ->Args({1, 32, 128})
    ->Args({2, 32, 128})
    ->Args({1, 8, 512})
    ->Args({2, 8, 512})
    ->Args({1, 1, 128})
    ->Args({2, 1, 128})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
