#include "normalize.hpp"

#include "pattern.hpp"
#include "unicode.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace encoder::detail {
namespace {

struct bert_normalizer {
    bool clean, words_of_cjk, strip_accents, lower_case;

    void operator()(std::string& text) const {
        std::u32string cleaned;
        cleaned.reserve(text.size());
        for (std::size_t at = 0; at < text.size();) {
            char32_t c = next_character(text, at);
            if (clean && is_bert_space(c)) c = U' ';
            if (words_of_cjk && is_cjk(c))
                cleaned.append({U' ', c, U' '});
            else if (!clean || !is_dropped(c))
                cleaned += c;
        }
        if (strip_accents) {
            cleaned = decompose(cleaned);
            cleaned.erase(std::remove_if(cleaned.begin(), cleaned.end(), is_nonspacing_mark),
                          cleaned.end());
        }
        if (lower_case) {
            std::u32string lower;
            lower.reserve(cleaned.size());
            for (const char32_t c : cleaned) append_lower(c, lower);
            cleaned = std::move(lower);
        }
        text = encode(cleaned);
    }

    /// Other whitespace of ASCII is a control character here.
    static bool is_bert_space(char32_t c) {
        return c == U'\t' || c == U'\n' || c == U'\r' || (is_space(c) && !is_control(c));
    }
    static bool is_dropped(char32_t c) { return c == 0xfffd || is_control(c); }
};

/// Calls change(character, text to append to) for each character.
template <class Change>
normalizer each_character(const Change& change) {
    return traced([change](std::string& text) {
        std::u32string changed;
        changed.reserve(text.size());
        for (std::size_t at = 0; at < text.size();) change(next_character(text, at), changed);
        text = encode(changed);
    });
}

void append_nmt(char32_t c, std::u32string& text) {
    const auto between = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
    if (between(1, 8) || c == 0xb || between(0xe, 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f)
        return;
    const bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
                       between(0x200b, 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xfeff || c == 0xfffd;
    text += space ? U' ' : c;
}

normalizer make_strip(bool left, bool right) {
    return [=](std::string& text, origins& from) {
        const std::size_t begin = left ? without_spaces_after(text, 0) : 0;
        const std::size_t end =
            right ? without_spaces_before(text, text.size(), begin) : text.size();
        text = text.substr(begin, end - begin);
        from = from.slice(begin, end);
    };
}

normalizer make_replace(const settings& given) {
    const pattern what(given.file(), read_expression(given.object("pattern")));
    const std::string with = given.text("content", "");
    constexpr std::size_t longest = 1 << 10; // so that a text grows with bounds
    if (with.size() > longest)
        fail(given.file(), "replaces something by ", with.size(), " bytes, more than ", longest);
    return [=](std::string& text, origins& from) {
        std::string replaced;
        origins of_replaced;
        for (const span& s : what.spans(text))
            if (s.is_match) {
                replaced += with;
                // Of whitespace the last: other steps may have dropped something before it.
                const bool space = without_spaces_before(text, s.end, s.begin) == s.begin;
                const std::size_t begin = space ? previous_character(text, s.end) : s.begin;
                of_replaced.add(with.size(), from, begin, s.end);
                check_growth(replaced.size());
            } else {
                replaced.append(text, s.begin, s.end - s.begin);
                of_replaced.append(from, s.begin, s.end);
            }
        text = std::move(replaced);
        from = std::move(of_replaced);
    };
}

normalizer make_form(form f) {
    return traced([f](std::string& text) { text = normal_form(text, f); });
}

normalizer make_sequence(const settings& given) {
    std::vector<normalizer> all;
    for (const settings& one : given.objects("normalizers")) all.push_back(make_normalizer(one));
    return [all](std::string& text, origins& from) {
        for (const normalizer& one : all) {
            one(text, from);
            check_growth(text.size());
        }
    };
}

} // namespace

void check_growth(std::size_t bytes) {
    constexpr std::size_t most = 1 << 24;
    if (bytes > most)
        throw std::invalid_argument("the tokenizer makes more than " + std::to_string(most) +
                                    " bytes of a text");
}

normalizer traced(std::function<void(std::string&)> change) {
    return [change = std::move(change)](std::string& text, origins& from) {
        change_traced(change, text, from);
    };
}

std::string visible_bytes(const std::string& text) {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        char32_t hidden = 0x100;
        for (char32_t b = 0; b < 0x100; ++b) {
            const bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b != 0xad);
            append(visible ? b : hidden++, all.emplace_back());
        }
        return all;
    }();
    std::string visible;
    visible.reserve(text.size());
    for (const char c : text) visible += names[static_cast<unsigned char>(c)];
    return visible;
}

std::string read_expression(const settings& given) {
    const std::string expression = given.text("Regex", ""), plain = given.text("String", "");
    if (!expression.empty()) return expression;
    if (plain.empty()) fail(given.file(), "has an empty pattern");
    std::string escaped;
    for (const char c : plain) {
        const bool ascii = static_cast<unsigned char>(c) < 0x80;
        if (ascii && is_punctuation(static_cast<char32_t>(c))) escaped += '\\';
        escaped += c;
    }
    return escaped;
}

normalizer make_normalizer(const settings& given) {
    const std::string type = given.text("type", "");
    if (type == "BertNormalizer") {
        const bool lower_case = given.flag("lowercase", true);
        return traced(bert_normalizer{given.flag("clean_text", true),
                                      given.flag("handle_chinese_chars", true),
                                      given.flag("strip_accents", lower_case), lower_case});
    }
    if (type == "Sequence") return make_sequence(given);
    if (type == "Lowercase") return each_character(append_lower);
    if (type == "NFC") return make_form(form::nfc);
    if (type == "NFD") return make_form(form::nfd);
    if (type == "NFKC") return make_form(form::nfkc);
    if (type == "NFKD") return make_form(form::nfkd);
    if (type == "Nmt") return each_character(append_nmt);
    if (type == "StripAccents")
        return each_character([](char32_t c, std::u32string& text) {
            if (!is_mark(c)) text += c;
        });
    if (type == "Strip")
        return make_strip(given.flag("strip_left", true), given.flag("strip_right", true));
    if (type == "Replace") return make_replace(given);
    if (type == "Prepend") {
        const std::string before = given.text("prepend", "");
        return [before](std::string& text, origins& from) {
            if (text.empty()) return;
            text.insert(0, before);
            from.insert_front(before.size());
        };
    }
    if (type == "Precompiled")
        return make_charsmap(given.file(), given.text("precompiled_charsmap", ""));
    if (type == "ByteLevel") return traced([](std::string& text) { text = visible_bytes(text); });
    fail(given.file(), "has the normalizer '", type,
         "', not BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, StripAccents, Strip, Replace, "
         "Prepend, Nmt, Precompiled, ByteLevel or Sequence");
}

} // namespace encoder::detail
