#include "outputs.hpp"

#include <pare/core/executor.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace encoder {
namespace {

using Eigen::Index;
using function = head::function;

/// As in PyTorch's normalize, a row of zeros stays as it is.
constexpr float shortest_length = 1e-12f;

/// A plain loop in double: a product of Eigen's is cut by the number of threads, and its last bits
/// with it. In parts, which a compiler may add up side by side.
double dot(Index n, const float* a, const float* b) {
    constexpr Index width = 8;
    std::array<double, width> parts{};
    Index j = 0;
    for (; j + width <= n; j += width)
        for (Index i = 0; i < width; ++i)
            parts[static_cast<std::size_t>(i)] +=
                static_cast<double>(a[j + i]) * static_cast<double>(b[j + i]);
    double sum = 0;
    for (; j < n; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
    for (const double part : parts) sum += part;
    return sum;
}

/// x weight' + bias
matrix apply(const dense& d, const matrix& x) {
    matrix y(x.rows(), d.weight.rows());
    pare::openmp{}.run(y.rows(), [&](Index s, Index) {
        for (Index k = 0; k < y.cols(); ++k)
            y(s, k) = static_cast<float>(
                static_cast<double>(d.bias(k)) +
                dot(x.cols(), x.data() + s * x.cols(), d.weight.data() + k * x.cols()));
    });
    return y;
}

/// gradient weight
matrix apply_backward(const dense& d, const matrix& gradient) {
    matrix result(gradient.rows(), d.weight.cols());
    pare::openmp{}.run(result.rows(), [&](Index s, Index) {
        Eigen::RowVectorXd sum = Eigen::RowVectorXd::Zero(result.cols());
        for (Index k = 0; k < gradient.cols(); ++k)
            sum += static_cast<double>(gradient(s, k)) * d.weight.row(k).cast<double>();
        result.row(s) = sum.cast<float>();
    });
    return result;
}

double distribution(double x) { // of the normal one
    return 0.5 * std::erfc(-x * std::sqrt(0.5));
}

double value(function f, double x) {
    return f == function::tanh   ? std::tanh(x)
           : f == function::relu ? std::max(0., x)
                                 : x * distribution(x);
}

double slope(function f, double x) {
    if (f == function::relu) return x > 0 ? 1 : 0;
    if (f == function::tanh) return 1 - std::tanh(x) * std::tanh(x);
    return distribution(x) + x * 0.3989422804014327 * std::exp(-0.5 * x * x);
}

matrix values(function f, const matrix& x) {
    return x.unaryExpr(
        [f](float v) { return static_cast<float>(value(f, static_cast<double>(v))); });
}

/// What embeddings are of, before they are scaled.
matrix projected(const model& m, const matrix& pooled) {
    if (!m.projection) return pooled;
    const matrix y = apply(m.projection->layer, pooled);
    return m.projection->tanh ? values(function::tanh, y) : y;
}

} // namespace

matrix outputs_of(const model& m, const matrix& pooled) {
    if (!m.head) {
        const matrix rows = projected(m, pooled);
        return rows.array().colwise() / rows.rowwise().norm().array().max(shortest_length);
    }
    const head& h = *m.head;
    return apply(h.output, h.before ? values(h.between, apply(*h.before, pooled)) : pooled);
}

outputs_gradient outputs_backward(const model& m, const matrix& pooled, const matrix& outputs,
                                  const matrix& gradient) {
    outputs_gradient found;
    if (!m.head) {
        const matrix rows = projected(m, pooled); // cheaper than to keep it
        const Eigen::ArrayXf lengths = rows.rowwise().norm().array().max(shortest_length);
        const Eigen::ArrayXf along = (outputs.array() * gradient.array()).rowwise().sum();
        matrix at_rows = (gradient.array() - outputs.array().colwise() * along).colwise() / lengths;
        if (m.projection && m.projection->tanh)
            at_rows = (at_rows.array() * (1 - rows.array().square())).matrix().eval();
        found.at_pooled = m.projection ? apply_backward(m.projection->layer, at_rows) : at_rows;
        return found;
    }
    const head& h = *m.head;
    found.at_pooled = apply_backward(h.output, gradient);
    if (!h.before) return found;
    const matrix before = apply(*h.before, pooled); // cheaper than to keep it
    found.inner = values(h.between, before);
    found.at_before = before.binaryExpr(found.at_pooled, [&](float x, float g) {
        return static_cast<float>(slope(h.between, static_cast<double>(x))) * g;
    });
    found.at_pooled = apply_backward(*h.before, found.at_before);
    return found;
}

} // namespace encoder
