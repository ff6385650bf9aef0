// Texts read in passes, behind each of which a rule says what stays in their cache.
#pragma once

#include "eviction.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace language {

/// Called behind the pass that read the tokens begin <= t < end, with the cache that the rule has left
/// and with what forward() gave.
using behind_pass =
    std::function<void(const cache& c, index_t begin, index_t end, const matrix& rows)>;

/// One for a text of `length` tokens, with the room that a rule needs.
cache make_cache(const model& m, const eviction& rule, index_t pass, index_t length);

/// Reads a text to its end, and gives its cache.
cache read_text(const model& m, const std::vector<std::int32_t>& text, index_t pass, eviction& rule,
                const behind_pass& behind = {});

/// What each text goes on with, `count` tokens, each the likeliest. The cache has the texts before
/// these tokens, and room for them and for `count` more. Throws std::invalid_argument for a text that
/// gets no token.
std::vector<std::vector<std::int32_t>> continue_texts(const model& m, const token_batch& tokens,
                                                      cache& c, index_t count);

} // namespace language
