// Small matrix products with a packed right-hand side, and loops over batches of floats, on xsimd:
// what attention and the pointwise parts of the encoder are made of.
#pragma once

#include <pare/core/config.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace encoder::kernel {

using pare::index_t;
using simd = xsimd::batch<float>;
inline constexpr index_t width = simd::size;

// A tile of C is tile_rows x 2 batches. Its sums, two batches of B and an element of A fill the
// register file, and there are enough sums in flight to hide the latency of fma.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t tile_rows = 12; // 32 registers
#else
inline constexpr index_t tile_rows = 6; // 16 registers
#endif
inline constexpr index_t panel_width = 2 * width;

constexpr index_t round_up(index_t n, index_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/// Sum of a batch's elements; the function's name depends on the version of xsimd.
template <class T>
auto sum(const T& x, int) -> decltype(reduce_add(x)) {
    return reduce_add(x);
}
template <class T>
auto sum(const T& x, long) -> decltype(hadd(x)) {
    return hadd(x);
}
inline float sum(const simd& x) {
    return sum(x, 0);
}

inline float largest(const simd& x) {
    std::array<float, width> lanes;
    x.store_unaligned(lanes.data());
    return *std::max_element(lanes.begin(), lanes.end());
}

/// y[i] = f(x[i]...) for all i below n; f takes batches, and y may be one of the x.
template <class F, class... Arrays>
void map(index_t n, F f, float* y, const Arrays*... x) {
    index_t i = 0;
    for (; i + width <= n; i += width) f(simd::load_unaligned(x + i)...).store_unaligned(y + i);
    if (i == n) return;
    // The tail goes through a copy, so that nothing outside of the arrays is touched.
    std::array<float, width> lanes{};
    const auto load = [&](const float* from) {
        std::copy(from + i, from + n, lanes.begin());
        return simd::load_unaligned(lanes.data());
    };
    f(load(x)...).store_unaligned(lanes.data());
    std::copy_n(lanes.begin(), n - i, y + i);
}

/// Packs B [k x n], element (p, j) at b[p * row_stride + j * column_stride], into panels of
/// panel_width columns, each panel row by row, the last one filled with zeros: k * round_up(n,
/// panel_width) floats.
inline void pack(index_t k, index_t n, const float* b, index_t row_stride, index_t column_stride,
                 float* panels) {
    for (index_t j = 0; j < n; j += panel_width, b += panel_width * column_stride) {
        const index_t columns = std::min(panel_width, n - j);
        for (index_t p = 0; p < k; ++p, panels += panel_width) {
            const float* row = b + p * row_stride;
            if (column_stride == 1)
                std::copy_n(row, columns, panels);
            else
                for (index_t c = 0; c < columns; ++c) panels[c] = row[c * column_stride];
            std::fill(panels + columns, panels + panel_width, 0.f);
        }
    }
}

/// C [rows x batches * width] = (or +=) A [rows x k] times a panel.
template <index_t rows, index_t batches>
void tile(index_t k, const float* a, index_t lda, const float* panel, float* c, index_t ldc,
          bool accumulate) {
    simd sums[rows][batches];
    PARE_UNROLL
    for (index_t i = 0; i < rows; ++i) PARE_UNROLL
    for (index_t j = 0; j < batches; ++j)
        sums[i][j] = accumulate ? simd::load_unaligned(c + i * ldc + j * width) : simd(0.f);
    for (index_t p = 0; p < k; ++p, panel += panel_width) {
        simd b[batches];
        PARE_UNROLL
        for (index_t j = 0; j < batches; ++j) b[j] = simd::load_unaligned(panel + j * width);
        PARE_UNROLL
        for (index_t i = 0; i < rows; ++i) {
            const simd element(a[i * lda + p]);
            PARE_UNROLL
            for (index_t j = 0; j < batches; ++j)
                sums[i][j] = xsimd::fma(element, b[j], sums[i][j]);
        }
    }
    PARE_UNROLL
    for (index_t i = 0; i < rows; ++i) PARE_UNROLL
    for (index_t j = 0; j < batches; ++j) sums[i][j].store_unaligned(c + i * ldc + j * width);
}

template <index_t batches, index_t... i>
constexpr auto tiles(std::integer_sequence<index_t, i...>) {
    return std::array{&tile<i + 1, batches>...};
}

/// C [m x n] = (or +=, if `accumulate`) A [m x k] times packed B [k x n]. Rows of C are written in
/// whole batches: ldc >= round_up(n, width), and all of that is C's.
inline void multiply(index_t m, index_t k, index_t n, const float* a, index_t lda,
                     const float* panels, float* c, index_t ldc, bool accumulate = false) {
    static constexpr auto wide = tiles<2>(std::make_integer_sequence<index_t, tile_rows>{});
    static constexpr auto narrow = tiles<1>(std::make_integer_sequence<index_t, tile_rows>{});
    for (index_t j = 0; j < n; j += panel_width, panels += k * panel_width) {
        const auto& kernels = n - j > width ? wide : narrow;
        // Blocks of nearly equal height: a last one of one row would run at a tenth of the speed.
        index_t blocks = (m + tile_rows - 1) / tile_rows;
        for (index_t i = 0, rows; i < m; i += rows, --blocks) {
            rows = (m - i + blocks - 1) / blocks;
            kernels[static_cast<std::size_t>(rows - 1)](k, a + i * lda, lda, panels,
                                                        c + i * ldc + j, ldc, accumulate);
        }
    }
}

} // namespace encoder::kernel
