// What the attention of a policy is given: arrays, and what is added to logits.
#pragma once

#include "attention.hpp"
#include "sequences.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Into how many rows a head's queries are cut whose shares of what keys receive are apart.
constexpr index_t shares_of_head = 4;

/// The larger of a and b; NaN where one of them is.
template <class X>
constexpr X larger_or_nan(X a, X b) {
    if (is_nan(a) || is_nan(b)) return is_nan(a) ? a : b;
    return a < b ? b : a;
}

/// What attention adds to logits of type C, what it hides, and which queries count how much.
template <class C>
struct attention_terms {
    view<const C, 1> key_bias;      // [keys], or empty
    view<const C, 1> head_slopes;   // [heads], or empty
    view<const C, 1> query_weights; // [queries], or empty: factors of what queries give
    C scale;
    attention_mask mask;
    counted_queries counted;
    /// [heads x distances], or empty: of as many keys before a query as behind it.
    view<const C, 2> distance_bias;
    view<const std::int32_t, 1> positions; // [keys], or empty: places in the sequence
    bool largest;  // what a key receives is the largest that any query gives, not their sum
    bool per_seen; // counted is a probability times the keys that its query sees

    /// What the probabilities of a query that sees so many keys count.
    constexpr C weight(index_t query, index_t seen) const {
        const C weight = query_weights.extent(0) > 0 ? query_weights(query) : C(1);
        return per_seen ? weight * static_cast<C>(seen) : weight;
    }
    /// Of two queries, or two heads.
    template <class X>
    constexpr X together(X a, X b) const {
        return largest ? larger_or_nan(a, b) : a + b;
    }

    /// What is added to the logit of key j and of the query at place i among the keys, which begin
    /// at `at`. Finite, so that a sum of it and a logit is too.
    constexpr C bias(index_t head, index_t at, index_t i, index_t j) const {
        return bias_of_key(at + j) + bias_of_distance(head, position(at, j) - position(at, i));
    }
    constexpr C bias_of_key(index_t token) const {
        return key_bias.extent(0) > 0 ? bounded(key_bias(token)) : C(0);
    }
    /// `distance`: from the query to the key, more than 0 where the key is behind it.
    constexpr C bias_of_distance(index_t head, index_t distance) const {
        C bias = -slope(head) * static_cast<C>(distance < 0 ? -distance : distance);
        if (distance_bias.extent(1) > 0) {
            const index_t most = distance_bias.extent(1) / 2;
            bias += distance_bias(head, most + std::clamp(distance, -most, most));
        }
        return bounded(bias);
    }
    constexpr index_t position(index_t at, index_t i) const {
        return positions.extent(0) > 0 && i >= 0 ? static_cast<index_t>(positions(at + i)) : i;
    }
    constexpr C slope(index_t head) const {
        return head_slopes.extent(0) > 0 ? head_slopes(head) : C(0);
    }
    constexpr bool by_distance() const {
        return head_slopes.extent(0) > 0 || distance_bias.extent(1) > 0;
    }
    /// Whether distances are looked up in a table, or are those of positions.
    constexpr bool relative() const {
        return distance_bias.extent(1) > 0 ||
               (positions.extent(0) > 0 && head_slopes.extent(0) > 0);
    }
    constexpr bool biased() const { return key_bias.extent(0) > 0 || by_distance(); }

    /// Minus infinity removes a key, and makes no NaN of what it is added to. Under -Ofast the larger
    /// of NaN and a number may be the number; here NaN goes through.
    PARE_HD static C bounded(C bias) {
        constexpr C least = std::numeric_limits<C>::lowest() / 4;
        return is_nan(bias) ? bias : std::max(bias, least);
    }
};

/// What a policy's attention is given; everything is checked. T: of queries and outputs, K: of keys and
/// values; both are computed in one type. Sequences: same_tokens, or queries_and_keys.
template <class T, class K, class Sequences>
struct attention_call : attention_terms<compute_t<T>>, Sequences {
    using of_query = T;
    using of_key = K;
    using compute = compute_t<T>;
    view<const T, 3> q;    // [queries x heads x size]
    view<const K, 3> k, v; // [keys x groups x size], [keys x groups x value size]
    view<T, 3> out;        // [queries x heads x value size]
    /// [rows x keys], or empty: what keys receive from the heads of each row, of all counted queries.
    view<double, 2> received;
    /// [shares_of_head * heads x keys], rows contiguous, or empty: the same, to be put together.
    view<compute, 2> shares;

