// What choosing tokens by their scores has in common, by threshold or by count: order, and the checks of
// arguments.
#pragma once

#include "../core/checks.hpp"
#include "../core/error.hpp"
#include "../core/fast_math.hpp"
#include "../core/ops.hpp"
#include "../core/pins.hpp"
#include "../core/view.hpp"
#include "../policy/kernels/select.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

template <class T>
struct at_least {
    view<const T, 1> scores;
    compute_t<T> threshold;
    constexpr bool operator()(index_t i) const {
        return static_cast<compute_t<T>>(scores(i)) >= threshold;
    }
};
template <class T>
struct at_least_or_flagged {
    at_least<T> above;
    view<const std::uint8_t, 1> flags;
    constexpr bool operator()(index_t i) const {
        return (static_cast<int>(above(i)) | (flags(i) != 0)) != 0;
    }
};

/// The order in which tokens of a sequence are kept.
template <class T>
struct kept_before {
    view<const T, 1> scores;
    pins pinned;
    constexpr bool operator()(index_t i, index_t j, const index_range& segment) const {
        const bool pinned_i = is_pinned(i, segment), pinned_j = is_pinned(j, segment);
        if (pinned_i != pinned_j) return pinned_i;
        const auto x = static_cast<compute_t<T>>(scores(i)),
                   y = static_cast<compute_t<T>>(scores(j));
        return x != y ? x > y : i < j;
    }
    constexpr bool any_pinned() const {
        return pinned.first > 0 || pinned.last > 0 || pinned.flags.extent(0) > 0;
    }
    constexpr bool is_pinned(index_t i, const index_range& segment) const {
        return kept_ends{pinned.first, pinned.last}.has(i, segment) ||
               (pinned.flags.extent(0) > 0 && pinned.flags(i) != 0);
    }
};

struct same_count {
    index_t k;
    constexpr index_t operator()(index_t) const { return k; }
    template <class Policy>
    index_t read(const Policy&, index_t) const {
        return k;
    }
};
template <class T>
struct count_each {
    view<const T, 1> k;
    constexpr index_t operator()(index_t s) const { return to_index(k(s)); }
    template <class Policy>
    index_t read(const Policy& policy, index_t s) const {
        return to_index(policy.read(&k(s)));
    }
};

/// One number for all sequences or one for each, as a function of the sequence.
template <class Policy, class Count>
auto counts_of([[maybe_unused]] const char* name, [[maybe_unused]] const Policy& policy,
               const Count& k, [[maybe_unused]] index_t sequences) {
    if constexpr (std::is_integral_v<Count>) {
        return same_count{to_index(k)};
    } else {
        const auto each = as_input<1>(policy, k);
        static_assert(std::is_integral_v<typename decltype(each)::value_type>,
                      "pare: numbers of tokens to keep are integers");
        if (each.extent(0) != sequences)
            fail<shape_error>(name, each.extent(0), " numbers k for ", sequences, " sequences");
        return count_each<typename decltype(each)::value_type>{each};
    }
}

/// How many of a sequence's tokens the k best are.
template <class Count, class Offset>
struct best_of {
    Count count;
    const Offset* offsets;
    constexpr index_t tokens(index_t s) const {
        return static_cast<index_t>(offsets[s + 1]) - static_cast<index_t>(offsets[s]);
    }
    constexpr index_t operator()(index_t s) const {
        return std::min(tokens(s), std::max<index_t>(0, count(s)));
    }
};
template <class Count, class Offset>
struct too_few {
    best_of<Count, Offset> best;
    constexpr bool operator()(index_t s) const { return best.tokens(s) > 0 && best.count(s) < 1; }
};
/// Whether sequence s ends behind a position.
template <class Offset>
struct ends_behind {
    const Offset* offsets;
    index_t position;
    constexpr bool operator()(index_t s) const {
        return static_cast<index_t>(offsets[s + 1]) > position;
    }
};

/// Integer holds every number up to `tokens`.
template <class Integer>
void check_counts_to(const char* name, index_t tokens) {
    static_assert(std::is_integral_v<Integer>, "pare: positions and offsets are integers");
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Integer>::max());
    if (static_cast<std::uint64_t>(tokens) > most)
        fail<shape_error>(name, "integers up to ", most, " cannot count ", tokens, " tokens");
}

/// Scores have no NaN. Only of memory that the host reads, or by a call that waits.
template <class Policy, class Scores, class Offsets>
void check_scores(const char* name, const Policy& policy, const Scores& scores,
                  const Offsets& offsets) {
    if (const index_t i = policy.first_nan(scores); i >= 0) {
        using Offset = typename Offsets::value_type;
        const Offset* const from = offsets.data_handle();
        const index_t s = policy.first(offsets.extent(0) - 1, ends_behind<Offset>{from, i});
        fail<value_error>(name, "score ", i - static_cast<index_t>(policy.read(from + s)),
                          " of sequence ", s, " is NaN");
    }
}

