// Softmax attention of a few queries against many keys, as decoders' steps are: keys and values are
// read where they are, once for all heads of their group.
#pragma once

#include "attention.hpp"
#include "in_place.hpp"
#include "short_sequences.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The attention of sequences with few queries. A group's queries of all of its heads are rows, one
/// head's behind another's; keys are cut into chunks that different threads may take.
template <class Call>
class few_queries {
    using T = typename Call::compute;
    using K = typename Call::of_key;
    using block = attention_block<T>;

  public:
    static constexpr index_t chunk = 264; // keys: whole blocks of 3 and of 4
    static constexpr index_t most_queries = 8;

    /// Whether a sequence is better off so: of its numbers of queries and keys alone, so that results
    /// depend on nothing else. Each query then sees a key, that at its place.
    static bool are(index_t queries, index_t keys) {
        return queries <= most_queries && keys >= 16 * queries;
    }

    few_queries(const Call& call, const head_shares<T>& received)
        : c_(call), received_(received), heads_(call.heads() / call.k.extent(1)),
          width_(round_up(std::max(call.q.extent(2), call.v.extent(2)), lanes<T>)) {
        for (index_t s = 0; s < c_.sequences; ++s)
            if (are(c_.queries(s), c_.keys(s))) {
                queries_ = std::max(queries_, c_.queries(s));
                keys_ = std::max(keys_, c_.keys(s));
            }
        stride_ = round_up(keys_, block::width) + block::width;
    }
    index_t heads_of_group() const { return heads_; }
    /// Of the longest sequence.
    index_t chunks() const { return (keys_ + chunk - 1) / chunk; }
    /// Numbers that a group of a sequence takes: exponentials, their sums' inverses, scaled queries and
    /// then outputs of each chunk, what keys receive and biases of each head.
    index_t room() const {
        const index_t rows = heads_ * queries_;
        return round_up(rows * (stride_ + 1 + chunks() * width_) +
                            heads_ * (stride_ + head_biases<T>::room(c_, keys_ + queries_)),
                        block::width);
    }

    /// Of the keys of one chunk, to the queries of these groups, which take turns at some keys, so that
    /// what lies side by side is read so.
    void logits(index_t s, const index_range& groups, index_t which, T* memory) const {
        const place at(*this, s);
        const index_t rows = heads_ * at.queries, size = c_.q.extent(2);
        const auto q = [&](index_t g) {
            return of_chunk(memory + (g - groups.begin) * room(), which, rows);
        };
        for (index_t g = groups.begin; g < groups.end; ++g)
            for (index_t r = 0; r < rows && size > 0; ++r)
                scale_row(
                    size,
                    c_.q.address(at.first_query + r % at.queries, g * heads_ + r / at.queries, 0),
                    c_.scale, q(g) + r * size, 1);
        for_turns(at.of_chunk(which), groups, [&](index_t g, const index_range& keys) {
            T* const e = memory + (g - groups.begin) * room();
            multiply_rows_in_place(rows, size, q(g), keys.size(),
                                   c_.k.address(at.first_key + keys.begin, g, 0), c_.k.stride(0),
                                   e + (keys.begin - at.seen.begin), stride_);
        });
    }

    /// Of one head of the group.
    void softmax(index_t s, index_t g, index_t head_of_group, T* memory) const {
        const place at(*this, s);
        const index_t h = g * heads_ + head_of_group, rows = heads_ * queries_;
        T* const e = memory + head_of_group * at.queries * stride_;
        T* const weights = memory + rows * stride_ + head_of_group * at.queries;
        T* const of_head = memory + rows * (stride_ + 1 + chunks() * width_) +
                           head_of_group * (stride_ + head_biases<T>::room(c_, keys_ + queries_));
        const head_biases<T> biases(c_, h, at.first_key, {1 - at.keys, at.queries},
                                    of_head + stride_);
        const index_t room = round_up(at.seen.size(), lanes<T>);
        for (index_t i = 0; i < at.queries; ++i) {
            const index_range seen = visible_keys(c_.mask, i, at.queries, at.keys);
            T* const row = e + i * stride_;
            if (c_.biased())
                biases.add(place_of_query(c_.where(), s, i), seen,
                           row + (seen.begin - at.seen.begin));
            hide_unseen(row, seen.begin - at.seen.begin, seen.end - at.seen.begin, room);
            exponentials<1>(row, stride_, room, weights + i);
        }
        if (!received_.first) return;
        const index_range counts = counted(c_.counted, at.queries);
        T factors[most_queries];
        for (index_t i = counts.begin; i < counts.end; ++i)
            factors[i] =
                weights[i] *
                c_.weight(at.first_query + i, visible_keys(c_.mask, i, at.queries, at.keys).size());
        T* const to = received_.row(h, 0) + at.first_key;
        std::fill_n(to, at.seen.begin, T(0));
        std::fill(to + at.seen.end, to + at.keys, T(0));
        share_of_rows(counts.size(), at.seen.size(), factors + counts.begin,
                      e + counts.begin * stride_, stride_, c_.largest, of_head, to + at.seen.begin);
        for (index_t part = 1; received_.complete && part < shares_of_head; ++part)
            std::fill_n(received_.row(h, part) + at.first_key, at.keys, T(0));
    }

