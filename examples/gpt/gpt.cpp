#include "gpt.hpp"

namespace gpt {
namespace {

matrix times(const linear& l, const matrix& x) {
    matrix y = x * l.weight.transpose();
    y.rowwise() += l.bias;
    return y;
}
/// Adds the gradients at weight and bias to `found`; returns that at x.
matrix times_backward(const linear& l, linear* found, const matrix& x, const matrix& at_y) {
    if (found) found->bias += at_y.colwise().sum();
    return decoder::product_backward(l.weight, found ? &found->weight : nullptr, x, at_y);
}

/// x with mean 0 and variance 1 in each row.
struct normal_rows {
    decoder::unit_rows rows;

    explicit normal_rows(const matrix& from) : rows(centred(from)) {}
    matrix times(const norm& n) const {
        return (rows.x.array().rowwise() * n.gain.array()).rowwise() + n.bias.array();
    }
    matrix backward(const norm& n, norm* found, const matrix& at_y) const {
        if (found) {
            found->gain += (at_y.array() * rows.x.array()).matrix().colwise().sum();
            found->bias += at_y.colwise().sum();
        }
        return centred(rows.backward(at_y.array().rowwise() * n.gain.array()));
    }

  private:
    static matrix centred(matrix x) {
        const Eigen::VectorXf mean = x.rowwise().mean();
        x.colwise() -= mean;
        return x;
    }
};

float gelu(float x) {
    return 0.5f * x * (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
}
float gelu_slope(float x) {
    const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 0.134145f * x * x);
}

decoder::causal_attention attention(const model& m, const matrix& qkv) {
    const index width = qkv.cols() / 3;
    return {qkv.leftCols(width), qkv.middleCols(width, width), qkv.rightCols(width),
            m.config.length, m.config.head_size()};
}

/// What a backward pass needs of a layer.
struct record {
    normal_rows in_attention, in_filters;
    matrix qkv, context, before, active;
};

} // namespace

model make_model(const shape& c, unsigned seed) {
    decoder::first_weights some(seed);
    const norm one{vector::Ones(c.hidden), vector::Zero(c.hidden)};
    const float last = 1 / std::sqrt(2 * static_cast<float>(c.layers));
    model m{c, some(c.vocabulary, c.hidden), some(c.length, c.hidden), {}, one};
    for (index l = 0; l < c.layers; ++l)
        m.layers.push_back({one,
                            {some(3 * c.hidden, c.hidden), vector::Zero(3 * c.hidden)},
                            {some(c.hidden, c.hidden, last), vector::Zero(c.hidden)},
                            one,
                            {some(c.filters, c.hidden), vector::Zero(c.filters)},
                            {some(c.hidden, c.filters, last), vector::Zero(c.hidden)}});
    return m;
}

std::vector<decoder::weight_array> weights(model& m) {
    std::vector<decoder::weight_array> all{{m.words, true}, {m.positions, true}};
    const auto add_norm = [&](norm& n) {
        all.emplace_back(n.gain, false);
        all.emplace_back(n.bias, false);
    };
    for (layer& l : m.layers) {
        add_norm(l.before_attention);
        add_norm(l.before_filters);
        for (linear* of : {&l.qkv, &l.projection, &l.up, &l.down}) {
            all.emplace_back(of->weight, true);
            all.emplace_back(of->bias, false);
        }
    }
    add_norm(m.last);
    return all;
}

matrix embed(const model& m, const tokens& ids) {
    matrix x(static_cast<index>(ids.size()), m.config.hidden);
    for (index t = 0; t < x.rows(); ++t)
        x.row(t) =
            m.words.row(ids[static_cast<std::size_t>(t)]) + m.positions.row(t % m.config.length);
    return x;
}
matrix attend(const model& m, const layer& l, const matrix& x) {
    const matrix qkv = times(l.qkv, normal_rows(x).times(l.before_attention));
    return attention(m, qkv).contexts();
}
matrix activate(const layer& l, const matrix& x) {
    return times(l.up, normal_rows(x).times(l.before_filters)).unaryExpr(&gelu);
}
void add(const linear& reader, const block& units, matrix& x) {
    decoder::add(reader.weight, units, x);
    x.rowwise() += reader.bias;
}
matrix logits(const model& m, const matrix& x) {
    return normal_rows(x).times(m.last) * m.words.transpose();
}

void backward_pass(const model& m, const tokens& ids, const decoder::logits_gradient& at_logits,
                   model* found, const decoder::visitor& visit) {
    matrix x = embed(m, ids);
    std::vector<record> records;
    for (const layer& l : m.layers) {
        normal_rows in_attention(x);
        matrix qkv = times(l.qkv, in_attention.times(l.before_attention));
        matrix context = attention(m, qkv).contexts();
        add(l.projection, context, x);
        normal_rows in_filters(x);
        matrix before = times(l.up, in_filters.times(l.before_filters));
        matrix active = before.unaryExpr(&gelu);
        add(l.down, active, x);
        records.push_back({std::move(in_attention), std::move(in_filters), std::move(qkv),
                           std::move(context), std::move(before), std::move(active)});
    }
    const normal_rows in_last(x);
    const matrix h = in_last.times(m.last);
    const matrix at = at_logits(h * m.words.transpose());
    if (found) found->words.noalias() += at.transpose() * h;
    matrix at_x = in_last.backward(m.last, found ? &found->last : nullptr, at * m.words);
    for (index i = static_cast<index>(m.layers.size()); i-- > 0;) {
        const auto l = static_cast<std::size_t>(i);
        const layer& w = m.layers[l];
        layer* const to = found ? &found->layers[l] : nullptr;
        const record& r = records[l];
        matrix at_units = times_backward(w.down, to ? &to->down : nullptr, r.active, at_x);
        if (visit) visit(2 * i + 1, r.active, at_units, at_x);
        at_units.array() *= r.before.unaryExpr(&gelu_slope).array();
        at_x +=
            r.in_filters.backward(w.before_filters, to ? &to->before_filters : nullptr,
                                  times_backward(w.up, to ? &to->up : nullptr,
                                                 r.in_filters.times(w.before_filters), at_units));
        at_units = times_backward(w.projection, to ? &to->projection : nullptr, r.context, at_x);
        if (visit) visit(2 * i, r.context, at_units, at_x);
        matrix at_qkv(r.qkv.rows(), r.qkv.cols());
        const index width = at_qkv.cols() / 3;
        attention(m, r.qkv).backward(at_units, at_qkv.leftCols(width),
                                     at_qkv.middleCols(width, width), at_qkv.rightCols(width));
        at_x += r.in_attention.backward(w.before_attention, to ? &to->before_attention : nullptr,
                                        times_backward(w.qkv, to ? &to->qkv : nullptr,
                                                       r.in_attention.times(w.before_attention),
                                                       at_qkv));
    }
    if (!found) return;
    for (index t = 0; t < at_x.rows(); ++t) {
        found->words.row(ids[static_cast<std::size_t>(t)]) += at_x.row(t);
        found->positions.row(t % m.config.length) += at_x.row(t);
    }
}

} // namespace gpt
