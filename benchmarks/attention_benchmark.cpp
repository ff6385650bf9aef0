// Attention that yields importance: limited by multiply-adds. `vs_unscored` is the time of the same
// attention without scores over the time with them. A decoder's step, of one query a head against a
// cache: limited by reading that once, at the same `vs_unscored`; `rows` are those of its scores.
// Scores from log-sum-exp rows: half of the multiply-adds, and those of the counted queries alone;
// `vs_attention` is the time of attention with scores over theirs.
#include "race.hpp"

#include <pare/attention_scores.hpp>

#include <Eigen/Core>

#include <cmath>
#include <type_traits>

namespace {

using bench::index_t;

/// Packed sequences of one length, 12 heads of queries, keys and values interleaved.
struct packed {
    index_t heads = 12, tokens, size;
    std::vector<float> qkv, out, scores;
    std::vector<std::int32_t> offsets;

    packed(index_t batch, index_t n, index_t of_head)
        : tokens(batch * n), size(of_head),
          qkv(bench::random_normal<float>(tokens * 3 * heads * size)),
          out(static_cast<std::size_t>(tokens * heads * size)),
          scores(static_cast<std::size_t>(tokens)) {
        for (index_t s = 0; s <= batch; ++s) offsets.push_back(static_cast<std::int32_t>(s * n));
    }
    pare::view<const float, 3> part(index_t which) const {
        return {
            qkv.data() + which * heads * size, {tokens, heads, size}, {3 * heads * size, size, 1}};
    }
    pare::view<float, 3> result() { return {out.data(), tokens, heads, size}; }
};

void attention_with_importance(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t batch = state.range(1), n = state.range(2), size = state.range(3);
    packed p(batch, n, size);
    pare::workspace scratch;
    const auto policy = pare::simd.with(bench::threads{threads});
    const double flops = 4.0 * static_cast<double>(batch * p.heads * n * n * size);
    race(state, "unscored")
        .work(flops, 16.0 * static_cast<double>(p.tokens * p.heads * size))
        .run(
            [&] {
                pare::attention(policy, p.part(0), p.part(1), p.part(2), p.offsets, p.result(),
                                p.scores, {}, scratch);
            },
            [&] { return flops / peak_flops<float>(threads); },
            [&] {
                pare::attention(policy, p.part(0), p.part(1), p.part(2), p.offsets, p.result(), {},
                                scratch);
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

void decoding_step(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t batch = state.range(1), keys = state.range(2), heads = state.range(3);
    const index_t groups = state.range(4), size = state.range(5), rows = state.range(6);
    const index_t all = batch * keys, of_cache = all * groups * size;
    const auto q = random_normal<float>(batch * heads * size),
               cache = random_normal<float>(2 * of_cache);
    std::vector<float> out(q.size()), scores(static_cast<std::size_t>(rows * all));
    std::vector<std::int32_t> query_offsets, key_offsets;
    for (index_t s = 0; s <= batch; ++s) {
        query_offsets.push_back(static_cast<std::int32_t>(s));
        key_offsets.push_back(static_cast<std::int32_t>(s * keys));
    }
    const pare::view<const float, 3> queries(q.data(), batch, heads, size),
        k(cache.data(), all, groups, size), v(cache.data() + of_cache, all, groups, size);
    const pare::view<float, 3> result(out.data(), batch, heads, size);
    const pare::query_key_offsets offsets{query_offsets, key_offsets};
    pare::attention_options<float> options;
    options.mask.causal = true;
    pare::workspace scratch;
    const auto policy = pare::simd.with(bench::threads{threads});
    race(state, "unscored")
        .work(4.0 * static_cast<double>(all * heads * size), 8.0 * static_cast<double>(of_cache))
        .run(
            [&] {
                pare::attention(policy, queries, k, v, offsets, result,
                                pare::view(scores.data(), rows, all), options, scratch);
            },
            [&] { return read_seconds(cache.data(), 2 * of_cache, threads); },
            [&] { pare::attention(policy, queries, k, v, offsets, result, options, scratch); });
}
BENCHMARK(decoding_step)
    ->ArgNames({"threads", "batch", "keys", "heads", "groups", "size", "rows"})
    ->Args({1, 1, 4096, 9, 3, 64, 1})
    ->Args({2, 1, 4096, 9, 3, 64, 1})
    ->Args({2, 1, 1024, 9, 3, 64, 1})
    ->Args({2, 1, 8192, 9, 3, 64, 1})
    ->Args({2, 1, 2048, 9, 3, 64, 1})
    ->Args({2, 16, 1024, 9, 3, 64, 1})
    ->Args({2, 1, 4096, 12, 12, 64, 1})
    ->Args({2, 1, 4096, 32, 8, 128, 1})
    ->Args({2, 1, 4096, 32, 8, 128, 8})
    ->Args({2, 1, 4096, 32, 8, 128, 32})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// The same against a cache of Eigen::half. `vs_float`: the time of the step against a cache of floats
// over that of this one.
void decoding_step_of_halves(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t keys = state.range(1), heads = state.range(2), groups = state.range(3);
    const index_t size = state.range(4), of_cache = keys * groups * size;
    const auto q = random_normal<float>(heads * size), cache = random_normal<float>(2 * of_cache);
    const std::vector<Eigen::half> half_cache(cache.begin(), cache.end());
    std::vector<float> out(q.size()), scores(static_cast<std::size_t>(keys));
    const std::vector<std::int32_t> of_queries = {0, 1}, of_keys = {0, static_cast<int>(keys)};
    pare::workspace scratch;
    const auto policy = pare::simd.with(bench::threads{threads});
    const auto step = [&](const auto* all) {
        pare::attention_options<float> options;
        options.mask.causal = true;
        pare::attention(policy, pare::view<const float, 3>(q.data(), 1, heads, size),
                        pare::view(all, keys, groups, size),
                        pare::view(all + of_cache, keys, groups, size),
                        pare::query_key_offsets{of_queries, of_keys},
                        pare::view<float, 3>(out.data(), 1, heads, size), scores, options, scratch);
    };
    race(state, "float")
        .work(4.0 * static_cast<double>(keys * heads * size), 4.0 * static_cast<double>(of_cache))
        .run([&] { step(half_cache.data()); },
             [&] {
                 return read_seconds(reinterpret_cast<const float*>(half_cache.data()), of_cache,
                                     threads);
             },
             [&] { step(cache.data()); });
}
BENCHMARK(decoding_step_of_halves)
    ->ArgNames({"threads", "keys", "heads", "groups", "size"})
    ->Args({1, 4096, 12, 12, 64})
    ->Args({2, 4096, 12, 12, 64})
    ->Args({2, 4096, 32, 8, 128})
    ->Args({2, 4096, 9, 3, 64})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

void scores_of_log_sum_exp(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t batch = state.range(1), n = state.range(2), size = state.range(3);
    const index_t queries = state.range(4);
    packed p(batch, n, size);
    // What the rows are does not change the time: here, nearly those of standard normal logits.
    const std::vector<float> rows(static_cast<std::size_t>(p.tokens * p.heads),
                                  std::log(static_cast<float>(n)) + 0.5f);
    const pare::view<const float, 2> lse(rows.data(), p.tokens, p.heads);
    pare::attention_options<float> options;
    options.queries = pare::counted_queries::last(queries);
    pare::workspace scratch;
    const auto policy = pare::simd.with(bench::threads{threads});
    const double flops = 2.0 * static_cast<double>(batch * p.heads * n * queries * size);
    race(state, "attention")
        .work(flops, 4.0 * static_cast<double>(batch * (n + queries) * p.heads * size))
        .run(
            [&] {
                pare::attention_scores(policy, p.part(0), p.part(1), lse, p.offsets, p.scores,
                                       options, scratch);
            },
            [&] { return flops / peak_flops<float>(threads); },
            [&] {
                pare::attention(policy, p.part(0), p.part(1), p.part(2), p.offsets, p.result(),
                                p.scores, {}, scratch);
            });
}
BENCHMARK(scores_of_log_sum_exp)
    ->ArgNames({"threads", "batch", "length", "size", "queries"})
    ->Args({1, 32, 128, 32, 128})
    ->Args({2, 32, 128, 32, 128})
    ->Args({2, 8, 512, 64, 512})
    ->Args({2, 8, 512, 64, 32})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
