// Learned thresholds: tokens are masked softly by how far their scores are above a threshold, so
// that the threshold has a gradient (learned token pruning, arXiv:2107.00910, section 3.2).
//
// Behind the attention of a layer in training, with one learned threshold a layer:
//
//     soft_mask            M_k = sigmoid((s_k - theta) / T)
//     scale_rows           row k of the layer's output times M_k
//     mask_penalty         loss += lambda / layers * mean M_k
//     scale_rows_backward  dL/dM from the rows
//     soft_mask_backward   dL/ds and dL/dtheta from dL/dM
//
// Once trained, keep_above of compact.hpp with the same threshold drops the rows for good.
#pragma once

#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/ops.hpp"
#include "core/view.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

/// sigmoid((x - threshold) * slope); nothing overflows, because the exponential is at most 1. Far
/// from the threshold it is 0 or 1, also where -Ofast makes the quotient a little less.
template <class T>
struct logistic {
    T threshold, slope;
    template <class V>
    PARE_HD V operator()(const V& x) const {
        using ops::select;
        using std::abs;
        const V z = (x - V(threshold)) * V(slope), one(T(1));
        const V e = ops::exp_of_negative<V>{}(-abs(z)), less = e / (one + e);
        return select(z < V(T(0)), less, one - less);
    }
};

/// Its adjoint, from its result m and the gradient g there.
template <class T>
struct logistic_gradient {
    T slope;
    template <class V>
    constexpr V operator()(const V& m, const V& g) const {
        return m * (V(T(1)) - m) * V(slope) * g;
    }
};

template <class Offset>
struct not_empty {
    const Offset* offsets;
    constexpr bool operator()(index_t s) const { return offsets[s] < offsets[s + 1]; }
};

/// Adds to the penalty and to its gradient what the tokens begin <= i < end of sequence s do.
template <class T, class Offset>
struct add_penalty {
    view<const T, 1> mask;
    const Offset* offsets;
    double sequences, factor; // sequences that are not empty
    view<T, 1> gradient;
    constexpr double operator()(index_t s, index_t begin, index_t end) const {
        const auto tokens = static_cast<double>(static_cast<index_t>(offsets[s + 1] - offsets[s]));
        const double share = 1 / (sequences * tokens);
        using C = compute_t<T>;
        const C slope = static_cast<C>(factor * share);
        double sum = 0;
        for (index_t i = begin; i < end; ++i) {
            sum += detail::to_double(mask(i));
            gradient(i) = static_cast<T>(static_cast<C>(gradient(i)) + slope);
        }
        return share * sum;
    }
};

/// add_penalty, once it is known how many sequences are not empty.
template <class T, class Offset>
struct penalty_of {
    view<const T, 1> mask;
    const Offset* offsets;
    double factor;
    view<T, 1> gradient;
    constexpr add_penalty<T, Offset> operator()(double sequences) const {
        return {mask, offsets, sequences, factor, gradient};
    }
};

/// 1 / temperature as a finite T above 0, by which infinity is infinity.
template <class T>
T slope_of(const char* name, double temperature) {
    const T slope = static_cast<T>(1 / temperature);
    if (!is_finite(temperature) || temperature <= 0 || !is_finite(slope) || slope == 0)
        fail<value_error>(name, "the temperature is ", temperature);
    return slope;
}

template <class A, class B>
void check_same_rows(const char* name, const char* what, const A& x, const B& y) {
    if (x.extent(0) != y.extent(0) || x.extent(1) != y.extent(1))
        fail<shape_error>(name, "x is ", x.extent(0), " x ", x.extent(1), ", ", what, " ",
                          y.extent(0), " x ", y.extent(1));
}

} // namespace detail

