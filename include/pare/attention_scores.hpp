// How much attention each token receives, beside somebody else's fused attention: from queries, keys
// and the log-sum-exp rows that it returns. No probabilities, no second softmax, no values.
#pragma once

#include "attention.hpp"
#include "policy/seq.hpp"

#include <type_traits>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

template <class X, class = void>
inline constexpr int rank_of = 0;
template <class X>
inline constexpr int rank_of<X, std::enable_if_t<has<mdspan_like, const X>::value>> = X::rank();

/// Padded batches have queries of rank 4; what is no view at all is told so by the other call.
template <class Q>
using when_padded = std::enable_if_t<rank_of<Q> == 4, int>;
template <class Q>
using when_packed = std::enable_if_t<rank_of<Q> != 4, int>;

/// [batch x tokens x heads x size], of [batch x heads x tokens x size].
template <class T>
view<T, 4> tokens_first(const view<T, 4>& x) {
    return {x.data_handle(),
            {x.extent(0), x.extent(2), x.extent(1), x.extent(3)},
            {x.stride(0), x.stride(2), x.stride(1), x.stride(3)}};
}

/// `call` has all but what the options say and where the sums go. scale(scaling) makes scores of
/// sums, and is generic: it is made where it is called; `scores` [rows x sequences x keys], as keys
/// are, is for a policy that makes them itself.
template <class Policy, class T, class K, class L, class Sequences, class S, class Scale>
void attention_scores(const Policy& policy, scores_call<T, K, L, Sequences>& call, index_t queries,
                      const attention_options<T>& options, workspace& scratch, view<S, 3> scores,
                      const Scale& scale) {
    constexpr const char* name = "attention_scores";
    static_assert(std::is_same_v<L, float> || std::is_same_v<L, compute_t<T>>,
                  "pare: log-sum-exp rows are float, or of the type that sums are made in");
    const index_t keys = call.all_keys(), rows = scores.extent(0);
    static_cast<attention_terms<compute_t<T>>&>(call) =
        checked_terms(name, policy, options, queries, keys, call.heads(), call.q.extent(3));
    const score_scaling scaling =
        checked_scaling(name, options, rows > 0 ? call.heads() / rows : 0);
    if constexpr (Policy::on_host) {
        for (index_t s = 0; s < call.sequences; ++s) {
            const index_range counts = counted(call.counted, call.queries(s));
            for (index_t i = counts.begin; i < counts.end; ++i)
                for (index_t h = 0; h < call.heads(); ++h)
                    if (is_nan(call.shift(s, i, h)))
                        fail<value_error>(name, "the log-sum-exp of query ", i, " of sequence ", s,
                                          ", head ", h, ", is not a number");
        }
        if (rows * keys == 0) return;
        const auto memory = policy.template temporary<double>(scratch, rows * keys);
        call.received = view<double, 2>(memory.data(), rows, keys);
        policy.attention_scores(call, scratch.inner());
        scale(scaling);
    } else {
        policy.attention_scores(call, scaling.heads, scaling.options, scores);
    }
}

} // namespace detail

/// The scores that pare::attention would give, beside an attention of another library.
///
/// q        [tokens x heads x size]; any strides, fastest with contiguous sizes and, for a GPU's
///          half types, rows that begin at multiples of 16 bytes
/// k        [keys x groups x size]; a head's number divided by heads / groups is its group. Of q's
///          type; or q and k are of any two of float and the half types
/// lse      [tokens x heads], float or the type that sums over T are made in: of each query the
///          natural logarithm of the sum over its keys of exp(scale q k' + bias), with the same
///          scale, mask and biases as in `options`. Any strides: FlashAttention's [heads x
///          tokens] of packed sequences is the view {p, {tokens, heads}, {1, tokens}}. That is what
///          PyTorch (_scaled_dot_product_flash_attention, flex_attention, varlen_attn),
///          FlashAttention 2 and 3 (softmax_lse) and cuDNN (stats) return; FlashInfer's is to base
///          2, times log(2). Rows of infinity, of either sign, are of queries that saw no key, and
///          count nothing
/// offsets  [sequences + 1]: sequence s has the tokens offsets[s] .. offsets[s + 1]; or
///          query_key_offsets: of a prompt's last 32 queries, say, with their log-sum-exp rows,
///          against all of its keys
/// scores   [keys], overwritten: over all heads; or [groups x keys] or [heads x keys], each group's
///          or head's own. 0 behind the keys of a sequence
/// options  those of pare::attention
///
/// What does not count is not computed: counted_queries::last(32) costs 32 queries of each sequence.
/// Throws, before anything is written, shape_error, and value_error for a scale that is not finite,
/// for a row of a counted query that is NaN, and for sums that are not finite, as those of rows far
/// too small are; a GPU's policy looks at no number, and NaN comes out as scores of NaN. Rows of
/// other logits than these give wrong scores. Results of a sequence depend neither on the others
/// nor on the number of threads. A call cannot run in parts: where every thread makes the same call,
/// let each have sequences of its own. Complexity: counted queries * length * heads * size
/// multiply-adds and as many exponentials as logits; workspace of 8 bytes a token and, with `simd`,
/// 1,200 * (size + 50) bytes a thread; on a GPU, 8 * heads bytes a token.
template <class Policy, class Q, class K, class L, class Offsets, class Scores,
          detail::when_packed<Q> = 0>
