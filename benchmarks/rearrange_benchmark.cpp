// Mask rearrangement: the Gram matrix is limited by multiply-adds, the exchanges by reading its
// rows.
#include "race.hpp"

#include <pare/fisher.hpp>
#include <pare/rearrange.hpp>

#include <Eigen/Core>

#include <limits>
#include <numeric>

namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// The greedy pass with Eigen expressions and incremental sums.
void greedy_eigen(const matrix& g, std::vector<std::uint8_t>& mask) {
    const Eigen::VectorXf d = g.diagonal();
    Eigen::VectorXf sums = Eigen::VectorXf::Zero(d.size()), kept = sums;
    std::vector<Eigen::Index> order(mask.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return d(a) < d(b); });
    for (const Eigen::Index i : order)
        if (mask[static_cast<std::size_t>(i)])
            kept(i) = std::numeric_limits<float>::max() / 4;
        else
            sums += g.row(i);
    for (const Eigen::Index a : order) {
        if (kept(a) == 0) continue;
        kept(a) = 0;
        sums += g.row(a);
        Eigen::Index back;
        (d - 2 * sums + kept).minCoeff(&back);
        sums -= g.row(back);
        kept(back) = std::numeric_limits<float>::max() / 4;
    }
    for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = kept(static_cast<Eigen::Index>(i)) != 0;
}

// One sweep over a given block: half of 3,072 filters pruned.
void exchange_sweep(benchmark::State& state) {
    using namespace bench;
    const index_t n = state.range(0), samples = state.range(1);
    const std::vector<float> x = random_normal<float>(samples * n);
    pare::fisher<float> fisher(n, pare::fisher_kind::block);
    fisher.add(pare::simd, pare::view(x.data(), samples, n));
    const auto block = fisher.block_sums();
    const matrix eigen = Eigen::Map<const matrix>(block.data_handle(), n, n);
    const std::vector<double> diagonal = fisher.diagonal();
    std::vector<index_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), index_t{0});
    std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
        return diagonal[static_cast<std::size_t>(a)] < diagonal[static_cast<std::size_t>(b)];
    });
    std::vector<std::uint8_t> start(static_cast<std::size_t>(n), 1), mask;
    for (index_t i = 0; i < n / 2; ++i)
        start[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = 0;
    pare::rearrange_options one_sweep;
    one_sweep.max_sweeps = 1;
    race(state, "eigen")
        .work(2.0 * static_cast<double>(n * n), 4.0 * static_cast<double>(n * n))
        .run(
            [&] {
                mask = start;
                pare::rearrange(pare::simd.with(bench::threads{1}), block, mask, one_sweep);
            },
            // Pruned units' rows are read for the first sums, kept ones' when their exchange is
            // tried.
            [&] { return read_seconds(block.data_handle(), n * n, 1); },
            [&] {
                mask = start;
                greedy_eigen(eigen, mask);
            });
}
BENCHMARK(exchange_sweep)
    ->ArgNames({"filters", "samples"})
    ->Args({3072, 64})
    ->Args({3072, 2048})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// The block for it, from per-sample gradients.
void block_fisher(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t n = 3072, samples = state.range(1);
    const std::vector<float> x = random_normal<float>(samples * n);
    pare::fisher<float> fisher(n, pare::fisher_kind::block);
    const Eigen::Map<const matrix> all(x.data(), samples, n);
    matrix eigen = matrix::Zero(n, n);
    Eigen::setNbThreads(threads);
    const double flops =
        static_cast<double>(samples) * static_cast<double>(n) * static_cast<double>(n + 1);
    race(state, "eigen")
        .work(flops, 4.0 * static_cast<double>(samples * n + n * n / 2))
        .run(
            [&] {
                fisher.add(pare::simd.with(bench::threads{threads}),
                           pare::view(x.data(), samples, n));
            },
            [&] { return flops / peak_flops<float>(threads); },
            [&] { eigen.selfadjointView<Eigen::Lower>().rankUpdate(all.transpose()); });
}
BENCHMARK(block_fisher)
    ->ArgNames({"threads", "samples"})
    ->Args({1, 64})
    ->Args({2, 64})
    ->Args({1, 2048})
    ->Args({2, 2048})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
