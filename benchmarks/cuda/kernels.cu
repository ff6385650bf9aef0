// The components on a GPU, each beside copying as many bytes within its memory. Times are the
// device's, of calls that the host queues without waiting, where they allow that.
#include "../ratios.hpp"
#include "pool.hpp"
#include "random.hpp"

#include <pare/attention_scores.hpp>
#include <pare/compact.hpp>
#include <pare/fisher.hpp>
#include <pare/importance.hpp>
#include <pare/policy/thrust.hpp>
#include <pare/soft_mask.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <thrust/device_vector.h>

#include <cstdio>
#include <memory>
#include <string>
#include <type_traits>

namespace {

using pare::index_t;
using pare::detail::check_cuda;
template <class T, int Rank>
using view = pare::view<T, Rank>;

template <class T>
thrust::device_vector<T> random(index_t n, std::uint64_t seed = 1) {
    return bench::device_normal<T>(n, seed);
}
template <class T>
T* raw(thrust::device_vector<T>& x) {
    return thrust::raw_pointer_cast(x.data());
}

/// One benchmark on a stream of its own.
class device_race {
  public:
    explicit device_race(benchmark::State& state) : state_(state) {
        check_cuda("cudaStreamCreateWithFlags",
                   cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        memory_ = std::make_unique<bench::pool>(stream_);
        for (cudaEvent_t* event : {&first_, &last_})
            check_cuda("cudaEventCreate", cudaEventCreate(event));
    }
    ~device_race() {
        cudaEventDestroy(first_);
        cudaEventDestroy(last_);
        cudaStreamDestroy(stream_);
    }
    device_race(const device_race&) = delete;

    auto policy() { return memory_->policy(); }

    /// Ours, and a copy that reads and writes `bytes` in all; a peer, or null.
    template <class Ours, class Peer = std::nullptr_t>
    void run(double bytes, const Ours& ours, const char* peer_name = "",
             const Peer& peer = nullptr) {
        const auto half = static_cast<std::size_t>(bytes / 2);
        thrust::device_vector<char> from(half), to(half);
        const auto copy = [&] {
            check_cuda("cudaMemcpyAsync", cudaMemcpyAsync(raw(to), raw(from), half,
                                                          cudaMemcpyDeviceToDevice, stream_));
        };
        ours();
        bench::ratios found;
        for (auto _ : state_) {
            const double t = seconds(ours);
            if (half > 0) found.add_limit(t, seconds(copy));
            if constexpr (!std::is_same_v<Peer, std::nullptr_t>) found.add_peer(t, seconds(peer));
            state_.SetIterationTime(t);
        }
        found.report(state_, peer_name);
        state_.counters["bytes"] = bytes;
    }

  private:
    /// Of one of ten calls, so that the queue is never empty.
    template <class F>
    double seconds(const F& f) {
        constexpr int calls = 10;
        check_cuda("cudaEventRecord", cudaEventRecord(first_, stream_));
        for (int i = 0; i < calls; ++i) f();
        check_cuda("cudaEventRecord", cudaEventRecord(last_, stream_));
        check_cuda("cudaEventSynchronize", cudaEventSynchronize(last_));
        float milliseconds = 0;
        check_cuda("cudaEventElapsedTime", cudaEventElapsedTime(&milliseconds, first_, last_));
        return 1e-3 * static_cast<double>(milliseconds) / calls;
    }

    benchmark::State& state_;
    cudaStream_t stream_ = nullptr;
    std::unique_ptr<bench::pool> memory_;
    cudaEvent_t first_ = nullptr, last_ = nullptr;
};

template <class T>
void importance_of_probabilities(benchmark::State& state) {
    const index_t batch = state.range(0), heads = 12, n = state.range(1);
    const index_t size = batch * heads * n * n;
    thrust::device_vector<T> p(static_cast<std::size_t>(size),
                               static_cast<T>(1 / static_cast<float>(n)));
    thrust::device_vector<float> scores(static_cast<std::size_t>(batch * n));
    device_race race(state);
    race.run(static_cast<double>(size) * sizeof(T), [&] {
        pare::importance(race.policy(), view<const T, 4>(raw(p), batch, heads, n, n),
                         view<const int, 1>(), view<float, 2>(raw(scores), batch, n));
    });
}

// Forward and backward: two arrays read and one written, twice, but for one that is not read.
void soft_mask(benchmark::State& state) {
    const index_t n = state.range(0);
    auto scores = random<float>(n), gradient = random<float>(n, 2), mask = scores, found = scores;
    device_race race(state);
    race.run(20.0 * static_cast<double>(n), [&] {
        pare::soft_mask(race.policy(), view<const float, 1>(raw(scores), n), 0, 0.25,
                        view<float, 1>(raw(mask), n));
        benchmark::DoNotOptimize(pare::soft_mask_backward(
            race.policy(), view<const float, 1>(raw(mask), n),
            view<const float, 1>(raw(gradient), n), 0.25, view<float, 1>(raw(found), n)));
    });
}

template <class T>
struct hidden_rows {
    index_t tokens, columns;
    thrust::device_vector<T> mask = random<T>(tokens), mask_gradient = mask;
    thrust::device_vector<T> x = random<T>(tokens * columns, 2), dy = x, out = x;

