// How attention of few queries against many keys is cut into parts, and what each part leaves.
#pragma once

#include "block_tiles.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Of at most so many queries a sequence's attention is a step. Nothing but the sequence decides it,
/// so that results do not depend on the rest of a batch.
constexpr index_t queries_of_step = 4;
/// Parts of the keys that a step sees have so many, or a multiple of it where there would be too many
/// parts to be put together.
constexpr index_t keys_of_part = 128, most_parts = 128;
/// Rows of a block, which are the heads of one group and their queries.
constexpr int rows_of_step = 16;

constexpr index_t size_of_parts(index_t keys) {
    return keys_of_part * ((keys - 1) / (keys_of_part * most_parts) + 1);
}

template <class Call>
constexpr bool has_steps(const Call& call) {
    constexpr index_t widest = 256;
    return !Call::same && call.q.extent(2) <= widest && call.v.extent(2) <= widest;
}
/// Whether the attention of sequence s is a step.
template <class Call>
constexpr bool is_step(const Call& call, index_t s) {
    return has_steps(call) && call.queries(s) <= queries_of_step;
}

/// The keys that any query of a step sees.
template <class Call>
constexpr index_range seen_by_step(const Call& call, index_t s) {
    const index_t queries = call.queries(s), keys = call.keys(s);
    const index_t begin = visible_keys(call.mask, 0, queries, keys).begin;
    return {begin, std::max(begin, visible_keys(call.mask, queries - 1, queries, keys).end)};
}
constexpr index_t strips_of_rows(index_t queries, index_t heads_of_group) {
    return (queries * heads_of_group + rows_of_step - 1) / rows_of_step;
}
/// How many blocks of each group have anything to do for a sequence.
template <class Call>
struct blocks_of_step {
    Call call;
    index_t heads_of_group;
    PARE_HD index_t operator()(index_t s) const {
        if (!is_step(call, s)) return 0;
        const index_t keys = seen_by_step(call, s).size(), size = size_of_parts(keys);
        return (keys + size - 1) / size * strips_of_rows(call.queries(s), heads_of_group);
    }
};

/// Where parts have their places among those of all sequences. The host knows how many there may be: of
/// a sequence's room, wherever it begins, as of strips; or of a window, which is often less.
struct part_places {
    index_t of_sequence; ///< or 0: as strips
    index_t all;

    template <class Call>
    static part_places of(const Call& call, index_t keys) {
        const index_t all = strips_of_all(call, keys, keys_of_part);
        const index_t seen = std::min(call.mask.window, keys) + queries_of_step - 1;
        const index_t most = (seen + keys_of_part - 1) / keys_of_part;
        if (call.mask.window > 0 && most * call.sequences < all)
            return {most, most * call.sequences};
        return {0, all};
    }
    template <class Call>
    constexpr index_t first(const Call& call, index_t s) const {
        return of_sequence > 0 ? s * of_sequence : call.key_begin(s) / keys_of_part + s;
    }
    /// The sequence, and which of its parts.
    template <class Call>
    PARE_HD strip_place at(const Call& call, index_t place) const {
        if (of_sequence > 0) {
            const block_place part(place, of_sequence);
            return {part.strip, part.which};
        }
        const strip_place part = strip_of_keys(call, place, keys_of_part);
        return {part.sequence, part.first / keys_of_part};
    }
};

/// What each part of the keys leaves of a step's query and head: sums of values that are not divided
/// yet, the largest logit, and the sum of exponentials of logits less it. [parts of all sequences x
/// slots x heads], and each has `width` sums. A sequence's query has the slot of its number. And logits,
/// or none: `slots` of each head and key, of which a sequence's are one behind another.
template <class C>
struct step_results {
    C *sums, *most, *total, *logits;
    part_places places;
    index_t slots, heads, keys, width;

    step_results(C* memory, const part_places& of_parts, C* of_logits, index_t queries,
                 index_t all_heads, index_t all_keys, index_t columns)
        : sums(memory), most(memory), total(memory), logits(of_logits), places(of_parts),
          slots(queries), heads(all_heads), keys(all_keys), width(columns) {
        const index_t count = places.all * slots * heads;
        if (!memory) return;
        most += count * width;
        total = most + count;
    }
    PARE_HD index_t place(index_t part, index_t query, index_t head) const {
        return (part * slots + query) * heads + head;
    }
    /// Of a step's query and its keys, which are n from number `begin` on.
    PARE_HD C* logits_of(index_t query, index_t head, index_t begin, index_t n) const {
        return logits + (head * keys + begin) * slots + query * n;
    }
    /// In their place: what keys receive from heads in sequences that are no steps, beside which there
    /// are four slots.
    head_sums sums_of_heads() const {
        static_assert(sizeof(C) * queries_of_step >= sizeof(double));
        const index_t of_key =
            slots * static_cast<index_t>(sizeof(C)) / static_cast<index_t>(sizeof(double));
        return {reinterpret_cast<double*>(logits), keys * of_key, of_key};
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
