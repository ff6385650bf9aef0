// BERT's WordPiece tokenizer: text to token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace encoder {

/// Equal to the reference (fast) tokenizer of BERT, uncased or cased: clean text, spaces around CJK
/// characters, lower case without accents (uncased), split at whitespace and punctuation, greedy
/// longest match in the vocabulary, [UNK] for words that cannot be built or are over 100
/// characters.
/// "[SEP]" and the other special tokens stand for themselves where they are written in the text.
/// Unicode data are utf8proc's (15 or later). The reference has those of Unicode 8, so that the
/// about 600 characters which are punctuation, marks or control characters only since then may
/// differ. Time grows linearly with the text. Safe for concurrent calls.
class tokenizer {
  public:
    /// Reads vocab.txt, a token a line. Throws file_error if it cannot be read, holds a token
    /// twice, or lacks [CLS], [SEP] or [UNK], or has more or fewer entries than `vocabulary`.
    tokenizer(const std::filesystem::path& vocab, bool lower_case, std::int64_t vocabulary);

    /// [CLS] text [SEP], truncated to max_tokens (>= 2) ids in all.
    /// Throws std::invalid_argument if `text` is not valid UTF-8, saying at which byte.
    std::vector<std::int32_t> encode(std::string_view text, std::size_t max_tokens) const;

    /// [CLS] first [SEP] second [SEP], truncated to max_tokens (>= 3) ids in all by what the
    /// reference calls longest_first: tokens of the longer text go until both are as long, then of
    /// both. The second text and its [SEP] are of token type 1: their ids are those of the words
    /// plus the size of the vocabulary. Throws as above.
    std::vector<std::int32_t> encode(std::string_view first, std::string_view second,
                                     std::size_t max_tokens) const;

    /// The vocabulary's entry for an id (>= 0) of any type; "##" begins what continues a word.
    const std::string& word(std::int32_t id) const {
        return words_[static_cast<std::size_t>(id) % words_.size()];
    }

  private:
    /// The first `most` ids of `text` alone.
    std::vector<std::int32_t> pieces(std::string_view text, std::size_t most) const;
    void append_text(std::string_view text, std::size_t from, std::size_t to, std::size_t most,
                     std::vector<std::int32_t>& ids) const;
    void append_word(std::string_view word, std::vector<std::int32_t>& ids) const;

    std::vector<std::string> words_;
    std::unordered_map<std::string, std::int32_t> ids_;
    std::vector<std::pair<std::string_view, std::int32_t>> special_;
    std::size_t longest_ = 0; ///< bytes of the longest token
    std::int32_t cls_, sep_, unknown_;
    bool lower_case_;
};

} // namespace encoder
