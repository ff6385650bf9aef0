// A decoder of the Llama type, as a GGUF file has it: RMSNorm before each sublayer, rotary positions,
// several query heads to a head of keys and values, an FFN with gates. Llama has neither biases nor
// norms of queries and keys, Qwen2 has the former, Qwen3 the latter.
#pragma once

#include "gguf.hpp"

#include <Eigen/Core>
#include <pare/core/config.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace language {

using pare::index_t;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::RowVectorXf;

/// Layers may have fewer heads, groups and filters, but as many heads to each group.
struct shape {
    index_t vocabulary, hidden, heads, groups, head_size, filters,
        length; ///< length: tokens that it was made for
    double epsilon;

    index_t heads_of_group() const { return heads / groups; }
};

/// What a matrix makes of rows.
struct linear {
    matrix weight; ///< [out x in]
    vector bias;   ///< empty: none
};

struct layer {
    vector before_attention; ///< gain of a norm
    linear query, key, value, projection;
    vector query_norm, key_norm; ///< gains of norms of each head, or empty
    vector before_filters;
    linear gate, up, down;
};

/// Of a layer of this model.
inline index_t groups_of(const layer& l, const shape& c) {
    return l.key.weight.rows() / c.head_size;
}

struct model {
    shape config;
    /// Radians by which positions turn each pair of neighbours among a head's numbers, from a token to
    /// the next [head size / 2].
    std::vector<double> turns;
    matrix words;
    std::vector<layer> layers;
    vector last;
    matrix head; ///< from the last norm to logits; empty: `words`

    const matrix& to_logits() const { return head.size() > 0 ? head : words; }
};

/// Throws encoder::file_error for another architecture than llama, deci, qwen2 and qwen3, and for what these do
/// not have here: rotary positions of a part of a head, or scaled otherwise than all alike or by factors
/// in the file, experts, and any key of the architecture that is not known.
shape read_shape(const gguf_file& file);

/// Throws as read_shape, and for tensors that are missing, of another shape, of a type that is not read
/// or of no use here, before any is read; and for numbers that are not finite. Where a file turns the
/// halves of a head against each other, as Qwen's do, rows of queries and keys are read in another
/// order, so that pairs are neighbours.
model read_model(const gguf_file& file);

/// Whether files of this architecture turn halves of heads.
bool turns_halves(const std::string& architecture);
/// Rows of heads of which neighbours are pairs, so that halves are, and back.
matrix with_halves(const matrix& pairs, index_t head_size);
matrix with_neighbours(const matrix& halves, index_t head_size);
inline vector with_halves(const vector& pairs, index_t head_size) {
    return with_halves(matrix(pairs.transpose()), head_size).transpose();
}
inline vector with_neighbours(const vector& halves, index_t head_size) {
    return with_neighbours(matrix(halves.transpose()), head_size).transpose();
}

/// The architecture of a file of `m` that llama.cpp can read, if there is one: for each layer's own
/// widths deci, which knows these; for a qwen2 with fewer heads llama, since heads of a qwen2 are taken to
/// be as wide as the stream together. Both are like qwen2 but for the order of a head's numbers. A qwen3
/// stays one, whatever its widths: of the others none has its norms.
std::string architecture_of(const model& m, const gguf_file& from);

/// A file like `from`, which `m` was read from before its layers got other numbers, or fewer of them.
/// Matrices of layers are F16, where each layer has its own widths they are arrays, the architecture is
/// that of architecture_of(), and all else is as it was. Throws encoder::file_error for numbers that are
/// beyond a half's.
std::string to_gguf(const model& m, const gguf_file& from);

} // namespace language
