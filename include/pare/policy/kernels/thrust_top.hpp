// The positions with the highest scores of each segment: of one by a block of threads, which finds
// the score of the last one that is kept digit by digit; where a segment is long by a sort.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/view.hpp"
#include "thrust_before.hpp"
#include "thrust_blocks.hpp"

#include <thrust/scan.h>
#include <thrust/sort.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// sequential::select_first, a block a segment. `before` has scores and is_pinned(i, segment).
template <class Before, class Counts, class Offset, class Index, class KeptOffset>
struct select_first_block {
    static constexpr int threads = 128, blocks_a_processor = 7;
    static constexpr int most = 4096; ///< tokens whose scores are kept in the block's memory
    using score = std::decay_t<decltype(std::declval<Before>().scores(0))>;
    using C = compute_t<score>;
    using Bits = decltype(order_of(C()));
    using block_threads = block_of<threads>;
    static constexpr int digit = 3,
                         digits = 1 << digit; ///< bits at a time: as many numbers of a thread
    struct shared {
        Bits order[most];
        unsigned char pinned[most];
        index_t parts[threads];
        union {
            int counts[digits][threads];
            index_t scan[2][threads];
        };
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    Before before;
    Counts counts;
    const Offset* offsets;
    index_t segments;
    const index_t* starts; ///< [segments]: how many those before keep; or null, for blocks to count
    Index* index;
    KeptOffset* kept_offsets;

    PARE_HD index_t kept_of(index_t s) const {
        return std::min(length(s), std::max<index_t>(0, counts(s)));
    }
    PARE_HD void operator()(index_t s, unsigned char* memory) const {
        const block_threads all;
        shared& m = *reinterpret_cast<shared*>(memory);
        const index_t start = starts ? starts[s] : sum(all, m, [&](int thread) {
            index_t kept = 0;
            for (index_t i = thread; i < s; i += threads) kept += kept_of(i);
            return kept;
        });
        const index_t kept = s < segments ? kept_of(s) : 0;
        all.step([&](int thread) {
            if (thread > 0) return;
            kept_offsets[s] = static_cast<KeptOffset>(start);
            if (s + 1 == segments) kept_offsets[segments] = static_cast<KeptOffset>(start + kept);
        });
        if (kept == 0) return;
        const tokens t{static_cast<index_t>(offsets[s]), length(s), length(s) <= most};
        if (t.cached)
            all.step([&](int thread) {
                for (index_t i = thread; i < t.count; i += threads) {
                    m.order[i] = order_of(static_cast<C>(before.scores(t.begin + i)));
                    m.pinned[i] = before.is_pinned(t.begin + i, t.segment());
                }
            });
        const index_t pinned = count(all, m, t, [](Bits, bool is) { return is; });
        // Chosen among are the pinned ones, or the others behind all of them.
        const bool among = kept <= pinned;
        const index_t chosen = among ? kept : kept - pinned;
        const border last = find_last(all, m, t, among, chosen);
        write(all, m, t, start, last.ties, [&](Bits order, bool is) {
            if (is != among) return is ? 1 : 0;
            return order > last.order ? 1 : order == last.order ? 2 : 0;
        });
    }

  private:
    struct tokens {
        index_t begin, count;
        bool cached;
        constexpr index_range segment() const { return {begin, begin + count}; }
    };

