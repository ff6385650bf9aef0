// What no flag changes. Hosts build with -Ofast, which lets a compiler reorder additions, cancel
// what rounding is made of, and take for granted that no number is NaN or infinite.
#pragma once

#include "config.hpp"

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// PARE_HIDE(kind, x): an empty instruction that may change a variable, in a register of this kind,
// for all that the compiler knows. Where it keeps to the rules there is none, which would cost some
// kernels a few percent: g++ says so, from version 12 on.
#if !defined(__GNUC__) || defined(__CUDA_ARCH__)
#define PARE_HIDE(kind, x) static_cast<void>(x)
#elif !defined(__clang__) && __GNUC__ >= 12 && !defined(__FAST_MATH__) &&                          \
    !defined(__ASSOCIATIVE_MATH__) && !__FINITE_MATH_ONLY__
#define PARE_HIDE(kind, x) static_cast<void>(x)
#else
#define PARE_HIDE(kind, x) asm("" : kind(x))
#endif
// PARE_NUMBER_REGISTER: the kind that numbers are in, where it is known.
#if defined(__SSE2__)
#define PARE_NUMBER_REGISTER "+v"
#elif defined(__aarch64__)
#define PARE_NUMBER_REGISTER "+w"
#endif
#ifdef PARE_NUMBER_REGISTER
#define PARE_HIDE_NUMBER(x) PARE_HIDE(PARE_NUMBER_REGISTER, x)
#else
#define PARE_HIDE_NUMBER(x) PARE_HIDE("+m", x)
#endif

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// V is float, double, or what a backend specialises it for: its registers.
template <class V>
struct barrier {
    PARE_HD PARE_INLINE static void pass(V& x) { PARE_HIDE_NUMBER(x); }
};
/// x, of which the compiler forgets how it was calculated: what comes before is not rearranged with
/// what comes behind.
template <class V>
PARE_HD PARE_INLINE V opaque(V x) {
    barrier<V>::pass(x);
    return x;
}
/// sum += x, behind what was added before.
template <class V, class X>
PARE_HD PARE_INLINE void add_in_order(V& sum, const X& x) {
    sum = opaque(sum + x);
}

/// The bits of a number, out of sight of compilers that know a test of NaN by its bits.
template <class T>
PARE_HD PARE_INLINE auto bits_of(const T& x) {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t> bits;
    std::memcpy(&bits, &x, sizeof bits);
    PARE_HIDE("+r", bits);
    return bits;
}
template <class T, class Bits = decltype(bits_of(T()))>
inline constexpr Bits magnitude_bits = static_cast<Bits>(~Bits(0)) >> 1;
template <class T, class Bits = decltype(bits_of(T()))>
inline constexpr Bits infinity_bits = magnitude_bits<T> >>
                                      (std::numeric_limits<T>::digits - 1)
                                          << (std::numeric_limits<T>::digits - 1);

template <class T>
PARE_HD inline bool is_finite(const T& x) {
    return (bits_of(x) & magnitude_bits<T>) < infinity_bits<T>;
}
template <class T>
PARE_HD inline bool is_nan(const T& x) {
    return (bits_of(x) & magnitude_bits<T>) > infinity_bits<T>;
}

/// A number whose order as an integer is x's; NaN comes before all.
template <class T>
PARE_HD inline auto order_of(const T& x) {
    const auto bits = bits_of(x);
    using Bits = std::remove_const_t<decltype(bits)>;
    const Bits magnitude = bits & magnitude_bits<T>;
    if (magnitude > infinity_bits<T>) return Bits(0);
    const Bits sign = static_cast<Bits>(magnitude_bits<T> + 1);
    return magnitude == bits || magnitude == 0 ? static_cast<Bits>(magnitude | sign)
                                               : static_cast<Bits>(~bits);
}

/// Infinity, which a compiler with -ffast-math takes for no number at all where it sees it.
template <class T>
inline T infinity() {
    const auto bits = infinity_bits<T>;
    T x;
    std::memcpy(&x, &bits, sizeof x);
    return opaque(x);
}
/// x, or the finite number nearest to it if it is infinite.
template <class T>
PARE_HD inline T nearest_finite(const T& x) {
    constexpr T largest = std::numeric_limits<T>::max();
    const auto bits = bits_of(x);
    if ((bits & magnitude_bits<T>) != infinity_bits<T>) return x;
    return bits > magnitude_bits<T> ? -largest : largest;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
