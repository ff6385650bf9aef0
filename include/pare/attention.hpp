// Softmax attention over packed sequences that also says how much attention each token receives.
#pragma once

#include "attention_options.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

/// f(call) with a call without scores, checked; while the views live of which it is made.
template <class Policy, class Q, class K, class V, class Offsets, class Out, class F>
void with_attention_call(const char* name, const Policy& policy, const Q& q, const K& k, const V& v,
                         const Offsets& offsets, Out&& out,
                         const attention_options<element_of<Q>>& options, const F& f) {
    const auto queries = as_input<3>(policy, q);
    const auto keys = as_input<3>(policy, k);
    const auto values = as_input<3>(policy, v);
    const auto y = as_output<3>(policy, std::forward<Out>(out));
    using T = typename decltype(queries)::value_type;
    using of_key = typename decltype(keys)::value_type;
    static_assert(
        std::is_same_v<T, typename decltype(y)::value_type> &&
            std::is_same_v<of_key, typename decltype(values)::value_type>,
        "pare::attention: queries and out have one element type, and keys and values have "
        "one");
    check_keys_of<T, of_key>();
    const index_t tokens = queries.extent(0), heads = queries.extent(1), groups = keys.extent(1);
    if (values.extent(0) != keys.extent(0) || keys.extent(2) != queries.extent(2) ||
        values.extent(1) != groups || y.extent(0) != tokens || y.extent(1) != heads ||
        y.extent(2) != values.extent(2))
        fail<shape_error>(name, "q is ", shape_of(queries), ", k ", shape_of(keys), ", v ",
                          shape_of(values), ", out ", shape_of(y));
    check_groups(name, heads, groups);
    const auto where = checked_sequences(name, policy, offsets, tokens, keys.extent(0));
    using sequences = std::decay_t<decltype(where)>;
    attention_call<T, of_key, sequences> call{};
    static_cast<sequences&>(call) = where;
    call.q = queries;
    call.k = keys;
    call.v = values;
    call.out = y;
    static_cast<attention_terms<compute_t<T>>&>(call) =
        checked_terms(name, policy, options, tokens, keys.extent(0), heads, queries.extent(2));
    checked_scaling(name, options, heads);
    f(call);
}

} // namespace detail

/// out = softmax(scale q k' + bias) v for each head within each sequence, and the scores that
/// pare::importance would give for its probabilities. No array of queries x keys is made: strips of
/// queries against all keys stay in the cache, and a few queries, as short sequences, read keys and
/// values in place.
///
/// q        [tokens x heads x size]; any strides with contiguous sizes: views into one interleaved
///          buffer, for example. A head's number divided by heads / groups is its group
/// k, v     [tokens x groups x size], [tokens x groups x value size]; as many groups as heads, or
///          fewer (grouped queries). Of q's type; or q, and k and v, are of any two of float and the
///          half types, as where a cache has halves, which is without tensor cores on a GPU
/// offsets  [sequences + 1]: sequence s has the tokens offsets[s] .. offsets[s + 1]; or
///          query_key_offsets, where queries are other tokens than keys, and a cache may have room
/// out      [tokens x heads x value size], of q's type, overwritten; 0 for a query that sees no key
/// scores   [keys], overwritten: over all heads; or [groups x keys] or [heads x keys], each group's
///          or head's own. 0 behind the keys of a sequence. Without elements: none are made
///
/// Keys and values have to be finite, also those of a sequence that a mask hides or a bias of minus
/// infinity removes: a weight of 0 times what is no number is none. Scores then may name another key
/// than the one that is to blame.
///
/// Throws, before anything is written, shape_error, and value_error for a scale that is not finite or
/// a position that is negative; and value_error if scores are not finite (then `out` is written, and
/// no more finite). A GPU's policy looks neither at positions, which then give wrong biases, nor at
/// lengths, nor at scores. Results of a sequence do not depend on the others, nor on the number of
/// threads; a call with scores cannot run in parts, attention_shares can. Complexity: queries * keys *
/// heads * (size + value size) multiply-adds a sequence; workspace, for the longest sequence, keys *
/// (size + value size + 14) numbers a thread and 4 * heads * (tokens + 32), of a few queries heads * (keys +
/// value size * keys / 264). Scores cost one multiply-add an attention probability, biases one
/// addition and one load a logit, and positions another load; a table or positions take more
/// registers on a GPU, in kernels of their own. On Thrust a sequence of at most four queries that are
/// other tokens than its keys reads these once for all heads of a group; such a call takes up to 4 *
/// heads * keys * (value size / 128 + 1) numbers of memory.
template <class Policy, class Q, class K, class V, class Offsets, class Out, class Scores,
          detail::unless_options_of<Q, Scores> = 0>
