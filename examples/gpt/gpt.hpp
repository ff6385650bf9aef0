// A small GPT-2, to show how a decoder of one's own is pruned: LayerNorm before each sublayer, causal
// attention with queries, keys and values in one matrix, GELU, the words' table for logits too.
#pragma once

#include <Eigen/Core>

#include <cstdint>
#include <functional>
#include <vector>

namespace gpt {

using index = Eigen::Index;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::RowVectorXf;

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

/// Sequences of config.length tokens, one behind another.
using tokens = std::vector<std::uint8_t>;

enum class sublayer { attention, filters };

// A forward pass, step by step, on the residual stream x [tokens x hidden].
matrix embed(const model& m, const tokens& ids);
/// Contexts of all heads [tokens x heads * head size].
matrix attend(const model& m, const layer& l, const matrix& x);
/// [tokens x filters]
matrix activate(const layer& l, const matrix& x);
/// x += units W' + b.
void add(const linear& reader, const Eigen::Ref<const matrix>& units, matrix& x);
matrix logits(const model& m, const matrix& x);

/// The mean over tokens of -log p(next), next[t] being the one behind token t.
double loss(const model& m, const tokens& ids, const tokens& next);

/// What a backward pass shows of a sublayer: its units' values [tokens x units' columns], the
/// gradient at them, and that at the stream behind it [tokens x hidden].
using visitor = std::function<void(index layer, sublayer which, const matrix& units,
                                   const matrix& at_units, const matrix& at_sum)>;
/// From logits to the gradient at them.
using logits_gradient = std::function<matrix(const matrix& logits)>;
/// One forward and one backward pass. Adds the gradients at all weights to `found`, unless that is
/// null; calls `visit`, unless that is null, the last sublayer first.
void backward(const model& m, const tokens& ids, const logits_gradient& at_logits, model* found,
              const visitor& visit);

/// Learns `steps` batches of random pieces of the text by AdamW.
void train(model& m, const tokens& text, int steps, unsigned seed);

} // namespace gpt
