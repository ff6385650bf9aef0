// How important a token is: the attention that it receives.
#pragma once

#include "core/attention.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/executor.hpp"
#include "core/view.hpp"
#include "core/workspace.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

inline void check_options(const char* name, const importance_options& o) {
    if (o.scale == score_scale::fixed && !(is_finite(o.length) && o.length > 0))
        fail<value_error>(name, "the fixed length is ", o.length);
    if (o.mask.window < 0) fail<value_error>(name, "the window is ", o.mask.window);
}

template <class Policy, class T, class Length>
padded_batch<Length> check_batch(const char* name, const Policy&, view<T, 4> p,
                                 view<const Length, 1> lengths) {
    static_assert(std::is_integral_v<Length>, "pare: lengths are integers");
    const index_t batch = p.extent(0), queries = p.extent(2), keys = p.extent(3);
    if (lengths.extent(0) == 0 && batch > 0) return {nullptr, queries, keys};
    if (lengths.extent(0) != batch)
        fail<shape_error>(name, "probabilities of ", batch, " sequences, ", lengths.extent(0),
                          " lengths");
    for (index_t b = 0; b < batch && Policy::on_host; ++b) {
        const auto n = static_cast<index_t>(lengths(b));
        if (n < 0 || n > keys)
            fail<shape_error>(name, "sequence ", b, " has length ", n, ", probabilities ",
                              p.extent(1), "x", queries, "x", keys);
    }
    if (!is_contiguous(lengths)) fail<shape_error>(name, "lengths have stride ", lengths.stride(0));
    return {lengths.data_handle(), queries, keys};
}

inline void check_sum(const char* name, double sum, index_t key, index_t sequence) {
    if (!is_finite(sum))
        fail<value_error>(name, "the attention to key ", key, " of sequence ", sequence,
                          " sums up to ", sum);
}

/// The scores of the keys that are this part's, from sums of the same shape.
template <class Policy, class Batch, class S>
void score_part(const char* name, const Policy& policy, view<double, 2> sums, const Batch& batch,
                index_t heads, const importance_options& options, view<S, 2> scores) {
    const index_t sequences = sums.extent(0), room = sums.extent(1);
    policy.for_key_blocks(sequences, room, [&](index_t b, const index_range& some) {
        for (index_t k = some.begin; k < std::min(some.end, batch.keys(b)); ++k)
            check_sum(name, sums(b, k), k, b);
    });
    policy.for_key_blocks(sequences, room, [&](index_t b, const index_range& some) {
        const index_t keys = batch.keys(b), end = std::clamp(keys, some.begin, some.end);
        scale_sequence(options, heads, batch.queries(b), keys, {some.begin, end}, &sums(b, 0),
                       sums.stride(1), scores.address(b, 0), scores.stride(1));
        for (index_t k = end; k < some.end; ++k) scores(b, k) = S(0);
    });
}

/// Whether what key i % keys receives is no number.
template <class Sequences>
struct wrong_sum {
    const double* sums;
    index_t keys;
    Sequences where;
    bool operator()(index_t i) const { return !is_finite(sums[i]) && is_key(where, i % keys); }
};

/// f(keys) for those of packed sequence s whose sums a task, or a part of a call, makes.
template <class Policy, class F>
void for_keys_in_turn(const Policy& policy, index_t s, index_t room, const F& f) {
    using executor = std::decay_t<decltype(policy.executor())>;
    sequential<executor>(in_turn(policy.executor(), s))
        .for_key_blocks(1, room, [&](index_t, const index_range& some) { f(some); });
}

