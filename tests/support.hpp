// What the tests share: random numbers from a seed, matrices of any layout with poison around them.
#pragma once

#include "catch.hpp"
#include <pare/core/ops.hpp>
#include <pare/core/view.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

using pare::index_t;
using real = long double; // of the oracles

// With -ffast-math a compiler takes for granted that there is no NaN and no infinity, so they come
// from bits that it does not see, and are recognised by their bits.
template <class T>
T from_bits(std::uint32_t of_float, std::uint64_t of_double) {
    T x;
    const volatile std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t> bits =
        sizeof(T) == 4 ? of_float : of_double;
    const auto seen = bits;
    std::memcpy(&x, &seen, sizeof x);
    return x;
}
template <class T>
T not_a_number() {
    return from_bits<T>(0x7fc00000, 0x7ff8000000000000);
}
template <class T>
T infinite() {
    return from_bits<T>(0x7f800000, 0x7ff0000000000000);
}
template <class T>
T minus_infinite() {
    return from_bits<T>(0xff800000, 0xfff0000000000000);
}
template <class T>
bool is_nan(const T& x) {
    const volatile double seen = static_cast<double>(x);
    const double same = seen;
    std::uint64_t bits;
    std::memcpy(&bits, &same, sizeof bits);
    const volatile std::uint64_t magnitude = bits & 0x7fffffffffffffff;
    return magnitude > 0x7ff0000000000000;
}
/// |a - b|, and more than any tolerance where that is not a number.
template <class A, class B>
real distance(const A& a, const B& b) {
    const real difference = static_cast<real>(a) - static_cast<real>(b);
    return is_nan(difference) ? std::numeric_limits<real>::max() : std::abs(difference);
}

/// Random numbers from one seed, PARE_SEED in the environment or a fixed one. Write CAPTURE(random)
/// behind it.
struct random_source {
    unsigned long seed = std::getenv("PARE_SEED") ? std::stoul(std::getenv("PARE_SEED")) : 20261;
    std::mt19937_64 engine{seed};

    template <class T = double>
    T uniform(double low = -1, double high = 1) {
        return pare::detail::from_double<T>(
            std::uniform_real_distribution<double>(low, high)(engine));
    }
    /// low <= i <= high
    index_t integer(index_t low, index_t high) {
        return std::uniform_int_distribution<index_t>(low, high)(engine);
    }
    template <class T>
    std::vector<T> vector(index_t n, double low = -1, double high = 1) {
        std::vector<T> x(static_cast<std::size_t>(n));
        for (T& e : x) e = uniform<T>(low, high);
        return x;
    }
};
inline std::ostream& operator<<(std::ostream& out, const random_source& r) {
    return out << "PARE_SEED=" << r.seed;
}

template <class T>
T poison() {
    if constexpr (std::is_floating_point_v<T>)
        return not_a_number<T>();
    else if constexpr (std::is_integral_v<T>)
        return static_cast<T>(0x5a);
    else
        return T{};
}
template <class T>
bool same_bits(const T& a, const T& b) {
    return std::memcmp(&a, &b, sizeof(T)) == 0;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

enum class layout { rows, padded, columns, interleaved };

/// A matrix in a buffer that holds poison everywhere else.
template <class T>
struct matrix {
    index_t height, width;
    index_t row_stride = 1, column_stride = 1;
    std::vector<T> data;

    matrix(index_t h, index_t w, layout l = layout::rows) : height(h), width(w) {
        if (l == layout::rows) row_stride = w;
        if (l == layout::padded) row_stride = w + 5;
        if (l == layout::columns) column_stride = h + 3;
        if (l == layout::interleaved) row_stride = 2 * w + 1, column_stride = 2;
        data.assign(static_cast<std::size_t>(h * row_stride + w * column_stride + 7), poison<T>());
    }
    matrix(index_t h, index_t w, random_source& random, layout l = layout::rows) : matrix(h, w, l) {
        for (index_t i = 0; i < h; ++i)
            for (index_t j = 0; j < w; ++j) (*this)(i, j) = random.uniform<T>();
    }

    std::size_t at(index_t i, index_t j) const {
        return static_cast<std::size_t>(i * row_stride + j * column_stride);
    }
    T& operator()(index_t i, index_t j) { return data[at(i, j)]; }
    const T& operator()(index_t i, index_t j) const { return data[at(i, j)]; }
    pare::view<T, 2> view() { return {data.data(), {height, width}, {row_stride, column_stride}}; }
    pare::view<const T, 2> view() const {
        return {data.data(), {height, width}, {row_stride, column_stride}};
    }
    /// Rows first <= i < last.
    pare::view<const T, 2> slice(index_t first, index_t last) const {
        return {
            data.data() + first * row_stride, {last - first, width}, {row_stride, column_stride}};
    }

    bool outside_untouched() const {
        std::vector<bool> inside(data.size(), false);
        for (index_t i = 0; i < height; ++i)
            for (index_t j = 0; j < width; ++j) inside[at(i, j)] = true;
        for (std::size_t e = 0; e < data.size(); ++e)
            if (!inside[e] && !same_bits(data[e], poison<T>())) return false;
        return true;
    }
};

/// The sentence of the Error that f() throws.
template <class Error, class F>
std::string sentence_of(const F& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    FAIL("nothing was thrown");
    return "";
}
