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

/// The sentence is the question and the answer; both begin with their space, so that a question's tokens
/// are those of the sentence.
struct needle {
    std::string sentence, question, answer;
};
constexpr std::size_t most_needles = 128;

/// Of templates, no two with the same question. Throws std::invalid_argument for more than there are.
std::vector<needle> make_needles(std::size_t count, std::mt19937_64& random);

/// As many of the text's first sentences, and words of the next one, as make `tokens` tokens with the
/// needles, which stand between sentences, at equal distances. Throws std::invalid_argument where the
/// needles alone have more tokens.
std::vector<std::int32_t> hide_needles(const tokenizer& words, const std::string& text,
                                       const std::vector<needle>& needles, std::size_t tokens);

/// How many of them the model says, token by token the likeliest, each asked for alone behind the text of
/// `length` tokens that this is the cache of. Throws std::invalid_argument where the vocabulary has no
/// token of a question or an answer.
std::size_t count_found(const model& m, const tokenizer& words, const cache& c, index_t length,
                        const std::vector<needle>& needles);

} // namespace language
