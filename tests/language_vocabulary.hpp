// A small vocabulary of bytes, and a few pairs of them that are merged.
#pragma once

#include "language_model/tokenizer.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vocabularies {

inline std::string utf8(char32_t c) {
    const auto byte = [](char32_t bits) { return static_cast<char>(bits); };
    if (c < 0x80) return {byte(c)};
    const auto next = [&](int shift) { return byte(0x80 | (c >> shift & 0x3f)); };
    if (c < 0x800) return {byte(0xc0 | c >> 6), next(0)};
    if (c < 0x10000) return {byte(0xe0 | c >> 12), next(6), next(0)};
    return {byte(0xf0 | c >> 18), next(12), next(6), next(0)};
}

/// GPT-2's letter for a byte: itself where it can be seen, else one of those from U+0100 on.
inline std::string letter(unsigned byte) {
    const auto visible = [](unsigned b) {
        return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    };
    if (visible(byte)) return utf8(byte);
    char32_t hidden = 0x100;
    for (unsigned b = 0; b < byte; ++b)
        if (!visible(b)) ++hidden;
    return utf8(hidden);
}

inline std::string letters(const std::string& bytes) {
    std::string all;
    for (const char c : bytes) all += letter(static_cast<unsigned char>(c));
    return all;
}

constexpr std::int32_t end_of_text = 0, user = 1, first_byte = 2, first_merged = 258;

/// <|end|>, a user-defined token <u>, the 256 bytes in order, and what these pairs of bytes, the
/// most urgent first, become.
inline language::vocabulary small(const std::vector<std::pair<std::string, std::string>>& merges = {
                                      {" ", "t"},
                                      {"h", "e"},
                                      {" t", "he"},
                                      {"1", "2"},
                                      {"t", "h"},
                                      {" ", " "},
                                      {"\xc3", "\xa9"},
                                      {"th", "e"},
                                      {"\n", "\n"},
                                      {"'", "s"},
                                      {"e", "n"},
                                      {"n", "d"}}) {
    language::vocabulary v;
    v.file = "small.gguf";
    v.pre = "smollm";
    v.tokens = {"<|end|>", "<u>"};
    v.types = {3, 4};
    for (unsigned b = 0; b < 256; ++b) v.tokens.push_back(letter(b));
    for (const auto& [left, right] : merges) {
        v.merges.push_back(letters(left) + ' ' + letters(right));
        // "the" is made in two ways.
        const std::string made = letters(left + right);
        if (std::find(v.tokens.begin(), v.tokens.end(), made) == v.tokens.end())
            v.tokens.push_back(made);
    }
    v.types.resize(v.tokens.size(), 1);
    return v;
}

} // namespace vocabularies
