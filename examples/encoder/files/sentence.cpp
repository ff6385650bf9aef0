#include "sentence.hpp"

#include "characters.hpp"

#include <cstddef>

namespace encoder {
namespace {

bool ends_lines(utf8proc_int32_t character) {
    const utf8proc_category_t kind = utf8proc_category(character);
    return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_ZL ||
           kind == UTF8PROC_CATEGORY_ZP;
}

/// The first place from `at` on where a character begins.
std::size_t character_from(std::string_view text, std::size_t at) {
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) ++at;
    return at;
}

} // namespace

std::string on_one_line(std::string_view text) {
    constexpr std::size_t most = 1000, begin = 700, end = 250;
    if (text.size() > most)
        return on_one_line(std::string(text.substr(0, character_from(text, begin))) + " ... " +
                           std::string(text.substr(character_from(text, text.size() - end))));
    constexpr char digits[] = "0123456789abcdef";
    std::string line;
    for_characters(text, [&](std::string_view bytes, utf8proc_int32_t character) {
        if (character >= 0 && !ends_lines(character))
            line += bytes;
        else
            for (const char c : bytes) {
                const auto byte = static_cast<unsigned char>(c);
                (line += "\\x") += {digits[byte >> 4], digits[byte & 15]};
            }
    });
    return line;
}

} // namespace encoder
