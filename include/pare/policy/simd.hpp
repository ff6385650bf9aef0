// The CPU policy: vector registers by xsimd (any architecture that it knows), threads by an
// executor.
#pragma once

#include "seq.hpp"

#include <xsimd/xsimd.hpp>

#include <cstddef>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

template <class T>
inline constexpr bool has_batch = std::is_same_v<T, float> || std::is_same_v<T, double>;

template <class T>
using batch = xsimd::batch<T>;
template <class T>
inline constexpr index_t lanes = static_cast<index_t>(batch<T>::size);

/// The block of the product that one micro-kernel call keeps in registers: `rows` x (`vectors`
/// registers).
template <class T>
struct register_tile {
#if defined(__AVX512F__) || defined(__aarch64__)
    static constexpr index_t rows = 12; // 24 of 32 registers accumulate
#else
    static constexpr index_t rows = 6; // 12 of 16
#endif
    static constexpr index_t vectors = 2;
    static constexpr index_t columns = vectors * lanes<T>;
};

/// out [rows x columns] = a' b for packed panels a [depth x rows], b [depth x columns].
template <class T>
PARE_INLINE void multiply_panels(index_t depth, const T* a, const T* b, T* out) {
    using B = batch<T>;
    using tile = register_tile<T>;
    B sum[tile::rows][tile::vectors];
    PARE_UNROLL
    for (index_t i = 0; i < tile::rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < tile::vectors; ++v) sum[i][v] = B(T(0));
    for (index_t t = 0; t < depth; ++t, a += tile::rows, b += tile::columns) {
        B right[tile::vectors];
        PARE_UNROLL
        for (index_t v = 0; v < tile::vectors; ++v) right[v] = B::load_unaligned(b + v * lanes<T>);
        PARE_UNROLL
        for (index_t i = 0; i < tile::rows; ++i) {
            const B left(a[i]);
            PARE_UNROLL
            for (index_t v = 0; v < tile::vectors; ++v)
                sum[i][v] = xsimd::fma(left, right[v], sum[i][v]);
        }
    }
    PARE_UNROLL
    for (index_t i = 0; i < tile::rows; ++i) PARE_UNROLL
    for (index_t v = 0; v < tile::vectors; ++v)
        sum[i][v].store_unaligned(out + i * tile::columns + v * lanes<T>);
}

/// Copies `columns` columns of `rows` rows into panels of Width columns, [panel][row][Width],
/// padded by 0.
template <index_t Width, class T>
void pack_panels(const T* x, index_t stride, index_t rows, index_t columns, T* out) {
    index_t c = 0;
    for (; c + Width <= columns; c += Width)
        for (index_t t = 0; t < rows; ++t, out += Width)
            std::memcpy(out, x + t * stride + c, Width * sizeof(T));
    if (c == columns) return;
    for (index_t t = 0; t < rows; ++t, out += Width) {
        std::copy(x + t * stride + c, x + t * stride + columns, out);
        std::fill(out + (columns - c), out + Width, T(0));
    }
}