/// mask[k] = sigmoid((scores[k] - threshold) / temperature).
///
/// scores       [tokens], of all sequences of a batch; infinite ones give masks of 0 and 1
/// threshold    in the scores' units; an infinite one counts as the largest number of their type,
///              so minus infinity makes masks 1, but those of scores near that number
/// temperature  > 0, in the scores' units; the paper's are 1e-5 to 2e-3 for scores that add up to 1
/// mask         [tokens], the scores' type, overwritten; may be the memory of `scores`
///
/// Throws shape_error; value_error for a NaN score, a NaN threshold, and a temperature that is not
/// positive or whose inverse is 0 or not finite in the scores' type. A policy of memory that the host
/// does not read does not wait, and looks for no NaN: of a NaN score the mask is NaN, and no other
/// token's mask changes.
/// Complexity: one exponential a token; reads the scores once more for the check.
template <class Policy, class Scores, class Mask>
void soft_mask(const Policy& policy, const Scores& scores, double threshold, double temperature,
               Mask&& mask) {
    const auto s = as_input<1>(policy, scores);
    const auto m = as_output<1>(policy, std::forward<Mask>(mask));
    using T = typename decltype(m)::value_type;
    static_assert(std::is_same_v<typename decltype(s)::value_type, T>,
                  "pare::soft_mask: scores and mask have one element type");
    static_assert(std::is_floating_point_v<T>, "pare::soft_mask: scores are float or double");
    if (s.extent(0) != m.extent(0))
        detail::fail<shape_error>("soft_mask", s.extent(0), " scores, the mask has ", m.extent(0));
    if (detail::is_nan(threshold)) detail::fail<value_error>("soft_mask", "the threshold is NaN");
    const T slope = detail::slope_of<T>("soft_mask", temperature);
    if constexpr (Policy::on_host)
        if (const index_t i = policy.first_nan(s); i >= 0)
            detail::fail<value_error>("soft_mask", "score ", i, " of ", s.extent(0), " is NaN");
    // A finite threshold, so that no score is infinity less infinity.
    constexpr auto largest = static_cast<double>(std::numeric_limits<T>::max());
    const T finite =
        static_cast<T>(std::clamp(detail::nearest_finite(threshold), -largest, largest));
    policy.transform(detail::logistic<T>{finite, slope}, m, s);
}

/// The adjoint of soft_mask: with u = M (1 - M) / T,
///
///     score_gradient[k] = mask_gradient[k] * u_k,   returned: dL/dtheta = -sum over k of the same
///
/// mask            [tokens], from soft_mask
/// mask_gradient   dL/dM [tokens]
/// score_gradient  [tokens], overwritten; may be the memory of either
///
/// The sum is made in double, of partial sums of at most 256 terms, and is the same for any number
/// of threads; parts of a call return parts that add up. Throws shape_error, and value_error for
/// the temperature; NaN goes through.
template <class Policy, class Mask, class Gradient, class ScoreGradient>
double soft_mask_backward(const Policy& policy, const Mask& mask, const Gradient& mask_gradient,
                          double temperature, ScoreGradient&& score_gradient) {
    const auto m = as_input<1>(policy, mask);
    const auto g = as_input<1>(policy, mask_gradient);
    const auto ds = as_output<1>(policy, std::forward<ScoreGradient>(score_gradient));
    using T = typename decltype(ds)::value_type;
    static_assert(
        detail::all_same<T, typename decltype(m)::value_type, typename decltype(g)::value_type>,
        "pare::soft_mask_backward: mask and gradients have one element type");
    detail::check_real<T>();
    if (m.extent(0) != g.extent(0) || m.extent(0) != ds.extent(0))
        detail::fail<shape_error>("soft_mask_backward", "a mask of ", m.extent(0),
                                  ", gradients of ", g.extent(0), " and ", ds.extent(0));
    using C = compute_t<T>;
    const C slope = detail::slope_of<C>("soft_mask_backward", temperature);
    return -policy.transform_sum(detail::logistic_gradient<C>{slope}, ds, m, g);
}

/// y[i, :] = mask[i] * x[i, :]; x and y [tokens x columns], y overwritten and perhaps x itself.
/// Throws shape_error.
template <class Policy, class Mask, class X, class Y>
void scale_rows(const Policy& policy, const Mask& mask, const X& x, Y&& y) {
    const auto m = as_input<1>(policy, mask);
    const auto in = as_input<2>(policy, x);
    const auto out = as_output<2>(policy, std::forward<Y>(y));
    static_assert(
        detail::all_same<typename decltype(out)::value_type, typename decltype(m)::value_type,
                         typename decltype(in)::value_type>,
        "pare::scale_rows: mask and rows have one element type");
    detail::check_real<typename decltype(out)::value_type>();
    detail::check_same_rows("scale_rows", "y", in, out);
    if (m.extent(0) != in.extent(0))
        detail::fail<shape_error>("scale_rows", "a mask of ", m.extent(0), " for ", in.extent(0),
                                  " rows");
    policy.scale_rows(m, in, out);
}

