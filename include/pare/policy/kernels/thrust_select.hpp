// Which positions stay by their own scores, by blocks of threads: each has a tile of tokens. One
// kernel finds what each tile keeps, the last one writes it behind what the tiles before it keep. Of
// many tiles there is one in between, which puts those of a group together.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "select.hpp"
#include "thrust_blocks.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// What is known of some neighbouring tokens of a segment: whether one is kept for itself, and
/// otherwise the first one with the highest score.
template <class C>
struct tokens_part {
    index_t best; ///< or -1: there are no tokens
    C score;
    int kept;

    constexpr bool alone() const { return kept == 0 && best >= 0; }
};
template <class C>
constexpr tokens_part<C> join(const tokens_part<C>& a, const tokens_part<C>& b) {
    const bool second = a.best < 0 || (b.best >= 0 && b.score > a.score);
    return {second ? b.best : a.best, second ? b.score : a.score, a.kept | b.kept};
}

/// What is known of neighbouring tiles: how many tokens they keep, but for those that the segments
/// at their two ends keep for want of others; and those ends, of which there is one where no segment
/// begins in the tiles.
template <class C>
struct tiles_part {
    index_t count;
    int begins; ///< whether a segment begins there
    int wrong;  ///< whether there is NaN, or an offset that is out of order
    tokens_part<C> head, tail;

    static constexpr tiles_part none() { return {0, 0, 0, {-1, C(0), 0}, {-1, C(0), 0}}; }
    constexpr tokens_part<C> end() const {
        return {begins ? tail.best : head.best, begins ? tail.score : head.score,
                begins ? tail.kept : head.kept};
    }
};
template <class C>
constexpr tiles_part<C> join(const tiles_part<C>& a, const tiles_part<C>& b) {
    const tokens_part<C> middle = join(a.end(), b.head);
    tiles_part<C> both{a.count + b.count, a.begins | b.begins, a.wrong | b.wrong, a.head, b.tail};
    if (!a.begins) both.head = middle;
    if (!b.begins) both.tail = middle;
    if (a.begins && b.begins) both.count += middle.alone();
    return both;
}

/// A tile of tokens, and what its block shares about it.
template <class C>
struct token_tile {
    static constexpr int threads = 256, each = 8, size = threads * each;
    using block = block_of<threads>;

    struct shared {
        union {
            C scores[size];
            tiles_part<C> parts[threads];
        };
        int before[size + 1]; ///< of the tile's tokens that are kept, those before each
        int scan[2][threads];
        unsigned char kept[size];
        tokens_part<C> part[threads];
    };

    /// m.before from m.kept. Also the sum of `of_thread`, fewer than 2^15.
    PARE_HD static int count(const block& threads_of, shared& m,
                             per_thread<int, threads>& of_thread) {
        threads_of.step([&](int thread) {
            int sum = of_thread[thread] << 16;
            for (int u = 0; u < each; ++u) sum += m.kept[thread * each + u];
            m.scan[0][thread] = sum;
        });
        const int now = running_sums(threads_of, m.scan);
        threads_of.step([&](int thread) {
            int sum = thread > 0 ? m.scan[now][thread - 1] & 0xffff : 0;
            for (int u = 0; u < each; ++u) {
                m.before[thread * each + u] = sum;
                sum += m.kept[thread * each + u];
            }
            if (thread == threads - 1) m.before[size] = sum;
        });
        const int total = m.scan[now][threads - 1] >> 16;
        threads_of.step([](int) {}); // m.scan is used again
        return total;
    }
    /// Of the tile's tokens from `begin` to `end`.
    PARE_HD static tokens_part<C> part(const block& threads_of, shared& m, index_t first, int begin,
                                       int end) {
        if (begin >= end) return {-1, C(0), 0};
        if (m.before[end] > m.before[begin]) return {first + begin, m.scores[begin], 1};
        threads_of.step([&](int thread) {
            int best = -1;
            for (int i = begin + thread; i < end; i += threads)
                if (best < 0 || m.scores[i] > m.scores[best]) best = i;
            m.part[thread] = {best < 0 ? -1 : first + best, best < 0 ? C(0) : m.scores[best], 0};
        });
        fold(threads_of, [&](int i, int j) {
            const tokens_part<C> a = m.part[i], b = m.part[j];
            const bool earlier = b.score == a.score && b.best < a.best;
            if (b.best >= 0 && (a.best < 0 || b.score > a.score || earlier)) m.part[i] = b;
        });
        const tokens_part<C> found = m.part[0];
        threads_of.step([](int) {}); // m.part is used again
        return found;
    }
};

