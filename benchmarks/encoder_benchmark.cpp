// The reference encoder: share of the multiply-add peak, dense and pruned, and how much of the
// reduction in multiply-adds arrives on the clock. Random weights of all-MiniLM-L6-v2's shape.
#include "race.hpp"
#include "random_encoder.hpp"

#include <encoder/network/network.hpp>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using bench::index_t;

void encode(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t sequences = state.range(1), length = state.range(2);
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
    const encoder::model m = random_model(6, 384, 12, 1536);
    encoder::batch b;
    for (index_t s = 0; s < sequences; ++s)
        b.append(std::vector<std::int32_t>(static_cast<std::size_t>(length),
                                           static_cast<std::int32_t>(s % 1000)));
    const encoder::model pruned_model = encoder::shrink(m, half(m));
    encoder::network dense(m), pruned(pruned_model);
    encoder::matrix out;
    const encoder::unit_costs costs = encoder::unit_costs::multiply_adds(
        m.config,
        std::vector<encoder::sequence>(1, encoder::sequence(static_cast<std::size_t>(length))));
    const double flops = 2 * costs.of(m) * static_cast<double>(sequences);
    race(state, "pruned") // 1 / speedup: the "peer" is the pruned model
        .work(flops, 4.0 * static_cast<double>(6 * 12 * 384 * 384 + 2 * sequences * length * 384))
        .run([&] { dense.forward(b, out); }, [&] { return flops / peak_flops<float>(threads); },
             [&] { pruned.forward(b, out); });
    const double ratio = costs.of(pruned_model) / costs.of(m);
    state.counters["macs_ratio"] = ratio;
    state.counters["gain_of_macs"] = ratio / state.counters["vs_pruned"];
    state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(sequences * length),
                                                    benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(encode)
    ->ArgNames({"threads", "sequences", "length"})
    ->Args({1, 32, 128})
    ->Args({2, 32, 128})
    ->Args({2, 32, 256})
    ->Args({2, 1, 32})
    ->UseManualTime()
    ->MinTime(3)
    ->Unit(benchmark::kMillisecond);

void growth_of_encoder(benchmark::State& state) {
    const index_t sequences = state.range(0);
    encoder::network network(bench::random_model(6, 384, 12, 1536));
    encoder::batch b;
    for (index_t s = 0; s < sequences; ++s) b.append(std::vector<std::int32_t>(128, 7));
    encoder::matrix out;
#ifdef _OPENMP
    omp_set_num_threads(omp_get_num_procs());
#endif
    for (auto _ : state) network.forward(b, out);
}
BENCHMARK(growth_of_encoder)
    ->ArgName("sequences")
    ->RangeMultiplier(4)
    ->Range(1, 256)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
