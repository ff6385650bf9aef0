// The element operations that primitives take, on scalars and on vector registers alike, and the
// types that sums are made in.
#pragma once

#include "config.hpp"

#include <cmath>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {

/// The type that sums over elements of type T are made in. Specialise for a half type of your own,
/// which must convert by static_cast.
template <class T>
struct compute {
    using type = float;
};
template <>
struct compute<double> {
    using type = double;
};
template <class T>
using compute_t = typename compute<T>::type;

namespace detail {

/// A number of any type, by the conversion that a half type has.
template <class T>
PARE_HD double to_double(const T& x) {
    if constexpr (std::is_arithmetic_v<T>)
        return static_cast<double>(x);
    else
        return static_cast<double>(static_cast<compute_t<T>>(x));
}
/// The way back.
template <class T>
PARE_HD T from_double(double x) {
    if constexpr (std::is_arithmetic_v<T>)
        return static_cast<T>(x);
    else
        return static_cast<T>(static_cast<compute_t<T>>(x));
}

} // namespace detail

namespace ops {

/// c ? x : y; for vector registers xsimd's function of the same name is found by their type.
template <class T>
constexpr T select(bool c, const T& x, const T& y) {
    return c ? x : y;
}

/// exp(x) for x <= 0. A backend specialises it where its registers have a faster way.
template <class V>
struct exp_of_negative {
    PARE_HD V operator()(const V& x) const {
        using std::exp;
        return exp(x);
    }
};

struct identity {
    template <class V>
    constexpr V operator()(const V& x) const {
        return x;
    }
};
struct square {
    template <class V>
    constexpr V operator()(const V& x) const {
        return x * x;
    }
};
struct square_root {
    template <class V>
    PARE_HD V operator()(const V& x) const {
        using std::sqrt;
        return sqrt(x);
    }
};
struct difference {
    template <class V>
    constexpr V operator()(const V& x, const V& y) const {
        return x - y;
    }
};
struct product {
    template <class V>
    constexpr V operator()(const V& x, const V& y) const {
        return x * y;
    }
};

} // namespace ops
} // namespace PARE_ISA
} // namespace pare
