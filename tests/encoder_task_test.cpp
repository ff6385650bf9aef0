// Losses: against their formulas in double, and their gradients against finite differences.
#include "support.hpp"

#include <encoder/task/task.hpp>

#include <cmath>

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
