// What keys receive of attention, from queries, keys and log-sum-exp rows: tiles of keys against
// strips of queries, whose probabilities are added up while they are in the cache.
#pragma once

#include "attention.hpp"
#include "sums.hpp"

#include <algorithm>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// sums[j] += sum over rows of factors[r] * exp(e[r, j] - shifts[r]); infinite where an exponential
/// is more than its type holds. Whole registers of sums are read and written.
template <class T>
void add_exponentials(index_t rows, index_t columns, const T* e, index_t stride, const T* shifts,
                      const T* factors, double* sums) {
    using B = batch<T>;
    // Whose exponential is 2^128, of double 2^1024: a power made of bits rises no further.
    constexpr T most = std::numeric_limits<T>::max_exponent * T(0.6931471805599453);
    for (index_t j = 0; j < columns; j += lanes<T>) {
        B sum(T(0));
        for (index_t r = 0; r < rows; ++r) {
            const B x = B::load_unaligned(e + r * stride + j) - B(shifts[r]);
            sum =
                xsimd::fma(B(factors[r]), ops::exp_below<B>{B(T(0))}(xsimd::min(B(most), x)), sum);
        }
        T numbers[lanes<T>];
        sum.store_unaligned(numbers);
        for (index_t i = 0; i < lanes<T>; ++i) sums[j + i] += static_cast<double>(numbers[i]);
    }
}

/// A task has a tile of keys of one sequence, for all heads and queries. A key's sum is the same in
/// a tile of any size.
template <class Executor, class T, class L, class Offset>
void attention_score_tiles(const Executor& executor, const scores_call<T, L, Offset>& c,
                           workspace& scratch) {
    using block = attention_block<T>;
    constexpr index_t strip = attention_plan<T>::longest_strip, most = 256;
    const index_t size = c.q.extent(3), groups = c.k.extent(2), heads = c.heads();
    const index_t longest = c.longest();
    if (longest == 0) return;
    // A multiple of 64, and so of registers.
    const index_t tile = piece_of_rows(longest, c.sequences, most, executor);
    const index_t tiles = (longest + tile - 1) / tile, stride = round_up(tile, block::width);
    // A thread's packed keys, scaled queries, logits, and biases by distance.
    const index_t logits_room = strip * stride + block::width;
    const index_t per_slot = round_up(stride * size + strip * size + logits_room +
                                          head_biases<T>::room(c, tile + longest),
                                      block::width);
    T* const memory = scratch.template get<T>(executor.concurrency() * per_slot);
    executor.run(c.sequences * tiles, [&, memory](index_t task, index_t slot) {
        const index_t s = task / tiles, at = c.begin(s), n = c.length(s);
        const index_t tile_begin = task % tiles * tile, tile_end = std::min(n, tile_begin + tile);
        if (tile_begin >= tile_end) return;
        const index_range counts = counted(c.counted, n);
        const auto all_q = c.rows(c.q, s), all_k = c.rows(c.k, s);
        T* const keys = memory + slot * per_slot;
        T* const q = keys + stride * size;
        T* const logits = q + strip * size;
        double sums[most] = {};
        for (index_t g = 0; g < groups; ++g) {
            bool packed = false;
            for (index_t h = g * (heads / groups); h < (g + 1) * (heads / groups); ++h) {
                const head_biases<T> biases(c, h, at,
                                            {tile_begin - counts.end + 1, tile_end - counts.begin},
                                            logits + logits_room);
                for (index_t first = counts.begin; first < counts.end; first += strip) {
                    const index_t rows = std::min(strip, counts.end - first);
                    // Whole panels of the tile around the keys that any of these queries sees.
                    const index_t seen_begin = visible_keys(c.mask, first, n, n).begin;
                    const index_t seen_end = visible_keys(c.mask, first + rows - 1, n, n).end;
                    const index_t skipped =
                        std::max<index_t>(seen_begin - tile_begin, 0) / block::width * block::width;
                    const index_t k0 = tile_begin + skipped, k1 = std::min(seen_end, tile_end);
                    if (k0 >= k1) continue;
                    if (!packed)
                        pack_keys(all_k, tile_begin, tile_end - tile_begin, g,
                                  g + 1 < groups ? all_k.stride(1) : index_t{0}, keys);
                    packed = true;
                    for (index_t r = 0; r < rows && size > 0; ++r)
                        scale_row(size, &all_q(first + r, h, 0), c.scale, q + r * size, 1);
                    multiply_strip(rows, size, k1 - k0, q, size, keys + skipped * size,
                                   block::width * size, logits, stride, false);
                    const index_t room = round_up(k1 - k0, lanes<T>);
                    constexpr T hidden = std::numeric_limits<T>::lowest() / 4;
                    T shifts[strip], factors[strip];
                    for (index_t r = 0; r < rows; ++r) {
                        const index_range seen = visible_keys(c.mask, first + r, n, n);
                        const index_t begin = std::clamp(seen.begin, k0, k1);
                        const index_t end = std::clamp(seen.end, begin, k1);
                        T* const row = logits + r * stride;
                        if (c.biased()) biases.add(first + r, {begin, end}, row + (begin - k0));
                        std::fill(row, row + (begin - k0), hidden);
                        std::fill(row + (end - k0), row + room, hidden);
                        shifts[r] = c.shift(s, first + r, h);
                        factors[r] = c.factor(s, first + r, h);
                    }
                    add_exponentials(rows, room, logits, stride, shifts, factors, sums + skipped);
                }
            }
        }
        std::copy(sums, sums + (tile_end - tile_begin), c.received + at + tile_begin);
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
