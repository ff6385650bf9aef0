// Directions of heads' vectors that a layer can do without.
#pragma once

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../core/workspace.hpp"
#include "../ridge.hpp"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>

#include <algorithm>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

inline row_major mirrored(row_major lower) {
    lower.triangularView<Eigen::StrictlyUpper>() = lower.transpose();
    return lower;
}

/// x y of whole matrices. Each kind of product, of blocks, of transposed and of products, takes a compiler
/// about as long as all of this file: small ones are copied first and come here.
template <class M>
M product(const M& x, const M& y) {
    return x * y;
}
inline row_major transposed(const row_major& x) {
    return x.transpose();
}

/// Heads from which directions are taken, of all as many at a time, while the output matrix makes up
/// for them.
template <class Policy>
class narrowing {
  public:
    /// `inverse` [inputs x inputs], its lower triangle valid, of G + r I; `outputs` [inputs x outputs],
    /// the transposed weight in the metric.
    narrowing(const Policy& policy, row_major inverse, row_major outputs, index_t size)
        : policy_(policy), size_(size), inverse_(mirrored(std::move(inverse))),
          outputs_(std::move(outputs)),
          left_(static_cast<std::size_t>(inverse_.rows() / size), row_major::Identity(size, size)),
          order_(left_.size(), row_major(size, 0)) {}

    /// Returns what a head costs.
    double remove_head(index_t head) {
        row_major directions = row_major::Zero(inverse_.rows(), size_);
        directions.middleRows(head * size_, size_).setIdentity();
        left_[static_cast<std::size_t>(head)] = row_major(size_, 0);
        return remove(directions).sum();
    }

    /// Takes the `some` cheapest directions from each head that has as many left, and returns what the
    /// first ones of all heads cost, then what the second ones cost, and so on.
    std::vector<double> narrow(index_t some) {
        const auto count = static_cast<index_t>(left_.size());
        const index_t having = std::count_if(left_.begin(), left_.end(),
                                             [](const row_major& left) { return left.cols() > 0; });
        row_major directions = row_major::Zero(inverse_.rows(), some * having);
        index_t at = 0;
        for (index_t b = 0; b < count; ++b) {
            row_major& left = left_[static_cast<std::size_t>(b)];
            if (left.cols() == 0) continue;
            const row_major turned = transposed(left);
            const row_major own = product<row_major>(
                turned,
                product<row_major>(inverse_.block(b * size_, b * size_, size_, size_), left));
            // u with the least |V'u|^2 / u'H u: with the part of H L L', u = L^-1' y.
            const Eigen::LLT<row_major> factor(own);
            if (factor.info() != Eigen::Success) not_definite();
            row_major scaled = product<row_major>(turned, outputs_.middleRows(b * size_, size_));
            row_major inverse = row_major::Identity(own.rows(), own.rows());
            factor.matrixL().solveInPlace(scaled);
            factor.matrixL().solveInPlace(inverse);
            const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> pairs(
                product(scaled, transposed(scaled)));
            if (pairs.info() != Eigen::Success) not_definite();
            const row_major cheapest =
                product<row_major>(transposed(inverse), pairs.eigenvectors().leftCols(some));
            const Eigen::HouseholderQR<Eigen::MatrixXd> complete(cheapest);
            const row_major basis =
                product<row_major>(left, Eigen::MatrixXd(complete.householderQ()));
            for (index_t i = 0; i < some; ++i)
                directions.block(b * size_, i * having + at, size_, 1) = basis.col(i);
            ++at;
            row_major& order = order_[static_cast<std::size_t>(b)];
            order.conservativeResize(size_, order.cols() + some);
            order.rightCols(some) = basis.leftCols(some);
            left = basis.rightCols(basis.cols() - some);
        }
        const Eigen::VectorXd costs = remove(directions);
        std::vector<double> sums;
        for (index_t i = 0; i < some; ++i) sums.push_back(costs.segment(i * having, having).sum());
        return sums;
    }

    /// The directions that a head has lost, the last one first, as rows.
    row_major last_first(index_t head) const {
        return order_[static_cast<std::size_t>(head)].rowwise().reverse().transpose();
    }

  private:
    [[noreturn]] static void not_definite() {
        fail<value_error>("eliminate_ranks", "directions of heads cannot be told apart; take a "
                                             "larger ridge");
    }

    /// With directions D [inputs x some] and D'H D = L L', what goes from H and from V are products of
    /// L^-1 D'H with itself and with L^-1 D'V, whose rows say what each one costs behind those before.
    Eigen::VectorXd remove(const row_major& directions) {
        const index_t some = directions.cols(), n = inverse_.rows(), d = outputs_.cols();
        if (some == 0) return {};
        row_major columns = row_major::Zero(some, n), weights = row_major::Zero(some, d);
        add(1, directions, inverse_, columns);
        add(1, directions, outputs_, weights);
        const Eigen::LLT<row_major> factor(product(columns, directions));
        if (factor.info() != Eigen::Success) not_definite();
        factor.matrixL().solveInPlace(columns);
        factor.matrixL().solveInPlace(weights);
        add(-1, columns, columns, inverse_);
        add(-1, columns, weights, outputs_);
        return weights.rowwise().squaredNorm() / 2;
    }
    /// to += by x'y
    void add(double by, const row_major& x, const row_major& y, row_major& to) {
        const auto all = [](auto& m) { return view<double, 2>(m.data(), m.rows(), m.cols()); };
        policy_.gram(by, as_input<2>(x), as_input<2>(y), all(to), false, scratch_);
    }

    const Policy& policy_;
    index_t size_;
    row_major inverse_, outputs_;
    std::vector<row_major> left_;  // of each head, orthonormal columns of what is left
    std::vector<row_major> order_; // and of what is gone
    workspace scratch_;
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
