// What keys receive of attention probabilities, by blocks of threads: a block has 64 bytes of the keys
// of a sequence and goes down their rows, of all heads one behind another. A key's sum is made
// in an order that depends on its own sequence alone, not on the layout, the batch or the type.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/fast_math.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"
#include "thrust_rows.hpp"
#include "thrust_sums.hpp"

#include <algorithm>
#include <cstdint>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The probabilities of a sequence, and a strip of its keys.
template <class T>
struct key_strip {
    view<const T, 3> p;          ///< [heads x queries x keys]
    index_t sequence, first;     ///< the strip's first key
    index_t chunk_begin, chunks; ///< those of rows that are added up
    bool packed;
};

/// The sequences of a padded batch, and of a packed one: find(block, ...) says what a block has, and
/// whether it has anything.
template <class T, class Batch>
struct padded_strips {
    view<const T, 4> p;
    Batch batch;
    index_t strips, chunks; ///< of a sequence; chunks is 0 where a block adds up all of them
    bool packed;

    index_t blocks() const { return p.extent(0) * std::max<index_t>(chunks, 1) * strips; }
    template <class Block>
    PARE_HD key_strip<T> find(const Block&, index_t block, index_t width, unsigned char*) const {
        const index_t strip = block % strips, row = block / strips;
        const index_t each = chunks > 0 ? chunks : 1, b = row / each;
        const T* const first = p.address(b, 0, 0, 0);
        const view<const T, 3> one(first, {p.extent(1), batch.queries(b), batch.keys(b)},
                                   {p.stride(1), p.stride(2), p.stride(3)});
        return {one, b, strip * width, chunks > 0 ? row % each : 0, chunks > 0 ? 1 : -1, packed};
    }
};
template <class T, class Offset>
struct packed_strips {
    const T* p;
    index_t heads;
    slots<const Offset*> strips;
    index_t tokens;

    index_t blocks() const { return strips.count(tokens); }
    template <class Block>
    PARE_HD key_strip<T> find(const Block& threads, index_t block, index_t width,
                              unsigned char* memory) const {
        const index_t s = strips.segment(block), begin = strips.offset(s);
        const index_t n = strips.offset(s + 1) - begin;
        // Where its probabilities begin: behind those of the sequences before it.
        index_t* const parts = reinterpret_cast<index_t*>(memory);
        threads.step([&](int thread) {
            index_t sum = 0;
            for (index_t i = thread; i < s; i += Block::size) {
                const index_t m = strips.offset(i + 1) - strips.offset(i);
                sum += m * m;
            }
            parts[thread] = sum;
        });
        add_up(threads, parts);
        const view<const T, 3> one(p + heads * parts[0], heads, n, n); // of null that is null
        threads.step([](int) {});                                      // the memory is used again
        const bool whole =
            reinterpret_cast<std::uintptr_t>(one.data_handle()) % 16 == 0 && n % pack<T>::size == 0;
        const index_t number = block - strips.first(s);
        return {one, s, number < 0 ? n : number * width, 0, -1, whole};
    }
};

// Packs of a strip of keys, and rows whose sum is made by one block without another one's.
inline constexpr int key_lanes = 4;
inline constexpr index_t key_rows = 8192;

/// store(sequence, chunk, key, sum) for each key of a strip.
template <class T, class Strips, class Store>
struct key_sums_block {
    using C = compute_t<T>;
    static constexpr int size = pack<T>::size, threads = 512, lanes = key_lanes;
    static constexpr int groups = threads / lanes, width = lanes * size;
    static constexpr int unroll = 8, blocks_a_processor = 1;
    static constexpr index_t chunk = key_rows; ///< of which a thread adds up 64
    static constexpr std::size_t shared_bytes =
        std::max(threads * size * sizeof(double), threads * sizeof(index_t));

