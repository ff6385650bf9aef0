// Gram accumulation: limited by multiply-adds.
#include "race.hpp"

#include <pare/gram.hpp>

#include <Eigen/Core>

namespace {

template <class T, class Acc>
void gram(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t columns = state.range(1), n = state.range(2);
    const std::vector<T> x = random_normal<T>(n * columns);
    pare::gram<Acc> sums(columns);
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const matrix> all(x.data(), n, columns);
    matrix eigen = matrix::Zero(columns, columns);
    Eigen::setNbThreads(threads);
    // A symmetric product needs half of the multiply-adds of a full one, the diagonal counted once.
    const double flops =
        static_cast<double>(n) * static_cast<double>(columns) * static_cast<double>(columns + 1);
    race(state, "eigen")
        .work(flops, static_cast<double>(n * columns) * sizeof(T) +
                         static_cast<double>(columns * columns) * sizeof(Acc) / 2)
        .run(
            [&] {
                sums.add(pare::simd.with(bench::threads{threads}),
                         pare::view(x.data(), n, columns));
            },
            [&] { return flops / peak_flops<T>(threads); },
            [&] { eigen.template selfadjointView<Eigen::Lower>().rankUpdate(all.transpose()); });
}
BENCHMARK_TEMPLATE(gram, float, double)
    ->ArgNames({"threads", "columns", "rows"})
    ->Args({1, 1536, 65536})
    ->Args({2, 1536, 65536})
    ->Args({1, 3072, 65536})
    ->Args({2, 3072, 65536})
    ->UseManualTime()
    ->MinTime(3)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(gram, double, double)
    ->ArgNames({"threads", "columns", "rows"})
    ->Args({1, 1536, 16384})
    ->Args({2, 1536, 16384})
    ->UseManualTime()
    ->MinTime(3)
    ->Unit(benchmark::kMillisecond);

} // namespace
