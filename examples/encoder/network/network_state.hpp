// What a network holds, and the steps that its public functions share.
#pragma once

#include "attention.hpp"
#include "linear.hpp"
#include "network.hpp"
#include "pointwise.hpp"

#include <pare/core/executor.hpp>
#include <pare/core/view.hpp>
#include <pare/core/workspace.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace encoder {

using Eigen::Index;

/// An exit's weight with its bias as one more column.
matrix stack_exit(const dense& exit);

struct packed_layer {
    linear qkv, attention_output, intermediate, output;
    matrix distance_bias; // of the heads, for all distances: what attention takes, or empty
    linear exit;          // of sums over tokens and, for its bias, of how many: [hidden x sums]

    const linear& reader(unit_kind kind) const {
        return kind == unit_kind::head ? attention_output : output;
    }
    linear& reader(unit_kind kind) { return kind == unit_kind::head ? attention_output : output; }
};

/// What a backward pass wants of a layer's forward pass. The rest is cheap to compute again.
struct record {
    pare::workspace qkv, attention_sum, intermediate, output_sum;
    matrix context;
    // To learn, also:
    pare::workspace input;
    std::vector<std::int64_t> offsets,
        kept;                            // of the tokens that come in; those that stay, if not all
    std::vector<std::int32_t> positions; // where they stood, if others between them have left
    std::vector<std::int64_t> groups;    // as of what remains
    std::vector<char> pins;
    // Of soft tokens, what comes in of them, its logarithm, their masks, and what leaves.
    std::vector<float> carry, key_bias, scores, mask, leaving;

    const std::vector<std::int64_t>& pooled_by() const { return groups.empty() ? offsets : groups; }
};

/// In place of a pinned token's score, so that it is chosen before all others.
inline constexpr float pin_score = std::numeric_limits<float>::infinity();

/// 1 for tokens that leave, 0 for those kept.
inline std::vector<float> leaving_tokens(Index tokens, const std::vector<std::int64_t>& kept) {
    std::vector<float> leaving(static_cast<std::size_t>(tokens), 1.f);
    for (const std::int64_t t : kept) leaving[static_cast<std::size_t>(t)] = 0;
    return leaving;
}

/// Row `i` of a matrix, also where the matrix has no columns.
template <class Matrix>
auto row(Matrix& m, Index i) {
    return m.data() + i * m.cols();
}

/// f(first, rows, slot) for blocks of rows, at most linear::block and about as many for each
/// thread, on all threads. A block passes through several steps while it is in its core's cache:
/// threads meet only where tokens do, in attention. All blocks begin at a multiple of linear::unit.
template <class F>
void for_row_blocks(Index rows, const F& f) {
    const pare::openmp threads;
    const Index units = (rows + linear::unit - 1) / linear::unit, n = threads.concurrency();
    const Index turns = (units * linear::unit + linear::block * n - 1) / (linear::block * n);
    const Index blocks = std::min(units, turns * n);
    threads.run(blocks, [&](Index i, Index slot) {
        const Index first = i * units / blocks * linear::unit;
        const Index end = std::min(rows, (i + 1) * units / blocks * linear::unit);
        f(first, end - first, slot);
    });
}

struct network::state {
    encoder::model model;
    std::vector<packed_layer> packed, transposed;    // transposed: made by the first backward pass
    linear embedding_projection, projection_back;    // of narrow embeddings
    std::vector<vector> context_masks, active_masks; // a value a column; empty: all 1
    token_pruning pruning;

    // Memory that is used again: the residual stream, the heads' outputs, queries keys and values,
    // a block of rows as wide as the widest layer for each thread, attention's own; and what
    // backward() keeps.
    pare::workspace stream, context, qkv, wide, attention_scratch;
    std::vector<record> records;

    explicit state(encoder::model m);

    Index hidden() const { return model.config.hidden; }
    std::size_t depth() const { return model.layers.size(); }
    Index heads(std::size_t l) const { return model.layers[l].heads; }
    Index context_columns(std::size_t l) const { return model.layers[l].value.weight.rows(); }
    /// Of a token's queries, keys and values together.
    Index projected_columns(std::size_t l) const {
        const layer& y = model.layers[l];
        return 2 * y.query.weight.rows() + y.value.weight.rows();
    }
    Index filters(std::size_t l) const { return model.layers[l].filters(); }