/// What both kernels know of a call.
template <class Keep, class T>
struct selection {
    Keep keep;
    kept_ends always;
    view<const T, 1> scores;
    index_t segments;

    using C = compute_t<T>;
    using tile = token_tile<C>;
    using shared = typename tile::shared;

    PARE_HD index_t tokens() const { return scores.extent(0); }
    PARE_HD index_t tiles() const {
        return tokens() > 0 ? (tokens() + tile::size - 1) / tile::size : 1;
    }
    /// A tile's tokens, and the segments that begin there.
    struct range {
        index_t begin, end, first, last;
    };
    template <class Offsets>
    PARE_HD range range_of(index_t number, const Offsets& offsets) const {
        const index_t begin = number * tile::size, end = std::min(tokens(), begin + tile::size);
        return {begin, end, segment_from(offsets, begin), segment_from(offsets, end)};
    }
    /// The first offset of at least `token`.
    template <class Offsets>
    PARE_HD index_t segment_from(const Offsets& offsets, index_t token) const {
        return first_not_below(
            segments + 1, [&](index_t s) { return offsets[s]; }, token);
    }
    /// Where segment s begins in the tile.
    template <class Offsets>
    PARE_HD static int place(const range& r, const Offsets& offsets, index_t s) {
        return static_cast<int>(std::clamp(static_cast<index_t>(offsets[s]), r.begin, r.end) -
                                r.begin);
    }

    /// Fills m.scores, m.kept and m.before. Returns whether there is NaN.
    template <class Offsets>
    PARE_HD bool look(const typename tile::block& threads, const range& r, const Offsets& offsets,
                      shared& m) const {
        per_thread<int, tile::threads> wrong_of;
        threads.step([&](int thread) {
            C some[tile::each]; // all of them are on their way before one is looked at
            for (int u = 0; u < tile::each; ++u) {
                const index_t i = r.begin + thread + u * tile::threads;
                some[u] = i < r.end ? static_cast<C>(scores(i)) : C(0);
            }
            int wrong = 0;
            for (int u = 0; u < tile::each; ++u) {
                const int at = thread + u * tile::threads;
                const index_t i = r.begin + at;
                m.kept[at] = 0;
                if (i >= r.end) continue;
                m.scores[at] = some[u];
                wrong |= is_nan(some[u]);
                m.kept[at] =
                    keep(i) || ((always.first > 0 || always.last > 0) && is_end(r, offsets, i));
            }
            wrong_of[thread] = wrong;
        });
        return tile::count(threads, m, wrong_of) > 0;
    }
    /// Whether token i is one of those at its segment's ends.
    template <class Offsets>
    PARE_HD bool is_end(const range& r, const Offsets& offsets, index_t i) const {
        index_t s = r.first > 0 ? r.first - 1 : 0, end = r.last;
        while (s + 1 < end) {
            const index_t middle = (s + end) / 2;
            if (static_cast<index_t>(offsets[middle]) <= i)
                s = middle;
            else
                end = middle;
        }
        const index_t last = s < segments ? static_cast<index_t>(offsets[s + 1]) : tokens();
        return always.has(i, {static_cast<index_t>(offsets[s]), last});
    }
    /// f(the place of the best token) for each segment within the tile that keeps none for itself.
    template <class Offsets, class F>
    PARE_HD void for_alone(int thread, const range& r, const Offsets& offsets, const shared& m,
                           const F& f) const {
        for (index_t s = r.first + thread; s + 1 < r.last; s += tile::threads) {
            const int begin = place(r, offsets, s), end = place(r, offsets, s + 1);
            if (begin >= end || m.before[begin] < m.before[end]) continue;
            int best = begin;
            for (int i = begin + 1; i < end; ++i)
                if (m.scores[i] > m.scores[best]) best = i;
            f(best);
        }
    }
};

/// The first kernel.
template <class Keep, class T, class Offsets>
struct find_kept_block {
    using selected = selection<Keep, T>;
    using tile = typename selected::tile;
    using C = typename selected::C;
    using shared = typename tile::shared;
    static constexpr int threads = tile::threads;
    static constexpr std::size_t shared_bytes = sizeof(shared);

