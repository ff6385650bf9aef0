// Gram matrices by tiles.
#pragma once

#include "../../core/executor.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"
#include "halves.hpp"
#include "registers.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The block of a Gram matrix that stays in registers: `rows` x `width`. Both factors are packed in
/// panels of `width` columns, of which the left one's are read by `rows`.
template <class T>
struct gram_block {
    static constexpr index_t vectors = 3;
    static constexpr index_t width = vectors * lanes<T>;
    static constexpr index_t rows = [] {
        index_t r = sum_registers / vectors;
        while (width % r != 0) --r;
        return r;
    }();
};

/// out [rows x width] += a' b over `depth` rows of a panel each; `a` points at its first column.
template <class T>
void multiply_panels(index_t depth, const T* a, const T* b, T* out, index_t stride) {
    using B = batch<T>;
    using block = gram_block<T>;
    B sum[block::rows][block::vectors];
    PARE_UNROLL
    for (index_t i = 0; i < block::rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < block::vectors; ++v) sum[i][v] = B(T(0));
    multiply_registers(depth, a, index_t{1}, block::width, b, block::width, sum);
    PARE_UNROLL
    for (index_t i = 0; i < block::rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < block::vectors; ++v) {
        T* const to = out + i * stride + v * lanes<T>;
        (B::load_unaligned(to) + sum[i][v]).store_unaligned(to);
    }
}

/// A matrix in panels of `width` columns, [panel][row][width], padded by 0.
template <class T>
struct panels {
    static constexpr index_t width = gram_block<T>::width;
    T* data;
    index_t stride; // between panels

    /// Numbers that a matrix takes. Panels are not a multiple of a page apart, so that they do not
    /// fight for the same cache lines.
    static index_t panel_size(index_t rows) { return rows * width + 64; }
    static index_t size(index_t rows, index_t columns) {
        return (columns + width - 1) / width * panel_size(rows);
    }

    /// Copies rows first <= t < last of x, less `centre`, to the rows `at` and following; `sums` are
    /// overwritten with theirs. Both have zeros for the padding.
    template <class E>
    void pack_centred(view<const E, 2> x, index_t first, index_t last, const T* centre, T* sums,
                      index_t at) const {
        using B = batch<T>;
        const index_t columns = x.extent(1);
        std::fill(sums, sums + round_up(columns, width), T(0));
        for (index_t t = first; t < last; ++t, ++at) {
            const E* const from = x.address(t, 0);
            E last_panel[width];
            T* to = data + at * width;
            for (index_t c = 0; c < columns; c += width, to += stride) {
                const E* in = from + c;
                if (c + width > columns) {
                    std::fill(std::copy(in, from + columns, last_panel), last_panel + width,
                              static_cast<E>(T(0)));
                    in = last_panel;
                }
                PARE_UNROLL
                for (index_t v = 0; v < width; v += lanes<T>) {
                    const B less = opaque(load_wide(in + v) - B::load_unaligned(centre + c + v));
                    less.store_unaligned(to + v);
                    B sum = B::load_unaligned(sums + c + v);
                    add_in_order(sum, less);
                    sum.store_unaligned(sums + c + v);
                }
            }
        }
    }
    /// Copies rows first <= t < last of x to the rows `at` and following.
    template <class E>
    void pack(view<const E, 2> x, index_t first, index_t last, index_t at) const {
        const index_t columns = x.extent(1);
        for (index_t t = first; t < last; ++t, ++at) {
            const E* const from = &x(t, 0);
            T* to = data + at * width;
            index_t c = 0;
            for (; c + width <= columns; c += width, to += stride)
                for (index_t v = 0; v < width; v += lanes<T>)
                    load_wide(from + c + v).store_unaligned(to + v);
            if (c == columns) continue;
            for (index_t i = 0; i < width; ++i)
                to[i] = c + i < columns ? static_cast<T>(from[c + i]) : T(0);
        }
    }
    const T* at(index_t row, index_t column) const {
        return data + column / width * stride + row * width + column % width;
    }
    /// Asks the second-level cache for a piece of `rows` rows of the panel that holds a column.
    void prefetch(index_t row, index_t rows, index_t column, index_t piece, index_t pieces) const {
        constexpr index_t line = 64 / static_cast<index_t>(sizeof(T));
        const T* const from = at(row, column / width * width);
        const index_t size = rows * width, end = size * (piece + 1) / pieces;
        for (index_t i = size * piece / pieces; i < end; i += line) PARE_PREFETCH(from + i);
    }
};

