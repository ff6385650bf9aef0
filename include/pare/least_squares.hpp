// The sufficient statistics of layer-wise least squares.
#pragma once

#include "gram.hpp"
#include "ridge.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

template <class T>
struct no_weight {
    view<const T, 1> weights;
    constexpr bool operator()(index_t t) const {
        const auto weight = static_cast<double>(weights(t));
        return !is_finite(weight) || weight < 0;
    }
};

} // namespace detail

/// The sums that least squares from x [tokens x inputs] to y [tokens x outputs] needs; mergeable.
/// Memory: 8 bytes * inputs * (inputs + outputs).
class least_squares {
  public:
    least_squares(index_t inputs, index_t outputs)
        : xx_(inputs), xy_(inputs, outputs), x_(static_cast<std::size_t>(inputs), 0.0),
          y_(static_cast<std::size_t>(outputs), 0.0),
          y_squares_(static_cast<std::size_t>(outputs), 0.0) {}

    /// Adds tokens, from the policy's memory; the sums are in the host's. Throws shape_error, and
    /// value_error if a number is not finite; then nothing is added.
    template <class Policy, class X, class Y>
    void add(const Policy& policy, const X& x, const Y& y) {
        const auto vx = as_input<2>(policy, x);
        const auto vy = as_input<2>(policy, y);
        check_shapes(vx, vy);
        add_rows(policy, vx, vy, detail::column_sums(policy, ops::identity{}, vx),
                 detail::column_sums(policy, ops::identity{}, vy),
                 static_cast<double>(vx.extent(0)));
    }

    /// The same for tokens of which each counts as much as its weight, weights [tokens] >= 0.
    /// Scratch: a copy of x and y.
    template <class Policy, class X, class Y, class Weights>
    void add(const Policy& policy, const X& x, const Y& y, const Weights& weights) {
        const auto vx = as_input<2>(policy, x);
        const auto vy = as_input<2>(policy, y);
        const auto w = as_input<1>(policy, weights);
        using T = typename decltype(vx)::value_type;
        using W = typename decltype(w)::value_type;
        check_shapes(vx, vy);
        const index_t rows = vx.extent(0);
        if (w.extent(0) != rows)
            detail::fail<shape_error>("least_squares", w.extent(0), " weights for ", rows,
                                      " tokens");
        if (const index_t t = policy.first(rows, detail::no_weight<W>{w}); t >= 0)
            detail::fail<value_error>("least_squares", "the weight of token ", t, " is ",
                                      policy.read(&w(t)));
        workspace of_roots, of_x, of_y;
        const auto roots_memory = policy.template temporary<T>(of_roots, rows);
        const view<T, 1> roots(roots_memory.data(), rows);
        policy.transform(ops::square_root{}, roots, w);
        const auto scaled = [&](auto v, T* memory) {
            const view<T, 2> to(memory, rows, v.extent(1));
            policy.scale_rows(view<const T, 1>(roots), v, to);
            return view<const T, 2>(to);
        };
        const auto x_memory = policy.template temporary<T>(of_x, vx.size());
        const auto y_memory = policy.template temporary<T>(of_y, vy.size());
        const auto sx = scaled(vx, x_memory.data()), sy = scaled(vy, y_memory.data());
        const auto with_roots = [&](view<const T, 2> v) { // as wide as v, all columns the same
            const view<const T, 2> wide(roots.data_handle(), {rows, v.extent(1)}, {1, 0});
            return detail::column_sums(policy, ops::product{}, v, wide);
        };
        const view<const W, 2> column(w.data_handle(), {rows, 1}, {w.stride(0), 1});
        add_rows(policy, sx, sy, with_roots(sx), with_roots(sy),
                 detail::column_sums(policy, ops::identity{}, column)[0]);
    }

    void merge(const least_squares& other) {
        xy_.merge(other.xy_); // checks the shapes
        xx_.merge(other.xx_);
        add_to(x_, other.x_);
        add_to(y_, other.y_);
        add_to(y_squares_, other.y_squares_);
        weight_ += other.weight_;
        rounding_ = std::max(rounding_, other.rounding_);
        smallest_ = std::max(smallest_, other.smallest_);
    }

