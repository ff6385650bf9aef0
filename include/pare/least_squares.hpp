// The sufficient statistics of layer-wise least squares.
#pragma once

#include "core/checks.hpp"
#include "gram.hpp"
#include "least_squares/settled_rows.hpp"
#include "policy/seq.hpp"
#include "ridge.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

template <class T>
struct no_weight {
    view<const T, 1> weights;
    constexpr bool operator()(index_t t) const {
        const auto weight = static_cast<double>(static_cast<compute_t<T>>(weights(t)));
        return !is_finite(weight) || weight < 0;
    }
};

} // namespace detail

/// The sums that least squares from x [tokens x inputs] to y [tokens x outputs] needs; mergeable.
/// What they are asked for are means over tokens, each by its weight, and never sums. What reads
/// inputs alone, as pare::eliminate does, needs no targets: least_squares(inputs) has no outputs,
/// and add(policy, x) no y.
///
/// They are sums over rows less a shift, which is the mean of the first rows, or of all so far where
/// that is more than four deviations away: what they lose to rounding is in proportion to how much
/// inputs and outputs vary, however large their means. Rows of float and of half types are shifted
/// and weighted in float, and multiplied as `gram` says: the covariance is positive semidefinite up
/// to some 1e-6 of its diagonal, of rows of double up to rounding in double.
///
/// Memory: 8 bytes * inputs * (inputs + outputs), on the host and, until the sums are asked for, on a
/// GPU that adds to them. During a call, what `gram` takes then and 2,048 of its rows in the type that
/// they are summed in; on a GPU all of them, there.
class least_squares {
    friend struct detail::saved; // prune/statistics_file.hpp
    friend class query_statistics;
    friend struct sublayer_statistics; // which checks all its parts before it merges one

    void check_merge(const least_squares& other) const {
        if (other.inputs() != inputs() || other.outputs() != outputs())
            detail::fail<shape_error>("least_squares", "merge: ", other.inputs(), " inputs and ",
                                      other.outputs(), " outputs into ", inputs(), " and ",
                                      outputs());
    }

  public:
    /// Throws shape_error for a negative number, or for more than any memory has room for.
    explicit least_squares(index_t inputs, index_t outputs = 0) {
        if (inputs < 0 || outputs < 0)
            detail::fail<shape_error>("least_squares", inputs, " inputs and ", outputs, " outputs");
        const auto count = [](index_t rows, index_t columns) {
            return detail::count_of<double>("least_squares", rows, columns);
        };
        count(outputs, 1); // all that there are without inputs
        xx_ = detail::kept_sums<double>(count(inputs, inputs));
        xy_ = detail::kept_sums<double>(count(inputs, outputs));
        x_ = detail::shifted_sums(inputs);
        y_ = detail::shifted_sums(outputs);
    }

    /// Adds tokens, from the policy's memory. Each counts as much as its weight, weights [tokens] >=
    /// 0, in the type that rows are summed in; {}: all alike. y is {} where there are no outputs.
    /// Throws shape_error, and value_error if a number is not finite; then nothing is added. Where
    /// memory ends, a part of them may be.
    template <class Policy, class X, class Y = detail::none, class Weights = detail::none>
    void add(const Policy& policy, const X& x, const Y& y = {}, const Weights& weights = {}) {
        detail::check_whole(policy);
        const auto vx = as_input<2>(policy, x);
        const auto vy = targets(policy, vx, y);
        using C = compute_t<typename decltype(vx)::value_type>;
        check_shapes(vx, vy);
        const index_t rows = vx.extent(0);
        if constexpr (std::is_same_v<Weights, detail::none>) {
            add_rows(policy, vx, vy, view<const C, 1>());
        } else {
            const auto w = as_input<1>(policy, weights);
            using W = typename decltype(w)::value_type;
            if (w.extent(0) != rows)
                detail::fail<shape_error>("least_squares", w.extent(0), " weights for ", rows,
                                          " tokens");
            if (const index_t t = policy.first(rows, detail::no_weight<W>{w}); t >= 0)
                detail::fail<value_error>(
                    "least_squares", "the weight of token ", t, " is ",
                    static_cast<double>(static_cast<compute_t<W>>(policy.read(&w(t)))));
            if (rows == 0) return;
            workspace of_roots;
            const auto memory = policy.template temporary<C>(of_roots, rows);
            const view<C, 1> roots(memory.data(), rows);
            policy.transform(ops::square_root{}, roots, w);
            add_rows(policy, vx, vy, view<const C, 1>(roots));
        }
    }

