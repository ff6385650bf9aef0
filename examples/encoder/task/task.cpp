#include "task.hpp"

#include "encoder/files/file.hpp"
#include "encoder/files/heads.hpp"
#include "metrics.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>

namespace encoder {
namespace {

/// Logarithms of the probabilities of classes.
Eigen::ArrayXf log_softmax(const Eigen::Ref<const Eigen::RowVectorXf>& logits) {
    const Eigen::ArrayXf lower = logits.transpose().array() - logits.maxCoeff();
    return lower - std::log(lower.exp().sum());
}

double classify(const dataset& data, const std::vector<std::size_t>& examples, const matrix& logits,
                matrix& gradient) {
    double sum = 0;
    const auto n = static_cast<float>(examples.size());
    for (std::size_t i = 0; i < examples.size(); ++i) {
        const auto at = static_cast<Eigen::Index>(i);
        const auto right = static_cast<Eigen::Index>(data.targets[examples[i]]);
        const Eigen::ArrayXf found = log_softmax(logits.row(at));
        sum -= static_cast<double>(found(right));
        gradient.row(at) = found.exp().transpose() / n;
        gradient(at, right) -= 1 / n;
    }
    return sum / static_cast<double>(examples.size());
}

double regress(const dataset& data, const std::vector<std::size_t>& examples, const matrix& scores,
               matrix& gradient) {
    double sum = 0;
    const auto n = static_cast<double>(examples.size());
    for (std::size_t i = 0; i < examples.size(); ++i) {
        const auto at = static_cast<Eigen::Index>(i);
        const double error = static_cast<double>(scores(at, 0)) - data.targets[examples[i]];
        gradient(at, 0) = static_cast<float>(2 * error / n);
        sum += error * error;
    }
    return sum / n;
}

double similarity(const dataset& data, const std::vector<std::size_t>& examples, const matrix& e,
                  matrix& gradient) {
    double sum = 0;
    for (std::size_t i = 0; i < examples.size(); ++i) {
        const auto a = static_cast<Eigen::Index>(2 * i), b = a + 1;
        const double error =
            static_cast<double>(e.row(a).dot(e.row(b))) - data.targets[examples[i]];
        const auto slope = static_cast<float>(2 * error / static_cast<double>(examples.size()));
        gradient.row(a) = slope * e.row(b);
        gradient.row(b) = slope * e.row(a);
        sum += error * error;
    }
    return sum / static_cast<double>(examples.size());
}

double imitate(const dataset& data, const std::vector<std::size_t>& examples, const matrix& outputs,
               matrix& gradient) {
    double sum = 0;
    const auto n = static_cast<float>(outputs.rows());
    for (Eigen::Index at = 0; at < outputs.rows(); ++at) {
        const std::size_t each = data.texts_each(), i = static_cast<std::size_t>(at);
        const auto teacher =
            data.teacher.row(static_cast<Eigen::Index>(examples[i / each] * each + i % each));
        if (data.kind == task_kind::classify) {
            const Eigen::ArrayXf found = log_softmax(outputs.row(at)),
                                 expected = log_softmax(teacher);
            sum += static_cast<double>((expected.exp() * (expected - found)).sum());
            gradient.row(at) = (found.exp() - expected.exp()).transpose() / n;
        } else if (data.kind == task_kind::regress) {
            const float error = outputs(at, 0) - teacher(0);
            gradient(at, 0) = 2 * error / n;
            sum += static_cast<double>(error) * static_cast<double>(error);
        } else {
            sum += 1 - static_cast<double>(outputs.row(at).dot(teacher));
            gradient.row(at) = -teacher / n;
        }
    }
    return sum / static_cast<double>(outputs.rows());
}

std::vector<double> scores_of(const matrix& outputs) {
    return {outputs.col(0).begin(), outputs.col(0).end()};
}

confusion classes_of(const dataset& data, const matrix& logits) {
    confusion counts = confusion::Zero(logits.cols(), logits.cols());
    for (Eigen::Index i = 0; i < logits.rows(); ++i) {
        Eigen::Index found;
        logits.row(i).maxCoeff(&found);
        const double right = data.targets[static_cast<std::size_t>(i)];
        counts(static_cast<Eigen::Index>(right), found) += 1;
    }
    return counts;
}

/// Some of the rows, in their order.
template <class Row>
void select(std::vector<Row>& rows, const selection& some) {
    if (rows.size() <= some.most) return;
    std::vector<Row> selected;
    std::mt19937_64 random(some.seed);
    std::sample(rows.begin(), rows.end(), std::back_inserter(selected), some.most, random);
    rows = std::move(selected);
}

} // namespace

task_kind task_of(const model& m) {
    if (m.is_per_token())
        throw std::invalid_argument(
            "the model has a head on tokens (" +
            std::string(m.head->stock ? m.head->stock->architecture : "ours") +
            "), which no task judges; to prune its encoder alone, save that as a plain model");
    return !m.head              ? task_kind::similarity
           : m.head->is_score() ? task_kind::regress
                                : task_kind::classify;
}

int dataset::classes() const {
    return targets.empty()
               ? 0
               : 1 + static_cast<int>(*std::max_element(targets.begin(), targets.end()));
}

dataset read_dataset(task_kind kind, const std::filesystem::path& file, const tokenizer& words,
                     const config& c, const selection& some) {
    dataset data{kind, {}, {}, {}, {}};
    const auto longest = static_cast<std::size_t>(c.max_tokens);
    switch (kind) {
    case task_kind::classify:
    case task_kind::regress: {
        std::vector<labelled_text> rows =
            read_labelled(file, !some.labels                  ? target_kind::none
                                : kind == task_kind::classify ? target_kind::label
                                                              : target_kind::score);
        select(rows, some);
        data.texts = tokenize(words, rows, c);
        for (const labelled_text& r : rows) {
            data.paired = data.paired || !r.second.empty();
            if (some.labels) data.targets.push_back(r.target);
        }
        break;
    }
    case task_kind::similarity: {
        std::vector<scored_pair> rows = read_pairs(file);
        double highest = 0;
        for (const scored_pair& r : rows) highest = std::max(highest, r.score);
        select(rows, some);
        for (const scored_pair& r : rows) {
            for (const std::string* text : {&r.first, &r.second})
                data.texts.push_back(words.encode(*text, longest));
            data.targets.push_back(highest > 0 ? std::max(0., r.score) / highest : 0.);
        }
        data.pairs = make_task(words, rows, longest);
        break;
    }
    case task_kind::distill: {
        std::vector<std::string> rows = read_documents(file);
        select(rows, some);
        data.texts = tokenize(words, rows, longest);
        break;
    }
    }
    return data;
}

void check_classes(const dataset& data, const std::filesystem::path& file, const model& m) {
    const Eigen::Index classes = m.head ? m.head->output.weight.rows() : 0;
    if (data.kind == task_kind::classify && data.classes() > classes)
        detail::fail(file, "has the label ", data.classes() - 1, ", the model ", classes,
                     " classes");
}

dataset hold_out(dataset& from, std::size_t each) {
    dataset held{from.kind, {}, {}, {}, {}, from.paired}, rest = held;
    const std::size_t texts = from.texts_each();
    for (std::size_t i = 0; i < from.size(); ++i) {
        dataset& to = i % each == each - 1 ? held : rest;
        for (std::size_t t = 0; t < texts; ++t) to.texts.push_back(from.texts[i * texts + t]);
        if (!from.targets.empty()) to.targets.push_back(from.targets[i]);
    }
    if (held.texts.empty())
        throw std::invalid_argument(std::to_string(from.size()) +
                                    " examples are too few to hold some out; give --evaluate");
    if (from.kind == task_kind::similarity) {
        held.pairs = similarity_task{held.texts, {}, held.targets};
        for (std::size_t i = 0; i < held.size(); ++i)
            held.pairs->pairs.emplace_back(2 * i, 2 * i + 1);
    }
    from = std::move(rest);
    return held;
}

void add_outputs(model& m, int outputs, std::uint64_t seed) {
    if (!m.head) {
        m.head.emplace();
        m.others.erase(
            std::remove_if(m.others.begin(), m.others.end(),
                           [](const tensor& t) { return t.name.rfind("classifier.", 0) == 0; }),
            m.others.end());
    }
    std::mt19937_64 random(seed);
    matrix& weight = m.head->output.weight;
    weight.resize(outputs, m.config.hidden);
    for (float& w : weight.reshaped<Eigen::RowMajor>())
        w = 0.04f * (static_cast<float>(random() >> 40) * 0x1p-24f - 0.5f);
    m.head->output.bias = vector::Zero(outputs);
}

double loss(const dataset& data, const std::vector<std::size_t>& examples, const matrix& outputs,
            matrix& gradient) {
    if (data.teacher.size() > 0) return imitate(data, examples, outputs, gradient);
    return (data.kind == task_kind::classify  ? classify
            : data.kind == task_kind::regress ? regress
                                              : similarity)(data, examples, outputs, gradient);
}

double measure(const dataset& data, const matrix& outputs) {
    return qualities(data, outputs)[0].value;
}

std::vector<quality> qualities(const dataset& data, const matrix& outputs) {
    if (data.pairs) {
        const correlations found = correlate(*data.pairs, outputs);
        return {{"Spearman", found.spearman}, {"Pearson", found.pearson}};
    }
    if (data.targets.empty()) {
        if (data.kind == task_kind::classify)
            return {{"same class", same_class(outputs, data.teacher)}};
        if (data.kind == task_kind::regress)
            return {{"correlation", pearson(scores_of(outputs), scores_of(data.teacher))}};
        return {{"cosine", mean_cosine(outputs, data.teacher)}};
    }
    if (data.kind == task_kind::regress) {
        const std::vector<double> scores = scores_of(outputs);
        return {{"Spearman", spearman(scores, data.targets)},
                {"Pearson", pearson(scores, data.targets)}};
    }
    const confusion counts = classes_of(data, outputs);
    return {{"Accuracy", accuracy(counts)}, {"F1", f1(counts)}, {"Matthews", matthews(counts)}};
}

quality likeness(const model& m, const matrix& dense, const matrix& pruned) {
    switch (task_of(m)) {
    case task_kind::classify:
        return {"same class as dense", same_class(dense, pruned)};
    case task_kind::regress:
        return {"correlation to dense", pearson(scores_of(dense), scores_of(pruned))};
    default:
        return {"cosine to dense", mean_cosine(dense, pruned)};
    }
}

const std::vector<sequence>& measured_texts(const dataset& data) {
    return data.pairs ? data.pairs->sequences : data.texts;
}

} // namespace encoder
