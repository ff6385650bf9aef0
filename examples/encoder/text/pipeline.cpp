#include "pipeline.hpp"

#include "unicode.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace encoder::detail {

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

void pipeline::set_added(std::vector<added_token> all) {
    for (const added_token& token : all) {
        added_[token.content] = token.id;
        words[static_cast<std::size_t>(token.id)] = token.content;
    }
    const auto rest = std::stable_partition(all.begin(), all.end(),
                                            [](const added_token& t) { return !t.normalized; });
    std::vector<added_token> later(rest, all.end());
    all.erase(rest, all.end());
    if (normalize)
        for (added_token& token : later) normalize(token.content);
    raw = added_tokens(std::move(all));
    normalized = added_tokens(std::move(later));
}

std::int32_t pipeline::find(const std::string& word) const {
    for (const word_ids* in : {&added_, &ids})
        if (const auto found = in->find(word); found != in->end()) return found->second;
    return -1;
}

void pipeline::append(std::string_view text, std::size_t most,
                      std::vector<std::int32_t>& to) const {
    if (const std::size_t bad = find_invalid(text); bad != text.npos)
        throw std::invalid_argument("text is not valid UTF-8 at byte " + std::to_string(bad));
    std::string lowered;
    if (lowers_first) text = lowered = encode(lower(decode(text)));
    for (const added_tokens::segment& s : raw.find(text)) {
        if (to.size() >= most) break;
        if (s.id == added_tokens::none)
            append_plain(std::string(text.substr(s.begin, s.end - s.begin)), s.begin == 0, most,
                         to);
        else
            to.push_back(s.id);
    }
    to.resize(std::min(to.size(), most));
}

void pipeline::append_plain(std::string text, bool begins, std::size_t most,
                            std::vector<std::int32_t>& to) const {
    if (normalize) normalize(text);
    std::vector<piece> pieces;
    for (const added_tokens::segment& s : normalized.find(text)) {
        if (to.size() >= most) return;
        if (s.id != added_tokens::none) {
            to.push_back(s.id);
            continue;
        }
        piece whole{text.substr(s.begin, s.end - s.begin), begins && s.begin == 0};
        pieces.clear();
        if (split)
            split(std::move(whole), pieces);
        else
            pieces.push_back(std::move(whole));
        for (const piece& p : pieces) {
            if (to.size() >= most) return;
            if (!p.text.empty()) model->append(p.text, to);
        }
    }
}

} // namespace encoder::detail