/// Scores of packed keys from sums over `heads` heads each, [rows x keys] without gaps.
template <class Policy, class Sequences, class S>
void score_packed(const char* name, const Policy& policy, view<const double, 2> sums,
                  const Sequences& where, index_t heads, const importance_options& options,
                  view<S, 2> scores) {
    if constexpr (is_partial<std::decay_t<decltype(policy.executor())>>) {
        const auto for_my_keys = [&](const auto& f) {
            for (index_t s = 0; s < where.sequences; ++s)
                for (index_t row = 0; row < sums.extent(0); ++row)
                    for_keys_in_turn(policy, s, where.room(s), [&](const index_range& some) {
                        f(s, row, some, std::clamp(where.keys(s), some.begin, some.end));
                    });
        };
        for_my_keys([&](index_t s, index_t row, const index_range& some, index_t end) {
            for (index_t k = some.begin; k < end; ++k)
                check_sum(name, sums(row, where.key_begin(s) + k), k, s);
        });
        for_my_keys([&](index_t s, index_t row, const index_range& some, index_t end) {
            const index_t at = where.key_begin(s);
            scale_sequence(options, heads, where.queries(s), where.keys(s), {some.begin, end},
                           sums.address(row, at), sums.stride(1), scores.address(row, at),
                           scores.stride(1));
            for (index_t k = end; k < some.end; ++k) scores(row, at + k) = S(0);
        });
    } else {
        const index_t keys = sums.extent(1);
        const wrong_sum<Sequences> wrong{sums.data_handle(), keys, where};
        if (const index_t i = policy.first(sums.size(), wrong); i >= 0) {
            const index_t t = i % keys, s = where.with_key(t);
            check_sum(name, sums(i / keys, t), t - where.key_begin(s), s);
        }
        policy.scale_tokens(sums, where, heads, options, scores);
    }
}

/// Tells lengths and scores from scores and options.
template <class X>
using unless_options = std::enable_if_t<!std::is_same_v<std::decay_t<X>, importance_options>, int>;

template <class Policy, class T, class Length, class S>
void padded_importance(const Policy& policy, view<const T, 4> p, view<const Length, 1> lengths,
                       view<S, 2> scores, const importance_options& options,
                       [[maybe_unused]] workspace& scratch) {
    check_real<T, S>();
    const padded_batch<Length> batch = check_batch("importance", policy, p, lengths);
    const index_t sequences = p.extent(0), keys = p.extent(3);
    if (scores.extent(0) != sequences || scores.extent(1) != keys)
        fail<shape_error>("importance", "probabilities ", sequences, "x", p.extent(1), "x",
                          p.extent(2), "x", keys, ", scores ", scores.extent(0), "x",
                          scores.extent(1));
    if constexpr (Policy::on_host) {
        const auto memory = policy.template temporary<double>(scratch, sequences * keys);
        const view<double, 2> sums(memory.data(), sequences, keys);
        policy.key_sums(p, batch, options.mask, options.queries, sums);
        if constexpr (is_partial<std::decay_t<decltype(policy.executor())>>) {
            score_part("importance", policy, sums, batch, p.extent(1), options, scores);
        } else {
            for (index_t b = 0; b < sequences; ++b)
                for (index_t k = 0; k < batch.keys(b); ++k)
                    check_sum("importance", sums(b, k), k, b);
            policy.scale_keys(view<const double, 2>(sums), batch, p.extent(1), options, scores);
        }
    } else {
        policy.score_keys(p, batch, options, scores);
    }
}

} // namespace detail

/// Scores of the keys of one sequence.
///
/// probabilities  [heads x queries x keys], any strides; rows sum up to 1 over the keys that they
///                see, what the mask hides is not read
/// scores         [keys], overwritten
///
/// Throws shape_error, and value_error if a sum is not finite; then nothing is written, by parts of a
/// call by none that has such a sum. Parts are some keys of all heads and queries. Complexity: reads
/// the probabilities once; scratch of 8 bytes a key. Source: arXiv:2107.00910, section 3.1.
template <class Policy, class P, class S>
void importance(const Policy& policy, const P& probabilities, S&& scores,
                const importance_options& options = {},
                workspace& scratch = detail::of_this_call({})) {
    detail::check_options("importance", options);
    const auto p = as_input<3>(policy, probabilities);
    const auto s = as_output<1>(policy, std::forward<S>(scores));
    using T = typename decltype(p)::value_type;
    using U = typename decltype(s)::element_type;
    const view<const T, 4> one(p.data_handle(), {1, p.extent(0), p.extent(1), p.extent(2)},
                               {0, p.stride(0), p.stride(1), p.stride(2)});
    detail::padded_importance(policy, one, view<const index_t, 1>(nullptr, index_t{0}),
                              view<U, 2>(s.data_handle(), {1, s.extent(0)}, {0, s.stride(0)}),
                              options, scratch);
}

