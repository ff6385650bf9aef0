// Attention by tensor cores, for queries, keys and values of a half type: logits, exponentials and
// outputs stay in the registers where products leave them.
#pragma once

#include "block_tiles.hpp"
#include "tensor_cores.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One block's part: 128 queries of one head of a sequence, 32 a warp. Keys and values pass once, a
/// tile of each while the next ones are on their way. Queries and values have at most Width elements;
/// Relative: call.relative(), which takes registers.
template <class Call, int Width, bool Relative>
struct tensor_attention {
    using T = typename Call::of_key;
    static constexpr bool tensor_cores = true;
    static constexpr int strip = 128, of_warp = 32, steps = Width / 16;
    static constexpr int passing = Width <= 64 ? 64 : 32; // keys; more logits find no registers
    static constexpr int blocks_a_processor = Width <= 64 && !Relative ? 3 : 2;

    static_assert(Call::same, "this kernel has one number of a sequence's tokens");
    Call call;
    softmax_rows<float> rows;
    index_t strips;
    int heads_of_group;
    bool packed_q, packed_k, packed_v, packed_out;

    struct shared {
        alignas(128) T q[strip * Width]; // and then outputs
        alignas(128) T k[2][passing * Width];
        alignas(128) T v[2][passing * Width];
        alignas(8) float bias[2][passing]; // of keys
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    index_t blocks() const { return strips * call.heads(); }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        // Of causal attention first the last queries, which see most.
        index_t which = block / call.heads();
        if (call.mask.causal) which = strips - 1 - which;
        const strip_place at = strip_of_queries(call, which, strip);
        const index_t n = call.keys(at.sequence);
        if (at.first >= n) return;
        attend(*reinterpret_cast<shared*>(memory), call.key_begin(at.sequence), n,
               block % call.heads(), static_cast<int>(at.first));
    }

  private:
    static constexpr float log2_e = 1.44269504f, log_2 = 0.693147181f;
    /// Below all that biases, a quarter of this each and exponents of 2, add up to.
    static constexpr float hidden = std::numeric_limits<float>::lowest();

    struct state {
        sum_fragment out[2][Width / 8]; // of the first 16 queries and of the others
        float most[2][2], total[2][2];  // of rows lane / 4 and 8 more; exponents of 2
    };
    struct logits {
        sum_fragment of[2][passing / 8];
    };

