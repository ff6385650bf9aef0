#include "blocks.hpp"

#include "encoder/files/numbers.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace language {
namespace {

constexpr std::size_t block = 32;  // elements of a block with a scale
constexpr std::size_t large = 256; // of one whose scales are numbers of a few bits

unsigned bits_of(std::byte b) {
    return std::to_integer<unsigned>(b);
}

// The products of scales and numbers are exact and far from overflow, since a half has 11 bits: that
// the halves are finite is enough.
bool read_half(const std::byte* from, float& to) {
    const std::uint32_t bits = encoder::half_to_float(encoder::load<std::uint16_t>(from));
    to = encoder::bit_cast<float>(bits);
    return encoder::is_finite(bits);
}

bool decode_f32(const std::byte* from, float* to) {
    const auto bits = encoder::load<std::uint32_t>(from);
    *to = encoder::bit_cast<float>(bits);
    return encoder::is_finite(bits);
}
bool decode_f16(const std::byte* from, float* to) {
    return read_half(from, *to);
}
bool decode_bf16(const std::byte* from, float* to) {
    const std::uint32_t bits = std::uint32_t{encoder::load<std::uint16_t>(from)} << 16;
    *to = encoder::bit_cast<float>(bits);
    return encoder::is_finite(bits);
}

bool decode_q8_0(const std::byte* from, float* to) {
    float scale;
    if (!read_half(from, scale)) return false;
    for (std::size_t i = 0; i < block; ++i)
        to[i] = scale * static_cast<float>(encoder::load<std::int8_t>(from + 2 + i));
    return true;
}

/// Q4_0, Q4_1, Q5_0 and Q5_1: numbers of so many bits from `least` on, or from the negative of half
/// their range. Fifth bits are apart.
template <int Bits, bool HasLeast>
bool decode_small(const std::byte* from, float* to) {
    float scale, least = 0;
    if (!read_half(from, scale)) return false;
    from += 2;
    if constexpr (HasLeast) {
        if (!read_half(from, least)) return false;
        from += 2;
    }
    std::uint32_t fifth = 0;
    if constexpr (Bits == 5) {
        fifth = encoder::load<std::uint32_t>(from);
        from += 4;
    }
    constexpr int zero = HasLeast ? 0 : 1 << (Bits - 1);
    const auto set = [&](std::size_t i, unsigned low) {
        const auto number = static_cast<int>(low | (fifth >> i & 1) << 4);
        to[i] = static_cast<float>(number - zero) * scale + least;
    };
    for (std::size_t i = 0; i < block / 2; ++i) {
        set(i, bits_of(from[i]) & 15);
        set(i + block / 2, bits_of(from[i]) >> 4);
    }
    return true;
}

/// 16 sums of a scale and less an offset, both of 4 bits.
bool decode_q2_k(const std::byte* from, float* to) {
    const std::byte *const scales = from, *const numbers = from + large / 16;
    const std::byte* const halves = numbers + large / 4;
    float scale, least;
    if (!read_half(halves, scale) || !read_half(halves + 2, least)) return false;
    for (std::size_t i = 0; i < large; ++i) {
        const unsigned of_16 = bits_of(scales[i / 16]);
        const std::size_t byte = i / 128 * 32 + i % 32, shift = i % 128 / 32 * 2;
        to[i] = scale * static_cast<float>(of_16 & 15) *
                    static_cast<float>(bits_of(numbers[byte]) >> shift & 3) -
                least * static_cast<float>(of_16 >> 4);
    }
    return true;
}

/// 16 scales of 6 bits; third bits of numbers are apart.
bool decode_q3_k(const std::byte* from, float* to) {
    const std::byte *const third = from, *const numbers = third + large / 8;
    const std::byte* const scales = numbers + large / 4;
    float scale;
    if (!read_half(scales + 12, scale)) return false;
    for (std::size_t i = 0; i < large; ++i) {
        const std::size_t s = i / 16, byte = i / 128 * 32 + i % 32, shift = i % 128 / 32 * 2;
        const unsigned low = bits_of(scales[s % 8]) >> (s / 8 * 4) & 15,
                       high = bits_of(scales[8 + s % 4]) >> (s / 4 * 2) & 3,
                       top = bits_of(third[i % 32]) >> (i / 32) & 1;
        const auto of_16 = static_cast<int>(low | high << 4) - 32;
        const auto number = static_cast<int>((bits_of(numbers[byte]) >> shift & 3) | top << 2) - 4;
        to[i] = scale * static_cast<float>(of_16) * static_cast<float>(number);
    }
    return true;
}

/// Q4_K and Q5_K: eight scales and offsets of 6 bits in 12 bytes; fifth bits of numbers are apart.
template <int Bits>
bool decode_q4_k(const std::byte* from, float* to) {
    const std::byte *const packed = from + 4, *const fifth = packed + 12;
    const std::byte* const numbers = fifth + (Bits == 5 ? large / 8 : 0);
    float scale, least;
    if (!read_half(from, scale) || !read_half(from + 2, least)) return false;
    for (std::size_t s = 0; s < large / block; ++s) {
        const auto at = [&](std::size_t i) { return bits_of(packed[i]); };
        const unsigned of_scale = s < 4 ? at(s) & 63 : (at(s + 4) & 15) | at(s - 4) >> 6 << 4,
                       of_least = s < 4 ? at(s + 4) & 63 : at(s + 4) >> 4 | at(s) >> 6 << 4;
        const float step = scale * static_cast<float>(of_scale),
                    less = least * static_cast<float>(of_least);
        for (std::size_t i = 0; i < block; ++i) {
            unsigned number = bits_of(numbers[s / 2 * block + i]) >> (s % 2 * 4) & 15;
            if constexpr (Bits == 5) number |= (bits_of(fifth[i]) >> s & 1) << 4;
            to[s * block + i] = step * static_cast<float>(number) - less;
        }
    }
    return true;
}

/// 16 scales of 8 bits; fifth and sixth bits of numbers are apart.
bool decode_q6_k(const std::byte* from, float* to) {
    const std::byte *const low = from, *const high = low + large / 2;
    const std::byte* const scales = high + large / 4;
    float scale;
    if (!read_half(scales + large / 16, scale)) return false;
    for (std::size_t i = 0; i < large; ++i) {
        const std::size_t part = i % 128 / 32, byte = i / 128 * 64 + i % 64;
        const unsigned number = (bits_of(low[byte]) >> (part / 2 * 4) & 15) |
                                (bits_of(high[i / 128 * 32 + i % 32]) >> (part * 2) & 3) << 4;
        to[i] = scale * static_cast<float>(encoder::load<std::int8_t>(scales + i / 16)) *
                static_cast<float>(static_cast<int>(number) - 32);
    }
    return true;
}

/// What numbers of 4 bits stand for in IQ4_NL and IQ4_XS.
constexpr std::array<float, 16> uneven = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

void set_uneven(const std::byte* numbers, float scale, float* to) {
    for (std::size_t i = 0; i < block / 2; ++i) {
        to[i] = scale * uneven[bits_of(numbers[i]) & 15];
        to[i + block / 2] = scale * uneven[bits_of(numbers[i]) >> 4];
    }
}

bool decode_iq4_nl(const std::byte* from, float* to) {
    float scale;
    if (!read_half(from, scale)) return false;
    set_uneven(from + 2, scale, to);
    return true;
}

/// Eight scales of 6 bits, the upper two of which are apart.
bool decode_iq4_xs(const std::byte* from, float* to) {
    const std::byte* const low = from + 4;
    const unsigned high = encoder::load<std::uint16_t>(from + 2);
    float scale;
    if (!read_half(from, scale)) return false;
    for (std::size_t s = 0; s < large / block; ++s) {
        const unsigned of_block = (bits_of(low[s / 2]) >> (s % 2 * 4) & 15) | (high >> (2 * s) & 3)
                                                                                  << 4;
        set_uneven(low + 4 + s * block / 2,
                   scale * static_cast<float>(static_cast<int>(of_block) - 32), to + s * block);
    }
    return true;
}

constexpr block_layout layouts[] = {
    {0, "F32", 1, 4, decode_f32},
    {1, "F16", 1, 2, decode_f16},
    {2, "Q4_0", block, 2 + block / 2, decode_small<4, false>},
    {3, "Q4_1", block, 4 + block / 2, decode_small<4, true>},
    {6, "Q5_0", block, 2 + 4 + block / 2, decode_small<5, false>},
    {7, "Q5_1", block, 4 + 4 + block / 2, decode_small<5, true>},
    {8, "Q8_0", block, 2 + block, decode_q8_0},
    {10, "Q2_K", large, large / 16 + large / 4 + 4, decode_q2_k},
    {11, "Q3_K", large, large / 8 + large / 4 + 12 + 2, decode_q3_k},
    {12, "Q4_K", large, 4 + 12 + large / 2, decode_q4_k<4>},
    {13, "Q5_K", large, 4 + 12 + large / 8 + large / 2, decode_q4_k<5>},
    {14, "Q6_K", large, large / 2 + large / 4 + large / 16 + 2, decode_q6_k},
    {20, "IQ4_NL", block, 2 + block / 2, decode_iq4_nl},
    {23, "IQ4_XS", large, 2 + 2 + 4 + large / 2, decode_iq4_xs},
    {30, "BF16", 1, 2, decode_bf16},
};

} // namespace

const block_layout* find_layout(std::uint32_t type) {
    const auto* const found =
        std::find_if(std::begin(layouts), std::end(layouts),
                     [type](const block_layout& l) { return l.type == type; });
    return found == std::end(layouts) ? nullptr : found;
}

std::string known_layouts() {
    std::string known;
    for (const block_layout& of : layouts)
        known += (known.empty() ? "" : ", ") + std::string(of.name) + " (" +
                 std::to_string(of.type) + ")";
    return known;
}

} // namespace language