    PARE_HD index_t length(index_t s) const {
        return static_cast<index_t>(offsets[s + 1]) - static_cast<index_t>(offsets[s]);
    }
    template <class F>
    PARE_HD static index_t sum(const block_threads& all, shared& m, const F& f) {
        all.step([&](int thread) { m.parts[thread] = f(thread); });
        add_up(all, m.parts);
        const index_t found = m.parts[0];
        all.step([](int) {}); // m.parts is used again
        return found;
    }
    /// f(order, pinned) of token i of the segment.
    template <class F>
    PARE_HD auto of_token(const shared& m, const tokens& t, index_t i, const F& f) const {
        if (t.cached) return f(m.order[i], m.pinned[i] != 0);
        return f(order_of(static_cast<C>(before.scores(t.begin + i))),
                 before.is_pinned(t.begin + i, t.segment()));
    }
    template <class F>
    PARE_HD index_t count(const block_threads& all, shared& m, const tokens& t, const F& f) const {
        return sum(all, m, [&](int thread) {
            index_t found = 0;
            for (index_t i = thread; i < t.count; i += threads) found += of_token(m, t, i, f);
            return found;
        });
    }
    /// What the last one that is chosen has, and how many that have it are chosen; or that and so many,
    /// where it is all that have no less.
    struct border {
        Bits order;
        index_t ties;
    };
    PARE_HD border find_last(const block_threads& all, shared& m, const tokens& t, bool among,
                             index_t chosen) const {
        border last{0, chosen};
        int shift = (std::numeric_limits<Bits>::digits - 1) / digit * digit;
        for (index_t with_last = -1; shift >= 0 && with_last != last.ties; shift -= digit) {
            all.step([&](int thread) {
                int own[digits] = {};
                for (index_t i = thread; i < t.count; i += threads) {
                    // The next digit of those whose digits so far are the last one's; of others more.
                    const Bits next = of_token(m, t, i, [&](Bits order, bool is) {
                        return is == among ? (order ^ last.order) >> shift : Bits(digits);
                    });
                    PARE_UNROLL_ON_DEVICE
                    for (int d = 0; d < digits; ++d) own[d] += next == static_cast<Bits>(d);
                }
                PARE_UNROLL_ON_DEVICE
                for (int d = 0; d < digits; ++d) m.counts[d][thread] = own[d];
            });
            fold(all, [&](int i, int j) {
                PARE_UNROLL_ON_DEVICE
                for (int d = 0; d < digits; ++d) m.counts[d][i] += m.counts[d][j];
            });
            int d = digits - 1;
            for (; last.ties > m.counts[d][0]; --d) last.ties -= m.counts[d][0];
            with_last = m.counts[d][0];
            last.order |= static_cast<Bits>(d) << shift;
            all.step([](int) {}); // m.counts is used again
        }
        return last;
    }
    /// Writes the tokens for which f is 1, and the first `ties` of those for which it is 2.
    template <class F>
    PARE_HD void write(const block_threads& all, shared& m, const tokens& t, index_t start,
                       index_t ties, const F& f) const {
        // A thread's are neighbours; an odd number, so that each thread reads from another bank.
        const index_t each = (t.count + threads - 1) / threads | 1;
        constexpr int second = 32; // bits of a count
        all.step([&](int thread) {
            index_t sum = 0;
            for (index_t i = thread * each; i < std::min(t.count, (thread + 1) * each); ++i) {
                const int is = of_token(m, t, i, f);
                sum += is == 1 ? 1 : is == 2 ? index_t{1} << second : 0;
            }
            m.scan[0][thread] = sum;
        });
        const int now = running_sums(all, m.scan);
        all.step([&](int thread) {
            const index_t sums = thread > 0 ? m.scan[now][thread - 1] : 0;
            index_t sure = sums & ((index_t{1} << second) - 1), tied = sums >> second;
            for (index_t i = thread * each; i < std::min(t.count, (thread + 1) * each); ++i) {
                const int is = of_token(m, t, i, f);
                if (is == 1 || (is == 2 && tied < ties))
                    index[start + sure + std::min(tied, ties)] = static_cast<Index>(t.begin + i);
                sure += is == 1;
                tied += is == 2;
            }
        });
    }
};

/// Whether position i comes before j: by segments, then by their order.
template <class Before, class Offset>
struct before_in_segments {
    Before before;
    const Offset* offsets;
    const index_t* segment; // of each position
    constexpr bool operator()(index_t i, index_t j) const {
        if (segment[i] != segment[j]) return segment[i] < segment[j];
        const Offset* const from = offsets + segment[i];
        return before(i, j, {static_cast<index_t>(from[0]), static_cast<index_t>(from[1])});
    }
};

/// sequential::select_first by a sort of all positions.
template <class Policy, class Before, class Counts, class Offset, class Index, class KeptOffset>
void select_first_by_sort(const Policy& policy, const Before& before, const Counts& counts,
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
    policy.by_thrust([&](const auto& how) {
        thrust::sort(how, order, order + tokens,
                     before_in_segments<Before, Offset>{before, offsets, segment});
    });
    policy.for_each(tokens, [=] PARE_HD(index_t place) {
        const index_t s = segment[place]; // as many places as positions
        if (place - static_cast<index_t>(offsets[s]) < counts(s)) kept[order[place]] = 1;
    });
    policy.by_thrust([&](const auto& how) {
        thrust::exclusive_scan(how, kept, kept + tokens + 1, kept, index_t{0});
    });
    policy.for_each(tokens, [=] PARE_HD(index_t i) {
        if (kept[i + 1] > kept[i]) index[kept[i]] = static_cast<Index>(i);
    });
    policy.for_each(segments + 1, [=] PARE_HD(index_t s) {
        kept_offsets[s] = static_cast<KeptOffset>(kept[static_cast<index_t>(offsets[s])]);
    });
}

/// sequential::select_first of segments of up to `longest` tokens.
template <class Policy, class Before, class Counts, class Offset, class Index, class KeptOffset>
void select_first_by_threads(const Policy& policy, const Before& before, const Counts& counts,
                             const Offset* offsets, index_t segments, index_t tokens,
                             index_t longest, Index* index, KeptOffset* kept_offsets) {
    constexpr index_t most = 65536; // where a sort of all becomes faster than a block with one
    if (longest > most)
        return select_first_by_sort(policy, before, counts, offsets, segments, tokens, index,
                                    kept_offsets);
    const bool in_place = static_cast<const void*>(offsets) == kept_offsets;
    const auto memory = policy.template temporary<Offset>(in_place ? segments + 1 : 0);
    if (in_place) {
        Offset* const copy = memory.data();
        policy.for_each(segments + 1, [=] PARE_HD(index_t s) { copy[s] = offsets[s]; });
        offsets = copy;
    }
    constexpr index_t few = 1024; // segments, which each block counts sooner than a kernel starts
    const auto start_memory = policy.template temporary<index_t>(segments > few ? segments + 1 : 0);
    index_t* const starts = start_memory.data();
    const select_first_block<Before, Counts, Offset, Index, KeptOffset> kernel{
        before, counts, offsets, segments, starts, index, kept_offsets};
    if (starts)
        sums_before(
            policy, segments, [=] PARE_HD(index_t s) { return kernel.kept_of(s); }, starts);
    policy.for_blocks(std::max<index_t>(1, segments), kernel);
}

/// What select_first is checked for: scores without NaN, offsets and counts; and what follows.
template <class Before, class Best, class Offset>
struct look_at_segments {
    struct value {
        index_t kept, longest;
        int wrong;
    };
    Before before;
    Best best;
    const Offset* offsets;
    index_t segments;

    PARE_HD static value join(const value& a, const value& b) {
        return {a.kept + b.kept, a.longest > b.longest ? a.longest : b.longest, a.wrong | b.wrong};
    }
    PARE_HD value of(index_t at, index_t step, index_t) const {
        using T = std::decay_t<decltype(before.scores(0))>;
        const index_t tokens = before.scores.extent(0);
        value found{0, 0, 0};
        for (index_t i = at; i < tokens; i += step)
            found.wrong |= is_nan(static_cast<compute_t<T>>(before.scores(i)));
        for (index_t s = at; s <= segments; s += step) {
            const auto begin = static_cast<index_t>(offsets[s]);
            found.wrong |= (s == 0 && begin != 0) || (s == segments && begin != tokens);
            if (s == segments) continue;
            const index_t length = static_cast<index_t>(offsets[s + 1]) - begin;
            found.wrong |= length < 0 || (length > 0 && best.count(s) < 1);
            found.kept += best(s);
            found.longest = std::max(found.longest, length);
        }
        return found;
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