    selected of;
    Offsets offsets;
    index_t* copy; ///< of the offsets: new ones may take their place
    tiles_part<C>* parts;
    bool checks;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const typename tile::block all;
        shared& m = *reinterpret_cast<shared*>(memory);
        const auto r = of.range_of(block, offsets);
        const bool nan = of.look(all, r, offsets, m);
        const int size = static_cast<int>(r.end - r.begin);
        int head = size, tail = size;
        if (r.first < r.last) {
            head = selected::place(r, offsets, r.first);
            tail = std::max(head, selected::place(r, offsets, r.last - 1));
        }
        tiles_part<C> part{m.before[tile::size], r.first < r.last, nan,
                           tile::part(all, m, r.begin, 0, head),
                           tile::part(all, m, r.begin, tail, size)};
        all.step([&](int thread) {
            int alone = 0, wrong = 0;
            of.for_alone(thread, r, offsets, m, [&](int) { ++alone; });
            for (index_t s = block * threads + thread; s <= of.segments;
                 s += of.tiles() * threads) {
                const auto at = static_cast<index_t>(offsets[s]);
                copy[s] = at;
                wrong |= s == 0 ? at != 0 : at < static_cast<index_t>(offsets[s - 1]);
                wrong |= s == of.segments && at != of.tokens();
            }
            m.scan[0][thread] = alone + (wrong << 16);
        });
        add_up(all, m.scan[0]);
        all.step([&](int thread) {
            if (thread > 0) return;
            part.count += m.scan[0][0] & 0xffff;
            part.wrong |= m.scan[0][0] >> 16 > 0;
            if (!checks) part.wrong = 0;
            parts[block] = part;
        });
    }
};

/// What is known of tiles begin <= i < end, by all threads of a block, which share `memory`.
template <int Threads, class C>
PARE_HD tiles_part<C> join_tiles(const block_of<Threads>& threads, const tiles_part<C>* parts,
                                 index_t begin, index_t end, tiles_part<C>* memory) {
    if (begin >= end) return tiles_part<C>::none();
    const index_t each = (end - begin + Threads - 1) / Threads;
    threads.step([&](int thread) {
        const index_t from = begin + thread * each, to = std::min(end, from + each);
        tiles_part<C> part = tiles_part<C>::none();
        for (index_t i = from; i < to; ++i) part = join(part, parts[i]);
        memory[thread] = part;
    });
    for (int step = 1; step < Threads && step * each < end - begin; step *= 2)
        threads.step([&](int thread) {
            if (thread % (2 * step) == 0)
                memory[thread] = join(memory[thread], memory[thread + step]);
        });
    const tiles_part<C> found = memory[0];
    threads.step([](int) {}); // the memory is used again
    return found;
}

/// The second kernel, of many tiles: groups of them.
template <class C>
struct join_groups_block {
    static constexpr int threads = token_tile<C>::threads;
    static constexpr std::size_t shared_bytes = threads * sizeof(tiles_part<C>);

    const tiles_part<C>* parts;
    index_t tiles, of_group;
    tiles_part<C>* groups;

    PARE_HD void operator()(index_t group, unsigned char* memory) const {
        const block_of<threads> all;
        const tiles_part<C> found =
            join_tiles(all, parts, group * of_group, std::min(tiles, (group + 1) * of_group),
                       reinterpret_cast<tiles_part<C>*>(memory));
        all.step([&](int thread) {
            if (thread == 0) groups[group] = found;
        });
    }
};

/// The last one. Writes nothing where something is wrong, or there is no room.
template <class Keep, class T, class Index, class KeptOffset>
struct write_kept_block {
    using selected = selection<Keep, T>;
    using tile = typename selected::tile;
    using C = typename selected::C;
    using shared = typename tile::shared;
    static constexpr int threads = tile::threads;
    static constexpr std::size_t shared_bytes = sizeof(shared);

