#include "check.hpp"
#include "network_state.hpp"

namespace encoder {
namespace {

/// dx = dy W: a layer with the transposed weight and no bias.
linear pack_transposed(const matrix& weight) {
    return {weight.transpose(), vector()};
}

/// Gradient at the rows of the last layer's output, from that at the embeddings.
void pool_backward(const model& m, const batch& b, const matrix& pooled, const matrix& embeddings,
                   const matrix& gradient, float* to) {
    Eigen::Map<matrix> rows(to, b.tokens(), m.config.hidden);
    pare::openmp{}.run(b.sequences(), [&](Index s, Index) {
        const Index first = b.offsets[static_cast<std::size_t>(s)];
        const Index n = b.offsets[static_cast<std::size_t>(s) + 1] - first;
        const auto e = embeddings.row(s), g = gradient.row(s);
        const float length = std::max(pooled.row(s).norm(), shortest_length);
        auto tokens = rows.middleRows(first, n);
        tokens.setZero();
        tokens.row(0) = (g - e * e.dot(g)) / length;
        if (m.config.pooling == pooling::cls) return;
        tokens.row(0) /= static_cast<float>(n);
        for (Index t = 1; t < n; ++t) tokens.row(t) = tokens.row(0);
    });
}

} // namespace

void network::backward(const batch& b, const std::function<void(const matrix&, matrix&)>& loss,
                       const visitor& visit) {
    state& s = *state_;
    const encoder::model& m = s.model;
    check(b, m.config);
    const Index tokens = b.tokens(), d = s.hidden();
    const float epsilon = m.config.layer_norm_epsilon;
    if (s.transposed.empty())
        for (const layer& y : m.layers)
            s.transposed.push_back({pack_transposed(stack_projections(y).weight),
                                    pack_transposed(y.attention_output.weight),
                                    pack_transposed(y.intermediate.weight),
                                    pack_transposed(y.output.weight)});

    state::remaining all;
    const float* const last = s.run_layers(b, true, all, nullptr);
    const matrix pooled = s.pooled(last, b.offsets), embeddings = unit_length(pooled);
    matrix gradient = matrix::Zero(embeddings.rows(), embeddings.cols());
    loss(embeddings, gradient);
    check_shape("gradient", gradient, embeddings.rows(), embeddings.cols());

    // From here on, the residual stream's place holds the gradient at it.
    float *const stream = s.stream.get<float>(tokens * d), *const blocks = s.get_wide();
    pool_backward(m, b, pooled, embeddings, gradient, stream);
    for (std::size_t l = s.depth(); l-- > 0;) {
        const layer& y = m.layers[l];
        record& r = s.records[l];
        const Index n = s.filters(l), columns = s.context_columns(l);
        const float* const attention_sum = r.attention_sum.get<float>(tokens * d);
        const float* const output_sum = r.output_sum.get<float>(tokens * d);
        const float* const before = r.intermediate.get<float>(tokens * n);

        matrix active(tokens, n), active_gradient(tokens, n);
        for_row_blocks(tokens, [&](Index first, Index rows, Index) {
            float* const g = stream + first * d;
            normalize_backward(y.output_norm, epsilon, rows, output_sum + first * d, g);
            s.transposed[l].output.assign(g, rows, row(active_gradient, first));
            activate(m.config.activation, rows * n, before + first * n, row(active, first));
        });
        visit(l, unit_kind::filter, active, active_gradient);

        matrix context_gradient(tokens, columns);
        for_row_blocks(tokens, [&](Index first, Index rows, Index slot) {
            float *const g = stream + first * d, *const block = blocks + slot * s.wide_size();
            activate_backward(m.config.activation, rows * n, before + first * n,
                              row(active_gradient, first), block);
            s.transposed[l].intermediate.add(block, rows, g);
            normalize_backward(y.attention_norm, epsilon, rows, attention_sum + first * d, g);
            s.transposed[l].attention_output.assign(g, rows, row(context_gradient, first));
        });
        visit(l, unit_kind::head, r.context, context_gradient);
        if (l == 0) break; // nothing below is masked

        const Index size = m.config.head_size;
        float* const q = s.qkv.get<float>(tokens * 3 * columns);
        attention_backward(
            s.by_head<const float>(l, r.qkv.get<float>(tokens * 3 * columns), tokens), b.offsets,
            r.context.data(), context_gradient.data(),
            {q, q + columns, q + 2 * columns, s.heads(l), size, 3 * columns, size},
            s.attention_scratch);
        for_row_blocks(tokens, [&](Index first, Index rows, Index) {
            s.transposed[l].qkv.add(q + first * 3 * columns, rows, stream + first * d);
        });
    }
}

} // namespace encoder
