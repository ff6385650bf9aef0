// Softmax attention over packed sequences, forward and backward to its inputs.
#pragma once

#include <pare/core/view.hpp>
#include <pare/core/workspace.hpp>

#include <cstdint>
#include <vector>

namespace encoder {

/// Where a vector for each head of each token is: the `size` numbers of head h of token t begin at
/// data + t * token_stride + h * head_stride.
template <class T>
struct head_rows {
    T* data;
    pare::index_t size, token_stride, head_stride;
};

/// Queries, keys, which are as wide, and values. The three may lie interleaved in one buffer.
template <class T>
struct projections {
    pare::index_t heads;
    head_rows<T> q, k, v;
};

/// Those that lie in one row a token, all queries before all keys and those before all values.
template <class T>
projections<T> in_rows(T* data, pare::index_t heads, pare::index_t queries, pare::index_t values) {
    const pare::index_t columns = heads * (2 * queries + values);
    return {heads,
            {data, queries, columns, queries},
            {data + heads * queries, queries, columns, queries},
            {data + 2 * heads * queries, values, columns, values}};
}

/// Tokens that fade out, numbers a token or null: the logarithm of what is left of them is added to
/// the logits of their keys, and what is left weighs their queries in the scores.
struct fading {
    const float *key_bias = nullptr, *query_weights = nullptr;
};

/// What is left of a token counts as this much at least where its logarithm is taken.
inline constexpr float least_carry = 1e-20f;

/// Biases of logits by distance, as pare::attention_options has them; empty: there are none.
struct distances {
    pare::view<const float, 2> bias;
    pare::view<const std::int32_t, 1> positions = {};
};

/// Gradients at what fades, numbers a token.
struct fading_gradients {
    std::vector<float> scores, key_bias, query_weights;
};

/// context = softmax(q k' / sqrt(their size) + biases) v for each head within each sequence (tokens
/// offsets[s] to offsets[s + 1]); [tokens x heads * size of values], contiguous. No n x n matrix is
/// made: a strip of queries against all keys stays in the cache.
/// `scores` [tokens] gets the relative importance of tokens (pare::importance), or is empty.
void attention_forward(const projections<const float>& in, const std::vector<std::int64_t>& offsets,
                       const fading& soft, const distances& by, float* context,
                       pare::view<float, 1> scores, pare::workspace& scratch);

/// Gradients of q, k and v from the context and its gradient. Probabilities are computed again, an
/// n x n matrix per thread at a time. `others`, null where nothing fades, has the gradient at the
/// scores and gets the rest.
void attention_backward(const projections<const float>& in,
                        const std::vector<std::int64_t>& offsets, const fading& soft,
                        const distances& by, const float* context, const float* context_gradient,
                        const projections<float>& gradient, fading_gradients* others,
                        pare::workspace& scratch);

} // namespace encoder
