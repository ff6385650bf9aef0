// Which units least squares can do without: the order of their removal and what it costs when the
// weights of the rest make up for it.
#pragma once

#include "loss_curve.hpp"
#include "policy/seq.hpp"
#include "ridge.hpp"

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Units leave one by one; what their leaving does to the rest is kept as a few columns until there
/// are enough of them for a matrix product. Rows and columns of units that are gone are taken out
/// then.
template <class Policy>
class elimination {
  public:
    /// `inverse` [inputs x inputs], its lower triangle valid, of G + r I; `outputs` [inputs x
    /// outputs], the transposed weight in the metric.
    elimination(const Policy& policy, row_major inverse, row_major outputs, index_t unit)
        : policy_(policy), unit_(unit), inverse_(std::move(inverse)), outputs_(std::move(outputs)),
          columns_(block_columns(), inverse_.rows()), weights_(block_columns(), outputs_.cols()) {
        left_.resize(static_cast<std::size_t>(inverse_.rows() / unit));
        std::iota(left_.begin(), left_.end(), index_t{0});
    }

    loss_curve run() {
        loss_curve curve;
        curve.loss.push_back(0);
        while (!left_.empty()) {
            begin_block();
            while (pending_ < block_columns() && !all_gone()) {
                const index_t next = cheapest();
                curve.loss.push_back(curve.loss.back() + remove(next) / 2);
                curve.order.push_back(left_[static_cast<std::size_t>(next)]);
                gone_[static_cast<std::size_t>(next)] = true;
            }
            end_block();
        }
        return curve;
    }

  private:
    static constexpr index_t block = 64;
    index_t block_columns() const { return (block + unit_ - 1) / unit_ * unit_; }
    index_t rows() const { return static_cast<index_t>(left_.size()) * unit_; }
    bool all_gone() const { return pending_ == rows(); }
    row_major_map inverse() {
        return map_rows({inverse_.data(), {rows(), rows()}, {inverse_.cols(), 1}});
    }

    /// Of every unit, its block of the inverse and of the products of its outputs.
    void begin_block() {
        const index_t n = rows();
        pending_ = 0;
        gone_.assign(left_.size(), false);
        // Not resize(), after which Eigen 3.4 frees twice where memory is short.
        own_inverse_ = row_major(n, unit_);
        own_products_ = row_major(n, unit_);
        shared_ = row_major(n, unit_);
        const auto h = inverse();
        for (index_t u = 0; u < n; u += unit_) {
            own_inverse_.middleRows(u, unit_) =
                row_major(h.block(u, u, unit_, unit_)).template selfadjointView<Eigen::Lower>();
            const auto v = outputs_.middleRows(u, unit_);
            own_products_.middleRows(u, unit_) = v.lazyProduct(v.transpose());
        }
    }

    /// tr(V_u H_uu^-1 V_u').
    double cost(index_t u) const {
        const index_t i = u * unit_;
        if (unit_ == 1) return own_products_(i, 0) / own_inverse_(i, 0);
        const Eigen::LLT<row_major> factor(own_inverse_.middleRows(i, unit_));
        return factor.solve(own_products_.middleRows(i, unit_)).trace();
    }

    index_t cheapest() const {
        index_t best = -1;
        double least = 0;
        for (index_t u = 0; u < static_cast<index_t>(left_.size()); ++u) {
            if (gone_[static_cast<std::size_t>(u)]) continue;
            const double c = cost(u);
            if (best < 0 || c < least) {
                best = u;
                least = c;
            }
        }
        return best;
    }

