// Characters and what they are. Texts are UTF-8; Unicode data are utf8proc's.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace encoder::detail {

/// The first byte that is not UTF-8, or npos.
std::size_t find_invalid(std::string_view text);

char32_t next_beyond_ascii(std::string_view text, std::size_t& at);
/// The character that begins at byte `at`, and moves `at` behind it. What is not UTF-8 is U+FFFD, a
/// byte each.
inline char32_t next_character(std::string_view text, std::size_t& at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte >= 0x80) return next_beyond_ascii(text, at);
    ++at;
    return byte;
}
std::u32string decode(std::string_view text);
void append_beyond_ascii(char32_t c, std::string& text);
inline void append(char32_t c, std::string& text) {
    if (c < 0x80)
        text += static_cast<char>(c);
    else
        append_beyond_ascii(c, text);
}
std::string encode(const std::u32string& text);
/// Whether a character, or the end, is at this byte.
inline bool begins_character(std::string_view text, std::size_t at) {
    return at == text.size() || (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80;
}

/// Where the character before byte `at` (> 0) begins.
std::size_t previous_character(std::string_view text, std::size_t at);

/// Unicode's White_Space.
bool is_space(char32_t c);
/// From byte `at` on backwards over whitespace, not beyond byte `least`; and forwards.
std::size_t without_spaces_before(std::string_view text, std::size_t at, std::size_t least);
std::size_t without_spaces_after(std::string_view text, std::size_t at);
/// ASCII's punctuation with its symbols, and Unicode's categories P.
bool is_punctuation(char32_t c);
/// \w of regular expressions: letters, marks, digits, connectors.
bool is_word(char32_t c);
bool is_number(char32_t c);
/// Control, format and private characters; unassigned ones are none, as in the reference.
bool is_control(char32_t c);
bool is_mark(char32_t c);
bool is_nonspacing_mark(char32_t c);
/// In the blocks that BERT calls Chinese.
bool is_cjk(char32_t c);

/// A character's lower case, without regard to its neighbours.
void append_lower(char32_t c, std::u32string& text);
/// The lower case of a text: a sigma that ends a word is another one.
std::u32string lower(const std::u32string& text);
/// Canonical decomposition, or that of compatible characters too, in canonical order.
std::u32string decompose(const std::u32string& text, bool compatible = false);

enum class form { nfc, nfd, nfkc, nfkd };
std::string normal_form(const std::string& text, form f);

/// Calls visit(begin, end) for each of the text's extended grapheme clusters.
template <class Visit>
void for_graphemes(std::string_view text, const Visit& visit);

/// Whether a cluster may end between two characters; `state` (0 at first) is that of the text.
bool is_grapheme_break(char32_t before, char32_t after, int& state);

template <class Visit>
void for_graphemes(std::string_view text, const Visit& visit) {
    std::size_t begin = 0, at = 0;
    int state = 0;
    char32_t before = 0;
    while (at < text.size()) {
        const std::size_t here = at;
        const char32_t c = next_character(text, at);
        if (here > 0 && is_grapheme_break(before, c, state)) {
            visit(begin, here);
            begin = here;
        }
        before = c;
    }
    if (begin < text.size()) visit(begin, text.size());
}

} // namespace encoder::detail
