// Numbers of half types as registers of the floats that they are computed in, and back.
#pragma once

#include "../../core/ops.hpp"
#include "registers.hpp"

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Whether E is IEEE 754's binary16, which processors convert, or bfloat16, the upper half of a float.
template <class E>
inline constexpr bool is_binary16 = sizeof(E) == 2 && std::numeric_limits<E>::digits == 11;
template <class E>
inline constexpr bool is_bfloat16 = sizeof(E) == 2 && std::numeric_limits<E>::digits == 8;
#if defined(__FLT16_MANT_DIG__) && !defined(__CUDACC__)
__extension__ typedef _Float16 float16; // of which older libraries know no limits
template <>
inline constexpr bool is_binary16<float16> = true;
#endif

/// lanes<compute_t<E>> numbers from x on.
template <class E>
PARE_INLINE batch<compute_t<E>> load_wide(const E* x) {
    using T = compute_t<E>;
    if constexpr (std::is_same_v<E, T>) {
        return batch<T>::load_unaligned(x);
    } else {
#if defined(__F16C__)
        if constexpr (is_binary16<E> && lanes<T> == 8)
            return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
#if defined(__AVX512F__)
        if constexpr (is_binary16<E> && lanes<T> == 16)
            return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
#endif
#endif
#if defined(__AVX2__)
        // Which g++ -O2 makes one by one.
        if constexpr (is_bfloat16<E> && lanes<T> == 8) {
            const auto upper = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
            return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(upper), 16));
        }
#if defined(__AVX512F__)
        if constexpr (is_bfloat16<E> && lanes<T> == 16) {
            const auto upper = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
            return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(upper), 16));
        }
#endif
#endif
        T wide[lanes<T>];
        if constexpr (is_bfloat16<E>) {
            std::uint16_t upper[lanes<T>];
            std::uint32_t bits[lanes<T>];
            std::memcpy(upper, x, sizeof upper);
            for (index_t i = 0; i < lanes<T>; ++i) bits[i] = std::uint32_t{upper[i]} << 16;
            std::memcpy(wide, bits, sizeof bits);
        } else {
            for (index_t i = 0; i < lanes<T>; ++i) wide[i] = static_cast<T>(x[i]);
        }
        return batch<T>::load_unaligned(wide);
    }
}
/// The numbers of a register to y and on.
template <class E>
PARE_INLINE void store_narrow(const batch<compute_t<E>>& x, E* y) {
    using T = compute_t<E>;
    if constexpr (std::is_same_v<E, T>) {
        x.store_unaligned(y);
    } else {
        T wide[lanes<T>];
        x.store_unaligned(wide);
        for (index_t i = 0; i < lanes<T>; ++i) y[i] = static_cast<E>(wide[i]);
    }
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