    /// Removes a unit and returns what it cost: with H_uu = L L', the columns H_:u L'^-1 and the
    /// weights V_u L'^-1 are pending, whose products are to be subtracted from H and V.
    double remove(index_t u) {
        const index_t n = rows(), at = u * unit_;
        auto h = inverse();
        const auto before = columns_.topRows(pending_).leftCols(n);
        const auto weights_before = weights_.topRows(pending_);
        auto column = columns_.middleRows(pending_, unit_).leftCols(n);
        auto weight = weights_.middleRows(pending_, unit_);
        for (index_t c = 0; c < unit_; ++c) {
            column.row(c).head(at + c) = h.row(at + c).head(at + c);
            column.row(c).tail(n - at - c) = h.col(at + c).tail(n - at - c).transpose();
            column.row(c).noalias() -= before.col(at + c).transpose() * before;
            weight.row(c) = outputs_.row(at + c);
            weight.row(c).noalias() -= before.col(at + c).transpose() * weights_before;
        }
        const Eigen::LLT<row_major> factor(own_inverse_.middleRows(at, unit_));
        factor.matrixL().solveInPlace(column);
        factor.matrixL().solveInPlace(weight);

        // What the rest have in common with the weights that go, as it is now.
        row_major with_before(pending_, unit_), squares(unit_, unit_);
        for (index_t c = 0; c < unit_; ++c) {
            with_before.col(c).noalias() = weights_before * weight.row(c).transpose();
            squares.col(c).noalias() = weight * weight.row(c).transpose();
        }
        constexpr index_t chunk = 128;
        run_allocating(policy_.executor(), (n + chunk - 1) / chunk, [&](index_t task, index_t) {
            const index_t first = task * chunk, some = std::min(chunk, n - first);
            for (index_t c = 0; c < unit_; ++c) {
                Eigen::VectorXd sums = outputs_.middleRows(first, some) * weight.row(c).transpose();
                sums.noalias() -= before.middleCols(first, some).transpose() * with_before.col(c);
                shared_.col(c).segment(first, some) = sums;
            }
        });
        if (unit_ == 1) { // the same, without matrices of one number
            const auto mine = column.row(0).transpose().array();
            own_inverse_.col(0).array() -= mine.square();
            own_products_.col(0).array() -=
                mine * (2 * shared_.col(0).array() - squares(0, 0) * mine);
        }
        for (index_t v = 0; unit_ > 1 && v < n; v += unit_) {
            const auto mine = column.middleCols(v, unit_); // [unit x unit]
            const auto common = shared_.middleRows(v, unit_);
            own_inverse_.middleRows(v, unit_) -= mine.transpose().lazyProduct(mine);
            own_products_.middleRows(v, unit_) -= common.lazyProduct(mine);
            own_products_.middleRows(v, unit_) -= mine.transpose().lazyProduct(
                row_major(common.transpose() - squares.lazyProduct(mine)));
        }
        pending_ += unit_;
        return squares.trace();
    }

    void end_block() {
        const index_t n = rows(), d = outputs_.cols();
        const view<const double, 2> columns(columns_.data(), {pending_, n}, {columns_.cols(), 1});
        policy_.gram(-1.0, columns, columns,
                     view<double, 2>(inverse_.data(), {n, n}, {inverse_.cols(), 1}), true,
                     scratch_);
        policy_.gram(-1.0, columns, view<const double, 2>(weights_.data(), pending_, d),
                     view<double, 2>(outputs_.data(), n, d), false, scratch_);
        std::vector<index_t> rows_left;
        std::vector<index_t> units_left;
        for (std::size_t u = 0; u < left_.size(); ++u) {
            if (gone_[u]) continue;
            units_left.push_back(left_[u]);
            for (index_t c = 0; c < unit_; ++c)
                rows_left.push_back(static_cast<index_t>(u) * unit_ + c);
        }
        for (std::size_t i = 0; i < rows_left.size(); ++i) { // forwards, so that it can be in place
            const auto to = static_cast<index_t>(i);
            for (std::size_t j = 0; j <= i; ++j)
                inverse_(to, static_cast<index_t>(j)) = inverse_(rows_left[i], rows_left[j]);
            if (rows_left[i] != to) outputs_.row(to) = outputs_.row(rows_left[i]);
        }
        left_ = std::move(units_left);
    }

    const Policy& policy_;
    index_t unit_, pending_ = 0;
    row_major inverse_, outputs_; // of the units left, at the front
    row_major columns_, weights_; // pending, a row each
    row_major own_inverse_, own_products_, shared_;
    std::vector<index_t> left_; // units
    std::vector<bool> gone_;    // of those, in this block
    workspace scratch_;
};

