// Softmax attention by strips of queries: logits, exponentials, what each key receives, and the
// product with the values, while the strip is in the cache.
#pragma once

#include "../../core/attention_calls.hpp"
#include "../../core/workspace.hpp"
#include "attention_bias.hpp"
#include "exponential.hpp"
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

/// c [Rows x Vectors registers] = (or +=) a [Rows x k] times a panel.
template <index_t Rows, index_t Vectors, class T>
void multiply_block(index_t k, const T* a, index_t lda, const T* panel, T* c, index_t ldc,
                    bool accumulate) {
    using B = batch<T>;
    B sum[Rows][Vectors];
    PARE_UNROLL
    for (index_t i = 0; i < Rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < Vectors; ++v)
        sum[i][v] = accumulate ? B::load_unaligned(c + i * ldc + v * lanes<T>) : B(T(0));
    multiply_registers(k, a, lda, index_t{1}, panel, attention_block<T>::width, sum);
    PARE_UNROLL
    for (index_t i = 0; i < Rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < Vectors; ++v) sum[i][v].store_unaligned(c + i * ldc + v * lanes<T>);
}

template <index_t Vectors, class T, index_t... I>
constexpr auto block_kernels(std::integer_sequence<index_t, I...>) {
    return std::array{&multiply_block<I + 1, Vectors, T>...};
}

/// c [m x n] = (or +=) a [m x k] times panels `panel_size` apart. Rows of c are written in whole
/// registers.
template <class T>
void multiply_strip(index_t m, index_t k, index_t n, const T* a, index_t lda, const T* panels,
                    index_t panel_size, T* c, index_t ldc, bool accumulate) {
    using block = attention_block<T>;
    using rows_up_to = std::make_integer_sequence<index_t, block::rows>;
    static constexpr auto wide = block_kernels<2, T>(rows_up_to{});
    static constexpr auto narrow = block_kernels<1, T>(rows_up_to{});
    for (index_t j = 0; j < n; j += block::width, panels += panel_size) {
        const auto& kernels = n - j > lanes<T> ? wide : narrow;
        // Blocks of nearly equal height: a last one of one row would run at a tenth of the speed.
        index_t blocks = (m + block::rows - 1) / block::rows;
        for (index_t i = 0, rows; i < m; i += rows, --blocks) {
            rows = (m - i + blocks - 1) / blocks;
            kernels[static_cast<std::size_t>(rows - 1)](k, a + i * lda, lda, panels,
                                                        c + i * ldc + j, ldc, accumulate);
        }
    }
}

/// The first `columns` columns of row t of a panel, [t][width], and zeros behind them.
template <class T>
void fill_panel_row(const T* x, index_t columns, T* row) {
    std::copy(x, x + columns, row);
    std::fill(row + columns, row + attention_block<T>::width, T(0));
}

/// A row that the next task will read, of the next head or of the next sequence: more time goes by
/// until then than the memory takes to bring it.
template <class T>
void prefetch_row(const T* x, index_t n) {
    for (index_t i = 0; i < n; i += 64 / static_cast<index_t>(sizeof(T))) PARE_PREFETCH(x + i);
    PARE_PREFETCH(x + n - 1); // in a line more where x is not at the start of one
}

/// Keys [n x size] as panels of width keys, [panel][size][width]; the rows `ahead` of them are next.
template <class T>
void pack_keys(view<const T, 3> k, index_t at, index_t n, index_t group, index_t ahead, T* panels) {
    constexpr index_t width = attention_block<T>::width, square = short_lanes<T>;
    const index_t size = k.extent(2);
    if (size == 0) return;
    for (index_t j = 0; j < n; j += width, panels += width * size) {
        const index_t keys = std::min(width, n - j);
        const T* const from = &k(at + j, group, 0);
        for (index_t c = 0; c < keys; c += square) {
            const T* const rows = from + c * k.stride(0);
            const index_t here = std::min(square, keys - c);
            for (index_t r = 0; r < here; ++r) prefetch_row(rows + r * k.stride(0) + ahead, size);
            index_t e = 0;
            for (; here == square && e + square <= size; e += square)
                transpose(rows + e, k.stride(0), panels + e * width + c, width);
            for (; e < size; ++e)
                for (index_t r = 0; r < here; ++r)
                    panels[e * width + c + r] = rows[r * k.stride(0) + e];
        }
        for (index_t e = 0; e < size && keys < width; ++e)
            std::fill(panels + e * width + keys, panels + (e + 1) * width, T(0));
    }
}

