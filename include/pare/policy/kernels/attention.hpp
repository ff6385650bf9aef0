// Softmax attention by strips of queries: logits, exponentials, what each key receives, and the
// product with the values, while the strip is in the cache.
#pragma once

#include "../../core/attention_calls.hpp"
#include "../../core/workspace.hpp"
#include "attention_bias.hpp"
#include "exponential.hpp"
#include "halves.hpp"
#include "in_place.hpp"
#include "registers.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The blocks of attention's products: up to `rows` x 2 registers.
template <class T>
struct attention_block {
    static constexpr index_t rows = sum_registers / 2;
    static constexpr index_t width = 2 * lanes<T>;
};

/// c [Rows x Vectors registers] = (or +=) a [Rows x k] times a panel, whose rows are `step` apart.
template <index_t Rows, index_t Vectors, class T>
void multiply_block(index_t k, const T* a, index_t lda, const T* panel, index_t step, T* c,
                    index_t ldc, bool accumulate) {
    using B = batch<T>;
    B sum[Rows][Vectors];
    PARE_UNROLL
    for (index_t i = 0; i < Rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < Vectors; ++v)
        sum[i][v] = accumulate ? B::load_unaligned(c + i * ldc + v * lanes<T>) : B(T(0));
    multiply_registers(k, a, lda, index_t{1}, panel, step, sum);
    PARE_UNROLL
    for (index_t i = 0; i < Rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < Vectors; ++v) sum[i][v].store_unaligned(c + i * ldc + v * lanes<T>);
}

template <index_t Vectors, class T, index_t... At>
constexpr auto block_kernels(std::integer_sequence<index_t, At...>) {
    return std::array{&multiply_block<At + 1, Vectors, T>...};
}

/// c [m x n] = (or +=) a [m x k] times panels `panel_size` apart, whose rows are `step` apart. Rows
/// of c are written, and those of panels read, in whole registers.
template <class T>
void multiply_strip(index_t m, index_t k, index_t n, const T* a, index_t lda, const T* panels,
                    index_t panel_size, index_t step, T* c, index_t ldc, bool accumulate) {
    using block = attention_block<T>;
    using rows_up_to = std::make_integer_sequence<index_t, block::rows>;
    static constexpr auto wide = block_kernels<2, T>(rows_up_to{});
    static constexpr auto narrow = block_kernels<1, T>(rows_up_to{});
    for (index_t j = 0; j < n; j += block::width, panels += panel_size) {
        const auto& kernels = n - j > lanes<T> ? wide : narrow;
        for (index_t i = 0, rows; i < m; i += rows) {
            rows = next_block(m - i, block::rows);
            kernels[static_cast<std::size_t>(rows - 1)](k, a + i * lda, lda, panels, step,
                                                        c + i * ldc + j, ldc, accumulate);
        }
    }
}

/// The first `columns` columns of row t of a panel, [t][width], and zeros behind them.
template <class E, class T = compute_t<E>>
void fill_panel_row(const E* x, index_t columns, T* row) {
    if constexpr (std::is_same_v<E, T>)
        std::copy(x, x + columns, row);
    else
        std::transform(x, x + columns, row, [](const E& number) { return static_cast<T>(number); });
    std::fill(row + columns, row + attention_block<T>::width, T(0));
}

/// The square of numbers `from`, rows `stride` apart, as columns.
template <class E, class T = compute_t<E>>
void transpose_wide(const E* from, index_t stride, T* to, index_t to_stride) {
    if constexpr (std::is_same_v<E, T>) {
        transpose(from, stride, to, to_stride);
    } else {
        constexpr index_t square = short_lanes<T>;
        for (index_t r = 0; r < square; ++r)
            for (index_t c = 0; c < square; ++c)
                to[c * to_stride + r] = static_cast<T>(from[r * stride + c]);
    }
}

/// A row that the next task will read, of the next head or of the next sequence: more time goes by
/// until then than the memory takes to bring it.
template <class T>
void prefetch_row(const T* x, index_t n) {
    for (index_t i = 0; i < n; i += 64 / static_cast<index_t>(sizeof(T))) PARE_PREFETCH(x + i);
    PARE_PREFETCH(x + n - 1); // in a line more where x is not at the start of one
}