    /// With the values of one chunk, in the same order.
    void outputs(index_t s, const index_range& groups, index_t which, T* memory) const {
        const place at(*this, s);
        const index_t rows = heads_ * at.queries, size = c_.v.extent(2);
        const index_range all = at.of_chunk(which);
        for_turns(all, groups, [&](index_t g, const index_range& keys) {
            T* const of_group = memory + (g - groups.begin) * room();
            T* const out = of_chunk(of_group, which, rows);
            if (keys.begin == all.begin) std::fill_n(out, rows * width_, T(0));
            add_rows_in_place(rows, size, of_group + (keys.begin - at.seen.begin), stride_,
                              keys.size(), c_.v.address(at.first_key + keys.begin, g, 0),
                              c_.v.stride(0), out, width_);
        });
    }

    /// The outputs of one head of the group.
    void finish(index_t s, index_t g, index_t head_of_group, T* memory) const {
        const place at(*this, s);
        const index_t rows = heads_ * at.queries, size = c_.v.extent(2);
        const T* const weights = memory + heads_ * queries_ * stride_;
        T* const parts = of_chunk(memory, 0, rows);
        for (index_t r = head_of_group * at.queries; r < (head_of_group + 1) * at.queries; ++r) {
            T* const out = parts + r * width_;
            for (index_t which = 1; which < at.chunks(); ++which)
                for (index_t i = 0; i < size; ++i) out[i] += out[which * rows * width_ + i];
            scale_row(
                size, out, weights[r],
                c_.out.address(at.first_query + r % at.queries, g * heads_ + head_of_group, 0),
                c_.out.stride(2));
        }
    }

  private:
    T* of_chunk(T* memory, index_t which, index_t rows) const {
        return memory + heads_ * queries_ * (stride_ + 1) + which * rows * width_;
    }

    /// f(g, some keys), for a few keys group by group before the next ones: nearly in memory's order.
    template <class F>
    static void for_turns(const index_range& keys, const index_range& groups, const F& f) {
        // Of 24 floats' bytes, or some more: whole blocks of 3 or 4 keys.
        constexpr index_t turn = round_up(96 / static_cast<index_t>(sizeof(K)), 12);
        for (index_t j = keys.begin; j < keys.end; j += turn)
            for (index_t g = groups.begin; g < groups.end; ++g)
                f(g, index_range{j, std::min(keys.end, j + turn)});
    }

    /// A sequence, and which of its keys any of its queries sees.
    struct place {
        index_t first_query, queries, first_key, keys;
        index_range seen;

        place(const few_queries& all, index_t s)
            : first_query(all.c_.query_begin(s)), queries(all.c_.queries(s)),
              first_key(all.c_.key_begin(s)), keys(all.c_.keys(s)), seen{0, 0} {
            seen.begin = visible_keys(all.c_.mask, 0, queries, keys).begin;
            seen.end =
                std::max(seen.begin, visible_keys(all.c_.mask, queries - 1, queries, keys).end);
        }
        index_t chunks() const { return (seen.size() + chunk - 1) / chunk; }
        index_range of_chunk(index_t i) const {
            return {seen.begin + i * chunk, std::min(seen.end, seen.begin + (i + 1) * chunk)};
        }
    };

    const Call& c_;
    head_shares<T> received_;
    index_t heads_, width_, queries_ = 0, keys_ = 0, stride_;
};

