// A decoder of the Llama type, as a GGUF file has it: RMSNorm before each sublayer, rotary positions,
// several query heads to a head of keys and values, an FFN with gates, no biases.
#pragma once

#include "gguf.hpp"

#include <Eigen/Core>
#include <pare/core/config.hpp>

#include <cstdint>
#include <vector>

namespace language {

using pare::index_t;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::RowVectorXf;

struct shape {
    index_t vocabulary, hidden, heads, groups, filters,
        length; ///< length: tokens that it was made for
    double rotary_base, epsilon;

    index_t head_size() const { return hidden / heads; }
    index_t heads_of_group() const { return heads / groups; }
};

/// Matrices are stored out x in.
struct layer {
    vector before_attention; ///< gain of a norm
    matrix query, key, value, projection;
    vector before_filters;
    matrix gate, up, down;
};

struct model {
    shape config;
    matrix words;
    std::vector<layer> layers;
    vector last;
    matrix head; ///< from the last norm to logits; empty: `words`

    const matrix& to_logits() const { return head.size() > 0 ? head : words; }
};

/// Throws encoder::file_error for another architecture, and for what this one does not have here: rotary
/// positions that are scaled or of a part of a head, heads of a size of their own, experts, and any key
/// of the architecture that is not known.
shape read_shape(const gguf_file& file);

/// Throws as read_shape, and for tensors that are missing, of another shape, of a type that is not read
/// or of no use here, such as biases, before any is read; and for numbers that are not finite.
model read_model(const gguf_file& file);

} // namespace language