/// What is taken off each column of rows as they are packed in float, a number near its mean, so that
/// products are rounded in proportion to how much columns vary; and what there is to add for it:
///
///     x' y = d' e + (the sum of x) s_y' + s_x (the sum of e)', d = x - s_x, e = y - s_y
struct packed_centres {
    static constexpr index_t pack_rows = 32; // a task of packing; its sums are of float
    index_t columns = 0, padded = 0;
    float *centre = nullptr, *partial = nullptr;                // [padded], [tasks x padded]
    double *shift = nullptr, *rest = nullptr, *whole = nullptr; // s, the sums of d and of x

    static index_t tasks(index_t rows) { return (rows + pack_rows - 1) / pack_rows; }
    static index_t size(index_t padded, index_t rows) { // in doubles
        return 3 * padded + ((1 + tasks(rows)) * padded + 1) / 2;
    }
    packed_centres() = default;
    /// The centre is that of a few rows from all over them. Where there are next to none it is 0: it
    /// would be they.
    template <class E>
    PARE_ONE_COPY packed_centres(view<const E, 2> x, index_t padding, double* memory)
        : columns(x.extent(1)), padded(padding),
          centre(reinterpret_cast<float*>(memory + 3 * padded)), partial(centre + padded),
          shift(memory), rest(memory + padded), whole(memory + 2 * padded) {
        constexpr index_t most = 32, least = 8;
        const index_t rows = x.extent(0), some = rows < least ? 0 : std::min(rows, most);
        std::fill(centre, centre + padded, 0.f);
        for (index_t i = 0; i < some; ++i) {
            const E* const row = &x(rows / some * i, 0);
            for (index_t c = 0; c < columns; ++c)
                centre[c] += static_cast<float>(row[c]) / static_cast<float>(some);
        }
        for (index_t c = 0; c < padded; ++c) {
            shift[c] = static_cast<double>(centre[c]);
            rest[c] = whole[c] = 0;
        }
    }
    float* sums_of(index_t task) const { return partial + task * padded; }
    /// Adds the sums of tasks that have packed n rows, after others or, `last`, all others.
    PARE_ONE_COPY void add_up(index_t n, bool last) const {
        for (index_t task = 0; task < tasks(n); ++task)
            for (index_t c = 0; c < padded; ++c) rest[c] += static_cast<double>(sums_of(task)[c]);
        for (index_t c = 0; c < padded; ++c)
            whole[c] += static_cast<double>(n) * shift[c] + (last ? rest[c] : 0);
    }
};

/// to[j] += alpha * (from[j] + whole * shifts[j] + shift * rests[j]).
template <class Acc>
PARE_ONE_COPY void add_about_centres(index_t n, Acc alpha, const float* from, double whole,
                                     const double* shifts, double shift, const double* rests,
                                     Acc* to) {
    for (index_t j = 0; j < n; ++j)
        to[j] += alpha * static_cast<Acc>(static_cast<double>(from[j]) + whole * shifts[j] +
                                          shift * rests[j]);
}

