// Whether bytes are still the same ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <string>
#include <string_view>

namespace encoder {

/// FNV-1a, of bytes one after another, in pieces of any size.
struct fingerprint {
    std::uint64_t value = 14695981039346656037u;

    void add(std::string_view bytes) {
        for (const char byte : bytes)
            value = (value ^ static_cast<unsigned char>(byte)) * 1099511628211u;
    }
    /// The next `count` bytes of `in`, whose state says afterwards whether they were there.
    void add(std::istream& in, std::uintmax_t count) {
        constexpr std::uintmax_t most = 1 << 16; // at once, so that no file need fit in memory
        for (std::string piece; count > 0 && in; count -= piece.size()) {
            piece.resize(static_cast<std::size_t>(std::min(count, most)));
            if (in.read(piece.data(), static_cast<std::streamsize>(piece.size()))) add(piece);
        }
    }
    /// As they are in memory.
    template <class Number>
    void add(const Number* numbers, std::size_t count) {
        add({reinterpret_cast<const char*>(numbers), count * sizeof *numbers});
    }
};

} // namespace encoder