    /// Adds what another accumulator of the same shape has seen; exact up to rounding.
    void merge(const least_squares& other) {
        check_merge(other);
        if (!(weight_ > 0)) { // no sums that are of another shift
            x_.shift = other.x_.shift;
            y_.shift = other.y_.shift;
        }
        add_moved(other);
    }

    index_t inputs() const { return static_cast<index_t>(x_.sums.size()); }
    index_t outputs() const { return static_cast<index_t>(y_.sums.size()); }
    index_t tokens() const { return tokens_; }

    // Means over tokens by their weights. With no tokens, zeros.
    Eigen::VectorXd mean_x() const { return vector(x_.shift) + mean_of(x_); }
    Eigen::VectorXd mean_y() const { return vector(y_.shift) + mean_of(y_); }
    /// E (x - E x) (x - E x)' [inputs x inputs]. Inputs that vary no more than 16 roundings of
    /// their mean, or whose squares of deviations have not all digits (of float below 1e-16), are
    /// constant, and have zeros, here and in covariance_xy.
    detail::row_major covariance() const {
        detail::row_major c = matrix(xx_.here(), inputs());
        const Eigen::VectorXd mean = mean_of(x_);
        c.noalias() -= mean * mean.transpose();
        const Eigen::VectorXd means = mean_x();
        for (index_t i = 0; i < c.rows(); ++i)
            if (is_constant(c(i, i), means(i))) {
                c.row(i).setZero();
                c.col(i).setZero();
            }
        c.triangularView<Eigen::StrictlyUpper>() = c.transpose();
        return c;
    }
    /// E (x - E x) (y - E y)' [inputs x outputs].
    detail::row_major covariance_xy() const {
        detail::row_major c = matrix(xy_.here(), outputs());
        const std::vector<double>& xx = xx_.here();
        const Eigen::VectorXd mean = mean_of(x_), means = mean_x();
        c.noalias() -= mean * mean_of(y_).transpose();
        for (index_t i = 0; i < c.rows(); ++i)
            if (is_constant(xx[static_cast<std::size_t>(i * (inputs() + 1))] / total() -
                                mean(i) * mean(i),
                            means(i)))
                c.row(i).setZero();
        return c;
    }
    /// E |y - E y|^2, summed over outputs.
    double variance_y() const {
        return std::max(vector(y_.squares).sum() / total() - mean_of(y_).squaredNorm(), 0.0);
    }
    /// E x x' [inputs x inputs], E x y' [inputs x outputs] and E |y|^2: not centred, for layers
    /// without a bias.
    detail::row_major moment_xx() const { return covariance() + mean_x() * mean_x().transpose(); }
    detail::row_major moment_xy() const {
        return covariance_xy() + mean_x() * mean_y().transpose();
    }
    double mean_square_y() const { return variance_y() + mean_y().squaredNorm(); }

  private:
    template <class Policy, class T, class Y>
    static auto targets([[maybe_unused]] const Policy& policy, const view<const T, 2>& x,
                        [[maybe_unused]] const Y& y) {
        if constexpr (std::is_same_v<Y, detail::none>)
            return view<const T, 2>(nullptr, x.extent(0), 0);
        else
            return as_input<2>(policy, y);
    }
    template <class X, class Y>
    void check_shapes(const X& x, const Y& y) const {
        static_assert(std::is_same_v<typename X::value_type, typename Y::value_type>,
                      "pare::least_squares: x and y have one element type");
        if (x.extent(1) != inputs() || y.extent(1) != outputs() || y.extent(0) != x.extent(0))
            detail::fail<shape_error>("least_squares", "x is ", x.extent(0), " x ", x.extent(1),
                                      " and y ", y.extent(0), " x ", y.extent(1), ", expected ",
                                      inputs(), " inputs and ", outputs(), " outputs");
    }

