// Text files: documents, pairs of texts with a score, texts or pairs with a label, words with tags;
// batches of their tokens.
#pragma once

#include "batch.hpp"
#include "encoder/files/model.hpp"
#include "tokenizer.hpp"

#include <charconv>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace encoder {

/// Whether all of `text` is a number of this type, and in its range.
template <class Number>
bool read_number(const std::string& text, Number& number) {
    const char* const end = text.data() + text.size();
    const auto [stop, code] = std::from_chars(text.data(), end, number);
    return code == std::errc() && stop == end;
}

struct scored_pair {
    double score;
    std::string first, second;
};

/// What stands before a text or a pair of texts on a line.
enum class target_kind {
    none,
    label, ///< a class: a whole number from 0 to 65535
    score  ///< a finite number
};

/// A text or, where `second` is not empty, a pair of texts, and its target.
struct labelled_text {
    double target;
    std::string first, second;
};

/// Words, each with its tag, which stand on lines one after another.
struct tagged_sentence {
    std::vector<std::string> words, tags;
    std::size_t line; ///< of the first one
};

/// use(document, number of its line) for each document, one a line, as long as that returns true; blank
/// lines do not count, and of one of more than 4 MiB no more is read. Throws file_error if the file cannot
/// be read, has no document, or is not UTF-8 (with the line's number).
void for_documents(const std::filesystem::path& file,
                   const std::function<bool(const std::string&, std::size_t)>& use);
/// All of them.
std::vector<std::string> read_documents(const std::filesystem::path& file);

/// score, text, text on a line, separated by tabs. Throws file_error as above, and for a line that is
/// longer than 4 MiB, has other columns or a score that is not a finite number.
std::vector<scored_pair> read_pairs(const std::filesystem::path& file);

/// target, text or target, text, text on a line, separated by tabs. Throws file_error as above, and
/// for a line that has another target or other columns than the first. Without targets, which become
/// 0: text or text, text on a line.
std::vector<labelled_text> read_labelled(const std::filesystem::path& file,
                                         target_kind target = target_kind::label);

/// Files of CoNLL's shared tasks: a word a line, its tag in the last of two or more columns, which
/// tabs or spaces separate; a blank line between sentences. Lines of the word -DOCSTART- are not
/// read. Throws file_error as above, and for a line of one column.
std::vector<tagged_sentence> read_tagged_words(const std::filesystem::path& file);

/// The token ids of each text.
std::vector<sequence> tokenize(const tokenizer& words, const std::vector<std::string>& texts,
                               std::size_t max_tokens);
/// The same for a model of config `c`. If any text is a pair, all count as one. Throws
/// std::invalid_argument if such a model cannot tell the texts of a pair apart.
std::vector<sequence> tokenize(const tokenizer& words, const std::vector<labelled_text>& texts,
                               const config& c);

/// What a network gets of a sentence's words.
struct sentence_part {
    sequence ids;
    /// Words, and which of these tokens is the first of each; none of a word without tokens.
    std::vector<std::pair<std::size_t, std::size_t>> words;
};
/// Tokens word by word, behind a space but for the first one; in as many parts of at most max_tokens
/// as it takes, at least one, cut between words. A word that is longer loses its end. Throws
/// std::invalid_argument as tokenizer::encode() does.
std::vector<sentence_part> tokenize_sentence(const tokenizer& words,
                                             const std::vector<std::string>& sentence,
                                             std::size_t max_tokens);

/// No bound on tokens or sequences.
inline constexpr std::int64_t any_number = std::int64_t{1} << 40;

/// Consecutive sequences in batches of at most `sequences` sequences and, but for single long ones,
/// `tokens` tokens.
std::vector<batch> make_batches(const std::vector<sequence>& from, std::int64_t tokens,
                                std::int64_t sequences);

} // namespace encoder
