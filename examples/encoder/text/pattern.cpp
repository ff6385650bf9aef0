#include "pattern.hpp"

#include "encoder/files/file.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <new>
#include <stdexcept>

namespace encoder::detail {
namespace {

constexpr std::uint32_t most_steps = 100000, most_kibibytes = 20000;
constexpr std::size_t longest_expression = 1 << 14;

template <class T>
std::shared_ptr<T> owned(T* made, void (*free)(T*)) {
    if (made == nullptr) throw std::bad_alloc();
    return std::shared_ptr<T>(made, free);
}

/// The same in PCRE2, whose \s, \w and \h are others. Nothing for what it has no word for: classes
/// in classes, their intersections, (?m).
std::string translate(const std::string& expression) {
    constexpr const char *spaces = "\\p{Z}\\t-\\r\\x{85}",
                         *words = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}", *digits = "0-9a-fA-F";
    std::string made;
    bool in_class = false;
    for (std::size_t i = 0; i < expression.size(); ++i) {
        const char c = expression[i], next = i + 1 < expression.size() ? expression[i + 1] : '\0';
        if (c == '\\') {
            const char kind = static_cast<char>(next | 0x20);
            const char* const list = kind == 's' ? spaces : kind == 'w' ? words : digits;
            const bool is_known = kind == 's' || kind == 'w' || kind == 'h';
            if (!is_known)
                made.append(expression, i, 2);
            else if (in_class && next != kind)
                return "";
            else
                made.append(in_class       ? ""
                            : next == kind ? "["
                                           : "[^")
                    .append(list)
                    .append(in_class ? "" : "]");
            ++i;
            continue;
        }
        if (in_class && ((c == '[' && next != ':') || (c == '&' && next == '&'))) return "";
        if (in_class && c == '[') { // [:alpha:]
            const std::size_t end = expression.find(":]", i);
            if (end == expression.npos) return "";
            made.append(expression, i, end + 2 - i);
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
    pcre2_code* const made = pcre2_compile(
        reinterpret_cast<PCRE2_SPTR>(ours.data()), ours.size(),
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &where, nullptr);
    if (made == nullptr) {
        PCRE2_UCHAR message[128] = {};
        pcre2_get_error_message(error, message, sizeof message);
        fail(file, "has the regular expression '", expression, "', which is not understood (",
             reinterpret_cast<const char*>(message), ", at byte ", where, ')');
    }
    code_ = owned(made, &pcre2_code_free);
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
