// Softmax attention in the memory of a Thrust policy: forward by the library's, backward by batched
// products of matrices, on a GPU by cuBLAS, for the price of an array of queries x keys.
#pragma once

#include "device_padding.hpp"
#include "encoder/network/attention.hpp"

#include <pare/attention.hpp>

#include <limits>

namespace encoder::device {

/// Rows of probabilities p = softmax(scale * logits), each over its sequence's keys; zeros beyond
/// them and in the rows beyond the sequence's end.
template <class Policy, class T>
void softmax(const Policy& policy, const padded_heads& h, const place* offsets, float scale,
             const float* logits, T* p) {
    const index_t n = h.length;
    const auto memory = policy.template temporary<float>(2 * h.rows() * lanes);
    float* const parts = memory.data(); // each lane's largest logit, and the sum relative to it
    policy.for_each(h.rows() * lanes, [=] PARE_HD(index_t at) {
        const index_t row = at / lanes, s = h.first + row / (n * h.heads);
        const index_t keys = offsets[s + 1] - offsets[s];
        float highest = std::numeric_limits<float>::lowest(), sum = 0;
        for (index_t j = at % lanes; j < keys; j += lanes) {
            const float x = scale * logits[row * n + j];
            if (x > highest) {
                sum *= std::exp(highest - x);
                highest = x;
            }
            sum += std::exp(x - highest);
        }
        parts[2 * at] = highest;
        parts[2 * at + 1] = sum;
    });
    policy.for_each(h.rows() * lanes, [=] PARE_HD(index_t at) {
        const index_t row = at / lanes, s = h.first + row / (n * h.heads);
        const index_t keys = offsets[s + 1] - offsets[s];
        float highest = std::numeric_limits<float>::lowest(), sum = 0;
        for (index_t lane = row * lanes; lane < (row + 1) * lanes; ++lane)
            highest = parts[2 * lane] > highest ? parts[2 * lane] : highest;
        for (index_t lane = row * lanes; lane < (row + 1) * lanes; ++lane)
            sum += parts[2 * lane + 1] * std::exp(parts[2 * lane] - highest);
        const bool is_query = row % n < keys;
        for (index_t j = at % lanes; j < n; j += lanes) {
            float value = 0;
            if (is_query && j < keys) value = std::exp(scale * logits[row * n + j] - highest) / sum;
            p[row * n + j] = static_cast<T>(value);
        }
    });
}

/// As encoder::fading_gradients, in the policy's memory.
struct fading_gradients {
    const float* scores;
    float *key_bias, *query_weights;
};

/// What the way back through attention keeps between its steps; memory that is used again.
template <class T, class Policy>
struct attention_memory {
    buffer<T, Policy> q, k, v, out, probabilities, at_context;
    buffer<float, Policy> logits;
    buffer<double, Policy> sums;
    buffer<place, Policy> lengths;
};

/// context [tokens x heads * size of values] = the heads' outputs; and `scores` [tokens], or null: the
/// tokens' importance on that scale.
template <class Policy, class T>
void attention_forward(const Policy& policy, const sequences& batch, const projections<const T>& in,
                       const fading& soft, const distances& by, T* context, float* scores,
                       pare::score_scale scale, pare::workspace& scratch) {
    const index_t tokens = batch.tokens();
    if (in.heads == 0 || tokens == 0) return;
    const auto part = [&](const head_rows<const T>& x) {
        return view<const T, 3>(x.data, {tokens, in.heads, x.size},
                                {x.token_stride, x.head_stride, 1});
    };
    const auto of_tokens = [&](const float* x) {
        return view<const float, 1>(x, x ? tokens : index_t{0});
    };
    pare::attention_options<T> options;
    options.scores = scale;
    options.key_bias = of_tokens(soft.key_bias);
    options.query_weights = of_tokens(soft.query_weights);
    options.distance_bias = by.bias;
    options.positions = by.positions;
    pare::attention(policy, part(in.q), part(in.k), part(in.v), batch.offsets(),
                    view<T, 3>(context, tokens, in.heads, in.v.size),
                    view<float, 1>(scores, scores ? tokens : index_t{0}), options, scratch);
}

/// Queries, keys, values and probabilities of a group of sequences; key_bias [tokens], or null, and
/// biases by distance are added to logits. `p` is of the values.
template <class Policy, class T>
void attend(const Policy& policy, const padded_heads& p, const place* offsets,
            const projections<const T>& in, const float* key_bias, const distances& by,
            attention_memory<T, Policy>& memory) {
    const auto padded = [&](const head_rows<const T>& x, buffer<T, Policy>& to) {
        const padded_heads of = p.of_size(x.size);
        T* const rows = to.get(policy, of.rows() * x.size);
        pad(policy, of, offsets, x.data, x.token_stride, rows);
        return rows;
    };
    const padded_heads queries = p.of_size(in.q.size);
    const T *const q = padded(in.q, memory.q), *const k = padded(in.k, memory.k);
    padded(in.v, memory.v);
    float* const logits = memory.logits.get(policy, p.rows() * p.length);
    T* const probabilities = memory.probabilities.get(policy, p.rows() * p.length);
    policy.multiply(queries.of(q), queries.transposed(k), p.square(logits));
    float scale = 1 / std::sqrt(static_cast<float>(in.q.size));
    if (key_bias) {
        for_pairs(policy, p, offsets, [=] PARE_HD(index_t at, index_t, index_t key) {
            logits[at] = scale * logits[at] + key_bias[key];
        });
        scale = 1;
    }
    if (const index_t most = by.bias.extent(1) / 2; most > 0) {
        const view<const float, 2> bias = by.bias;
        const view<const place, 1> positions = by.positions;
        const index_t heads = p.heads, pairs = p.length * p.length;
        const bool moved = positions.extent(0) > 0;
        for_pairs(policy, p, offsets, [=] PARE_HD(index_t at, index_t query, index_t key) {
            index_t d = moved ? positions(key) - positions(query) : key - query;
            d = d < -most ? -most : d > most ? most : d;
            logits[at] = scale * logits[at] + bias(at / pairs % heads, most + d);
        });
        scale = 1;
    }
    softmax(policy, p, offsets, scale, logits, probabilities);
}

/// From the probabilities and the gradient at them to that at the products of queries and keys,
/// scale * p (g - sum over keys of p g), in the probabilities' place.
template <class Policy, class T>
void softmax_backward(const Policy& policy, const padded_heads& h, float scale,
                      const float* gradient, T* p) {
    const index_t n = h.length;
    const auto memory = policy.template temporary<float>(h.rows() * lanes);
    float* const parts = memory.data();
    policy.for_each(h.rows() * lanes, [=] PARE_HD(index_t at) {
        const index_t row = at / lanes;
        float sum = 0;
        for (index_t j = at % lanes; j < n; j += lanes)
            sum += static_cast<float>(p[row * n + j]) * gradient[row * n + j];
        parts[at] = sum;
    });
    policy.for_each(h.rows() * lanes, [=] PARE_HD(index_t at) {
        const index_t row = at / lanes;
        float sum = 0;
        for (index_t lane = row * lanes; lane < (row + 1) * lanes; ++lane) sum += parts[lane];
        for (index_t j = at % lanes; j < n; j += lanes) {
            T& y = p[row * n + j];
            y = static_cast<T>(scale * static_cast<float>(y) * (gradient[row * n + j] - sum));
        }
    });
}

/// The adjoint of the scores, for probabilities that are the softmax of logits with a key bias: adds
/// to the gradient at them, and writes that at the weights of queries.
template <class Policy, class T>
void scores_backward(const Policy& policy, const padded_heads& p, const place* offsets,
                     const T* probabilities, const float* query_weights, const fading_gradients& g,
                     float* at_probabilities) {
    const float share = 1 / static_cast<float>(p.heads);
    const float* const at_scores = g.scores;
    float* const at_weights = g.query_weights;
    const index_t first = p.first, n = p.length, heads = p.heads;
    for_pairs(policy, p, offsets, [=] PARE_HD(index_t at, index_t query, index_t key) {
        at_probabilities[at] += share * query_weights[query] * at_scores[key];
    });
    policy.sum_pieces(
        p.end - first, heads, n, 1,
        [=] PARE_HD(index_t s, index_t head, index_t i) {
            const index_t begin = offsets[first + s], length = offsets[first + s + 1] - begin;
            const T* const row = probabilities + ((s * heads + head) * n + i) * n;
            double sum = 0;
            for (index_t j = 0; j < (i < length ? length : 0); ++j)
                sum += static_cast<double>(static_cast<float>(row[j]) * at_scores[begin + j]);
            return sum;
        },
        [=] PARE_HD(index_t s, index_t i, double sum) {
            const index_t t = offsets[first + s] + i;
            if (t < offsets[first + s + 1]) at_weights[t] = share * static_cast<float>(sum);
        });
}

/// The gradient at key biases: sums over heads and queries of that at the logits, which are
/// `gradient` / scale.
template <class Policy, class T>
void key_bias_backward(const Policy& policy, const padded_heads& p, const place* offsets,
                       const T* gradient, float scale, float* at_key_bias,
                       attention_memory<T, Policy>& memory) {
    const index_t count = p.end - p.first, n = p.length, first = p.first;
    place* const lengths = memory.lengths.get(policy, count);
    policy.for_each(count, [=] PARE_HD(index_t s) {
        lengths[s] = offsets[first + s + 1] - offsets[first + s];
    });
    double* const sums = memory.sums.get(policy, count * n);
    policy.key_sums(view<const T, 4>(gradient, count, p.heads, n, n),
                    pare::detail::padded_batch<place>{lengths, n, n}, pare::attention_mask{},
                    pare::counted_queries::all(), view<double, 2>(sums, count, n));
    policy.for_each(count * n, [=] PARE_HD(index_t at) {
        const index_t s = at / n, i = at % n;
        if (i < lengths[s])
            at_key_bias[offsets[first + s] + i] = static_cast<float>(sums[at]) / scale;
    });
}

/// The gradient at the projections from that at the context [tokens x heads * size of values].
/// Probabilities are computed again. `others`, null where nothing fades, has the gradient at the
/// scores, on the relative scale, and gets the rest.
template <class Policy, class T>
void attention_backward(const Policy& policy, const sequences& batch,
                        const projections<const T>& in, const fading& soft, const distances& by,
                        const T* context_gradient, const projections<T>& gradient,
                        const fading_gradients* others, attention_memory<T, Policy>& memory) {
    if (in.heads == 0) return;
    const place* const offsets = batch.there;
    const index_t size = in.v.size, columns = in.heads * size;
    for_groups(batch, in.heads, size, [&](const padded_heads& p) {
        attend(policy, p, offsets, in, soft.key_bias, by, memory);
        const padded_heads queries = p.of_size(in.q.size);
        const T *const q = memory.q.data(), *const k = memory.k.data(), *const v = memory.v.data();
        T* const probabilities = memory.probabilities.data();
        T* const at_context = memory.at_context.get(policy, p.rows() * size);
        T* const out = memory.out.get(policy, p.rows() * std::max(size, in.q.size));
        float* const at_probabilities = memory.logits.data();
        pad(policy, p, offsets, context_gradient, columns, at_context);
        const auto give = [&](const padded_heads& of, const head_rows<T>& to) {
            unpad(policy, of, offsets, out, to.data, to.token_stride);
        };
        policy.multiply(p.transposed_square<const T>(probabilities), p.of<const T>(at_context),
                        p.of(out));
        give(p, gradient.v);
        policy.multiply(p.of<const T>(at_context), p.transposed<const T>(v),
                        p.square(at_probabilities));
        if (others)
            scores_backward(policy, p, offsets, probabilities, soft.query_weights, *others,
                            at_probabilities);
        const float scale = 1 / std::sqrt(static_cast<float>(in.q.size));
        softmax_backward(policy, p, scale, at_probabilities, probabilities);
        if (others)
            key_bias_backward(policy, p, offsets, probabilities, scale, others->key_bias, memory);
        policy.multiply(p.square<const T>(probabilities), queries.of<const T>(k), queries.of(out));
        give(queries, gradient.q);
        policy.multiply(p.transposed_square<const T>(probabilities), queries.of<const T>(q),
                        queries.of(out));
        give(queries, gradient.k);
    });
}

} // namespace encoder::device
