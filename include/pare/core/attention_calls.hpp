// What the attention of a policy is given: arrays, and what is added to logits.
#pragma once

#include "attention.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Into how many rows a head's queries are cut whose shares of what keys receive are apart.
constexpr index_t shares_of_head = 4;

/// What attention adds to logits of type C, what it hides, and which queries count how much.
template <class C>
struct attention_terms {
    view<const C, 1> key_bias;      // [tokens], or empty
    view<const C, 1> head_slopes;   // [heads], or empty
    view<const C, 1> query_weights; // [tokens], or empty: factors of what queries give
    C scale;
    attention_mask mask;
    counted_queries counted;
    /// [heads x distances], or empty: of as many keys before a query as behind it.
    view<const C, 2> distance_bias;
    view<const std::int32_t, 1> positions; // [tokens], or empty: places in the sequence

    /// What is added to the logit of query i and key j of the sequence that begins at `at`. Finite,
    /// so that a sum of it and a logit is too.
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
        return positions.extent(0) > 0 ? static_cast<index_t>(positions(at + i)) : i;
    }
    constexpr C slope(index_t head) const {
        return head_slopes.extent(0) > 0 ? head_slopes(head) : C(0);
    }
    constexpr C weight(index_t token) const {
        return query_weights.extent(0) > 0 ? query_weights(token) : C(1);
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

  private:
    /// Minus infinity removes a key, and makes no NaN of what it is added to. Under -Ofast the larger
    /// of NaN and a number may be the number; here NaN goes through.
    PARE_HD static C bounded(C bias) {
        constexpr C least = std::numeric_limits<C>::lowest() / 4;
        return is_nan(bias) ? bias : std::max(bias, least);
    }
};

/// What a policy's attention is given; everything is checked.
template <class T, class Offset>
struct attention_call : attention_terms<compute_t<T>> {
    view<const T, 3> q, k, v; // [tokens x heads x size], [tokens x groups x ...] twice
    const Offset* offsets;    // [sequences + 1], from 0 to tokens
    index_t sequences;
    view<T, 3> out;           // [tokens x heads x value size]
    view<double, 1> received; // [tokens], or empty: sums over heads and counted queries
    /// [shares_of_head * heads x tokens], rows contiguous, or empty: the same, to be added up.
    view<compute_t<T>, 2> shares;

    constexpr index_t begin(index_t s) const { return static_cast<index_t>(offsets[s]); }
    constexpr index_t length(index_t s) const { return begin(s + 1) - begin(s); }
    constexpr index_t heads() const { return q.extent(1); }
    constexpr index_t group(index_t head) const { return head / (heads() / k.extent(1)); }
    index_t longest() const {
        index_t n = 0;
        for (index_t s = 0; s < sequences; ++s) n = std::max(n, length(s));
        return n;
    }
};

/// What a policy's attention_scores is given; everything is checked. Sequences are packed, one
/// behind another (then strides along them are 0), or each is a row of a padded batch.
template <class T, class L, class Offset>
struct scores_call : attention_terms<compute_t<T>> {
    using C = compute_t<T>;
    view<const T, 4> q, k; // [sequences x tokens x heads x size], [... groups ...]
    view<const L, 3> lse;  // [sequences x tokens x heads]: log-sum-exp rows,
    view<const L, 3>
        totals; // or what else is taken off, and the sum of the exponentials that are left
    const Offset* offsets;   // of packed sequences [sequences + 1], from 0 to tokens; or null
    const Offset* lengths;   // of padded ones, or null
    index_t sequences, room; // tokens in a row of a padded batch
    double* received;        // [tokens]: sums over heads and counted queries

    /// The first token of a sequence among those of all.
    constexpr index_t begin(index_t s) const {
        return offsets ? static_cast<index_t>(offsets[s]) : s * room;
    }
    constexpr index_t length(index_t s) const {
        if (offsets) return begin(s + 1) - begin(s);
        return lengths ? static_cast<index_t>(lengths[s]) : room;
    }
    index_t longest() const {
        index_t n = 0;
        for (index_t s = 0; s < sequences; ++s) n = std::max(n, length(s));
        return n;
    }
    constexpr index_t tokens() const { return offsets ? q.extent(1) : sequences * room; }
    constexpr index_t heads() const { return q.extent(2); }
    constexpr index_t group(index_t head) const { return head / (heads() / k.extent(2)); }
    /// x of one sequence, [tokens x heads x size], from its first token on.
    constexpr view<const T, 3> rows(const view<const T, 4>& x, index_t s) const {
        return {x.address(s, row(s, 0), 0, 0),
                {length(s), x.extent(2), x.extent(3)},
                {x.stride(1), x.stride(2), x.stride(3)}};
    }
    constexpr index_t row(index_t s, index_t i) const { return offsets ? begin(s) + i : i; }
    /// What is taken off the logits of a query. Of one that sees no key, whose log-sum-exp is an
    /// infinity of either sign, so much that it gives nothing.
    PARE_HD C shift(index_t s, index_t i, index_t head) const {
        const L x = lse(s, row(s, i), head);
        if (is_finite(x) || is_nan(x)) return static_cast<C>(x);
        return std::numeric_limits<C>::max() / 4;
    }
    /// What the exponentials of its logits count.
    constexpr C factor(index_t s, index_t i, index_t head) const {
        const C weight = this->weight(begin(s) + i);
        return totals.data_handle() ? weight / static_cast<C>(totals(s, row(s, i), head)) : weight;
    }
};

/// Rows of packed sequences for scores_call.
template <class T>
constexpr view<T, 4> of_all_sequences(const view<T, 3>& x) {
    return {x.data_handle(),
            {1, x.extent(0), x.extent(1), x.extent(2)},
            {0, x.stride(0), x.stride(1), x.stride(2)}};
}

/// The scores of an attention that has left, [heads x tokens], what it took off logits and what the
/// exponentials summed up to.
template <class T, class Offset, class C = compute_t<T>>
scores_call<T, C, Offset> scores_of(const attention_call<T, Offset>& call, const C* most,
                                    const C* total) {
    const index_t tokens = call.q.extent(0), heads = call.heads();
    scores_call<T, C, Offset> scores{};
    static_cast<attention_terms<C>&>(scores) = call;
    scores.q = of_all_sequences(call.q);
    scores.k = of_all_sequences(call.k);
    scores.lse = {most, {1, tokens, heads}, {0, 1, tokens}};
    scores.totals = {total, {1, tokens, heads}, {0, 1, tokens}};
    scores.offsets = call.offsets;
    scores.sequences = call.sequences;
    scores.received = call.received.data_handle();
    return scores;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