    template <class Policy, class T, class C>
    void add_rows(const Policy& policy, view<const T, 2> x, view<const T, 2> y,
                  view<const C, 1> roots) {
        const index_t rows = x.extent(0);
        if (rows == 0) return;
        // On a GPU all rows: each look at a chunk's numbers waits.
        const index_t chunk = std::min(rows, Policy::on_host ? index_t{2048} : rows);
        detail::settled_rows<Policy, T> call(policy, x, y, roots, chunk, x_, y_, weight_);
        move_shift(call.x.sums.shift, call.y.sums.shift);
        workspace scratch; // not kept: there may be an accumulator for each layer
        for (index_t t = 0; t < rows; t += chunk) {
            const index_t count = std::min(chunk, rows - t);
            const view<const C, 2> some_x = call.x.rows.get(t, count),
                                   some_y = call.y.rows.get(t, count);
            detail::add_product(policy, some_x, some_y, xy_, false, scratch);
            detail::add_product(policy, some_x, some_x, xx_, true, scratch);
        }
        x_.add(call.x.sums);
        y_.add(call.y.sums);
        weight_ += call.weight();
        tokens_ += rows;
        using limits = std::numeric_limits<C>;
        epsilon_ = std::max(epsilon_, static_cast<double>(limits::epsilon()));
        smallest_ = std::max(smallest_, static_cast<double>(limits::min() / limits::epsilon()));
    }

    /// Makes the sums those of rows less another shift.
    void move_shift(std::vector<double> x_shift, std::vector<double> y_shift) {
        if (!(weight_ > 0)) {
            x_.shift = std::move(x_shift);
            y_.shift = std::move(y_shift);
        } else if (x_shift != x_.shift || y_shift != y_.shift) {
            least_squares moved(inputs(), outputs());
            moved.x_.shift = std::move(x_shift);
            moved.y_.shift = std::move(y_shift);
            moved.add_moved(*this);
            *this = std::move(moved);
        }
    }
    /// Adds the sums of another, as if its rows had been less this one's shift.
    void add_moved(const least_squares& other) {
        const Eigen::VectorXd dx = vector(other.x_.shift) - vector(x_.shift),
                              dy = vector(other.y_.shift) - vector(y_.shift);
        const auto &sx = other.x_.sums, &sy = other.y_.sums;
        const double weight = other.weight_;
        const index_t n = inputs(), m = outputs();
        const auto at = [](index_t i) { return static_cast<std::size_t>(i); };
        std::vector<double>&xx = xx_.here(), &xy = xy_.here();
        const std::vector<double>&more_xx = other.xx_.here(), &more_xy = other.xy_.here();
        for (index_t i = 0; i < n; ++i) {
            const double all = sx[at(i)] + weight * dx(i);
            for (index_t j = 0; j <= i; ++j)
                xx[at(i * n + j)] += more_xx[at(i * n + j)] + (all * dx(j) + dx(i) * sx[at(j)]);
            for (index_t j = 0; j < m; ++j)
                xy[at(i * m + j)] += more_xy[at(i * m + j)] + (all * dy(j) + dx(i) * sy[at(j)]);
        }
        x_.add(other.x_.moved(x_.shift, weight));
        y_.add(other.y_.moved(y_.shift, weight));
        weight_ += weight;
        tokens_ += other.tokens_;
        epsilon_ = std::max(epsilon_, other.epsilon_);
        smallest_ = std::max(smallest_, other.smallest_);
    }

    double total() const { return weight_ > 0 ? double{weight_} : 1; }
    bool is_constant(double variance, double mean) const {
        const double rounding = 16 * epsilon_ * mean;
        return !(variance > rounding * rounding + smallest_);
    }

    static Eigen::Map<const Eigen::VectorXd> vector(const std::vector<double>& x) {
        return {x.data(), static_cast<index_t>(x.size())};
    }
    Eigen::VectorXd mean_of(const detail::shifted_sums& side) const {
        return vector(side.sums) / total();
    }
    detail::row_major matrix(const std::vector<double>& x, index_t columns) const {
        return Eigen::Map<const detail::row_major>(x.data(), inputs(), columns) / total();
    }

    detail::kept_sums<double> xx_, xy_; // rows of inputs; of xx the lower triangle
    detail::shifted_sums x_, y_;
    detail::owned<index_t> tokens_;
    detail::owned<double> weight_;
    // Of the element types: what rounding is relative to, and of squares, those with all digits.
    double epsilon_ = 0, smallest_ = 0;
};

} // namespace PARE_ISA
} // namespace pare