    constexpr const Sequences& where() const { return *this; }
    constexpr index_t heads() const { return q.extent(1); }
    constexpr index_t group(index_t head) const { return head / (heads() / k.extent(1)); }
};

/// What a policy's attention_scores is given; everything is checked. Sequences: same_tokens,
/// queries_and_keys, or padded_rows; strides along packed sequences are 0.
template <class T, class K, class L, class Sequences>
struct scores_call : attention_terms<compute_t<T>>, Sequences {
    using of_query = T;
    using of_key = K;
    using compute = compute_t<T>;
    view<const T, 4> q;   // [sequences x queries x heads x size]
    view<const K, 4> k;   // [sequences x keys x groups x size]
    view<const L, 3> lse; // [sequences x queries x heads]: log-sum-exp rows,
    view<const L, 3>
        totals; // or what else is taken off, and the sum of the exponentials that are left
    view<double, 2> received;  // [rows x keys]: from the heads of each row, of all counted queries
    index_t least_queries = 0; // what sequences with fewer receive is left to others; on Thrust

    constexpr const Sequences& where() const { return *this; }
    constexpr index_t heads() const { return q.extent(2); }
    constexpr index_t group(index_t head) const { return head / (heads() / k.extent(2)); }
    /// Of all sequences.
    constexpr index_t all_keys() const { return k.extent(0) * k.extent(1); }
    /// Queries, or keys, of one sequence, [... x heads x size].
    constexpr view<const T, 3> queries_of(index_t s) const {
        return rows(q, s, query_row(s, 0), this->queries(s));
    }
    constexpr view<const K, 3> keys_of(index_t s) const {
        const index_t first = Sequences::packed ? this->key_begin(s) : 0;
        return rows(k, s, first, this->keys(s));
    }
    constexpr index_t query_row(index_t s, index_t i) const {
        return Sequences::packed ? this->query_begin(s) + i : i;
    }
    /// What is taken off the logits of a query. Of one that sees no key, whose log-sum-exp is an
    /// infinity of either sign, so much that it gives nothing.
    PARE_HD compute shift(index_t s, index_t i, index_t head) const {
        const L x = lse(s, query_row(s, i), head);
        if (is_finite(x) || is_nan(x)) return static_cast<compute>(x);
        return std::numeric_limits<compute>::max() / 4;
    }
    /// What the exponentials of its logits count.
    constexpr compute factor(index_t s, index_t i, index_t head, index_t seen) const {
        const compute weight = this->weight(this->query_begin(s) + i, seen);
        return totals.data_handle()
                   ? weight / static_cast<compute>(totals(s, query_row(s, i), head))
                   : weight;
    }

  private:
    template <class X>
    static constexpr view<X, 3> rows(const view<X, 4>& x, index_t s, index_t first, index_t count) {
        return {x.address(s, first, 0, 0),
                {count, x.extent(2), x.extent(3)},
                {x.stride(1), x.stride(2), x.stride(3)}};
    }
};

/// Rows of packed sequences for scores_call.
template <class T>
constexpr view<T, 4> of_all_sequences(const view<T, 3>& x) {
    return {x.data_handle(),
            {1, x.extent(0), x.extent(1), x.extent(2)},
            {0, x.stride(0), x.stride(1), x.stride(2)}};
}

/// The scores of an attention that has left, [heads x queries], what it took off logits and what the
/// exponentials summed up to.
template <class T, class K, class Sequences, class C = compute_t<T>>
scores_call<T, K, C, Sequences> scores_of(const attention_call<T, K, Sequences>& call,
                                          const C* most, const C* total) {
    const index_t queries = call.q.extent(0), heads = call.heads();
    scores_call<T, K, C, Sequences> scores{};
    static_cast<attention_terms<C>&>(scores) = call;
    static_cast<Sequences&>(scores) = call;
    scores.q = of_all_sequences(call.q);
    scores.k = of_all_sequences(call.k);
    scores.lse = {most, {1, queries, heads}, {0, 1, queries}};
    scores.totals = {total, {1, queries, heads}, {0, 1, queries}};
    scores.received = call.received;
    return scores;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
