// Losses: against their formulas in double, and their gradients against finite differences.
#include "support.hpp"

#include <encoder/task/loss.hpp>

#include <cmath>

namespace encoder_task_test {

using namespace encoder;
using Eigen::Index;
using plain = Eigen::MatrixXd;

namespace {

encoder::matrix random_rows(Index rows, Index columns, bool unit, random_source& random) {
    encoder::matrix x(rows, columns);
    for (float& v : x.reshaped()) v = random.uniform<float>(-2, 2);
    if (unit) x.rowwise().normalize();
    return x;
}

Eigen::VectorXd probabilities(const plain& logits, Index row) {
    const Eigen::VectorXd e = logits.row(row).transpose().array().exp();
    return e / e.sum();
}

/// Mean over examples, whose outputs are in the order of `examples`.
double reference(const dataset& data, const std::vector<std::size_t>& examples, const plain& out) {
    const bool classifies = data.kind == task_kind::classify, taught = data.teacher.size() > 0;
    const std::size_t each = data.kind == task_kind::similarity ? 2 : 1;
    double sum = 0;
    Index row = 0;
    for (const std::size_t e : examples) {
        double of_example = 0;
        for (std::size_t text = e * each; text < (e + 1) * each; ++text, ++row) {
            if (taught && classifies) {
                const Eigen::VectorXd p = probabilities(data.teacher.cast<double>(),
                                                        static_cast<Index>(text)),
                                      q = probabilities(out, row);
                of_example += (p.array() * (p.array() / q.array()).log()).sum();
            } else if (taught) {
                of_example +=
                    1 - out.row(row).dot(data.teacher.row(static_cast<Index>(text)).cast<double>());
            } else if (classifies) {
                of_example -=
                    std::log(probabilities(out, row)(static_cast<Index>(data.targets[e])));
            }
        }
        if (!taught && !classifies) {
            const double error = out.row(row - 2).dot(out.row(row - 1)) - data.targets[e];
            of_example = 2 * error * error;
        }
        sum += of_example / static_cast<double>(each);
    }
    return sum / static_cast<double>(examples.size());
}

} // namespace

TEST_CASE("losses are as defined, and their gradients equal finite differences") {
    random_source random;
    CAPTURE(random);
    const task_kind kind = GENERATE(task_kind::classify, task_kind::similarity, task_kind::distill);
    const bool taught = GENERATE(true, false);
    if (kind == task_kind::distill && !taught) return; // has no targets
    CAPTURE(kind, taught);
    const Index columns = kind == task_kind::classify ? 3 : 8, examples = 7;
    const Index texts = kind == task_kind::similarity ? 2 * examples : examples;
    const bool unit = kind != task_kind::classify;
    dataset data{kind, std::vector<sequence>(static_cast<std::size_t>(texts)), {}, {}, {}};
    if (taught) data.teacher = random_rows(texts, columns, unit, random);
    if (kind != task_kind::distill)
        for (Index i = 0; i < examples; ++i)
            data.targets.push_back(kind == task_kind::classify
                                       ? static_cast<double>(random.integer(0, columns - 1))
                                       : random.uniform(0, 1));
    const std::vector<std::size_t> some = {5, 0, 3};
    const Index rows = 3 * texts / examples;
    const encoder::matrix outputs = random_rows(rows, columns, unit, random);
    encoder::matrix gradient = encoder::matrix::Constant(rows, columns, NAN);
    const double found = loss(data, some, outputs, gradient);

    plain x = outputs.cast<double>();
    CHECK_THAT(found, WithinAbs(reference(data, some, x), 1e-6));
    for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < columns; ++j) {
            const double h = 1e-5, before = x(i, j);
            x(i, j) = before + h;
            const double above = reference(data, some, x);
            x(i, j) = before - h;
            const double below = reference(data, some, x);
            x(i, j) = before;
            CHECK_THAT(static_cast<double>(gradient(i, j)),
                       WithinAbs((above - below) / (2 * h), 1e-5));
        }
}

TEST_CASE(
    "what a teacher gives has no loss, and logits so large that they overflow have a finite one") {
    dataset data{task_kind::classify, std::vector<sequence>(2), {0, 1}, {}, {}};
    encoder::matrix logits(2, 2), gradient(2, 2);
    logits << 1e4f, -1e4f, -3e4f, 3e4f;
    CHECK(loss(data, {0, 1}, logits, gradient) == 0);
    CHECK(gradient.isZero());
    data.teacher = logits;
    CHECK(loss(data, {0, 1}, logits, gradient) == 0);
    CHECK(gradient.isZero());
    CHECK_THAT(loss(data, {1, 0}, logits, gradient), WithinRel(4e4, 1e-6));
}

