// A forward pass of some tokens against the cache of those before them.
#pragma once

#include "cache.hpp"

#include <pare/attention.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace language {

/// What a pass shows of a layer, whose cache has the new tokens and may be made smaller: the
/// residual stream before attention, through its norm, [tokens x hidden]; and what keys received,
/// [groups x room], where it was asked for.
using observer = std::function<void(index_t layer, layer_cache& c, const matrix& normed,
                                    const pare::view<const float, 2>& received)>;

/// Which attention the observer is shown, if any.
struct scoring {
    bool wanted = false;
    pare::counted_queries queries;
    pare::score_scale scale = pare::score_scale::relative;
    pare::score_reduction reduction = pare::score_reduction::sum;
};

/// The residual stream behind all layers, through the last norm, of tokens that stand at `place` and
/// on in the text; each attends to those of them that are not behind it and to all of the cache.
/// Throws std::invalid_argument for no tokens, for ids without an embedding, and for a cache that has
/// another number of layers or no room for them.
matrix forward(const model& m, const std::vector<std::int32_t>& ids, index_t place, cache& c,
               const scoring& scores = {}, const observer& show = {});

/// -log p of next[t] behind row t of what forward() gives, for as many rows as there are of these.
/// Throws std::invalid_argument for more, and for ids that are none.
std::vector<double> losses(const model& m, const matrix& rows,
                           const std::vector<std::int32_t>& next);

/// The likeliest token behind the last row.
std::int32_t likeliest(const model& m, const matrix& rows);

} // namespace language