/// Values [n x size] as panels of width columns, [panel][n][width].
template <class T>
void pack_values(view<const T, 3> v, index_t at, index_t n, index_t group, index_t ahead,
                 T* panels) {
    constexpr index_t width = attention_block<T>::width;
    const index_t size = v.extent(2);
    for (index_t e = 0; e < size; e += width, panels += n * width)
        for (index_t j = 0; j < n; ++j) {
            const index_t columns = std::min(width, size - e);
            const T* const from = &v(at + j, group, e);
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

/// y = x * factor; `n` numbers, contiguous if the strides are 1.
template <class T>
void scale_row(index_t n, const T* x, T factor, T* y, index_t stride) {
    using B = batch<T>;
    index_t i = 0;
    if (stride == 1)
        for (; i + lanes<T> <= n; i += lanes<T>)
            (B::load_unaligned(x + i) * B(factor)).store_unaligned(y + i);
    for (; i < n; ++i) y[i * stride] = x[i] * factor;
}

/// sums[j] += sum over rows of weights[r] * e[r, j].
template <class T>
void add_weighted_rows(index_t rows, index_t room, const T* weights, const T* e, index_t stride,
                       T* sums) {
    using B = batch<T>;
    constexpr index_t together = 4;
    for (index_t r = 0; r < rows; r += together) {
        const index_t here = std::min(together, rows - r);
        for (index_t j = 0; j < room; j += lanes<T>) {
            B sum = B::load_unaligned(sums + j);
            const T* const at = e + r * stride + j;
            if (here == together) {
                PARE_UNROLL
                for (index_t u = 0; u < together; ++u)
                    sum = xsimd::fma(B(weights[r + u]), B::load_unaligned(at + u * stride), sum);
            } else {
                for (index_t u = 0; u < here; ++u)
                    sum = xsimd::fma(B(weights[r + u]), B::load_unaligned(at + u * stride), sum);
            }
            sum.store_unaligned(sums + j);
        }
    }
}

/// How the queries of a sequence of n are cut: strips whose logits stay in L2 with keys and values,
/// and parts of a head that different threads may take. Of the length alone, so that results do not
/// depend on threads or batch.
template <class T>
struct attention_plan {
    static constexpr index_t longest_strip = 48, strip_bytes = 192 * 1024,
                             most_parts = shares_of_head;
    static_assert(longest_strip % attention_block<T>::rows == 0);
    index_t strip, parts;

    explicit attention_plan(index_t n) {
        constexpr index_t block = attention_block<T>::rows;
        const index_t logits = strip_bytes / static_cast<index_t>(sizeof(T));
        strip = std::clamp(logits / std::max<index_t>(n, 1) / block * block, block, longest_strip);
        parts = std::clamp<index_t>(n / 256, 1, most_parts);
    }
    index_range queries(index_t part, index_t n) const {
        const index_t strips = (n + strip - 1) / strip;
        return {strips * part / parts * strip, std::min(n, strips * (part + 1) / parts * strip)};
    }
};

template <class Executor, class T, class Offset>
void attention_strips(const Executor& executor, const attention_call<T, Offset>& c,
                      workspace& scratch) {
    using block = attention_block<T>;
    using plan = attention_plan<T>;
    const index_t size = c.q.extent(2), value_size = c.v.extent(2), tokens = c.q.extent(0);
    const index_t heads = c.heads(), longest = c.longest();
    const bool shared = c.shares.extent(0) > 0, scored = shared || c.received.extent(0) > 0;
    // A thread's packed keys and values, scaled queries, results, sums over queries, logits, and
    // biases by distance.
    const index_t out_stride = round_up(value_size, block::width);
    const index_t padded = round_up(longest, block::width);
    const index_t logits =
        std::max(plan::strip_bytes / static_cast<index_t>(sizeof(T)), block::rows * padded) +
        plan::longest_strip * 2 * block::width;
    const index_t per_slot =
        round_up(padded * size + longest * out_stride + plan::longest_strip * (size + out_stride) +
                     padded + logits + head_biases<T>::room(c, 2 * longest),
                 block::width);
    // What the keys receive from each part of each head.
    const index_t parts = plan::most_parts * heads;
    // Heads that are many are tasks of their own, which pack keys and values once for all parts.
    const bool whole = c.sequences * heads >= 8 * shares_of(executor);
    T* const memory = scratch.template get<T>(executor.concurrency() * per_slot +
                                              (scored && !shared ? parts * tokens : 0));
    T* const received =
        shared ? c.shares.data_handle() : memory + executor.concurrency() * per_slot;
    const index_t received_stride = shared ? c.shares.stride(0) : tokens;
    const auto row_of = [=](index_t h, index_t part) {
        return received + (h * plan::most_parts + part) * received_stride;
    };

    const index_t tasks = c.sequences * (whole ? heads : parts);
    executor.run(tasks, [&, memory](index_t task, index_t slot) {
        const index_t of_head = whole ? 1 : plan::most_parts; // tasks
        const index_t s = task / (heads * of_head), h = task / of_head % heads;
        const index_t at = c.begin(s), n = c.length(s);
        const plan cut(n);
        const index_range mine =
            whole ? index_range{0, cut.parts} : index_range{task % of_head, task % of_head + 1};
        // Who adds up the shares does not know into how many a head is cut.
        const index_t last = whole ? plan::most_parts : mine.end;
        for (index_t part = std::max(cut.parts, mine.begin); shared && part < last; ++part)
            std::fill_n(row_of(h, part) + at, n, T(0));
        if (n == 0 || mine.begin >= cut.parts) return;
        const index_range counts = counted(c.counted, n);
        // Rows of logits that are not a multiple of a page apart do not fight for cache lines.
        const index_t stride =
            round_up(n, block::width) + (n % 512 < block::width ? block::width : 0);

        T* const keys = memory + slot * per_slot;
        T* const values = keys + padded * size;
        T* const q = values + longest * out_stride;
        T* const out = q + plan::longest_strip * size;
        T* const sums = out + plan::longest_strip * out_stride;
        T* const strip = sums + padded;
        const head_biases<T> biases(c, h, at, {1 - n, n}, strip + logits);
        const auto ahead = [&](const view<const T, 3>& x, index_t head, index_t next) {
            return h + 1 < heads ? (next - head) * x.stride(1)
                                 : n * x.stride(0) - head * x.stride(1);
        };
        const index_t q_ahead = ahead(c.q, h, h + 1), group = c.group(h), next = c.group(h + 1);
        pack_keys(c.k, at, n, group, ahead(c.k, group, next), keys);
        pack_values(c.v, at, n, group, ahead(c.v, group, next), values);
        for (index_t part = mine.begin; part < mine.end; ++part) {
            const index_range queries = cut.queries(part, n);
            if (scored) std::fill(sums, sums + padded, T(0));

            for (index_t first = queries.begin; first < queries.end; first += cut.strip) {
                const index_t rows = std::min(cut.strip, queries.end - first);
                for (index_t r = 0; r < rows && size > 0; ++r) {
                    const T* const from = &c.q(at + first + r, h, 0);
                    prefetch_row(from + q_ahead, size);
                    scale_row(size, from, c.scale, q + r * size, 1);
                }
                // Whole panels around the keys that any of these queries sees.
                const index_t k0 =
                    visible_keys(c.mask, first, n, n).begin / block::width * block::width;
                const index_t k1 = visible_keys(c.mask, first + rows - 1, n, n).end;
                const index_t room = round_up(k1 - k0, lanes<T>);
                multiply_strip(rows, size, k1 - k0, q, size, keys + k0 * size, block::width * size,
                               strip, stride, false);
                for (index_t r = 0; r < rows; ++r) {
                    const index_range seen = visible_keys(c.mask, first + r, n, n);
                    T* const row = strip + r * stride;
                    if (c.biased()) biases.add(first + r, seen, row + (seen.begin - k0));
                    // What is not seen is made too small to count: all registers are whole.
                    std::fill(row, row + (seen.begin - k0), std::numeric_limits<T>::lowest());
                    std::fill(row + (seen.end - k0), row + room, std::numeric_limits<T>::lowest());
                }
                T weights[plan::longest_strip];
                index_t done = 0;
                for (; done + 4 <= rows; done += 4)
                    exponentials<4>(strip + done * stride, stride, room, weights + done);
                for (; done < rows; ++done)
                    exponentials<1>(strip + done * stride, stride, room, weights + done);
                constexpr index_t depth =
                    32 * 1024 / static_cast<index_t>(sizeof(T)) / block::width;
                for (index_t k = k0; k < k1; k += depth) // a panel's part stays in L1
                    multiply_strip(rows, std::min(depth, k1 - k), value_size, strip + (k - k0),
                                   stride, values + k * block::width, n * block::width, out,
                                   out_stride, k > k0);
                for (index_t r = 0; r < rows; ++r)
                    scale_row(value_size, out + r * out_stride, weights[r],
                              c.out.address(at + first + r, h, 0), c.out.stride(2));
                if (scored) {
                    const index_t r0 = std::clamp<index_t>(counts.begin - first, 0, rows);
                    const index_t r1 = std::clamp<index_t>(counts.end - first, r0, rows);
                    for (index_t r = r0; r < r1; ++r) weights[r] *= c.weight(at + first + r);
                    add_weighted_rows(r1 - r0, room, weights + r0, strip + r0 * stride, stride,
                                      sums + k0);
                }
            }
            if (scored) std::copy(sums, sums + n, row_of(h, part) + at);
        }
    });
    if (!scored || shared) return;
    for (index_t s = 0; s < c.sequences; ++s)
        for (index_t i = c.begin(s); i < c.begin(s + 1); ++i) {
            const plan cut(c.length(s));
            double sum = 0;
            for (index_t h = 0; h < heads; ++h)
                for (index_t part = 0; part < cut.parts; ++part)
                    sum += static_cast<double>(row_of(h, part)[i]);
            c.received(i) = sum;
        }
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
