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

/// Without control characters and bytes that are not UTF-8.
std::string escaped(std::string_view text) {
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

/// The first place from `at` on where a character of an escaped line begins, or an escape: neither has
/// more than 4 bytes.
std::size_t next_character(const std::string& line, std::size_t at) {
    const std::size_t escape = line.rfind("\\x", at - 1);
    if (escape != line.npos && at - escape < 4) at = escape + 4;
    while ((static_cast<unsigned char>(line[at]) & 0xc0) == 0x80) ++at;
    return at;
}

} // namespace

std::string on_one_line(std::string_view text) {
    constexpr std::size_t most = 1000, begin = 700, end = 250;
    // No more of a long text is needed: escaped, it is not shorter.
    std::string line = text.size() <= 2 * most ? escaped(text)
                                               : escaped(text.substr(0, most)) +
                                                     escaped(text.substr(text.size() - most));
    if (line.size() > most)
        line = line.substr(0, next_character(line, begin)) + " ... " +
               line.substr(next_character(line, line.size() - end));
    return line;
}

} // namespace encoder
