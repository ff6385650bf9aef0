// Scores of tokens from attention's probabilities, under any mask, window, lengths and counted
// queries, with their adjoint, and sums of scores.
#include "fuzz.hpp"
#include "scores.hpp"

namespace {

using namespace pare;
using fuzz::bytes;
using fuzz::output;

/// score(policy, scores): both policies refuse the same, or give about the same.
template <class T, int Rank, class Score>
void with_policies(bytes& in, const std::array<index_t, Rank>& extents, const Score& score) {
    const auto with = [&, start = in](const auto& policy) {
        bytes strides = start;
        output<T, Rank> scores(strides, extents);
        if (fuzz::refused([&] { score(policy, scores.view()); })) {
            EXPECT(scores.intact_but(0));
            return std::vector<T>();
        }
        EXPECT(scores.intact());
        return scores.values();
    };
    EXPECT(fuzz::alike(in, with(seq), with(simd)));
}

template <class T>
void padded(bytes& in) {
    const index_t batch = in.up_to(3), heads = in.up_to(3), queries = in.up_to(9),
                  keys = in.up_to(9);
    const importance_options options = fuzz::options(in);
    const auto lengths = in.numbers<int>(in.flag() ? 0 : in.about(batch));
    const auto p = in.numbers<T>(batch * heads * queries * keys);
    const view<const T, 4> probabilities(p.data(), batch, heads, queries, keys);
    if (in.flag()) {
        with_policies<T, 2>(in, {in.about(batch), in.about(keys)}, [&](auto& policy, auto scores) {
            importance(policy, probabilities, lengths, scores, options);
        });
    } else {
        const index_t rows = in.about(batch), columns = in.about(keys);
        const auto gradient = in.numbers<T>(rows * columns);
        std::vector<T> at_seq = p, at_simd = p;
        const auto back = [&](const auto& policy, std::vector<T>& at) {
            return fuzz::refused([&] {
                importance_backward(policy, view(gradient.data(), rows, columns), lengths,
                                    view<T, 4>(at.data(), batch, heads, queries, keys), options);
            });
        };
        const bool no = back(seq, at_seq);
        EXPECT(no == back(simd, at_simd) && fuzz::alike(in, at_seq, at_simd));
        EXPECT(!no || fuzz::same_bits(at_seq, p));
    }
}

template <class T>
void of_one_sequence(bytes& in) {
    const index_t heads = in.up_to(3), queries = in.up_to(9), keys = in.up_to(20);
    const importance_options options = fuzz::options(in);
    const auto p = in.numbers<T>(heads * queries * keys);
    with_policies<T, 1>(in, {in.about(keys)}, [&](auto& policy, auto scores) {
        importance(policy, view(p.data(), {heads, queries, keys}, {queries * keys, keys, 1}),
                   scores, options);
    });
}

template <class T, class Offset>
void packed(bytes& in) {
    index_t tokens = 0;
    const auto offsets = in.offsets<Offset>(4, tokens);
    const index_t heads = in.flag() ? in.up_to(3) : in.number<index_t>();
    const importance_options options = fuzz::options(in);
    index_t need = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        const auto n = static_cast<index_t>(static_cast<std::uint64_t>(offsets[s + 1]) -
                                            static_cast<std::uint64_t>(offsets[s]));
        if (n >= 0 && n < 64 && heads >= 0 && heads < 64) need += heads * n * n;
    }
    const auto p = in.numbers<T>(in.about(need));
    with_policies<T, 1>(in, {in.about(tokens)}, [&](auto& policy, auto scores) {
        importance_packed(policy, p, heads, offsets, scores, options);
    });
}

void accumulate(bytes& in) {
    fuzz::refused([&] {
        score_accumulator sums(in.number<double>());
        for (index_t steps = in.up_to(4); steps > 0; --steps) {
            fuzz::refused([&] { sums.add(in.numbers<float>(in.up_to(9))); });
            const auto kept = in.positions<std::int64_t>(sums.sums().extent(0));
            if (!fuzz::refused([&] { sums.keep(kept); }))
                EXPECT(sums.sums().extent(0) == static_cast<index_t>(kept.size()));
        }
    });
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes in(data, size);
    switch (in.up_to(6)) {
    case 0:
        padded<float>(in);
        break;
    case 1:
        padded<double>(in);
        break;
    case 2:
        of_one_sequence<float>(in);
        break;
    case 3:
        of_one_sequence<double>(in);
        break;
    case 4:
        packed<float, std::int32_t>(in);
        break;
    case 5:
        packed<double, std::uint64_t>(in);
        break;
    default:
        accumulate(in);
        break;
    }
    return 0;
}
