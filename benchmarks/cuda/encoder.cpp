// The reference encoder on a GPU, dense and pruned: how much of the reduction in multiply-adds
// arrives on the clock. Random weights of BERT-base's shape, 256 sequences of 128 tokens, and of
// MiniLM's, one sequence and 32.
#include "../random_encoder.hpp"
#include "../ratios.hpp"

#include <encoder/gpu/device.hpp>
#include <encoder/training/tokens.hpp>

#include <memory>

namespace {

using encoder::device_kind;
using encoder::precision;

encoder::model bert_base() {
    return bench::random_model(12, 768, 12, 3072);
}

/// `vs_pruned`: the time of the pruned model over the dense one's; `gain_of_macs`: speedup over the
/// reduction in multiply-adds, as the batch's lengths and the tokens that leave have it.
void race(benchmark::State& state, const encoder::model& m, encoder::model pruned_model,
          std::size_t sequences) {
    const precision in = static_cast<precision>(state.range(0));
    const std::size_t length = 128;
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
    const encoder::model m = bert_base();
    race(state, m, encoder::shrink(m, bench::half(m)), 256);
}

/// Behind layer l, share^(l + 1) of the tokens are left.
encoder::model token_pruned(encoder::model m, double share) {
    m.tokens.by = encoder::token_pruning::rule::share;
    m.tokens.numbers.assign(m.layers.size(), share);
    return m;
}

// Half of the multiply-adds.
void encode_token_pruned(benchmark::State& state) {
    const encoder::model m = bert_base();
    race(state, m, token_pruned(m, 0.88), 256);
}
void encode_minilm_token_pruned(benchmark::State& state) {
    const encoder::model m = bench::random_model(6, 384, 12, 1536);
    race(state, m, token_pruned(m, 0.78), static_cast<std::size_t>(state.range(1)));
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
BENCHMARK(encode_minilm_token_pruned)
    ->ArgNames({"precision", "sequences"})
    ->ArgsProduct({{static_cast<int>(precision::fp32), static_cast<int>(precision::fp16)}, {1, 32}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

} // namespace