    selected of;
    const index_t* offsets;
    const tiles_part<C>*parts, *groups;
    index_t of_group; ///< tiles; all of them where there are no groups
    Index* index;
    index_t room;
    KeptOffset* kept_offsets; ///< or null
    index_t* result;          ///< how many are kept, or -1; or null

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const typename tile::block all;
        shared& m = *reinterpret_cast<shared*>(memory);
        const index_t tiles = of.tiles();
        const index_t group = block / of_group, next = std::min(tiles, (group + 1) * of_group);
        const tiles_part<C> before = join(join_tiles(all, groups, 0, group, m.parts),
                                          join_tiles(all, parts, group * of_group, block, m.parts));
        const tiles_part<C> behind =
            join(join_tiles(all, parts, block + 1, next, m.parts),
                 join_tiles(all, groups, group + 1, (tiles + of_group - 1) / of_group, m.parts));
        const tiles_part<C> own = parts[block], whole = join(before, join(own, behind));
        const index_t kept = whole.count + whole.end().alone();
        const bool writes = !whole.wrong && kept <= room;
        if (block == 0 && result)
            all.step([&](int thread) {
                if (thread == 0) *result = whole.wrong ? -1 : kept;
            });
        if (!writes) return;

        const auto r = of.range_of(block, offsets);
        of.look(all, r, offsets, m);
        // Segments that go beyond the tile's ends, and what they keep for want of others.
        const tokens_part<C> until_head = join(before.end(), own.head);
        const tokens_part<C> first = own.begins ? until_head : join(until_head, behind.head);
        const tokens_part<C> last = own.begins ? join(own.tail, behind.head) : first;
        const index_t start = before.count + (first.alone() && first.best < r.begin);
        all.step([&](int thread) {
            of.for_alone(thread, r, offsets, m, [&](int best) { m.kept[best] = 1; });
            if (thread > 0) return;
            const auto keep_best = [&](const tokens_part<C>& part) {
                if (part.alone() && part.best >= r.begin && part.best < r.end)
                    m.kept[part.best - r.begin] = 1;
            };
            keep_best(first);
            keep_best(last);
        });
        per_thread<int, threads> nothing;
        all.step([&](int thread) { nothing[thread] = 0; });
        tile::count(all, m, nothing);
        all.step([&](int thread) {
            for (int at = thread; at < r.end - r.begin; at += threads)
                if (m.kept[at] && start + m.before[at] < room)
                    index[start + m.before[at]] = static_cast<Index>(r.begin + at);
            for (index_t s = r.first + thread; s < r.last && kept_offsets; s += threads)
                kept_offsets[s] =
                    static_cast<KeptOffset>(start + m.before[selected::place(r, offsets, s)]);
            if (block < tiles - 1 || !kept_offsets) return;
            for (index_t s = r.last + thread; s <= of.segments; s += threads)
                kept_offsets[s] = static_cast<KeptOffset>(kept);
        });
    }
};

/// sequential::select, of up to `room` positions. Returns how many are kept, and writes nothing
/// where that is more; `checks`: or -1, for NaN and offsets that are out of order. Does not wait and
/// returns 0 unless it `waits`.
template <class Policy, class Keep, class T, class Offsets, class Index, class KeptOffset>
index_t select_by_tiles(const Policy& policy, const Keep& keep, const kept_ends& always,
                        view<const T, 1> scores, const Offsets& offsets, index_t segments,
                        Index* index, index_t room, KeptOffset* kept_offsets, bool checks,
                        bool waits) {
    using C = compute_t<T>;
    const selection<Keep, T> of{keep, always, scores, segments};
    const auto copy = policy.template temporary<index_t>(segments + 2);
    constexpr index_t few = 512, many = 256;
    const index_t tiles = of.tiles(), of_group = tiles > few ? many : tiles;
    const index_t groups = tiles > few ? (tiles + many - 1) / many : 0;
    const auto parts = policy.template temporary<tiles_part<C>>(tiles + groups);
    tiles_part<C>* const of_groups = parts.data() + tiles;
    index_t* const result = copy.data() + segments + 1;
    policy.for_blocks(
        tiles, find_kept_block<Keep, T, Offsets>{of, offsets, copy.data(), parts.data(), checks});
    policy.for_blocks(groups, join_groups_block<C>{parts.data(), tiles, of_group, of_groups});
    policy.for_blocks(tiles, write_kept_block<Keep, T, Index, KeptOffset>{
                                 of, copy.data(), parts.data(), of_groups, of_group, index, room,
                                 kept_offsets, waits ? result : nullptr});
    return waits ? policy.read(result) : 0;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
