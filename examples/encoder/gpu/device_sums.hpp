// Sums over the rows of sequences, in the memory of a Thrust policy.
#pragma once

#include "device_batch.hpp"
#include "device_blocks.hpp"

#include <cstdint>
#include <type_traits>

namespace encoder::device {

/// A matrix with a row a token; none without columns.
template <class T>
struct token_rows {
    const T* data = nullptr;
    index_t columns = 0;
};

/// One block's part of sums over a sequence's tokens: 32 parts of Width columns, of two matrices as if
/// they stood side by side. Four warps have every fourth token each, so that sums do not depend on
/// other sequences.
template <class T, int Width, class Store>
struct sequence_sums {
    static constexpr int lanes = 32, pieces = thread_block::size / lanes;
    struct shared {
        double of[pieces][lanes * Width], weight[pieces];
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    const place* offsets;
    token_rows<T> x, y;
    const float* weights; ///< or null
    index_t strips;       ///< blocks of a sequence
    Store store;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block together;
        const auto at = static_cast<std::uint32_t>(block), of = static_cast<std::uint32_t>(strips);
        const index_t s = at / of, first = static_cast<index_t>(at % of) * lanes * Width;
        const index_t columns = x.columns + y.columns;
        const place begin = offsets[s], end = offsets[s + 1];
        together.step([&](int thread) {
            const int lane = thread % lanes, piece = thread / lanes;
            const index_t j = first + lane * Width;
            double total[Width] = {}, weight = 0;
            constexpr place bounded = 64 * pieces; // so many tokens are summed up in float
            for (place t = begin + piece; t < end && j < columns; t += bounded) {
                float sum[Width] = {}, weight_sum = 0;
                const place stop = end - t < bounded ? end : t + bounded;
                for (place some = t; some < stop; some += at_once * pieces)
                    add(some, stop, j, sum, weight_sum);
                PARE_UNROLL
                for (int e = 0; e < Width; ++e) total[e] += static_cast<double>(sum[e]);
                weight += static_cast<double>(weight_sum);
            }
            PARE_UNROLL
            for (int e = 0; e < Width; ++e) m.of[piece][lane * Width + e] = total[e];
            if (lane == 0) m.weight[piece] = weight;
        });
        together.step([&](int thread) {
            double weight = 0;
            for (int piece = 0; piece < pieces; ++piece) weight += m.weight[piece];
            for (int i = thread; i < lanes * Width && first + i < columns;
                 i += thread_block::size) {
                double total = 0;
                for (int piece = 0; piece < pieces; ++piece) total += m.of[piece][i];
                store(s, first + i, static_cast<float>(total), static_cast<float>(weight));
            }
        });
    }

  private:
    static constexpr int at_once = 4;
    struct one {
        T of[1];
    };

    /// Every fourth token from t on, some of them, which are read before any is added.
    PARE_HD void add(place t, place stop, index_t j, float (&sum)[Width], float& weight_sum) const {
        using part = std::conditional_t<Width == 1, one, pack<T>>;
        const bool of_x = j < x.columns;
        const index_t stride = of_x ? x.columns : y.columns;
        const T* const column = of_x ? x.data + j : y.data + (j - x.columns);
        part read[at_once] = {};
        float weight[at_once] = {};
        PARE_UNROLL
        for (int i = 0; i < at_once; ++i)
            if (t + i * pieces < stop) {
                weight[i] = weights ? weights[t + i * pieces] : 1.f;
                if (weight[i] != 0) // of dropped tokens, most stay
                    read[i] = *reinterpret_cast<const part*>(column + (t + i * pieces) * stride);
            }
        PARE_UNROLL
        for (int i = 0; i < at_once; ++i) {
            weight_sum += weight[i];
            PARE_UNROLL
            for (int e = 0; e < Width; ++e) sum[e] += weight[i] * static_cast<float>(read[i].of[e]);
        }
    }
};
/// store(s, j, the sum of weights[t] * x[t, j], that of the weights) over the tokens of each sequence
/// s, j counting the columns of x and, behind those, of y; weights may be null, each token then counts
/// as 1. Rows whose weight is 0 are not read.
template <class Policy, class T, class Store>
void weighted_sums(const Policy& policy, const sequences& of, const token_rows<T>& x,
                   const token_rows<T>& y, const float* weights, const Store& store) {
    const bool packed = x.columns % pack<T>::size == 0;
    with_width<T>(packed ? y.columns : index_t{1}, [&](auto width) {
        using kernel = sequence_sums<T, width.value, Store>;
        constexpr index_t wide = kernel::lanes * width.value;
        const index_t strips = (x.columns + y.columns + wide - 1) / wide;
        policy.for_blocks(of.count * strips, kernel{of.there, x, y, weights, strips, store});
    });
}
/// Sums of numbers of each sequence's tokens.
template <class Policy>
void token_sums(const Policy& policy, const sequences& batch, const float* x, float* sums) {
    weighted_sums(policy, batch, token_rows<float>{x, 1}, {}, nullptr,
                  [=] PARE_HD(index_t s, index_t, float sum, float) { sums[s] = sum; });
}

} // namespace encoder::device
