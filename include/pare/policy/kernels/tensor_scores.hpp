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
/// probabilities are in rows, which four lanes have. Queries have at most Width elements; Relative:
/// call.relative(), which takes registers.
template <class Call, int Width, bool Relative>
struct tensor_scores {
    using T = typename Call::of_key;
    static constexpr bool tensor_cores = true;
    static constexpr int strip = 128, passing = 64, of_warp = 32, steps = Width / 16;
    static constexpr int blocks_a_processor = Width <= 64 ? 4 : 3;
    static constexpr int summed = 16; // tiles of queries in float: 256 terms a thread and key

    static_assert(Call::same, "this kernel has one number of a sequence's tokens");
    Call call;
    head_sums parts;
    index_t strips;
    int heads_of_group;
    bool packed_q, packed_k;

    struct softmax_row {
        float shift, factor; // in powers of 2
    };
    struct alignas(16) two_rows {
        float shift[2], factor[2];
    };
    struct shared {
        alignas(128) T k[strip * Width];
        alignas(128) T q[2][passing * Width];
        two_rows rows[2][passing / 2];
        float bias[strip]; // of keys
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const { return strips * call.heads(); }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const block_place mine(block, call.heads());
        const strip_place at = strip_of_keys(call, mine.strip, strip);
        const index_t s = at.sequence, n = call.keys(s);
        if (at.first >= n) return;
        const index_range counts = counted(call.counted, n);
        const index_t keys_end = at.first + strip < n ? at.first + strip : n;
        const index_range see = seeing_queries(call.mask, at.first, keys_end, n, n);
        const int begin = static_cast<int>(see.begin > counts.begin ? see.begin : counts.begin);
        const int end = static_cast<int>(see.end < counts.end ? see.end : counts.end);
        sum_up(*reinterpret_cast<shared*>(memory), s, mine.which, static_cast<int>(n),
               static_cast<int>(at.first), begin, end);
    }

  private:
    static constexpr float log2_e = 1.44269504f;

    struct state {
        left_fragment keys[2][steps];
        float sum[2][2]; // of rows lane / 4 and 8 more, of the first 16 keys and of the others
        double total[2][2];
        softmax_row next;
    };