/// sums[c] += op(x[t, c], ...) over `rows` rows and `columns` contiguous columns.
template <class Op, class T, class... Strided>
PARE_INLINE void add_rows(Op op, index_t rows, index_t columns, T* sums, Strided... x) {
    using B = batch<T>;
    index_t t = 0;
    for (; t + 8 <= rows; t += 8) {
        index_t c = 0;
        for (; c + lanes<T> <= columns; c += lanes<T>) {
            B even = B::load_unaligned(sums + c), odd(T(0));
            PARE_UNROLL
            for (index_t u = 0; u < 8; u += 2) {
                even += op(B::load_unaligned(x.row(t + u) + c)...);
                odd += op(B::load_unaligned(x.row(t + u + 1) + c)...);
            }
            (even + odd).store_unaligned(sums + c);
        }
        for (; c < columns; ++c)
            for (index_t u = 0; u < 8; ++u) sums[c] += op(x.row(t + u)[c]...);
    }
    for (; t < rows; ++t) {
        index_t c = 0;
        for (; c + lanes<T> <= columns; c += lanes<T>)
            (B::load_unaligned(sums + c) + op(B::load_unaligned(x.row(t) + c)...))
                .store_unaligned(sums + c);
        for (; c < columns; ++c) sums[c] += op(x.row(t)[c]...);
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

} // namespace detail

/// Vectorised primitives for float and double with unit stride along rows; everything else is
/// inherited.
template <class Executor = default_executor>
class vectorised : public sequential<Executor> {
    using base = sequential<Executor>;

  public:
    constexpr vectorised() = default;
    constexpr explicit vectorised(Executor e) : base(e) {}

    /// The same policy on another executor: pare::simd.with(pare::openmp{4}).
    template <class Other>
    constexpr vectorised<Other> with(Other e) const {
        return vectorised<Other>(e);
    }

    template <class Op, class Offset, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offset* offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        if constexpr (detail::has_batch<T> && (std::is_same_v<T, Ts> && ...)) {
            if (x.stride(1) == 1 && ((others.stride(1) == 1) && ...))
                return segment_sums_rows(
                    op, offsets, unit, out, detail::strided_rows<T>{x.data_handle(), x.stride(0)},
                    detail::strided_rows<T>{others.data_handle(), others.stride(0)}...);
        }
        base::segment_sums(op, offsets, unit, out, x, others...);
    }

    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace& scratch) const {
        if constexpr (detail::has_batch<T>) {
            if (x.stride(1) == 1 && y.stride(1) == 1 && g.stride(1) == 1)
                return gram_tiles(static_cast<Acc>(alpha), x, y, g, lower, scratch);
        }
        base::gram(alpha, x, y, g, lower, scratch);
    }

    template <class T>
    index_t exchange(index_t n, T* sums, const T* add, const T* drop, const T* diagonal,
                     const T* penalty) const {
        using B = detail::batch<T>;
        constexpr index_t W = detail::lanes<T>;
        constexpr index_t exact_indices = index_t{1} << std::numeric_limits<T>::digits;
        if (n < W || n > exact_indices)
            return base::exchange(n, sums, add, drop, diagonal, penalty);

        // Each lane keeps its lowest score and, as a number of type T, where it stands.
        T start[W];
        for (index_t l = 0; l < W; ++l) start[l] = static_cast<T>(l);
        B at = B::load_unaligned(start), best_at = at;
        B lowest(std::numeric_limits<T>::max());
        const B two(T(2)), step(static_cast<T>(W));
        index_t i = 0;
        for (; i + W <= n; i += W) {
            B sum = B::load_unaligned(sums + i) + B::load_unaligned(add + i);
            if (drop) sum -= B::load_unaligned(drop + i);
            sum.store_unaligned(sums + i);
            const B score =
                B::load_unaligned(diagonal + i) - two * sum + B::load_unaligned(penalty + i);
            const auto lower = score < lowest;
            lowest = xsimd::select(lower, score, lowest);
            best_at = xsimd::select(lower, at, best_at);
            at += step;
        }
        T scores[W], places[W];
        lowest.store_unaligned(scores);
        best_at.store_unaligned(places);
        index_t best = static_cast<index_t>(places[0]);
        T best_score = scores[0];
        for (index_t l = 1; l < W; ++l) {
            const index_t place = static_cast<index_t>(places[l]);
            if (scores[l] < best_score || (scores[l] == best_score && place < best)) {
                best = place;
                best_score = scores[l];
            }
        }
        for (; i < n; ++i) {
            sums[i] += drop ? add[i] - drop[i] : add[i];
            const T score = diagonal[i] - 2 * sums[i] + penalty[i];
            if (score < best_score) {
                best_score = score;
                best = i;
            }
        }
        return best;
    }

  private:
    static constexpr index_t strip = 2048; // columns whose sums stay in L1

    template <class Op, class Offset, class Out, class T, class... Rows>
    void segment_sums_rows(Op op, const Offset* offsets, index_t unit, view<Out, 2> out,
                           detail::strided_rows<T> x, Rows... others) const {
        const index_t units = out.extent(1);
        // Long rows are cut in pieces of two pages, which the hardware reads ahead; short ones in
        // enough pieces for a few threads.
        const index_t columns = units * unit >= 16384 ? 2048 : 256;
        const index_t block = std::max<index_t>(1, columns / unit);
        const index_t blocks = (units + block - 1) / block;
        this->executor().run(out.extent(0) * blocks, [=](index_t task, index_t) {
            const index_t s = task / blocks, first = task % blocks * block;
            const index_t last = std::min(units, first + block);
            T partial[strip];
            double total[strip];
            double of_unit = 0;
            index_t u = first, in_unit = 0;
            for (index_t c0 = first * unit; c0 < last * unit; c0 += strip) {
                const index_t n = std::min(strip, last * unit - c0);
                std::fill(total, total + n, 0.0);
                for (index_t t0 = offsets[s]; t0 < static_cast<index_t>(offsets[s + 1]);
                     t0 += base::row_block) {
                    const index_t rows = std::min<index_t>(
                        base::row_block, static_cast<index_t>(offsets[s + 1]) - t0);
                    std::fill(partial, partial + n, T(0));
                    detail::add_rows(op, rows, n, partial, x.from(t0, c0), others.from(t0, c0)...);
                    for (index_t c = 0; c < n; ++c) total[c] += static_cast<double>(partial[c]);
                }
                for (index_t c = 0; c < n; ++c) {
                    of_unit += total[c];
                    if (++in_unit == unit) {
                        out(s, u++) = static_cast<Out>(of_unit);
                        of_unit = 0;
                        in_unit = 0;
                    }
                }
            }
        });
    }

    // Tiles of g stay in L2 while all rows of x and y pass by, packed in blocks of `depth` rows.
    template <class T, class Acc>
    void gram_tiles(Acc alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
                    workspace& scratch) const {
        using registers = detail::register_tile<T>;
        constexpr index_t depth = 1024 / static_cast<index_t>(sizeof(T));
        const index_t rows = g.extent(0), columns = g.extent(1);
        // A quarter of the matrix gives a few threads enough tiles; 384 x 384 numbers are about
        // what L2 holds; multiples of 96 are multiples of every register tile.
        const index_t tile = std::clamp<index_t>(std::min(rows, columns) / 4 / 96 * 96, 96, 384);
        const index_t tile_rows = (rows + tile - 1) / tile,
                      tile_columns = (columns + tile - 1) / tile;
        const index_t tasks = lower ? tile_rows * (tile_rows + 1) / 2 : tile_rows * tile_columns;
        const index_t pack = depth * tile, panel = registers::rows * registers::columns;
        T* const memory =
            scratch.template get<T>(this->executor().concurrency() * (2 * pack + panel));

        this->executor().run(tasks, [=](index_t task, index_t slot) {
            index_t ti = task / tile_columns, tj = task % tile_columns;
            if (lower) { // task counts the tiles of a triangle row by row
                for (ti = 0, tj = task; tj > ti; ++ti) tj -= ti + 1;
            }
            const index_t i0 = ti * tile, i1 = std::min(rows, i0 + tile);
            const index_t j0 = tj * tile, j1 = std::min(columns, j0 + tile);
            T* const a = memory + slot * (2 * pack + panel);
            T* const b = a + pack;
            T* const product = b + pack;
            for (index_t t = 0; t < x.extent(0); t += depth) {
                const index_t n = std::min(depth, x.extent(0) - t);
                detail::pack_panels<registers::rows>(&x(t, i0), x.stride(0), n, i1 - i0, a);
                detail::pack_panels<registers::columns>(&y(t, j0), y.stride(0), n, j1 - j0, b);
                for (index_t i = i0; i < i1; i += registers::rows)
                    for (index_t j = j0; j < j1; j += registers::columns) {
                        const index_t i_end = std::min(i1, i + registers::rows);
                        if (lower && j >= i_end) break;
                        detail::multiply_panels(n, a + (i - i0) * n, b + (j - j0) * n, product);
                        for (index_t r = i; r < i_end; ++r) {
                            const index_t j_end =
                                std::min(j + registers::columns, lower ? r + 1 : j1);
                            const T* from = product + (r - i) * registers::columns;
                            Acc* to = &g(r, j);
                            for (index_t c = 0; c < std::min(j_end, j1) - j; ++c)
                                to[c] += alpha * static_cast<Acc>(from[c]);
                        }
                    }
            }
        });
    }
};

/// xsimd on OpenMP's threads where the translation unit is compiled with OpenMP, else on the
/// calling one.
inline constexpr vectorised<> simd{};

} // namespace PARE_ISA
} // namespace pare
