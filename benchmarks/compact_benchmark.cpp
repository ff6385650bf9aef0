// Dropping half of the tokens, from scores to moved rows: limited by copying the rows kept.
#include "race.hpp"

#include <pare/compact.hpp>

#include <Eigen/Core>

namespace {

using namespace bench;
using rows = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct packed_batch {
    index_t tokens, columns, length = 128;
    std::vector<float> scores = random_normal<float>(tokens);
    std::vector<int> offsets, index, kept_offsets;
    rows x = rows::Random(tokens, columns), out = x, other = x;

    packed_batch(index_t n, index_t d) : tokens(n), columns(d) {
        for (index_t i = 0; i <= tokens; i += length) offsets.push_back(static_cast<int>(i));
        index.resize(static_cast<std::size_t>(tokens));
        kept_offsets = offsets;
    }
    template <class Policy>
    index_t select(const Policy& policy) {
        return pare::keep_above(policy, scores, 0, offsets, index, kept_offsets);
    }
    // Short runs are repeated, because one is too short for the clock.
    int repeat() const { return tokens < 1000 ? 20 : 1; }
    double limit(index_t kept, int threads) {
        double total = 0;
        for (int i = 0; i < repeat(); ++i)
            total += copy_seconds(other.data(), out.data(), kept * columns, threads);
        return total;
    }
    void eigen() {
        for (int r = 0; r < repeat(); ++r) {
            std::vector<int> kept;
            for (index_t i = 0; i < tokens; ++i)
                if (scores[static_cast<std::size_t>(i)] >= 0) kept.push_back(static_cast<int>(i));
            out.topRows(static_cast<index_t>(kept.size())) = x(kept, Eigen::indexing::all);
        }
    }
};

void compact(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    packed_batch b(state.range(1), state.range(2));
    const auto policy = pare::simd.with(bench::threads{threads});
    const index_t kept = b.select(policy);
    race(state, "eigen")
        .run(
            [&] {
                for (int r = 0; r < b.repeat(); ++r) {
                    const index_t k = b.select(policy);
                    pare::gather_rows(policy, pare::view(b.index.data(), k),
                                      pare::from_to(b.x, pare::view(b.out.data(), k, b.columns)));
                }
            },
            [&] { return b.limit(kept, threads); }, [&] { b.eigen(); });
}

void compact_in_place(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    packed_batch b(state.range(1), state.range(2));
    const auto policy = pare::simd.with(bench::threads{threads});
    const index_t kept = b.select(policy);
    race(state, "eigen")
        .run(
            [&] {
                for (int r = 0; r < b.repeat(); ++r)
                    pare::gather_rows(policy, pare::view(b.index.data(), b.select(policy)), b.x);
            },
            [&] { return b.limit(kept, threads); }, [&] { b.eigen(); });
}

void select(benchmark::State& state) {
    packed_batch b(4096, 1);
    const bool top = state.range(0) != 0;
    for (auto _ : state)
        benchmark::DoNotOptimize(top ? pare::keep_top_k(pare::simd, b.scores, b.length / 2,
                                                        b.offsets, b.index, b.kept_offsets)
                                     : b.select(pare::simd));
}

void sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"threads", "tokens", "columns"});
    for (const int threads : {1, 2}) b->Args({threads, 4096, 384})->Args({threads, 128, 384});
    b->UseManualTime()->Unit(benchmark::kMicrosecond);
}
BENCHMARK(compact)->Apply(sizes);
BENCHMARK(compact_in_place)->Apply(sizes);
BENCHMARK(select)->ArgName("top")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

} // namespace
