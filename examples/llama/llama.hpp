// A small decoder of the Llama type, to show how one is pruned: RMSNorm before each sublayer, rotary
// positions, several query heads to a head of keys and values, an FFN with gates, no biases.
#pragma once

#include "../decoder/decoder.hpp"

namespace llama {

using decoder::index;
using decoder::matrix;
using decoder::tokens;
using decoder::vector;

/// Matrices are stored out x in.
struct layer {
    vector before_attention; ///< gain of a norm
    matrix query, key, value, projection;
    vector before_filters;
    matrix gate, up, down;
};

struct shape {
    index vocabulary = 128, length = 128, layers = 4, hidden = 128, heads = 8, key_heads = 4,
          filters = 344;
    index head_size() const { return hidden / heads; }
    /// Query heads to a head of keys and values.
    index group() const { return heads / key_heads; }
};

struct model {
    shape config;
    matrix words;
    std::vector<layer> layers; ///< perhaps with fewer heads and filters than config says
    vector last;
    matrix head; ///< from the last norm to logits
};

model make_model(const shape& config, unsigned seed);

// See decoder.hpp.
std::vector<decoder::weight_array> weights(model& m);
matrix embed(const model& m, const tokens& ids);
matrix attend(const model& m, const layer& l, const matrix& x);
matrix activate(const layer& l, const matrix& x);
matrix logits(const model& m, const matrix& x);
void backward_pass(const model& m, const tokens& ids, const decoder::logits_gradient& at_logits,
                   model* found, const decoder::visitor& visit);

} // namespace llama
