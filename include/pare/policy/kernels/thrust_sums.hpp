// Sums of columns over the rows of segments, by blocks of threads. Terms are added up in compute_t,
// at most 256 of them, and in double from there on, in an order that depends on the shapes alone.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/fast_math.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"

#include <algorithm>
#include <tuple>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Pieces of `width` rows of segments, none with rows of two: piece i of segment s has the slot
/// first(s) + i, and no other one has; some slots are empty.
template <class Offsets>
struct slots {
    Offsets offsets;
    index_t segments, width;

    constexpr index_t offset(index_t s) const { return static_cast<index_t>(offsets[s]); }
    constexpr index_t first(index_t s) const { return offset(s) / width + s; }
    constexpr index_t count(index_t rows) const { return rows / width + segments; }
    /// The segment that a slot is of; one that is of none may be behind its pieces or before them.
    constexpr index_t segment(index_t slot) const {
        index_t s = 0, end = segments;
        while (s + 1 < end) {
            const index_t middle = (s + end) / 2;
            if (first(middle) <= slot)
                s = middle;
            else
                end = middle;
        }
        return s;
    }
};

/// sequential::segment_sums. A block has `lanes` packs of columns of a segment, and every groups-th
/// of its rows is a thread's. It adds up chunk after chunk of rows; or one chunk, for another block
/// to add up the chunks' sums: in the same order.
template <class Op, class Offsets, class Out, class T, class... Ts>
struct segment_sums_block {
    using C = compute_t<T>;
    static constexpr int size = common_size<T, Ts...>, threads = 128;
    static constexpr int unroll = 4 / (1 + sizeof...(Ts)), blocks_a_processor = 6;
    static constexpr index_t chunk = 256; ///< rows
    static constexpr std::size_t shared_bytes = threads * size * sizeof(double);
    enum class task { all, one_chunk, add_chunks };

    Op op;
    slots<Offsets> chunks_of;
    index_t unit;
    view<Out, 2> out; ///< of units, or of columns where `unit` is 1
    std::tuple<view<const T, 2>, view<const Ts, 2>...> in;
    bool packed;
    int lanes;
    task what = task::all;
    double* chunks = nullptr; ///< [slots x columns]

    const view<const T, 2>& x() const { return std::get<0>(in); }
    static constexpr index_t packs_of(index_t columns) { return (columns + size - 1) / size; }
    index_t tiles() const { return (packs_of(x().extent(1)) + lanes - 1) / lanes; }
    index_t chunk_count() const { return chunks_of.count(x().extent(0)); }
    index_t blocks() const {
        return (what == task::one_chunk ? chunk_count() : chunks_of.segments) * tiles();
    }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const auto& rows = std::get<0>(in);
        const index_t packs = packs_of(rows.extent(1)), tiles_of = (packs + lanes - 1) / lanes;
        const index_t tile = block % tiles_of, row = block / tiles_of;
        const place at{tile * lanes, packs - tile * lanes < lanes
                                         ? static_cast<int>(packs - tile * lanes)
                                         : lanes};
        if (what == task::one_chunk) {
            const index_t s = chunks_of.segment(row), number = row - chunks_of.first(s);
            const index_t begin = chunks_of.offset(s) + number * chunk;
            const index_t end = chunks_of.offset(s + 1);
            if (number < 0 || begin >= end) return;
            column_sums totals;
            add_chunk(at, begin, begin + chunk < end ? begin + chunk : end, memory, totals, true);
            const index_t columns = rows.extent(1);
            for_columns(at, [&](int thread, int k, index_t c) {
                chunks[row * columns + c] = totals[thread].of[k];
            });
        } else {
            sum_segment(row, at, memory);
        }
    }

  private:
    struct place {
        index_t first; // pack
        int count;
    };
    /// What a thread has of the columns of a tile: every 128th.
    struct some_columns {
        double of[size];
    };
    using column_sums = per_thread<some_columns, threads>;
    using block_threads = block_of<threads>;

    /// f(thread, k, c) for each column c of a tile, the k-th of the thread's.
    template <class F>
    PARE_HD void for_columns(const place& at, const F& f) const {
        const index_t first = at.first * size, all = std::get<0>(in).extent(1);
        const int count =
            static_cast<int>(std::min<index_t>(index_t{at.count} * size, all - first));
        block_threads().step([&](int thread) {
            for (int k = 0; k < size; ++k)
                if (thread + k * threads < count) f(thread, k, first + thread + k * threads);
        });
    }

    PARE_HD void sum_segment(index_t s, const place& at, unsigned char* memory) const {
        column_sums totals;
        const index_t begin = chunks_of.offset(s), end = chunks_of.offset(s + 1);
        block_threads().step([&](int thread) {
            for (double& total : totals[thread].of) total = 0;
        });
        if (what == task::all) {
            for (index_t t = begin; t < end; t += chunk)
                add_chunk(at, t, t + chunk < end ? t + chunk : end, memory, totals, false);
        } else {
            const index_t columns = std::get<0>(in).extent(1), from = chunks_of.first(s);
            const index_t count = (end - begin + chunk - 1) / chunk;
            for_columns(at, [&](int thread, int k, index_t c) {
                double total = 0;
                for (index_t i = 0; i < count; ++i)
                    add_in_order(total, chunks[(from + i) * columns + c]);
                totals[thread].of[k] = total;
            });
        }
        if (unit == 1)
            return for_columns(at, [&](int thread, int k, index_t c) {
                out(s, c) = static_cast<Out>(totals[thread].of[k]);
            });
        double* const of_columns = reinterpret_cast<double*>(memory);
        const index_t first = at.first * size;
        for_columns(at, [&](int thread, int k, index_t c) {
            of_columns[c - first] = totals[thread].of[k];
        });
        const index_t last = std::min(first + at.count * size, std::get<0>(in).extent(1));
        block_threads().step([&](int thread) {
            for (index_t u = first / unit + thread; u * unit < last; u += threads) {
                double total = 0;
                for (index_t c = u * unit; c < (u + 1) * unit; ++c) total += of_columns[c - first];
                out(s, u) = static_cast<Out>(total);
            }
        });
    }

    /// totals += the sums of columns over the rows begin <= t < end, at most a chunk of them.
    PARE_HD void add_chunk(const place& at, index_t begin, index_t end, unsigned char* memory,
                           column_sums& totals, bool first) const {
        C* const parts = reinterpret_cast<C*>(memory); // [groups x lanes * size]
        const int groups = threads / lanes, width = lanes * size;
        block_threads().step([&](int thread) {
            C sums[size] = {};
            if (thread % lanes < at.count)
                add_rows_of_thread(at.first + thread % lanes, begin + thread / lanes, end, groups,
                                   sums);
            for (int e = 0; e < size; ++e) parts[thread * size + e] = sums[e];
        });
        for (int apart = groups / 2; apart > 0; apart /= 2)
            block_threads().step([&](int thread) {
                for (int i = thread; i < apart * width; i += threads)
                    parts[i] += parts[apart * width + i];
            });
        for_columns(at, [&](int thread, int k, index_t) {
            const double sum = static_cast<double>(parts[thread + k * threads]);
            double& total = totals[thread].of[k];
            total = first ? sum : opaque(total + sum);
        });
    }
    PARE_HD void add_rows_of_thread(index_t at, index_t begin, index_t end, int groups,
                                    C (&sums)[size]) const {
        const index_t columns = std::get<0>(in).extent(1);
        if (packed && (at + 1) * size <= columns)
            add_rows<true, unroll>(at * size, begin, end, groups, sums);
        else
            add_rows<false, 1>(at * size, begin, end, groups, sums);
    }
    /// sums += the rows begin, begin + groups, ... of a pack of columns.
    template <bool Whole, int Unroll>
    PARE_HD void add_rows(index_t c, index_t begin, index_t end, int groups,
                          C (&sums)[size]) const {
        const index_t count = std::get<0>(in).extent(1) - c;
        std::tuple<const T*, const Ts*...> first; // of the rows that come next
        for_pairs(
            first, in, [&](auto& x, const auto& y) { x = &y(begin, c); },
            std::index_sequence_for<T, Ts...>());
        index_t t = begin;
        const auto add = [&](const auto& some) {
            for (int e = 0; e < size; ++e)
                add_in_order(
                    sums[e],
                    std::apply([&](const auto&... y) { return op(static_cast<C>(y.of[e])...); },
                               some));
        };
        const auto load = [&](auto& some) {
            load_packs(some, first, in, [&](auto& x, const auto& y) {
                const auto loaded = load_pack<Whole>(x, y.stride(1), count);
                x += groups * y.stride(0);
                return loaded;
            });
        };
        for (; t + (Unroll - 1) * groups < end; t += Unroll * groups) {
            std::tuple<pack<T>, pack<Ts>...> some[Unroll];
            for (int u = 0; u < Unroll; ++u) load(some[u]);
            for (int u = 0; u < Unroll; ++u) add(some[u]);
        }
        PARE_ONE_BY_ONE
        for (; t < end; t += groups) {
            std::tuple<pack<T>, pack<Ts>...> some;
            load(some);
            add(some);
        }
    }
};

