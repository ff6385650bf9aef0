// What makes tokens of a piece of text: a vocabulary, and how words are built from it.
#pragma once

#include "text_range.hpp"

#include "encoder/files/settings.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace encoder::detail {

using word_ids = std::unordered_map<std::string, std::int32_t>;

/// Ids, and where they are asked for, of each token the bytes that it stands for.
struct token_list {
    std::vector<std::int32_t>& ids;
    std::vector<text_range>* places; ///< null: not asked for

    void add(std::int32_t id, text_range place) {
        ids.push_back(id);
        if (places != nullptr) places->push_back(place);
    }
    void resize(std::size_t tokens) {
        ids.resize(tokens);
        if (places != nullptr) places->resize(tokens);
    }
};

/// Safe for concurrent calls.
class subwords {
  public:
    virtual ~subwords() = default;
    /// Appends the tokens of a piece in UTF-8, their places in it. Time grows linearly with it, or
    /// by a logarithm more.
    virtual void append(const std::string& piece, token_list& to) const = 0;
};

/// Appends a token such as <0x0A> for each byte; false, and nothing, where one is not there.
bool append_bytes(const word_ids& ids, const std::string& text, std::vector<std::int32_t>& to);

/// "model" of tokenizer.json without its vocabulary, which is in `ids`. Throw file_error.
/// Greedy longest match; words that cannot be built are the unknown token.
std::unique_ptr<subwords> make_word_piece(const settings& given, const word_ids& ids);
/// Byte-pair encoding, by `merges` as the file lists them: "a b" or ["a", "b"].
std::unique_ptr<subwords> make_byte_pairs(const settings& given, const word_ids& ids,
                                          const nlohmann::json& merges);
/// The cut with the highest sum of scores; `vocabulary` holds [token, score], and ids are places in
/// it.
std::unique_ptr<subwords> make_unigram(const settings& given, const word_ids& ids,
                                       const nlohmann::json& vocabulary);

} // namespace encoder::detail