    Strips strips;
    attention_mask mask;
    counted_queries which;
    Store store;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const block_of<threads> all;
        const key_strip<T> strip = strips.find(all, block, width, memory);
        const index_t heads = strip.p.extent(0), queries = strip.p.extent(1);
        const index_range q = counted(which, queries);
        const index_t rows = heads * q.size(), chunks = (rows + chunk - 1) / chunk;
        index_t end = chunks;
        if (strip.chunks >= 0) end = std::min(chunks, strip.chunk_begin + strip.chunks);
        // [size x groups x lanes]: neighbours in a warp are neighbours there.
        double* const parts = reinterpret_cast<double*>(memory);
        per_thread<double, threads> totals;
        all.step([&](int thread) { totals[thread] = 0; });
        for (index_t c = strip.chunk_begin; c < end; ++c) {
            const index_t last = std::min(rows, (c + 1) * chunk);
            all.step([&](int thread) {
                C sums[size] = {};
                add_rows(strip, q, c * chunk + thread / lanes, last,
                         strip.first + thread % lanes * size, sums);
                for (int e = 0; e < size; ++e)
                    parts[e * threads + thread] = static_cast<double>(sums[e]);
            });
            for (int apart = threads / 2; apart >= lanes; apart /= 2)
                all.step([&](int thread) {
                    if (thread >= apart) return;
                    for (int e = 0; e < size; ++e)
                        parts[e * threads + thread] += parts[e * threads + apart + thread];
                });
            all.step([&](int thread) {
                if (thread >= width) return;
                const int lane = thread / size, e = thread % size;
                add_in_order(totals[thread], parts[e * threads + lane]);
            });
        }
        all.step([&](int thread) {
            if (thread < width)
                store(strip.sequence, strip.chunk_begin, strip.first + thread, totals[thread]);
        });
    }

  private:
    /// Adds up every groups-th row of the heads' counted queries, as far as it sees the keys.
    PARE_HD void add_rows(const key_strip<T>& strip, const index_range& q, index_t row,
                          index_t last, index_t key, C (&sums)[size]) const {
        const index_t keys = strip.p.extent(2);
        if (row >= last || key >= keys) return;
        if (sees_all(mask) && strip.packed && key + size <= keys)
            add_rows_of<true, unroll>(strip, q, row, last, key, sums);
        else
            add_rows_of<false, 4>(strip, q, row, last, key, sums);
    }
    template <bool All, int Unroll>
    PARE_HD void add_rows_of(const key_strip<T>& strip, const index_range& q, index_t row,
                             index_t last, index_t key, C (&sums)[size]) const {
        const int each = static_cast<int>(q.size()); // counted queries of a head
        int i = static_cast<int>(row % each), left = static_cast<int>(last - row);
        const T* x = &strip.p(row / each, q.begin + i, key);
        const int step_i = groups % each;
        const index_t step = strip.p.stride(0) * (groups / each) + strip.p.stride(1) * step_i;
        const index_t beyond = strip.p.stride(0) - strip.p.stride(1) * each;
        const auto load = [&] {
            pack<T> some;
            if constexpr (All)
                some = load_pack<true>(x, 1, size);
            else
                some = load_seen(strip, q.begin + i, key, x);
            x += step;
            i += step_i;
            if (i >= each) {
                i -= each;
                x += beyond;
            }
            return some;
        };
        const auto add = [&](const pack<T>& some) {
            for (int e = 0; e < size; ++e) add_in_order(sums[e], static_cast<C>(some.of[e]));
        };
        PARE_ONE_BY_ONE
        for (; left > (Unroll - 1) * groups; left -= Unroll * groups) {
            pack<T> some[Unroll];
            for (int u = 0; u < Unroll; ++u) some[u] = load();
            for (int u = 0; u < Unroll; ++u) add(some[u]);
        }
        PARE_ONE_BY_ONE
        for (; left > 0; left -= groups) add(load());
    }
    /// What a query sees of a pack of keys.
    PARE_HD pack<T> load_seen(const key_strip<T>& strip, index_t i, index_t key, const T* x) const {
        const index_range seen = visible_keys(mask, i, strip.p.extent(1), strip.p.extent(2));
        if (strip.packed && seen.begin <= key && key + size <= seen.end)
            return load_pack<true>(x, 1, size);
        pack<T> some;
        for (int e = 0; e < size; ++e)
            some.of[e] = key + e >= seen.begin && key + e < seen.end ? x[e * strip.p.stride(2)]
                                                                     : static_cast<T>(C(0));
        return some;
    }
};

/// p[b, h, q, k] += row[b, k] where a counted query sees the key.
template <class T, class Batch>
struct add_to_keys_job {
    static constexpr int at_once = 1, size = pack<T>::size;
    using C = compute_t<T>;
    struct value {
        pack<T> p, row;
        int first, last; ///< what is seen of the pack
    };

    view<const T, 2> row;
    Batch batch;
    attention_mask mask;
    counted_queries which;
    view<T, 4> p;
    index_t whole;

    PARE_HD index_t last(index_t rows) const { return rows; }
    template <bool Whole>
    PARE_HD void load(index_t at, index_t k, value& to) const {
        const place x = place_of(at);
        const index_t queries = batch.queries(x.b), key = k * size;
        const index_range q = counted(which, queries);
        const index_range seen = visible_keys(mask, x.i, queries, batch.keys(x.b));
        const bool counts = x.i >= q.begin && x.i < q.end;
        to.first = static_cast<int>(std::clamp<index_t>(seen.begin - key, 0, size));
        to.last = counts ? static_cast<int>(std::clamp<index_t>(seen.end - key, 0, size)) : 0;
        if (to.first >= to.last) return;
        to.row = load_pack<false>(&row(x.b, key), row.stride(1), to.last);
        if (Whole && to.first == 0 && to.last == size)
            to.p = load_pack<true>(&p(x.b, x.h, x.i, key), 1, size);
        else
            to.p = load_pack<false>(&p(x.b, x.h, x.i, key), p.stride(3), to.last);
    }
    template <bool Whole>
    PARE_HD void store(index_t at, index_t k, value& of) const {
        if (of.first >= of.last) return;
        const place x = place_of(at);
        for (int e = 0; e < size; ++e)
            of.p.of[e] = static_cast<T>(static_cast<C>(of.p.of[e]) + static_cast<C>(of.row.of[e]));
        T* const to = &p(x.b, x.h, x.i, k * size);
        if (Whole && of.first == 0 && of.last == size) return store_pack<true>(of.p, to, 1, size);
        for (int e = 0; e < size; ++e)
            if (e >= of.first && e < of.last) to[e * p.stride(3)] = of.p.of[e];
    }

