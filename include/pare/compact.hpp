// Dropping tokens: which stay, by threshold or by count, and moving their rows together.
//
//     auto kept = pare::keep_above(pare::simd, scores, threshold, offsets, index, offsets);
//     pare::gather_rows(pare::simd, pare::view(index.data(), kept), hidden, residual, ids);
//
// between the attention and the FFN of a layer (arXiv:2107.00910, section 3.1): what follows works
// on `kept` rows, packed as before with new offsets.
//
// Batches are packed: sequence s has the rows offsets[s] <= i < offsets[s + 1]. Positions are those
// of packed rows. Nothing depends on which other sequences share the batch.
#pragma once

#include "compact/selection.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/view.hpp"
#include "gather.hpp"
#include "policy/seq.hpp"

#include <utility>

namespace pare {
inline namespace PARE_ISA {

/// Keeps every token with score >= threshold, every pinned one, and of a sequence where these are
/// none the first with the highest score. Returns how many.
///
/// scores       [tokens]
/// threshold    in the scores' units, rounded to their type, of a half type by way of float; minus
///              infinity keeps all
/// offsets      sequences + 1 integers, from 0 to tokens
/// index        overwritten with the positions kept, ascending; any integer type, room for as many
///              as are kept, `tokens` at most; what is behind them is left as it is
/// new_offsets  sequences + 1 integers, overwritten: sequence s has the positions
///              index[new_offsets[s]] ... index[new_offsets[s + 1] - 1]; may be `offsets` itself
///              (but not in parts of a call, which need the old ones)
///
/// Throws shape_error, and value_error for a NaN score, with its sequence and position, or
/// threshold. Complexity: reads the scores twice, on one thread; once more where `index` has less
/// room than there are tokens.
template <class Policy, class Scores, class Offsets, class Index, class NewOffsets>
index_t keep_above(const Policy& policy, const Scores& scores, double threshold,
                   const Offsets& offsets, Index&& index, NewOffsets&& new_offsets,
                   const pins& pinned = {}) {
    detail::check_threshold("keep_above", threshold);
    const auto c =
        detail::selection_of("keep_above", policy, scores, offsets, std::forward<Index>(index),
                             std::forward<NewOffsets>(new_offsets), pinned);
    const auto* const from = c.offsets.data_handle();
    const detail::kept_ends always{c.pinned.first, c.pinned.last};
    const index_t room = c.index.extent(0);
    return detail::with_rule(c.scores, threshold, c.pinned, [&](const auto& keep) {
        if constexpr (Policy::on_host) {
            if (room < c.scores.extent(0))
                detail::check_room("keep_above", c.index,
                                   policy.count_selected(keep, always, from, c.sequences()));
            return policy.select(keep, always, c.scores, from, c.sequences(), c.index.data_handle(),
                                 c.new_offsets.data_handle());
        } else {
            const index_t kept =
                policy.select_checked(keep, always, c.scores, from, c.sequences(),
                                      c.index.data_handle(), room, c.new_offsets.data_handle());
            if (kept < 0) detail::find_wrong("keep_above", policy, c.scores, c.offsets);
            detail::check_room("keep_above", c.index, kept);
            return kept;
        }
    });
}

/// The same for one sequence.
template <class Policy, class Scores, class Index>
index_t keep_above(const Policy& policy, const Scores& scores, double threshold, Index&& index,
                   const pins& pinned = {}) {
    const auto s = as_input<1>(policy, scores);
    if constexpr (!Policy::on_host) {
        const auto p = as_output<1>(policy, std::forward<Index>(index));
        const view<const index_t, 1> offsets(nullptr, index_t{2}); // of which none is read
        detail::check_threshold("keep_above", threshold);
        const pins pin = detail::on_policy(policy, pinned);
        detail::check_selection("keep_above", policy, s, offsets, pin, p, offsets);
        const index_t kept = detail::with_rule(s, threshold, pin, [&](const auto& keep) {
            return policy.select_checked(keep, {pin.first, pin.last}, s, p.data_handle(),
                                         p.extent(0));
        });
        if (kept >= 0) {
            detail::check_room("keep_above", p, kept);
            return kept;
        }
    }
    return detail::with_offsets_of_one(policy, s.extent(0), [&](auto&& offsets) {
        return keep_above(policy, s, threshold, offsets, std::forward<Index>(index), offsets,
                          pinned);
    });
}

/// Keeps min(k, n) tokens of each sequence of n: the pinned ones first, then those with the highest
/// scores, of equal ones the earlier. Where more than k are pinned, the same order is among them.
/// Returns how many.
///
/// k  tokens to keep: one number, or one for each sequence [sequences]; at least 1, except for
///    empty sequences
///
/// The rest as for keep_above; value_error also for such a k. Complexity: n times the bits of a
/// score at most, in registers, on one thread, in at most 32 KB beside `index`; a sequence of more than
/// 4,096 tokens is read again for each bit.
template <class Policy, class Scores, class Count, class Offsets, class Index, class NewOffsets>
index_t keep_top_k(const Policy& policy, const Scores& scores, const Count& k,
                   const Offsets& offsets, Index&& index, NewOffsets&& new_offsets,
                   const pins& pinned = {}) {
    const auto c =
        detail::selection_of("keep_top_k", policy, scores, offsets, std::forward<Index>(index),
                             std::forward<NewOffsets>(new_offsets), pinned);
    const auto& [s, o, p, kept_o, pin] = c;
    const index_t sequences = c.sequences();
    const auto count = detail::counts_of("keep_top_k", policy, k, sequences);
    using Offset = typename decltype(o)::value_type;
    const detail::best_of<decltype(count), Offset> best{count, o.data_handle()};
    const detail::kept_before<typename decltype(s)::value_type> before{s, pin};
    const auto check_counts = [&] {
        const detail::too_few<decltype(count), Offset> wrong{best};
        if (const index_t b = policy.first(sequences, wrong); b >= 0)
            detail::fail<value_error>(
                "keep_top_k", "k is ", count.read(policy, b), " for sequence ", b, " of ",
                policy.read(best.offsets + b + 1) - policy.read(best.offsets + b), " tokens");
    };
    index_t kept = 0;
    if constexpr (Policy::on_host) {
        check_counts();
        kept = policy.sum(sequences, best);
        detail::check_room("keep_top_k", p, kept);
        policy.select_first(before, count, o.data_handle(), sequences, s.extent(0), p.data_handle(),
                            kept_o.data_handle());
    } else {
        kept = policy.select_first_checked(before, best, o.data_handle(), sequences, s.extent(0),
                                           p.data_handle(), p.extent(0), kept_o.data_handle());
        if (kept < 0) {
            detail::find_wrong("keep_top_k", policy, s, o);
            check_counts();
        }
        detail::check_room("keep_top_k", p, kept);
    }
    return kept;
}

/// The same for one sequence.
template <class Policy, class Scores, class Index>
index_t keep_top_k(const Policy& policy, const Scores& scores, index_t k, Index&& index,
                   const pins& pinned = {}) {
    const auto s = as_input<1>(policy, scores);
    return detail::with_offsets_of_one(policy, s.extent(0), [&](auto&& offsets) {
        return keep_top_k(policy, s, k, offsets, std::forward<Index>(index), offsets, pinned);
    });
}

/// keep_above without its number, for callers that do not want to wait for a GPU: how many are kept
/// stands in the last of `new_offsets` alone, which gather_rows_async reads where it is. A CUDA graph
/// may be made of both: nothing waits, and temporary memory comes from the policy's allocator.
///
///     pare::keep_above_async(policy, scores, threshold, offsets, index, new_offsets);
///     pare::gather_rows_async(policy, index, new_offsets, pare::from_to(hidden, kept_hidden));
///
/// index  room for `tokens` positions; what is behind those kept is left as it is
///
/// The rest as for keep_above. A policy of the host's memory waits and throws as that does. Another
/// one checks shapes alone: offsets are the caller's to get right, and a NaN score is none above the
/// threshold, so its token stays only if it is pinned, or perhaps where its sequence keeps no other.
template <class Policy, class Scores, class Offsets, class Index, class NewOffsets>
void keep_above_async(const Policy& policy, const Scores& scores, double threshold,
                      const Offsets& offsets, Index&& index, NewOffsets&& new_offsets,
                      const pins& pinned = {}) {
    const auto s = as_input<1>(policy, scores);
    const auto p = as_output<1>(policy, std::forward<Index>(index));
    detail::check_room_for_all("keep_above_async", p, s.extent(0));
    if constexpr (Policy::on_host) {
        keep_above(policy, s, threshold, offsets, p, std::forward<NewOffsets>(new_offsets), pinned);
    } else {
        detail::check_threshold("keep_above_async", threshold);
        const auto c = detail::selection_of("keep_above_async", policy, scores, offsets,
                                            std::forward<Index>(index),
                                            std::forward<NewOffsets>(new_offsets), pinned);
        detail::with_rule(c.scores, threshold, c.pinned, [&](const auto& keep) {
            policy.select_async(keep, {c.pinned.first, c.pinned.last}, c.scores,
                                c.offsets.data_handle(), c.sequences(), c.index.data_handle(),
                                c.new_offsets.data_handle());
        });
    }
}

/// keep_top_k without its number, as keep_above_async. Where nothing is checked, NaN comes behind all
/// other scores, and of a k below 1 nothing is kept. A sequence is one block of threads' there: of
/// more than a hundred thousand tokens keep_top_k is faster.
template <class Policy, class Scores, class Count, class Offsets, class Index, class NewOffsets>
void keep_top_k_async(const Policy& policy, const Scores& scores, const Count& k,
                      const Offsets& offsets, Index&& index, NewOffsets&& new_offsets,
                      const pins& pinned = {}) {
    const auto s = as_input<1>(policy, scores);
    const auto p = as_output<1>(policy, std::forward<Index>(index));
    detail::check_room_for_all("keep_top_k_async", p, s.extent(0));
    if constexpr (Policy::on_host) {
        keep_top_k(policy, s, k, offsets, p, std::forward<NewOffsets>(new_offsets), pinned);
    } else {
        const auto c = detail::selection_of("keep_top_k_async", policy, scores, offsets,
                                            std::forward<Index>(index),
                                            std::forward<NewOffsets>(new_offsets), pinned);
        using T = typename decltype(s)::value_type;
        policy.select_first_async(detail::kept_before<T>{c.scores, c.pinned},
                                  detail::counts_of("keep_top_k_async", policy, k, c.sequences()),
                                  c.offsets.data_handle(), c.sequences(), c.scores.extent(0),
                                  c.index.data_handle(), c.new_offsets.data_handle());
    }
}

/// The positions that `index` does not hold, as ranges of neighbours within a sequence:
/// ranges[r, 0] <= i < ranges[r, 1], ascending, as caches of keys and values take them. Returns how
/// many there are.
///
/// index    positions kept, ascending
/// offsets  sequences + 1 integers, from 0 to tokens, as before dropping: ranges do not go from one
///          sequence into the next
/// ranges   [room x 2] integers, overwritten; positions kept + sequences are always enough
///
/// Throws shape_error, and value_error for positions that do not ascend below `tokens`.
/// Complexity: positions + sequences.
template <class Index, class Offsets, class Ranges>
index_t dropped_ranges(const Index& index, const Offsets& offsets, Ranges&& ranges) {
    const auto p = as_input<1>(index);
    const auto o = as_input<1>(offsets);
    const auto r = as_output<2>(std::forward<Ranges>(ranges));
    using range_type = typename decltype(r)::value_type;
    const index_t sequences = o.extent(0) - 1;
    const index_t tokens = sequences < 0 ? 0 : static_cast<index_t>(o(sequences));
    detail::check_offsets("dropped_ranges", seq, o, tokens);
    detail::check_positions("dropped_ranges", seq, p, tokens);
    detail::check_counts_to<range_type>("dropped_ranges", tokens);
    const auto for_ranges = [&](const auto& f) {
        index_t at = 0;
        for (index_t s = 0; s < sequences; ++s) {
            index_t first = static_cast<index_t>(o(s));
            const index_t last = static_cast<index_t>(o(s + 1));
            for (; at < p.extent(0) && static_cast<index_t>(p(at)) < last; ++at) {
                if (const index_t kept = static_cast<index_t>(p(at)); first < kept) f(first, kept);
                first = static_cast<index_t>(p(at)) + 1;
            }
            if (first < last) f(first, last);
        }
    };
    index_t count = 0;
    for_ranges([&](index_t, index_t) { ++count; });
    if (r.extent(0) < count || r.extent(1) != 2)
        detail::fail<shape_error>("dropped_ranges", count, " ranges go into ", r.extent(0), " x ",
                                  r.extent(1));
    index_t next = 0;
    for_ranges([&](index_t first, index_t last) {
        r(next, 0) = static_cast<range_type>(first);
        r(next++, 1) = static_cast<range_type>(last);
    });
    return count;
}

} // namespace PARE_ISA
} // namespace pare
