// Attention by blocks of threads: tiles of 64 queries x 64 keys in memory that a block shares, no
// array of queries x keys.
#pragma once

#include "block_tiles.hpp"
#include "thrust_blocks.hpp"

#include <cmath>
#include <cstddef>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One block's part: 64 queries of one head of a sequence. Keys and values pass once; outputs are
/// scaled where a larger logit comes. T has queries and values of at most Width elements; Relative: call.relative().
template <class T, class Offset, int Width, bool Relative>
struct block_attention {
    using C = compute_t<T>;
    using tile = tiles<T, Width>;
    static constexpr int strip = tile::rows, stride = tile::stride;
    static constexpr int square_stride = tile::square_stride, sum_stride = tile::sum_stride;

    attention_call<T, Offset> call;
    softmax_rows<C> rows;
    bool packed_q, packed_k, packed_v;

    /// What a block shares.
    struct shared {
        alignas(128) T q[strip * stride];
        alignas(128) T kv[strip * stride];
        alignas(128) T p[strip * square_stride];
        alignas(128) C s[strip * sum_stride];
        C most[2][strip], total[2][strip]; // of a query's even keys, and of its odd ones
        C rescaled[strip];
        int begin[strip], end[strip]; // keys that a query sees
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const { return strips_of_all(call, call.q.extent(0), strip) * call.heads(); }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const block_place mine(block, call.heads());
        const strip_place at = strip_at(call, mine.strip, strip);
        const index_t head = mine.head, n = call.length(at.sequence);
        if (at.first >= n) return;
        attend(*reinterpret_cast<shared*>(memory), {head, call.begin(at.sequence), n, at.first});
    }

  private:
    struct place {
        index_t head, begin, n, first; // the sequence's first token and length; the strip's query
    };

    PARE_HD void attend(shared& m, const place& at) const {
        const thread_block threads;
        const index_t group = call.group(at.head);
        const int size = static_cast<int>(call.q.extent(2)),
                  width = static_cast<int>(call.v.extent(2));
        const auto load = [&](int thread, const view<const T, 3>& x, bool packed, index_t head,
                              index_t from, T* to) {
            load_tile<Width>(thread, x, packed, head, at.begin + from, at.begin + at.n, to, stride);
        };
        per_thread<C> most, total;
        per_thread<typename tile::sums> outputs;
        threads.step([&](int thread) {
            load(thread, call.q, packed_q, at.head, at.first, m.q);
            if (thread < strip) begin_query(thread, at, m);
            most[thread] = std::numeric_limits<C>::lowest();
            total[thread] = 0;
            tile::clear(outputs[thread]);
        });
        // What the strip's queries see begins at the first one's, and ends at the last one's.
        const index_t last = at.first + strip < at.n ? strip - 1 : at.n - at.first - 1;
        const index_t keys_begin = m.begin[0], keys_end = m.end[last];
        for (index_t key = keys_begin; key < keys_end; key += strip) {
            threads.step([&](int thread) { load(thread, call.k, packed_k, group, key, m.kv); });
            threads.step(
                [&](int thread) { tile::multiply_transposed(thread, m.q, m.kv, size, m.s); });
            threads.step([&](int thread) {
                m.most[thread % 2][thread / 2] = highest(thread, at, key, m);
                load(thread, call.v, packed_v, group, key, m.kv);
            });
            threads.step(
                [&](int thread) { exponentials(thread, key, m, most[thread], total[thread]); });
            threads.step([&](int thread) {
                tile::scale(thread, m.rescaled, outputs[thread]);
                tile::add(thread, m.p, m.kv, width, outputs[thread]);
            });
        }
        threads.step([&](int thread) {
            m.total[thread % 2][thread / 2] = total[thread];
            if (thread % 2 == 0) m.most[0][thread / 2] = most[thread];
        });
        threads.step([&](int thread) {
            if (thread < strip && at.first + thread < at.n)
                rows.store(at.begin + at.first + thread, at.head, m.most[0][thread],
                           m.total[0][thread] + m.total[1][thread]);
        });
        for (int column = 0; column < width; column += strip) {
            threads.step([&](int thread) { tile::store(thread, outputs[thread], column, m.s); });
            threads.step([&](int thread) { store(thread, at, column, m); });
        }
    }

    /// What the strip's query `row` sees; nothing beyond the sequence's end.
    PARE_HD void begin_query(int row, const place& at, shared& m) const {
        const index_t i = at.first + row;
        index_range seen{0, 0};
        if (i < at.n) seen = visible_keys(call.mask, i, at.n, at.n);
        m.begin[row] = static_cast<int>(seen.begin);
        m.end[row] = static_cast<int>(seen.end);
    }
    PARE_HD static bool sees(const shared& m, int row, index_t key) {
        return key >= m.begin[row] && key < m.end[row];
    }

    /// Turns every second product of a query into a logit; the largest one that it sees.
    PARE_HD C highest(int thread, const place& at, index_t key, shared& m) const {
        const int row = thread / 2;
        C most = std::numeric_limits<C>::lowest();
        for (int i = 0; i < strip / 2; ++i) {
            const int column = (i + row) % (strip / 2) * 2 + thread % 2; // each lane another bank
            if (!sees(m, row, key + column)) continue;
            C& x = m.s[row * sum_stride + column];
            x *= call.scale;
            add_bias<Relative>(call, at.head, at.begin, at.first + row, key + column, x);
            most = x > most ? x : most;
        }
        return most;
    }
    /// The exponentials of these logits less the largest one so far, and their sum.
    PARE_HD static void exponentials(int thread, index_t key, shared& m, C& most, C& total) {
        const int row = thread / 2;
        C next = m.most[0][row] > m.most[1][row] ? m.most[0][row] : m.most[1][row];
        next = most > next ? most : next;
        const C less = std::exp(most - next);
        most = next;
        total *= less;
        if (thread % 2 == 0) m.rescaled[row] = less;
        for (int i = 0; i < strip / 2; ++i) {
            const int column = (i + row) % (strip / 2) * 2 + thread % 2;
            C p = 0;
            if (sees(m, row, key + column)) p = std::exp(m.s[row * sum_stride + column] - most);
            total += p;
            m.p[row * square_stride + column] = static_cast<T>(p);
        }
    }
    PARE_HD void store(int thread, const place& at, int first, const shared& m) const {
        const int columns = static_cast<int>(call.out.extent(2)) - first;
        for (int i = thread; i < strip * strip; i += thread_block::size) {
            const int row = i / strip, column = i % strip;
            if (at.first + row < at.n && column < columns)
                call.out(at.begin + at.first + row, at.head, first + column) = static_cast<T>(
                    m.s[row * sum_stride + column] / (m.total[0][row] + m.total[1][row]));
        }
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
