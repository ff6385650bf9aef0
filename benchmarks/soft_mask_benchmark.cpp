// Soft masks, forward and backward: limited by reading and writing their arrays.
#include "race.hpp"

#include <pare/soft_mask.hpp>

#include <Eigen/Core>

namespace {

using namespace bench;
using rows = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::ArrayXf;

// One forward and one backward pass over 64 Ki scores; a run is ten of both, because one is too
// short for the clock.
void soft_mask(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0)), repeat = 10;
    const index_t n = 65536;
    const float threshold = 0, temperature = 0.25f;
    const vector scores = vector::Random(n), gradient = vector::Random(n);
    vector mask(n), score_gradient(n);
    const auto policy = pare::simd.with(bench::threads{threads});
    // Two arrays read for two written, but for the gradient: 20 bytes a score, as a copy of 10.
    const std::vector<float> from(static_cast<std::size_t>(n * 5 / 2));
    std::vector<float> to = from;
    race(state, "eigen")
        .run(
            [&] {
                for (int i = 0; i < repeat; ++i) {
                    pare::soft_mask(policy, scores, threshold, temperature, mask);
                    benchmark::DoNotOptimize(pare::soft_mask_backward(policy, mask, gradient,
                                                                      temperature, score_gradient));
                }
            },
            [&] {
                double total = 0;
                for (int i = 0; i < repeat; ++i)
                    total += copy_seconds(from.data(), to.data(), n * 5 / 2, threads);
                return total;
            },
            [&] {
                for (int i = 0; i < repeat; ++i) {
                    mask = 1 / (1 + ((threshold - scores) / temperature).exp());
                    score_gradient = mask * (1 - mask) / temperature * gradient;
                    benchmark::DoNotOptimize(score_gradient.sum());
                }
            });
}
BENCHMARK(soft_mask)->ArgName("threads")->Arg(1)->Arg(2)->UseManualTime()->Unit(
    benchmark::kMicrosecond);

struct hidden_rows {
    index_t tokens, columns;
    vector mask = vector::Random(tokens), mask_gradient = mask;
    rows x = rows::Random(tokens, columns), dy = rows::Random(tokens, columns), out = x;
};

void scale_rows(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    hidden_rows h{state.range(1), state.range(2)};
    race(state, "eigen")
        .work(static_cast<double>(h.x.size()), 8.0 * static_cast<double>(h.x.size()))
        .run(
            [&] { pare::scale_rows(pare::simd.with(bench::threads{threads}), h.mask, h.x, h.out); },
            [&] { return copy_seconds(h.x.data(), h.out.data(), h.x.size(), threads); },
            [&] { h.out = h.x.colwise() * h.mask; });
}

void scale_rows_backward(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    hidden_rows h{state.range(1), state.range(2)};
    // Three arrays, where a copy has two.
    const std::vector<float> from(static_cast<std::size_t>(h.x.size() * 3 / 2));
    std::vector<float> to = from;
    race(state, "eigen")
        .work(3.0 * static_cast<double>(h.x.size()), 12.0 * static_cast<double>(h.x.size()))
        .run(
            [&] {
                pare::scale_rows_backward(pare::simd.with(bench::threads{threads}), h.mask, h.x,
                                          h.dy, h.out, h.mask_gradient);
            },
            [&] { return copy_seconds(from.data(), to.data(), h.x.size() * 3 / 2, threads); },
            [&] {
                h.out = h.dy.colwise() * h.mask;
                h.mask_gradient = (h.x * h.dy).rowwise().sum();
            });
}

void sizes(benchmark::internal::Benchmark* b) {
    b->ArgNames({"threads", "tokens", "columns"});
    for (const int threads : {1, 2}) b->Args({threads, 4096, 384})->Args({threads, 4096, 768});
    b->UseManualTime()->Unit(benchmark::kMicrosecond);
}
BENCHMARK(scale_rows)->Apply(sizes);
BENCHMARK(scale_rows_backward)->Apply(sizes);

} // namespace
