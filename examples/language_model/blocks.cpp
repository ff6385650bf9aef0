#include "blocks.hpp"

#include "encoder/files/numbers.hpp"

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
        *to = encoder::bit_cast<float>(bits);
        return encoder::is_finite(bits);
    };
    if (type == f32_tensor) return single(encoder::load<std::uint32_t>(from));
    if (type == bf16_tensor) return single(std::uint32_t{encoder::load<std::uint16_t>(from)} << 16);
    const std::uint32_t first = encoder::half_to_float(encoder::load<std::uint16_t>(from));
    if (type == f16_tensor) return single(first);

    const auto scale = encoder::bit_cast<float>(first);
    if (!encoder::is_finite(first)) return false;
    from += 2;
    if (type == q8_0_tensor) {
        for (std::size_t i = 0; i < block; ++i)
            to[i] = scale * static_cast<float>(encoder::load<std::int8_t>(from + i));
        return true;
    }
    float least = 0;
    int zero = 8;
    if (type == q4_1_tensor) {
        const std::uint32_t second = encoder::half_to_float(encoder::load<std::uint16_t>(from));
        if (!encoder::is_finite(second)) return false;
        least = encoder::bit_cast<float>(second);
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
