#include "origins.hpp"

#include "unicode.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace encoder::detail {
namespace {

/// Where words, and what is between them, end; no cluster is cut.
std::vector<std::size_t> word_ends(std::string_view text) {
    std::vector<std::size_t> ends;
    bool was_space = false;
    for_graphemes(text, [&](std::size_t begin, std::size_t) {
        std::size_t at = begin;
        const bool space = is_space(next_character(text, at));
        if (begin > 0 && space != was_space) ends.push_back(begin);
        was_space = space;
    });
    ends.push_back(text.size());
    return ends;
}

/// Of clusters, and of whitespace that begins them.
std::vector<std::size_t> cluster_ends(std::string_view text) {
    std::vector<std::size_t> ends;
    for_graphemes(text, [&](std::size_t at, std::size_t end) {
        const bool space = is_space(next_character(text, at));
        if (space && at < end) ends.push_back(at);
        ends.push_back(end);
    });
    return ends;
}

std::vector<std::size_t> character_ends(std::string_view text) {
    std::vector<std::size_t> ends;
    for (std::size_t at = 0; at < text.size();) {
        next_character(text, at);
        ends.push_back(at);
    }
    return ends;
}

/// From the largest parts to the smallest.
constexpr std::vector<std::size_t> (*cuts[])(std::string_view) = {word_ends, cluster_ends,
                                                                  character_ends};
constexpr std::size_t levels = sizeof cuts / sizeof cuts[0];

/// Follows a change through a text, which has the origins `from`, to those of the result.
struct tracer {
    const std::function<void(std::string&)>& change;
    const origins& from;
    origins to;

    /// Of a part that begins at byte `begin` and becomes `made`; false if its own parts do not
    /// become the same.
    bool trace(const std::string& part, std::size_t begin, const std::string& made,
               std::size_t level) {
        if (part == made) {
            to.append(from, begin, begin + part.size());
            return true;
        }
        if (level == levels) return false;
        const std::vector<std::size_t> ends = cuts[level](part);
        std::vector<std::string> changed;
        std::size_t done = 0, bytes = 0;
        for (const std::size_t end : ends) {
            std::string& one = changed.emplace_back(part, done, end - done);
            change(one);
            if (made.compare(bytes, one.size(), one) != 0) return false;
            bytes += one.size();
            done = end;
        }
        if (bytes != made.size()) return false;
        done = 0;
        for (std::size_t i = 0; i < ends.size(); ++i) {
            const std::size_t at = begin + done;
            if (!trace(part.substr(done, ends[i] - done), at, changed[i], level + 1))
                to.add(changed[i].size(), from, at, begin + ends[i]);
            done = ends[i];
        }
        return true;
    }
};

} // namespace

origins::origins(std::string_view text) {
    std::size_t begin = 0;
    for (const std::size_t end : character_ends(text)) {
        parts_.push_back({end, {begin, end}});
        begin = end;
    }
}

std::vector<origins::part>::const_iterator origins::part_at(std::size_t byte) const {
    return std::upper_bound(parts_.begin(), parts_.end(), byte,
                            [](std::size_t b, const part& p) { return b < p.end; });
}

text_range origins::of(std::size_t begin, std::size_t end) const {
    return {part_at(begin)->from.begin, part_at(end - 1)->from.end};
}

origins origins::slice(std::size_t begin, std::size_t end) const {
    origins cut;
    cut.append(*this, begin, end);
    return cut;
}

void origins::add(std::size_t bytes, text_range from) {
    if (bytes == 0) return;
    const std::size_t begin = empty() ? 0 : parts_.back().end;
    const bool same =
        !empty() && parts_.back().from.begin == from.begin && parts_.back().from.end == from.end;
    if (same)
        parts_.back().end += bytes;
    else
        parts_.push_back({begin + bytes, from});
}

void origins::append(const origins& from, std::size_t begin, std::size_t end) {
    if (from.empty()) return;
    for (auto p = from.part_at(begin); begin < end; ++p) {
        const std::size_t here = std::min(p->end, end);
        add(here - begin, p->from);
        begin = here;
    }
}

void origins::insert_front(std::size_t bytes) {
    if (empty()) return;
    const std::size_t at = parts_[0].from.begin;
    for (part& p : parts_) p.end += bytes;
    if (bytes > 0) parts_.insert(parts_.begin(), {bytes, {at, at}});
}

void change_traced(const std::function<void(std::string&)>& change, std::string& text,
                   origins& from) {
    if (from.empty()) return change(text);
    std::string made = text;
    change(made);
    tracer tracing{change, from, {}};
    if (!tracing.trace(text, 0, made, 0))
        throw std::invalid_argument("where the tokens of a text of " + std::to_string(text.size()) +
                                    " bytes stand is not to be told: the tokenizer makes something "
                                    "else of its words in the text than alone");
    text = std::move(made);
    from = std::move(tracing.to);
}

} // namespace encoder::detail
