// Whether bytes are still the same ones.
#pragma once

#include <cstdint>
#include <string_view>

namespace encoder {

/// FNV-1a, of bytes one after another, in pieces of any size.
struct fingerprint {
    std::uint64_t value = 14695981039346656037u;

    void add(std::string_view bytes) {
        for (const char byte : bytes)
            value = (value ^ static_cast<unsigned char>(byte)) * 1099511628211u;
    }
    /// As they are in memory.
    template <class Number>
    void add(const Number* numbers, std::size_t count) {
        add({reinterpret_cast<const char*>(numbers), count * sizeof *numbers});
    }
};

} // namespace encoder
