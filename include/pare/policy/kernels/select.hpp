// Positions kept in every segment, and moving their rows: plain loops, as fast as memory.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/executor.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// How many tokens at the ends of each segment are kept whatever else holds.
struct kept_ends {
    index_t first, last;

    constexpr bool has(index_t i, const index_range& segment) const {
        return i - segment.begin < first || segment.end - i <= last;
    }
    /// What is left between them.
    constexpr index_range between(const index_range& segment) const {
        const index_t begin = segment.begin + std::min(segment.size(), first);
        return {begin, std::max(begin, segment.end - std::min(segment.size(), last))};
    }
};

/// See sequential::count_selected.
template <class Keep, class Offset>
index_t count_selected(const Keep& keep, const kept_ends& always, const Offset* offsets,
                       index_t segments) {
    index_t count = 0;
    for (index_t s = 0; s < segments; ++s) {
        const index_range all{static_cast<index_t>(offsets[s]),
                              static_cast<index_t>(offsets[s + 1])};
        const index_range free = always.between(all);
        index_t kept = all.size() - free.size();
        for (index_t i = free.begin; i < free.end; ++i) kept += keep(i);
        count += std::max<index_t>(kept, all.size() > 0);
    }
    return count;
}

/// See sequential::select.
template <class Keep, class T, class Offset, class Index, class KeptOffset>
index_t select(const Keep& keep, const kept_ends& always, view<const T, 1> scores,
               const Offset* offsets, index_t segments, Index* index, KeptOffset* kept_offsets) {
    index_t kept = 0, first = 0;
    const index_t tokens = offsets[segments];
    for (index_t s = 0; s < segments; ++s) {
        const index_t last = offsets[s + 1], start = kept;
        kept_offsets[s] = static_cast<KeptOffset>(start);
        const index_range free = always.between({first, last});
        index_t i = first, end = free.end;
        for (; i < free.begin; ++i) index[kept++] = static_cast<Index>(i);
        // No branch depends on a score: every position is written, and the next one overwrites it
        // unless it is kept. The last that is kept of all ends that: nothing is written behind it.
        while (last == tokens && end > i && !keep(end - 1)) --end;
        for (; i < end; ++i) {
            index[kept] = static_cast<Index>(i);
            kept += keep(i);
        }
        for (i = free.end; i < last; ++i) index[kept++] = static_cast<Index>(i);
        if (kept == start && first < last) {
            index_t best = first;
            for (i = first + 1; i < last; ++i)
                if (static_cast<compute_t<T>>(scores(i)) > static_cast<compute_t<T>>(scores(best)))
                    best = i;
            index[kept++] = static_cast<Index>(best);
        }
        first = last;
    }
    kept_offsets[segments] = static_cast<KeptOffset>(kept);
    return kept;
}

/// The first tokens of one segment after another: pinned ones, and then by descending score. The order
/// of the last of them is found bit by bit, since counting is what registers do fastest. `before` has
/// scores, any_pinned() and is_pinned(i, segment).
template <class Before>
class first_tokens {
    using score = std::decay_t<decltype(std::declval<Before>().scores(0))>;
    using order = decltype(order_of(compute_t<score>()));

  public:
    explicit first_tokens(const Before& before) : before_(before) {}

    /// The first `count` positions of a segment, ascending.
    template <class Index>
    void find(const index_range& segment, index_t count, Index* index) {
        begin(segment, count);
        // Where the last one's order lies, and how many there are from `low` on and above `high`.
        order low = 0, high = highest;
        index_t from_low = segment.size(), above = 0;
        while (from_low > count && low < high) {
            const order middle = low + (high - low) / 2 + 1;
            const index_t from_middle = count_from(middle);
            if (from_middle >= count) {
                low = middle;
                from_low = from_middle;
            } else {
                high = middle - 1;
                above = from_middle;
            }
        }
        index_t ties = from_low > count ? count - above : count, found = 0;
        for_blocks([&](index_t first, index_t size) {
            for (index_t i = 0; i < size && found < count; ++i) {
                index[found] = static_cast<Index>(first + i);
                const bool tie = orders_[i] == low;
                found += (orders_[i] > low) | (tie & (ties > 0));
                ties -= tie;
            }
        });
    }

  private:
    static constexpr order highest = static_cast<order>(~order(0)); // of pinned tokens
    static constexpr index_t most = 4096, in_registers = 64;

