// Where the queries and the keys of sequences lie.
#pragma once

#include "attention.hpp"
#include "checks.hpp"
#include "view.hpp"

#include <algorithm>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {

namespace detail {
inline constexpr none left_out{};
} // namespace detail

/// The offsets of sequences whose queries and keys are not the same tokens: the next tokens of
/// decoders against their caches, a piece of a prompt, an encoder's output. Stands for the offsets of
/// attention and attention_scores, and lives no longer than the call:
///
///     pare::attention(policy, q, k, v, pare::query_key_offsets{query_offsets, key_offsets}, out);
///
/// queries  [sequences + 1]: sequence s has the queries queries[s] .. queries[s + 1]
/// keys     [sequences + 1]: its keys are from keys[s] on, up to keys[s + 1]
/// lengths  [sequences], or left out: how many keys it has there, where a cache has room for more;
///          what lies behind them is not read
///
/// Offsets and lengths are of one type. The last query stands at the last key's position, whatever
/// counts positions: masks, slopes, biases of distance.
template <class Queries, class Keys, class Lengths = detail::none>
struct query_key_offsets {
    const Queries& queries;
    const Keys& keys;
    const Lengths& lengths = detail::left_out;
};
template <class Queries, class Keys>
query_key_offsets(const Queries&, const Keys&) -> query_key_offsets<Queries, Keys>;
template <class Queries, class Keys, class Lengths>
query_key_offsets(const Queries&, const Keys&, const Lengths&)
    -> query_key_offsets<Queries, Keys, Lengths>;

namespace detail {

/// Packed sequences whose tokens are queries and keys both.
template <class Offset>
struct same_tokens {
    static constexpr bool same = true, packed = true;
    const Offset* offsets; // [sequences + 1], from 0 to tokens
    index_t sequences;

    constexpr index_t key_begin(index_t s) const { return static_cast<index_t>(offsets[s]); }
    constexpr index_t keys(index_t s) const { return key_begin(s + 1) - key_begin(s); }
    constexpr index_t room(index_t s) const { return keys(s); } // of keys
    constexpr index_t query_begin(index_t s) const { return key_begin(s); }
    constexpr index_t queries(index_t s) const { return keys(s); }
    constexpr index_t with_key(index_t t) const { return segment_of(offsets, sequences, t); }
    constexpr index_t with_query(index_t t) const { return with_key(t); }
};

/// Packed sequences whose queries are other tokens than their keys; see query_key_offsets.
template <class Offset>
struct queries_and_keys {
    static constexpr bool same = false, packed = true;
    const Offset *query_offsets, *key_offsets; // [sequences + 1]
    const Offset* lengths;                     // [sequences], or null
    index_t sequences;

    constexpr index_t key_begin(index_t s) const { return static_cast<index_t>(key_offsets[s]); }
    constexpr index_t keys(index_t s) const {
        return lengths ? static_cast<index_t>(lengths[s]) : room(s);
    }
    constexpr index_t room(index_t s) const { return key_begin(s + 1) - key_begin(s); }
    constexpr index_t query_begin(index_t s) const {
        return static_cast<index_t>(query_offsets[s]);
    }
    constexpr index_t queries(index_t s) const { return query_begin(s + 1) - query_begin(s); }
    constexpr index_t with_key(index_t t) const { return segment_of(key_offsets, sequences, t); }
    constexpr index_t with_query(index_t t) const {
        return segment_of(query_offsets, sequences, t);
    }
};

/// Rows of a padded batch, whose tokens are queries and keys both.
template <class Length>
struct padded_rows {
    static constexpr bool same = true, packed = false;
    const Length* lengths;     // [sequences], or null: no padding
    index_t sequences, tokens; // of a row

