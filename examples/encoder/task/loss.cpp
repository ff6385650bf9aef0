#include "loss.hpp"

#include <cmath>
#include <numeric>

namespace encoder {
namespace {

using Eigen::ArrayXf;
using Eigen::Index;

/// Of classes, of which some may have the logit minus infinity: that exp() makes of it is not 0.
ArrayXf softmax(const ArrayXf& logits, ArrayXf& logarithms) {
    const ArrayXf lower = logits - logits.maxCoeff();
    ArrayXf powers = lower.exp();
    powers = lower.isInf().select(0, powers);
    logarithms = lower - std::log(powers.sum());
    powers = logarithms.exp();
    return lower.isInf().select(0, powers);
}

double cross_entropy(const ArrayXf& logits, Index right, float n, ArrayXf& gradient) {
    ArrayXf found;
    gradient = softmax(logits, found) / n;
    if (std::isinf(found(right))) {
        gradient.setZero();
        return 0;
    }
    gradient(right) -= 1 / n;
    return -static_cast<double>(found(right));
}

double divergence(const ArrayXf& logits, const ArrayXf& teacher, float n, ArrayXf& gradient) {
    ArrayXf found, expected;
    const ArrayXf p = softmax(logits.isInf().select(logits, teacher), expected);
    gradient = (softmax(logits, found) - p) / n;
    return static_cast<double>(logits.isInf().select(0, p * (expected - found)).sum());
}

/// The rows of some examples among those of all.
std::vector<Index> rows_of(const dataset& data, const std::vector<std::size_t>& examples) {
    std::vector<Index> rows;
    const auto add = [&](std::size_t from, std::size_t to) {
        for (std::size_t r = from; r < to; ++r) rows.push_back(static_cast<Index>(r));
    };
    const std::size_t each = data.texts_each();
    if (data.is_per_token()) {
        const std::vector<std::size_t> first = data.first_rows();
        for (const std::size_t e : examples) add(first[e], first[e + 1]);
    } else {
        for (const std::size_t e : examples) add(e * each, (e + 1) * each);
    }
    return rows;
}

double regress(const dataset& data, const std::vector<std::size_t>& examples, const matrix& scores,
               matrix& gradient) {
    double sum = 0;
    const auto n = static_cast<double>(examples.size());
    for (std::size_t i = 0; i < examples.size(); ++i) {
        const auto at = static_cast<Index>(i);
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
        const auto a = static_cast<Index>(2 * i), b = a + 1;
        const double error =
            static_cast<double>(e.row(a).dot(e.row(b))) - data.targets[examples[i]];
        const auto slope = static_cast<float>(2 * error / static_cast<double>(examples.size()));
        gradient.row(a) = slope * e.row(b);
        gradient.row(b) = slope * e.row(a);
        sum += error * error;
    }
    return sum / static_cast<double>(examples.size());
}

/// Each row's classes.
double classify(const dataset& data, const std::vector<std::size_t>& examples, const matrix& logits,
                matrix& gradient) {
    double sum = 0;
    const std::vector<Index> rows = rows_of(data, examples);
    const auto n = static_cast<float>(counted(data, examples));
    ArrayXf slope;
    for (Index at = 0; at < logits.rows(); ++at) {
        const Index row = rows[static_cast<std::size_t>(at)];
        const ArrayXf found = logits.row(at).transpose();
        if (data.teacher.size() > 0)
            sum += divergence(found, data.teacher.row(row).transpose(), n, slope);
        else if (const double right = data.targets[static_cast<std::size_t>(row)];
                 right == dataset::no_tag)
            slope.setZero(found.size());
        else
            sum += cross_entropy(found, static_cast<Index>(right), n, slope);
        gradient.row(at) = slope.transpose();
    }
    return n > 0 ? sum / static_cast<double>(n) : 0;
}

/// Each text's tokens as classes, by both columns.
double answer(const dataset& data, const std::vector<std::size_t>& examples, const matrix& logits,
              matrix& gradient) {
    double sum = 0;
    const std::vector<std::size_t> first = data.first_rows();
    const float n = 2 * static_cast<float>(examples.size());
    ArrayXf slope;
    Index at = 0;
    for (const std::size_t e : examples) {
        const auto tokens = static_cast<Index>(data.rows(e));
        for (Index side = 0; side < 2; ++side) {
            const ArrayXf found = logits.col(side).segment(at, tokens);
            if (data.teacher.size() > 0)
                sum += divergence(
                    found, data.teacher.col(side).segment(static_cast<Index>(first[e]), tokens), n,
                    slope);
            else
                sum += cross_entropy(
                    found, static_cast<Index>(data.targets[2 * e + static_cast<std::size_t>(side)]),
                    n, slope);
            gradient.col(side).segment(at, tokens) = slope;
        }
        at += tokens;
    }
    return sum / (2 * static_cast<double>(examples.size()));
}

/// Scores or embeddings like the teacher's.
double imitate(const dataset& data, const std::vector<std::size_t>& examples, const matrix& outputs,
               matrix& gradient) {
    double sum = 0;
    const std::vector<Index> rows = rows_of(data, examples);
    const auto n = static_cast<float>(outputs.rows());
    for (Index at = 0; at < outputs.rows(); ++at) {
        const auto teacher = data.teacher.row(rows[static_cast<std::size_t>(at)]);
        if (data.kind == task_kind::regress) {
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

} // namespace

std::size_t counted(const dataset& data, const std::vector<std::size_t>& examples) {
    if (data.kind != task_kind::tag) return examples.size();
    std::size_t sum = 0;
    for (const Index row : rows_of(data, examples))
        sum += data.teacher.size() > 0 ||
               data.targets[static_cast<std::size_t>(row)] != dataset::no_tag;
    return sum;
}

double loss(const dataset& data, const std::vector<std::size_t>& examples, const matrix& outputs,
            matrix& gradient) {
    switch (data.kind) {
    case task_kind::classify:
    case task_kind::tag:
        return classify(data, examples, outputs, gradient);
    case task_kind::answer:
        return answer(data, examples, outputs, gradient);
    default:
        return (data.teacher.size() > 0           ? imitate
                : data.kind == task_kind::regress ? regress
                                                  : similarity)(data, examples, outputs, gradient);
    }
}

} // namespace encoder
