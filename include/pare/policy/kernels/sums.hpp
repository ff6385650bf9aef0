// Sums over rows.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "halves.hpp"
#include "registers.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// sums[c] += op(x[t, c], ...) over `rows` rows and `columns` contiguous columns: eight rows at a
/// time, which memory brings side by side, or row after row where that is one long run of it. A
/// column's sum is the same either way. Rows may be of a half type, and T what it is computed in.
template <class Op, class T, class... Strided>
PARE_INLINE void add_rows(Op op, index_t rows, index_t columns, T* sums, Strided... x) {
    using B = batch<T>;
    const bool one_run = ((x.row(1) == x.row(0) + columns) && ...);
    const index_t in_registers = columns / lanes<T> * lanes<T>;
    // In the loops over rows, which g++ would otherwise reorder to read two blocks of them at once.
    const auto add_last = [&](index_t row) {
        for (index_t c = in_registers; c < columns; ++c)
            add_in_order(sums[c], op(static_cast<T>(x.row(row)[c])...));
    };
    index_t t = 0;
    for (; t + 8 <= rows && !one_run; t += 8) {
        for (index_t c = 0; c < in_registers; c += lanes<T>) {
            B sum = B::load_unaligned(sums + c);
            PARE_UNROLL
            for (index_t u = 0; u < 8; ++u) add_in_order(sum, op(load_wide(x.row(t + u) + c)...));
            sum.store_unaligned(sums + c);
        }
        for (index_t u = 0; u < 8; ++u) add_last(t + u);
    }
    for (; t < rows; ++t) {
        for (index_t c = 0; c < in_registers; c += lanes<T>)
            (B::load_unaligned(sums + c) + op(load_wide(x.row(t) + c)...))
                .store_unaligned(sums + c);
        add_last(t);
    }
}

template <class T>
struct strided_rows {
    const T* data;
    index_t stride;
    const T* row(index_t t) const { return data + t * stride; }
    strided_rows from(index_t row, index_t column) const {
        return {data + row * stride + column, stride};
    }
};

/// sums[c] += x[t, c] over `rows` rows of few columns, row after row, which memory likes best where
/// rows are short: the sums of as many columns as there are registers stay in them. How columns are
/// cut does not change a column's sum.
template <index_t registers, class E, class T = compute_t<E>>
void add_short_rows(index_t rows, index_t columns, T* sums, strided_rows<E> x) {
    using B = batch<T>;
    constexpr index_t width = registers * lanes<T>;
    index_t c = 0;
    for (; c + width <= columns; c += width) {
        B sum[registers];
        PARE_UNROLL
        for (index_t v = 0; v < registers; ++v) sum[v] = B::load_unaligned(sums + c + v * lanes<T>);
        for (index_t t = 0; t < rows; ++t) PARE_UNROLL
        for (index_t v = 0; v < registers; ++v)
            add_in_order(sum[v], load_wide(x.row(t) + c + v * lanes<T>));
        PARE_UNROLL
        for (index_t v = 0; v < registers; ++v) sum[v].store_unaligned(sums + c + v * lanes<T>);
    }
    if constexpr (registers > 1) {
        if (c < columns) add_short_rows<registers / 2>(rows, columns - c, sums + c, x.from(0, c));
    } else {
        for (index_t t = 0; t < rows; ++t)
            for (index_t i = c; i < columns; ++i)
                add_in_order(sums[i], static_cast<T>(x.row(t)[i]));
    }
}

/// sums[b, k] = sum over heads h and counted queries q that see k of p[b, h, q, k]; keys
/// contiguous. A task is a block of keys of one sequence.
template <class Executor, class E, class Batch>
void key_sums(const Executor& executor, view<const E, 4> p, const Batch& batch,
              const attention_mask& mask, const counted_queries& which, view<double, 2> sums) {
    using T = compute_t<E>;
    constexpr index_t most = key_blocks::most, rows_in_t = 256; // rows that are added up in T
    const key_blocks blocks(executor, p.extent(0), p.extent(3));
    executor.run(blocks.tasks(), [=](index_t task, index_t) {
        const index_t b = blocks.sequence(task), k0 = blocks.keys(task).begin;
        const index_t queries = batch.queries(b), keys = batch.keys(b);
        const index_t n = std::min(blocks.keys(task).end, keys) - k0;
        if (n <= 0) return;
        T partial[most];
        double total[most];
        std::fill(partial, partial + n, T(0));
        std::fill(total, total + n, 0.0);
        index_t rows = 0; // in `partial`
        const auto flush = [&] {
            for (index_t k = 0; k < n; ++k) total[k] += static_cast<double>(partial[k]);
            std::fill(partial, partial + n, T(0));
            rows = 0;
        };
        const index_range q = counted(which, queries);
        const bool full = sees_all(mask);
        const bool short_rows = keys * static_cast<index_t>(sizeof(E)) <= 1024; // also of a block
        for (index_t h = 0; h < p.extent(1); ++h)
            for (index_t i = q.begin; i < q.end;) {
                if (rows == rows_in_t) flush();
                if (full) {
                    const index_t count = std::min(rows_in_t - rows, q.end - i);
                    const strided_rows<E> x{&p(b, h, i, k0), p.stride(2)};
                    if (short_rows)
                        add_short_rows<sum_registers / 3 * 2>(count, n, partial, x);
                    else
                        add_rows(ops::identity{}, count, n, partial, x);
                    rows += count;
                    i += count;
                } else {
                    const index_range seen = visible_keys(mask, i, queries, keys);
                    const index_t begin = std::max(seen.begin, k0),
                                  end = std::min(seen.end, k0 + n);
                    if (begin < end)
                        add_rows(ops::identity{}, 1, end - begin, partial + (begin - k0),
                                 strided_rows<E>{&p(b, h, i, begin), p.stride(2)});
                    ++rows;
                    ++i;
                }
            }
        flush();
        for (index_t k = 0; k < n; ++k) sums(b, k0 + k) = total[k];
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
