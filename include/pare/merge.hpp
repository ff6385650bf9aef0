// Merging beside dropping: a row that leaves is added to the kept row that it is most like, so that
// little of it is lost (ToMe, arXiv:2210.09461; PiToMe, arXiv:2405.16148; of caches, CaM and D2O).
//
//     pare::keep_top_k(policy, scores, k, offsets, index, new_offsets);
//     pare::nearest_rows(policy, keys, offsets, index, nearest, similarity);
//     pare::merge_rows(policy, index, nearest, sizes, pare::from_to(hidden, merged), ...);
//
// From then on `sizes` says how many tokens a row stands for, and attention weighs keys by it: its
// key_bias is the logarithm of a size.
#pragma once

#include "core/checks.hpp"
#include "core/sequences.hpp"
#include "gather.hpp"
#include "policy/seq.hpp"

#include <tuple>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

/// Whether token t leaves and goes to a row that leaves, or that there is not.
template <class Index, class Nearest>
struct goes_astray {
    const Index* index;
    index_t kept;
    view<const Nearest, 1> nearest;
    constexpr bool operator()(index_t t) const {
        return nearest(t) != -1 && row_of_token(index, kept, nearest, t) < 0;
    }
};
inline void check_tokens_of(const char* name, index_t rows, index_t tokens) {
    if (rows != tokens) fail<shape_error>(name, "an array of ", rows, " rows, ", tokens, " tokens");
}

} // namespace detail

/// Of each token the row among some of its sequence that is most like it, by the cosine of keys; of
/// equally near ones the first. ToMe's matching: `index` are every second token, and those of the
/// others whose similarity is highest leave, by keep_top_k of the negative similarities with every
/// second token pinned.
///
/// keys        [tokens x size]; of several heads one behind another, or their mean. Any strides
/// offsets     [sequences + 1]: sequence s has the tokens offsets[s] .. offsets[s + 1]
/// index       positions of the rows to choose from, ascending, stride 1
/// nearest     [tokens] integers, overwritten: positions of tokens; of a token of `index` its own;
///             -1 where a sequence has none in `index`
/// similarity  [tokens], of the type of keys, overwritten: the cosines, 1 of the tokens of `index`,
///             -1 where there is none; 0 to and from a key of zeros
///
/// Throws shape_error and value_error; a key that is not finite has similarities of NaN, and its token
/// still a row of its sequence. To such a row others go only where their sequence has none besides.
/// Complexity: for each sequence, tokens * rows of `index` * size
/// multiply-adds; workspace of tokens * size numbers.
template <class Policy, class Keys, class Offsets, class Index, class Nearest, class Similarity>
void nearest_rows(const Policy& policy, const Keys& keys, const Offsets& offsets,
                  const Index& index, Nearest&& nearest, Similarity&& similarity,
                  workspace& scratch = detail::of_this_call({})) {
    constexpr const char* name = "nearest_rows";
    detail::check_whole(policy);
    const auto k = as_input<2>(policy, keys);
    const auto o = as_input<1>(policy, offsets);
    const auto p = as_input<1>(policy, index);
    const auto to = as_output<1>(policy, std::forward<Nearest>(nearest));
    const auto near = as_output<1>(policy, std::forward<Similarity>(similarity));
    using T = typename decltype(k)::value_type;
    using position = typename decltype(to)::value_type;
    detail::check_real<T>();
    static_assert(std::is_integral_v<position> && std::is_signed_v<position>,
                  "pare::nearest_rows: nearest are integers, and -1 where there is none");
    static_assert(std::is_same_v<T, typename decltype(near)::value_type>,
                  "pare::nearest_rows: similarities are of the type of keys");
    const index_t tokens = k.extent(0);
    if (to.extent(0) != tokens || near.extent(0) != tokens)
        detail::fail<shape_error>(name, tokens, " keys, ", to.extent(0), " nearest rows and ",
                                  near.extent(0), " similarities");
    detail::check_offsets(name, policy, o, tokens);
    detail::check_positions(name, policy, p, tokens);
    using C = compute_t<T>;
    const auto memory = policy.template temporary<C>(scratch, tokens * k.extent(1));
    policy.nearest_rows(k, o.data_handle(), o.extent(0) - 1, p.data_handle(), p.extent(0),
                        memory.data(), to, near);
}

/// Rows of `index` and, added to each, those of the tokens that leave and are nearest to it: means
/// weighted by sizes. A row to which nothing is added stays as it is.
///
/// index    positions kept, ascending, stride 1
/// nearest  [tokens], positions as nearest_rows gives them, or -1: goes nowhere. Those of kept tokens
///          are not looked at; of others they are kept, or go nowhere
/// sizes    [tokens], real numbers, more than 0, which is not checked: of how many tokens a row is the
///          mean, 1 at first. The first `kept` are overwritten with what rows then stand for
/// arrays   from_to(from [tokens x columns], to [kept x columns]) of one real type each; they do not
///          overlap
///
/// Throws shape_error, and value_error for positions; then nothing has moved. Complexity: reads all
/// rows that stay or are merged once; workspace of 24 bytes a token.
template <class Policy, class Index, class Nearest, class Sizes, class... Arrays>
void merge_rows(const Policy& policy, const Index& index, const Nearest& nearest, Sizes&& sizes,
                const row_move<Arrays>&... arrays) {
    static_assert(sizeof...(arrays) > 0, "pare::merge_rows: pass the arrays after the sizes");
    constexpr const char* name = "merge_rows";
    detail::check_whole(policy);
    const auto p = as_input<1>(policy, index);
    const auto n = as_input<1>(policy, nearest);
    const auto weight = as_output<1>(policy, std::forward<Sizes>(sizes));
    static_assert(std::is_integral_v<typename decltype(n)::value_type>,
                  "pare: positions are integers");
    using size = typename decltype(weight)::value_type;
    detail::check_real<size>();
    (detail::check_real<Arrays>(), ...);
    const index_t tokens = n.extent(0), kept = p.extent(0);
    if (weight.extent(0) != tokens)
        detail::fail<shape_error>(name, weight.extent(0), " sizes, ", tokens, " nearest rows");
    detail::check_positions(name, policy, p, tokens);
    std::apply(
        [&](const auto&... move) {
            int array = 0;
            (detail::check_rows(name, array++, move.to, move.from, kept), ...);
            (detail::check_tokens_of(name, move.from.extent(0), tokens), ...);
            if constexpr (Policy::on_host) {
                const detail::goes_astray<typename decltype(p)::value_type,
                                          typename decltype(n)::value_type>
                    wrong{p.data_handle(), kept, n};
                if (const index_t t = policy.first(tokens, wrong); t >= 0)
                    detail::fail<value_error>(name, "token ", t, " goes to row ", n(t),
                                              ", which is none of those kept");
            }
            workspace scratch;
            // Tokens by the row that they become a part of, and where the parts of each row start.
            const auto parts = policy.template temporary<index_t>(scratch, 2 * tokens + kept + 1);
            index_t* const starts = parts.data() + tokens;
            policy.group_rows(p.data_handle(), kept, n, parts.data(), starts, starts + kept + 1);
            const view<const size, 1> weights(weight);
            (policy.merge_rows(move.from, weights, parts.data(), starts, move.to), ...);
            policy.merge_sizes(parts.data(), starts, kept, view<size, 1>(weight), scratch.inner());
        },
        std::tuple(detail::on_policy(policy, arrays)...));
}

} // namespace PARE_ISA
} // namespace pare