  private:
    struct place {
        index_t b, h, i;
    };
    PARE_HD place place_of(index_t at) const {
        const index_t of_batch = at / p.extent(2);
        return {of_batch / p.extent(1), of_batch % p.extent(1), at % p.extent(2)};
    }
};
template <class Policy, class T, class Batch>
void add_to_keys_by_blocks(const Policy& policy, view<const T, 2> row, const Batch& batch,
                           const attention_mask& mask, const counted_queries& which, view<T, 4> p) {
    const index_t keys = p.extent(3);
    map(policy, p.extent(0) * p.extent(1) * p.extent(2), packs_of<T>(keys),
        add_to_keys_job<T, Batch>{row, batch, mask, which, p,
                                  rows_in_packs(p) ? keys / pack<T>::size : 0});
}

/// At least as many as counted queries of any sequence of up to `queries`.
constexpr index_t most_counted(const counted_queries& which, index_t queries) {
    index_t most = queries;
    if (which.begin < 0 && which.begin > -queries) most = -which.begin;
    if (which.end >= 0) most = std::min(most, which.end);
    if ((which.begin < 0) == (which.end < 0))
        most = std::min(most, std::max<index_t>(0, which.end - which.begin));
    return most;
}

template <class T, class Strips, class Store>
key_sums_block<T, Strips, Store> key_sums_kernel(const Strips& strips, const attention_mask& mask,
                                                 const counted_queries& counted,
                                                 const Store& store) {
    return {strips, mask, counted, store};
}

/// store(b, k, sum over heads h and counted queries q that see k of p[b, h, q, k]), for each key;
/// 0 for those behind a sequence's, up to the room there is.
template <class Policy, class T, class Batch, class Store>
void key_sums_by_blocks(const Policy& policy, view<const T, 4> p, const Batch& batch,
                        const attention_mask& mask, const counted_queries& which,
                        const Store& store) {
    using strips = padded_strips<T, Batch>;
    constexpr index_t width = key_lanes * pack<T>::size, chunk = key_rows;
    const index_t sequences = p.extent(0), room = p.extent(3), heads = p.extent(1);
    if (sequences == 0 || room == 0) return;
    strips of{p, batch, (room + width - 1) / width, 0, rows_in_packs(p)};
    const auto direct = [=] PARE_HD(index_t b, index_t, index_t k, double sum) {
        if (k < room) store(b, k, sum);
    };
    constexpr index_t enough = 264; // blocks: two of each of an H100's multiprocessors
    const index_t chunks = (heads * most_counted(which, p.extent(2)) + chunk - 1) / chunk;
    if (chunks <= 1 || of.blocks() >= enough) {
        const auto kernel = key_sums_kernel<T>(of, mask, which, direct);
        return policy.for_blocks(of.blocks(), kernel);
    }
    of.chunks = chunks;
    const auto memory = policy.template temporary<double>(sequences * chunks * room);
    double* const parts = memory.data();
    const auto kernel = key_sums_kernel<T>(
        of, mask, which, [=] PARE_HD(index_t b, index_t c, index_t k, double sum) {
            if (k < room) parts[(b * chunks + c) * room + k] = sum;
        });
    policy.for_blocks(of.blocks(), kernel);
    policy.for_each(sequences * room, [=] PARE_HD(index_t at) {
        const index_t b = at / room, k = at % room;
        double total = 0;
        for (index_t c = 0; c < chunks; ++c)
            add_in_order(total, parts[(b * chunks + c) * room + k]);
        store(b, k, total);
    });
}

/// The same for packed sequences: store(s, k, sum) for each key of sequence s.
template <class Policy, class T, class Offset, class Store>
void key_sums_packed_by_blocks(const Policy& policy, const T* p, index_t heads,
                               const Offset* offsets, index_t sequences, index_t tokens,
                               const attention_mask& mask, const counted_queries& which,
                               const Store& store) {
    if (tokens == 0) return;
    constexpr index_t width = key_lanes * pack<T>::size;
    const packed_strips<T, Offset> of{p, heads, {offsets, sequences, width}, tokens};
    const auto kernel =
        key_sums_kernel<T>(of, mask, which, [=] PARE_HD(index_t s, index_t, index_t k, double sum) {
            if (k < static_cast<index_t>(offsets[s + 1]) - static_cast<index_t>(offsets[s]))
                store(s, k, sum);
        });
    policy.for_blocks(of.blocks(), kernel);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
