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

/// sums[i] = the larger of them and of x, NaN where one is.
template <class T>
void add_larger(const batch<T>& x, double* sums) {
    T numbers[lanes<T>];
    x.store_unaligned(numbers);
    for (index_t i = 0; i < lanes<T>; ++i)
        sums[i] = larger_or_nan(sums[i], static_cast<double>(numbers[i]));
}

/// sums[j] += sum over rows of factors[r] * exp(e[r, j] - shifts[r]), or the largest of them and of
/// sums[j]; infinite where an exponential is more than its type holds. Whole registers of sums are
/// read and written.
template <class T>
void add_exponentials(index_t rows, index_t columns, const T* e, index_t stride, const T* shifts,
                      const T* factors, bool largest, double* sums) {
    using B = batch<T>;
    // Whose exponential is 2^128, of double 2^1024: a power made of bits rises no further.
    constexpr T most = std::numeric_limits<T>::max_exponent * T(0.6931471805599453);
    for (index_t j = 0; j < columns; j += lanes<T>) {
        B sum(T(0));
        for (index_t r = 0; r < rows; ++r) {
            const B x = B::load_unaligned(e + r * stride + j) - B(shifts[r]);
            const B power = ops::exp_below<B>{B(T(0))}(xsimd::min(B(most), x));
            if (largest)
                add_larger(B(factors[r]) * power, sums + j);
            else
                sum = multiply_add(B(factors[r]), power, sum);
        }
        if (largest) continue;
        T numbers[lanes<T>];
        sum.store_unaligned(numbers);
        for (index_t i = 0; i < lanes<T>; ++i) sums[j + i] += static_cast<double>(numbers[i]);
    }
}

/// A task has a tile of keys of one sequence, for all heads and queries. A key's sum is the same in
/// a tile of any size.
template <class Executor, class Call>
void attention_score_tiles(const Executor& executor, const Call& c, workspace& scratch) {
    using T = typename Call::compute;
    using block = attention_block<T>;
    constexpr index_t strip = attention_plan<T>::longest_strip, most = 256;
    const index_t size = c.q.extent(3), groups = c.k.extent(2), heads = c.heads();
    const index_t longest = most_keys(c.where()), heads_of_row = heads / c.received.extent(0);
    if (longest == 0) return;
    // A multiple of 64, and so of registers.
    const index_t tile = piece_of_rows(longest, c.sequences, most, executor);
    const index_t tiles = (longest + tile - 1) / tile, stride = round_up(tile, block::width);
    // A thread's packed keys, scaled queries, logits, and biases by distance.
    const index_t logits_room = strip * stride + block::width;
    const index_t per_slot = round_up(stride * size + strip * size + logits_room +
                                          head_biases<T>::room(c, tile + most_queries(c.where())),
                                      block::width);
    T* const memory = scratch.template get<T>(executor.concurrency() * per_slot);
    executor.run(c.sequences * tiles, [&, memory](index_t task, index_t slot) {
        const index_t s = task / tiles, at = c.key_begin(s), n = c.keys(s), queries = c.queries(s);
        const index_t tile_begin = task % tiles * tile, tile_end = std::min(n, tile_begin + tile);
        if (tile_begin >= tile_end) return;
        const index_range counts = counted(c.counted, queries);
        const index_t counts_place = place_of_query(c.where(), s, counts.begin);
        const auto all_q = c.queries_of(s);
        const auto all_k = c.keys_of(s);
        T* const keys = memory + slot * per_slot;
        T* const q = keys + stride * size;
        T* const logits = q + strip * size;
        double sums[most];
        const auto finish = [&](index_t row) {
            std::copy(sums, sums + (tile_end - tile_begin), &c.received(row, at + tile_begin));
            std::fill(sums, sums + most, 0.0);
        };
        std::fill(sums, sums + most, 0.0);
        for (index_t row = 0; heads == 0 && row < c.received.extent(0); ++row) finish(row);
        for (index_t g = 0; g < groups; ++g) {
            bool packed = false;
            for (index_t h = g * (heads / groups); h < (g + 1) * (heads / groups); ++h) {
                const head_biases<T> biases(
                    c, h, at,
                    {tile_begin - counts_place - counts.size() + 1, tile_end - counts_place},
                    logits + logits_room);
                for (index_t first = counts.begin; first < counts.end; first += strip) {
                    const index_t rows = std::min(strip, counts.end - first);
                    const auto seen_by = [&](index_t r) {
                        return visible_keys(c.mask, first + r, queries, n);
                    };
                    // Whole panels of the tile around the keys that any of these queries sees.
                    const index_t seen_begin = seen_by(0).begin, seen_end = seen_by(rows - 1).end;
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
                                   block::width * size, block::width, logits, stride, false);
                    const index_t room = round_up(k1 - k0, lanes<T>);
                    constexpr T hidden = std::numeric_limits<T>::lowest() / 4;
                    T shifts[strip], factors[strip];
                    for (index_t r = 0; r < rows; ++r) {
                        const index_range seen = seen_by(r);
                        const index_t begin = std::clamp(seen.begin, k0, k1);
                        const index_t end = std::clamp(seen.end, begin, k1);
                        T* const row = logits + r * stride;
                        if (c.biased())
                            biases.add(place_of_query(c.where(), s, first + r), {begin, end},
                                       row + (begin - k0));
                        std::fill(row, row + (begin - k0), hidden);
                        std::fill(row + (end - k0), row + room, hidden);
                        shifts[r] = c.shift(s, first + r, h);
                        factors[r] = c.factor(s, first + r, h, seen.size());
                    }
                    add_exponentials(rows, room, logits, stride, shifts, factors, c.largest,
                                     sums + skipped);
                }
                if ((h + 1) % heads_of_row == 0) finish(h / heads_of_row);
            }
        }
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