/// sequential::segment_sums.
template <class Policy, class Op, class Offsets, class Out, class T, class... Ts>
void segment_sums_by_blocks(const Policy& policy, Op op, const Offsets& offsets, index_t unit,
                            view<Out, 2> out, view<const T, 2> x, view<const Ts, 2>... others) {
    using kernel_type = segment_sums_block<Op, Offsets, Out, T, Ts...>;
    using task = typename kernel_type::task;
    const index_t segments = out.extent(0), columns = out.extent(1) * unit;
    if (out.size() == 0) return;
    const int lanes = static_cast<int>(std::min<index_t>(32, kernel_type::packs_of(columns)));
    int power = 1;
    while (power < lanes) power *= 2;
    // A unit is one block's, or its columns are added up at the end.
    if (unit > 1 && power * kernel_type::size % unit != 0) {
        const auto memory = policy.template temporary<double>(segments * columns);
        const view<double, 2> sums(memory.data(), segments, columns);
        segment_sums_by_blocks(policy, op, offsets, index_t{1}, sums, x, others...);
        const index_t units = out.extent(1);
        return policy.for_each(segments * units, [=] PARE_HD(index_t at) {
            const index_t s = at / units, u = at % units;
            double total = 0;
            for (index_t c = u * unit; c < (u + 1) * unit; ++c) total += sums(s, c);
            out(s, u) = static_cast<Out>(total);
        });
    }
    const std::tuple<view<const T, 2>, view<const Ts, 2>...> in(x, others...);
    kernel_type kernel{
        op,   {offsets, segments, kernel_type::chunk},
        unit, out,
        in,   same_size<T, Ts...> && rows_in_packs(x) && (rows_in_packs(others) && ...),
        power};
    // Blocks enough, or segments of a chunk on average: each is one block's.
    constexpr index_t enough = 1024;
    if (kernel.blocks() >= enough || x.extent(0) <= kernel_type::chunk * segments)
        return policy.for_blocks(kernel.blocks(), kernel);
    const auto memory = policy.template temporary<double>(kernel.chunk_count() * columns);
    kernel.chunks = memory.data();
    kernel.what = task::one_chunk;
    policy.for_blocks(kernel.blocks(), kernel);
    kernel.what = task::add_chunks;
    policy.for_blocks(kernel.blocks(), kernel);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