void attention(const Policy& policy, const Q& q, const K& k, const V& v, const Offsets& offsets,
               Out&& out, Scores&& scores,
               const attention_options<detail::element_of<Q>>& options = {},
               workspace& scratch = detail::of_this_call({})) {
    detail::check_whole(policy);
    const auto given = detail::as_scores(policy, std::forward<Scores>(scores));
    const auto result = detail::rows_of_scores(given);
    detail::check_real<typename decltype(result)::value_type>();
    const auto run = [&](auto& call) {
        const index_t keys = call.k.extent(0), heads = call.heads(), rows = result.extent(0);
        if (result.size() > 0 || rows != 1) // no scores: nobody asks
            detail::check_score_rows("attention", result, heads, call.k.extent(1), keys);
        if (result.size() == 0) return policy.attention(call, scratch);
        const auto scaling = detail::checked_scaling("attention", options, heads / rows);
        const auto sums = policy.template temporary<double>(scratch, rows * keys);
        call.received = view<double, 2>(sums.data(), rows, keys);
        policy.attention(call, scratch.inner());
        const auto& where = call.where();
        const view<const double, 2> received(call.received);
        if constexpr (Policy::on_host)
            detail::score_packed("attention", policy, received, where, scaling.heads,
                                 scaling.options, result);
        else
            policy.scale_tokens(received, where, scaling.heads, scaling.options, result);
    };
    detail::with_attention_call("attention", policy, q, k, v, offsets, std::forward<Out>(out),
                                options, run);
}
/// Without scores, also in parts of a call.
template <class Policy, class Q, class K, class V, class Offsets, class Out>
void attention(const Policy& policy, const Q& q, const K& k, const V& v, const Offsets& offsets,
               Out&& out, const attention_options<detail::element_of<Q>>& options = {},
               workspace& scratch = detail::of_this_call({})) {
    detail::check_policy(policy);
    detail::with_attention_call("attention", policy, q, k, v, offsets, std::forward<Out>(out),
                                options,
                                [&](const auto& call) { policy.attention(call, scratch); });
}

/// attention with scores, for parts of a call (pare::part): what keys receive goes into the memory of
/// the caller, each head's to its own rows, whichever part has it. When all parts have returned,
/// scores_of_shares makes the scores of it, which are the same for any number of parts.
///
///     pare::attention_shares(policy, q, k, v, offsets, out, shares, options);
///     barrier(); // of the host: in ggml, two operations
///     pare::scores_of_shares(policy, shares, offsets, scores, options);
///
/// shares  [4 * heads x keys], of the type that sums over T are made in, rows contiguous,
///         overwritten but for what lies behind the keys of a sequence
///
/// The rest as for attention, but that sums are looked at by scores_of_shares. For policies of the
/// host.
template <class Policy, class Q, class K, class V, class Offsets, class Out, class Shares>
void attention_shares(const Policy& policy, const Q& q, const K& k, const V& v,
                      const Offsets& offsets, Out&& out, Shares&& shares,
                      const attention_options<detail::element_of<Q>>& options = {},
                      workspace& scratch = detail::of_this_call({})) {
    constexpr const char* name = "attention_shares";
    detail::check_policy(policy);
    static_assert(Policy::on_host,
                  "pare::attention_shares: it is for parts of a call, which run on "
                  "the host; on a GPU, pare::attention gives scores");
    const auto to = as_output<2>(policy, std::forward<Shares>(shares));
    const auto run = [&](auto& call) {
        using C = typename std::decay_t<decltype(call)>::compute;
        static_assert(
            std::is_same_v<typename decltype(to)::value_type, C>,
            "pare::attention_shares: shares are of the type that sums are made in, float of "
            "float and of half types");
        const index_t rows = detail::shares_of_head * call.heads();
        const index_t keys = call.k.extent(0);
        if (to.extent(0) != rows || to.extent(1) != keys || (to.extent(1) > 1 && to.stride(1) != 1))
            detail::fail<shape_error>(name, "shares are ", detail::shape_of(to), " of stride ",
                                      to.stride(1), ", ", call.heads(), " heads and ", keys,
                                      " keys have ", rows, "x", keys, " of stride 1");
        call.shares = to;
        policy.attention(call, scratch);
    };
    detail::with_attention_call(name, policy, q, k, v, offsets, std::forward<Out>(out), options,
                                run);
}

