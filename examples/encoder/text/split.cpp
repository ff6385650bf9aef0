#include "split.hpp"

#include "normalize.hpp"
#include "pattern.hpp"
#include "unicode.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace encoder::detail {
namespace {

enum class behavior { removed, isolated, with_previous, with_next, contiguous };

behavior read_behavior(const settings& given) {
    const std::string name = given.text("behavior", "Isolated");
    if (name == "Removed") return behavior::removed;
    if (name == "Isolated") return behavior::isolated;
    if (name == "MergedWithPrevious") return behavior::with_previous;
    if (name == "MergedWithNext") return behavior::with_next;
    if (name == "Contiguous") return behavior::contiguous;
    fail(given.file(), "has the behavior '", name,
         "', not Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

/// A match joins what is beside it, unless that is a match.
template <class Iterator, class Join>
std::vector<span> merge(Iterator from, Iterator to, const Join& join) {
    std::vector<span> merged;
    bool was_match = false;
    for (; from != to; ++from) {
        if (from->is_match && !was_match && !merged.empty())
            join(merged.back(), *from);
        else
            merged.push_back(*from);
        was_match = from->is_match;
    }
    return merged;
}

std::vector<span> behave(std::vector<span> all, behavior how) {
    switch (how) {
    case behavior::isolated:
        break;
    case behavior::removed:
        all.erase(std::remove_if(all.begin(), all.end(), [](const span& s) { return s.is_match; }),
                  all.end());
        break;
    case behavior::with_previous:
        return merge(all.begin(), all.end(), [](span& a, const span& b) { a.end = b.end; });
    case behavior::with_next:
        all = merge(all.rbegin(), all.rend(), [](span& a, const span& b) { a.begin = b.begin; });
        std::reverse(all.begin(), all.end());
        break;
    case behavior::contiguous: {
        std::vector<span> joined;
        for (const span& s : all)
            if (!joined.empty() && joined.back().is_match == s.is_match)
                joined.back().end = s.end;
            else
                joined.push_back(s);
        return joined;
    }
    }
    return all;
}

void cut(piece&& from, const std::vector<span>& at, std::vector<piece>& to) {
    if (at.size() == 1 && at[0].begin == 0 && at[0].end == from.text.size())
        return to.push_back(std::move(from));
    for (const span& s : at) to.push_back(part_of(from, s.begin, s.end));
}

/// Characters that `matches`, each a match, and what is between.
template <class Matches>
std::vector<span> spans_of(const std::string& text, const Matches& matches) {
    std::vector<span> all;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        if (!matches(next_character(text, at))) continue;
        if (done < begin) all.push_back({done, begin, false});
        all.push_back({begin, at, true});
        done = at;
    }
    if (done < text.size()) all.push_back({done, text.size(), false});
    return all;
}

template <class Matches>
splitter split_at(const Matches& matches, behavior how) {
    return [=](piece&& from, std::vector<piece>& to) {
        const std::vector<span> spans = behave(spans_of(from.text, matches), how);
        cut(std::move(from), spans, to);
    };
}

splitter split_at(const pattern& what, behavior how, bool invert) {
    return [=](piece&& from, std::vector<piece>& to) {
        std::vector<span> spans = what.spans(from.text);
        if (invert)
            for (span& s : spans) s.is_match = !s.is_match;
        cut(std::move(from), behave(std::move(spans), how), to);
    };
}

/// Words between whitespace and punctuation, each character of which is one.
void split_words(piece&& from, std::vector<piece>& to) {
    std::size_t word = 0;
    const auto end_word = [&](std::size_t end) {
        if (end > word) to.push_back(part_of(from, word, end));
    };
    for (std::size_t at = 0; at < from.text.size();) {
        const std::size_t begin = at;
        const char32_t c = next_character(from.text, at);
        const bool punctuation = is_punctuation(c);
        if (!punctuation && !is_space(c)) continue;
        end_word(begin);
        word = punctuation ? begin : at;
        if (punctuation) end_word(at);
        word = at;
    }
    end_word(from.text.size());
}

/// \w+|[^\w\s]+
void split_runs(piece&& from, std::vector<piece>& to) {
    const auto kind_of = [](char32_t c) { return is_word(c) ? 'w' : is_space(c) ? ' ' : '.'; };
    const std::string& text = from.text;
    char before = ' ';
    std::size_t begin = 0;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t here = at;
        const char kind = at < text.size() ? kind_of(next_character(text, at)) : ' ';
        if (kind != before && before != ' ') to.push_back(part_of(from, begin, here));
        if (kind != before) begin = here;
        before = kind;
        if (here == text.size()) break;
    }
}

void insert_front(const std::string& what, piece& of) {
    of.text.insert(0, what);
    of.from.insert_front(what.size());
}

void mark_spaces(const std::string& mark, piece& in) {
    piece marked{"", in.begins, {}};
    for (std::size_t i = 0; i < in.text.size(); ++i) {
        const bool space = in.text[i] == ' ';
        if (space)
            marked.text += mark;
        else
            marked.text += in.text[i];
        marked.from.add(space ? mark.size() : 1, in.from, i, i + 1);
    }
    in = std::move(marked);
}

/// Each byte is a character of what can be seen.
void make_visible(piece& p) {
    std::string visible = visible_bytes(p.text);
    origins from;
    for (std::size_t i = 0, at = 0; i < p.text.size() && !p.from.empty(); ++i) {
        const std::size_t begin = at;
        next_character(visible, at);
        from.add(at - begin, p.from, i, i + 1);
    }
    p.text = std::move(visible);
    p.from = std::move(from);
}

splitter make_metaspace(const settings& given) {
    const std::string mark = given.text("replacement", "\xe2\x96\x81");
    if (decode(mark).size() != 1)
        fail(given.file(), "Metaspace has the replacement '", mark, "', not one character");
    const std::string scheme =
        given.text("prepend_scheme", given.flag("add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
        fail(given.file(), "Metaspace has the prepend_scheme '", scheme,
             "', not always, first or never");
    const bool split = given.flag("split", true);
    const char32_t character = decode(mark)[0];
    return [=](piece&& from, std::vector<piece>& to) {
        mark_spaces(mark, from);
        const bool may = scheme == "always" || (scheme == "first" && from.begins);
        if (may && from.text.compare(0, mark.size(), mark) != 0) insert_front(mark, from);
        if (!split) return to.push_back(std::move(from));
        const auto spans = behave(spans_of(from.text, [=](char32_t c) { return c == character; }),
                                  behavior::with_next);
        cut(std::move(from), spans, to);
    };
}

splitter make_byte_level(const settings& given) {
    const bool prefix = given.flag("add_prefix_space", true);
    // GPT-2's.
    const pattern words(
        given.file(),
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
    const bool split = given.flag("use_regex", true);
    return [=](piece&& from, std::vector<piece>& to) {
        if (prefix && from.text.compare(0, 1, " ") != 0) insert_front(" ", from);
        const std::size_t before = to.size();
        if (split) {
            const std::vector<span> spans = words.spans(from.text);
            cut(std::move(from), spans, to);
        } else
            to.push_back(std::move(from));
        for (std::size_t i = before; i < to.size(); ++i) make_visible(to[i]);
    };
}

splitter make_sequence(const settings& given) {
    std::vector<splitter> all;
    for (const settings& one : given.objects("pretokenizers")) all.push_back(make_splitter(one));
    return [all](piece&& from, std::vector<piece>& to) {
        std::vector<piece> pieces, next;
        pieces.push_back(std::move(from));
        for (const splitter& one : all) {
            next.clear();
            for (piece& p : pieces) one(std::move(p), next);
            pieces.swap(next);
            std::size_t bytes = 0;
            for (const piece& p : pieces) bytes += p.text.size();
            check_growth(bytes);
        }
        std::move(pieces.begin(), pieces.end(), std::back_inserter(to));
    };
}

} // namespace

piece part_of(const piece& whole, std::size_t begin, std::size_t end) {
    return {whole.text.substr(begin, end - begin), whole.begins && begin == 0,
            whole.from.slice(begin, end)};
}

splitter make_splitter(const settings& given) {
    const std::string type = given.text("type", "");
    if (type == "BertPreTokenizer") return split_words;
    if (type == "Sequence") return make_sequence(given);
    if (type == "Whitespace") return split_runs;
    if (type == "WhitespaceSplit") return split_at(is_space, behavior::removed);
    if (type == "Metaspace") return make_metaspace(given);
    if (type == "ByteLevel") return make_byte_level(given);
    if (type == "Split")
        return split_at(pattern(given.file(), read_expression(given.object("pattern"))),
                        read_behavior(given), given.flag("invert", false));
    if (type == "Punctuation") return split_at(is_punctuation, read_behavior(given));
    if (type == "Digits")
        return split_at(is_number, given.flag("individual_digits", false) ? behavior::isolated
                                                                          : behavior::contiguous);
    if (type == "CharDelimiterSplit") {
        const std::u32string delimiter = decode(given.text("delimiter", ""));
        if (delimiter.size() != 1) fail(given.file(), "CharDelimiterSplit has no delimiter");
        return split_at([c = delimiter[0]](char32_t other) { return c == other; },
                        behavior::removed);
    }
    fail(given.file(), "has the pre_tokenizer '", type,
         "', not BertPreTokenizer, Whitespace, WhitespaceSplit, Metaspace, ByteLevel, Split, "
         "Punctuation, Digits, CharDelimiterSplit or Sequence");
}

} // namespace encoder::detail
