// Attention by blocks of threads: tiles of 64 queries x 64 keys in memory that a block shares, no
// array of queries x keys.
#pragma once

#include "block_tiles.hpp"
#include "step_parts.hpp"
#include "thrust_blocks.hpp"

#include <cmath>
#include <cstddef>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One block's part: 64 queries of one head of a sequence. Keys and values pass once; outputs are
/// scaled where a larger logit comes. Queries and values have at most Width elements; Relative:
/// call.relative().
template <class Call, int Width, bool Relative>
struct block_attention {
    using T = tile_element<Call>;
    using C = typename Call::compute;
    using tile = tiles<T, Width>;
    static constexpr int strip = tile::rows, stride = tile::stride;
    static constexpr int sum_stride = tile::sum_stride;

    Call call;
    softmax_rows<C> rows;
    bool packed_q, packed_k, packed_v;

    /// What a block shares.
    struct shared {
        alignas(128) T q[strip * stride];
        alignas(128) T kv[strip * stride];
        alignas(128) C s[strip * sum_stride]; // logits, their exponentials, and then outputs
        C most[2][strip], total[2][strip];    // of a query's even keys, and of its odd ones
        C rescaled[strip];
        int begin[strip], end[strip]; // keys that a query sees
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const { return strips_of_all(call, call.q.extent(0), strip) * call.heads(); }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const block_place mine(block, call.heads());
        const strip_place at = strip_of_queries(call, mine.strip, strip);
        const index_t s = at.sequence, queries = call.queries(s);
        if (at.first >= queries || is_step(call, s)) return;
        attend(*reinterpret_cast<shared*>(memory),
               {mine.which, call.query_begin(s), queries, call.key_begin(s), call.keys(s), at.first,
                place_of_query(call.where(), s, at.first)});
    }

  private:
    struct place {
        index_t head, query_begin, queries, key_begin, keys; // of the sequence
        index_t first, place; // the strip's first query, and where it stands among the keys
    };

    PARE_HD void attend(shared& m, const place& at) const {
        const thread_block threads;
        const index_t group = call.group(at.head);
        const int size = static_cast<int>(call.q.extent(2)),
                  width = static_cast<int>(call.v.extent(2));
        const auto load = [&](int thread, const auto& x, bool packed, index_t from, T* to) {
            load_tile<Width>(thread, x, packed, group, at.key_begin + from, at.key_begin + at.keys,
                             to, stride);
        };
        per_thread<C> most, total;
        per_thread<typename tile::sums> outputs;
        threads.step([&](int thread) {
            load_tile<Width>(thread, call.q, packed_q, at.head, at.query_begin + at.first,
                             at.query_begin + at.queries, m.q, stride);
            if (thread < strip) begin_query(thread, at, m);
            most[thread] = std::numeric_limits<C>::lowest();
            total[thread] = 0;
            tile::clear(outputs[thread]);
        });
        // What the strip's queries see begins at the first one's, and ends at the last one's.
        const index_t last = at.first + strip < at.queries ? strip - 1 : at.queries - at.first - 1;
        const index_t keys_begin = m.begin[0], keys_end = m.end[last];
        for (index_t key = keys_begin; key < keys_end; key += strip) {
            threads.step([&](int thread) { load(thread, call.k, packed_k, key, m.kv); });
            threads.step(
                [&](int thread) { tile::multiply_transposed(thread, m.q, m.kv, size, m.s); });
            threads.step([&](int thread) {
                m.most[thread % 2][thread / 2] = highest(thread, at, key, m);
                load(thread, call.v, packed_v, key, m.kv);
            });
            threads.step(
                [&](int thread) { exponentials(thread, key, m, most[thread], total[thread]); });
            threads.step([&](int thread) {
                tile::scale(thread, m.rescaled, outputs[thread]);
                tile::add(thread, m.s, m.kv, width, outputs[thread]);
            });
        }
        threads.step([&](int thread) {
            m.total[thread % 2][thread / 2] = total[thread];
            if (thread % 2 == 0) m.most[0][thread / 2] = most[thread];
        });
        threads.step([&](int thread) {
            if (thread < strip && at.first + thread < at.queries)
                rows.store(at.query_begin + at.first + thread, at.head, m.most[0][thread],
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
        if (i < at.queries) seen = visible_keys(call.mask, i, at.queries, at.keys);
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
            const int column = 2 * i + thread % 2;
            if (!sees(m, row, key + column)) continue;
            C& x = m.s[row * sum_stride + column];
            x *= call.scale;
            add_bias<Relative>(call, at.head, at.key_begin, at.place + row, key + column, x);
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
            const int column = 2 * i + thread % 2;
            C& x = m.s[row * sum_stride + column];
            x = sees(m, row, key + column) ? std::exp(x - most) : C(0);
            total += x;
        }
    }
    PARE_HD void store(int thread, const place& at, int first, const shared& m) const {
        const int columns = static_cast<int>(call.out.extent(2)) - first;
        for (int i = thread; i < strip * strip; i += thread_block::size) {
            const int row = i / strip, column = i % strip;
            if (at.first + row >= at.queries || column >= columns) continue;
            const bool sees = m.begin[row] < m.end[row];
            const C total = m.total[0][row] + m.total[1][row];
            call.out(at.query_begin + at.first + row, at.head, first + column) =
                static_cast<typename Call::of_query>(sees ? m.s[row * sum_stride + column] / total
                                                          : C(0));
        }
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
