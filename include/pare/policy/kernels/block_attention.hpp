// Attention by blocks of threads: tiles of 64 queries x 64 keys in memory that a block shares, no
// array of queries x keys. On a GPU products of half types are made by tensor cores.
#pragma once

#include "../../core/attention.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Whether each row of each head of x begins where a pack may, and is whole packs.
template <class T>
bool in_packs(view<const T, 3> x) {
    constexpr index_t size = pack<T>::size;
    return reinterpret_cast<std::uintptr_t>(x.data_handle()) % 16 == 0 && x.extent(2) % size == 0 &&
           (x.extent(0) <= 1 || x.stride(0) % size == 0) &&
           (x.extent(1) <= 1 || x.stride(1) % size == 0) && (x.extent(2) <= 1 || x.stride(2) == 1);
}

/// One block's part: of a head of a sequence, every `parts`-th strip of 64 queries. Keys and values
/// pass twice, for the largest logit and the sum of each query, and then for probabilities that are
/// final: so what keys receive is summed up, and outputs never have to be scaled. T has queries and
/// values of at most Width elements.
template <class T, class Offset, int Width>
struct block_attention {
    using C = compute_t<T>;
    using tile = tiles<T, Width>;
    static constexpr int strip = tile::rows, stride = tile::stride;
    static constexpr int square_stride = tile::square_stride, sum_stride = tile::sum_stride;
    /// Of a sequence's strips, at most so many are summed up by themselves: an order that depends on
    /// its length alone.
    static constexpr index_t parts = 16;

    attention_call<T, Offset> call;
    C* received; ///< [parts x tokens x heads], or null
    bool packed_q, packed_k, packed_v;

    /// What a block shares; tensor cores ask for the alignment.
    struct shared {
        alignas(128) T q[strip * stride];
        alignas(128) T kv[strip * stride];
        alignas(128) T p[strip * square_stride];
        alignas(128) C s[strip * sum_stride];
        C most[2][strip], total[2][strip]; // of a query's even keys, and of its odd ones
        C weight[strip], column[2][strip];
        int begin[strip], end[strip]; // keys that a query sees
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const { return call.sequences * call.heads() * parts; }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
#ifdef __CUDA_ARCH__
        constexpr bool tensor = sizeof(T) == 2 && !std::is_integral<T>::value;
        run<std::conditional_t<tensor, tensor_tiles<T, Width>, tile>>(block, memory);
#else
        run<tile>(block, memory);
#endif
    }

  private:
    template <class Tiles>
    PARE_HD void run(index_t block, unsigned char* memory) const {
        const index_t part = block % parts, head = block / parts % call.heads();
        const index_t s = block / parts / call.heads(), begin = call.begin(s), n = call.length(s);
        if (part * strip >= n) return;
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block threads;
        C* const sums = received ? received + part * call.q.extent(0) * call.heads() : nullptr;
        if (sums)
            threads.step([&](int thread) {
                for (index_t j = thread; j < n; j += thread_block::size)
                    sums[(begin + j) * call.heads() + head] = 0;
            });
        for (index_t first = part * strip; first < n; first += parts * strip)
            attend<Tiles>(threads, m, {head, begin, n, first}, sums);
    }

    struct place {
        index_t head, begin, n, first; // the sequence's first token and length; the strip's query
    };

    template <class Tiles>
    PARE_HD void attend(const thread_block& threads, shared& m, const place& at, C* sums) const {
        const index_t group = call.group(at.head);
        const int size = static_cast<int>(call.q.extent(2)),
                  width = static_cast<int>(call.v.extent(2));
        threads.step([&](int thread) {
            load(thread, call.q, packed_q, at.head, at, at.first, m.q);
            if (thread < strip) begin_query(thread, at, m);
        });
        // What the strip's queries see begins at the first one's, and ends at the last one's.
        const index_t last = at.first + strip < at.n ? strip - 1 : at.n - at.first - 1;
        const index_t keys_begin = m.begin[0], keys_end = m.end[last];
        const auto multiply = [&](index_t key) {
            threads.step([&](int thread) { load(thread, call.k, packed_k, group, at, key, m.kv); });
            threads.step(
                [&](int thread) { Tiles::multiply_transposed(thread, m.q, m.kv, size, m.s); });
        };

        per_thread<C> most, total;
        threads.step([&](int thread) {
            most[thread] = std::numeric_limits<C>::lowest();
            total[thread] = 0;
        });
        for (index_t key = keys_begin; key < keys_end; key += strip) {
            multiply(key);
            threads.step(
                [&](int thread) { sum_up(thread, at, key, m, most[thread], total[thread]); });
        }
        threads.step([&](int thread) {
            m.most[thread % 2][thread / 2] = most[thread];
            m.total[thread % 2][thread / 2] = total[thread];
        });
        threads.step([&](int thread) {
            if (thread < strip) join(thread, m);
        });

        per_thread<typename Tiles::sums> outputs;
        threads.step([&](int thread) { Tiles::clear(outputs[thread]); });
        for (index_t key = keys_begin; key < keys_end; key += strip) {
            multiply(key);
            threads.step([&](int thread) {
                probabilities(thread, at, key, m);
                load(thread, call.v, packed_v, group, at, key, m.kv);
            });
            threads.step([&](int thread) {
                Tiles::add(thread, m.p, m.kv, width, outputs[thread]);
                if (sums && thread < strip && key + thread < at.n)
                    sums[(at.begin + key + thread) * call.heads() + at.head] +=
                        m.column[0][thread] + m.column[1][thread];
            });
        }
        for (int column = 0; column < width; column += strip) {
            threads.step([&](int thread) { Tiles::store(thread, outputs[thread], column, m.s); });
            threads.step([&](int thread) { store(thread, at, column, m); });
        }
    }

