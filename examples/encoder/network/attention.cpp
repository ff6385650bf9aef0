#include "attention.hpp"

#include <Eigen/Core>
#include <pare/attention.hpp>
#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cmath>

namespace encoder {
namespace {

using pare::index_t;

index_t longest(const std::vector<std::int64_t>& offsets) {
    std::int64_t n = 0;
    for (std::size_t s = 1; s < offsets.size(); ++s) n = std::max(n, offsets[s] - offsets[s - 1]);
    return static_cast<index_t>(n);
}

} // namespace

void attention_forward(const projections<const float>& in, const std::vector<std::int64_t>& offsets,
                       const fading& soft, const distances& by, float* context,
                       pare::view<float, 1> scores, pare::workspace& scratch) {
    const index_t tokens = offsets.back();
    pare::attention_options<float> options;
    if (soft.key_bias) options.key_bias = {soft.key_bias, tokens};
    if (soft.query_weights) options.query_weights = {soft.query_weights, tokens};
    options.distance_bias = by.bias;
    options.positions = by.positions;
    const auto heads_of = [&](const head_rows<const float>& x) {
        return pare::view<const float, 3>(x.data, {tokens, in.heads, x.size},
                                          {x.token_stride, x.head_stride, 1});
    };
    pare::attention(pare::simd, heads_of(in.q), heads_of(in.k), heads_of(in.v), offsets,
                    pare::view<float, 3>(context, tokens, in.heads, in.v.size), scores, options,
                    scratch);
}

void attention_backward(const projections<const float>& in,
                        const std::vector<std::int64_t>& offsets, const fading& soft,
                        const distances& by, const float* context, const float* context_gradient,
                        const projections<float>& gradient, fading_gradients* others,
                        pare::workspace& scratch) {
    using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using column = Eigen::VectorXf;
    using stride = Eigen::OuterStride<>;
    const index_t d = in.v.size, columns = in.heads * d, longest_n = longest(offsets);
    const index_t tokens = offsets.back();
    const float factor = 1 / std::sqrt(static_cast<float>(in.q.size));
    const pare::openmp threads;
    // The order in which Eigen adds up a row depends on where in a cache line the row begins: for
    // every thread at the same place.
    constexpr index_t line = 16;
    const index_t square = (longest_n * longest_n + line - 1) / line * line;
    const index_t slot_size = 2 * square;
    // What each head adds to the gradients of key biases and of query weights.
    const index_t by_head = others ? in.heads * tokens : 0;
    float* const memory = scratch.get<float>(threads.concurrency() * slot_size + 2 * by_head);
    float* const to_keys = memory + threads.concurrency() * slot_size;
    float* const to_queries = to_keys + by_head;

    threads.run((static_cast<index_t>(offsets.size()) - 1) * in.heads, [&](index_t index,
                                                                           index_t slot) {
        const auto s = static_cast<std::size_t>(index / in.heads);
        const index_t head = index % in.heads, begin = offsets[s], n = offsets[s + 1] - begin;
        const auto input = [&](const head_rows<const float>& x) {
            return Eigen::Map<const row_major, 0, stride>(x.data + begin * x.token_stride +
                                                              head * x.head_stride,
                                                          n, x.size, stride(x.token_stride));
        };
        const auto result = [&](const head_rows<float>& x) {
            return Eigen::Map<row_major, 0, stride>(x.data + begin * x.token_stride +
                                                        head * x.head_stride,
                                                    n, x.size, stride(x.token_stride));
        };
        const auto output = [&](const float* x) {
            return Eigen::Map<const row_major, 0, stride>(x + begin * columns + head * d, n, d,
                                                          stride(columns));
        };
        const auto of_tokens = [&](const float* x) {
            return Eigen::Map<const column>(x + begin, n);
        };
        const auto q = input(in.q), k = input(in.k), v = input(in.v);
        const auto y = output(context), dy = output(context_gradient);

        Eigen::Map<row_major> p(memory + slot * slot_size, n, n), ds(p.data() + square, n, n);
        p.noalias() = factor * q * k.transpose();
        if (soft.key_bias) p.rowwise() += of_tokens(soft.key_bias).transpose();
        const bool moved = by.positions.extent(0) > 0;
        if (const index_t most = by.bias.extent(1) / 2; most > 0)
            for (index_t i = 0; i < n; ++i)
                for (index_t j = 0; j < n; ++j) {
                    const index_t distance =
                        moved ? by.positions(begin + j) - by.positions(begin + i) : j - i;
                    p(i, j) += by.bias(head, most + std::clamp(distance, -most, most));
                }
        p = (p.colwise() - p.rowwise().maxCoeff().eval()).array().exp();
        p.array().colwise() /= p.rowwise().sum().array().eval();

        result(gradient.v).noalias() = p.transpose() * dy;
        // The gradient of the logits is p (dp - sum_j p dp), and that sum is <y, dy> for the part
        // of dp that comes from the context.
        ds.noalias() = dy * v.transpose();
        column sums = (y.array() * dy.array()).rowwise().sum();
        if (others) { // scores_j = sum over queries i and heads of weight_i p_ij / heads
            const column by_score = of_tokens(others->scores.data()) / static_cast<float>(in.heads);
            const auto weights = of_tokens(soft.query_weights);
            const column of_weight = p * by_score;
            ds.noalias() += weights * by_score.transpose();
            sums.array() += weights.array() * of_weight.array();
            Eigen::Map<column>(to_queries + head * tokens + begin, n) = of_weight;
        }
        ds.colwise() -= sums;
        ds.array() *= p.array();
        if (others) Eigen::Map<column>(to_keys + head * tokens + begin, n) = ds.colwise().sum();
        ds *= factor;
        result(gradient.q).noalias() = ds * k;
        result(gradient.k).noalias() = ds.transpose() * q;
    });
    if (!others) return;
    const auto sum_heads = [&](const float* from, std::vector<float>& to) {
        to.assign(static_cast<std::size_t>(tokens), 0.f);
        for (index_t head = 0; head < in.heads; ++head) // one after another, wherever `to` is
            Eigen::Map<column>(to.data(), tokens) +=
                Eigen::Map<const column>(from + head * tokens, tokens);
    };
    sum_heads(to_keys, others->key_bias);
    sum_heads(to_queries, others->query_weights);
}

} // namespace encoder