/// The adjoint of scale_rows in one pass: with dy = dL/dy,
///
///     dx[i, :] = mask[i] * dy[i, :],   mask_gradient[i] = sum over j of x[i, j] * dy[i, j]
///
/// mask           [tokens]
/// x, dy          [tokens x columns]
/// dx             [tokens x columns], overwritten; may be the memory of x or of dy
/// mask_gradient  dL/dM [tokens], overwritten
///
/// Throws shape_error. NaN goes through. Complexity: tokens * columns; reads x and dy once.
template <class Policy, class Mask, class X, class DY, class DX, class Gradient>
void scale_rows_backward(const Policy& policy, const Mask& mask, const X& x, const DY& dy, DX&& dx,
                         Gradient&& mask_gradient) {
    const auto m = as_input<1>(policy, mask);
    const auto in = as_input<2>(policy, x);
    const auto gradient = as_input<2>(policy, dy);
    const auto out = as_output<2>(policy, std::forward<DX>(dx));
    const auto dm = as_output<1>(policy, std::forward<Gradient>(mask_gradient));
    static_assert(
        detail::all_same<typename decltype(out)::value_type, typename decltype(m)::value_type,
                         typename decltype(in)::value_type, typename decltype(gradient)::value_type,
                         typename decltype(dm)::value_type>,
        "pare::scale_rows_backward: mask, rows and gradients have one element type");
    detail::check_real<typename decltype(out)::value_type>();
    detail::check_same_rows("scale_rows_backward", "dy", in, gradient);
    detail::check_same_rows("scale_rows_backward", "dx", in, out);
    if (m.extent(0) != in.extent(0) || dm.extent(0) != in.extent(0))
        detail::fail<shape_error>("scale_rows_backward", "a mask of ", m.extent(0),
                                  ", its gradient of ", dm.extent(0), " for ", in.extent(0),
                                  " rows");
    policy.scale_rows_dot(m, in, gradient, out, dm);
}

/// The share of tokens that a mask keeps, which a penalty holds down, and its gradient:
///
///     returned: p = 1 / B * sum over sequences b of 1 / n_b * sum over tokens k of b of mask[k]
///     mask_gradient[k] += factor / (B n_b)
///
/// over the B sequences that are not empty, n_b tokens long; 0 if there are none. It is the mean
/// over sequences of each one's mean: a sequence's share of it does not depend on how long the
/// others are, as its share of a loss averaged over sequences does not. Add factor * p to that
/// loss; the paper's factor is lambda / layers.
///
/// mask           [tokens]
/// offsets        sequences + 1 integers from 0 to tokens; sequence b begins with token offsets[b]
/// mask_gradient  dL/dM [tokens], added to
///
/// Parts of a call return parts that add up. Throws shape_error, and value_error for a factor that
/// is not finite.
template <class Policy, class Mask, class Offsets, class Gradient>
double mask_penalty(const Policy& policy, const Mask& mask, const Offsets& offsets, double factor,
                    Gradient&& mask_gradient) {
    const auto m = as_input<1>(policy, mask);
    const auto o = as_input<1>(policy, offsets);
    const auto g = as_output<1>(policy, std::forward<Gradient>(mask_gradient));
    using T = typename decltype(g)::value_type;
    static_assert(std::is_same_v<typename decltype(m)::value_type, T>,
                  "pare::mask_penalty: mask and gradient have one element type");
    detail::check_real<T>();
    if (m.extent(0) != g.extent(0))
        detail::fail<shape_error>("mask_penalty", "a mask of ", m.extent(0), ", its gradient of ",
                                  g.extent(0));
    detail::check_offsets("mask_penalty", policy, o, m.extent(0));
    if (!detail::is_finite(static_cast<compute_t<T>>(factor)))
        detail::fail<value_error>("mask_penalty", "the factor is ", factor);
    using Offset = typename decltype(o)::value_type;
    const Offset* const from = o.data_handle();
    const index_t segments = o.extent(0) - 1;
    const detail::penalty_of<T, Offset> penalty{m, from, factor, g};
    if constexpr (Policy::on_host) {
        const index_t sequences = policy.sum(segments, detail::not_empty<Offset>{from});
        return policy.sum_segments(from, segments, m.extent(0),
                                   penalty(static_cast<double>(sequences)));
    } else {
        const auto found = policy.sum_segments_checked(from, segments, m.extent(0), penalty);
        if (found.wrong) detail::check_offsets("mask_penalty", policy, o, m.extent(0), true);
        return found.sum;
    }
}

} // namespace PARE_ISA
} // namespace pare
