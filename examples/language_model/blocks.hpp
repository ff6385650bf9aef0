// How GGUF's tensors are stored: single numbers, or blocks that share a scale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace language {

/// Of a type that is read.
struct block_layout {
    std::uint32_t type; ///< as numbered in the file
    const char* name;
    std::size_t elements, bytes; ///< of a block
    /// Writes the values of a block. False if they are not finite.
    bool (*decode)(const std::byte* from, float* to);
};
/// Null for other types.
const block_layout* find_layout(std::uint32_t type);
/// Names and numbers, for errors.
std::string known_layouts();

} // namespace language