/// Scores of the keys of a padded batch.
///
/// probabilities  [batch x heads x queries x keys], any strides: [h,b,q,k] or a layer of
///                [l,b,h,q,k] are views; what lies beyond a sequence's length is not read
/// lengths        [batch], or {}: no padding. They bound queries and keys where there is room
///                for as many of both, else the keys alone
/// scores         [batch x keys], overwritten; 0 beyond the length
template <class Policy, class P, class L = view<const index_t, 1>, class S,
          detail::unless_options<S> = 0>
void importance(const Policy& policy, const P& probabilities, const L& lengths, S&& scores,
                const importance_options& options = {},
                workspace& scratch = detail::of_this_call({})) {
    detail::check_options("importance", options);
    detail::padded_importance(policy, as_input<4>(policy, probabilities),
                              as_input<1>(policy, lengths),
                              as_output<2>(policy, std::forward<S>(scores)), options, scratch);
}

/// Scores of the tokens of a packed batch.
///
/// probabilities  one after another, without gaps, each sequence's [heads x n x n]
/// offsets        [sequences + 1]: sequence s has the tokens offsets[s] .. offsets[s + 1]
/// scores         [tokens], overwritten
template <class Policy, class P, class O, class S>
void importance_packed(const Policy& policy, const P& probabilities, index_t heads,
                       const O& offsets, S&& scores, const importance_options& options = {},
                       [[maybe_unused]] workspace& scratch = detail::of_this_call({})) {
    detail::check_options("importance", options);
    const auto p = as_input<1>(policy, probabilities);
    const auto o = as_input<1>(policy, offsets);
    const auto out = as_output<1>(policy, std::forward<S>(scores));
    detail::check_real<typename decltype(p)::value_type, typename decltype(out)::value_type>();
    const index_t tokens = out.extent(0), sequences = o.extent(0) - 1;
    // However long the sequences are, each token has a row in each head.
    if (heads < 0 || (tokens > 0 && heads > 0 && p.extent(0) / heads < tokens))
        detail::fail<shape_error>("importance", p.extent(0), " probabilities, ", heads,
                                  " heads and ", tokens, " tokens have more");
    if constexpr (Policy::on_host) {
        detail::check_offsets("importance", policy, o, tokens);
        constexpr index_t most = std::numeric_limits<index_t>::max();
        index_t need = 0;
        for (index_t s = 0; s < sequences; ++s) {
            const auto n = static_cast<index_t>(o(s + 1)) - static_cast<index_t>(o(s));
            need += std::min(detail::product(heads, n, n), most - need);
        }
        if (p.extent(0) != need)
            detail::fail<shape_error>("importance", p.extent(0), " probabilities, ", heads,
                                      " heads and ", tokens, " tokens in ", sequences,
                                      " sequences have ", need);
    }
    if (!detail::is_contiguous(p))
        detail::fail<shape_error>("importance", "probabilities have stride ", p.stride(0));
    if constexpr (Policy::on_host) {
        const auto memory = policy.template temporary<double>(scratch, tokens);
        const view<double, 1> sums(memory.data(), tokens);
        policy.key_sums_packed(p.data_handle(), heads, o.data_handle(), sequences, options.mask,
                               options.queries, sums);
        using offset = typename decltype(o)::value_type;
        detail::score_packed("importance", policy,
                             view<const double, 2>(sums.data_handle(), 1, tokens),
                             detail::same_tokens<offset>{o.data_handle(), sequences}, heads,
                             options, detail::one_row(out));
    } else {
        policy.score_tokens(p.data_handle(), heads, o.data_handle(), sequences, options, out);
    }
}

