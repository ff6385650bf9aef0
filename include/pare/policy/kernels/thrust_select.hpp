// Which positions stay, by thousands of threads: scans of flags, and a sort for those with the
// highest scores.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/view.hpp"

#include <thrust/scan.h>
#include <thrust/sort.h>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// before[i]: how many of the tokens before i are kept for their scores or their places;
/// alone[s]: how many of the segments before s keep one that has neither. Returns all of both.
template <class Policy, class Keep, class Offset>
index_t count_before(const Policy& policy, const Keep& keep, index_t always, const Offset* offsets,
                     index_t segments, index_t tokens, index_t* before, index_t* alone) {
    policy.for_each(tokens + 1, [=] PARE_HD(index_t i) {
        before[i] = 0;
        if (i == tokens) return;
        const index_t s = segment_of(offsets, segments, i);
        before[i] = i - static_cast<index_t>(offsets[s]) < always || keep(i);
    });
    thrust::exclusive_scan(policy.exec(), before, before + tokens + 1, before, index_t{0});
    policy.for_each(segments + 1, [=] PARE_HD(index_t s) {
        alone[s] = 0;
        if (s == segments) return;
        const index_t begin = static_cast<index_t>(offsets[s]);
        const index_t end = static_cast<index_t>(offsets[s + 1]);
        alone[s] = begin < end && before[begin] == before[end];
    });
    thrust::exclusive_scan(policy.exec(), alone, alone + segments + 1, alone, index_t{0});
    return policy.sum(1, [=] PARE_HD(index_t) { return before[tokens] + alone[segments]; });
}

/// How many positions select_by_threads keeps.
template <class Policy, class Keep, class Offset>
index_t count_by_threads(const Policy& policy, const Keep& keep, index_t always,
                         const Offset* offsets, index_t segments) {
    const index_t tokens = policy.read(offsets + segments);
    const auto before = policy.template temporary<index_t>(tokens + 1);
    const auto alone = policy.template temporary<index_t>(segments + 1);
    return count_before(policy, keep, always, offsets, segments, tokens, before.data(),
                        alone.data());
}

/// sequential::select.
template <class Policy, class Keep, class T, class Offset, class Index, class KeptOffset>
index_t select_by_threads(const Policy& policy, const Keep& keep, index_t always,
                          view<const T, 1> scores, const Offset* offsets, index_t segments,
                          Index* index, KeptOffset* kept_offsets) {
    const index_t tokens = scores.extent(0);
    const auto before_memory = policy.template temporary<index_t>(tokens + 1);
    const auto alone_memory = policy.template temporary<index_t>(segments + 1);
    index_t* const before = before_memory.data();
    index_t* const alone = alone_memory.data();
    const index_t kept =
        count_before(policy, keep, always, offsets, segments, tokens, before, alone);
    policy.for_each(tokens, [=] PARE_HD(index_t i) {
        if (before[i + 1] > before[i])
            index[before[i] + alone[segment_of(offsets, segments, i)]] = static_cast<Index>(i);
    });
    policy.for_each(segments, [=] PARE_HD(index_t s) {
        if (alone[s + 1] == alone[s]) return;
        const index_t begin = static_cast<index_t>(offsets[s]);
        index_t best = begin;
        for (index_t i = begin + 1; i < static_cast<index_t>(offsets[s + 1]); ++i)
            if (scores(i) > scores(best)) best = i;
        index[before[begin] + alone[s]] = static_cast<Index>(best);
    });
    policy.for_each(segments + 1, [=] PARE_HD(index_t s) {
        kept_offsets[s] =
            static_cast<KeptOffset>(before[static_cast<index_t>(offsets[s])] + alone[s]);
    });
    return kept;
}

/// Whether position i comes before j: by segments, then by their order.
template <class Before, class Offset>
struct before_in_segments {
    Before before;
    const Offset* offsets;
    const index_t* segment; // of each position
    constexpr bool operator()(index_t i, index_t j) const {
        if (segment[i] != segment[j]) return segment[i] < segment[j];
        return before(i, j, static_cast<index_t>(offsets[segment[i]]));
    }
};

/// sequential::select_first.
template <class Policy, class Before, class Counts, class Offset, class Index, class KeptOffset>
void select_first_by_threads(const Policy& policy, const Before& before, const Counts& counts,
                             const Offset* offsets, index_t segments, index_t tokens, Index* index,
                             KeptOffset* kept_offsets) {
    const auto segment_memory = policy.template temporary<index_t>(tokens);
    const auto order_memory = policy.template temporary<index_t>(tokens);
    const auto kept_memory = policy.template temporary<index_t>(tokens + 1);
    index_t* const segment = segment_memory.data();
    index_t* const order = order_memory.data();
    index_t* const kept = kept_memory.data(); // 1 or 0; then how many of those before
    policy.for_each(tokens + 1, [=] PARE_HD(index_t i) {
        kept[i] = 0;
        if (i == tokens) return;
        order[i] = i;
        segment[i] = segment_of(offsets, segments, i);
    });
    thrust::sort(policy.exec(), order, order + tokens,
                 before_in_segments<Before, Offset>{before, offsets, segment});
    policy.for_each(tokens, [=] PARE_HD(index_t place) {
        const index_t s = segment[place]; // as many places as positions
        if (place - static_cast<index_t>(offsets[s]) < counts(s)) kept[order[place]] = 1;
    });
    thrust::exclusive_scan(policy.exec(), kept, kept + tokens + 1, kept, index_t{0});
    policy.for_each(tokens, [=] PARE_HD(index_t i) {
        if (kept[i + 1] > kept[i]) index[kept[i]] = static_cast<Index>(i);
    });
    policy.for_each(segments + 1, [=] PARE_HD(index_t s) {
        kept_offsets[s] = static_cast<KeptOffset>(kept[static_cast<index_t>(offsets[s])]);
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