/// Keys [n x size] as panels of width keys, [panel][size][width]; the rows `ahead` of them are next.
template <class E, class T = compute_t<E>>
void pack_keys(view<const E, 3> k, index_t at, index_t n, index_t group, index_t ahead, T* panels) {
    constexpr index_t width = attention_block<T>::width, square = short_lanes<T>;
    const index_t size = k.extent(2);
    if (size == 0) return;
    for (index_t j = 0; j < n; j += width, panels += width * size) {
        const index_t keys = std::min(width, n - j);
        const E* const from = &k(at + j, group, 0);
        for (index_t c = 0; c < keys; c += square) {
            const E* const rows = from + c * k.stride(0);
            const index_t here = std::min(square, keys - c);
            for (index_t r = 0; r < here; ++r) prefetch_row(rows + r * k.stride(0) + ahead, size);
            index_t e = 0;
            for (; here == square && e + square <= size; e += square)
                transpose_wide(rows + e, k.stride(0), panels + e * width + c, width);
            for (; e < size; ++e)
                for (index_t r = 0; r < here; ++r)
                    panels[e * width + c + r] = static_cast<T>(rows[r * k.stride(0) + e]);
        }
        const index_t room = round_up(keys, lanes<T>); // of the registers that are read
        for (index_t e = 0; e < size && keys < room; ++e)
            std::fill(panels + e * width + keys, panels + e * width + room, T(0));
    }
}

/// Values [n x size] as panels of width columns, [panel][n][width].
template <class E, class T = compute_t<E>>
void pack_values(view<const E, 3> v, index_t at, index_t n, index_t group, index_t ahead,
                 T* panels) {
    constexpr index_t width = attention_block<T>::width;
    const index_t size = v.extent(2);
    for (index_t e = 0; e < size; e += width, panels += n * width)
        for (index_t j = 0; j < n; ++j) {
            const index_t columns = std::min(width, size - e);
            const E* const from = &v(at + j, group, e);
            prefetch_row(from + ahead, columns);
            fill_panel_row(from, columns, panels + j * width);
        }
}

/// e[r, j] = exp(e[r, j] - max of row r) for j < room, which is a multiple of a register;
/// weights[r] = 1 / sum of row r. `Rows` at a time, so that one's reductions hide behind another's
/// work.
template <index_t Rows, class T>
void exponentials(T* e, index_t stride, index_t room, T* weights) {
    using B = batch<T>;
    B top[Rows], total[Rows];
    T folded[Rows];
    for (index_t r = 0; r < Rows; ++r) top[r] = B::load_unaligned(e + r * stride);
    for (index_t j = lanes<T>; j < room; j += lanes<T>) PARE_UNROLL
    for (index_t r = 0; r < Rows; ++r)
        top[r] = xsimd::max(top[r], B::load_unaligned(e + r * stride + j));
    fold<Rows, T>(top, folded, [](const auto& x, const auto& y) { return xsimd::max(x, y); });
    for (index_t r = 0; r < Rows; ++r) {
        top[r] = B(folded[r]);
        total[r] = B(T(0));
    }
    for (index_t j = 0; j < room; j += lanes<T>) PARE_UNROLL
    for (index_t r = 0; r < Rows; ++r) {
        T* const at = e + r * stride + j;
        const B value = ops::exp_below<B>{top[r]}(B::load_unaligned(at));
        value.store_unaligned(at);
        add_in_order(total[r], value);
    }
    fold<Rows, T>(total, folded, [](const auto& x, const auto& y) { return x + y; });
    for (index_t r = 0; r < Rows; ++r) weights[r] = 1 / folded[r];
}

/// The same of any number of rows.
template <class T>
void exponentials_of_rows(index_t rows, T* e, index_t stride, index_t room, T* weights) {
    index_t done = 0;
    for (; done + 4 <= rows; done += 4)
        exponentials<4>(e + done * stride, stride, room, weights + done);
    for (; done < rows; ++done) exponentials<1>(e + done * stride, stride, room, weights + done);
}

/// y = x * factor; `n` numbers, contiguous if the strides are 1.
template <class X, class Y, class T = compute_t<X>>
void scale_row(index_t n, const X* x, T factor, Y* y, index_t stride) {
    index_t i = 0;
    if (stride == 1)
        for (; i + lanes<T> <= n; i += lanes<T>)
            store_narrow(load_wide(x + i) * batch<T>(factor), y + i);
    for (; i < n; ++i) y[i * stride] = static_cast<Y>(static_cast<T>(x[i]) * factor);
}

/// sums[j] += sum over rows of weights[r] * e[r, j]; or the largest of them, and of sums[j].
template <class T>
void add_weighted_rows(index_t rows, index_t room, const T* weights, const T* e, index_t stride,
                       bool largest, T* sums) {
    using B = batch<T>;
    constexpr index_t together = 4;
    if (largest) {
        for (index_t r = 0; r < rows; ++r)
            for (index_t j = 0; j < room; j += lanes<T>)
                xsimd::max(B::load_unaligned(sums + j),
                           B(weights[r]) * B::load_unaligned(e + r * stride + j))
                    .store_unaligned(sums + j);
        // A maximum loses what is no number, and a row that has one has a weight of none.
        for (index_t r = 0; r < rows; ++r)
            if (is_nan(weights[r])) std::fill_n(sums, room, weights[r]);
        return;
    }
    for (index_t r = 0; r < rows; r += together) {
        const index_t here = std::min(together, rows - r);
        for (index_t j = 0; j < room; j += lanes<T>) {
            B sum = B::load_unaligned(sums + j);
            const T* const at = e + r * stride + j;
            if (here == together) {
                PARE_UNROLL
                for (index_t u = 0; u < together; ++u)
                    sum = multiply_add(B(weights[r + u]), B::load_unaligned(at + u * stride), sum);
            } else {
                for (index_t u = 0; u < here; ++u)
                    sum = multiply_add(B(weights[r + u]), B::load_unaligned(at + u * stride), sum);
            }
            sum.store_unaligned(sums + j);
        }
    }
}