    const layer& at(std::size_t l) const; ///< checked

    /// A block of rows of the widest layer: thread `slot` has its own at slot * wide_size().
    Index wide_size() const {
        Index columns = 1;
        for (std::size_t l = 0; l < depth(); ++l)
            columns = std::max({columns, projected_columns(l), filters(l)});
        return linear::block * columns;
    }
    float* get_wide() { return wide.get<float>(pare::openmp{}.concurrency() * wide_size()); }

    /// Queries, keys and values lie head by head and, within a head, token by token: attention then
    /// reads a sequence's part of a head as one stream, where rows of all heads together would be a
    /// page apart.
    template <class T>
    projections<T> by_head(std::size_t l, T* data, Index tokens) const {
        const layer& y = model.layers[l];
        const Index n = y.heads, q = y.queries();
        const auto part = [&](Index before, Index size) -> head_rows<T> {
            return {data + tokens * n * before, size, size, tokens * size};
        };
        return {n, part(0, q), part(q, q), part(2 * q, y.values())};
    }

    /// Projections of `rows` rows of x, which are tokens `first` and on, into `to`, by head;
    /// `block` is scratch.
    void project(std::size_t l, const float* x, Index first, Index rows, Index tokens, float* block,
                 float* to) const;
    distances by_distance(std::size_t l, const std::vector<std::int32_t>& positions) const {
        const matrix& bias = packed[l].distance_bias;
        return {{bias.data(), bias.rows(), bias.cols()},
                {positions.data(), static_cast<Index>(positions.size())}};
    }
    /// `positions`: where tokens stood, or empty if none has left. `scores` [tokens] gets the
    /// relative importance of tokens, or is empty.
    void attend(std::size_t l, const float* projected, const std::vector<std::int64_t>& offsets,
                const std::vector<std::int32_t>& positions, float* to,
                pare::view<float, 1> scores = {}, const fading& soft = {}) {
        attention_forward(by_head(l, projected, offsets.back()), offsets, soft,
                          by_distance(l, positions), to, scores, attention_scratch);
    }

    void norm(const layer_norm& n, Index rows, const float* from, float* to) const {
        encoder::normalize(n, model.config.layer_norm_epsilon, rows, from, to);
    }

    /// Embeddings of tokens first ... first + rows - 1 [rows x hidden], and before they are
    /// normalised and, if they are narrow, projected.
    void add_embeddings(const batch& b, Index first, Index rows, float* y) const;
    void embed(const batch& b, Index first, Index rows, float* y) const;

    /// What a pass over the layers keeps, and how tokens leave.
    struct pass {
        bool records = false;   ///< keep what a backward pass wants,
        bool inputs = false;    ///< and what the gradients of weights want
        bool drop = true;       ///< by the rules of `pruning`
        double temperature = 0; ///< > 0: tokens fade instead
    };

    /// Tokens that are left of a batch.
    struct remaining {
        std::vector<std::int64_t> offsets, came; // of those left, and of all
        std::vector<std::int32_t>
            positions; // of those left, where distances count and some are gone
        matrix gone;   // [pooled x hidden]: what those that left add to a mean's sum, or empty
        std::vector<float> carry; // of soft tokens, what of them is left
        // Where outputs are a row a token, each token is pooled alone: offsets of rows [all tokens + 1],
        // with none for a token that is gone.
        std::vector<std::int64_t> groups;
        std::vector<char> pins; // of those left, as of a batch

        const std::vector<std::int64_t>& pooled_by() const {
            return groups.empty() ? offsets : groups;
        }
        /// Tokens that a mean with what is gone is of.
        float count(std::size_t s) const {
            return groups.empty() ? static_cast<float>(came[s + 1] - came[s]) : 1.f;
        }
        /// Groups and pins without the tokens that leave.
        void leave(const std::vector<float>& leaving);
    };

