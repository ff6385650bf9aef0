#include "added_tokens.hpp"

#include "unicode.hpp"

#include <algorithm>
#include <utility>

namespace encoder::detail {
namespace {

bool is_after_word(std::string_view text, std::size_t at) {
    if (at == 0) return false;
    std::size_t before = previous_character(text, at);
    return is_word(next_character(text, before));
}

bool is_before_word(std::string_view text, std::size_t at) {
    return at < text.size() && is_word(next_character(text, at));
}

} // namespace

added_tokens::added_tokens(std::vector<added_token> all) : all_(std::move(all)) {
    std::vector<prefixes::entry> contents;
    for (std::size_t i = 0; i < all_.size(); ++i)
        if (!all_[i].content.empty())
            contents.emplace_back(all_[i].content, static_cast<std::int32_t>(i));
    contents_ = prefixes(std::move(contents));
}

const added_token* added_tokens::longest_at(std::string_view text) const {
    const added_token* found = nullptr;
    contents_.for_each(
        text, [&](std::size_t, std::int32_t i) { found = &all_[static_cast<std::size_t>(i)]; });
    return found;
}

std::vector<added_tokens::segment> added_tokens::find(std::string_view text) const {
    std::vector<segment> all;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size() && !contents_.empty();) {
        const added_token* const token = longest_at(text.substr(at));
        if (token == nullptr) {
            ++at;
            continue;
        }
        std::size_t begin = at, end = at + token->content.size();
        at = end;
        if (token->single_word && (is_after_word(text, begin) || is_before_word(text, end)))
            continue;
        if (token->lstrip) begin = std::max(done, without_spaces_before(text, begin, done));
        if (token->rstrip) end = without_spaces_after(text, end);
        if (done < begin) all.push_back({done, begin, none});
        if (begin < end) all.push_back({begin, end, token->id});
        done = end;
    }
    if (done < text.size()) all.push_back({done, text.size(), none});
    return all;
}

} // namespace encoder::detail