    PARE_HD void attend(shared& m, index_t begin, int n, int head, int first) const {
        const int group = head / heads_of_group;
        const tile_source<T> q = source_of(call.q, packed_q, begin, n, head),
                             k = source_of(call.k, packed_k, begin, n, group),
                             v = source_of(call.v, packed_v, begin, n, group);
        const narrow_mask mask(call.mask, n);
        const int end = first + strip < mask.n ? first + strip : mask.n;
        const int keys_begin = static_cast<int>(visible_keys(call.mask, first, n, n).begin);
        const int keys_end = static_cast<int>(visible_keys(call.mask, end - 1, n, n).end);

        const bool biased =
            call.key_bias.extent(0) > 0 || (!Relative && call.head_slopes.extent(0) > 0);
        const float slope = Relative ? 0.0f : call.slope(head) * log2_e;
        const auto load_bias = [&](int thread, int key, float* bias) {
            if (thread < passing)
                bias[thread] = biased && key + thread < n
                                   ? call.bias_of_key(begin + key + thread) * log2_e
                                   : 0.0f;
        };

        const thread_block threads;
        per_thread<state> own;
        threads.step([&](int thread) {
            load_later<Width, strip>(thread, q, first, m.q);
            load_later<Width, passing>(thread, k, keys_begin, m.k[0]);
            load_later<Width, passing>(thread, v, keys_begin, m.v[0]);
            load_bias(thread, keys_begin, m.bias[0]);
            load_bias(thread, n, m.bias[1]);
            state& x = own[thread];
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < Width; ++i) x.out[i / (Width / 2)][i / 4 % (Width / 8)][i % 4] = 0;
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 4; ++i) x.most[i / 2][i % 2] = hidden, x.total[i / 2][i % 2] = 0;
        });
        int tile = 0;
        for (int key = keys_begin; key < keys_end; key += passing, ++tile) {
            const int now = tile % 2, next = key + passing;
            threads.step([&](int) { wait_for_copies(); });
            for_warps([&](const warp& w) {
                w.lanes([&](int lane) {
                    if (next >= keys_end) return;
                    load_later<Width, passing>(w.thread(lane), k, next, m.k[1 - now]);
                    load_later<Width, passing>(w.thread(lane), v, next, m.v[1 - now]);
                    if (biased) load_bias(w.thread(lane), next, m.bias[1 - now]);
                });
                const int query = first + of_warp * w.number;
                if (query >= end) return;
                per_lane<logits> x;
                multiply(w, m.q, m.k[now], x);
                const bool masked =
                    next > mask.n ||
                    !mask.all_see(query, query + of_warp < end ? query + of_warp : end, key, next);
                const bool plain = !masked && !biased && !Relative && call.scale > 0;
                if (!plain)
                    w.lanes([&](int lane) {
                        const int a = query + lane / 4, b = key + lane % 4 * 2;
                        scale_logits(x[lane]);
                        if (biased) add_biases(x[lane], a - b, slope, &m.bias[now][lane % 4 * 2]);
                        if constexpr (Relative) add_distances(x[lane], head, begin, n, a, b);
                        if (masked) hide(x[lane], a, b, mask);
                    });
                exponentials(w, x, plain ? call.scale * log2_e : 1.0f, own);
                add_values(w, x, m.v[now], own);
            });
        }
        for_warps([&](const warp& w) { finish(w, begin, head, first, end, own, m.q); });
        threads.step([](int) {});
        threads.step([&](int thread) { store(thread, begin, head, first, end, m.q); });
    }

    PARE_HD static void multiply(const warp& w, const T* queries, const T* keys,
                                 per_lane<logits>& x) {
        w.lanes([&](int lane) {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < passing; ++i)
                x[lane].of[i / (passing / 2)][i / 4 % (passing / 8)][i % 4] = 0;
        });
        PARE_UNROLL_ON_DEVICE
        for (int step = 0; step < steps; ++step) {
            per_lane<left_fragment> left[2];
            PARE_UNROLL_ON_DEVICE
            for (int part = 0; part < 2; ++part)
                load_left<Width>(queries, of_warp * w.number + 16 * part, step,
                                 [&](int lane) -> left_fragment& { return left[part][lane]; });
            PARE_UNROLL_ON_DEVICE
            for (int some = 0; some < passing / 16; ++some) {
                per_lane<left_fragment> right; // two right factors
                load_columns<Width>(keys, 16 * some, step,
                                    [&](int lane) -> left_fragment& { return right[lane]; });
                PARE_UNROLL_ON_DEVICE
                for (int i = 0; i < 4; ++i)
                    multiply_add<T>(
                        [&](int lane) -> sum_fragment& {
                            return x[lane].of[i / 2][2 * some + i % 2];
                        },
                        [&](int lane) -> const left_fragment& { return left[i / 2][lane]; },
                        [&](int lane) {
                            return right_fragment{right[lane][i % 2 * 2],
                                                  right[lane][i % 2 * 2 + 1]};
                        });
            }
        }
    }

    /// Number i of `x` is of row(i) queries and column(i) keys more than the first.
    static constexpr int row(int i) { return i / (passing / 2) * 16 + i % 4 / 2 * 8; }
    static constexpr int column(int i) { return i / 4 % (passing / 8) * 8 + i % 2; }
    PARE_HD static float& number(logits& x, int i) {
        return x.of[i / (passing / 2)][i / 4 % (passing / 8)][i % 4];
    }
    /// Products become exponents of 2.
    PARE_HD void scale_logits(logits& x) const {
        const float scale = call.scale * log2_e;
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < passing; ++i) number(x, i) *= scale;
    }
    /// `distance`: of the first query and key.
    PARE_HD static void add_biases(logits& x, int distance, float slope, const float* bias) {
        const auto first = static_cast<float>(distance);
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < passing; ++i)
            number(x, i) +=
                bias[column(i)] - slope * std::abs(first + static_cast<float>(row(i) - column(i)));
    }
    /// `query`, `key`: the first ones.
    PARE_HD void add_distances(logits& x, int head, index_t begin, int n, int query,
                               int key) const {
        const narrow_distances by(call, head, begin, n);
        if (by.placed()) {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < passing; ++i)
                number(x, i) += by(by.position(key + column(i)) - by.position(query + row(i)));
        } else {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < passing; ++i)
                number(x, i) += by(key - query + (column(i) - row(i)));
        }
    }
    PARE_HD static void hide(logits& x, int query, int key, const narrow_mask& mask) {
        const int distance = query - key - mask.least, room = mask.n - key;
        const auto seen = static_cast<unsigned>(mask.window - mask.least);
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < passing; ++i)
            if (static_cast<unsigned>(distance + (row(i) - column(i))) >= seen || column(i) >= room)
                number(x, i) = hidden;
    }

    /// x = 2^(x * scale less the largest one so far), and sums of them; what there was before is
    /// scaled.
    PARE_HD static void exponentials(const warp& w, per_lane<logits>& x, float scale,
                                     per_thread<state>& own) {
        per_lane<float[2][2]> most;
        w.lanes([&](int lane) {
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 4; ++i) {
                float top = x[lane].of[i / 2][0][i % 2 * 2];
                PARE_UNROLL_ON_DEVICE
                for (int j = 1; j < passing / 4; ++j)
                    top = larger(top, x[lane].of[i / 2][j / 2][i % 2 * 2 + j % 2]);
                most[lane][i / 2][i % 2] = top;
            }
        });
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 4; ++i)
            fold_lanes<4>([&](int lane) -> float& { return most[lane][i / 2][i % 2]; }, larger);
        w.lanes([&](int lane) {
            state& mine = own[w.thread(lane)];
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 4; ++i) {
                const int part = i / 2, low = i % 2 * 2;
                float& top = mine.most[part][i % 2];
                float& total = mine.total[part][i % 2];
                const float next = larger(top, most[lane][part][i % 2] * scale);
                const float less = power_of_two(top - next);
                // Of a query that has seen nothing yet, nothing is too small to count.
                const float shift = next > hidden ? next : 0.0f;
                top = next;
                total *= less;
                PARE_UNROLL_ON_DEVICE
                for (int j = 0; j < passing / 4; ++j) {
                    float& y = x[lane].of[part][j / 2][low + j % 2];
                    y = power_of_two(y * scale - shift);
                    total += y;
                }
                PARE_UNROLL_ON_DEVICE
                for (int j = 0; j < Width / 4; ++j) mine.out[part][j / 2][low + j % 2] *= less;
            }
        });
    }

    /// The sums of neighbouring products are left factors as they stand.
    PARE_HD static void add_values(const warp& w, per_lane<logits>& x, const T* values,
                                   per_thread<state>& own) {
        PARE_UNROLL_ON_DEVICE
        for (int some = 0; some < passing / 16; ++some) {
            per_lane<left_fragment> left[2];
            w.lanes([&](int lane) {
                PARE_UNROLL_ON_DEVICE
                for (int i = 0; i < 8; ++i) {
                    const sum_fragment& pair = x[lane].of[i / 4][2 * some + i % 4 / 2];
                    left[i / 4][lane][i % 4] = pack_two<T>(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
                }
            });
            PARE_UNROLL_ON_DEVICE
            for (int step = 0; step < steps; ++step) {
                per_lane<left_fragment> right; // two right factors
                load_rows<Width>(values, 16 * some, step,
                                 [&](int lane) -> left_fragment& { return right[lane]; });
                PARE_UNROLL_ON_DEVICE
                for (int i = 0; i < 4; ++i)
                    multiply_add<T>(
                        [&](int lane) -> sum_fragment& {
                            return own[w.thread(lane)].out[i / 2][2 * step + i % 2];
                        },
                        [&](int lane) -> const left_fragment& { return left[i / 2][lane]; },
                        [&](int lane) {
                            return right_fragment{right[lane][i % 2 * 2],
                                                  right[lane][i % 2 * 2 + 1]};
                        });
            }
        }
    }

    /// Outputs go where the warp's queries were.
    PARE_HD void finish(const warp& w, index_t begin, int head, int first, int end,
                        per_thread<state>& own, T* out) const {
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < 4; ++i)
            fold_lanes<4>(
                [&](int lane) -> float& { return own[w.thread(lane)].total[i / 2][i % 2]; },
                [](float a, float b) { return a + b; });
        w.lanes([&](int lane) {
            const state& mine = own[w.thread(lane)];
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < 4; ++i) {
                const int part = i / 2, low = i % 2 * 2;
                const int row = of_warp * w.number + 16 * part + 8 * (i % 2) + lane / 4;
                const float total = mine.total[part][i % 2], inverse = 1 / total;
                if (lane % 4 == 0 && first + row < end)
                    rows.store(begin + first + row, head, mine.most[part][i % 2] * log_2, total);
                PARE_UNROLL_ON_DEVICE
                for (int eight = 0; eight < Width / 8; ++eight) {
                    const sum_fragment& y = mine.out[part][eight];
                    const std::uint32_t two = pack_two<T>(y[low] * inverse, y[low + 1] * inverse);
                    memcpy(out + swizzled<Width>::at(row, eight) + lane % 4 * 2, &two, sizeof two);
                }
            }
        });
    }
    PARE_HD void store(int thread, index_t begin, int head, int first, int end,
                       const T* tile) const {
        constexpr int pieces = swizzled<Width>::pieces;
        const int columns = static_cast<int>(call.out.extent(2));
        for (int at = thread; at < strip * pieces; at += thread_block::size) {
            const int row = at / pieces, column = at % pieces * 8;
            if (first + row >= end || column >= columns) continue;
            const T* const from = tile + swizzled<Width>::at(row, column / 8);
            T* const to = &call.out(begin + first + row, head, column);
            if (packed_out)
                *reinterpret_cast<pack<T>*>(to) = *reinterpret_cast<const pack<T>*>(from);
            else
                for (int e = 0; e < 8 && column + e < columns; ++e)
                    to[e * call.out.stride(2)] = from[e];
        }
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