    PARE_HD void sum_up(shared& m, index_t s, int head, int n, int first, int begin,
                        int end) const {
        const index_t base = call.query_row(s, 0);
        const auto of_sequence = [&](const view<const T, 4>& x, bool packed, int which, int until) {
            const view<const T, 3> rows(x.address(s, 0, 0, 0),
                                        {x.extent(1), x.extent(2), x.extent(3)},
                                        {x.stride(1), x.stride(2), x.stride(3)});
            return source_of(rows, packed, base, until, which);
        };
        // Queries behind those that count are zeros: a factor of 0 times what is no number is none.
        const tile_source<T> q = of_sequence(call.q, packed_q, head, end),
                             k = of_sequence(call.k, packed_k, head / heads_of_group, n);
        const narrow_mask mask(call.mask, n);
        const float scale = call.scale * log2_e;
        const bool biased =
            call.key_bias.extent(0) > 0 || (!Relative && call.head_slopes.extent(0) > 0);
        const float slope = Relative ? 0.0f : call.slope(head) * log2_e;
        const auto row_of = [&](int i) {
            return i < end
                       ? softmax_row{call.shift(s, i, head) * log2_e, call.factor(s, i, head, n)}
                       : softmax_row{std::numeric_limits<float>::max() / 4, 0.0f};
        };

        const thread_block threads;
        per_thread<state> own;
        threads.step([&](int thread) {
            load_later<Width, strip>(thread, k, first, m.k);
            load_later<Width, passing>(thread, q, begin, m.q[0]);
            if (thread < passing) store(row_of(begin + thread), thread, m.rows[0]);
            m.bias[thread] = biased && first + thread < n
                                 ? call.bias_of_key(call.key_begin(s) + first + thread) * log2_e
                                 : 0.0f;
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
                    if (thread < passing) store(own[thread].next, thread, m.rows[now]);
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
                const bool masked = !mask.all_see(query, next < end ? next : end, key,
                                                  key + of_warp < mask.n ? key + of_warp : mask.n);
                PARE_UNROLL_ON_DEVICE
                for (int some = 0; some < passing; some += 16) {
                    if (some == passing / 2 && query + some >= end) break;
                    per_lane<products> x;
                    multiply(w, own, m.q[now], some, x);
                    w.lanes([&](int lane) {
                        state& mine = own[w.thread(lane)];
                        const int a = query + some + lane % 4 * 2, b = key + lane / 4;
                        const bool scaled = masked || biased || Relative;
                        if (scaled) scale_products(x[lane]);
                        if (biased) add_biases(x[lane], a - b, slope, &m.bias[b - first]);
                        if constexpr (Relative)
                            add_distances(x[lane], head, call.key_begin(s), n, a, b);
                        if (masked) hide(x[lane], a - b, mask);
                        add(x[lane], &m.rows[now][some / 2 + lane % 4], scaled ? 1.0f : scale,
                            mine.sum);
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
                fold_lanes<4>(
                    [&](int lane) -> double& { return own[w.thread(lane)].total[i / 2][i % 2]; },
                    [&](double x, double y) { return call.together(x, y); });
            w.lanes([&](int lane) {
                if (lane % 4 != 0) return;
                PARE_UNROLL_ON_DEVICE
                for (int i = 0; i < 4; ++i) {
                    const int key = first + of_warp * w.number + i / 2 * 16 + i % 2 * 8 + lane / 4;
                    if (key < n)
                        parts.of(head, call.key_begin(s))[key] =
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
            for (int side = 0; side < 2; ++side)
                multiply_add<T>(
                    [&](int lane) -> sum_fragment& { return x[lane].of[part][side]; },
                    [&](int lane) -> const left_fragment& {
                        return own[w.thread(lane)].keys[part][step];
                    },
                    [&](int lane) {
                        return right_fragment{right[lane][2 * side], right[lane][2 * side + 1]};
                    });
        }
    }

    PARE_HD static void store(const softmax_row& x, int thread, two_rows* rows) {
        rows[thread / 2].shift[thread % 2] = x.shift;
        rows[thread / 2].factor[thread % 2] = x.factor;
    }
    /// Adds 2^(x * scale less a query's shift), times its factor; or takes it where it is larger.
    PARE_HD void add(const products& x, const two_rows* rows, float scale,
                     float (&sum)[2][2]) const {
        if (call.largest)
            put_together(x, rows, scale, sum, [](float a, float b) { return larger_or_nan(a, b); });
        else
            put_together(x, rows, scale, sum, [](float a, float b) { return a + b; });
    }
    template <class Op>
    PARE_HD static void put_together(const products& x, const two_rows* rows, float scale,
                                     float (&sum)[2][2], const Op& op) {
        PARE_UNROLL_ON_DEVICE
        for (int side = 0; side < 2; ++side) {
            const two_rows of = rows[4 * side];
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 8; ++i) {
                float& all = sum[i / 4][i % 4 / 2];
                all = op(all, power_of_two(x.of[i / 4][side][i % 4] * scale - of.shift[i % 2]) *
                                  of.factor[i % 2]);
            }
        }
    }
    /// Number i of `x` is of row(i) keys and column(i) queries more than the first.
    static constexpr int row(int i) { return i / 8 * 16 + i / 2 % 2 * 8; }
    static constexpr int column(int i) { return i / 4 % 2 * 8 + i % 2; }
    PARE_HD static float& number(products& x, int i) { return x.of[i / 8][i / 4 % 2][i % 4]; }
    /// Products become exponents of 2.
    PARE_HD void scale_products(products& x) const {
        const float scale = call.scale * log2_e;
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 16; ++i) number(x, i) *= scale;
    }
    /// `distance`: of the first query and key.
    PARE_HD static void add_biases(products& x, int distance, float slope, const float* bias) {
        const auto first = static_cast<float>(distance);
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 16; ++i)
            number(x, i) +=
                bias[row(i)] - slope * std::abs(first + static_cast<float>(column(i) - row(i)));
    }
    /// `query`, `key`: the first ones.
    PARE_HD void add_distances(products& x, int head, index_t begin, int n, int query,
                               int key) const {
        const narrow_distances by(call, head, begin, n);
        if (by.placed()) {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 16; ++i)
                number(x, i) += by(by.position(key + row(i)) - by.position(query + column(i)));
        } else {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 16; ++i) number(x, i) += by(key - query + (row(i) - column(i)));
        }
    }
    /// Keys that a query does not see; those that are beyond the sequence's end nobody reads.
    PARE_HD static void hide(products& x, int distance, const narrow_mask& mask) {
        constexpr float hidden = std::numeric_limits<float>::lowest();
        const auto seen = static_cast<unsigned>(mask.window - mask.least);
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 16; ++i)
            if (static_cast<unsigned>(distance - mask.least + (column(i) - row(i))) >= seen)
                number(x, i) = hidden;
    }

    PARE_HD void to_total(state& x) const {
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 4; ++i) {
            double& total = x.total[i / 2][i % 2];
            total = call.together(total, static_cast<double>(x.sum[i / 2][i % 2]));
            x.sum[i / 2][i % 2] = 0;
        }
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
