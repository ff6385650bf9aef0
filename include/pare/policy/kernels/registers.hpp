// Vector registers, and the product of a small block that stays in them.
#pragma once

#include "../../core/config.hpp"

#include <xsimd/xsimd.hpp>

#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

template <class T>
inline constexpr bool has_batch = std::is_same_v<T, float> || std::is_same_v<T, double>;

template <class T>
using batch = xsimd::batch<T>;
template <class T>
inline constexpr index_t lanes = static_cast<index_t>(batch<T>::size);

/// Registers that a block's sums may take, so that its factors find room beside them.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t sum_registers = 24; // of 32
#else
inline constexpr index_t sum_registers = 12; // of 16
#endif

constexpr index_t round_up(index_t n, index_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/// sum[i, v] += a[i, t] * b[t, v] over `depth` steps t; a(i, t) at a[i * a_row + t * a_step], b's
/// vectors at b + t * b_step.
template <index_t Rows, index_t Vectors, class T>
PARE_INLINE void multiply_registers(index_t depth, const T* a, index_t a_row, index_t a_step,
                                    const T* b, index_t b_step, batch<T> (&sum)[Rows][Vectors]) {
    for (index_t t = 0; t < depth; ++t, a += a_step, b += b_step) {
        batch<T> right[Vectors];
        PARE_UNROLL
        for (index_t v = 0; v < Vectors; ++v) right[v] = batch<T>::load_unaligned(b + v * lanes<T>);
        PARE_UNROLL
        for (index_t i = 0; i < Rows; ++i) {
            const batch<T> left(a[i * a_row]);
            PARE_UNROLL
            for (index_t v = 0; v < Vectors; ++v) sum[i][v] = xsimd::fma(left, right[v], sum[i][v]);
        }
    }
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
