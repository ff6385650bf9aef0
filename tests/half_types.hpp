// Numbers as half types have them, in a float: with few digits, converted by static_cast alone.
#pragma once

#include <pare/core/ops.hpp>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <vector>

/// Of so many significant binary digits, and the exponents of float.
template <int Digits>
class short_float {
  public:
    PARE_HD short_float() {} // as a GPU's half types are then: any number
    PARE_HD explicit short_float(float x) {
        constexpr std::uint32_t dropped = 24 - Digits;
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        bits += (std::uint32_t{1} << (dropped - 1)) - 1 + (bits >> dropped & 1); // to even
        bits &= ~((std::uint32_t{1} << dropped) - 1);
        std::memcpy(&value_, &bits, sizeof bits);
    }
    PARE_HD explicit operator float() const { return value_; }

  private:
    float value_ = std::numeric_limits<float>::quiet_NaN();
};
using fp16_like = short_float<11>;
using bf16_like = short_float<8>;

/// Those, and g++'s own where it has one.
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__) && !defined(__CUDACC__)
__extension__ using gnu_half = _Float16;
using half_types = std::tuple<fp16_like, bf16_like, gnu_half>;
#else
using half_types = std::tuple<fp16_like, bf16_like>;
#endif

/// A number as what it counts for.
template <class T>
double value(const T& x) {
    return static_cast<double>(static_cast<pare::compute_t<T>>(x));
}
/// From 1 to the next number.
template <class T>
inline constexpr double epsilon_of = std::numeric_limits<T>::epsilon();
template <int Digits>
inline constexpr double epsilon_of<short_float<Digits>> = 2.0 / (1 << Digits);
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__) && !defined(__CUDACC__)
template <> // of which older libraries know no limits
inline constexpr double epsilon_of<gnu_half> = 2.0 / (1 << 11);
#endif

template <class T>
std::vector<T> halves_of(std::initializer_list<float> x) {
    std::vector<T> all;
    for (const float e : x) all.push_back(static_cast<T>(e));
    return all;
}
