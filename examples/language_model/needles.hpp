// Facts that are hidden in a text and asked for behind it.
#pragma once

#include "streaming.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace language {

struct needle {
    std::string sentence, question, answer; ///< the sentence is the question and the answer
};

/// Of templates, no two with the same question.
std::vector<needle> make_needles(std::size_t count, std::mt19937_64& random);

/// As many of the text's first sentences as make `tokens` tokens with the needles, which stand
/// between them, at equal distances.
std::vector<std::int32_t> hide_needles(const tokenizer& words, const std::string& text,
                                       const std::vector<needle>& needles, std::size_t tokens);

/// How many of them the model says, word by word, to whom each is asked for alone behind the text, of
/// `length` tokens, that this is the cache of.
std::size_t count_found(const model& m, const tokenizer& words, const cache& c, index_t length,
                        const std::vector<needle>& needles);

} // namespace language
