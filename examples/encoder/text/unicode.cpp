#include "unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <new>

namespace encoder::detail {
namespace {

utf8proc_int32_t signed_of(char32_t c) {
    return static_cast<utf8proc_int32_t>(c);
}

utf8proc_category_t category(char32_t c) {
    return utf8proc_category(signed_of(c));
}

/// The length of the character at this byte, or less than 1.
utf8proc_ssize_t read(std::string_view text, std::size_t at, utf8proc_int32_t& c) {
    const auto* const bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at;
    return utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - at), &c);
}

int combining_class(char32_t c) {
    return c < 0x80 ? 0 : utf8proc_get_property(signed_of(c))->combining_class;
}

} // namespace

std::size_t find_invalid(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        if (static_cast<unsigned char>(text[at]) < 0x80) {
            ++at;
            continue;
        }
        utf8proc_int32_t c;
        const auto length = read(text, at, c);
        if (length < 1) return at;
        at += static_cast<std::size_t>(length);
    }
    return text.npos;
}

char32_t next_beyond_ascii(std::string_view text, std::size_t& at) {
    utf8proc_int32_t c;
    const auto length = read(text, at, c);
    at += length < 1 ? 1 : static_cast<std::size_t>(length);
    return length < 1 ? U'\xfffd' : static_cast<char32_t>(c);
}

std::u32string decode(std::string_view text) {
    std::u32string decoded;
    decoded.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) decoded += next_character(text, at);
    return decoded;
}

void append_beyond_ascii(char32_t c, std::string& text) {
    utf8proc_uint8_t bytes[4];
    text.append(reinterpret_cast<const char*>(bytes),
                static_cast<std::size_t>(utf8proc_encode_char(signed_of(c), bytes)));
}

std::string encode(const std::u32string& text) {
    std::string encoded;
    encoded.reserve(text.size());
    for (const char32_t c : text) append(c, encoded);
    return encoded;
}

std::size_t previous_character(std::string_view text, std::size_t at) {
    do --at;
    while (at > 0 && !begins_character(text, at));
    return at;
}

bool is_space(char32_t c) {
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    const auto of = category(c);
    return c == 0x85 || of == UTF8PROC_CATEGORY_ZS || of == UTF8PROC_CATEGORY_ZL ||
           of == UTF8PROC_CATEGORY_ZP;
}

std::size_t without_spaces_before(std::string_view text, std::size_t at, std::size_t least) {
    while (at > least) {
        const std::size_t from = previous_character(text, at);
        std::size_t behind = from;
        if (from < least || !is_space(next_character(text, behind))) break;
        at = from;
    }
    return at;
}

std::size_t without_spaces_after(std::string_view text, std::size_t at) {
    for (std::size_t next = at; at < text.size(); at = next)
        if (!is_space(next_character(text, next))) break;
    return at;
}

bool is_punctuation(char32_t c) {
    if (c < 0x80)
        return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') &&
               !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    const auto of = category(c);
    return of >= UTF8PROC_CATEGORY_PC && of <= UTF8PROC_CATEGORY_PO;
}