    view<T, 2> rows(thrust::device_vector<T>& of) const { return {raw(of), tokens, columns}; }
    double bytes(double arrays) const {
        return arrays * static_cast<double>(tokens * columns) * sizeof(T);
    }
};

template <class T>
void scale_rows(benchmark::State& state) {
    hidden_rows<T> h{state.range(0), state.range(1)};
    device_race race(state);
    race.run(h.bytes(2), [&] {
        pare::scale_rows(race.policy(), view<T, 1>(raw(h.mask), h.tokens), h.rows(h.x),
                         h.rows(h.out));
    });
}

template <class T>
void scale_rows_backward(benchmark::State& state) {
    hidden_rows<T> h{state.range(0), state.range(1)};
    device_race race(state);
    race.run(h.bytes(3), [&] {
        pare::scale_rows_backward(race.policy(), view<T, 1>(raw(h.mask), h.tokens), h.rows(h.x),
                                  h.rows(h.dy), h.rows(h.out),
                                  view<T, 1>(raw(h.mask_gradient), h.tokens));
    });
}

view<std::int32_t, 1> packed(thrust::device_vector<std::int32_t>& x) {
    return {raw(x), static_cast<index_t>(x.size())};
}
/// Offsets of sequences of `length` tokens.
thrust::device_vector<std::int32_t> offsets_of(index_t tokens, index_t length) {
    std::vector<std::int32_t> offsets;
    for (index_t t = 0; t <= tokens; t += length) offsets.push_back(static_cast<std::int32_t>(t));
    return {offsets.begin(), offsets.end()};
}

// Dropping half of the tokens: the scores are read, and half of the rows moved.
template <class T>
void compact(benchmark::State& state) {
    hidden_rows<T> h{state.range(0), state.range(1)};
    auto scores = random<float>(h.tokens, 3);
    thrust::device_vector<std::int32_t> index(scores.size());
    auto offsets = offsets_of(h.tokens, 128), kept_offsets = offsets;
    device_race race(state);
    race.run(h.bytes(1), [&] {
        const index_t kept =
            pare::keep_above(race.policy(), view<const float, 1>(raw(scores), h.tokens), 0,
                             packed(offsets), packed(index), packed(kept_offsets));
        pare::gather_rows(race.policy(), view<const std::int32_t, 1>(raw(index), kept),
                          pare::from_to(h.rows(h.x), view<T, 2>(raw(h.out), kept, h.columns)));
    });
}

// The same by calls that do not wait for how many are kept.
template <class T>
void compact_async(benchmark::State& state) {
    hidden_rows<T> h{state.range(0), state.range(1)};
    auto scores = random<float>(h.tokens, 3);
    thrust::device_vector<std::int32_t> index(scores.size());
    auto offsets = offsets_of(h.tokens, 128), kept_offsets = offsets;
    device_race race(state);
    race.run(h.bytes(1), [&] {
        pare::keep_above_async(race.policy(), view<const float, 1>(raw(scores), h.tokens), 0,
                               packed(offsets), packed(index), packed(kept_offsets));
        pare::gather_rows_async(race.policy(), packed(index), packed(kept_offsets),
                                pare::from_to(h.rows(h.x), h.rows(h.out)));
    });
}
// A quarter of each sequence's tokens, those with the highest scores.
void keep_top_k(benchmark::State& state) {
    const index_t tokens = state.range(0), length = state.range(1);
    auto scores = random<float>(tokens, 3);
    thrust::device_vector<std::int32_t> index(scores.size());
    auto offsets = offsets_of(tokens, length), kept_offsets = offsets;
    device_race race(state);
    race.run(0, [&] {
        pare::keep_top_k(race.policy(), view<const float, 1>(raw(scores), tokens), length / 4,
                         packed(offsets), packed(index), packed(kept_offsets));
    });
}

// Samples of the 12 x 3,072 filters of a BERT-base.
template <class T>
void fisher_diagonal(benchmark::State& state) {
    const index_t samples = state.range(0), units = 36864;
    auto gradients = random<T>(samples * units);
    pare::fisher<> sums(units);
    device_race race(state);
    race.run(static_cast<double>(samples * units) * sizeof(T),
             [&] { sums.add(race.policy(), view<const T, 2>(raw(gradients), samples, units)); });
}

// Of the inputs of a layer's matrix, as the statistics of least squares are. `vs_product`: the time of
// the product of as many rows of float, by cuBLAS, over that of the sums.
template <class T>
void gram_matrix(benchmark::State& state) {
    const index_t rows = 4096, columns = state.range(0);
    auto x = random<T>(rows * columns);
    auto floats = random<float>(rows * columns);
    thrust::device_vector<float> found(static_cast<std::size_t>(columns * columns));
    pare::gram<> sums(columns);
    device_race race(state);
    race.run(
        0, [&] { sums.add(race.policy(), view<const T, 2>(raw(x), rows, columns)); }, "product",
        [&] {
            race.policy().multiply(
                view<const float, 3>(raw(floats), {1, columns, rows}, {0, 1, columns}),
                view<const float, 3>(raw(floats), 1, rows, columns),
                view<float, 3>(raw(found), 1, columns, columns));
        });
    state.counters["flops"] = 2.0 * static_cast<double>(rows * columns * columns);
}

// 32 sequences of 128 tokens, 3,072 filters.
template <class T>
void mask_gradients(benchmark::State& state) {
    const index_t sequences = 32, length = 128, columns = 3072, tokens = sequences * length;
    auto x = random<T>(tokens * columns), dx = random<T>(tokens * columns, 2);
    thrust::device_vector<float> found(static_cast<std::size_t>(sequences * columns));
    auto offsets = offsets_of(tokens, length);
    device_race race(state);
    race.run(2.0 * static_cast<double>(tokens * columns) * sizeof(T), [&] {
        pare::mask_gradients(race.policy(), view<const T, 2>(raw(x), tokens, columns),
                             view<const T, 2>(raw(dx), tokens, columns),
                             view<const std::int32_t, 1>(raw(offsets), sequences + 1), 1,
                             view<float, 2>(raw(found), sequences, columns));
    });
}

// Queries, keys, values and outputs are moved at least. `vs_unscored`: the time of the same without
// scores over the time with them.
template <class T>
void attention_with_importance(benchmark::State& state) {
    const index_t batch = state.range(0), n = state.range(1), size = state.range(2), heads = 12;
    const index_t tokens = batch * n, columns = 3 * heads * size;
    auto qkv = random<T>(tokens * columns);
    thrust::device_vector<T> out(static_cast<std::size_t>(tokens * heads * size));
    thrust::device_vector<float> scores(static_cast<std::size_t>(tokens));
    auto offsets = offsets_of(tokens, n);
    const auto part = [&](index_t which) {
        return view<const T, 3>(raw(qkv) + which * heads * size, {tokens, heads, size},
                                {columns, size, 1});
    };
    const view<T, 3> result(raw(out), tokens, heads, size);
    pare::workspace scratch;
    device_race race(state);
    race.run(
        4.0 * static_cast<double>(tokens * heads * size) * sizeof(T),
        [&] {
            pare::attention(race.policy(), part(0), part(1), part(2), packed(offsets), result,
                            view<float, 1>(raw(scores), tokens), {}, scratch);
        },
        "unscored",
        [&] {
            pare::attention(race.policy(), part(0), part(1), part(2), packed(offsets), result, {},
                            scratch);
        });
    state.counters["flops"] = 4.0 * static_cast<double>(batch * heads * n * n * size);
}

// Queries that count, and keys, are read at least. `vs_unscored`: the time of attention without
// scores over that of scores from its log-sum-exp rows.
template <class T>
void scores_of_log_sum_exp(benchmark::State& state) {
    const index_t batch = state.range(0), n = state.range(1), size = state.range(2), heads = 12;
    const index_t queries = state.range(3), tokens = batch * n, columns = 3 * heads * size;
    auto qkv = random<T>(tokens * columns);
    thrust::device_vector<T> out(static_cast<std::size_t>(tokens * heads * size));
    thrust::device_vector<float> scores(static_cast<std::size_t>(tokens));
    // What the rows are does not change the time.
    thrust::device_vector<float> rows(static_cast<std::size_t>(tokens * heads), 9.0f);
    thrust::device_vector<std::int32_t> offsets;
    for (index_t s = 0; s <= batch; ++s) offsets.push_back(static_cast<std::int32_t>(s * n));
    const view<const std::int32_t, 1> packed(raw(offsets), batch + 1);
    const auto part = [&](index_t which) {
        return view<const T, 3>(raw(qkv) + which * heads * size, {tokens, heads, size},
                                {columns, size, 1});
    };
    const view<const float, 2> lse(raw(rows), {tokens, heads}, {1, tokens});
    const view<T, 3> result(raw(out), tokens, heads, size);
    pare::attention_options<T> options;
    options.queries = pare::counted_queries::last(queries);
    pare::workspace scratch;
    device_race race(state);
    race.run(
        static_cast<double>(batch * (n + queries) * heads * size) * sizeof(T),
        [&] {
            pare::attention_scores(race.policy(), part(0), part(1), lse, packed,
                                   view<float, 1>(raw(scores), tokens), options, scratch);
        },
        "unscored",
        [&] {
            pare::attention(race.policy(), part(0), part(1), part(2), packed, result, {}, scratch);
        });
    state.counters["flops"] = 2.0 * static_cast<double>(batch * heads * n * queries * size);
}

// One query a sequence against a cache: keys and values are read at least. `vs_unscored`: as above.
template <class T>
void decoding_step(benchmark::State& state) {
    const index_t sequences = state.range(0), n = state.range(1), heads = state.range(2);
    const index_t groups = state.range(3), size = state.range(4), keys = sequences * n;
    auto q = random<T>(sequences * heads * size), cache = random<T>(keys * 2 * groups * size, 2);
    thrust::device_vector<T> out(static_cast<std::size_t>(sequences * heads * size));
    thrust::device_vector<float> scores(static_cast<std::size_t>(keys));
    auto steps = offsets_of(sequences, 1), rooms = offsets_of(keys, n);
    const auto of_queries = packed(steps), of_keys = packed(rooms);
    const view<const T, 3> queries(raw(q), sequences, heads, size);
    const auto part = [&](index_t which) {
        return view<const T, 3>(raw(cache) + which * groups * size, {keys, groups, size},
                                {2 * groups * size, size, 1});
    };
    const pare::query_key_offsets offsets{of_queries, of_keys};
    const view<T, 3> result(raw(out), sequences, heads, size);
    pare::attention_options<T> options;
    options.mask.causal = true;
    pare::workspace scratch;
    device_race race(state);
    race.run(
        2.0 * static_cast<double>(keys * groups * size) * sizeof(T),
        [&] {
            pare::attention(race.policy(), queries, part(0), part(1), offsets, result,
                            view<float, 1>(raw(scores), keys), options, scratch);
        },
        "unscored",
        [&] {
            pare::attention(race.policy(), queries, part(0), part(1), offsets, result, options,
                            scratch);
        });
    state.counters["flops"] = 4.0 * static_cast<double>(keys * heads * size);
}

void in_milliseconds(benchmark::internal::Benchmark* b) {
    b->UseManualTime()->Unit(benchmark::kMillisecond);
}
void layers(benchmark::internal::Benchmark* b) {
    b->ArgNames({"tokens", "columns"});
    in_milliseconds(b->Args({262144, 384})->Args({32768, 768})->Args({128, 768}));
}
void probabilities(benchmark::internal::Benchmark* b) {
    b->ArgNames({"batch", "length"});
    in_milliseconds(b->Args({1, 128})->Args({32, 128})->Args({8, 512}));
}
BENCHMARK_TEMPLATE(importance_of_probabilities, float)->Apply(probabilities);
BENCHMARK_TEMPLATE(importance_of_probabilities, __half)->Apply(probabilities);
BENCHMARK_TEMPLATE(importance_of_probabilities, __nv_bfloat16)->Apply(probabilities);
BENCHMARK(soft_mask)->ArgName("scores")->Arg(65536)->Arg(1 << 24)->Apply(in_milliseconds);
BENCHMARK_TEMPLATE(scale_rows, float)->Apply(layers);
BENCHMARK_TEMPLATE(scale_rows, __half)->Apply(layers);
BENCHMARK_TEMPLATE(scale_rows, __nv_bfloat16)->Apply(layers);
BENCHMARK_TEMPLATE(scale_rows_backward, float)->Apply(layers);
BENCHMARK_TEMPLATE(scale_rows_backward, __half)->Apply(layers);
BENCHMARK_TEMPLATE(scale_rows_backward, __nv_bfloat16)->Apply(layers);
BENCHMARK_TEMPLATE(compact, float)->Apply(layers);
BENCHMARK_TEMPLATE(compact, __half)->Apply(layers);
BENCHMARK_TEMPLATE(compact_async, __half)->Apply(layers);
void selections(benchmark::internal::Benchmark* b) {
    b->ArgNames({"tokens", "length"});
    in_milliseconds(b->Args({4096, 128})->Args({262144, 128})->Args({16384, 4096}));
}
BENCHMARK(keep_top_k)->Apply(selections);
void samples(benchmark::internal::Benchmark* b) {
    in_milliseconds(b->ArgName("samples")->Arg(2048)->Arg(8192));
}
BENCHMARK_TEMPLATE(fisher_diagonal, float)->Apply(samples);
BENCHMARK_TEMPLATE(fisher_diagonal, __half)->Apply(samples);
BENCHMARK_TEMPLATE(gram_matrix, float)->ArgName("columns")->Arg(3072)->Apply(in_milliseconds);
BENCHMARK_TEMPLATE(gram_matrix, __half)->ArgName("columns")->Arg(3072)->Apply(in_milliseconds);
BENCHMARK_TEMPLATE(mask_gradients, float)->Apply(in_milliseconds);
BENCHMARK_TEMPLATE(mask_gradients, __half)->Apply(in_milliseconds);
void shapes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"batch", "length", "size"});
    in_milliseconds(b->Args({32, 128, 64})->Args({8, 512, 64})->Args({1, 4096, 64}));
}
BENCHMARK_TEMPLATE(attention_with_importance, float)->Apply(shapes);
BENCHMARK_TEMPLATE(attention_with_importance, __half)->Apply(shapes);
void counted(benchmark::internal::Benchmark* b) {
    b->ArgNames({"batch", "length", "size", "queries"});
    in_milliseconds(b->Args({8, 512, 64, 512})->Args({1, 4096, 64, 4096})->Args({1, 4096, 64, 32}));
}
BENCHMARK_TEMPLATE(scores_of_log_sum_exp, __half)->Apply(counted);

void steps(benchmark::internal::Benchmark* b) {
    b->ArgNames({"sequences", "keys", "heads", "groups", "size"});
    in_milliseconds(b->Args({1, 4096, 32, 8, 128})
                        ->Args({64, 4096, 32, 8, 128})
                        ->Args({64, 4096, 12, 12, 64})
                        ->Args({1, 131072, 32, 8, 128}));
}
BENCHMARK_TEMPLATE(decoding_step, float)->Apply(steps);
BENCHMARK_TEMPLATE(decoding_step, __half)->Apply(steps);

} // namespace

int main(int argc, char** argv) {
    int devices = 0, driver = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::puts("skipped: no device");
        return 0;
    }
    cudaDeviceProp properties;
    check_cuda("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, 0));
    check_cuda("cudaDriverGetVersion", cudaDriverGetVersion(&driver));
    benchmark::AddCustomContext("device", properties.name);
    benchmark::AddCustomContext("driver", std::to_string(driver));
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
