// A decoder's step beside ggml's, llama.cpp's library, where that is installed, with all keys seen and
// a cache of floats or of halves: `vs_ggml` is its time over ours, whose step gives scores too. By its
// fused attention, or by products and a softmax, for which it stores values transposed.
#ifdef PARE_BENCHMARK_GGML
#include "race.hpp"

#include <pare/attention.hpp>

#include <ggml-cpu.h>
#include <ggml.h>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <type_traits>

namespace {

using bench::index_t;

/// A graph of one step over a cache [groups x keys x size].
class ggml_step {
  public:
    ggml_step(ggml_type type, index_t keys, index_t heads, index_t groups, index_t size, bool fused)
        : context_(ggml_init({static_cast<std::size_t>((2 * keys * groups + 8 * heads) * size * 4 +
                                                       8 * keys * heads * 4 + (1 << 24)),
                              nullptr, false})) {
        ggml_context* const c = context_.get();
        q = ggml_new_tensor_3d(c, GGML_TYPE_F32, size, 1, heads);
        k = ggml_new_tensor_3d(c, type, size, keys, groups);
        v = fused ? ggml_new_tensor_3d(c, type, size, keys, groups)
                  : ggml_new_tensor_3d(c, type, keys, size, groups);
        const float scale = 1 / std::sqrt(static_cast<float>(size));
        out = fused ? ggml_flash_attn_ext(c, q, k, v, nullptr, scale, 0, 0)
                    : ggml_mul_mat(c, v,
                                   ggml_soft_max_ext(c, ggml_mul_mat(c, k, q), nullptr, scale, 0));
        graph_ = ggml_new_graph(c);
        ggml_build_forward_expand(graph_, out);
    }
    void run(int threads) {
        ggml_cplan plan = ggml_graph_plan(graph_, threads, nullptr);
        work_.resize(plan.work_size);
        plan.work_data = work_.data();
        if (ggml_graph_compute(graph_, &plan) != GGML_STATUS_SUCCESS)
            throw std::runtime_error("ggml could not run its graph");
    }

    ggml_tensor *q, *k, *v, *out;

  private:
    struct free_context {
        void operator()(ggml_context* c) const { ggml_free(c); }
    };
    std::unique_ptr<ggml_context, free_context> context_;
    ggml_cgraph* graph_;
    std::vector<std::uint8_t> work_;
};

template <class K>
void decoding_step_beside_ggml(benchmark::State& state) {
    using namespace bench;
    constexpr bool half = !std::is_same_v<K, float>;
    const int threads = static_cast<int>(state.range(0));
    const index_t keys = state.range(1), heads = state.range(2), groups = state.range(3),
                  size = state.range(4), of_cache = keys * groups * size;
    const bool fused = state.range(5) != 0;
    const auto q = random_normal<float>(heads * size), numbers = random_normal<float>(2 * of_cache);
    const std::vector<K> cache(numbers.begin(), numbers.end());
    std::vector<float> out(q.size()), scores(static_cast<std::size_t>(keys));
    const std::vector<std::int32_t> one = {0, 1}, all = {0, static_cast<std::int32_t>(keys)};
    const pare::view<const float, 3> queries(q.data(), 1, heads, size);
    const pare::view<const K, 3> k(cache.data(), keys, groups, size),
        v(cache.data() + of_cache, keys, groups, size);
    const pare::view<float, 3> result(out.data(), 1, heads, size);
    pare::attention_options<float> options;
    options.mask.causal = true;
    pare::workspace scratch;
    const auto policy = pare::simd.with(bench::threads{threads});
    const auto ours = [&] {
        pare::attention(policy, queries, k, v, pare::query_key_offsets{one, all}, result, scores,
                        options, scratch);
    };
    ggml_step theirs(half ? GGML_TYPE_F16 : GGML_TYPE_F32, keys, heads, groups, size, fused);
    const auto of_k = static_cast<K*>(theirs.k->data), of_v = static_cast<K*>(theirs.v->data);
    std::copy(q.begin(), q.end(), ggml_get_data_f32(theirs.q));
    for (index_t g = 0; g < groups; ++g)
        for (index_t j = 0; j < keys; ++j)
            for (index_t i = 0; i < size; ++i) {
                of_k[(g * keys + j) * size + i] = k(j, g, i);
                of_v[fused ? (g * keys + j) * size + i : (g * size + i) * keys + j] = v(j, g, i);
            }
    ours();
    theirs.run(threads);
    // Both give [heads x size]. Of a cache of halves, ggml sums values up in halves.
    const float allowed = half ? 5e-2f : 1e-3f;
    for (index_t i = 0; i < heads * size; ++i)
        if (!(std::abs(out[static_cast<std::size_t>(i)] - ggml_get_data_f32(theirs.out)[i]) <
              allowed))
            throw std::runtime_error("ggml's attention is another one");
    race(state, "ggml")
        .work(4.0 * static_cast<double>(keys * heads * size),
              static_cast<double>(cache.size() * sizeof(K)))
        .run(
            ours,
            [&] {
                return read_seconds(reinterpret_cast<const float*>(cache.data()),
                                    static_cast<index_t>(cache.size() * sizeof(K) / sizeof(float)),
                                    threads);
            },
            [&] { theirs.run(threads); });
}
void steps(benchmark::internal::Benchmark* rows) {
    rows->ArgNames({"threads", "keys", "heads", "groups", "size", "fused"})
        ->ArgsProduct({{1, 2}, {4096}, {9}, {3}, {64}, {0, 1}})
        ->ArgsProduct({{1, 2}, {4096}, {32}, {8}, {128}, {0, 1}})
        ->ArgsProduct({{1, 2}, {4096}, {12}, {12}, {64}, {0, 1}})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}
BENCHMARK(decoding_step_beside_ggml<float>)->Name("decoding_step_beside_ggml")->Apply(steps);
BENCHMARK(decoding_step_beside_ggml<Eigen::half>)
    ->Name("decoding_step_of_halves_beside_ggml")
    ->Apply(steps);

} // namespace
#endif