    constexpr index_t key_begin(index_t s) const { return s * tokens; }
    constexpr index_t keys(index_t s) const {
        return lengths ? static_cast<index_t>(lengths[s]) : tokens;
    }
    constexpr index_t room(index_t) const { return tokens; }
    constexpr index_t query_begin(index_t s) const { return key_begin(s); }
    constexpr index_t queries(index_t s) const { return keys(s); }
    constexpr index_t with_key(index_t t) const { return t / tokens; }
    constexpr index_t with_query(index_t t) const { return with_key(t); }
};

/// The place of a sequence's query i among its keys: the last one stands at the last key's.
template <class Sequences>
constexpr index_t place_of_query(const Sequences& x, index_t s, index_t i) {
    return Sequences::same ? i : i + x.keys(s) - x.queries(s);
}
template <class Sequences>
index_t most_keys(const Sequences& x) {
    index_t n = 0;
    for (index_t s = 0; s < x.sequences; ++s) n = std::max(n, x.keys(s));
    return n;
}
template <class Sequences>
index_t most_queries(const Sequences& x) {
    index_t n = 0;
    for (index_t s = 0; s < x.sequences; ++s) n = std::max(n, x.queries(s));
    return n;
}

/// Whether key t is one of a sequence, and not behind its end.
template <class Sequences>
constexpr bool is_key(const Sequences& x, index_t t) {
    if constexpr (Sequences::same && Sequences::packed) {
        return true;
    } else {
        const index_t s = x.with_key(t);
        return t - x.key_begin(s) < x.keys(s);
    }
}

template <class T>
constexpr view<T, 2> one_row(const view<T, 1>& x) {
    return {x.data_handle(), {1, x.extent(0)}, {0, x.stride(0)}};
}

template <class Sequences>
struct wrong_length {
    Sequences x;
    constexpr bool operator()(index_t s) const { return x.keys(s) < 0 || x.keys(s) > x.room(s); }
};

/// How many queries the offsets of so many keys say that there are.
template <class Policy, class Offsets>
index_t queries_of(const Policy&, const Offsets&, index_t keys) {
    return keys;
}
template <class Policy, class Queries, class Keys, class Lengths>
index_t queries_of(const Policy& policy, const query_key_offsets<Queries, Keys, Lengths>& offsets,
                   index_t) {
    const auto o = as_input<1>(policy, offsets.queries);
    return o.extent(0) > 0 ? static_cast<index_t>(o(o.extent(0) - 1)) : 0;
}

/// What offsets say of so many queries and keys, checked.
template <class Policy, class Offsets>
auto checked_sequences(const char* name, const Policy& policy, const Offsets& offsets,
                       index_t queries, index_t keys) {
    const auto o = as_input<1>(policy, offsets);
    if (queries != keys)
        fail<shape_error>(name, queries, " queries, ", keys,
                          " keys: give query_key_offsets, where they are not the same tokens");
    check_offsets(name, policy, o, keys);
    return same_tokens<typename decltype(o)::value_type>{o.data_handle(), o.extent(0) - 1};
}
template <class Policy, class Queries, class Keys, class Lengths>
auto checked_sequences(const char* name, const Policy& policy,
                       const query_key_offsets<Queries, Keys, Lengths>& offsets, index_t queries,
                       index_t keys) {
    const auto of_queries = as_input<1>(policy, offsets.queries);
    const auto of_keys = as_input<1>(policy, offsets.keys);
    using Offset = typename decltype(of_keys)::value_type;
    static_assert(std::is_same_v<Offset, typename decltype(of_queries)::value_type>,
                  "pare: offsets of queries and keys, and lengths, have one element type");
    check_offsets(name, policy, of_queries, queries);
    check_offsets(name, policy, of_keys, keys);
    queries_and_keys<Offset> x{of_queries.data_handle(), of_keys.data_handle(), nullptr,
                               of_keys.extent(0) - 1};
    if (of_queries.extent(0) != of_keys.extent(0))
        fail<shape_error>(name, of_queries.extent(0) - 1, " sequences of queries, ", x.sequences,
                          " of keys");
    if constexpr (!std::is_same_v<Lengths, none>) {
        const auto lengths = as_input<1>(policy, offsets.lengths);
        static_assert(std::is_same_v<Offset, typename decltype(lengths)::value_type>,
                      "pare: offsets of queries and keys, and lengths, have one element type");
        if (lengths.extent(0) == 0) return x;
        x.lengths = lengths.data_handle();
        if (lengths.extent(0) != x.sequences || !is_contiguous(lengths))
            fail<shape_error>(name, lengths.extent(0), " lengths of stride ", lengths.stride(0),
                              ", ", x.sequences, " sequences");
        if constexpr (Policy::on_host)
            if (const index_t s = policy.first(x.sequences, wrong_length<decltype(x)>{x}); s >= 0)
                fail<shape_error>(name, "sequence ", s, " has ", x.keys(s), " keys, and room for ",
                                  x.room(s));
    }
    return x;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
