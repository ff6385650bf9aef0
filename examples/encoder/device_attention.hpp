// Softmax attention by batched products of matrices, in the memory of a Thrust policy: on a GPU by
// cuBLAS, for the price of an array of queries x keys.
#pragma once

#include "device_rows.hpp"

#include <pare/importance.hpp>

#include <algorithm>
#include <limits>

namespace encoder::device {

/// Sequences first ... end - 1 of a batch, whose heads' rows lie padded to the longest one's
/// length: element e of token i of head h of sequence s is at ((s - first) * heads + h) * length +
/// i) * size + e.
struct padded_heads {
    index_t first, end, length, heads, size;

    index_t matrices() const { return (end - first) * heads; }
    index_t rows() const { return matrices() * length; }
    template <class T>
    view<T, 3> of(T* x) const { ///< [heads of all sequences x length x size]
        return view<T, 3>(x, matrices(), length, size);
    }
    template <class T>
    view<T, 3> transposed(T* x) const {
        return {x, {matrices(), size, length}, {length * size, 1, size}};
    }
    template <class T>
    view<T, 3> square(T* x) const { ///< queries x keys
        return view<T, 3>(x, matrices(), length, length);
    }
    template <class T>
    view<T, 3> transposed_square(T* x) const {
        return {x, {matrices(), length, length}, {length * length, 1, length}};
    }
};

/// f(padded_heads) for groups of sequences that have at most so many queries x keys in all heads,
/// or are one.
template <class Policy, class F>
void for_groups(const sequences<Policy>& batch, index_t heads, index_t size, const F& f) {
    constexpr index_t most = index_t{1} << 26;
    for (index_t first = 0, end; first < batch.count(); first = end) {
        index_t longest = 0;
        for (end = first; end < batch.count(); ++end) {
            const index_t n = std::max(longest, batch.length(end));
            if (end > first && (end + 1 - first) * heads * n * n > most) break;
            longest = n;
        }
        f(padded_heads{first, end, longest, heads, size});
    }
}

/// Rows of each token's heads [tokens x heads * size], of which `stride` elements lie between
/// tokens, to padded ones; zeros beyond the sequences' ends. A bias [heads * size], or null, is
/// added.
template <class Policy, class T>
void pad(const Policy& policy, const padded_heads& p, const std::int64_t* offsets, const T* rows,
         index_t stride, const float* bias, T* padded) {
    for_elements(policy, p.rows(), p.size, [=] PARE_HD(index_t row, index_t e) {
        const index_t i = row % p.length, h = row / p.length % p.heads;
        const index_t s = p.first + row / (p.length * p.heads), t = offsets[s] + i;
        const index_t c = h * p.size + e;
        float value = 0;
        if (t < offsets[s + 1])
            value = static_cast<float>(rows[t * stride + c]) + (bias ? bias[c] : 0.f);
        padded[row * p.size + e] = static_cast<T>(value);
    });
}

/// The way back, times a mask [heads * size] or, if that is null, 1.
template <class Policy, class T>
void unpad(const Policy& policy, const padded_heads& p, const std::int64_t* offsets,
           const T* padded, const float* mask, T* rows, index_t stride) {
    for_elements(policy, p.rows(), p.size, [=] PARE_HD(index_t row, index_t e) {
        const index_t i = row % p.length, h = row / p.length % p.heads;
        const index_t s = p.first + row / (p.length * p.heads), t = offsets[s] + i;
        if (t >= offsets[s + 1]) return;
        const index_t c = h * p.size + e;
        const float value = static_cast<float>(padded[row * p.size + e]);
        rows[t * stride + c] = static_cast<T>(mask ? value * mask[c] : value);
    });
}

/// Rows of probabilities p = softmax(scale * logits), each over its sequence's keys; zeros beyond
/// them and in the rows beyond the sequence's end.
template <class Policy, class T>
void softmax(const Policy& policy, const padded_heads& h, const std::int64_t* offsets, float scale,
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

/// What attention keeps between its steps; memory that is used again.
template <class T, class Policy>
struct attention_memory {
    buffer<T, Policy> q, k, v, out, probabilities, at_context;
    buffer<float, Policy> logits, scores;
    buffer<std::int64_t, Policy> lengths;
};

/// Queries, keys, values and probabilities of a group of sequences, from rows of all three
/// [tokens x 3 * heads * size] to which `bias` has yet to be added.
template <class Policy, class T>
void attend(const Policy& policy, const padded_heads& p, const std::int64_t* offsets,
            const T* projected, const float* bias, attention_memory<T, Policy>& memory) {
    const index_t columns = p.heads * p.size, size = p.rows() * p.size;
    T* const parts[] = {memory.q.get(policy, size), memory.k.get(policy, size),
                        memory.v.get(policy, size)};
    for (index_t i = 0; i < 3; ++i)
        pad(policy, p, offsets, projected + i * columns, 3 * columns, bias + i * columns, parts[i]);
    float* const logits = memory.logits.get(policy, p.rows() * p.length);
    T* const probabilities = memory.probabilities.get(policy, p.rows() * p.length);
    policy.multiply(p.of<const T>(parts[0]), p.transposed<const T>(parts[1]), p.square(logits));
    const float scale = 1 / std::sqrt(static_cast<float>(p.size));
    softmax(policy, p, offsets, scale, logits, probabilities);
}

/// context [tokens x heads * size] = the heads' outputs, times a mask [heads * size] or null; and
/// `scores` [tokens], or null: the tokens' importance on that scale.
template <class Policy, class T>
void attention_forward(const Policy& policy, const sequences<Policy>& batch, index_t heads,
                       index_t size, const T* projected, const float* bias, const float* mask,
                       T* context, float* scores, pare::score_scale scale,
                       attention_memory<T, Policy>& memory) {
    if (heads == 0) return;
    const std::int64_t* const offsets = batch.there().data_handle();
    for_groups(batch, heads, size, [&](const padded_heads& p) {
        attend(policy, p, offsets, projected, bias, memory);
        const index_t count = p.end - p.first, n = p.length, first = p.first;
        T* const out = memory.out.get(policy, p.rows() * size);
        policy.multiply(p.square<const T>(memory.probabilities.data()),
                        p.of<const T>(memory.v.data()), p.of(out));
        unpad(policy, p, offsets, out, mask, context, heads * size);
        if (!scores) return;
        std::int64_t* const lengths = memory.lengths.get(policy, count);
        float* const padded = memory.scores.get(policy, count * n);
        policy.for_each(count, [=] PARE_HD(index_t s) {
            lengths[s] = offsets[first + s + 1] - offsets[first + s];
        });
        pare::importance_options options;
        options.scale = scale;
        pare::importance(policy, view<const T, 4>(memory.probabilities.data(), count, heads, n, n),
                         view<const std::int64_t, 1>(lengths, count),
                         view<float, 2>(padded, count, n), options);
        policy.for_each(count * n, [=] PARE_HD(index_t at) {
            const index_t s = at / n, i = at % n;
            if (i < lengths[s]) scores[offsets[first + s] + i] = padded[at];
        });
    });
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

/// The gradient at the projections [tokens x 3 * heads * size] from that at the context [tokens x
/// heads * size]. Probabilities are computed again.
template <class Policy, class T>
void attention_backward(const Policy& policy, const sequences<Policy>& batch, index_t heads,
                        index_t size, const T* projected, const float* bias,
                        const T* context_gradient, T* gradient,
                        attention_memory<T, Policy>& memory) {
    if (heads == 0) return;
    const std::int64_t* const offsets = batch.there().data_handle();
    const index_t columns = heads * size;
    for_groups(batch, heads, size, [&](const padded_heads& p) {
        attend(policy, p, offsets, projected, bias, memory);
        const T *const q = memory.q.data(), *const k = memory.k.data(), *const v = memory.v.data();
        T* const probabilities = memory.probabilities.data();
        T* const at_context = memory.at_context.get(policy, p.rows() * size);
        T* const out = memory.out.get(policy, p.rows() * size);
        float* const at_probabilities = memory.logits.data();
        pad(policy, p, offsets, context_gradient, columns, nullptr, at_context);
        const auto give = [&](index_t part) {
            unpad(policy, p, offsets, out, nullptr, gradient + part * columns, 3 * columns);
        };
        policy.multiply(p.transposed_square<const T>(probabilities), p.of<const T>(at_context),
                        p.of(out));
        give(2);
        policy.multiply(p.of<const T>(at_context), p.transposed<const T>(v),
                        p.square(at_probabilities));
        const float scale = 1 / std::sqrt(static_cast<float>(size));
        softmax_backward(policy, p, scale, at_probabilities, probabilities);
        policy.multiply(p.square<const T>(probabilities), p.of<const T>(k), p.of(out));
        give(0);
        policy.multiply(p.transposed_square<const T>(probabilities), p.of<const T>(q), p.of(out));
        give(1);
    });
}

} // namespace encoder::device
