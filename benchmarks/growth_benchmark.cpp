// How time grows with size: table.py fits the exponent.
#include "race.hpp"

#include <encoder/network/network.hpp>

#include <pare/attention.hpp>
#include <pare/fisher.hpp>
#include <pare/rearrange.hpp>
#include <pare/ridge.hpp>

#include <Eigen/Core>

namespace {

using bench::index_t;

void growth_of_attention(benchmark::State& state) {
    const index_t n = state.range(0), heads = 4, size = 64;
    const std::vector<float> qkv = bench::random_normal<float>(3 * n * heads * size);
    std::vector<float> out(static_cast<std::size_t>(n * heads * size));
    std::vector<float> scores(static_cast<std::size_t>(n));
    const std::vector<index_t> offsets = {0, n};
    const auto part = [&](index_t which) {
        return pare::view<const float, 3>(qkv.data() + which * n * heads * size, {n, heads, size},
                                          {size, n * size, 1});
    };
    const pare::view<float, 3> result(out.data(), {n, heads, size}, {size, n * size, 1});
    pare::workspace scratch;
    for (auto _ : state)
        pare::attention(pare::simd, part(0), part(1), part(2), offsets, result, scores, {},
                        scratch);
}
BENCHMARK(growth_of_attention)
    ->ArgName("tokens")
    ->RangeMultiplier(4)
    ->Range(64, 16384)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void growth_of_rearrangement(benchmark::State& state) {
    const index_t n = state.range(0), samples = 64;
    const std::vector<float> x = bench::random_normal<float>(samples * n);
    pare::fisher<float> fisher(n, pare::fisher_kind::block);
    fisher.add(pare::simd, pare::view(x.data(), samples, n));
    const auto block = fisher.block_sums();
    std::vector<std::uint8_t> mask;
    pare::rearrange_options one_sweep;
    one_sweep.max_sweeps = 1;
    for (auto _ : state) {
        mask.assign(static_cast<std::size_t>(n), 0);
        std::fill(mask.begin() + static_cast<std::ptrdiff_t>(n / 2), mask.end(), 1);
        pare::rearrange(pare::simd, block, mask, one_sweep);
    }
}
BENCHMARK(growth_of_rearrangement)
    ->ArgName("filters")
    ->RangeMultiplier(4)
    ->Range(256, 16384)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void growth_of_ridge_solve(benchmark::State& state) {
    using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const index_t n = state.range(0), right = 64;
    matrix g = matrix::Zero(n, n), b = matrix::Random(n, right);
    for (auto _ : state) {
        g.triangularView<Eigen::Lower>() = matrix::Constant(n, n, 0.5); // what is solved is lost
        state.SetIterationTime(bench::seconds([&] {
            if (!pare::ridge_solve(pare::simd, g, 1.0, b)) state.SkipWithError("not solved");
        }));
    }
}
BENCHMARK(growth_of_ridge_solve)
    ->ArgName("filters")
    ->RangeMultiplier(4)
    ->Range(256, 16384)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
