#include "quality.hpp"

#include "answers.hpp"
#include "entities.hpp"
#include "metrics.hpp"

#include <algorithm>

namespace encoder {
namespace {

using Eigen::Index;

std::vector<double> scores_of(const matrix& outputs) {
    return {outputs.col(0).begin(), outputs.col(0).end()};
}

Index class_of(const matrix& logits, Index row) {
    Index found;
    logits.row(row).maxCoeff(&found);
    return found;
}

/// Of those that have a class.
class_counts classes_of(const dataset& data, const matrix& logits) {
    class_counts counts(logits.cols());
    for (Index i = 0; i < logits.rows(); ++i)
        if (const double right = data.targets[static_cast<std::size_t>(i)];
            right != dataset::no_tag)
            counts.add(static_cast<Index>(right), class_of(logits, i));
    return counts;
}

/// Whether a class's name says how an entity goes on: B-PER.
bool names_entities(const std::vector<std::string>& tags) {
    return std::any_of(tags.begin(), tags.end(), [](const std::string& t) {
        return t.size() > 2 && t[1] == '-' && std::string_view("BIES").find(t[0]) != t.npos;
    });
}

std::vector<quality> entities_in(const dataset& data, const matrix& logits, double accuracy) {
    entity_counts counts;
    const std::vector<std::size_t> first = data.first_rows();
    for (std::size_t s = 0; s + 1 < data.parts.size(); ++s) {
        std::vector<std::string> expected, given;
        for (std::size_t row = first[data.parts[s]]; row < first[data.parts[s + 1]]; ++row)
            if (const double right = data.targets[row]; right != dataset::no_tag) {
                expected.push_back(data.tags[static_cast<std::size_t>(right)]);
                given.push_back(
                    data.tags[static_cast<std::size_t>(class_of(logits, static_cast<Index>(row)))]);
            }
        counts.add(expected, given);
    }
    return {{"Entity F1", counts.f1()},
            {"Precision", counts.precision()},
            {"Recall", counts.recall()},
            {"Accuracy", accuracy}};
}

/// What the logits answer to each question; nothing where they say that there is no answer.
std::vector<std::string> answers_of(const dataset& data, const matrix& logits) {
    const Eigen::VectorXf starts = logits.col(0), ends = logits.col(1);
    const std::vector<std::size_t> first = data.first_rows();
    const bool may_have_none = data.questions->has_unanswerable();
    std::vector<std::string> answers;
    for (std::size_t q = 0; q + 1 < data.parts.size(); ++q) {
        std::vector<answer_window> windows;
        for (std::size_t w = data.parts[q]; w < data.parts[q + 1]; ++w) {
            const auto row = static_cast<Index>(first[w]);
            const context_window& of = data.windows[w];
            windows.push_back(
                {starts.data() + row, ends.data() + row, of.begin, of.begin + of.places.size()});
        }
        const std::vector<answer_span> best = best_answers(windows);
        if (best.empty() || (may_have_none && no_answer_score(windows) > best[0].score)) {
            answers.emplace_back();
            continue;
        }
        const context_window& in = data.windows[data.parts[q] + best[0].window];
        const std::size_t from = in.places[best[0].first - in.begin].begin,
                          to = in.places[best[0].last - in.begin].end;
        const std::string& context =
            data.questions->contexts[data.questions->questions[in.question].context];
        answers.push_back(context.substr(from, to - std::min(from, to)));
    }
    return answers;
}

std::vector<quality> of_answers(const dataset& data, const matrix& logits) {
    const std::vector<std::string> given = answers_of(data, logits);
    double exact = 0, f1 = 0;
    for (std::size_t q = 0; q < given.size(); ++q) {
        std::vector<std::string> right;
        for (const right_answer& a :
             data.questions->questions[data.windows[data.parts[q]].question].answers)
            right.push_back(a.text);
        exact += exact_match(given[q], right);
        f1 += word_f1(given[q], right);
    }
    const auto n = static_cast<double>(given.size());
    return {{"Answer F1", f1 / n}, {"Exact match", exact / n}};
}

/// Share of answers that are a teacher's.
double same_answers(const dataset& data, const matrix& logits) {
    const std::vector<std::string> given = answers_of(data, logits),
                                   taught = answers_of(data, data.teacher);
    double same = 0;
    for (std::size_t q = 0; q < given.size(); ++q) same += given[q] == taught[q];
    return same / static_cast<double>(given.size());
}

/// Share of texts whose likeliest first token and last token are the same.
double same_ends(const std::vector<sequence>& texts, const matrix& a, const matrix& b) {
    double same = 0;
    Index row = 0;
    for (const sequence& text : texts) {
        const auto n = static_cast<Index>(text.size());
        Index of_a[2], of_b[2];
        for (Index side = 0; side < 2; ++side) {
            a.col(side).segment(row, n).maxCoeff(&of_a[side]);
            b.col(side).segment(row, n).maxCoeff(&of_b[side]);
        }
        same += of_a[0] == of_b[0] && of_a[1] == of_b[1];
        row += n;
    }
    return same / static_cast<double>(texts.size());
}

std::vector<quality> like_teacher(const dataset& data, const matrix& outputs) {
    switch (data.kind) {
    case task_kind::classify:
        return {{"same class", same_class(outputs, data.teacher)}};
    case task_kind::tag:
        return {{"same tag", same_class(outputs, data.teacher)}};
    case task_kind::answer:
        return {{"same answer", same_answers(data, outputs)}};
    case task_kind::regress:
        return {{"correlation", pearson(scores_of(outputs), scores_of(data.teacher))}};
    default:
        return {{"cosine", mean_cosine(outputs, data.teacher)}};
    }
}

} // namespace

std::vector<quality> qualities(const dataset& data, const matrix& outputs) {
    if (data.pairs) {
        const correlations found = correlate(*data.pairs, outputs);
        return {{"Spearman", found.spearman}, {"Pearson", found.pearson}};
    }
    if (data.targets.empty()) return like_teacher(data, outputs);
    if (data.kind == task_kind::regress) {
        const std::vector<double> scores = scores_of(outputs);
        return {{"Spearman", spearman(scores, data.targets)},
                {"Pearson", pearson(scores, data.targets)}};
    }
    if (data.kind == task_kind::answer) return of_answers(data, outputs);
    const class_counts counts = classes_of(data, outputs);
    if (names_entities(data.tags)) return entities_in(data, outputs, accuracy(counts));
    return {{"Accuracy", accuracy(counts)}, {"F1", f1(counts)}, {"Matthews", matthews(counts)}};
}

double measure(const dataset& data, const matrix& outputs) {
    return qualities(data, outputs)[0].value;
}

quality likeness(const model& m, const std::vector<sequence>& texts, const matrix& dense,
                 const matrix& pruned) {
    switch (task_of(m)) {
    case task_kind::classify:
        return {"same class as dense", same_class(dense, pruned)};
    case task_kind::tag:
        return {"same tag as dense", same_class(dense, pruned)};
    case task_kind::answer:
        return {"same ends as dense", same_ends(texts, dense, pruned)};
    case task_kind::regress:
        return {"correlation to dense", pearson(scores_of(dense), scores_of(pruned))};
    default:
        return {"cosine to dense", mean_cosine(dense, pruned)};
    }
}

} // namespace encoder
