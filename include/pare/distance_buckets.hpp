// Biases of attention by relative position as T5 and MPNet have them: a number a head for each bucket
// of distances.
#pragma once

#include "core/error.hpp"
#include "core/ops.hpp"
#include "core/view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {

/// Which distances share a bias (T5, arXiv:1910.10683). The nearest have a bucket each, those farther
/// away share buckets by the logarithm of their distance, and from `max_distance` on they are in one.
/// As it stands, what MPNet and T5's encoders have; T5's decoders have `both_ways` false.
struct distance_buckets {
    index_t count = 32;         ///< in transformers relative_attention_num_buckets
    index_t max_distance = 128; ///< in transformers relative_attention_max_distance
    /// The second half of the buckets is of keys behind their query; else such keys share bucket 0
    /// with the query itself, and are for a causal mask to hide.
    bool both_ways = true;

    /// The bucket of a key that is `distance` positions behind its query, or before it where that is
    /// negative: 0 <= bucket < count. Throws value_error for numbers that make no buckets.
    index_t operator()(index_t distance) const {
        const index_t of_way = both_ways ? count / 2 : count, alone = of_way / 2;
        if (alone < 1 || max_distance <= alone ||
            max_distance > std::numeric_limits<std::int32_t>::max())
            detail::fail<value_error>("distance_buckets", count, " buckets ",
                                      both_ways ? "both ways" : "one way", " up to distance ",
                                      max_distance, "; ", both_ways ? 4 : 2,
                                      " are the least, and distances go beyond ", alone,
                                      ", which have a bucket each, and below 2^31");
        const index_t d = std::clamp(distance, -max_distance, max_distance);
        const index_t first = both_ways && d > 0 ? of_way : 0;
        const index_t away = both_ways && d > 0 ? d : std::max<index_t>(-d, 0);
        if (away < alone) return first + away;
        if (away == max_distance) return first + of_way - 1;
        // What is a whole number, as of powers of two, stays one where it is rounded.
        const double share =
            std::log(static_cast<double>(away) / static_cast<double>(alone)) /
            std::log(static_cast<double>(max_distance) / static_cast<double>(alone));
        const auto behind =
            static_cast<index_t>(share * static_cast<double>(of_way - alone) + 1e-9);
        return first + std::min(alone + behind, of_way - 1);
    }
};

/// table[h, most + d] = of_buckets[buckets(d), h] for -most <= d <= most: what attention takes as
/// attention_options::distance_bias.
///
/// of_buckets  [buckets.count x heads], in the host's memory: as transformers saves
///             relative_attention_bias.weight
/// table       [heads x (2 * most + 1)], in the host's memory, overwritten; a `most` of
///             buckets.max_distance is enough for any distance
///
/// Throws, before anything is written, shape_error, and value_error as distance_buckets does.
/// Complexity: heads * columns; not for use in a loop over batches.
template <class Weights, class Table>
void expand_buckets(const Weights& of_buckets, Table&& table,
                    const distance_buckets& buckets = {}) {
    const auto x = as_input<2>(of_buckets);
    const auto y = as_output<2>(std::forward<Table>(table));
    using T = typename decltype(y)::value_type;
    detail::check_real<T, typename decltype(x)::value_type>();
    const index_t heads = y.extent(0), columns = y.extent(1), most = columns / 2;
    if (x.extent(0) != buckets.count || x.extent(1) != heads || columns % 2 == 0)
        detail::fail<shape_error>("expand_buckets", "biases of buckets are ", x.extent(0), "x",
                                  x.extent(1), ", the table ", heads, "x", columns, "; of ",
                                  buckets.count, " buckets it is heads by an odd number");
    for (index_t d = -most; d <= most; ++d) {
        const index_t bucket = buckets(d);
        for (index_t h = 0; h < heads; ++h)
            y(h, most + d) = detail::from_double<T>(detail::to_double(x(bucket, h)));
    }
}

} // namespace PARE_ISA
} // namespace pare