    index_t inputs() const { return static_cast<index_t>(x_.size()); }
    index_t outputs() const { return static_cast<index_t>(y_.size()); }
    index_t tokens() const { return xx_.rows(); }

    /// What rounding may leave of the variance of a constant input, relative to its mean square.
    double rounding() const { return rounding_; }

    // Means over tokens by their weights; second moments are not centred, of xx only the lower
    // triangle is valid.
    Eigen::VectorXd mean_x() const { return mean(x_); }
    Eigen::VectorXd mean_y() const { return mean(y_); }
    /// E |y|^2, summed over outputs.
    double mean_square_y() const { return mean(y_squares_).sum(); }
    /// E x x' [inputs x inputs].
    detail::row_major moment_xx() const { return moment(xx_.lower()); }
    /// E x y' [inputs x outputs].
    detail::row_major moment_xy() const { return moment(xy_.lower()); }
    /// E (x - E x) (x - E x)' [inputs x inputs], of which the lower triangle is valid. Inputs that
    /// vary no more than rounding explains are constant, and have zeros: what rounding leaves of
    /// them need not be a covariance.
    detail::row_major covariance() const {
        detail::row_major c = moment_xx();
        const Eigen::VectorXd mean = mean_x(), squares = c.diagonal();
        c.noalias() -= mean * mean.transpose();
        for (index_t i = 0; i < c.rows(); ++i)
            if (!(c(i, i) > rounding_ * squares(i) + smallest_)) {
                c.row(i).setZero();
                c.col(i).setZero();
            }
        return c;
    }

  private:
    template <class X, class Y>
    void check_shapes(const X& x, const Y& y) const {
        static_assert(std::is_same_v<typename X::value_type, typename Y::value_type>,
                      "pare::least_squares: x and y have one element type");
        if (x.extent(1) != inputs() || y.extent(1) != outputs() || y.extent(0) != x.extent(0))
            detail::fail<shape_error>("least_squares", "x is ", x.extent(0), " x ", x.extent(1),
                                      " and y ", y.extent(0), " x ", y.extent(1), ", expected ",
                                      inputs(), " inputs and ", outputs(), " outputs");
    }
    template <class Policy, class T>
    void add_rows(const Policy& policy, view<const T, 2> x, view<const T, 2> y,
                  const std::vector<double>& x_sums, const std::vector<double>& y_sums,
                  double weight) {
        const auto y_squares = detail::column_sums(policy, ops::square{}, y);
        xy_.add(policy, x, y); // checks all numbers first
        xx_.add(policy, x);
        add_to(x_, x_sums);
        add_to(y_, y_sums);
        add_to(y_squares_, y_squares);
        weight_ += weight;
        using limits = std::numeric_limits<std::conditional_t<std::is_same_v<T, double>, T, float>>;
        constexpr double epsilon = limits::epsilon();
        rounding_ = std::max(rounding_, 256 * epsilon);
        smallest_ = std::max(smallest_, limits::min() / epsilon);
    }
    double total() const { return weight_ > 0 ? weight_ : 1; }

    static void add_to(std::vector<double>& sums, const std::vector<double>& more) {
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
    }
    Eigen::VectorXd mean(const std::vector<double>& sums) const {
        return Eigen::Map<const Eigen::VectorXd>(sums.data(), static_cast<index_t>(sums.size())) /
               total();
    }
    detail::row_major moment(view<const double, 2> v) const {
        return Eigen::Map<const detail::row_major>(v.data_handle(), v.extent(0), v.extent(1)) /
               total();
    }

    gram<double> xx_, xy_;
    std::vector<double> x_, y_, y_squares_;
    double weight_ = 0, rounding_ = 0;
    double smallest_ = 0; // of squares, those that have all their digits
};

} // namespace PARE_ISA
} // namespace pare