/// The adjoint: adds what the gradient of the scores means for the probabilities to their gradient.
///
/// score_gradient  [batch x keys]
/// gradient        of the probabilities, [batch x heads x queries x keys], added to; what is padded
///                 or hidden stays
template <class Policy, class G, class L = view<const index_t, 1>, class P>
void importance_backward(const Policy& policy, const G& score_gradient, const L& lengths,
                         P&& gradient, const importance_options& options = {}) {
    detail::check_options("importance_backward", options);
    const auto g = as_input<2>(policy, score_gradient);
    const auto p = as_output<4>(policy, std::forward<P>(gradient));
    using T = typename decltype(p)::value_type;
    detail::check_real<T, typename decltype(g)::value_type>();
    const auto batch =
        detail::check_batch("importance_backward", policy, p, as_input<1>(policy, lengths));
    const index_t sequences = p.extent(0), keys = p.extent(3);
    if (g.extent(0) != sequences || g.extent(1) != keys)
        detail::fail<shape_error>("importance_backward", "probabilities ", sequences, "x",
                                  p.extent(1), "x", p.extent(2), "x", keys, ", gradient of scores ",
                                  g.extent(0), "x", g.extent(1));
    workspace scratch;
    const auto memory = policy.template temporary<T>(scratch, sequences * keys);
    const view<T, 2> rows(memory.data(), sequences, keys);
    policy.scale_keys(g, batch, p.extent(1), options, rows);
    policy.add_to_keys(view<const T, 2>(rows), batch, options.mask, options.queries, p);
}

/// Scores summed up across layers (SpAtten's cascade, arXiv:2012.09852) or decoding steps (heavy
/// hitters, H2O, arXiv:2306.14048); `decay` < 1 forgets.
class score_accumulator {
  public:
    explicit score_accumulator(double decay = 1) : decay_(decay) {
        if (!(detail::is_finite(decay) && decay >= 0))
            detail::fail<value_error>("score_accumulator", "the decay is ", decay);
    }

    /// Adds the scores of all tokens. More than before: the new ones, at the end, start with these.
    template <class S>
    void add(const S& scores) {
        const auto s = as_input<1>(scores);
        const auto n = static_cast<std::size_t>(s.extent(0));
        if (n < sums_.size())
            detail::fail<shape_error>("score_accumulator", n, " scores, there are ", sums_.size(),
                                      " tokens: keep() says which are left");
        for (index_t i = 0; i < s.extent(0); ++i)
            if (!detail::is_finite(detail::to_double(s(i))))
                detail::fail<value_error>("score_accumulator", "score ", i, " is ", s(i));
        sums_.resize(n, 0.0);
        for (std::size_t i = 0; i < n; ++i)
            sums_[i] = decay_ * sums_[i] + detail::to_double(s(static_cast<index_t>(i)));
    }

    /// Only the tokens `index`, ascending, are left.
    template <class Index>
    void keep(const Index& index) {
        const auto kept = as_input<1>(index);
        static_assert(std::is_integral_v<typename decltype(kept)::value_type>,
                      "pare: positions are integers");
        index_t before = -1;
        for (index_t i = 0; i < kept.extent(0); ++i) {
            const auto at = static_cast<index_t>(kept(i));
            if (at <= before || at >= static_cast<index_t>(sums_.size()))
                detail::fail<value_error>("score_accumulator", "index ", i, " is ", at, " after ",
                                          before, ", of ", sums_.size(), " tokens");
            before = at;
        }
        for (index_t i = 0; i < kept.extent(0); ++i)
            sums_[static_cast<std::size_t>(i)] = sums_[static_cast<std::size_t>(kept(i))];
        sums_.resize(static_cast<std::size_t>(kept.extent(0)));
    }

    view<const double, 1> sums() const {
        return {sums_.data(), static_cast<index_t>(sums_.size())};
    }

  private:
    double decay_;
    std::vector<double, detail::allocator<double>> sums_;
};

} // namespace PARE_ISA
} // namespace pare