    /// Rows `from` and on of the sequence, to a tile; zeros beyond its end and beyond the columns.
    PARE_HD static void load(int thread, view<const T, 3> x, bool packed, index_t head,
                             const place& at, index_t from, T* tile_of) {
        const int columns = static_cast<int>(x.extent(2));
        if (packed) {
            constexpr int size = pack<T>::size, in_row = Width / size;
            for (int i = thread; i < strip * in_row; i += thread_block::size) {
                const int r = i / in_row, c = i % in_row * size;
                pack<T> some{};
                if (from + r < at.n && c < columns)
                    some = *reinterpret_cast<const pack<T>*>(&x(at.begin + from + r, head, c));
                for (int e = 0; e < size; ++e) tile_of[r * stride + c + e] = some.of[e];
            }
        } else {
            for (int i = thread; i < strip * Width; i += thread_block::size) {
                const int r = i / Width, c = i % Width;
                const bool inside = from + r < at.n && c < columns;
                tile_of[r * stride + c] =
                    inside ? x(at.begin + from + r, head, c) : static_cast<T>(0);
            }
        }
    }

    /// What the strip's query `row` sees and how much it counts; nothing beyond the sequence's end.
    PARE_HD void begin_query(int row, const place& at, shared& m) const {
        const index_t i = at.first + row;
        index_range seen{0, 0};
        if (i < at.n) seen = visible_keys(call.mask, i, at.n, at.n);
        const index_range q = counted(call.counted, at.n);
        m.begin[row] = static_cast<int>(seen.begin);
        m.end[row] = static_cast<int>(seen.end);
        m.weight[row] = i < at.n && i >= q.begin && i < q.end ? call.weight(at.begin + i) : C(0);
    }

    PARE_HD C logit(const place& at, int row, index_t key, const shared& m, int column) const {
        const C x = m.s[row * sum_stride + column] * call.scale;
        return call.biased() ? x + call.bias(at.head, at.begin, at.first + row, key) : x;
    }
    PARE_HD static bool sees(const shared& m, int row, index_t key) {
        return key >= m.begin[row] && key < m.end[row];
    }

    /// The largest logit so far of every second key of a query, and the sum of its exponentials.
    PARE_HD void sum_up(int thread, const place& at, index_t key, const shared& m, C& most,
                        C& total) const {
        const int row = thread / 2;
        for (int i = 0; i < strip / 2; ++i) {
            const int column = (i + row) % (strip / 2) * 2 + thread % 2; // each lane another bank
            if (!sees(m, row, key + column)) continue;
            const C x = logit(at, row, key + column, m, column);
            if (x > most) {
                total *= std::exp(most - x);
                most = x;
            }
            total += std::exp(x - most);
        }
    }
    /// Of both halves: the largest logit, and the inverse of the sum.
    PARE_HD static void join(int row, shared& m) {
        const C a = m.most[0][row], b = m.most[1][row], most = a < b ? b : a;
        const C total = m.total[0][row] * std::exp(a - most) + m.total[1][row] * std::exp(b - most);
        m.most[0][row] = most;
        m.total[0][row] = m.begin[row] < m.end[row] ? 1 / total : C(0);
    }
    /// Probabilities of one key, by half of the strip's queries, and what it receives of them.
    PARE_HD void probabilities(int thread, const place& at, index_t key, shared& m) const {
        const int column = thread % strip, half = thread / strip;
        C sum = 0;
        for (int row = half * (strip / 2); row < (half + 1) * (strip / 2); ++row) {
            C p = 0;
            if (sees(m, row, key + column))
                p = std::exp(logit(at, row, key + column, m, column) - m.most[0][row]) *
                    m.total[0][row];
            sum += p * m.weight[row];
            m.p[row * square_stride + column] = static_cast<T>(p);
        }
        m.column[half][column] = sum;
    }
    PARE_HD void store(int thread, const place& at, int first, const shared& m) const {
        const int columns = static_cast<int>(call.out.extent(2)) - first;
        for (int i = thread; i < strip * strip; i += thread_block::size) {
            const int row = i / strip, column = i % strip;
            if (at.first + row < at.n && column < columns)
                call.out(at.begin + at.first + row, at.head, first + column) =
                    static_cast<T>(m.s[row * sum_stride + column]);
        }
    }
};

/// Attention of queries and values of at most Width elements.
template <int Width, class Policy, class T, class Offset>
void attention_by_blocks(const Policy& policy, const attention_call<T, Offset>& call) {
    using C = compute_t<T>;
    using block = block_attention<T, Offset, Width>;
    const index_t tokens = call.q.extent(0), heads = call.heads(), strip = block::strip;
    const auto memory = policy.template temporary<C>(
        call.received.extent(0) == 0 ? 0 : block::parts * tokens * heads);
    const C* const received = memory.data();
    const block kernel{call, memory.data(), in_packs(call.q), in_packs(call.k), in_packs(call.v)};
    policy.for_blocks(kernel.blocks(), kernel);
    if (call.received.extent(0) == 0) return;
    const attention_call<T, Offset> c = call;
    policy.for_each(tokens, [=] PARE_HD(index_t t) {
        const index_t s = segment_of(c.offsets, c.sequences, t);
        const index_t strips = (c.length(s) + strip - 1) / strip;
        double sum = 0;
        for (index_t part = 0; part < strips && part < block::parts; ++part)
            for (index_t h = 0; h < heads; ++h)
                sum += static_cast<double>(received[(part * tokens + t) * heads + h]);
        c.received(t) = sum;
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
