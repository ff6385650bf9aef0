// Text to token ids, as a model's folder says.
#pragma once

#include "text_range.hpp"

#include "encoder/files/model.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace encoder {

namespace detail {
struct pipeline;
}

/// Equal to the reference, the (fast) tokenizers of Hugging Face: added tokens stand for themselves
/// where they are written in the text; the rest is normalized and cut into pieces, each of which
/// becomes tokens by WordPiece, byte pairs or a unigram model; others stand around it.
/// Unicode data are utf8proc's (15 or later) and PCRE2's. The reference has those of Unicode 8 in
/// places, so that the about 600 characters which are punctuation, marks or control characters only
/// since then may differ; and where Metaspace marks the first word only, texts that begin with a
/// character which the normalizer removes or makes words of. Safe for concurrent calls.
class tokenizer {
  public:
    /// Reads, of a model with config `c`, the first of these that its transformer's folder has:
    ///   tokenizer.json
    ///   vocab.txt               WordPiece; of a word that stands twice the last id counts. Where
    ///                           tokenizer_config.json says nothing of case, a vocabulary that
    ///                           holds words in upper case is cased, another one is lower-cased.
    ///   vocab.json, merges.txt  byte pairs as RoBERTa has them
    /// and what tokenizer_config.json, special_tokens_map.json, added_tokens.json and
    /// sentence_bert_config.json say beside it. The embeddings may have more rows than there are
    /// tokens. Throws file_error for a tokenizer that is none of these, for a part of it that is
    /// not known, for a token without a row, and where two files contradict each other.
    tokenizer(const std::filesystem::path& folder, const config& c);

    /// The text with the tokens around it ([CLS] text [SEP] for BERT), truncated to max_tokens ids
    /// in all.
    /// Throws std::invalid_argument if `text` is not valid UTF-8, saying at which byte, if the
    /// tokens around it do not fit, or if what tokenizer.json says takes too long or makes too much
    /// of it.
    std::vector<std::int32_t> encode(std::string_view text, std::size_t max_tokens) const;

    /// Both texts ([CLS] first [SEP] second [SEP] for BERT), truncated to max_tokens ids in all by
    /// what the reference calls longest_first: tokens of the longer text go until both are as long,
    /// then of both. Where the model has more than one token type, the ids of type t are those of
    /// the words plus t times the rows of the word embeddings. Throws as above.
    std::vector<std::int32_t> encode(std::string_view first, std::string_view second,
                                     std::size_t max_tokens) const;

    /// The tokens of a text alone, all of them. Throws as above.
    std::vector<std::int32_t> tokens_of(std::string_view text) const;

    /// The same, and in `places` of each token what of the text it stands for, without the whitespace
    /// at its ends: whole characters, and all of what has become one, or several that cannot be told
    /// apart (a letter with its accents). Of a token that stands for nothing, or for whitespace, it
    /// is empty, and where the token stands. Throws as above, and where a word becomes something
    /// else in the text than alone.
    std::vector<std::int32_t> tokens_of(std::string_view text,
                                        std::vector<text_range>& places) const;

    /// Such tokens with those around them, as encode() has them.
    struct framed {
        std::vector<std::int32_t> ids;
        std::size_t first, second = 0; ///< where the texts' tokens begin
    };
    framed frame(const std::vector<std::int32_t>& text) const;
    framed frame(const std::vector<std::int32_t>& first,
                 const std::vector<std::int32_t>& second) const;

    /// The vocabulary's entry for an id (>= 0) of any type, as the file has it: "##" begins what
    /// continues a word of WordPiece.
    const std::string& word(std::int32_t id) const;

  private:
    std::shared_ptr<const detail::pipeline> steps_;
    std::int32_t type_step_; ///< between the ids of a word of two types
};

} // namespace encoder
