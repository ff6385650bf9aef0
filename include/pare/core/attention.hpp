// Which keys a query attends to, and which queries count.
#pragma once

#include "config.hpp"
#include "executor.hpp"
#include "fast_math.hpp"
#include "ops.hpp"
#include "view.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pare {
inline namespace PARE_ISA {

/// What the sum over heads and queries of the attention that a key receives is divided by.
enum class score_scale {
    /// What uniform attention under the same mask would give the key: a score of 1 is as much as
    /// that, at any length, under any mask and for any number of heads, so that a threshold means
    /// the same everywhere. Without a mask the mean of a sequence's scores is 1. Under one it is
    /// that only if keys are weighted by what uniform attention gives them: the plain mean counts
    /// the last keys of a causal mask, which few queries see, as much as all others, and was 2.65
    /// in a trained decoder.
    relative,
    /// heads * counted queries, the mean of arXiv:2107.00910. Without a mask the scores of a
    /// sequence sum up to 1, and so fall with its length.
    per_query,
    /// heads * `length`: the paper's published code, where `length` is the padded one.
    fixed
};

/// How what queries and heads give a key is put together.
enum class score_reduction {
    /// Added up (H2O, SnapKV, learned token pruning).
    sum,
    /// The largest of them, at least 0 (KVzip, arXiv:2505.23416): score_scale::per_query leaves
    /// probabilities as they are, score_scale::relative multiplies them by the number of keys that
    /// their query sees, so that a score of 1 is what uniform attention gives; `fixed` is for sums.
    /// With query weights, the largest of weighted probabilities.
    max
};

/// Which keys a query sees. Positions count from the end: the last query stands at the last key's
/// position, where there are a few queries against a longer cache.
struct attention_mask {
    bool causal = false; ///< no key behind the query
    index_t window = 0;  ///< only keys less than `window` positions away; 0 = any
};

/// Which queries count when attention is added up: begin <= q < end; negative numbers count from
/// the end of each sequence.
struct counted_queries {
    index_t begin = 0;
    index_t end = std::numeric_limits<index_t>::max();

    /// Every query (learned token pruning, arXiv:2107.00910).
    static constexpr counted_queries all() { return {}; }
    /// The first alone: the attention of [CLS] (EViT, arXiv:2202.07800).
    static constexpr counted_queries first() { return {0, 1}; }
    /// A window at the end (SnapKV, arXiv:2404.14469); none of 0.
    static constexpr counted_queries last(index_t queries) {
        constexpr index_t end = std::numeric_limits<index_t>::max();
        return {queries > 0 ? -queries : end, end};
    }
};

/// How attention becomes the scores of tokens.
struct importance_options {
    score_scale scale = score_scale::relative;
    double length = 0; ///< of score_scale::fixed
    attention_mask mask;
    counted_queries queries;
};

namespace detail {

struct index_range {
    index_t begin, end;
    constexpr index_t size() const { return end - begin; }
};

/// Keys that query q of `queries` sees among `keys`.
constexpr index_range visible_keys(const attention_mask& mask, index_t q, index_t queries,
                                   index_t keys) {
    const index_t at = q + keys - queries;
    index_range range{0, keys};
    if (mask.causal) range.end = std::clamp<index_t>(at + 1, 0, keys);
    if (mask.window > 0) {
        const index_t window = std::min(mask.window, queries + keys); // any wider one hides nothing
        range.begin = std::clamp<index_t>(at - window + 1, 0, keys);
        range.end = std::min(range.end, std::clamp<index_t>(at + window, 0, keys));
    }
    range.end = std::max(range.begin, range.end);
    return range;
}

/// Queries that see any of the keys begin <= k < end; begin < end <= keys.
constexpr index_range seeing_queries(const attention_mask& mask, index_t begin, index_t end,
                                     index_t queries, index_t keys) {
    const index_t before = keys - queries; // the place of query 0
    const index_t window = std::min(mask.window, queries + keys);
    index_range range{0, queries};
    if (mask.window > 0)
        range = {std::clamp<index_t>(begin - window + 1 - before, 0, queries),
                 std::clamp<index_t>(end - 1 + window - before, 0, queries)};
    if (mask.causal) range.begin = std::clamp<index_t>(begin - before, 0, queries);
    range.end = std::max(range.begin, range.end);
    return range;
}

constexpr bool sees_all(const attention_mask& mask) {
    return !mask.causal && mask.window <= 0;
}

constexpr index_range counted(const counted_queries& which, index_t queries) {
    const auto place = [&](index_t i) {
        return std::clamp<index_t>(i < 0 ? queries + i : i, 0, queries);
    };
    const index_t begin = place(which.begin);
    return {begin, std::max(begin, place(which.end))};
}

/// Whether the factor from sums to scores is the same for all keys of a sequence.
constexpr bool same_factor_for_all(const importance_options& o) {
    return o.scale != score_scale::relative || sees_all(o.mask);
}
constexpr double inverse_or_zero(double x) {
    return x > 0 ? 1 / x : 0.0;
}
/// Then this is it; 0 where no query counts.
constexpr double factor_for_all(const importance_options& o, index_t heads, index_t queries,
                                index_t keys) {
    double by = static_cast<double>(counted(o.queries, queries).size() * heads);
    if (o.scale == score_scale::fixed) by = o.length * static_cast<double>(heads);
    if (o.scale == score_scale::relative && keys > 0) by /= static_cast<double>(keys);
    return inverse_or_zero(by);
}

/// What a query gives each key that it sees, if it attends to all of them alike.
constexpr double uniform_share(const index_range& seen) {
    return seen.size() > 0 ? 1 / static_cast<double>(seen.size()) : 0.0;
}
/// The sum of 1 / m over begin <= m < end, 0 < begin: term by term where there are few or they are
/// large, and else by the series of the digamma function (NIST DLMF 5.11.2). To a few roundings.
PARE_HD inline double sum_of_inverses(index_t begin, index_t end) {
    constexpr index_t few = 24; // from where on what the series leaves out is less than a rounding
    double sum = 0;
    index_t m = begin;
    for (; m < end && (m < few || end - begin <= few); ++m) sum += 1 / static_cast<double>(m);
    if (m >= end) return sum;
    const auto rest = [](double x) { // digamma(1 / x) = -log(x) - rest(x)
        const double y = x * x;
        return x / 2 + y * (1. / 12 - y * (1. / 120 - y * (1. / 252 - y / 240)));
    };
    const double a = 1 / static_cast<double>(m), b = 1 / static_cast<double>(end);
    return sum + std::log1p(static_cast<double>(end - m) * a) + (rest(a) - rest(b));
}
/// The attention that a key receives from the counted queries, if each attends to all that it sees
/// alike. As many steps for any number of queries.
PARE_HD inline double uniform_attention(const importance_options& o, index_t key, index_t queries,
                                        index_t keys) {
    const index_range q = counted(o.queries, queries);
    const bool windowed = o.mask.window > 0;
    const index_t all = queries + keys, window = windowed ? std::min(o.mask.window, all) : all;
    // Positions of queries that see the key; they count from the end, as in visible_keys.
    const index_t begin =
        std::max(q.begin + keys - queries, o.mask.causal ? key : key - window + 1);
    const index_t end = std::min(q.end + keys - queries, key + window);
    const auto within = [&](index_t low, index_t high) { // how many lie between
        return static_cast<double>(
            std::max<index_t>(0, std::min(end, high) - std::max(begin, low)));
    };
    if (!windowed && !o.mask.causal) return within(begin, end) / static_cast<double>(keys);
    // The first see one key more each, up to as many as any sees, and without a causal mask the
    // last see one less each.
    if (o.mask.causal) {
        const index_t grown = window - 1;
        return sum_of_inverses(begin + 1, std::min(end, grown) + 1) +
               within(grown, end) / static_cast<double>(window);
    }
    const index_t grown = std::min(window, keys - window + 1);
    const index_t shrinks = std::max({window - 1, keys - window, grown});
    return sum_of_inverses(begin + window, std::min(end, grown) + window) +
           within(grown, shrinks) / static_cast<double>(std::min(keys, 2 * window - 1)) +
           sum_of_inverses(keys - end + window, keys - std::max(begin, shrinks) + window);
}
/// The factor from sums to scores of one key.
PARE_HD inline double factor_of_key(const importance_options& o, index_t heads, index_t key,
                                    index_t queries, index_t keys) {
    if (same_factor_for_all(o)) return factor_for_all(o, heads, queries, keys);
    return inverse_or_zero(uniform_attention(o, key, queries, keys) * static_cast<double>(heads));
}
/// What uniform_attention gives for key after key, in as many steps as there are keys and queries:
/// neither end of what a query sees lies before that of an earlier one.
class uniform_attention_of_keys {
  public:
    uniform_attention_of_keys(const importance_options& o, index_t queries, index_t keys)
        : mask_(o.mask), queries_(queries), keys_(keys),
          end_(counted(o.queries, queries).end), seeing_{counted(o.queries, queries).begin,
                                                         counted(o.queries, queries).begin} {}

    double next() {
        for (; seeing_.end < end_ && seen(seeing_.end).begin <= key_; ++seeing_.end)
            add(uniform_share(seen(seeing_.end)));
        for (; seeing_.begin < seeing_.end && seen(seeing_.begin).end <= key_; ++seeing_.begin)
            add(-uniform_share(seen(seeing_.begin)));
        if (seeing_.size() == 0) sum_ = rounded_off_ = 0; // what is left is rounding
        ++key_;
        return sum_ + rounded_off_;
    }

  private:
    index_range seen(index_t query) const { return visible_keys(mask_, query, queries_, keys_); }
    /// Keeps what rounding takes off (Knuth's two-sum): the last keys have small sums of what is
    /// left of large ones.
    void add(double share) {
        const double before = sum_;
        sum_ = opaque(before + share);
        const double added = opaque(sum_ - before);
        rounded_off_ += opaque(before - opaque(sum_ - added)) + opaque(share - added);
    }

    attention_mask mask_;
    index_t queries_, keys_, end_;
    index_range seeing_; // queries
    index_t key_ = 0;
    double sum_ = 0, rounded_off_ = 0;
};

/// The first i of ascending at(i), i < count, that is not less than `value`; count if there is none.
template <class At>
constexpr index_t first_not_below(index_t count, const At& at, index_t value) {
    index_t begin = 0, end = count;
    while (begin < end) {
        const index_t middle = (begin + end) / 2;
        if (static_cast<index_t>(at(middle)) < value)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/// The segment that has a row, offsets[s] <= row < offsets[s + 1].
template <class Offset>
constexpr index_t segment_of(const Offset* offsets, index_t segments, index_t row) {
    index_t s = 0, end = segments;
    while (s + 1 < end) {
        const index_t middle = (s + end) / 2;
        if (static_cast<index_t>(offsets[middle]) <= row)
            s = middle;
        else
            end = middle;
    }
    return s;
}

/// Queries and keys of each sequence of a padded batch: all there is room for, or `lengths` of
/// them. Where queries and keys have room for different numbers, lengths are the keys'.
template <class Length>
struct padded_batch {
    const Length* lengths; // or null
    index_t room_queries, room_keys;

    constexpr index_t keys(index_t b) const {
        return lengths ? static_cast<index_t>(lengths[b]) : room_keys;
    }
    constexpr index_t queries(index_t b) const {
        return room_queries == room_keys ? keys(b) : room_queries;
    }
};

/// How the sums of a padded batch's keys are shared out among tasks.
struct key_blocks {
    static constexpr index_t most = 512; // keys whose sums stay in L1
    index_t sequences, room, width;

    template <class Executor>
    key_blocks(const Executor& executor, index_t batch, index_t room_keys)
        : sequences(batch), room(room_keys),
          width(piece_of_rows(room, std::max<index_t>(1, batch), most, executor)) {}
    constexpr index_t of_sequence() const { return (room + width - 1) / width; }
    constexpr index_t tasks() const { return sequences * of_sequence(); }
    constexpr index_t sequence(index_t task) const { return task / of_sequence(); }
    constexpr index_range keys(index_t task) const {
        const index_t begin = task % of_sequence() * width;
        return {begin, std::min(room, begin + width)};
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