bool is_word(char32_t c) {
    const auto of = category(c);
    const bool circled = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                         (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    return (of >= UTF8PROC_CATEGORY_LU && of <= UTF8PROC_CATEGORY_NL) ||
           of == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d || circled;
}

bool is_number(char32_t c) {
    const auto of = category(c);
    return of >= UTF8PROC_CATEGORY_ND && of <= UTF8PROC_CATEGORY_NO;
}

bool is_control(char32_t c) {
    if (c < 0x80) return c < ' ' || c == 0x7f;
    const auto of = category(c);
    return of == UTF8PROC_CATEGORY_CC || of == UTF8PROC_CATEGORY_CF || of == UTF8PROC_CATEGORY_CO;
}

bool is_mark(char32_t c) {
    const auto of = category(c);
    return of >= UTF8PROC_CATEGORY_MN && of <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) {
    return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_MN;
}

bool is_cjk(char32_t c) {
    static constexpr struct {
        char32_t first, last;
    } blocks[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                  {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    return c >= blocks[0].first &&
           std::any_of(std::begin(blocks), std::end(blocks),
                       [c](const auto& b) { return c >= b.first && c <= b.last; });
}

void append_lower(char32_t c, std::u32string& text) {
    if (c < 0x80)
        text += c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    else if (c == 0x130) // the only one whose lower case is two
        text += U"i\x0307";
    else
        text += static_cast<char32_t>(utf8proc_tolower(signed_of(c)));
}

std::u32string lower(const std::u32string& text) {
    const auto is_cased = [](char32_t c) {
        const auto of = category(c);
        return of == UTF8PROC_CATEGORY_LU || of == UTF8PROC_CATEGORY_LL ||
               of == UTF8PROC_CATEGORY_LT;
    };
    const auto is_ignored = [](char32_t c) {
        const auto of = category(c);
        return of == UTF8PROC_CATEGORY_MN || of == UTF8PROC_CATEGORY_ME ||
               of == UTF8PROC_CATEGORY_CF || of == UTF8PROC_CATEGORY_LM ||
               of == UTF8PROC_CATEGORY_SK || c == U'\'' || c == U'.' || c == U':' || c == 0xb7 ||
               c == 0x2018 || c == 0x2019;
    };
    const auto reaches_cased = [&](auto from, auto to) {
        from = std::find_if_not(from, to, is_ignored);
        return from != to && is_cased(*from);
    };
    std::u32string lowered;
    lowered.reserve(text.size());
    for (auto at = text.begin(); at != text.end(); ++at)
        if (*at == 0x3a3 && reaches_cased(std::make_reverse_iterator(at), text.rend()) &&
            !reaches_cased(at + 1, text.end()))
            lowered += char32_t{0x3c2};
        else
            append_lower(*at, lowered);
    return lowered;
}

std::u32string decompose(const std::u32string& text, bool compatible) {
    const auto how =
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
    std::u32string decomposed;
    decomposed.reserve(text.size());
    for (const char32_t c : text) {
        if (c < 0x80) {
            decomposed += c;
            continue;
        }
        utf8proc_int32_t parts[32]; // no character has more than 18
        int boundary = 0;
        const auto count =
            utf8proc_decompose_char(signed_of(c), parts, std::size(parts), how, &boundary);
        decomposed.insert(decomposed.end(), parts, parts + count);
    }
    const auto is_starter = [](char32_t c) { return combining_class(c) == 0; };
    for (auto from = decomposed.begin(); from != decomposed.end();) {
        from = std::find_if_not(from, decomposed.end(), is_starter);
        const auto to = std::find_if(from, decomposed.end(), is_starter);
        std::stable_sort(from, to, [](char32_t a, char32_t b) {
            return combining_class(a) < combining_class(b);
        });
        from = to;
    }
    return decomposed;
}

std::string normal_form(const std::string& text, form f) {
    if (std::all_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x80; }))
        return text; // ASCII is in every form
    const bool composed = f == form::nfc || f == form::nfkc;
    const bool compatible = f == form::nfkc || f == form::nfkd;
    const auto how = static_cast<utf8proc_option_t>(
        UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
        (compatible ? UTF8PROC_COMPAT : 0));
    // In order already, since utf8proc moves each mark by one place after another.
    const std::string ordered = encode(decompose(decode(text), compatible));
    utf8proc_uint8_t* made = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(ordered.data()),
                                   static_cast<utf8proc_ssize_t>(ordered.size()), &made, how);
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
    if (size < 0) throw std::bad_alloc(); // its texts are valid
    return {reinterpret_cast<const char*>(made), static_cast<std::size_t>(size)};
}

bool is_grapheme_break(char32_t before, char32_t after, int& state) {
    return utf8proc_grapheme_break_stateful(signed_of(before), signed_of(after), &state);
}

} // namespace encoder::detail
