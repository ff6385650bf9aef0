// What a model is to learn: texts and targets, the loss, and how well it does.
#pragma once

#include "evaluate.hpp"

#include <cstdint>
#include <optional>

namespace encoder {

enum class task_kind {
    classify,   ///< texts, or pairs of texts, into classes
    regress,    ///< texts, or pairs of texts, to a score
    similarity, ///< the cosine of two texts' embeddings
    distill     ///< the embeddings of the model as it was, from raw text
};

/// What a model's outputs are for: what its head does or, without one, similarity. Throws
/// std::invalid_argument for a head on tokens.
task_kind task_of(const model& m);

/// Texts to learn from or to measure on.
struct dataset {
    task_kind kind;
    std::vector<sequence> texts; ///< of similarity, 2 i and 2 i + 1 belong together
    std::vector<double> targets; ///< classes; scores; cosines from 0 to 1 of pairs; or empty
    matrix
        teacher; ///< what a network gave for the texts, to learn from instead of targets; or empty
    std::optional<similarity_task>
        pairs;           ///< similarity, or where distilled embeddings are measured
    bool paired = false; ///< classes or scores are those of pairs of texts, a sequence each

    std::size_t texts_each() const { return kind == task_kind::similarity ? 2 : 1; }
    std::size_t size() const { return texts.size() / texts_each(); }
    int classes() const; ///< one more than the largest class
};

/// Which of a file's examples to read.
struct selection {
    std::size_t most = SIZE_MAX; ///< so many, in the file's order
    std::uint64_t seed = 0;      ///< chooses them
    bool labels = true;          ///< to classify or regress, a label or score is before texts
};

/// label <tab> text [<tab> text] to classify, score <tab> text [<tab> text] to regress, score <tab>
/// text <tab> text for similarity, raw text to distill. Those of similarity become cosines: 0 and less
/// -> 0, the highest -> 1. Throws file_error.
dataset read_dataset(task_kind kind, const std::filesystem::path& file, const tokenizer& words,
                     const config& c, const selection& some = {});

/// Throws file_error where a label of `file` is none of the model's classes.
void check_classes(const dataset& data, const std::filesystem::path& file, const model& m);

/// The last of every `each` examples, out of `from`, to measure on. Throws std::invalid_argument if
/// there are fewer.
dataset hold_out(dataset& from, std::size_t each);

/// An output layer of small random weights: of the head that the model has, or of one of ours.
void add_outputs(model& m, int outputs, std::uint64_t seed);

/// The mean loss of some of the data's examples, whose outputs are given in this order, and its
/// gradient. With a teacher, how far its outputs are: the divergence of classes' probabilities from
/// its (Kullback and Leibler's), the square of scores' differences, or 1 - cosine of embeddings.
/// Without, to classify, the cross entropy; to regress, the square of score minus target; for
/// similarity, that of cosine minus target.
double loss(const dataset& data, const std::vector<std::size_t>& examples, const matrix& outputs,
            matrix& gradient);

/// The texts that a network is measured on.
const std::vector<sequence>& measured_texts(const dataset& data);

/// Of its outputs for them: accuracy, or Spearman's correlation with scores; without targets, how
/// alike they are to the teacher's.
double measure(const dataset& data, const matrix& outputs);

/// A measure of quality by name.
struct quality {
    const char* name;
    double value;
};
/// All that say something of them; the first is what measure() says.
std::vector<quality> qualities(const dataset& data, const matrix& outputs);
/// How alike a model's outputs are to those of the dense one.
quality likeness(const model& m, const matrix& dense, const matrix& pruned);

} // namespace encoder
