// The exponential function where its results are at most 1.
#pragma once

#include "../../core/ops.hpp"
#include "registers.hpp"

#include <cstdint>

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

} // namespace detail

namespace ops {

/// In half of the steps of xsimd::exp, which also deals with large x. Within 2e-7 of the result,
/// and 0 from about -87.7 on, just above the smallest normal number; NaN stays.
template <class A>
struct exp_of_negative<xsimd::batch<float, A>> {
    using B = xsimd::batch<float, A>;
    PARE_INLINE B operator()(const B& x) const {
        using xsimd::fma;
        const B lowest(-88.0f); // n is then -127, and 2^n becomes 0
        const B bounded = xsimd::select(x < lowest, lowest, x);
        // x = n log(2) + r with |r| <= log(2) / 2; a sum with 1.5 * 2^23 is rounded to an integer.
        const B rounding(12582912.0f);
        const B n = fma(bounded, B(1.44269504f), rounding) - rounding;
        // log(2) in two parts, of which the first has so few digits that its product is exact.
        const B r = fma(n, B(2.12194440e-4f), fma(n, B(-0.693359375f), bounded));
        // exp(r) = 1 + r + r^2 q(r), q fitted to the least maximal error, 3e-9.
        B q = fma(r, B(1.381453999e-3f), B(8.368745116e-3f));
        q = fma(q, r, B(4.166839079e-2f));
        q = fma(q, r, B(1.666652040e-1f));
        q = fma(q, r, B(4.999999343e-1f));
        // Not by xsimd::ldexp, which rounds to numbers below the normal ones in some versions.
        return fma(q, r * r, r + B(1.0f)) * detail::bits_as<float>((xsimd::to_int(n) + 127) << 23);
    }
};

/// exp(x - top) for x <= top, times a factor near 1 that is the same for all x of one `top`: it goes
/// away where exponentials are divided by their sum.
template <class V>
struct exp_below {
    V top;
    PARE_INLINE V operator()(const V& x) const { return exp_of_negative<V>()(x - top); }
};

/// In powers of 2, where x needs one rounding less: within 2e-7 of the sum of the results.
template <class A>
struct exp_below<xsimd::batch<float, A>> {
    using B = xsimd::batch<float, A>;
    static constexpr float log2_e = 1.44269504f;
    B top;
    PARE_INLINE B operator()(const B& x) const {
        using xsimd::fma;
        // A sum with 1.5 * 2^23 is rounded to an integer, which its last bits are; 127 more are the
        // exponent of a power of 2, and all of them 0 that of the number 0. NaN stays.
        const B rounding(12582912.0f + 127);
        const B y = xsimd::max(B(-127.0f), fma(x, B(log2_e), top * B(-log2_e)));
        const B sum = y + rounding, r = y - (sum - rounding);
        B p = fma(r, B(0.00131681957f), B(0.00966824032f));
        p = fma(p, r, B(0.0555114262f));
        p = fma(p, r, B(0.240223154f));
        p = fma(p, r, B(0.693146586f));
        p = fma(p, r, B(1.0f));
        return p * detail::bits_as<float>(detail::bits_as<std::int32_t>(sum) << 23);
    }
};

} // namespace ops
} // namespace PARE_ISA
} // namespace pare
