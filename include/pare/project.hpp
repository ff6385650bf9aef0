// Rank inside heads: a head's vectors made of fewer numbers, which of them it needs least, and what
// is lost with each of those that are left out.
//
// Let a head's vector x be replaced by P x, P = up down of a rank r below its size. Changes of the
// model's loss are g' (P - I) x to first order, g being its gradient at x. Where x and g do not depend
// on each other, half the mean of their squares over tokens is
//
//     1/2 tr(M (I - P) S (I - P)'),   S = E x x',   M = E g g',
//
// in the unit of pare::eliminate, so that heads, filters and ranks can share a budget.
//
// Queries and keys: x is a query with its bias, g the gradient at it, that of the logits times keys.
// Softmax's gradients at the logits of a query sum up to 0, which centres the keys; all that lies
// between the logits and the model's loss is in g. The logits q'k become (down q)' (up' k):
//
//     query W, b -> down W, down b        key W, b -> up' W, up' b
//
// both times rank_factor(r, size) if what runs them divides by sqrt(r) where it divided by sqrt(size).
//
// Values and outputs: x is the head's context, less its mean, for which the output's bias makes up,
// and g the gradient at it: M = W' C W for the metric C at what the output matrix W gives. Since
// attention's weights of a query sum up to 1, biases go along:
//
//     value W, b -> down W, down b        output W -> W up
//
// There, other heads can make up for what one loses: eliminate_ranks.
#pragma once

#include "eliminate.hpp"
#include "project/narrowing.hpp"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What makes a head's vector of fewer numbers: x ~ up (down x). The first r rows of `down` and the
/// first r columns of `up` are those of r numbers; with all, x is what it was.
struct head_maps {
    detail::row_major down, up; ///< [size x size]
};

/// One head's.
struct projection : head_maps {
    std::vector<double>
        loss; ///< [size + 1] with so many numbers left out; loss[0] = 0, never falls
};

/// Those of a layer's heads, each of which leaves out as many numbers.
struct rank_curve {
    std::vector<double> loss;     ///< [size + 1] with so many left out of each head; never falls
    std::vector<head_maps> heads; ///< of those kept
};

namespace detail {

/// Rows of `down` and columns of `up` that belong together made equally long, so that neither gets
/// far from 1 where the other does.
inline void balance(head_maps& maps) {
    for (index_t i = 0; i < maps.down.rows(); ++i) {
        const double down = maps.down.row(i).norm(), up = maps.up.col(i).norm();
        if (!(down > 0) || !(up > 0)) continue;
        maps.down.row(i) *= std::sqrt(up / down);
        maps.up.col(i) *= std::sqrt(down / up);
    }
}

/// Eigenvalues and vectors of a matrix that is positive semidefinite but for rounding. A template, so
/// that the solver is compiled only where it is called.
template <class M>
Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> semidefinite(const char* function, const char* name,
                                                            const M& of) {
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> found(of);
    const Eigen::VectorXd& values = found.eigenvalues();
    if (found.info() != Eigen::Success || values(0) < -1e-6 * std::abs(values(values.size() - 1)))
        fail<value_error>(function, name, " [", of.rows(), " x ", of.cols(),
                          "] is not positive semidefinite");
    return found;
}

/// What heads' values lose at each rank, from any heads on.
template <class Policy>
class values_problem {
  public:
    template <class G, class C, class W>
    values_problem(const char* function, const Policy& policy, G&& covariance, const C& metric,
                   const W& weight, index_t size, double ridge, index_t step)
        : policy_(policy), size_(size), step_(step) {
        if (size < 1 || step < 1 || step > size)
            fail<shape_error>(function, "a step of ", step, ", a unit ", size);
        metric_problem problem(function, policy, std::forward<G>(covariance), metric, weight, size,
                               ridge);
        heads_ = as_input<2>(weight).extent(1) / size;
        if (problem.inputs.size() == 0) return;
        own_ = problem.inputs;
        if (!invert(policy, problem.inputs)) detail::not_definite(function, own_.rows(), ridge);
        inverse_ = std::move(problem.inputs);
        outputs_ = std::move(problem.outputs);
    }

    index_t heads() const { return heads_; }

    /// Some of the heads are gone, and cost `loss`.
    struct state {
        narrowing<Policy> of;
        std::vector<std::uint8_t> stays;
        double loss = 0;
    };
    state start() const {
        return {narrowing<Policy>(policy_, inverse_, outputs_, size_),
                std::vector<std::uint8_t>(static_cast<std::size_t>(heads_), 1)};
    }
    void remove_head(index_t head, state& from) const {
        from.stays[static_cast<std::size_t>(head)] = 0;
        if (own_.size() > 0) from.loss += from.of.remove_head(head);
    }
    rank_curve curve(state from) const {
        rank_curve found;
        found.loss.push_back(from.loss);
        for (index_t k = 0; k < size_; k += step_) {
            const index_t some = std::min(step_, size_ - k);
            const std::vector<double> costs =
                own_.size() > 0 ? from.of.narrow(some)
                                : std::vector<double>(static_cast<std::size_t>(some));
            for (const double cost : costs) found.loss.push_back(found.loss.back() + cost);
        }
        const row_major all = row_major::Identity(size_, size_);
        for (index_t b = 0; b < heads_; ++b)
            if (from.stays[static_cast<std::size_t>(b)])
                found.heads.push_back(own_.size() > 0 ? maps(from.of, b) : head_maps{all, all});
        return found;
    }

