// Gram matrices by tiles.
#pragma once

#include "../../core/executor.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"
#include "registers.hpp"

#include <algorithm>
#include <cstring>

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

    /// Copies rows first <= t < last of x to the rows `at` and following.
    void pack(view<const T, 2> x, index_t first, index_t last, index_t at) const {
        const index_t columns = x.extent(1);
        for (index_t t = first; t < last; ++t, ++at) {
            const T* const from = &x(t, 0);
            T* to = data + at * width;
            index_t c = 0;
            for (; c + width <= columns; c += width, to += stride)
                std::memcpy(to, from + c, width * sizeof(T));
            if (c == columns) continue;
            std::copy(from + c, from + columns, to);
            std::fill(to + (columns - c), to + width, T(0));
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

/// g += alpha x' y, of which only the lower triangle if `lower`; rows of all three contiguous. Rows
/// are packed once, as many as the last-level cache holds; then a task is a tile of g, whose sums
/// of type T stay in L2 and are added to g at the end.
template <class Executor, class T, class Acc>
void gram_tiles(const Executor& executor, Acc alpha, view<const T, 2> x, view<const T, 2> y,
                view<Acc, 2> g, bool lower, workspace& scratch) {
    using block = gram_block<T>;
    constexpr index_t width = block::width;
    constexpr index_t depth = 128;    // a panel is then 24 KB on AVX-512: the right one stays in L1
    constexpr index_t pack_rows = 32; // a task of packing
    constexpr index_t packed_bytes = index_t{16} << 20, most_rows = 2048;
    // Sums of the largest tile take about 0.3 MB.
    constexpr index_t most = (sizeof(T) <= 4 ? 288 : 192) / width * width;
    const index_t rows = g.extent(0), columns = g.extent(1), depths = x.extent(0);
    if (rows == 0 || columns == 0) return;
    const bool one = x.data_handle() == y.data_handle() && lower;
    // A quarter of the matrix gives a few threads enough tiles.
    const index_t tile =
        std::clamp<index_t>(std::min(rows, columns) / 4 / width * width, width, most);
    const index_t tile_rows = (rows + tile - 1) / tile, tile_columns = (columns + tile - 1) / tile;
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

    for (index_t t0 = 0; t0 < depths; t0 += reach) {
        const index_t n = std::min(reach, depths - t0);
        run_all(executor, (n + pack_rows - 1) / pack_rows, [=](index_t task, index_t) {
            const index_t first = task * pack_rows, last = std::min(n, first + pack_rows);
            left.pack(x, t0 + first, t0 + last, first);
            if (!one) right.pack(y, t0 + first, t0 + last, first);
        });
        executor.run(tasks, [=](index_t task, index_t slot) {
            index_t ti = task / tile_columns, tj = task % tile_columns;
            if (lower) { // task counts the tiles of a triangle row by row
                for (ti = 0, tj = task; tj > ti; ++ti) tj -= ti + 1;
            }
            const index_t i0 = ti * tile, height = std::min(rows - i0, tile);
            const index_t j0 = tj * tile, breadth = std::min(columns - j0, tile);
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
                for (index_t j = 0; j < end; ++j) to[j] += alpha * static_cast<Acc>(from[j]);
            }
        });
    }
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
