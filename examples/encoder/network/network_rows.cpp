// What an engine does with rows, on the CPU.
#include "network.hpp"

#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>

namespace encoder {
namespace {

using Eigen::Index;

const matrix& matrix_of(const rows& x) {
    return *static_cast<const matrix*>(x.memory.get());
}
/// f(matrix) of x, in its own memory where nobody shares it.
template <class F>
void write(rows& x, const F& f) {
    if (!x.memory || x.memory.use_count() > 1) x.memory = std::make_shared<matrix>();
    matrix& to = *static_cast<matrix*>(x.memory.get());
    f(to);
    x.data = to.data();
    x.count = to.rows();
    x.columns = to.cols();
}

Eigen::Map<const matrix> all(const rows& x) {
    return {static_cast<const float*>(x.data), x.count, x.columns};
}
template <class Matrix>
rows rows_of(const Matrix& x) {
    return {nullptr, x.data(), x.rows(), x.cols()};
}

} // namespace

void network::embed(const batch& b, rows& x) {
    write(x, [&](matrix& to) { embed(b, to); });
}

void network::units(std::size_t l, unit_kind kind, const rows& x, const batch& b, rows& values) {
    write(values, [&](matrix& to) {
        kind == unit_kind::head ? attention(l, matrix_of(x), b, to)
                                : activation(l, matrix_of(x), to);
    });
}

void network::add_units(std::size_t l, unit_kind kind, const rows& values, const rows& x,
                        rows& sum) {
    write(sum, [&](matrix& to) {
        kind == unit_kind::head ? attention_residual(l, matrix_of(values), matrix_of(x), to)
                                : output_residual(l, matrix_of(values), matrix_of(x), to);
    });
}

void network::normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) {
    write(x, [&](matrix& to) {
        kind == unit_kind::head ? attention_norm(l, matrix_of(sum), to)
                                : output_norm(l, matrix_of(sum), to);
    });
}

void network::replace(std::size_t l, unit_kind kind, dense with) {
    kind == unit_kind::head ? replace_attention_output(l, std::move(with))
                            : replace_output(l, std::move(with));
}

void network::backward_units(const batch& b, const loss_gradient& loss, const unit_visitor& visit) {
    backward(b, loss, [&](const sublayer_gradients& found) {
        visit({found.layer, found.kind, rows_of(found.inputs), rows_of(found.at_inputs),
               rows_of(found.at_outputs)});
    });
}

void network::subtract(const rows& what, rows& from) {
    *static_cast<matrix*>(from.memory.get()) -= all(what);
}

matrix network::mask_gradients(const rows& x, const rows& gradient,
                               const std::vector<std::int64_t>& offsets, Index unit) {
    matrix sums(static_cast<Index>(offsets.size()) - 1, x.columns / unit);
    pare::mask_gradients(pare::simd, all(x), all(gradient), offsets, unit, sums);
    return sums;
}

matrix network::sample_sums(const rows& x, const std::vector<std::int64_t>& offsets) {
    matrix sums(static_cast<Index>(offsets.size()) - 1, x.columns);
    pare::sample_sums(pare::simd, all(x), offsets, sums);
    return sums;
}

std::vector<float> network::squared_lengths(const rows& x) {
    const vector squares = all(x).rowwise().squaredNorm();
    return {squares.begin(), squares.end()};
}

void network::add(const rows& x, pare::gram<double>& sums) {
    sums.add(pare::simd, all(x));
}

void network::add(const rows& x, const rows* y, const std::vector<float>& weights,
                  pare::least_squares& statistics) {
    const Eigen::Map<const matrix> targets(y ? static_cast<const float*>(y->data) : nullptr,
                                           x.count, y ? y->columns : 0);
    if (weights.empty())
        statistics.add(pare::simd, all(x), targets);
    else
        statistics.add(pare::simd, all(x), targets, weights);
}

} // namespace encoder
