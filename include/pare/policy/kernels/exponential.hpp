// The exponential function where its results are at most 1.
#pragma once

#include "../../core/ops.hpp"
#include "registers.hpp"

#include <cstdint>
#include <iterator>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The same bits as lanes of another type; from version 11 on, xsimd is told the lane, not the batch.
template <class To, class T, class A>
PARE_INLINE xsimd::batch<To, A> bits_as(const xsimd::batch<T, A>& x) {
#if XSIMD_VERSION_MAJOR < 11
    return xsimd::bitwise_cast<xsimd::batch<To, A>>(x);
#else
    return xsimd::bitwise_cast<To>(x);
#endif
}

template <class T>
struct exponential;
template <>
struct exponential<float> {
    using integer = std::int32_t;
    static constexpr float lowest = -88; // where the power of 2 below is 2^-127
    static constexpr float log2_e = 1.44269504f;
    // log(2) in two parts, of which the first has so few digits that its product is exact.
    static constexpr float log2_high = 0.693359375f, log2_low = -2.12194440e-4f;
    // exp(r) = 1 + r + r^2 q(r) for |r| <= log(2) / 2, q fitted to the least maximal error, 3e-9.
    static constexpr float q[] = {1.381453999e-3f, 8.368745116e-3f, 4.166839079e-2f,
                                  1.666652040e-1f, 4.999999343e-1f};
};
template <>
struct exponential<double> {
    using integer = std::int64_t;
    static constexpr double lowest = -709.2; // 2^-1023
    static constexpr double log2_e = 1.4426950408889634;
    static constexpr double log2_high = 0.6931471805582987, log2_low = 1.6465949582897082e-12;
    // The same, to 1.3e-17.
    static constexpr double q[] = {
        2.5024645203706348e-08, 2.763112546092946e-07, 2.755750728548884e-06, 2.480149034619648e-05,
        0.00019841269597118755, 0.0013888888946678862, 0.008333333333451433,  0.04166666666651632,
        0.16666666666666483,    0.5000000000000012};
};

/// x, or `low` < 0 where x is less; NaN stays.
template <class T, class A>
PARE_INLINE xsimd::batch<T, A> no_less(T low, const xsimd::batch<T, A>& x) {
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
    // Where one is NaN a maximum is its second operand, and compilers may exchange the two. As
    // integers, negative numbers rise with their magnitudes, up to minus infinity and then NaN.
    using integer = typename exponential<T>::integer;
    using integers = xsimd::batch<integer, A>;
    const integers bits = bits_as<integer>(x), lowest = bits_as<integer>(xsimd::batch<T, A>(low));
    const integers infinity(std::numeric_limits<integer>::min() +
                            static_cast<integer>(infinity_bits<T>));
    return bits_as<T>(xsimd::select((bits > lowest) & (bits <= infinity), lowest, bits));
#else
    return xsimd::max(xsimd::batch<T, A>(low), x);
#endif
}

/// A number as an integer n and the rest, |rest| <= 1/2, and 2^n, which is 0 for the least exponent.
/// A sum with 1.5 * 2^23 (of double 2^52) is rounded to an integer, which its last bits are; with
/// the exponents' bias more, they are the exponent of a power of 2.
template <class T, class A>
struct rounded {
    using B = xsimd::batch<T, A>;
    static constexpr int mantissa = std::numeric_limits<T>::digits - 1;
    static constexpr T bias = std::numeric_limits<T>::max_exponent - 1;
    static constexpr T rounding = static_cast<T>(std::uint64_t{3} << (mantissa - 1)) + bias;
    B sum, n;

    PARE_INLINE explicit rounded(const B& with_rounding)
        : sum(opaque(with_rounding)), n(opaque(sum - B(rounding))) {}
    PARE_INLINE B power() const {
        return bits_as<T>(bits_as<typename exponential<T>::integer>(sum) << mantissa);
    }
};

} // namespace detail

namespace ops {

/// In half of the steps of xsimd::exp, which also deals with large x. Within 2 roundings of the
/// result, and 0 from about -87.7 (of double -708.7) on, just above the smallest normal number; NaN
/// stays.
template <class T, class A>
struct exp_of_negative<xsimd::batch<T, A>> {
    using B = xsimd::batch<T, A>;
    PARE_INLINE B operator()(const B& x) const {
        using detail::multiply_add;
        using exponential = detail::exponential<T>;
        using rounded = detail::rounded<T, A>;
        const B bounded = detail::no_less(exponential::lowest, x);
        // x = n log(2) + r with |r| <= log(2) / 2
        const rounded x2(multiply_add(bounded, B(exponential::log2_e), B(rounded::rounding)));
        const B high = detail::opaque(multiply_add(x2.n, B(-exponential::log2_high), bounded));
        const B r = multiply_add(x2.n, B(-exponential::log2_low), high);
        B q(exponential::q[0]);
        constexpr auto terms = static_cast<index_t>(std::size(exponential::q));
        PARE_UNROLL
        for (index_t i = 1; i < terms; ++i) q = multiply_add(q, r, B(exponential::q[i]));
        return multiply_add(q, r * r, r + B(T(1))) * x2.power();
    }
};

/// exp(x - top) for x <= top, or above it up to where the result is infinity.
template <class V>
struct exp_below {
    V top;
    PARE_INLINE V operator()(const V& x) const { return exp_of_negative<V>()(x - top); }
};

/// In powers of 2, where x - top needs no exact product: within 2e-7 of the sum of the results, however
/// large x and `top` are.
template <class A>
struct exp_below<xsimd::batch<float, A>> {
    using B = xsimd::batch<float, A>;
    static constexpr float log2_e = detail::exponential<float>::log2_e;
    B top;
    PARE_INLINE B operator()(const B& x) const {
        using detail::multiply_add;
        using rounded = detail::rounded<float, A>;
        const B y = detail::no_less(detail::exponential<float>::lowest, x - top);
        const rounded x2(multiply_add(y, B(log2_e), B(rounded::rounding)));
        const B r = multiply_add(y, B(log2_e), -x2.n);
        B p = multiply_add(r, B(0.00131681957f), B(0.00966824032f));
        p = multiply_add(p, r, B(0.0555114262f));
        p = multiply_add(p, r, B(0.240223154f));
        p = multiply_add(p, r, B(0.693146586f));
        p = multiply_add(p, r, B(1.0f));
        return p * x2.power();
    }
};

} // namespace ops
} // namespace PARE_ISA
} // namespace pare