void attention_scores(const Policy& policy, const Q& q, const K& k, const L& lse,
                      const Offsets& offsets, Scores&& scores,
                      const attention_options<detail::element_of<Q>>& options = {},
                      workspace& scratch = detail::of_this_call({})) {
    constexpr const char* name = "attention_scores";
    detail::check_whole(policy);
    const auto queries = as_input<3>(policy, q);
    const auto keys = as_input<3>(policy, k);
    const auto rows = as_input<2>(policy, lse);
    const auto given = detail::as_scores(policy, std::forward<Scores>(scores));
    const auto result = detail::rows_of_scores(given);
    using T = typename decltype(queries)::value_type;
    using of_key = typename decltype(keys)::value_type;
    detail::check_keys_of<T, of_key>();
    detail::check_real<typename decltype(result)::value_type>();
    const index_t tokens = queries.extent(0), heads = queries.extent(1);
    if (keys.extent(2) != queries.extent(2) || rows.extent(0) != tokens || rows.extent(1) != heads)
        detail::fail<shape_error>(name, "q is ", detail::shape_of(queries), ", k ",
                                  detail::shape_of(keys), ", lse ", detail::shape_of(rows));
    detail::check_groups(name, heads, keys.extent(1));
    detail::check_score_rows(name, result, heads, keys.extent(1), keys.extent(0));
    const auto where = detail::checked_sequences(name, policy, offsets, tokens, keys.extent(0));
    using sequences = std::decay_t<decltype(where)>;
    detail::scores_call<T, of_key, typename decltype(rows)::value_type, sequences> call{};
    static_cast<sequences&>(call) = where;
    call.q = detail::of_all_sequences(queries);
    call.k = detail::of_all_sequences(keys);
    call.lse = {rows.data_handle(), {1, tokens, heads}, {0, rows.stride(0), rows.stride(1)}};
    const view<typename decltype(result)::element_type, 3> of_one(
        result.data_handle(), {result.extent(0), 1, result.extent(1)},
        {result.stride(0), 0, result.stride(1)});
    detail::attention_scores(
        policy, call, tokens, options, scratch, of_one, [&](const auto& scaling) {
            detail::score_packed(name, policy, view<const double, 2>(call.received), where,
                                 scaling.heads, scaling.options, result);
        });
}

/// The same of a padded batch.
///
/// q, k     [batch x heads x n x size], [batch x groups x n x size], any strides
/// lse      [batch x heads x n]
/// lengths  [batch], or {}: no padding; what lies beyond them is not read
/// scores   [batch x n], overwritten; 0 beyond the lengths
/// options  key_bias, query_weights and positions are [batch * n]
template <class Policy, class Q, class K, class L, class Lengths = view<const index_t, 1>,
          class Scores, detail::when_padded<Q> = 0>
void attention_scores(const Policy& policy, const Q& q, const K& k, const L& lse,
                      const Lengths& lengths, Scores&& scores,
                      const attention_options<detail::element_of<Q>>& options = {},
                      workspace& scratch = detail::of_this_call({})) {
    constexpr const char* name = "attention_scores";
    detail::check_whole(policy);
    const auto queries = as_input<4>(policy, q);
    const auto keys = as_input<4>(policy, k);
    const auto rows = as_input<3>(policy, lse);
    const auto l = as_input<1>(policy, lengths);
    const auto result = as_output<2>(policy, std::forward<Scores>(scores));
    using T = typename decltype(queries)::value_type;
    using of_key = typename decltype(keys)::value_type;
    detail::check_keys_of<T, of_key>();
    detail::check_real<typename decltype(result)::value_type>();
    const index_t sequences = queries.extent(0), heads = queries.extent(1), n = queries.extent(2);
    if (keys.extent(0) != sequences || keys.extent(2) != n || keys.extent(3) != queries.extent(3) ||
        rows.extent(0) != sequences || rows.extent(1) != heads || rows.extent(2) != n ||
        result.extent(0) != sequences || result.extent(1) != n)
        detail::fail<shape_error>(name, "q is ", detail::shape_of(queries), ", k ",
                                  detail::shape_of(keys), ", lse ", detail::shape_of(rows),
                                  ", scores ", detail::shape_of(result));
    detail::check_groups(name, heads, keys.extent(1));
    const auto batch = detail::check_batch(
        name, policy, view<const T, 4>(nullptr, {sequences, heads, n, n}, {0, 0, 0, 0}), l);
    using sequences_type = detail::padded_rows<typename decltype(l)::value_type>;
    detail::scores_call<T, of_key, typename decltype(rows)::value_type, sequences_type> call{};
    static_cast<sequences_type&>(call) = {batch.lengths, sequences, n};
    call.q = detail::tokens_first(queries);
    call.k = detail::tokens_first(keys);
    call.lse = {rows.data_handle(),
                {sequences, n, heads},
                {rows.stride(0), rows.stride(2), rows.stride(1)}};
    const view<typename decltype(result)::element_type, 3> of_all(
        result.data_handle(), {1, sequences, n}, {0, result.stride(0), result.stride(1)});
    const auto scale = [&](const auto& scaling) {
        const view<double, 2> sums(call.received.data_handle(), sequences, n);
        for (index_t s = 0; s < sequences; ++s)
            for (index_t j = 0; j < call.keys(s); ++j) detail::check_sum(name, sums(s, j), j, s);
        policy.scale_keys(view<const double, 2>(sums), batch, scaling.heads, scaling.options,
                          result);
    };
    detail::attention_scores(policy, call, sequences * n, options, scratch, of_all, scale);
}

} // namespace PARE_ISA
} // namespace pare