namespace {

/// Cross entropy with the row `right`, or divergence from the teacher's of the rows that are there, of
/// a column of logits as classes.
double of_classes(const Eigen::VectorXd& logits, const Eigen::VectorXd* teacher, Index right) {
    double sum = 0, of_teacher = 0;
    for (Index i = 0; i < logits.size(); ++i) {
        sum += std::exp(logits(i));
        if (teacher != nullptr && std::isfinite(logits(i))) of_teacher += std::exp((*teacher)(i));
    }
    if (teacher == nullptr) return std::isfinite(logits(right)) ? std::log(sum) - logits(right) : 0;
    double found = 0;
    for (Index i = 0; i < logits.size(); ++i)
        if (std::isfinite(logits(i))) {
            const double p = std::exp((*teacher)(i)) / of_teacher;
            found += p * (std::log(p) - (logits(i) - std::log(sum)));
        }
    return found;
}

} // namespace

TEST_CASE("losses of tokens are as defined, and their gradients equal finite differences") {
    random_source random;
    CAPTURE(random);
    const task_kind kind = GENERATE(task_kind::tag, task_kind::answer);
    const bool taught = GENERATE(true, false), gone = GENERATE(true, false);
    CAPTURE(kind, taught, gone);
    if (kind == task_kind::tag && gone) return;
    const bool tags = kind == task_kind::tag;
    dataset data{kind, {sequence(3), sequence(1), sequence(6), sequence(4)}, {}, {}, {}};
    const std::vector<std::size_t> first = data.first_rows(), some = {2, 0, 3};
    const Index columns = tags ? 5 : 2, rows = static_cast<Index>(first.back());
    CHECK(rows == 14);
    if (taught) data.teacher = random_rows(rows, columns, false, random);
    if (!taught && tags)
        for (Index i = 0; i < rows; ++i)
            data.targets.push_back(i % 3 == 1 ? dataset::no_tag
                                              : static_cast<double>(random.integer(0, 4)));
    if (!taught && !tags)
        for (const sequence& text : data.texts)
            for (int side = 0; side < 2; ++side)
                data.targets.push_back(static_cast<double>(
                    random.integer(0, static_cast<std::int64_t>(text.size()) - 1)));
    encoder::matrix outputs = random_rows(13, columns, false, random);
    if (gone) {
        outputs.row(1).setConstant(-INFINITY);
        outputs(7, 1) = -INFINITY;
        if (!taught) data.targets[4] = 1; // the right first token of text 2 is gone
    }
    const auto expected = [&](const plain& out) {
        double sum = 0, count = 0;
        Index row = 0;
        for (const std::size_t e : some) {
            const auto n = static_cast<Index>(data.texts[e].size()),
                       from = static_cast<Index>(first[e]);
            if (tags)
                for (Index t = 0; t < n; ++t) {
                    Eigen::VectorXd teacher;
                    if (taught) teacher = data.teacher.row(from + t).cast<double>().transpose();
                    const double right =
                        taught ? 0 : data.targets[static_cast<std::size_t>(from + t)];
                    if (right == dataset::no_tag) continue;
                    sum += of_classes(out.row(row + t).transpose(), taught ? &teacher : nullptr,
                                      static_cast<Index>(right));
                    count += 1;
                }
            else
                for (Index side = 0; side < 2; ++side) {
                    Eigen::VectorXd teacher;
                    if (taught) teacher = data.teacher.col(side).segment(from, n).cast<double>();
                    sum += of_classes(
                        out.col(side).segment(row, n), taught ? &teacher : nullptr,
                        taught ? 0
                               : static_cast<Index>(
                                     data.targets[2 * e + static_cast<std::size_t>(side)]));
                    count += 1;
                }
            row += n;
        }
        return sum / count;
    };
    encoder::matrix gradient = encoder::matrix::Constant(13, columns, NAN);
    CHECK_THAT(loss(data, some, outputs, gradient),
               WithinAbs(expected(outputs.cast<double>()), 1e-5));
    constexpr double step = 1e-5;
    for (Index i = 0; i < outputs.rows(); ++i)
        for (Index j = 0; j < columns; ++j) {
            plain up = outputs.cast<double>(), down = up;
            if (std::isinf(up(i, j))) {
                CHECK(gradient(i, j) == 0);
                continue;
            }
            up(i, j) += step;
            down(i, j) -= step;
            CHECK_THAT(static_cast<double>(gradient(i, j)),
                       WithinAbs((expected(up) - expected(down)) / (2 * step), 1e-5));
        }
    CHECK(counted(data, some) == (!tags ? 3u : taught ? 13u : 8u));
}

TEST_CASE("a batch without tags has no loss") {
    const dataset data{task_kind::tag, {sequence(2)}, {dataset::no_tag, dataset::no_tag}, {}, {}};
    encoder::matrix gradient = encoder::matrix::Constant(2, 3, NAN);
    CHECK(loss(data, {0}, encoder::matrix::Ones(2, 3), gradient) == 0);
    CHECK(gradient == encoder::matrix::Zero(2, 3));
}

} // namespace encoder_task_test
