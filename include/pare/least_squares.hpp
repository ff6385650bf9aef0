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

/// The sums that least squares from x [tokens x inputs] to y [tokens x outputs] needs; mergeable.
/// Memory: 8 bytes * inputs * (inputs + outputs).
class least_squares {
  public:
    least_squares(index_t inputs, index_t outputs)
        : xx_(inputs), xy_(inputs, outputs), x_(static_cast<std::size_t>(inputs), 0.0),
          y_(static_cast<std::size_t>(outputs), 0.0),
          y_squares_(static_cast<std::size_t>(outputs), 0.0) {}

    /// Adds tokens. Throws shape_error, and value_error if a number is not finite; then nothing is
    /// added.
    template <class Policy, class X, class Y>
    void add(const Policy& policy, const X& x, const Y& y) {
        const auto vx = as_input<2>(x);
        const auto vy = as_input<2>(y);
        check_shapes(vx, vy);
        add_rows(policy, vx, vy, sums(policy, ops::identity{}, vx),
                 sums(policy, ops::identity{}, vy), static_cast<double>(vx.extent(0)));
    }

    /// The same for tokens of which each counts as much as its weight, weights [tokens] >= 0.
    /// Scratch: a copy of x and y.
    template <class Policy, class X, class Y, class Weights>
    void add(const Policy& policy, const X& x, const Y& y, const Weights& weights) {
        const auto vx = as_input<2>(x);
        const auto vy = as_input<2>(y);
        const auto w = as_input<1>(weights);
        check_shapes(vx, vy);
        using T = typename decltype(vx)::value_type;
        const index_t rows = vx.extent(0);
        if (w.extent(0) != rows)
            detail::fail<shape_error>("least_squares", w.extent(0), " weights for ", rows,
                                      " tokens");
        std::vector<T> roots(static_cast<std::size_t>(rows));
        double weight = 0;
        for (index_t t = 0; t < rows; ++t) {
            const auto of_token = static_cast<double>(w(t));
            if (!detail::is_finite(of_token) || of_token < 0)
                detail::fail<value_error>("least_squares", "the weight of token ", t, " is ",
                                          of_token);
            roots[static_cast<std::size_t>(t)] = static_cast<T>(std::sqrt(of_token));
            weight += of_token;
        }
        const auto scaled = [&](auto v, std::vector<T>& memory) {
            memory.resize(static_cast<std::size_t>(rows * v.extent(1)));
            const view<T, 2> to(memory.data(), rows, v.extent(1));
            policy.executor().run(rows, [=, &roots](index_t t, index_t) {
                const T root = roots[static_cast<std::size_t>(t)];
                for (index_t j = 0; j < v.extent(1); ++j) to(t, j) = root * v(t, j);
            });
            return view<const T, 2>(memory.data(), rows, v.extent(1));
        };
        std::vector<T> of_x, of_y;
        const auto sx = scaled(vx, of_x), sy = scaled(vy, of_y);
        const auto with_roots = [&](auto v) { // as wide as v, all columns the same
            const view<const T, 2> wide(roots.data(), {rows, v.extent(1)}, {1, 0});
            return sums(policy, ops::product{}, v, wide);
        };
        add_rows(policy, sx, sy, with_roots(sx), with_roots(sy), weight);
    }

    void merge(const least_squares& other) {
        xy_.merge(other.xy_); // checks the shapes
        xx_.merge(other.xx_);
        add_to(x_, other.x_);
        add_to(y_, other.y_);
        add_to(y_squares_, other.y_squares_);
        weight_ += other.weight_;
        rounding_ = std::max(rounding_, other.rounding_);
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
    /// E (x - E x) (x - E x)' [inputs x inputs], of which the lower triangle is valid.
    detail::row_major covariance() const {
        detail::row_major c = moment_xx();
        const Eigen::VectorXd mean = mean_x();
        c.noalias() -= mean * mean.transpose();
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
    template <class Policy, class Op, class V, class... More>
    static std::vector<double> sums(const Policy& policy, Op op, const V& v, const More&... more) {
        const index_t offsets[2] = {0, v.extent(0)};
        std::vector<double> s(static_cast<std::size_t>(v.extent(1)));
        policy.segment_sums(op, offsets, 1, view<double, 2>(s.data(), 1, v.extent(1)), v, more...);
        return s;
    }
    template <class Policy, class T>
    void add_rows(const Policy& policy, view<const T, 2> x, view<const T, 2> y,
                  const std::vector<double>& x_sums, const std::vector<double>& y_sums,
                  double weight) {
        const auto y_squares = sums(policy, ops::square{}, y);
        xy_.add(policy, x, y); // checks all numbers first
        xx_.add(policy, x);
        add_to(x_, x_sums);
        add_to(y_, y_sums);
        add_to(y_squares_, y_squares);
        weight_ += weight;
        constexpr bool is_double = std::is_same_v<T, double>;
        constexpr double epsilon = is_double ? std::numeric_limits<double>::epsilon()
                                             : std::numeric_limits<float>::epsilon();
        rounding_ = std::max(rounding_, 256 * epsilon);
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
};

} // namespace PARE_ISA
} // namespace pare
