#include "streaming.hpp"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>

namespace language {

cache make_cache(const model& m, const eviction& rule, index_t pass, index_t length) {
    cache c;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const index_t most = rule.most_keys(static_cast<index_t>(l), length);
        c.emplace_back(groups_of(m.layers[l], m.config), m.config.head_size,
                       std::min(length, pass + most));
    }
    return c;
}

cache read_text(const model& m, const std::vector<std::int32_t>& text, index_t pass, eviction& rule,
                const behind_pass& behind) {
    const auto length = static_cast<index_t>(text.size());
    cache c = make_cache(m, rule, pass, length);
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
    for (std::size_t text = 0; text < tokens.places.size(); ++text)
        if (tokens.offsets[text] == tokens.offsets[text + 1])
            throw std::invalid_argument("text " + std::to_string(text) +
                                        " of a batch has no token to go on from");
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
