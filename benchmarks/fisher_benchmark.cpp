// Fisher diagonal and per-sample mask gradients: limited by reading their inputs.
#include "race.hpp"

#include <pare/fisher.hpp>

#include <Eigen/Core>

namespace {

template <class T>
using rows = Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// 2,048 samples of the 12 x 3,072 filters of a BERT-base.
template <class T>
void fisher_diagonal(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    const bench::index_t samples = 2048, units = 36864;
    using namespace bench;
    const std::vector<T> g = random_normal<T>(samples * units);
    pare::fisher<> fisher(units);
    Eigen::Array<T, 1, Eigen::Dynamic> sums = Eigen::Array<T, 1, Eigen::Dynamic>::Zero(units);
    const Eigen::Map<const rows<T>> all(g.data(), samples, units);
    race(state, "eigen")
        .work(2.0 * static_cast<double>(samples * units),
              static_cast<double>(samples * units) * sizeof(T))
        .run(
            [&] {
                fisher.add(pare::simd.with(bench::threads{threads}),
                           pare::view(g.data(), samples, units));
            },
            [&] { return read_seconds(g.data(), samples * units, threads); },
            [&] { sums += all.square().colwise().sum(); });
}
BENCHMARK_TEMPLATE(fisher_diagonal, float)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(fisher_diagonal, double)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// 32 sequences of 128 tokens, 3,072 filters, or 12 heads of 64.
template <class T>
void mask_gradients(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t unit = state.range(1), columns = state.range(2), sequences = 32, length = 128;
    const index_t tokens = sequences * length;
    const std::vector<T> a = random_normal<T>(2 * tokens * columns);
    const T* const da = a.data() + tokens * columns;
    std::vector<index_t> offsets;
    for (index_t s = 0; s <= sequences; ++s) offsets.push_back(s * length);
    std::vector<T> out(static_cast<std::size_t>(sequences * columns / unit));
    rows<T> eigen(sequences, columns / unit);
    const Eigen::Map<const rows<T>> va(a.data(), tokens, columns), vda(da, tokens, columns);
    race(state, "eigen")
        .work(2.0 * static_cast<double>(tokens * columns),
              2.0 * static_cast<double>(tokens * columns) * sizeof(T))
        .run(
            [&] {
                pare::mask_gradients(pare::simd.with(bench::threads{threads}),
                                     pare::view(a.data(), tokens, columns),
                                     pare::view(da, tokens, columns), offsets, unit,
                                     pare::view(out.data(), sequences, columns / unit));
            },
            [&] { return read_seconds(a.data(), 2 * tokens * columns, threads); },
            [&] {
                for (index_t s = 0; s < sequences; ++s)
                    for (index_t u = 0; u < columns / unit; u += unit == 1 ? columns : 1) {
                        const index_t width = unit == 1 ? columns : unit;
                        const auto products = va.block(s * length, u * unit, length, width) *
                                              vda.block(s * length, u * unit, length, width);
                        if (unit == 1)
                            eigen.row(s) = products.colwise().sum();
                        else
                            eigen(s, u) = products.sum();
                    }
                benchmark::DoNotOptimize(eigen.data());
            });
}
BENCHMARK_TEMPLATE(mask_gradients, float)
    ->ArgNames({"threads", "unit", "columns"})
    ->Args({1, 1, 3072})
    ->Args({2, 1, 3072})
    ->Args({1, 64, 768})
    ->Args({2, 64, 768})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