  private:
    /// The last r directions, which span what r numbers keep, each less its share of those behind it:
    /// uncorrelated, so that `up` of r numbers is a part of that of more.
    head_maps maps(const narrowing<Policy>& of, index_t b) const {
        const row_major s = mirrored(own_.block(b * size_, b * size_, size_, size_));
        head_maps found{of.last_first(b), {}};
        const Eigen::LLT<row_major> factor(product(product(found.down, s), transposed(found.down)));
        factor.matrixL().solveInPlace(found.down);
        found.up = product(s, transposed(found.down));
        balance(found);
        return found;
    }

    const Policy& policy_;
    index_t size_, step_, heads_ = 0;
    row_major own_, inverse_, outputs_; // empty: nothing varies, or nothing reads it
};

} // namespace detail

/// The maps of each rank that lose least, by themselves: nothing else makes up for them.
///
/// moments  S [size x size], the lower triangle is read: of queries E q q', of contexts their
///          covariance. Tokens may be weighted
/// metric   M [size x size], the lower triangle is read: the mean of g g', g the gradient at the
///          vector
///
/// Throws shape_error, and value_error for numbers that are not finite and matrices that are not
/// positive semidefinite. Directions in which x does not vary cost nothing. Complexity: size^3.
/// Source: for queries and keys MoDeGPT (arXiv:2408.09632), whose metric is that of the logits, with
/// the covariance of keys for M.
template <class S, class M>
projection project(const S& moments, const M& metric) {
    const auto in_s = as_input<2>(moments);
    const auto in_m = as_input<2>(metric);
    const index_t n = in_s.extent(0);
    if (in_s.extent(1) != n || in_m.extent(0) != n || in_m.extent(1) != n)
        detail::fail<shape_error>("project", "the moments are ", n, " x ", in_s.extent(1),
                                  ", the metric ", in_m.extent(0), " x ", in_m.extent(1));
    const auto s = detail::mirrored(detail::finite_matrix("project", "moments", in_s, true));
    const auto m = detail::mirrored(detail::finite_matrix("project", "metric", in_m, true));
    projection found;
    found.loss.push_back(0);
    if (n == 0) return found;
    const auto of_x = detail::semidefinite("project", "moments", s);
    detail::semidefinite("project", "metric", m);
    // S = F F'. What does not vary does so a little, so that F has an inverse.
    const double largest = of_x.eigenvalues()(n - 1);
    const Eigen::VectorXd roots =
        of_x.eigenvalues().cwiseMax(largest > 0 ? 1e-14 * largest : 1).cwiseSqrt();
    const detail::row_major vectors = of_x.eigenvectors();
    detail::row_major f = vectors, inverse = vectors;
    for (index_t i = 0; i < n; ++i) {
        f.col(i) *= roots(i);
        inverse.col(i) /= roots(i);
    }
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> of_both(
        detail::product(detail::product(detail::transposed(f), m), f));
    const detail::row_major v = of_both.eigenvectors().rowwise().reverse();
    found.up = detail::product(f, v);
    found.down = detail::transposed(detail::product(inverse, v));
    detail::balance(found);
    for (index_t k = 0; k < n; ++k) {
        const double square = largest > 0 ? std::max(of_both.eigenvalues()(k), 0.0) : 0;
        found.loss.push_back(found.loss.back() + square / 2);
    }
    return found;
}

/// Takes from every head of a layer one direction after another of what its output matrix reads,
/// always that without which the output can be had at the least loss when the matrix is fitted anew
/// for what all heads have left: pare::eliminate inside heads, of all as many.
///
/// covariance, metric, weight, ridge  as for pare::eliminate
/// size  inputs of one head, side by side
/// kept  [heads] 0 for heads that are gone before; {}: none. loss[0] is what they cost, and
///       loss[size] what all do
/// step  directions that heads lose before others are looked for, from 1 to `size`
///
/// The maps of a head are those that lose least of its own values where the matrix is not fitted anew.
/// Throws as pare::eliminate does. Complexity: size * heads * inputs * (inputs + outputs) and
/// size * inputs * size * (size / step + outputs) multiply-adds in double; memory: 8 bytes * inputs *
/// (inputs + 3 outputs).
template <class Policy, class G, class C = view<const double, 2>, class W,
          class Kept = view<const std::uint8_t, 1>>