    void begin(const index_range& segment, index_t count) {
        segment_ = segment;
        pinned_ = 0;
        if (before_.any_pinned())
            for (index_t i = segment.begin; i < segment.end; ++i)
                pinned_ += before_.is_pinned(i, segment);
        all_pinned_ = pinned_ > count;
        if (segment.size() <= most) load(segment.begin, segment.size());
    }
    /// f(first, size) with the orders of so many tokens from the first one on.
    template <class F>
    void for_blocks(const F& f) {
        for (index_t first = segment_.begin; first < segment_.end; first += most) {
            const index_t size = std::min(most, segment_.end - first);
            if (segment_.size() > most) load(first, size);
            f(first, size);
        }
    }
    void load(index_t first, index_t size) {
        const auto& scores = before_.scores;
        const auto load_from = [&](const auto& at) {
            for (index_t i = 0; i < size; ++i)
                orders_[i] = order_of(static_cast<compute_t<score>>(at(i)));
        };
        if (scores.stride(0) == 1)
            load_from([from = &scores(first)](index_t i) { return from[i]; });
        else
            load_from([&](index_t i) { return scores(first + i); });
        for (index_t i = 0; i < size && pinned_ > 0; ++i) {
            const bool pinned = before_.is_pinned(first + i, segment_);
            if (pinned != all_pinned_) orders_[i] = pinned ? highest : order(0);
        }
        for (; size % in_registers != 0; ++size) orders_[size] = 0;
    }
    /// How many tokens have this order, which is above 0, or a higher one.
    index_t count_from(order least) {
        index_t count = 0;
        for_blocks([&](index_t, index_t size) {
            for (index_t i = 0; i < size; i += in_registers) {
                order here = 0;
                for (index_t j = 0; j < in_registers; ++j) here += orders_[i + j] >= least;
                count += static_cast<index_t>(here);
            }
        });
        return count;
    }

    Before before_;
    index_range segment_{0, 0};
    index_t pinned_ = 0;
    bool all_pinned_ = false; // those that are found
    order orders_[most];
};

/// See sequential::select_first.
template <class Before, class Counts, class Offset, class Index, class KeptOffset>
void select_first(const Before& before, const Counts& counts, const Offset* offsets,
                  index_t segments, Index* index, KeptOffset* kept_offsets) {
    first_tokens<Before> tokens(before);
    index_t kept = 0, first = 0;
    for (index_t s = 0; s < segments; ++s) {
        const index_range segment{first, static_cast<index_t>(offsets[s + 1])};
        const index_t count = std::min(segment.size(), counts(s));
        kept_offsets[s] = static_cast<KeptOffset>(kept);
        if (count > 0) {
            tokens.find(segment, count, index + kept);
            kept += count;
        }
        first = segment.end;
    }
    kept_offsets[segments] = static_cast<KeptOffset>(kept);
}

/// Copies `size` bytes to where they do not overlap, and fetches as many from `next` into the
/// cache: which row comes next is more than the hardware can guess.
PARE_INLINE void copy_row(const unsigned char* from, unsigned char* to, index_t size,
                          const unsigned char* next) {
    constexpr index_t line = 64;
    if (size < line) {
        std::memcpy(to, from, static_cast<std::size_t>(size));
        return;
    }
    for (index_t i = 0; i + line <= size; i += line) {
        PARE_PREFETCH(next + i);
        std::memcpy(to + i, from + i, line);
    }
    std::memcpy(to + (size - line), from + (size - line), line);
}

/// Runs tasks that copy elements, which may take memory of their own.
template <class T, class Executor, class F>
void run_copying(const Executor& executor, index_t tasks, const F& f) {
    if constexpr (std::is_nothrow_copy_assignable_v<T>)
        executor.run(tasks, f);
    else
        run_allocating(executor, tasks, f);
}

/// out[to(i), :] = in[from(i), :] for i < n. A task is a block of rows; in place it is a strip of
/// columns and goes down its rows in order, so that no row is overwritten before it has moved,
/// whatever the other tasks do.
template <class Executor, class T, class From, class To>
void copy_rows(const Executor& executor, index_t n, view<const T, 2> in, From from, view<T, 2> out,
               To to) {
    const index_t columns = in.extent(1), size = static_cast<index_t>(sizeof(T));
    if (n == 0 || columns == 0) return;
    const bool in_place = in.data_handle() == out.data_handle();
    const bool same_strides = in.stride(0) == out.stride(0) && in.stride(1) == out.stride(1);
    index_t height = std::max<index_t>(1, 65536 / (columns * size)), width = columns;
    if (in_place) {
        height = n;
        if (same_strides) {
            // Lines that another core wrote last take their time: less than a megabyte each is
            // slower than on one thread.
            const index_t line = std::max<index_t>(1, 64 / size), megabyte = index_t{1} << 20;
            const index_t most =
                std::clamp<index_t>(std::min(columns / (4 * line), n * columns * size / megabyte),
                                    1, executor.concurrency());
            width = (columns + most * line - 1) / (most * line) * line;
        }
    }
    const index_t strips = (columns + width - 1) / width;
    const bool bytes = std::is_trivially_copyable_v<T> && in.stride(1) == 1 && out.stride(1) == 1 &&
                       columns * size >= 64 && (!in_place || same_strides);
    run_copying<T>(executor, (n + height - 1) / height * strips, [=](index_t task, index_t) {
        const index_t begin = task / strips * height, end = std::min(n, begin + height);
        const index_t left = task % strips * width, right = std::min(columns, left + width);
        const auto source = [&](index_t i) { return &in(from(i), left); };
        for (index_t i = begin; i < end; ++i) {
            const T* const row = source(i);
            T* const target = &out(to(i), left);
            if (row == target) continue;
            if (bytes)
                copy_row(reinterpret_cast<const unsigned char*>(row),
                         reinterpret_cast<unsigned char*>(target), (right - left) * size,
                         reinterpret_cast<const unsigned char*>(source(std::min(i + 1, end - 1))));
            else
                for (index_t j = 0; j < right - left; ++j)
                    target[j * out.stride(1)] = row[j * in.stride(1)];
        }
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
