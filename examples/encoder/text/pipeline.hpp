// What makes token ids of a text, step by step, as tokenizer.json lists the steps.
#pragma once

#include "added_tokens.hpp"
#include "normalize.hpp"
#include "split.hpp"
#include "subwords.hpp"

#include "encoder/files/model.hpp"

#include <memory>
#include <string>
#include <vector>

namespace encoder::detail {

/// A part of what the network gets: tokens, or one of the texts.
struct template_part {
    enum class kind { tokens, first, second };
    kind what = kind::tokens;
    std::vector<std::int32_t> ids;
    std::int32_t type = 0;
};

/// Around the texts' tokens.
struct text_template {
    std::vector<template_part> parts;
    std::size_t tokens() const {
        std::size_t sum = 0;
        for (const template_part& p : parts) sum += p.ids.size();
        return sum;
    }
};

/// Is not moved: its model knows the address of its vocabulary.
struct pipeline {
    word_ids ids;                   ///< the model's vocabulary
    std::vector<std::string> words; ///< by id, for every row of the embeddings
    bool lowers_first = false;      ///< before anything else, added tokens too
    added_tokens raw, normalized;   ///< looked for before and after normalizing
    normalizer normalize;           ///< may be empty
    splitter split;                 ///< may be empty
    std::unique_ptr<subwords> model;
    text_template single, pair;

    /// Enters a word of the vocabulary; of two ids the last one counts. Throws file_error where the
    /// embeddings have no row for it.
    void add_word(const std::filesystem::path& file, const std::string& word, std::int64_t id);
    /// Sorts added tokens in, once words and normalizer are there.
    void set_added(const std::filesystem::path& file, std::vector<added_token> all);
    /// begin, text, end and begin, text, end (twice if `two_between`), text, end; the second text is
    /// of this type.
    void set_templates(std::int32_t begin, std::int32_t end, bool two_between,
                       std::int32_t second_type);
    /// The id of a word or an added token, or -1.
    std::int32_t find(const std::string& word) const;

    /// Appends the first tokens of `text` alone, up to `most` in all. Throws std::invalid_argument
    /// as tokenizer::encode() does.
    void append(std::string_view text, std::size_t most, token_list to) const;

  private:
    void append_plain(piece text, std::size_t most, token_list& to) const;

    word_ids added_;
};

/// tokenizer.json.
std::unique_ptr<pipeline> read_tokenizer_json(const std::filesystem::path& folder, const config& c);
/// vocab.txt, or vocab.json and merges.txt, with what is beside them.
std::unique_ptr<pipeline> read_vocabulary_files(const std::filesystem::path& folder,
                                                const config& c);
/// Throws file_error for a tokenizer_class that cuts words in a way that is not here, and for
/// truncation at the left.
void check_class(const settings& tokenizer_config, bool has_tokenizer_json);

} // namespace encoder::detail
