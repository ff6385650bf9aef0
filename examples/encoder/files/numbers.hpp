// Numbers of a file's bytes, little-endian, at any address; floats as their bits, since with
// -ffast-math compilers take every float for finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace encoder {

template <class To, class From>
To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
T load(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

constexpr std::uint32_t exponent_mask = 0x7f800000;

inline bool is_finite(std::uint32_t float_bits) {
    return (float_bits & exponent_mask) != exponent_mask;
}

/// The bits of the float that a half of IEEE 754 is.
inline std::uint32_t half_to_float(std::uint32_t half) {
    const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) return sign | exponent_mask | (magnitude & 0x3ffu) << 13;
    if (magnitude >= 0x0400u) return sign | ((magnitude << 13) + (112u << 23));
    // Subnormal: a count of 2^-24, which is a normal float, so that flush-to-zero does not matter.
    return sign | bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
}

} // namespace encoder