/// Overwrites the lower triangle of g with that of its inverse; false if g is not positive
/// definite. Reads the lower triangle; what is above it is of no use afterwards.
template <class Policy>
bool invert(const Policy& policy, row_major& g) {
    const index_t n = g.rows();
    if (n < 1) return true;
    workspace scratch;
    if (!factor_cholesky(policy, view<double, 2>(g.data(), n, n), scratch)) return false;
    // G = U'U, with U above the diagonal and on it. The inverse of U' is a lower triangle, of which a
    // block of columns begins at the diagonal: it goes below, and the diagonals change at the end.
    constexpr index_t columns = 64, rows = 256;
    run_allocating(policy.executor(), (n + columns - 1) / columns, [&](index_t task, index_t) {
        const index_t j = task * columns, width = std::min(columns, n - j);
        row_major part = row_major::Identity(n - j, width);
        g.bottomRightCorner(n - j, n - j)
            .template triangularView<Eigen::Upper>()
            .transpose()
            .solveInPlace(part);
        g.block(j, j, width, width).template triangularView<Eigen::StrictlyLower>() =
            part.topRows(width);
        g.block(j + width, j, n - j - width, width) = part.bottomRows(n - j - width);
    });
    g.diagonal() = g.diagonal().cwiseInverse();
    // The inverse of G is the transpose of that times itself, added up over its rows, of which none
    // is read again: what stood there makes room for the sums.
    row_major block(std::min(rows, n), n);
    for (index_t i = 0; i < n; i += rows) {
        const index_t some = std::min(rows, n - i), m = i + some;
        block.topLeftCorner(some, m) = g.block(i, 0, some, m);
        block.block(0, i, some, some).template triangularView<Eigen::StrictlyUpper>().setZero();
        g.block(i, 0, some, m).setZero();
        const view<const double, 2> x(block.data(), {some, m}, {n, 1});
        policy.gram(1.0, x, x, view<double, 2>(g.data(), {m, m}, {n, 1}), true, scratch);
    }
    return true;
}

/// Whether all of a lower triangle is 0: a matrix whose diagonal adds up to 0 is not, if it is not
/// definite.
inline bool is_zero(const row_major& lower) {
    for (index_t i = 0; i < lower.rows(); ++i)
        for (index_t j = 0; j <= i; ++j)
            if (lower(i, j) != 0) return false;
    return true;
}

/// F with F'F = C + as little of the identity as rounding in C asks for, up to 1e-4 of its mean
/// diagonal.
inline row_major square_root(const char* function, const row_major& c) {
    if (is_zero(c)) return row_major::Zero(c.rows(), c.cols());
    const double mean_diagonal = c.diagonal().mean();
    for (double share = 1e-10; share < 2e-4; share *= 100) {
        row_major more = c;
        more.diagonal().array() += share * mean_diagonal;
        const Eigen::LLT<row_major> factor(more);
        if (factor.info() == Eigen::Success) return factor.matrixU();
    }
    fail<value_error>(function, "the metric [", c.rows(), " x ", c.cols(),
                      "] is not positive semidefinite");
}

/// A copy of `from`, or a temporary matrix itself; of a `lower` one what is above its diagonal is
/// not read. Throws value_error for a number that is not finite.
template <class Matrix>
row_major finite_matrix(const char* function, const char* name, Matrix&& matrix, bool lower) {
    row_major own;
    if constexpr (std::is_same_v<Matrix, row_major>) {
        own = std::move(matrix);
    } else {
        const auto from = as_input<2>(matrix);
        own = row_major(from.extent(0), from.extent(1));
        for (index_t i = 0; i < own.rows(); ++i)
            for (index_t j = 0; j < (lower ? i + 1 : own.cols()); ++j)
                own(i, j) = to_double(from(i, j));
    }
    for (index_t i = 0; i < own.rows(); ++i)
        for (index_t j = 0; j < (lower ? i + 1 : own.cols()); ++j)
            if (!is_finite(own(i, j)))
                fail<value_error>(function, name, "(", i, ", ", j, ") is ", own(i, j));
    return own;
}

[[noreturn]] inline void not_definite(const char* function, index_t inputs, double ridge) {
    fail<value_error>(function, "the covariance [", inputs, " x ", inputs, "] with a ridge of ",
                      ridge, " is not positive definite");
}

/// A sublayer as eliminate takes it, checked.
struct metric_problem {
    row_major inputs;  ///< G + r I [inputs x inputs], its lower triangle; empty: nothing varies, or
                       ///< nothing reads it
    row_major outputs; ///< [inputs x outputs] the transposed weight in the metric

