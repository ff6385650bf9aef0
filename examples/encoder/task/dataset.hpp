// What a model is to learn or is measured on: texts and targets.
#pragma once

#include "evaluate.hpp"

#include "encoder/text/questions.hpp"

#include <cstdint>
#include <memory>
#include <optional>

namespace encoder {

enum class task_kind {
    classify,   ///< texts, or pairs of texts, into classes
    regress,    ///< texts, or pairs of texts, to a score
    tag,        ///< the words of texts into classes
    answer,     ///< questions by a part of a text
    similarity, ///< the cosine of two texts' embeddings
    distill     ///< the embeddings of the model as it was, from raw text
};

const char* name_of(task_kind kind);

/// What a model's outputs are for: what its head does or, without one, similarity.
task_kind task_of(const model& m);

/// Texts to learn from or to measure on.
struct dataset {
    /// In place of the class of a token that has none: of those behind a word's first one, and those
    /// around a text.
    static constexpr double no_tag = -1;

    task_kind kind;
    std::vector<sequence> texts; ///< of similarity, 2 i and 2 i + 1 belong together
    /// Of each text, its class or score; of each pair, a cosine from 0 to 1; of each token of the
    /// texts, its class; of each text, which tokens are the first and last one of its answer, both the
    /// first of the text if it holds none. Or empty.
    std::vector<double> targets;
    matrix
        teacher; ///< what a network gave for the texts, to learn from instead of targets; or empty
    std::optional<similarity_task>
        pairs;           ///< similarity, or where distilled embeddings are measured
    bool paired = false; ///< texts are pairs, a sequence each

    std::vector<std::string> tags = {}; ///< to tag, the names of classes
    /// To tag and to answer, where the texts of each sentence or question begin: one that is too long
    /// has several [sentences + 1].
    std::vector<std::size_t> parts = {};
    std::vector<context_window> windows = {}; ///< to answer, of each text
    std::shared_ptr<const question_set> questions = nullptr;

    std::size_t texts_each() const { return kind == task_kind::similarity ? 2 : 1; }
    std::size_t size() const { return texts.size() / texts_each(); }
    int classes() const; ///< one more than the largest class

    /// Whether outputs are a row a token of a text.
    bool is_per_token() const { return kind == task_kind::tag || kind == task_kind::answer; }
    /// Rows of outputs of a text.
    std::size_t rows(std::size_t text) const { return is_per_token() ? texts[text].size() : 1; }
    /// Where those of each text begin, and their number [texts + 1].
    std::vector<std::size_t> first_rows() const;
};

/// Which of a file's examples to read.
struct selection {
    std::size_t most = SIZE_MAX; ///< so many, in the file's order
    std::uint64_t seed = 0;      ///< chooses them
    bool labels = true;          ///< to classify or regress, a label or score is before texts
};

/// label <tab> text [<tab> text] to classify, score <tab> text [<tab> text] to regress, score <tab>
/// text <tab> text for similarity, raw text to distill; to tag, words with tags in columns, and without
/// labels raw text (text.hpp); to answer, JSON as SQuAD has it (questions.hpp). Scores of similarity
/// become cosines: 0 and less -> 0, the highest -> 1. Throws file_error, also for a tag that is none
/// of the model's.
dataset read_dataset(task_kind kind, const std::filesystem::path& file, const tokenizer& words,
                     const model& m, const selection& some = {});

/// Throws file_error where a label of `file` is none of the model's classes.
void check_classes(const dataset& data, const std::filesystem::path& file, const model& m);

/// The last of every `each` examples (of sentences and questions, all parts), out of `from`, to measure
/// on. Throws std::invalid_argument if there are fewer.
dataset hold_out(dataset& from, std::size_t each);

/// The texts that a network is measured on.
const std::vector<sequence>& measured_texts(const dataset& data);

} // namespace encoder