rank_curve eliminate_ranks(const Policy& policy, G&& covariance, const C& metric, const W& weight,
                           index_t size, const Kept& kept = {}, double ridge = 1e-2,
                           index_t step = 1) {
    const detail::values_problem<Policy> problem(
        "eliminate_ranks", policy, std::forward<G>(covariance), metric, weight, size, ridge, step);
    const auto mask = as_input<1>(kept);
    if (mask.extent(0) != 0 && mask.extent(0) != problem.heads())
        detail::fail<shape_error>("eliminate_ranks", "a mask of ", mask.extent(0),
                                  " heads, there are ", problem.heads());
    auto state = problem.start();
    for (index_t b = 0; b < problem.heads(); ++b)
        if (mask.extent(0) != 0 && !mask(b)) problem.remove_head(b, state);
    return problem.curve(std::move(state));
}

/// That for each number of heads kept, [heads + 1], the first one's of none: the last to go by `heads`,
/// of pare::eliminate, whose losses are not read. The rest as for eliminate_ranks, each number of heads
/// costing as much; value_error also for an order in which a head goes twice or is none.
template <class Policy, class G, class C, class W>
std::vector<rank_curve> rank_curves(const Policy& policy, G&& covariance, const C& metric,
                                    const W& weight, index_t size, const loss_curve& heads,
                                    double ridge = 1e-2, index_t step = 1) {
    const detail::values_problem<Policy> problem("rank_curves", policy, std::forward<G>(covariance),
                                                 metric, weight, size, ridge, step);
    if (heads.units() != problem.heads())
        detail::fail<shape_error>("rank_curves", "a curve of ", heads.units(), " heads, there are ",
                                  problem.heads());
    detail::units_left("rank_curves", heads.order, heads.units()); // checks them
    std::vector<rank_curve> found;
    auto state = problem.start();
    for (index_t gone = 0; gone <= heads.units(); ++gone) {
        if (gone > 0) problem.remove_head(heads.order[static_cast<std::size_t>(gone - 1)], state);
        found.push_back(problem.curve(state));
    }
    std::reverse(found.begin(), found.end());
    return found;
}

/// Which of a head's maps.
enum class head_map {
    down, ///< its first rows: of queries and values
    up    ///< its first columns, transposed: of keys and, of the transposed output matrix, outputs
};

/// out[h * rank + i, :] = factor * sum over j of map(i, j) weight[h * size + j, :], map being [rank x
/// size]: what makes a head's vectors, or reads them, for those of fewer numbers. A bias is a matrix of
/// one column. `factor` is rank_factor(rank, size) for queries and for keys.
///
/// maps    [heads], head_maps or projections
/// weight  [heads * size x columns], out x in; the transposed view of an output matrix
/// out     [heads * rank x columns], other memory than that of `weight`
///
/// Throws shape_error. Complexity: heads * rank * size * columns multiply-adds in double.
template <class Maps, class W, class Out>
void narrow_rows(const std::vector<Maps>& maps, head_map which, index_t rank, const W& weight,
                 Out&& out, double factor = 1) {
    const auto w = as_input<2>(weight);
    const auto o = as_output<2>(std::forward<Out>(out));
    using T = typename decltype(o)::value_type;
    detail::check_real<T>();
    const auto heads = static_cast<index_t>(maps.size());
    const index_t size = heads > 0 ? maps[0].down.cols() : 0, columns = w.extent(1);
    const bool alike = std::all_of(maps.begin(), maps.end(), [&](const head_maps& m) {
        return m.down.rows() == size && m.down.cols() == size && m.up.rows() == size &&
               m.up.cols() == size;
    });
    if (!alike || rank < 0 || rank > size || w.extent(0) != heads * size ||
        o.extent(0) != heads * rank || o.extent(1) != columns)
        detail::fail<shape_error>("narrow_rows", heads, " heads of ", size, " numbers made of ",
                                  rank, ", the weight is ", w.extent(0), " x ", columns, ", out ",
                                  o.extent(0), " x ", o.extent(1));
    for (index_t h = 0; h < heads; ++h) {
        const head_maps& of = maps[static_cast<std::size_t>(h)];
        for (index_t i = 0; i < rank; ++i)
            for (index_t c = 0; c < columns; ++c) {
                double sum = 0;
                for (index_t j = 0; j < size; ++j)
                    sum += (which == head_map::down ? of.down(i, j) : of.up(j, i)) *
                           detail::to_double(w(h * size + j, c));
                o(h * rank + i, c) = detail::from_double<T>(factor * sum);
            }
    }
}

/// What queries and keys are both multiplied by where attention divides logits by the root of their
/// size, which was `size` and is `rank`.
inline double rank_factor(index_t rank, index_t size) {
    return std::sqrt(std::sqrt(static_cast<double>(rank) / static_cast<double>(size)));
}

} // namespace PARE_ISA
} // namespace pare
