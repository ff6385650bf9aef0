#include "scored_pairs.hpp"

#include "encoder/text/unicode.hpp"

#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>

namespace language {
namespace {

/// A part of the text, in a list; empty where it has become its left neighbour's.
struct symbol {
    std::int32_t begin, end, previous, next;
};

/// What symbol `left` and the next one, which ends at `end`, may become.
struct candidate {
    double score;
    std::int32_t left, end;
    /// Of the queue's order.
    bool operator<(const candidate& other) const {
        return std::tie(score, other.left) < std::tie(other.score, left);
    }
};

} // namespace

scored_pairs::scored_pairs(std::vector<token> tokens, const std::array<std::int32_t, 256>& bytes)
    : tokens_(std::move(tokens)), bytes_(bytes) {
    for (const token& t : tokens_) {
        by_text_.emplace(t.text, &t);
        longest_ = std::max(longest_, t.text.size());
    }
}

const scored_pairs::token* scored_pairs::find(std::string_view text) const {
    if (text.size() > longest_) return nullptr; // not hashed: a text's symbols may be long
    const auto found = by_text_.find(text);
    return found == by_text_.end() ? nullptr : found->second;
}

void scored_pairs::append(std::string_view text, std::vector<std::int32_t>& to) const {
    std::vector<symbol> symbols;
    for (std::size_t from = 0, behind = 0; from < text.size(); from = behind) {
        encoder::detail::next_character(text, behind);
        const auto here = static_cast<std::int32_t>(symbols.size());
        symbols.push_back({static_cast<std::int32_t>(from), static_cast<std::int32_t>(behind),
                           here - 1, behind < text.size() ? here + 1 : -1});
    }
    const auto at = [&](std::int32_t i) -> symbol& { return symbols[static_cast<std::size_t>(i)]; };
    const auto part = [&](std::int32_t begin, std::int32_t end) {
        return text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    };
    std::priority_queue<candidate> open;
    const auto offer = [&](std::int32_t left) {
        if (left < 0 || at(left).next < 0) return;
        const std::int32_t end = at(at(left).next).end;
        if (const token* made = find(part(at(left).begin, end)))
            open.push({made->score, left, end});
    };
    for (std::size_t i = 0; i < symbols.size(); ++i) offer(static_cast<std::int32_t>(i));
    while (!open.empty()) {
        const candidate c = open.top();
        open.pop();
        symbol& left = at(c.left);
        if (left.begin == left.end || left.next < 0) continue;
        symbol& right = at(left.next);
        if (right.end != c.end) continue; // others by now
        left.end = right.end;
        right.begin = right.end;
        left.next = right.next;
        if (left.next >= 0) at(left.next).previous = c.left;
        offer(left.previous);
        offer(c.left);
    }
    for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = at(i).next) {
        const std::string_view made = part(at(i).begin, at(i).end);
        if (const token* known = find(made))
            to.push_back(known->id);
        else
            for (const char c : made) to.push_back(bytes_[static_cast<unsigned char>(c)]);
    }
}

} // namespace language
