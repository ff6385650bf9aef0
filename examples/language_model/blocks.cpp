#include "blocks.hpp"

#include <algorithm>
#include <iterator>

namespace language {
namespace {

// Types of tensors, as numbered in the file.
enum tensor_type : std::uint32_t {
    f32_tensor = 0,
    f16_tensor = 1,
    q4_0_tensor = 2,
    q4_1_tensor = 3,
    q8_0_tensor = 8,
    bf16_tensor = 30,
};
constexpr std::size_t block = 32; // elements that share a scale

constexpr block_layout layouts[] = {
    {f32_tensor, "F32", 1, 4},
    {f16_tensor, "F16", 1, 2},
    {q4_0_tensor, "Q4_0", block, 2 + block / 2},
    {q4_1_tensor, "Q4_1", block, 2 + 2 + block / 2},
    {q8_0_tensor, "Q8_0", block, 2 + block},
    {bf16_tensor, "BF16", 1, 2},
};

template <class To, class From>
To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    return load<To>(reinterpret_cast<const std::byte*>(&from));
}

// Finite or not is seen by the bits: with -ffast-math compilers take numbers for finite.
constexpr std::uint32_t exponent_mask = 0x7f800000;

bool is_finite(std::uint32_t float_bits) {
    return (float_bits & exponent_mask) != exponent_mask;
}

/// The bits of the float that a half is.
std::uint32_t load_half(const std::byte* from) {
    const std::uint32_t half = load<std::uint16_t>(from);
    const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) return sign | exponent_mask | (magnitude & 0x3ffu) << 13;
    if (magnitude >= 0x0400u) return sign | ((magnitude << 13) + (112u << 23));
    // Subnormal: a count of 2^-24, which is a normal float, so that flush-to-zero does not matter.
    return sign | bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
}

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

// The products are exact and far from overflow, since a half has 11 bits: that scale and offset are
// finite is enough.
bool decode_block(const block_layout& layout, const std::byte* from, float* to) {
    const std::uint32_t type = layout.type;
    const auto single = [to](std::uint32_t bits) {
        *to = bit_cast<float>(bits);
        return is_finite(bits);
    };
    if (type == f32_tensor) return single(load<std::uint32_t>(from));
    if (type == bf16_tensor) return single(std::uint32_t{load<std::uint16_t>(from)} << 16);
    const std::uint32_t first = load_half(from);
    if (type == f16_tensor) return single(first);

    const auto scale = bit_cast<float>(first);
    if (!is_finite(first)) return false;
    from += 2;
    if (type == q8_0_tensor) {
        for (std::size_t i = 0; i < block; ++i)
            to[i] = scale * static_cast<float>(load<std::int8_t>(from + i));
        return true;
    }
    float least = 0;
    int zero = 8;
    if (type == q4_1_tensor) {
        const std::uint32_t second = load_half(from);
        if (!is_finite(second)) return false;
        least = bit_cast<float>(second);
        zero = 0;
        from += 2;
    }
    for (std::size_t i = 0; i < block / 2; ++i) {
        const auto both = std::to_integer<int>(from[i]);
        to[i] = static_cast<float>((both & 15) - zero) * scale + least;
        to[i + block / 2] = static_cast<float>((both >> 4) - zero) * scale + least;
    }
    return true;
}

} // namespace language
