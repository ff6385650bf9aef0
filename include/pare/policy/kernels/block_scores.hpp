// What keys receive of attention by blocks of threads, from queries, keys and log-sum-exp rows.
#pragma once

#include "block_tiles.hpp"

#include <cmath>
#include <cstddef>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One block's part: 64 keys of one head of a sequence. The counted queries that see them pass, 64
/// at a time. Queries have at most Width elements; Relative: call.relative().
template <class Call, int Width, bool Relative>
struct block_scores {
    using T = tile_element<Call>;
    using C = typename Call::compute;
    using tile = tiles<T, Width>;
    static constexpr int strip = tile::rows, stride = tile::stride, sum_stride = tile::sum_stride;

    Call call;
    head_sums parts;
    index_t keys;
    bool packed_q, packed_k;
    strips_there to_score; ///< where queries are other tokens than the keys: steps have none

    struct shared {
        alignas(128) T q[strip * stride];
        alignas(128) T k[strip * stride];
        alignas(128) C s[strip * sum_stride];
        double sum[2][strip]; // of the first half of the queries, and of the second
        C shift[strip], factor[strip];
        int begin[strip], end[strip]; // keys that a query sees
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const {
        return to_score.blocks(strips_of_all(call, keys, strip) * call.heads());
    }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        if constexpr (Call::same) {
            const block_place mine(block, call.heads());
            sum_up(memory, mine.which, strip_of_keys(call, mine.strip, strip));
        } else {
            to_score.for_block(block, call.heads(), [&](const block_place& mine) {
                sum_up(memory, mine.which, to_score.at(mine.strip, strip));
            });
        }
    }

  private:
    PARE_HD void sum_up(unsigned char* memory, index_t head, const strip_place& at) const {
        const index_t s = at.sequence, n = call.keys(s);
        if (at.first >= n) return;
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block threads;
        const auto q = call.queries_of(s);
        const auto k = call.keys_of(s);
        const index_t keys_end = at.first + strip < n ? at.first + strip : n;
        const index_range counts = counted(call.counted, call.queries(s));
        const index_t before = place_of_query(call.where(), s, 0);
        index_range queries = seeing_queries(call.mask, at.first, keys_end, call.queries(s), n);
        queries.begin = queries.begin > counts.begin ? queries.begin : counts.begin;
        queries.end = queries.end < counts.end ? queries.end : counts.end;
        const int size = static_cast<int>(q.extent(2));

        per_thread<double> sum;
        threads.step([&](int thread) {
            load_tile<Width>(thread, k, packed_k, call.group(head), at.first, n, m.k, stride);
            sum[thread] = 0;
        });
        for (index_t first = queries.begin; first < queries.end; first += strip) {
            threads.step([&](int thread) {
                load_tile<Width>(thread, q, packed_q, head, first, queries.end, m.q, stride);
                if (thread < strip && first + thread < queries.end)
                    begin_query(thread, s, first + thread, head, m);
            });
            threads.step(
                [&](int thread) { tile::multiply_transposed(thread, m.q, m.k, size, m.s); });
            threads.step([&](int thread) {
                const int column = thread % strip, first_row = thread / strip * (strip / 2);
                const index_t key = at.first + column;
                C some = 0;
                for (int row = first_row; row < first_row + strip / 2 && first + row < queries.end;
                     ++row) {
                    if (key < m.begin[row] || key >= m.end[row]) continue;
                    C x = m.s[row * sum_stride + column] * call.scale;
                    add_bias<Relative>(call, head, call.key_begin(s), before + first + row, key, x);
                    some = call.together(some, std::exp(x - m.shift[row]) * m.factor[row]);
                }
                sum[thread] = call.together(sum[thread], static_cast<double>(some));
            });
        }
        threads.step([&](int thread) { m.sum[thread / strip][thread % strip] = sum[thread]; });
        threads.step([&](int thread) {
            if (thread < strip && at.first + thread < n)
                parts.of(head, call.key_begin(s))[at.first + thread] =
                    call.together(m.sum[0][thread], m.sum[1][thread]);
        });
    }

    PARE_HD void begin_query(int row, index_t s, index_t i, index_t head, shared& m) const {
        const index_range seen = visible_keys(call.mask, i, call.queries(s), call.keys(s));
        m.begin[row] = static_cast<int>(seen.begin);
        m.end[row] = static_cast<int>(seen.end);
        m.shift[row] = call.shift(s, i, head);
        m.factor[row] = call.factor(s, i, head, seen.size());
    }
};

/// How many strips of keys a sequence has for it.
template <class Call>
struct strips_to_score {
    Call call;
    PARE_HD index_t operator()(index_t s) const {
        constexpr index_t strip = block_scores<Call, 64, false>::strip; // as of any other
        if (call.queries(s) < call.least_queries) return 0;
        return (call.keys(s) + strip - 1) / strip;
    }
};

/// What a key receives from the heads of a row.
template <class Call>
PARE_HD double received_in_row(const Call& call, const head_sums& parts, index_t heads_of_row,
                               index_t row, const key_place& at) {
    double sum = 0;
    for (index_t h = row * heads_of_row; h < (row + 1) * heads_of_row; ++h)
        sum = call.together(sum, parts.of(h, call.key_begin(at.sequence))[at.key]);
    return sum;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
