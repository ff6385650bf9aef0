#include "pattern.hpp"

#include "encoder/files/file.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <new>
#include <stdexcept>
#include <utility>

namespace encoder::detail {
namespace {

constexpr std::uint32_t most_steps = 100000, most_kibibytes = 20000;
constexpr std::size_t longest_expression = 1 << 14;

template <class T>
std::shared_ptr<T> owned(T* made, void (*free)(T*)) {
    if (made == nullptr) throw std::bad_alloc();
    return std::shared_ptr<T>(made, free);
}

std::shared_ptr<pcre2_code> compile(const std::string& expression, int& error, PCRE2_SIZE& where) {
    return {pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                          &where, nullptr),
            &pcre2_code_free};
}

/// What follows p: {Han}, which is also what is often beside a script to PCRE2, is {sc:Han}.
std::string translate_property(std::string braced) {
    const std::size_t name = braced.compare(0, 2, "{^") == 0 ? 2 : 1;
    int error = 0;
    PCRE2_SIZE where = 0;
    if (compile("\\p{sc:" + braced.substr(name), error, where)) braced.insert(name, "sc:");
    return braced;
}

/// Oniguruma's, as parts of a class; a \w in none has some numbers more.
constexpr const char *spaces = "\\p{Z}\\t-\\r\\x{85}",
                     *words = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}",
                     *more_words = "\\xb2\\xb3\\xb9\\xbc-\\xbe", *hex_digits = "0-9a-fA-F";
/// The names of its brackets of which PCRE2's are others.
constexpr std::pair<std::string_view, const char*> brackets[] = {
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"blank", "\\p{Zs}\\t"},
    {"lower", "\\p{Lowercase}"},
    {"punct", "\\p{P}\\p{S}"},
    {"space", spaces},
    {"upper", "\\p{Uppercase}"},
    {"word", words}};

/// The same in PCRE2. Nothing for what it has no word for: classes in classes, their intersections,
/// [:^alpha:], (?m).
std::string translate(const std::string& expression) {
    std::string made;
    bool in_class = false;
    for (std::size_t i = 0; i < expression.size(); ++i) {
        const char c = expression[i], next = i + 1 < expression.size() ? expression[i + 1] : '\0';
        if (c == '\\') {
            const char kind = static_cast<char>(next | 0x20);
            const std::string list = kind == 's'   ? spaces
                                     : kind == 'h' ? hex_digits
                                     : in_class    ? words
                                                   : std::string(words) + more_words;
            if (kind == 'p' && i + 2 < expression.size() && expression[i + 2] == '{') {
                const std::size_t end = std::min(expression.find('}', i), expression.size() - 1);
                made += '\\' + (next + translate_property(expression.substr(i + 2, end - i - 1)));
                i = end;
                continue;
            }
            if (kind == 'b' && !in_class) {
                const char *here = next == 'b' ? "!" : "=", *other = next == 'b' ? "=" : "!";
                made += "(?:(?<=[" + list + "])(?" + here + '[' + list + "])|(?<![" + list +
                        "])(?" + other + '[' + list + "]))";
            } else if (kind != 's' && kind != 'w' && kind != 'h') {
                made.append(expression, i, 2);
            } else if (in_class && next != kind) {
                return "";
            } else {
                made += in_class ? list : (next == kind ? "[" : "[^") + list + ']';
            }
            ++i;
            continue;
        }
        if (in_class && ((c == '[' && next != ':') || (c == '&' && next == '&'))) return "";
        if (in_class && c == '[') { // [:alpha:]
            const std::size_t end = expression.find(":]", i);
            const std::string name = expression.substr(i + 2, end - i - 2);
            if (end == expression.npos || name[0] == '^') return "";
            const auto* const found = std::find_if(std::begin(brackets), std::end(brackets),
                                                   [&](const auto& b) { return b.first == name; });
            made += found == std::end(brackets) ? "[:" + name + ":]" : found->second;
            i = end + 1;
            continue;
        }
        if (!in_class && c == '(' && next == '?') {
            const std::size_t end = expression.find_first_not_of("imsx-", i + 2);
            if (expression.substr(i, end - i).find('m') != expression.npos) return "";
        }
        made += c;
        if (!in_class && c == '[') {
            in_class = true;
            for (const char first : {'^', ']'}) // these are in the class
                if (i + 1 < expression.size() && expression[i + 1] == first)
                    made += expression[++i];
        } else if (in_class && c == ']') {
            in_class = false;
        }
    }
    return made;
}

} // namespace

pattern::pattern(const std::filesystem::path& file, const std::string& expression)
    : file_(file), expression_(expression) {
    if (expression.size() > longest_expression)
        fail(file, "has a regular expression of ", expression.size(), " bytes, more than ",
             longest_expression);
    const std::string ours = translate(expression);
    if (ours.empty() && !expression.empty())
        fail(file, "has the regular expression '", expression,
             "' with classes in classes or an option m, which is not possible here");
    int error = 0;
    PCRE2_SIZE where = 0;
    const std::shared_ptr<pcre2_code> made = compile(ours, error, where);
    if (!made) {
        PCRE2_UCHAR message[128] = {};
        pcre2_get_error_message(error, message, sizeof message);
        fail(file, "has the regular expression '", expression, "', which is not understood (",
             reinterpret_cast<const char*>(message), ", at byte ", where, ')');
    }
    code_ = made;
}

std::vector<span> pattern::spans(std::string_view text) const {
    const auto* const code = static_cast<const pcre2_code*>(code_.get());
    const auto limits = owned(pcre2_match_context_create(nullptr), &pcre2_match_context_free);
    pcre2_set_match_limit(limits.get(), most_steps);
    pcre2_set_heap_limit(limits.get(), most_kibibytes);
    const auto found =
        owned(pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);

    std::vector<span> all;
    std::size_t done = 0;
    // The first match checks that the text is UTF-8, once for all.
    std::uint32_t how = 0;
    for (std::size_t at = 0; at <= text.size(); how = PCRE2_NO_UTF_CHECK) {
        const int status = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                       at, how, found.get(), limits.get());
        if (status == PCRE2_ERROR_NOMATCH) break;
        if (status < 0)
            throw std::invalid_argument(file_.string() + ": has the regular expression '" +
                                        expression_ + "', which takes too long for the text '" +
                                        std::string(text.substr(0, 80)) + "'...");
        const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(found.get());
        const std::size_t begin = ends[0], end = ends[1];
        if (begin < at || end < begin) break; // \K in what looks around
        if (begin > done) all.push_back({done, begin, false});
        if (end > begin) all.push_back({begin, end, true});
        done = end;
        at = end;
        if (end == begin) // of nothing: on with the next character
            do ++at;
            while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
    }
    if (done < text.size()) all.push_back({done, text.size(), false});
    return all;
}

} // namespace encoder::detail
