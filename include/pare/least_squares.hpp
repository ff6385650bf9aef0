// The sufficient statistics of layer-wise least squares.
#pragma once

#include "gram.hpp"
#include "ridge.hpp"

#include <Eigen/Core>

#include <algorithm>
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
        const index_t rows = vx.extent(0);
        if (vx.extent(1) != inputs() || vy.extent(1) != outputs() || vy.extent(0) != rows)
            detail::fail<shape_error>("least_squares", "x is ", rows, " x ", vx.extent(1),
                                      " and y ", vy.extent(0), " x ", vy.extent(1), ", expected ",
                                      inputs(), " inputs and ", outputs(), " outputs");
        const index_t offsets[2] = {0, rows};
        const auto sums = [&](auto op, auto v) {
            std::vector<double> s(static_cast<std::size_t>(v.extent(1)));
            policy.segment_sums(op, offsets, 1, view<double, 2>(s.data(), 1, v.extent(1)), v);
            return s;
        };
        const auto sx = sums(ops::identity{}, vx), sy = sums(ops::identity{}, vy);
        const auto syy = sums(ops::square{}, vy);
        xy_.add(policy, vx, vy); // checks all numbers first
        xx_.add(policy, vx);
        add_to(x_, sx);
        add_to(y_, sy);
        add_to(y_squares_, syy);
        using T = typename decltype(vx)::value_type;
        constexpr bool is_double = std::is_same_v<T, double>;
        constexpr double epsilon = is_double ? std::numeric_limits<double>::epsilon()
                                             : std::numeric_limits<float>::epsilon();
        rounding_ = std::max(rounding_, 256 * epsilon);
    }

    void merge(const least_squares& other) {
        xy_.merge(other.xy_); // checks the shapes
        xx_.merge(other.xx_);
        add_to(x_, other.x_);
        add_to(y_, other.y_);
        add_to(y_squares_, other.y_squares_);
        rounding_ = std::max(rounding_, other.rounding_);
    }

    index_t inputs() const { return static_cast<index_t>(x_.size()); }
    index_t outputs() const { return static_cast<index_t>(y_.size()); }
    index_t tokens() const { return xx_.rows(); }

    /// What rounding may leave of the variance of a constant input, relative to its mean square.
    double rounding() const { return rounding_; }

    // Means over tokens; second moments are not centred, of xx only the lower triangle is valid.
    Eigen::VectorXd mean_x() const { return mean(x_); }
    Eigen::VectorXd mean_y() const { return mean(y_); }
    /// E |y|^2, summed over outputs.
    double mean_square_y() const { return mean(y_squares_).sum(); }
    /// E x x' [inputs x inputs].
    detail::row_major moment_xx() const { return moment(xx_.lower()); }
    /// E x y' [inputs x outputs].
    detail::row_major moment_xy() const { return moment(xy_.lower()); }

  private:
    static void add_to(std::vector<double>& sums, const std::vector<double>& more) {
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
    }
    Eigen::VectorXd mean(const std::vector<double>& sums) const {
        return Eigen::Map<const Eigen::VectorXd>(sums.data(), static_cast<index_t>(sums.size())) /
               static_cast<double>(std::max<index_t>(1, tokens()));
    }
    detail::row_major moment(view<const double, 2> v) const {
        return Eigen::Map<const detail::row_major>(v.data_handle(), v.extent(0), v.extent(1)) /
               static_cast<double>(std::max<index_t>(1, tokens()));
    }

    gram<double> xx_, xy_;
    std::vector<double> x_, y_, y_squares_;
    double rounding_ = 0;
};

} // namespace PARE_ISA
} // namespace pare