/// The scores of what attention_shares has left; parts of a call make those of some tokens.
///
/// shares   [4 * heads x keys]
/// offsets  [sequences + 1], or query_key_offsets, as there
/// scores   [keys], or [rows x keys] with as many heads in each row, overwritten
/// options  as there: how scores are put together and scaled, the mask, the queries that count
///
/// Throws shape_error, and value_error if what a key receives is not finite; then nothing is written,
/// by parts of a call by none that has such a key. Complexity: heads * keys; scratch of 8 bytes a
/// score.
template <class Policy, class Shares, class Offsets, class Scores, class T = float>
void scores_of_shares(const Policy& policy, const Shares& shares, const Offsets& offsets,
                      Scores&& scores, const attention_options<T>& options = {},
                      workspace& scratch = detail::of_this_call({})) {
    constexpr const char* name = "scores_of_shares";
    detail::check_policy(policy);
    static_assert(Policy::on_host,
                  "pare::scores_of_shares: it is for parts of a call, which run on "
                  "the host; on a GPU, pare::attention gives scores");
    const auto x = as_input<2>(policy, shares);
    const auto given = detail::as_scores(policy, std::forward<Scores>(scores));
    const auto result = detail::rows_of_scores(given);
    detail::check_real<typename decltype(x)::value_type, typename decltype(result)::value_type>();
    const index_t keys = x.extent(1), heads = x.extent(0) / detail::shares_of_head;
    const index_t rows = result.extent(0);
    if (result.extent(1) != keys || x.extent(0) % detail::shares_of_head != 0 || rows == 0 ||
        heads % rows != 0)
        detail::fail<shape_error>(name, "shares are ", detail::shape_of(x), ", scores ",
                                  detail::shape_of(result));
    const auto where = detail::checked_sequences(name, policy, offsets,
                                                 detail::queries_of(policy, offsets, keys), keys);
    const auto scaling = detail::checked_scaling(name, options, heads / rows);
    detail::attention_terms<double> terms{};
    terms.largest = options.reduction == score_reduction::max;
    const auto memory = policy.template temporary<double>(scratch, result.size());
    const view<double, 2> sums(memory.data(), rows, keys);
    const index_t of_row = x.extent(0) / rows;
    for (index_t s = 0; s < where.sequences; ++s)
        for (index_t row = 0; row < rows; ++row)
            detail::for_keys_in_turn(policy, s, where.room(s), [&](const auto& some) {
                const index_t at = where.key_begin(s), end = std::min(some.end, where.keys(s));
                for (index_t t = at + some.begin; t < at + end; ++t) {
                    double sum = 0;
                    for (index_t i = row * of_row; i < (row + 1) * of_row; ++i)
                        sum = terms.together(sum, static_cast<double>(x(i, t)));
                    sums(row, t) = sum;
                }
            });
    detail::score_packed(name, policy, view<const double, 2>(sums), where, scaling.heads,
                         scaling.options, result);
}

} // namespace PARE_ISA
} // namespace pare
