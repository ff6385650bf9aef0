// A small GPT-2, to show how a decoder of one's own is pruned: LayerNorm before each sublayer, causal
// attention with queries, keys and values in one matrix, GELU, the words' table for logits too.
#pragma once

#include "../decoder/decoder.hpp"

namespace gpt {

using decoder::block;
using decoder::index;
using decoder::matrix;
using decoder::tokens;
using decoder::vector;

/// y = x W' + b.
struct linear {
    matrix weight;
    vector bias;
};
struct norm {
    vector gain, bias;
};
struct layer {
    norm before_attention;
    linear qkv, projection; ///< queries of all heads, keys, values; what reads the heads
    norm before_filters;
    linear up, down;
};

struct shape {
    index vocabulary = 128, length = 128, layers = 4, hidden = 128, heads = 4, filters = 512;
    index head_size() const { return hidden / heads; }
};

struct model {
    shape config;
    matrix words, positions;
    std::vector<layer> layers; ///< perhaps with fewer heads and filters than config says
    norm last;
};

model make_model(const shape& config, unsigned seed);

// See decoder.hpp.
std::vector<decoder::weight_array> weights(model& m);
matrix embed(const model& m, const tokens& ids);
matrix attend(const model& m, const layer& l, const matrix& x);
matrix activate(const layer& l, const matrix& x);
void add(const linear& reader, const block& units, matrix& x);
matrix logits(const model& m, const matrix& x);
void backward_pass(const model& m, const tokens& ids, const decoder::logits_gradient& at_logits,
                   model* found, const decoder::visitor& visit);

} // namespace gpt