    /// The whole stack; returns the last layer's output, which lies in `stream`. Masks are applied
    /// unless records are kept.
    float* run_layers(const batch& b, const pass& how, remaining& left,
                      std::vector<token_use>* use);
    /// Makes of relative scores what the rule asks for: per query, they are divided by what is left
    /// of a sequence's tokens, `carry` of each, or all of each if that is empty.
    void scale_scores(const std::vector<std::int64_t>& offsets, const std::vector<float>& carry,
                      pare::view<float, 1> scores) const;
    /// Where those that stay stood in their sequences.
    static std::vector<std::int32_t> positions_of(const remaining& left,
                                                  const std::vector<std::int64_t>& kept);
    /// Attention, and the tokens with low scores leave: their rows in the residual stream, in
    /// place, and in `heads_out`. Returns where the heads' outputs of those that stay are; with a
    /// record, all of them remain in it.
    float* attend_dropping(std::size_t l, const float* projected, float* residual, float* heads_out,
                           record* r, remaining& left);
    /// Attention of soft tokens, and their masks, into the record and what is left.
    void attend_fading(std::size_t l, const float* projected, double temperature, record& r,
                       remaining& left);

    /// How rows become one: those of a sequence or, with a head on tokens, of a token, which is what is
    /// left of it and what it left as. An answer's end is the token's own row or nothing.
    pooling pool() const {
        if (!model.is_per_token()) return model.config.pooling;
        return model.head->of == head::subject::token ? pooling::mean : pooling::cls;
    }
    /// Whether tokens that leave take part in the pooled row. Labels have all tokens.
    bool carries() const {
        return (pruning.carried || model.is_per_token()) && pool() == pooling::mean;
    }
    /// The same, of answers' ends: adds the logarithm of what is left of a token to its logits, which
    /// for one that is gone is minus infinity.
    void add_left(const remaining& left, matrix& outputs) const;
    /// The head's outputs of pooled rows.
    matrix outputs(const matrix& pooled, const remaining& left) const {
        matrix found = outputs_of(model, pooled);
        if (model.is_per_token() && model.head->of == head::subject::span) add_left(left, found);
        return found;
    }
    /// What of each sequence's tokens leaves in layer l, by the share of each: sums of their inputs
    /// to the layer, of their heads' outputs, and how many they are [sequences x all three].
    matrix leaving_sums(std::size_t l, const std::vector<std::int64_t>& offsets, const float* x,
                        const float* heads_out, const std::vector<float>& leaving) const;
    /// Adds that to `gone`, through the layer's exit.
    void leave(std::size_t l, const std::vector<std::int64_t>& offsets, const float* x,
               const float* heads_out, const std::vector<float>& leaving, matrix& gone) const;

    /// What is added to a token's row in a maximum: the logarithm of what is left of it, as to its
    /// key in attention, so that one that is gone is never the largest.
    static float carry_offset(const remaining& left, Index t);
    /// Each sequence's mean, maximum or first row, before it is scaled to length 1; or each token's.
    matrix pooled(const float* rows, const remaining& left) const;

    /// Packs the weights; the transposed ones, through which gradients go.
    void pack();
    void pack_transposed();

    /// What a gradient on its way down carries besides the rows'.
    struct descent {
        std::vector<std::int64_t> offsets; // of the rows
        std::vector<float> carry;          // the gradient at what is left of soft tokens
        matrix gone; // at each sequence's sum of what left, or empty: [sequences x hidden]
    };
    descent pool_backward(const remaining& left, const matrix& pooled, const matrix& gradient,
                          const matrix& rows, float* to) const;
    /// The adjoint of leave(): the gradient at leaving_sums().
    matrix leave_backward(std::size_t l, const record& r, const float* input,
                          const std::vector<float>& leaving, const matrix& gone,
                          encoder::model& found) const;
    void undrop(std::size_t l, const record& r, const float* input, descent& down, float* rows,
                matrix& context_gradient, encoder::model& found) const;
    fading_gradients fade_backward(std::size_t l, const record& r, double temperature,
                                   const float* input, float* rows, matrix& context_gradient,
                                   descent& down, gradients& found) const;
    void scale_scores_backward(const record& r, std::vector<float>& gradient,
                               std::vector<float>& carry) const;
    void add_left_by_threshold(std::size_t l, const std::vector<float>& carry, double weight,
                               double temperature, std::vector<double>& sums) const;
    void embed_backward(const batch& b, float* gradient, encoder::model& found) const;
    /// backward_units() and learn() of the network.
    void backward(const batch& b, const loss_gradient& loss, const unit_visitor* visit,
                  const learning* how, gradients* found);
};

} // namespace encoder
