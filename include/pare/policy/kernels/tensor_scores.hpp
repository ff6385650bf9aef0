// What keys receive of attention by tensor cores, from queries and keys of a half type and
// log-sum-exp rows.
#pragma once

#include "block_tiles.hpp"
#include "tensor_cores.hpp"

#include <cstddef>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One block's part: 128 keys of one head of a sequence, 32 a warp, which stay in registers as left
/// factors. The counted queries that see them pass, 64 at a time, as right factors: so a key's
/// probabilities are in rows, which four lanes have. T has queries of at most Width elements.
template <class T, class L, class Offset, int Width>
struct tensor_scores {
    static constexpr int strip = 128, passing = 64, of_warp = 32, steps = Width / 16;
    static constexpr int blocks_a_processor = Width <= 64 ? 4 : 3;
    static constexpr int summed = 16; // tiles of queries in float: 256 terms a thread and key

    scores_call<T, L, Offset> call;
    double* parts; ///< [heads x tokens]
    index_t tokens, strips;
    bool packed_q, packed_k;

    struct row {
        float shift, factor; // in powers of 2
    };
    struct shared {
        alignas(128) T k[strip * Width];
        alignas(128) T q[2][passing * Width];
        alignas(16) row rows[2][passing];
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const { return strips * call.heads(); }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const strip_place at = strip_at(call, block / call.heads(), strip);
        const index_t s = at.sequence, head = block % call.heads(), n = call.length(s);
        if (at.first >= n) return;
        const index_range counts = counted(call.counted, n);
        const index_range see =
            seeing_queries(call.mask, at.first, at.first + strip < n ? at.first + strip : n, n);
        const int begin = static_cast<int>(see.begin > counts.begin ? see.begin : counts.begin);
        const int end = static_cast<int>(see.end < counts.end ? see.end : counts.end);
        sum_up(*reinterpret_cast<shared*>(memory), s, head, n, static_cast<int>(at.first), begin,
               end);
    }

  private:
    static constexpr float log2_e = 1.44269504f;

    struct state {
        left_fragment keys[2][steps];
        float sum[2][2]; // of rows lane / 4 and 8 more, of the first 16 keys and of the others
        double total[2][2];
        row next;
    };

