// What calls of attention and of its scores are given beside their arrays, and what is checked of it.
#pragma once

#include "core/attention_calls.hpp"
#include "core/checks.hpp"
#include "importance.hpp"

#include <cmath>
#include <cstdint>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {

/// T is the element type of queries; what has an element a key, head or query is of
/// the type that sums over T are made in, float for a half type.
template <class T>
struct attention_options {
    using compute_type = compute_t<T>;
    double scale = 0; ///< of the logits; 0 = 1 / sqrt(size of a query)
    attention_mask mask;
    /// [keys], or empty: added to the logits of each key. The logarithm of a soft mask makes a
    /// key fade out; minus infinity removes it, but not all keys of a query.
    view<const compute_type, 1> key_bias;
    /// [heads], or empty: |q - k| times this is subtracted (ALiBi, arXiv:2108.12409).
    view<const compute_type, 1> head_slopes;
    /// [heads x (2 * most + 1)], or empty, of any strides: column most + d is added to the logits of
    /// keys d positions behind their query (before it where d < 0), and the first and the last one to
    /// those still farther away. T5 and MPNet have such biases in buckets, of which expand_buckets
    /// (distance_buckets.hpp) makes this table. Minus infinity removes keys at a distance, but not
    /// all keys of a query.
    view<const compute_type, 2> distance_bias;
    /// [keys], or empty, not negative: where tokens stand, for slopes and biases of distance; if
    /// empty, their places in the sequence. When tokens were dropped, those that stay may keep the
    /// distances that they had. A query stands where the key at its place does. Masks count places.
    view<const std::int32_t, 1> positions;
    /// [queries], or empty: factors of the queries' attention in the scores, which stay scaled as if
    /// all were 1. With soft masks, a query that fades out should have no say.
    view<const compute_type, 1> query_weights;
    /// How `scores` are scaled and which queries count; its mask is not used, the one above is.
    score_scale scores = score_scale::relative;
    double fixed_length = 0; ///< of score_scale::fixed
    counted_queries queries;
    score_reduction reduction = score_reduction::sum;
};

namespace detail {

/// The type of the numbers that X holds; float where it is nothing that has any.
template <class X, class = void>
struct element {
    using type = float;
};
template <class X>
struct element<X, std::enable_if_t<has<mdspan_like, const X>::value>> {
    using type =
        std::remove_cv_t<std::remove_pointer_t<decltype(std::declval<const X&>().data_handle())>>;
};
template <class X>
struct element<X, std::enable_if_t<has<range_like, const X>::value>> {
    using type =
        std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const X&>()))>>;
};
template <class X>
using element_of = typename element<X>::type;

/// Tells scores from options, where they are left out.
template <class Q, class X>
using unless_options_of =
    std::enable_if_t<!std::is_same_v<std::decay_t<X>, attention_options<element_of<Q>>>, int>;

struct negative {
    view<const std::int32_t, 1> x;
    constexpr bool operator()(index_t i) const { return x(i) < 0; }
};

template <class X>
std::string shape_of(const X& x) {
    std::string shape;
    for (int i = 0; i < X::rank(); ++i) shape += (i ? "x" : "") + std::to_string(x.extent(i));
    return shape;
}

inline void check_groups(const char* name, index_t heads, index_t groups) {
    if (heads > 0 && (groups == 0 || heads % groups != 0))
        fail<shape_error>(name, heads, " heads, ", groups, " groups");
}

/// Keys of type K go with queries of type T.
template <class T, class K>
constexpr void check_keys_of() {
    check_real<T, K>();
    static_assert(
        std::is_same_v<compute_t<T>, compute_t<K>>,
        "pare: keys are of the queries' type, or queries and keys are float or half types");
}