    template <class Policy, class G, class C, class W>
    metric_problem(const char* function, const Policy& policy, G&& covariance, const C& metric,
                   const W& weight, index_t unit, double ridge) {
        check_whole(policy);
        static_assert(Policy::on_host,
                      "pare: elimination works on statistics in the host's memory; take a policy "
                      "of the host, such as pare::seq");
        const auto g = as_input<2>(covariance);
        const auto c = as_input<2>(metric);
        const auto w = as_input<2>(weight);
        const index_t columns = w.extent(1), rows = w.extent(0);
        const bool identity = c.extent(0) == 0 && c.extent(1) == 0;
        if (g.extent(0) != columns || g.extent(1) != columns || unit < 1 || columns % unit != 0 ||
            (!identity && (c.extent(0) != rows || c.extent(1) != rows)))
            fail<shape_error>(function, "the weight is ", rows, " x ", columns, ", the covariance ",
                              g.extent(0), " x ", g.extent(1), ", the metric ", c.extent(0), " x ",
                              c.extent(1), ", a unit ", unit);
        if (!is_finite(ridge) || ridge < 0) fail<value_error>(function, "the ridge is ", ridge);
        row_major in_metric = finite_matrix(function, "weight", w, false);
        if (!identity)
            in_metric =
                square_root(function, finite_matrix(function, "metric", c, true)) * in_metric;
        inputs = finite_matrix(function, "covariance", std::forward<G>(covariance), true);
        if (is_zero(inputs) || rows == 0) {
            inputs = row_major();
            return;
        }
        inputs.diagonal().array() += ridge * inputs.diagonal().mean();
        outputs = in_metric.transpose();
    }
};

} // namespace detail

/// Removes the units that read a sublayer's inputs x, always the one without which the output
/// y = W x + b can be had at the least loss, when W of the units left and b are fitted anew. The
/// loss of weights W + D is
///
///     1/2 tr(C D (G + r I) D'),   r = ridge * mean diagonal of G,
///
/// which is 1/2 the mean of (g' dy)^2 a token, where inputs and gradients g do not depend on each
/// other. Nothing is solved again: each removal changes the inverse of G + r I in closed form.
///
/// covariance  G [inputs x inputs] of x over tokens, weighted if wished; the lower triangle is read.
///             Of a layer without a bias, which makes up for no mean, the moments E x x'. What
///             least_squares returns is worked on where it is, anything else is copied
/// metric      C [outputs x outputs], the mean of g g' over tokens, g the gradient of the model's
///             loss at y; the lower triangle is read. {}: the identity, for models that cannot run
///             backwards
/// weight      W [outputs x inputs]
/// unit        inputs of one unit, side by side: head size, or 1 for filters
///
/// Throws shape_error, and value_error for numbers that are not finite, a ridge that is negative,
/// a metric that is not positive semidefinite and G + r I that is not positive definite. Inputs
/// that do not vary at all cost nothing, in any order.
/// Complexity: inputs^3 + inputs^2 outputs multiply-adds in double; memory: 8 bytes * inputs *
/// (inputs + 2 outputs). Source: optimal brain surgeon with the K-FAC metric, as in "LLM Surgeon"
/// (arXiv:2312.17244, section 3) without its updates of the weights.
template <class Policy, class G, class C = view<const double, 2>, class W>
loss_curve eliminate(const Policy& policy, G&& covariance, const C& metric, const W& weight,
                     index_t unit = 1, double ridge = 1e-2) {
    detail::metric_problem problem("eliminate", policy, std::forward<G>(covariance), metric, weight,
                                   unit, ridge);
    const index_t inputs = as_input<2>(weight).extent(1);
    if (problem.inputs.size() == 0)
        return sorted_losses(std::vector<double>(static_cast<std::size_t>(inputs / unit), 0.0));
    if (!detail::invert(policy, problem.inputs)) detail::not_definite("eliminate", inputs, ridge);
    return detail::elimination<Policy>(policy, std::move(problem.inputs),
                                       std::move(problem.outputs), unit)
        .run();
}

} // namespace PARE_ISA
} // namespace pare
