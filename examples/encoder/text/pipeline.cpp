#include "pipeline.hpp"

#include "prefixes.hpp"
#include "unicode.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace encoder::detail {
namespace {

/// Of tokens from the first-th on, places in a text become those of what it comes from.
void trace_back(const origins& from, std::size_t first, token_list& tokens) {
    if (tokens.places == nullptr) return;
    for (std::size_t i = first; i < tokens.places->size(); ++i) {
        text_range& place = (*tokens.places)[i];
        place = from.of(place.begin, place.end);
    }
}

void lower_characters(std::string& text) {
    std::u32string lowered;
    for (const char32_t c : decode(text)) append_lower(c, lowered);
    text = encode(lowered);
}

void append_added(const added_tokens::segment& s, const origins& from, token_list& to) {
    to.add(s.id, {s.begin, s.end});
    trace_back(from, to.ids.size() - 1, to);
}

/// Of nothing but whitespace, its end.
text_range without_spaces(std::string_view text, text_range all) {
    const std::size_t begin = without_spaces_after(text.substr(0, all.end), all.begin);
    return {begin, without_spaces_before(text, all.end, begin)};
}

} // namespace

void pipeline::add_word(const std::filesystem::path& file, const std::string& word,
                        std::int64_t id) {
    const auto rows = static_cast<std::int64_t>(words.size());
    if (id < 0 || id >= rows)
        fail(file, "has the token '", word, "' with the id ", id, ", vocab_size in config.json is ",
             rows, ": every token needs a row of the embeddings");
    ids[word] = static_cast<std::int32_t>(id);
    words[static_cast<std::size_t>(id)] = word;
}

void pipeline::set_templates(std::int32_t begin, std::int32_t end, bool two_between,
                             std::int32_t second_type) {
    using kind = template_part::kind;
    const std::vector<std::int32_t> between(two_between ? 2 : 1, end);
    single.parts = {{kind::tokens, {begin}, 0}, {kind::first, {}, 0}, {kind::tokens, {end}, 0}};
    pair.parts = {{kind::tokens, {begin}, 0},
                  {kind::first, {}, 0},
                  {kind::tokens, between, 0},
                  {kind::second, {}, second_type},
                  {kind::tokens, {end}, second_type}};
}

void pipeline::set_added(const std::filesystem::path& file, std::vector<added_token> all) {
    for (const added_token& token : all) {
        added_[token.content] = token.id;
        words[static_cast<std::size_t>(token.id)] = token.content;
    }
    const auto rest = std::stable_partition(all.begin(), all.end(),
                                            [](const added_token& t) { return !t.normalized; });
    std::vector<added_token> later(rest, all.end());
    all.erase(rest, all.end());
    if (normalize)
        for (added_token& token : later) {
            origins unasked;
            normalize(token.content, unasked);
            check_length(file, token.content); // again: it may have grown
        }
    raw = added_tokens(std::move(all));
    normalized = added_tokens(std::move(later));
}

std::int32_t pipeline::find(const std::string& word) const {
    for (const word_ids* in : {&added_, &ids})
        if (const auto found = in->find(word); found != in->end()) return found->second;
    return -1;
}

void pipeline::append(std::string_view text, std::size_t most, token_list to) const {
    if (const std::size_t bad = find_invalid(text); bad != text.npos)
        throw std::invalid_argument("text is not valid UTF-8 at byte " + std::to_string(bad));
    piece whole{std::string(text), true, to.places != nullptr ? origins(text) : origins()};
    if (lowers_first) {
        // Character by character but for a sigma that ends a word, which has as many bytes.
        if (to.places != nullptr) change_traced(lower_characters, whole.text, whole.from);
        whole.text = encode(lower(decode(text)));
    }
    for (const added_tokens::segment& s : raw.find(whole.text)) {
        if (to.ids.size() >= most) break;
        if (s.id == added_tokens::none)
            append_plain(part_of(whole, s.begin, s.end), most, to);
        else
            append_added(s, whole.from, to);
    }
    to.resize(std::min(to.ids.size(), most));
    if (to.places != nullptr)
        for (text_range& place : *to.places) place = without_spaces(text, place);
}

void pipeline::append_plain(piece text, std::size_t most, token_list& to) const {
    if (normalize) normalize(text.text, text.from);
    std::vector<piece> pieces;
    for (const added_tokens::segment& s : normalized.find(text.text)) {
        if (to.ids.size() >= most) return;
        if (s.id != added_tokens::none) {
            append_added(s, text.from, to);
            continue;
        }
        pieces.clear();
        if (split)
            split(part_of(text, s.begin, s.end), pieces);
        else
            pieces.push_back(part_of(text, s.begin, s.end));
        for (const piece& p : pieces) {
            const std::size_t before = to.ids.size();
            if (before >= most) return;
            if (!p.text.empty()) model->append(p.text, to);
            trace_back(p.from, before, to);
        }
    }
}

} // namespace encoder::detail