/// to[j], j < n: what these rows give key j, put together. `sums`: memory for whole registers of it.
template <class T>
void share_of_rows(index_t rows, index_t n, const T* weights, const T* e, index_t stride,
                   bool largest, T* sums, T* to) {
    if (rows == 1 && !largest) return scale_row(n, e, *weights, to, 1);
    const index_t room = round_up(n, lanes<T>);
    std::fill_n(sums, room, T(0));
    add_weighted_rows(rows, room, weights, e, stride, largest, sums);
    std::copy_n(sums, n, to);
}

/// Logits outside begin <= j < end are made too small to count: registers are whole. Where a query sees
/// none, some number is: its exponentials are finite, and weigh nothing.
template <class T>
void hide_unseen(T* logits, index_t begin, index_t end, index_t room) {
    const T hidden = begin < end ? std::numeric_limits<T>::lowest() : T(0);
    std::fill(logits, logits + begin, hidden);
    std::fill(logits + end, logits + room, hidden);
}

/// How the queries of a sequence are cut: strips whose logits stay in L2 with keys and values, and
/// parts of a head that different threads may take. Of numbers of queries and keys alone, so that
/// results do not depend on threads or batch.
template <class T>
struct attention_plan {
    static constexpr index_t longest_strip = 48, strip_bytes = 192 * 1024,
                             most_parts = shares_of_head;
    static_assert(longest_strip % attention_block<T>::rows == 0);
    index_t queries, strip, parts;

    attention_plan(index_t of_queries, index_t keys) : queries(of_queries) {
        constexpr index_t block = attention_block<T>::rows;
        const index_t logits = strip_bytes / static_cast<index_t>(sizeof(T));
        strip =
            std::clamp(logits / std::max<index_t>(keys, 1) / block * block, block, longest_strip);
        parts = std::clamp<index_t>(queries / 256, 1, most_parts);
    }
    index_range of_part(index_t part) const {
        const index_t strips = (queries + strip - 1) / strip;
        return {strips * part / parts * strip,
                std::min(queries, strips * (part + 1) / parts * strip)};
    }
};

/// What keys receive of each head, from each part of its queries; no memory where nobody asks.
template <class T>
struct head_shares {
    T* first = nullptr;
    index_t stride = 0;    // of a row of keys
    bool complete = false; // parts that a head is not cut into give 0

    T* row(index_t head, index_t part) const {
        return first + (head * shares_of_head + part) * stride;
    }
};

