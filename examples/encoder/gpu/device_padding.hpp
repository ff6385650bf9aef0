// Sequences of a batch as groups of padded matrices, in the memory of a Thrust policy.
#pragma once

#include "device_rows.hpp"

#include <algorithm>

namespace encoder::device {

/// Sequences first ... end - 1 of a batch, whose heads' rows lie padded to the longest one's
/// length: element e of token i of head h of sequence s is at ((s - first) * heads + h) * length +
/// i) * size + e.
struct padded_heads {
    index_t first, end, length, heads, size;

    padded_heads of_size(index_t other) const { return {first, end, length, heads, other}; }
    index_t matrices() const { return (end - first) * heads; }
    index_t rows() const { return matrices() * length; }
    template <class T>
    view<T, 3> of(T* x) const { ///< [heads of all sequences x length x size]
        return view<T, 3>(x, matrices(), length, size);
    }
    template <class T>
    view<T, 3> transposed(T* x) const {
        return {x, {matrices(), size, length}, {length * size, 1, size}};
    }
    template <class T>
    view<T, 3> square(T* x) const { ///< queries x keys
        return view<T, 3>(x, matrices(), length, length);
    }
    template <class T>
    view<T, 3> transposed_square(T* x) const {
        return {x, {matrices(), length, length}, {length * length, 1, length}};
    }
};

/// f(padded_heads) for groups of sequences that have at most so many queries x keys in all heads,
/// or are one.
template <class F>
void for_groups(const sequences& batch, index_t heads, index_t size, const F& f) {
    constexpr index_t most = index_t{1} << 26;
    for (index_t first = 0, end; first < batch.count; first = end) {
        index_t longest = 0;
        for (end = first; end < batch.count; ++end) {
            const index_t n = std::max(longest, batch.length(end));
            if (end > first && (end + 1 - first) * heads * n * n > most) break;
            longest = n;
        }
        f(padded_heads{first, end, longest, heads, size});
    }
}

/// Rows of each token's heads [tokens x heads * size], of which `stride` elements lie between
/// tokens, to padded ones; zeros beyond the sequences' ends.
template <class Policy, class T>
void pad(const Policy& policy, const padded_heads& p, const place* offsets, const T* rows,
         index_t stride, T* padded) {
    for_elements(policy, p.rows(), p.size, [=] PARE_HD(index_t row, index_t e) {
        const index_t i = row % p.length, h = row / p.length % p.heads;
        const index_t s = p.first + row / (p.length * p.heads), t = offsets[s] + i;
        padded[row * p.size + e] =
            t < offsets[s + 1] ? rows[t * stride + h * p.size + e] : static_cast<T>(0.f);
    });
}

/// The way back.
template <class Policy, class T>
void unpad(const Policy& policy, const padded_heads& p, const place* offsets, const T* padded,
           T* rows, index_t stride) {
    for_elements(policy, p.rows(), p.size, [=] PARE_HD(index_t row, index_t e) {
        const index_t i = row % p.length, h = row / p.length % p.heads;
        const index_t s = p.first + row / (p.length * p.heads), t = offsets[s] + i;
        if (t >= offsets[s + 1]) return;
        rows[t * stride + h * p.size + e] = padded[row * p.size + e];
    });
}

/// f(at, query, key) for each pair of a sequence's tokens in all heads: its place in an array of
/// queries x keys, and the tokens.
template <class Policy, class F>
void for_pairs(const Policy& policy, const padded_heads& p, const place* offsets, const F& f) {
    for_elements(policy, p.rows(), p.length, [=] PARE_HD(index_t row, index_t j) {
        const index_t s = p.first + row / (p.length * p.heads), begin = offsets[s];
        const index_t query = begin + row % p.length, key = begin + j, end = offsets[s + 1];
        if (query < end && key < end) f(row * p.length + j, query, key);
    });
}

} // namespace encoder::device