/// g += alpha x' y, of which only the lower triangle if `lower`; rows of all three contiguous. Rows
/// are packed once, as many as the last-level cache holds; then a task is a tile of g, whose sums
/// of type T stay in L2 and are added to g at the end.
template <class Executor, class E, class Acc>
void gram_tiles(const Executor& executor, Acc alpha, view<const E, 2> x, view<const E, 2> y,
                view<Acc, 2> g, bool lower, workspace& scratch) {
    using T = compute_t<E>;
    using block = gram_block<T>;
    constexpr index_t width = block::width;
    constexpr index_t depth = 128; // a panel is then 24 KB on AVX-512: the right one stays in L1
    constexpr index_t pack_rows = packed_centres::pack_rows;
    constexpr bool centred = std::is_same_v<T, float>;
    constexpr index_t packed_bytes = index_t{16} << 20, most_rows = 2048;
    // Sums of the largest tile take about 0.3 MB.
    constexpr index_t most = (sizeof(T) <= 4 ? 288 : 192) / width * width;
    const index_t rows = g.extent(0), columns = g.extent(1), depths = x.extent(0);
    if (rows == 0 || columns == 0 || depths == 0) return;
    const bool one = x.data_handle() == y.data_handle() && lower;
    // A quarter of the matrix gives a few threads enough tiles.
    const index_t tile =
        std::clamp<index_t>(std::min(rows, columns) / 4 / width * width, width, most);
    const index_t tile_rows = (rows + tile - 1) / tile, tile_columns = (columns + tile - 1) / tile;
    // Where tile i of a side begins: at a panel, and all have nearly as many, so that threads do.
    const auto begin_of = [=](index_t i, index_t tiles_of_side, index_t side) {
        const index_t panels_of_side = (side + width - 1) / width;
        return std::min(side, panels_of_side * i / tiles_of_side * width);
    };
    const index_t tasks = lower ? tile_rows * (tile_rows + 1) / 2 : tile_rows * tile_columns;

    const index_t row_bytes = (one ? rows : rows + columns) * static_cast<index_t>(sizeof(T));
    const index_t fitting = std::clamp(packed_bytes / row_bytes / depth * depth, depth, most_rows);
    const index_t reach = std::min(depths, fitting);
    const index_t left_size = panels<T>::size(reach, rows);
    const index_t right_size = one ? 0 : panels<T>::size(reach, columns);
    T* const memory =
        scratch.template get<T>(left_size + right_size + executor.concurrency() * tile * tile);
    const panels<T> left{memory, panels<T>::panel_size(reach)};
    const panels<T> right{one ? memory : memory + left_size, left.stride};
    T* const tiles = memory + left_size + right_size;
    packed_centres of_left, of_right;
    if constexpr (centred) {
        const index_t left_padded = round_up(rows, width), right_padded = round_up(columns, width);
        const index_t size = packed_centres::size(left_padded, reach);
        double* const numbers = scratch.inner().template get<double>(
            size + (one ? 0 : packed_centres::size(right_padded, reach)));
        of_left = {x, left_padded, numbers};
        of_right = one ? of_left : packed_centres(y, right_padded, numbers + size);
    }

    for (index_t t0 = 0; t0 < depths; t0 += reach) {
        const index_t n = std::min(reach, depths - t0);
        run_all(executor, packed_centres::tasks(n), [=](index_t task, index_t) {
            const index_t first = task * pack_rows, last = std::min(n, first + pack_rows);
            const auto pack = [=](const panels<T>& to, view<const E, 2> from,
                                  [[maybe_unused]] const packed_centres& of) {
                if constexpr (centred)
                    to.pack_centred(from, t0 + first, t0 + last, of.centre, of.sums_of(task),
                                    first);
                else
                    to.pack(from, t0 + first, t0 + last, first);
            };
            pack(left, x, of_left);
            if (!one) pack(right, y, of_right);
        });
        const bool last_rows = t0 + n == depths;
        if constexpr (centred) {
            of_left.add_up(n, last_rows);
            if (!one) of_right.add_up(n, last_rows);
        }
        executor.run(tasks, [=](index_t task, index_t slot) {
            index_t ti = task / tile_columns, tj = task % tile_columns;
            if (lower) { // task counts the tiles of a triangle row by row
                for (ti = 0, tj = task; tj > ti; ++ti) tj -= ti + 1;
            }
            const index_t i0 = begin_of(ti, tile_rows, rows),
                          j0 = begin_of(tj, tile_columns, columns);
            const index_t height = begin_of(ti + 1, tile_rows, rows) - i0,
                          breadth = begin_of(tj + 1, tile_columns, columns) - j0;
            const bool diagonal = lower && ti == tj;
            T* const sums = tiles + slot * tile * tile;
            std::fill(sums, sums + tile * tile, T(0));
            const index_t right_panels = (breadth + width - 1) / width;
            const index_t blocks = (height + block::rows - 1) / block::rows;
            for (index_t t = 0; t < n; t += depth) {
                const index_t next = t + depth, ahead = std::min(depth, n - next);
                for (index_t j = 0; j < breadth; j += width)
                    for (index_t i = diagonal ? j : 0; i < height; i += block::rows) {
                        if (ahead > 0) { // hides the last-level cache's latency: 1.08 times as fast
                            left.prefetch(next, ahead, i0 + i,
                                          i % width / block::rows * right_panels + j / width,
                                          width / block::rows * right_panels);
                            right.prefetch(next, ahead, j0 + j, i / block::rows, blocks);
                        }
                        multiply_panels(std::min(depth, n - t), left.at(t, i0 + i),
                                        right.at(t, j0 + j), sums + i * tile + j, tile);
                    }
            }
            for (index_t i = 0; i < height; ++i) {
                Acc* const to = &g(i0 + i, j0);
                const T* const from = sums + i * tile;
                const index_t end = diagonal ? i + 1 : breadth;
                if constexpr (centred) {
                    if (last_rows) {
                        add_about_centres(end, alpha, from, of_left.whole[i0 + i],
                                          of_right.shift + j0, of_left.shift[i0 + i],
                                          of_right.rest + j0, to);
                        continue;
                    }
                }
                for (index_t j = 0; j < end; ++j) to[j] += alpha * static_cast<Acc>(from[j]);
            }
        });
    }
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