/// What both rules check before anything is written; of memory that the host does not read, what is
/// in it is checked where it is.
template <class Policy, class Scores, class Offsets, class Index, class KeptOffsets>
void check_selection(const char* name, const Policy& policy, const Scores& scores,
                     const Offsets& offsets, const pins& pinned, const Index& index,
                     const KeptOffsets& kept_offsets) {
    const index_t tokens = scores.extent(0);
    check_offsets(name, policy, offsets, tokens);
    if (kept_offsets.extent(0) != offsets.extent(0) || !is_contiguous(kept_offsets))
        fail<shape_error>(name, offsets.extent(0), " offsets, ", kept_offsets.extent(0),
                          " new ones of stride ", kept_offsets.stride(0));
    if (!is_contiguous(index)) fail<shape_error>(name, "positions have stride ", index.stride(0));
    check_counts_to<typename Index::value_type>(name, tokens);
    check_counts_to<typename KeptOffsets::value_type>(name, tokens);
    const index_t flags = pinned.flags.extent(0);
    if (pinned.first < 0 || pinned.last < 0 || (flags != 0 && flags != tokens))
        fail<shape_error>(name, "pinned are the first ", pinned.first, " tokens, the last ",
                          pinned.last, " and by ", flags, " flags, there are ", tokens, " tokens");
    if constexpr (Policy::on_host) check_scores(name, policy, scores, offsets);
}
/// Says what is wrong with offsets or scores that a policy has found something wrong with.
template <class Policy, class Scores, class Offsets>
void find_wrong(const char* name, const Policy& policy, const Scores& scores,
                const Offsets& offsets) {
    check_offsets(name, policy, offsets, scores.extent(0), true);
    check_scores(name, policy, scores, offsets);
}

template <class Index>
void check_room(const char* name, const Index& index, index_t kept) {
    if (index.extent(0) < kept)
        fail<shape_error>(name, "room for ", index.extent(0), " positions, ", kept, " are kept");
}
/// Of a call that does not wait for how many are kept.
template <class Index>
void check_room_for_all(const char* name, const Index& index, index_t tokens) {
    if (index.extent(0) < tokens)
        fail<shape_error>(name, "room for ", index.extent(0), " positions, all ", tokens,
                          " may be kept");
}

/// The same for a policy, which may refuse the flags' memory.
template <class Policy>
pins on_policy(const Policy& policy, const pins& pinned) {
    return {pinned.first, pinned.last, as_view<1>(policy, pinned.flags)};
}

inline void check_threshold(const char* name, double threshold) {
    if (is_nan(threshold)) fail<value_error>(name, "the threshold is NaN");
}

/// The arguments of a selection, checked.
template <class Scores, class Offsets, class Index, class NewOffsets>
struct selection_call {
    Scores scores;
    Offsets offsets;
    Index index;
    NewOffsets new_offsets;
    pins pinned;

    index_t sequences() const { return offsets.extent(0) - 1; }
};
template <class Policy, class Scores, class Offsets, class Index, class NewOffsets>
auto selection_of(const char* name, const Policy& policy, const Scores& scores,
                  const Offsets& offsets, Index&& index, NewOffsets&& new_offsets,
                  const pins& pinned) {
    const auto s = as_input<1>(policy, scores);
    const auto o = as_input<1>(policy, offsets);
    const auto p = as_output<1>(policy, std::forward<Index>(index));
    const auto kept_o = as_output<1>(policy, std::forward<NewOffsets>(new_offsets));
    const pins pin = on_policy(policy, pinned);
    check_selection(name, policy, s, o, pin, p, kept_o);
    return selection_call<std::decay_t<decltype(s)>, std::decay_t<decltype(o)>,
                          std::decay_t<decltype(p)>, std::decay_t<decltype(kept_o)>>{s, o, p,
                                                                                     kept_o, pin};
}

/// f(which scores are kept), for a threshold and pinned tokens.
template <class T, class F>
auto with_rule(view<const T, 1> scores, double threshold, const pins& pinned, const F& f) {
    // Infinite ones, which mean something here, are not for the compiler to see.
    using C = compute_t<T>;
    const auto rounded = static_cast<T>(static_cast<C>(threshold));
    const at_least<T> above{scores, opaque(static_cast<C>(rounded))};
    if (pinned.flags.extent(0) == 0) return f(above);
    return f(at_least_or_flagged<T>{above, pinned.flags});
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