/// What the options say about so many queries, of `size` numbers, and keys.
template <class Policy, class T>
attention_terms<compute_t<T>> checked_terms(const char* name, const Policy& policy,
                                            const attention_options<T>& options, index_t queries,
                                            index_t keys, index_t heads, index_t size) {
    using C = compute_t<T>;
    attention_terms<C> terms;
    terms.key_bias = as_view<1>(policy, options.key_bias);
    terms.head_slopes = as_view<1>(policy, options.head_slopes);
    terms.query_weights = as_view<1>(policy, options.query_weights);
    terms.distance_bias = as_view<2>(policy, options.distance_bias);
    terms.positions = as_view<1>(policy, options.positions);
    const auto check_vector = [&](const char* what, index_t extent, index_t expected) {
        if (extent != 0 && extent != expected)
            fail<shape_error>(name, extent, what, expected, " are expected");
    };
    check_vector(" key biases, ", terms.key_bias.extent(0), keys);
    check_vector(" slopes, ", terms.head_slopes.extent(0), heads);
    check_vector(" query weights, ", terms.query_weights.extent(0), queries);
    check_vector(" positions, ", terms.positions.extent(0), keys);
    const index_t distances = terms.distance_bias.extent(1);
    if (distances > 0 ? terms.distance_bias.extent(0) != heads || distances % 2 == 0
                      : terms.distance_bias.extent(0) > 0)
        fail<shape_error>(name, "distance biases are ", shape_of(terms.distance_bias), "; of ",
                          heads, " heads there are as many rows, with an odd number of columns");
    if constexpr (Policy::on_host)
        if (const index_t i = policy.first(terms.positions.extent(0), negative{terms.positions});
            i >= 0)
            fail<value_error>(name, "the position of token ", i, " is ", terms.positions(i));
    terms.mask = options.mask;
    terms.counted = options.queries;
    terms.largest = options.reduction == score_reduction::max;
    terms.per_seen = terms.largest && options.scores == score_scale::relative;
    terms.scale = static_cast<C>(options.scale);
    if (!is_finite(options.scale) || !is_finite(terms.scale))
        fail<value_error>(name, "the scale is ", options.scale);
    if (options.scale == 0 && size > 0)
        terms.scale = static_cast<C>(1 / std::sqrt(static_cast<double>(size)));
    return terms;
}

/// How what keys receive from `heads` heads becomes scores.
struct score_scaling {
    importance_options options;
    index_t heads;
};
template <class T>
score_scaling checked_scaling(const char* name, const attention_options<T>& options,
                              index_t heads) {
    score_scaling scaling{{options.scores, options.fixed_length, options.mask, options.queries},
                          heads};
    check_options(name, scaling.options);
    if (options.reduction == score_reduction::sum) return scaling;
    if (options.scores == score_scale::fixed)
        fail<value_error>(name, "score_scale::fixed is for sums, and the reduction is max");
    scaling.options.scale = score_scale::fixed; // a maximum is a score as it is
    scaling.options.length = 1;
    scaling.heads = 1;
    return scaling;
}

/// 2 for what has rows of scores: a view of two dimensions, or Eigen's matrix.
template <class X>
constexpr int rank_of_scores() {
    if constexpr (has<mdspan_like, X>::value)
        return X::rank() == 2 ? 2 : 1;
    else if constexpr (has<eigen_like, X>::value)
        return X::RowsAtCompileTime == 1 || X::ColsAtCompileTime == 1 ? 1 : 2;
    else
        return 1;
}
template <class X>
inline constexpr bool is_options = false;
template <class T>
inline constexpr bool is_options<attention_options<T>> = true;

/// Scores of keys, or of rows x keys.
template <class Policy, class Scores>
auto as_scores(const Policy& policy, Scores&& scores) {
    static_assert(!is_options<std::decay_t<Scores>>,
                  "pare: these attention_options are not of the queries' element type");
    return as_output<rank_of_scores<std::decay_t<Scores>>()>(policy, std::forward<Scores>(scores));
}
/// [rows x keys]; scores of keys alone are one row.
template <class S>
view<S, 2> rows_of_scores(const view<S, 2>& scores) {
    return scores;
}
template <class S>
view<S, 2> rows_of_scores(const view<S, 1>& scores) {
    return one_row(scores);
}
/// Checks that scores are of all heads, or a row of each group or of each head.
template <class S>
void check_score_rows(const char* name, const view<S, 2>& scores, index_t heads, index_t groups,
                      index_t keys) {
    const index_t rows = scores.extent(0);
    if (rows == 1 && scores.extent(1) != keys)
        fail<shape_error>(name, scores.extent(1), " scores, ", keys, " keys");
    if (scores.extent(1) != keys || (rows != 1 && rows != groups && rows != heads))
        fail<shape_error>(name, "scores are ", shape_of(scores), ", there are ", heads, " heads, ",
                          groups, " groups and ", keys, " keys");
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