template <class Executor, class Call, class T = typename Call::compute>
void attention_of_few(const Executor& executor, const Call& c, const head_shares<T>& received,
                      workspace& scratch) {
    using few = few_queries<Call>;
    const few steps(c, received);
    const index_t groups = c.k.extent(1), chunks = steps.chunks(), room = steps.room();
    const index_t heads = steps.heads_of_group();
    const auto picked = [&](index_t s) { return few::are(c.queries(s), c.keys(s)); };
    // Where sequences are few, threads share each of them, step by step.
    if (!is_partial<Executor> && c.sequences < 4 * executor.concurrency()) {
        T* const memory = scratch.template get<T>(c.sequences * groups * room);
        const auto run = [&](index_t count, const auto& step) {
            executor.run(c.sequences * count, [&, count](index_t task, index_t) {
                const index_t s = task / count;
                if (picked(s)) step(s, task % count, memory + s * groups * room);
            });
        };
        const auto of_head = [&](index_t h, T* m) { return m + h / heads * room; };
        run(chunks, [&](index_t s, index_t i, T* m) { steps.logits(s, {0, groups}, i, m); });
        run(c.heads(), [&](index_t s, index_t h, T* m) {
            steps.softmax(s, h / heads, h % heads, of_head(h, m));
        });
        run(chunks, [&](index_t s, index_t i, T* m) { steps.outputs(s, {0, groups}, i, m); });
        run(c.heads(), [&](index_t s, index_t h, T* m) {
            steps.finish(s, h / heads, h % heads, of_head(h, m));
        });
        return;
    }
    // A part of a call may be the only one that has anything to do: it has a group.
    const index_t at_once = is_partial<Executor> ? 1 : groups, tasks = groups / at_once;
    T* const memory = scratch.template get<T>(executor.concurrency() * at_once * room);
    executor.run(c.sequences * tasks, [&, memory](index_t task, index_t slot) {
        const index_t s = task / tasks, first = task % tasks * at_once;
        if (!picked(s)) return;
        T* const m = memory + slot * at_once * room;
        const index_range some{first, first + at_once};
        const auto for_heads = [&](const auto& step) {
            for (index_t i = 0; i < at_once * heads; ++i)
                step(first + i / heads, i % heads, m + i / heads * room);
        };
        for (index_t i = 0; i < chunks; ++i) steps.logits(s, some, i, m);
        for_heads([&](index_t g, index_t h, T* of_group) { steps.softmax(s, g, h, of_group); });
        for (index_t i = 0; i < chunks; ++i) steps.outputs(s, some, i, m);
        for_heads([&](index_t g, index_t h, T* of_group) { steps.finish(s, g, h, of_group); });
    });
}

/// By whatever suits each sequence.
template <class Executor, class Call>
void attention_by_registers(const Executor& executor, const Call& c, workspace& scratch) {
    using T = typename Call::compute;
    using few = few_queries<Call>;
    const index_t heads = c.heads(), keys = c.k.extent(0), rows = c.received.extent(0);
    head_shares<T> received;
    if (c.shares.extent(0) > 0)
        received = {c.shares.data_handle(), c.shares.stride(0), true};
    else if (rows > 0) {
        // Rows a multiple of a page apart would fight for cache lines.
        const index_t stride = round_up(keys, lanes<T>) + lanes<T>;
        received = {scratch.template get<T>(shares_of_head * heads * stride), stride, false};
    }
    // 0: by strips, 1: a few queries, 2: short
    const auto kind = [&](index_t s) {
        if (few::are(c.queries(s), c.keys(s))) return 1;
        return short_sequences<Call>::are(c.queries(s), c.keys(s)) ? 2 : 0;
    };
    bool any[3] = {};
    for (index_t s = 0; s < c.sequences; ++s) any[kind(s)] = true;
    if (heads > 0 && any[0])
        attention_strips(
            executor, c, received, [&](index_t s) { return kind(s) == 0; }, scratch.inner());
    if (heads > 0 && any[1]) attention_of_few(executor, c, received, scratch.inner());
    if (heads > 0 && any[2]) attention_of_short(executor, c, received, scratch.inner());
    if (rows == 0) return;
    constexpr index_t width = 512; // keys whose sums stay in L1
    const index_t blocks = (most_keys(c.where()) + width - 1) / width, heads_of_row = heads / rows;
    executor.run(c.sequences * rows * blocks, [&](index_t task, index_t) {
        const index_t s = task / (rows * blocks), row = task / blocks % rows;
        const index_t first = task % blocks * width, n = c.keys(s);
        if (first >= n) return;
        const index_t here = std::min(width, n - first), at = c.key_begin(s) + first;
        const index_t parts = kind(s) == 0 ? attention_plan<T>(c.queries(s), n).parts : 1;
        double sums[width];
        std::fill_n(sums, here, 0.0);
        for (index_t h = row * heads_of_row; h < (row + 1) * heads_of_row; ++h)
            for (index_t part = 0; part < parts; ++part) {
                const T* const from = received.row(h, part) + at;
                if (c.largest)
                    for (index_t i = 0; i < here; ++i)
                        sums[i] = larger_or_nan(sums[i], static_cast<double>(from[i]));
                else
                    for (index_t i = 0; i < here; ++i) sums[i] += static_cast<double>(from[i]);
            }
        std::copy_n(sums, here, &c.received(row, at));
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
