// Making up for pruned units: layer-wise least squares on the matrix that reads the kept ones.
//
// A sublayer adds W x + b to the residual stream, x being the outputs of its units (heads' context,
// FFN activation). After pruning, W and b are refitted so that the pruned network gives what the
// dense one gave: feed `least_squares` with the pruned network's own x at its own input and with
// the target
//
//     y = (residual + W x + b) of the dense model - residual of the pruned one,
//
// solve, put the result into the model, and go on with the next sublayer behind it.
#pragma once

#include "core/checks.hpp"
#include "least_squares.hpp"
#include "policy/seq.hpp"
#include "ridge.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <string>

namespace pare {
inline namespace PARE_ISA {

/// What tuning a layer gained, or why it did not.
struct tune_result {
    /// Why the layer was left as it was; empty if it was tuned.
    std::string failure;
    /// Mean squared error of W x + b against y over the tokens, per token, before and after.
    double error_before = 0, error_after = 0;
    /// E |y - E y|^2: what a bias alone would leave.
    double variance = 0;

    explicit operator bool() const { return failure.empty(); }
};

namespace detail {

/// Whether numbers are finite in the type that they will be written in.
template <class To, class M>
bool all_finite(const M& m) {
    for (index_t i = 0; i < m.size(); ++i)
        if (!is_finite(static_cast<compute_t<To>>(from_double<To>(m.data()[i])))) return false;
    return true;
}

/// A weight and its bias in double, and the algebra of tuning them: compiled once a policy,
/// whatever views the user has.
struct tuned_layer {
    row_major w; // [outputs x inputs]
    Eigen::VectorXd b;
    bool biased; // or b stays 0

    template <class W, class B>
    tuned_layer(const char* name, const least_squares& s, W weight, B bias, double ridge)
        : biased(bias.extent(0) > 0) {
        if (weight.extent(0) != s.outputs() || weight.extent(1) != s.inputs() ||
            (biased && bias.extent(0) != s.outputs()))
            fail<shape_error>(name, "weight is ", weight.extent(0), " x ", weight.extent(1),
                              ", bias has ", bias.extent(0), ", the statistics have ", s.outputs(),
                              " outputs and ", s.inputs(), " inputs");
        if (!is_finite(ridge) || ridge < 0) fail<value_error>(name, "the ridge is ", ridge);
        w.resize(weight.extent(0), weight.extent(1));
        b.setZero(weight.extent(0));
        for (index_t i = 0; i < w.rows(); ++i)
            for (index_t j = 0; j < w.cols(); ++j) w(i, j) = to_double(weight(i, j));
        for (index_t i = 0; i < bias.extent(0); ++i) b(i) = to_double(bias(i));
    }

    /// E |y - W x - b|^2, G = cov(x, x), C = cov(x, y): that of what is centred, and of the means.
    double error(const least_squares& s, const row_major& g, const row_major& c) const {
        const row_major wg = w * g;
        const double error =
            s.variance_y() + wg.cwiseProduct(w).sum() - 2 * c.cwiseProduct(w.transpose()).sum();
        return std::max(error, 0.0) + open_means(s).squaredNorm(); // rounding; NaN stays
    }

    double error(const least_squares& s) const {
        return error(s, s.covariance(), s.covariance_xy());
    }

    /// Says why the layer stays as it was.
    static void leave(tune_result& result, const char* why, const least_squares& s) {
        result.failure = std::string(why) + " (" + std::to_string(s.inputs()) + " inputs, " +
                         std::to_string(s.tokens()) + " tokens)";
        result.error_after = result.error_before;
    }

    template <class Policy>
    tune_result reconstruct(const Policy& policy, const least_squares& s, double ridge) {
        const row_major g = s.covariance(), c = s.covariance_xy();
        return refit(s, g, c, [&]() -> const char* {
            const Eigen::VectorXd mean = s.mean_x();
            row_major delta = c, factor = g;
            delta.noalias() -= g * w.transpose();
            if (!biased) { // the weights have the means to make up for, too
                factor.noalias() += mean * mean.transpose();
                delta.noalias() += mean * open_means(s).transpose();
            }
            const double mean_diagonal = w.size() > 0 ? factor.diagonal().mean() : 0;
            if (mean_diagonal > 0) { // of constant inputs, the bias does it all
                if (!ridge_solve(policy, factor, ridge * mean_diagonal, delta))
                    return "the inputs' covariance is not positive definite";
                w += delta.transpose();
            }
            if (biased) b = s.mean_y() - w * mean;
            return nullptr;
        });
    }

    template <class Policy>
    tune_result scale(const Policy& policy, const least_squares& s, index_t unit, double ridge,
                      Eigen::VectorXd& scales) {
        const row_major g = s.covariance(), c = s.covariance_xy();
        return refit(s, g, c, [&]() -> const char* {
            // N_uv and r_u sum E[x x'] o W'W and W o E[x (y - b - W x)'] over the inputs of the
            // units.
            const Eigen::VectorXd mean = s.mean_x();
            row_major open = c;
            open.noalias() -= g * w.transpose();
            open.noalias() += mean * open_means(s).transpose();
            row_major of_inputs = w.transpose() * w;
            of_inputs.array() *= (g + mean * mean.transpose()).array();
            const index_t units = scales.size();
            row_major normal(units, units);
            row_major right(units, 1);
            for (index_t u = 0; u < units; ++u) {
                for (index_t v = 0; v < units; ++v)
                    normal(u, v) = of_inputs.block(u * unit, v * unit, unit, unit).sum();
                right(u, 0) = open.middleRows(u * unit, unit)
                                  .cwiseProduct(w.middleCols(u * unit, unit).transpose())
                                  .sum();
            }
            const double mean_diagonal = units > 0 ? normal.diagonal().mean() : 0;
            if (!(mean_diagonal > 0))
                right.setZero(); // units without output keep the scale 1
            else if (!ridge_solve(policy, normal, ridge * mean_diagonal, right))
                return "the normal matrix of the units is not positive definite";
            scales = right.col(0).array() + 1;
            for (index_t u = 0; u < units; ++u) w.middleCols(u * unit, unit) *= scales(u);
            return nullptr;
        });
    }

  private:
    /// E (y - W x - b).
    Eigen::VectorXd open_means(const least_squares& s) const {
        return s.mean_y() - b - w * s.mean_x();
    }
    /// The frame of both: errors around `solve`, which changes w and b or returns why it cannot.
    template <class Solve>
    tune_result refit(const least_squares& s, const row_major& g, const row_major& c,
                      const Solve& solve) {
        tune_result result;
        if (s.tokens() == 0) {
            result.failure = "no tokens";
            return result;
        }
        result.variance = s.variance_y();
        result.error_before = result.error_after = error(s, g, c);
        const char* why = solve();
        if (!why && !(all_finite<double>(w) && all_finite<double>(b)))
            why = "the solution is not finite";
        if (why)
            leave(result, why, s);
        else
            result.error_after = error(s, g, c);
        return result;
    }
};

template <class From, class To>
void copy_matrix(const From& from, To to) {
    for (index_t i = 0; i < from.rows(); ++i)
        for (index_t j = 0; j < from.cols(); ++j)
            to(i, j) = from_double<typename To::value_type>(from(i, j));
}
template <class From, class To>
void copy_vector(const From& from, To to) {
    for (index_t i = 0; i < to.extent(0); ++i)
        to(i) = from_double<typename To::value_type>(from(i));
}

} // namespace detail

/// New weights and bias for the kept units, W + D and E y - (W + D) E x with
///
///     D = (C - W G) (G + r I)^-1,   G = cov(x, x), C = cov(y, x), r = ridge * mean diagonal of G,
///
/// the least-squares fit shrunk towards the present W. 1e-1 suits thousands of tokens, and use on
/// other text than the calibration's; take 1 with fewer tokens than inputs. Of a layer without a
/// bias, G and C are not centred: E x x' and E y x'.
///
/// statistics  of the pruned network's x and the target y
/// weight      W [outputs x inputs] (the transposed view for weights stored in x out), overwritten
/// bias        b [outputs], overwritten; {} for none
///
/// A layer that cannot be solved is left as it is, and the result says why. Throws shape_error and
/// value_error for a negative ridge.
/// Complexity: inputs^3 / 3 + 3 inputs^2 outputs multiply-adds in double. Source: layer-wise
/// reconstruction as in ZipLM (arXiv:2302.04089, section 3), with a ridge and a bias.
template <class Policy, class W, class B = view<double, 1>>
tune_result reconstruct(const Policy& policy, const least_squares& statistics, W&& weight, B&& bias,
                        double ridge = 1e-1) {
    detail::check_policy(policy);
    const auto w = as_output<2>(std::forward<W>(weight));
    const auto b = as_output<1>(std::forward<B>(bias));
    using of_weight = typename decltype(w)::value_type;
    using of_bias = typename decltype(b)::value_type;
    detail::check_real<of_weight, of_bias>();
    detail::tuned_layer layer("reconstruct", statistics, w, b, ridge);
    tune_result result = layer.reconstruct(policy, statistics, ridge);
    if (result && !(detail::all_finite<of_weight>(layer.w) && detail::all_finite<of_bias>(layer.b)))
        layer.leave(result, "the solution is not finite in the layer's type", statistics);
    if (result) {
        detail::copy_matrix(layer.w, w);
        detail::copy_vector(layer.b, b);
    }
    return result;
}

/// One scale for each kept unit, folded into the weight: the paper's tuning (arXiv:2204.09656,
/// section 4.3), min over s of E |y - b - sum_u s_u W_u x_u|^2 + r |s - 1|^2, r = ridge * mean
/// diagonal of the normal matrix, solved directly by Cholesky in double. A scale is one for all
/// outputs and tokens, and a few with large numbers may decide on it: the ridge is to keep it near 1.
/// (The published code stays there by leaving all later layers alone once its solver has not
/// converged or a scale is beyond 10.)
///
/// unit    inputs of one unit: head size, or 1 for filters
/// scales  [inputs / unit], overwritten with s
/// weight  W [outputs x inputs], overwritten with W_u s_u; bias b [outputs] is read only; {} for none
///
/// Errors as for reconstruct. Complexity: inputs^2 outputs + units^3 / 3.
template <class Policy, class W, class B = view<const double, 1>, class S>
tune_result scale(const Policy& policy, const least_squares& statistics, index_t unit, W&& weight,
                  const B& bias, S&& scales, double ridge = 1) {
    detail::check_policy(policy);
    const auto w = as_output<2>(std::forward<W>(weight));
    const auto b = as_input<1>(bias);
    const auto s = as_output<1>(std::forward<S>(scales));
    using of_weight = typename decltype(w)::value_type;
    using of_scale = typename decltype(s)::value_type;
    detail::check_real<of_weight, of_scale>();
    detail::tuned_layer layer("scale", statistics, w, b, ridge);
    if (!detail::is_product(statistics.inputs(), s.extent(0), unit))
        detail::fail<shape_error>("scale", s.extent(0), " units of ", unit,
                                  ", the statistics have ", statistics.inputs(), " inputs");
    Eigen::VectorXd found(s.extent(0));
    tune_result result = layer.scale(policy, statistics, unit, ridge, found);
    if (result && !(detail::all_finite<of_weight>(layer.w) && detail::all_finite<of_scale>(found)))
        layer.leave(result, "the solution is not finite in the layer's type", statistics);
    if (result) {
        detail::copy_matrix(layer.w, w);
        detail::copy_vector(found, s);
    }
    return result;
}

} // namespace PARE_ISA
} // namespace pare
