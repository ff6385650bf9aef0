// A forward pass of some tokens of texts against the cache of those before them.
#pragma once

#include "cache.hpp"

#include <pare/attention.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace language {

/// The queries of a pass whose attention is made scores of, if any: what they give a key, the mean of
/// these queries and of the heads of a group.
using scoring = std::optional<pare::counted_queries>;

/// Tokens of some texts, packed: of text i those of offsets[i] .. offsets[i + 1], the first of which
/// stands at places[i] of the text.
struct token_batch {
    std::vector<std::int32_t> ids;
    std::vector<index_t> offsets = {0}, places;

    token_batch() = default;
    token_batch(const std::vector<std::int32_t>& text, index_t place) { add(text, place); }
    void add(const std::vector<std::int32_t>& text, index_t place) {
        ids.insert(ids.end(), text.begin(), text.end());
        offsets.push_back(static_cast<index_t>(ids.size()));
        places.push_back(place);
    }
};

/// What a pass shows of a layer. Its cache has the new tokens, and may be made smaller.
struct layer_pass {
    index_t layer;
    layer_cache& cache;
    const matrix& stream; ///< before attention, [tokens x hidden]
    const matrix& normed; ///< the same through its norm
    /// Of each group of each text its tokens, [groups * tokens x heads of a group * head size].
    const matrix &queries, &context;
    const std::vector<std::int32_t>& offsets; ///< of these rows, [texts * groups + 1]
    /// What keys received, [texts * groups x room], where it was asked for.
    pare::view<const float, 2> received;
};
using observer = std::function<void(const layer_pass&)>;

/// The context of queries [groups * tokens x heads of a group * head size], whose offsets are those of
/// sequences, against a cache that has their tokens; and what its keys received, [sequences x room],
/// or nothing.
void attend(const shape& of, const matrix& queries, const std::vector<std::int32_t>& offsets,
            const layer_cache& c, const scoring& scores, matrix& context,
            std::vector<float>& received, pare::workspace& scratch);

/// The residual stream behind all layers, through the last norm; each token attends to those of its
/// text that are not behind it and to all of the text's cache. Throws std::invalid_argument for no
/// tokens, for ids without an embedding, and for a cache that has another number of layers or of
/// texts, or no room for them.
matrix forward(const model& m, const token_batch& batch, cache& c, const scoring& scores = {},
               const observer& show = {});

/// -log p of next[t] behind row t of what forward() gives, for as many rows as there are of these.
/// Throws std::invalid_argument for more, and for ids that are none.
std::vector<double> losses(const model& m, const matrix& rows,
                           const std::vector<std::int32_t>& next);

/// The likeliest token behind each row.
std::vector<std::int32_t> likeliest(const model& m, const matrix& rows);

} // namespace language
