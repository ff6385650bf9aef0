// Attention that yields importance: limited by multiply-adds. `vs_unscored` is the time of the same
// attention without scores over the time with them.
#include "race.hpp"

#include <pare/attention.hpp>

namespace {

void attention_with_importance(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t batch = state.range(1), n = state.range(2), size = state.range(3), heads = 12;
    const index_t tokens = batch * n, columns = 3 * heads * size;
    const std::vector<float> qkv = random_normal<float>(tokens * columns);
    std::vector<float> out(static_cast<std::size_t>(tokens * heads * size));
    std::vector<float> scores(static_cast<std::size_t>(tokens));
    std::vector<std::int32_t> offsets;
    for (index_t s = 0; s <= batch; ++s) offsets.push_back(static_cast<std::int32_t>(s * n));
    const auto part = [&](index_t which) {
        return pare::view<const float, 3>(qkv.data() + which * heads * size, {tokens, heads, size},
                                          {columns, size, 1});
    };
    const pare::view<float, 3> result(out.data(), tokens, heads, size);
    pare::workspace scratch;
    const auto policy = pare::simd.with(bench::threads{threads});
    const double flops = 4.0 * static_cast<double>(batch * heads * n * n * size);
    race(state, "unscored")
        .work(flops, 16.0 * static_cast<double>(tokens * heads * size))
        .run(
            [&] {
                pare::attention(policy, part(0), part(1), part(2), offsets, result, scores, {},
                                scratch);
            },
            [&] { return flops / peak_flops<float>(threads); },
            [&] {
                pare::attention(policy, part(0), part(1), part(2), offsets, result, {}, scratch);
            });
}
BENCHMARK(attention_with_importance)
    ->ArgNames({"threads", "batch", "length", "size"})
    ->Args({1, 32, 128, 32})
    ->Args({2, 32, 128, 32})
    ->Args({1, 8, 512, 32})
    ->Args({2, 8, 512, 32})
    ->Args({1, 8, 512, 64})
    ->Args({2, 8, 512, 64})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
