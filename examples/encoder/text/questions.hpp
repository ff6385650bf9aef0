// Questions about texts that hold their answers: SQuAD's files, and windows over long texts.
#pragma once

#include "batch.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace encoder {

struct right_answer {
    std::string text;
    std::size_t begin; ///< the byte of the context where it begins
};

struct question {
    std::string id, text;
    std::size_t context;               ///< which one
    std::vector<right_answer> answers; ///< none: the context does not hold one
};

struct question_set {
    std::vector<std::string> contexts;
    std::vector<question> questions;

    /// Whether some have no answer, as in SQuAD 2.0.
    bool has_unanswerable() const;
};

/// JSON of SQuAD 1.1 or 2.0. Throws file_error if the file cannot be read, is not such JSON, has no
/// question, or has an answer that does not stand in its context where it says.
question_set read_questions(const std::filesystem::path& file);

/// A part of a context's tokens, the last one not in it.
struct window {
    std::size_t begin, end;
};

/// Windows of at most `longest` tokens over `tokens`, in order; two beside each other share `shared`
/// tokens, or half of `longest` if that is less. At least one window. Throws std::invalid_argument if
/// `longest` is 0.
std::vector<window> make_windows(std::size_t tokens, std::size_t longest, std::size_t shared = 128);

/// A context's tokens.
struct context_tokens {
    std::vector<std::int32_t> ids;
    std::vector<text_range> places; ///< what of the context each stands for
};
/// Throws std::invalid_argument as tokenizer::encode() does.
context_tokens tokenize(const tokenizer& words, const std::string& context);

/// What a sequence holds of a question's context.
struct context_window {
    std::size_t question;
    std::size_t begin;              ///< the first of the context's tokens in the sequence
    std::vector<text_range> places; ///< of those, what of the context they stand for
};
struct asked {
    sequence ids; ///< the question and a window of its context; all other tokens are pinned
    context_window window;
};
/// A question as a network of config `c` gets it, once with each window of its `context`. Throws
/// std::invalid_argument if it has no room for a context, and as tokenizer::encode() does.
std::vector<asked> ask(const tokenizer& words, const question_set& all, std::size_t number,
                       const context_tokens& context, const config& c);

} // namespace encoder