/// By strips, for the sequences for which picked(s).
template <class Executor, class Call, class Picked, class T = typename Call::compute>
void attention_strips(const Executor& executor, const Call& c, const head_shares<T>& received,
                      const Picked& picked, workspace& scratch) {
    using block = attention_block<T>;
    using plan = attention_plan<T>;
    const index_t size = c.q.extent(2), value_size = c.v.extent(2), heads = c.heads();
    const index_t longest = most_keys(c.where());
    const bool scored = received.first != nullptr;
    // A thread's packed keys and values, scaled queries, results, sums over queries, logits, and
    // biases by distance.
    const index_t out_stride = round_up(value_size, block::width);
    const index_t padded = round_up(longest, block::width);
    const index_t logits =
        std::max(plan::strip_bytes / static_cast<index_t>(sizeof(T)), block::rows * padded) +
        plan::longest_strip * 2 * block::width;
    const index_t distances = longest + most_queries(c.where());
    const index_t per_slot =
        round_up(padded * size + longest * out_stride + plan::longest_strip * (size + out_stride) +
                     padded + logits + head_biases<T>::room(c, distances),
                 block::width);
    const index_t parts = plan::most_parts * heads;
    // Heads that are many are tasks of their own, which pack keys and values once for all parts.
    const bool whole = c.sequences * heads >= 8 * shares_of(executor);
    T* const memory = scratch.template get<T>(executor.concurrency() * per_slot);

    const index_t tasks = c.sequences * (whole ? heads : parts);
    executor.run(tasks, [&, memory](index_t task, index_t slot) {
        const index_t of_head = whole ? 1 : plan::most_parts; // tasks
        const index_t s = task / (heads * of_head), h = task / of_head % heads;
        if (!picked(s)) return;
        const index_t at = c.key_begin(s), n = c.keys(s), first_query = c.query_begin(s);
        const plan cut(c.queries(s), n);
        const index_range mine =
            whole ? index_range{0, cut.parts} : index_range{task % of_head, task % of_head + 1};
        const index_t last = whole ? plan::most_parts : mine.end;
        for (index_t part = std::max(cut.parts, mine.begin); received.complete && part < last;
             ++part)
            std::fill_n(received.row(h, part) + at, n, T(0));
        if (mine.begin >= cut.parts) return;
        const index_range counts = counted(c.counted, cut.queries);
        // Rows of logits that are not a multiple of a page apart do not fight for cache lines.
        const index_t stride =
            round_up(n, block::width) + (n % 512 < block::width ? block::width : 0);

        T* const keys = memory + slot * per_slot;
        T* const values = keys + padded * size;
        T* const q = values + longest * out_stride;
        T* const out = q + plan::longest_strip * size;
        T* const sums = out + plan::longest_strip * out_stride;
        T* const strip = sums + padded;
        const head_biases<T> biases(c, h, at, {1 - n, cut.queries}, strip + logits);
        const auto ahead = [&](const auto& x, index_t head, index_t next, index_t rows) {
            return h + 1 < heads ? (next - head) * x.stride(1)
                                 : rows * x.stride(0) - head * x.stride(1);
        };
        const index_t group = c.group(h), next = c.group(h + 1);
        const index_t q_ahead = ahead(c.q, h, h + 1, cut.queries);
        pack_keys(c.k, at, n, group, ahead(c.k, group, next, n), keys);
        pack_values(c.v, at, n, group, ahead(c.v, group, next, n), values);
        for (index_t part = mine.begin; part < mine.end; ++part) {
            const index_range queries = cut.of_part(part);
            if (scored) std::fill(sums, sums + padded, T(0));

            for (index_t first = queries.begin; first < queries.end; first += cut.strip) {
                const index_t rows = std::min(cut.strip, queries.end - first);
                for (index_t r = 0; r < rows && size > 0; ++r) {
                    const auto* const from = &c.q(first_query + first + r, h, 0);
                    prefetch_row(from + q_ahead, size);
                    scale_row(size, from, c.scale, q + r * size, 1);
                }
                const auto seen_by = [&](index_t r) {
                    return visible_keys(c.mask, first + r, cut.queries, n);
                };
                // Whole panels around the keys that any of these queries sees.
                const index_t k0 = seen_by(0).begin / block::width * block::width;
                const index_t k1 = std::max(k0, seen_by(rows - 1).end);
                const index_t room = round_up(k1 - k0, lanes<T>);
                multiply_strip(rows, size, k1 - k0, q, size, keys + k0 * size, block::width * size,
                               block::width, strip, stride, false);
                for (index_t r = 0; r < rows; ++r) {
                    const index_range seen = seen_by(r);
                    T* const row = strip + r * stride;
                    if (c.biased())
                        biases.add(place_of_query(c.where(), s, first + r), seen,
                                   row + (seen.begin - k0));
                    hide_unseen(row, seen.begin - k0, seen.end - k0, room);
                }
                T weights[plan::longest_strip];
                exponentials_of_rows(rows, strip, stride, room, weights);
                constexpr index_t depth =
                    32 * 1024 / static_cast<index_t>(sizeof(T)) / block::width;
                for (index_t k = k0; k < k1; k += depth) // a panel's part stays in L1
                    multiply_strip(rows, std::min(depth, k1 - k), value_size, strip + (k - k0),
                                   stride, values + k * block::width, n * block::width,
                                   block::width, out, out_stride, k > k0);
                for (index_t r = 0; r < rows; ++r) {
                    if (seen_by(r).size() == 0) {
                        weights[r] = 0;
                        std::fill_n(out + r * out_stride, value_size, T(0));
                    }
                    scale_row(value_size, out + r * out_stride, weights[r],
                              c.out.address(first_query + first + r, h, 0), c.out.stride(2));
                }
                if (scored) {
                    const index_t r0 = std::clamp<index_t>(counts.begin - first, 0, rows);
                    const index_t r1 = std::clamp<index_t>(counts.end - first, r0, rows);
                    for (index_t r = r0; r < r1; ++r)
                        weights[r] *= c.weight(first_query + first + r, seen_by(r).size());
                    add_weighted_rows(r1 - r0, room, weights + r0, strip + r0 * stride, stride,
                                      c.largest, sums + k0);
                }
            }
            if (scored) std::copy(sums, sums + n, received.row(h, part) + at);
        }
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
