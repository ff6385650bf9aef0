#include "streaming.hpp"

#include <algorithm>
#include <cstddef>

namespace language {

cache read_text(const model& m, const std::vector<std::int32_t>& text, index_t pass, eviction& rule,
                const behind_pass& behind) {
    const auto length = static_cast<index_t>(text.size());
    cache c;
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        c.emplace_back(m.config,
                       std::min(length, pass + rule.most_keys(static_cast<index_t>(l), length)));
    for (index_t begin = 0; begin < length; begin += pass) {
        const index_t end = std::min(length, begin + pass);
        const matrix rows = forward(m, {{text.begin() + begin, text.begin() + end}, begin}, c,
                                    rule.scores(), [&](const layer_pass& p) { rule.after(p); });
        if (behind) behind(c, begin, end, rows);
    }
    return c;
}

std::vector<std::vector<std::int32_t>> continue_texts(const model& m, const token_batch& tokens,
                                                      cache& c, index_t count) {
    token_batch next = tokens;
    std::vector<std::vector<std::int32_t>> found(tokens.places.size());
    for (index_t i = 0; i < count; ++i) {
        const matrix rows = forward(m, next, c);
        matrix last(static_cast<index_t>(found.size()), rows.cols());
        for (std::size_t text = 0; text < found.size(); ++text)
            last.row(static_cast<index_t>(text)) = rows.row(next.offsets[text + 1] - 1);
        const std::vector<std::int32_t> best = likeliest(m, last);
        token_batch one;
        for (std::size_t text = 0; text < found.size(); ++text) {
            found[text].push_back(best[text]);
            one.add({best[text]}, next.places[text] + next.offsets[text + 1] - next.offsets[text]);
        }
        next = std::move(one);
    }
    return found;
}

} // namespace language
