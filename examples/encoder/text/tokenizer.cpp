#include "tokenizer.hpp"

#include "encoder/files/file.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace encoder {
namespace {

using code_point = utf8proc_int32_t;

constexpr std::size_t longest_word = 100; // characters; longer ones are [UNK]

std::vector<code_point> decode(std::string_view text, std::size_t from, std::size_t to) {
    std::vector<code_point> decoded;
    decoded.reserve(to - from);
    for (std::size_t at = from; at < to;) {
        const auto* const bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at;
        code_point c;
        const auto length = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(to - at), &c);
        if (length < 1)
            throw std::invalid_argument("text is not valid UTF-8 at byte " + std::to_string(at));
        decoded.push_back(c);
        at += static_cast<std::size_t>(length);
    }
    return decoded;
}

void append(code_point c, std::string& text) {
    utf8proc_uint8_t bytes[4];
    text.append(reinterpret_cast<const char*>(bytes),
                static_cast<std::size_t>(utf8proc_encode_char(c, bytes)));
}

bool is_space(code_point c) {
    if (c == '\t' || c == '\n' || c == '\r') return true;
    const auto category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

/// Unassigned characters are kept, as in the reference.
bool is_dropped(code_point c) {
    const auto category = utf8proc_category(c);
    return c == 0xfffd || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CO;
}

bool is_punctuation(code_point c) {
    if (c < 0x80)
        return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') &&
               !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    const auto category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/// The blocks that the reference calls Chinese; each of their characters is a word.
bool is_cjk(code_point c) {
    static constexpr struct {
        code_point first, last;
    } blocks[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                  {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    return c >= blocks[0].first &&
           std::any_of(std::begin(blocks), std::end(blocks),
                       [c](const auto& b) { return c >= b.first && c <= b.last; });
}

/// Without control characters, every whitespace a ' ', and CJK characters as words.
std::vector<code_point> clean(const std::vector<code_point>& text) {
    std::vector<code_point> cleaned;
    cleaned.reserve(text.size());
    for (const code_point c : text) {
        if (is_space(c))
            cleaned.push_back(' ');
        else if (is_cjk(c))
            cleaned.insert(cleaned.end(), {' ', c, ' '});
        else if (!is_dropped(c))
            cleaned.push_back(c);
    }
    return cleaned;
}

/// Lower case, in canonical decomposition, without nonspacing marks.
std::vector<code_point> fold(const std::vector<code_point>& text) {
    std::vector<code_point> folded;
    folded.reserve(text.size());
    for (const code_point c : text) {
        code_point parts[8]; // no character has more than 4
        int boundary = 0;
        const auto count =
            utf8proc_decompose_char(c, parts, std::size(parts), UTF8PROC_DECOMPOSE, &boundary);
        folded.insert(folded.end(), parts, parts + count);
    }
    // The few marks that stay are in canonical order, which those that go away have a part in.
    const auto combining_class = [](code_point c) {
        return utf8proc_get_property(c)->combining_class;
    };
    const auto is_starter = [&](code_point c) { return combining_class(c) == 0; };
    for (auto from = folded.begin(); from != folded.end();) {
        from = std::find_if_not(from, folded.end(), is_starter);
        const auto to = std::find_if(from, folded.end(), is_starter);
        std::stable_sort(from, to, [&](code_point a, code_point b) {
            return combining_class(a) < combining_class(b);
        });
        from = to;
    }
    const auto is_mark = [](code_point c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_MN; };
    folded.erase(std::remove_if(folded.begin(), folded.end(), is_mark), folded.end());
    std::transform(folded.begin(), folded.end(), folded.begin(), utf8proc_tolower);
    return folded;
}

} // namespace

tokenizer::tokenizer(const std::filesystem::path& vocab, bool lower_case, std::int64_t vocabulary)
    : lower_case_(lower_case) {
    std::istringstream lines(detail::read_text(vocab));
    std::int32_t count = 0;
    for (std::string token; std::getline(lines, token); ++count) {
        if (!token.empty() && token.back() == '\r') token.pop_back();
        longest_ = std::max(longest_, token.size());
        const auto [at, is_new] = ids_.emplace(token, count);
        if (!is_new)
            detail::fail(vocab, "token '", token, "' stands on line ", at->second + 1,
                         " and on line ", count + 1);
        words_.push_back(token);
    }
    if (count != vocabulary)
        detail::fail(vocab, "has ", count, " tokens, vocab_size in config.json is ", vocabulary);

    const auto required = [&](const char* token) {
        const auto found = ids_.find(token);
        if (found == ids_.end()) detail::fail(vocab, "lacks the token ", token);
        return found->second;
    };
    cls_ = required("[CLS]");
    sep_ = required("[SEP]");
    unknown_ = required("[UNK]");
    for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
        if (const auto found = ids_.find(token); found != ids_.end())
            special_.emplace_back(token, found->second);
}

std::vector<std::int32_t> tokenizer::encode(std::string_view text, std::size_t max_tokens) const {
    if (max_tokens < 2)
        throw std::invalid_argument("max_tokens is " + std::to_string(max_tokens) +
                                    ", [CLS] and [SEP] need 2");
    std::vector<std::int32_t> ids = pieces(text, max_tokens - 2);
    ids.insert(ids.begin(), cls_);
    ids.push_back(sep_);
    return ids;
}

std::vector<std::int32_t> tokenizer::encode(std::string_view first, std::string_view second,
                                            std::size_t max_tokens) const {
    if (max_tokens < 3)
        throw std::invalid_argument("max_tokens is " + std::to_string(max_tokens) +
                                    ", [CLS] and a [SEP] for each of two texts need 3");
    const std::size_t most = max_tokens - 3;
    std::vector<std::int32_t> ids = pieces(first, first.npos), more = pieces(second, second.npos);
    if (ids.size() + more.size() > most) {
        const bool first_is_longer = ids.size() > more.size(); // of equal ones the second counts as
        auto &longer = first_is_longer ? ids : more, &shorter = first_is_longer ? more : ids;
        shorter.resize(std::min(shorter.size(), most / 2));
        longer.resize(most - shorter.size());
    }
    ids.insert(ids.begin(), cls_);
    ids.push_back(sep_);
    more.push_back(sep_);
    const auto vocabulary = static_cast<std::int32_t>(ids_.size());
    for (const std::int32_t id : more) ids.push_back(id + vocabulary);
    return ids;
}

std::vector<std::int32_t> tokenizer::pieces(std::string_view text, std::size_t most) const {
    std::vector<std::int32_t> ids;
    std::size_t done = 0;
    for (std::size_t at = text.find('['); at != text.npos; at = text.find('[', at)) {
        const auto special = std::find_if(special_.begin(), special_.end(), [&](const auto& s) {
            return text.compare(at, s.first.size(), s.first) == 0;
        });
        if (special == special_.end()) {
            ++at;
            continue;
        }
        append_text(text, done, at, most, ids);
        ids.push_back(special->second);
        done = at += special->first.size();
    }
    append_text(text, done, text.size(), most, ids);
    ids.resize(std::min(ids.size(), most));
    return ids;
}

void tokenizer::append_text(std::string_view text, std::size_t from, std::size_t to,
                            std::size_t most, std::vector<std::int32_t>& ids) const {
    auto characters = clean(decode(text, from, to));
    if (lower_case_) characters = fold(characters);
    std::string word;
    const auto end_word = [&] {
        append_word(word, ids);
        word.clear();
    };
    for (const code_point c : characters) {
        if (ids.size() >= most) return;
        if (c == ' ' || is_punctuation(c)) end_word();
        if (c != ' ') append(c, word);
        if (is_punctuation(c)) end_word();
    }
    end_word();
}

void tokenizer::append_word(std::string_view word, std::vector<std::int32_t>& ids) const {
    const auto begins_character = [&](std::size_t at) {
        return at == word.size() || (static_cast<unsigned char>(word[at]) & 0xc0) != 0x80;
    };
    const std::size_t before = ids.size();
    std::size_t characters = 0;
    for (std::size_t at = 0; at < word.size(); ++at) characters += begins_character(at);
    bool is_known = characters <= longest_word;

    std::string piece;
    for (std::size_t at = 0; at < word.size() && is_known;) {
        std::size_t length = std::min(word.size() - at, longest_);
        piece.assign(at == 0 ? "" : "##").append(word.substr(at, length));
        auto found = ids_.end();
        for (; length > 0; --length, piece.pop_back())
            if (begins_character(at + length) && (found = ids_.find(piece)) != ids_.end()) break;
        is_known = found != ids_.end();
        if (is_known) ids.push_back(found->second);
        at += length;
    }
    if (!is_known) {
        ids.resize(before);
        ids.push_back(unknown_);
    }
}

} // namespace encoder