    PARE_HD void sum_up(shared& m, index_t s, index_t head, index_t n, int first, int begin,
                        int end) const {
        const index_t base = call.row(s, 0);
        const auto of_sequence = [&](const view<const T, 4>& x, bool packed, index_t which) {
            const view<const T, 3> rows(x.address(s, 0, 0, 0),
                                        {x.extent(1), x.extent(2), x.extent(3)},
                                        {x.stride(1), x.stride(2), x.stride(3)});
            return source_of(rows, packed, base, n, which);
        };
        const tile_source<T> q = of_sequence(call.q, packed_q, head),
                             k = of_sequence(call.k, packed_k, call.group(head));
        const narrow_mask mask(call.mask, n);
        const float scale = call.scale * log2_e;
        const bool biased = call.biased();
        const auto row_of = [&](int i) {
            return i < end ? row{call.shift(s, i, head) * log2_e, call.factor(s, i, head)}
                           : row{std::numeric_limits<float>::max() / 4, 0.0f};
        };

        const thread_block threads;
        per_thread<state> own;
        threads.step([&](int thread) {
            load_later<Width, strip>(thread, k, first, m.k);
            load_later<Width, passing>(thread, q, begin, m.q[0]);
            if (thread < passing) m.rows[0][thread] = row_of(begin + thread);
            wait_for_copies();
        });
        for_warps([&](const warp& w) {
            PARE_UNROLL_ON_DEVICE
            for (int part = 0; part < 2; ++part) PARE_UNROLL_ON_DEVICE
            for (int step = 0; step < steps; ++step)
                load_left<Width>(m.k, of_warp * w.number + 16 * part, step,
                                 [&](int lane) -> left_fragment& {
                                     return own[w.thread(lane)].keys[part][step];
                                 });
            w.lanes([&](int lane) {
                state& x = own[w.thread(lane)];
                PARE_UNROLL_ON_DEVICE
                for (int i = 0; i < 4; ++i) x.sum[i / 2][i % 2] = 0, x.total[i / 2][i % 2] = 0;
            });
        });
        int tile = 0;
        for (int query = begin; query < end; query += passing, ++tile) {
            const int now = tile % 2, next = query + passing;
            if (tile > 0)
                threads.step([&](int thread) {
                    if (thread < passing) m.rows[now][thread] = own[thread].next;
                    wait_for_copies();
                });
            for_warps([&](const warp& w) {
                w.lanes([&](int lane) {
                    const int thread = w.thread(lane);
                    if (next >= end) return;
                    load_later<Width, passing>(thread, q, next, m.q[1 - now]);
                    if (thread < passing) own[thread].next = row_of(next + thread);
                });
                const int key = first + of_warp * w.number;
                if (key >= n) return;
                const bool plain =
                    !biased && mask.all_see(query, next < end ? next : end, key,
                                            key + of_warp < mask.n ? key + of_warp : mask.n);
                PARE_UNROLL_ON_DEVICE
                for (int some = 0; some < passing; some += 16) {
                    if (query + some >= end) break;
                    per_lane<products> x;
                    multiply(w, own, m.q[now], some, x);
                    w.lanes([&](int lane) {
                        state& mine = own[w.thread(lane)];
                        const row* const rows = &m.rows[now][some + lane % 4 * 2];
                        if (plain)
                            add<true>(x[lane], rows, scale, mine.sum);
                        else
                            add_seen(x[lane], rows, s, head, mask, query + some + lane % 4 * 2,
                                     key + lane / 4, mine.sum);
                    });
                }
                if (tile % summed == summed - 1)
                    w.lanes([&](int lane) { to_total(own[w.thread(lane)]); });
            });
        }
        for_warps([&](const warp& w) {
            w.lanes([&](int lane) { to_total(own[w.thread(lane)]); });
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 4; ++i)
                fold_four(
                    [&](int lane) -> double& { return own[w.thread(lane)].total[i / 2][i % 2]; },
                    [](double x, double y) { return x + y; });
            w.lanes([&](int lane) {
                if (lane % 4 != 0) return;
                PARE_UNROLL_ON_DEVICE
                for (int i = 0; i < 4; ++i) {
                    const int key = first + of_warp * w.number + i / 2 * 16 + i % 2 * 8 + lane / 4;
                    if (key < n)
                        parts[head * tokens + call.begin(s) + key] =
                            own[w.thread(lane)].total[i / 2][i % 2];
                }
            });
        });
    }

    /// Of 32 keys and 16 queries: [16 keys][8 queries].
    struct products {
        sum_fragment of[2][2];
    };

    PARE_HD static void multiply(const warp& w, per_thread<state>& own, const T* queries, int first,
                                 per_lane<products>& x) {
        w.lanes([&](int lane) {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 16; ++i) x[lane].of[i / 8][i / 4 % 2][i % 4] = 0;
        });
        PARE_UNROLL_ON_DEVICE
        for (int step = 0; step < steps; ++step) {
            per_lane<left_fragment> right; // two right factors
            load_columns<Width>(queries, first, step,
                                [&](int lane) -> left_fragment& { return right[lane]; });
            PARE_UNROLL_ON_DEVICE
            for (int part = 0; part < 2; ++part) PARE_UNROLL_ON_DEVICE
            for (int half = 0; half < 2; ++half)
                multiply_add<T>(
                    [&](int lane) -> sum_fragment& { return x[lane].of[part][half]; },
                    [&](int lane) -> const left_fragment& {
                        return own[w.thread(lane)].keys[part][step];
                    },
                    [&](int lane) {
                        return right_fragment{right[lane][2 * half], right[lane][2 * half + 1]};
                    });
        }
    }

    /// Adds the exponentials of `x` times `scale`, or of what are exponents already.
    template <bool Scaled>
    PARE_HD static void add(const products& x, const row* rows, float scale, float (&sum)[2][2]) {
        PARE_UNROLL_ON_DEVICE
        for (int half = 0; half < 2; ++half) {
            const row of[2] = {rows[8 * half], rows[8 * half + 1]};
            PARE_UNROLL_ON_DEVICE
            for (int part = 0; part < 2; ++part) PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 4; ++i) {
                const float y = x.of[part][half][i];
                const float exponent = (Scaled ? y * scale : y) - of[i % 2].shift;
                sum[part][i / 2] += power_of_two(exponent) * of[i % 2].factor;
            }
        }
    }
    /// The same of what the queries see, with what is added to their logits.
    PARE_HD void add_seen(products& x, const row* rows, index_t s, index_t head,
                          const narrow_mask& mask, int query, int key, float (&sum)[2][2]) const {
        constexpr float hidden = std::numeric_limits<float>::lowest() / 4;
        const float scale = call.scale * log2_e;
        const index_t begin = call.begin(s);
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 16; ++i) {
            const int a = query + i / 4 % 2 * 8 + i % 2, b = key + i / 8 * 16 + i / 2 % 2 * 8;
            float& y = x.of[i / 8][i / 4 % 2][i % 4];
            y *= scale;
            if (!mask.sees(a, b))
                y = hidden;
            else if (call.biased())
                y += call.bias(head, begin, a, b) * log2_e;
        }
        add<false>(x, rows, 1.0f, sum);
    }

    PARE_HD static void to_total(state& x) {
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 4; ++i) {
            x.total[i / 2][i % 2] += static_cast<double>(x.sum[i / 2][i % 2]);
            x.sum[i / 2][i % 2] = 0;
        }
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
