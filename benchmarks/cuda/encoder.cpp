// The reference encoder on a GPU, dense and pruned: how much of the reduction in multiply-adds
// arrives on the clock. Random weights of BERT-base's shape, 256 sequences of 128 tokens.
#include "../random_encoder.hpp"
#include "../ratios.hpp"

#include <encoder/device.hpp>
#include <encoder/tokens.hpp>

#include <memory>

namespace {

using encoder::device_kind;
using encoder::precision;

/// `vs_pruned`: the time of the pruned model over the dense one's; `gain_of_macs`: speedup over the
/// reduction in multiply-adds, as the batch's lengths and the tokens that leave have it.
void race(benchmark::State& state, encoder::model pruned_model) {
    const precision in = static_cast<precision>(state.range(0));
    const std::size_t sequences = 256, length = 128;
    const encoder::model m = bench::random_model(12, 768, 12, 3072);
    const auto dense = encoder::make_engine(m, device_kind::cuda, in);
    const auto pruned = dense->make(std::move(pruned_model));
    encoder::batch b;
    std::mt19937_64 random(1);
    std::vector<encoder::sequence> texts(sequences, encoder::sequence(length));
    for (encoder::sequence& text : texts) {
        for (std::int32_t& id : text) id = static_cast<std::int32_t>(random() % 1000);
        b.append(text);
    }
    encoder::matrix outputs;
    std::vector<encoder::token_use> use;
    dense->forward(b, outputs);
    pruned->forward(b, outputs, &use);
    bench::ratios found;
    for (auto _ : state) {
        const double t = bench::seconds([&] { dense->forward(b, outputs); });
        found.add_peer(t, bench::seconds([&] { pruned->forward(b, outputs); }));
        state.SetIterationTime(t);
    }
    found.report(state, "pruned");
    const double ratio =
        encoder::token_macs(pruned->model(), use) / encoder::dense_token_macs(m, texts);
    state.counters["macs_ratio"] = ratio;
    state.counters["gain_of_macs"] = ratio / state.counters["vs_pruned"];
    state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(sequences * length),
                                                    benchmark::Counter::kIsIterationInvariantRate);
}

void encode_structure_pruned(benchmark::State& state) {
    const encoder::model m = bench::random_model(12, 768, 12, 3072);
    race(state, encoder::shrink(m, bench::half(m)));
}

// Behind layer l, 0.88^(l + 1) of the tokens are left: half of the multiply-adds.
void encode_token_pruned(benchmark::State& state) {
    encoder::model m = bench::random_model(12, 768, 12, 3072);
    m.tokens.by = encoder::token_pruning::rule::share;
    m.tokens.numbers.assign(m.layers.size(), 0.88);
    race(state, std::move(m));
}

void in_precisions(benchmark::internal::Benchmark* b) {
    b->ArgName("precision")
        ->Arg(static_cast<int>(precision::fp32))
        ->Arg(static_cast<int>(precision::fp16))
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}
BENCHMARK(encode_structure_pruned)->Apply(in_precisions);
BENCHMARK(encode_token_pruned)->Apply(in_precisions);

} // namespace
