#include "llama.hpp"

namespace llama {
namespace {

using decoder::product_backward;
using decoder::unit_rows;

matrix times(const unit_rows& rows, const vector& gain) {
    return rows.x.array().rowwise() * gain.array();
}
/// Adds the gradient at the gain to `found`; returns that at what the norm reads.
matrix times_backward(const unit_rows& rows, const vector& gain, vector* found,
                      const matrix& at_y) {
    if (found) *found += at_y.cwiseProduct(rows.x).colwise().sum();
    return rows.backward(at_y.array().rowwise() * gain.array());
}

float sigmoid(float x) {
    return 1 / (1 + std::exp(-x));
}
float silu(float x) {
    return x * sigmoid(x);
}
float silu_slope(float x) {
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
}

/// Turns each two neighbouring columns of a head by an angle that grows with the token's position,
/// or back, in direction -1.
void rotate(const shape& c, matrix& x, float direction = 1) {
    const index pairs = c.head_size() / 2;
    matrix cosine(c.length, pairs), sine(c.length, pairs);
    for (index t = 0; t < c.length; ++t)
        for (index i = 0; i < pairs; ++i) {
            const float share = static_cast<float>(i) / static_cast<float>(pairs);
            const float angle = static_cast<float>(t) * std::pow(10000.f, -share);
            cosine(t, i) = std::cos(angle);
            sine(t, i) = direction * std::sin(angle);
        }
    for (index t = 0; t < x.rows(); ++t)
        for (index j = 0; j < x.cols(); j += 2) {
            const float a = x(t, j), b = x(t, j + 1);
            const float along = cosine(t % c.length, j / 2 % pairs);
            const float across = sine(t % c.length, j / 2 % pairs);
            x(t, j) = along * a - across * b;
            x(t, j + 1) = across * a + along * b;
        }
}

/// What attention reads: queries and keys are rotated.
struct attention_input {
    matrix q, k, v;

    attention_input(const shape& c, const layer& l, const matrix& x)
        : q(x * l.query.transpose()), k(x * l.key.transpose()), v(x * l.value.transpose()) {
        rotate(c, q);
        rotate(c, k);
    }
    decoder::causal_attention attention(const shape& c) const {
        return {q, k, v, c.length, c.head_size()};
    }
};

/// What a backward pass needs of a layer.
struct record {
    unit_rows in_attention, in_filters;
    attention_input qkv;
    matrix context, gate, up, active;
};

matrix gated(const matrix& gate, const matrix& up) {
    return gate.unaryExpr(&silu).cwiseProduct(up);
}

} // namespace

model make_model(const shape& c, unsigned seed) {
    decoder::first_weights some(seed);
    const vector one = vector::Ones(c.hidden);
    const index keys = c.key_heads * c.head_size();
    const float last = 1 / std::sqrt(2 * static_cast<float>(c.layers));
    model m{c, some(c.vocabulary, c.hidden), {}, one, some(c.vocabulary, c.hidden)};
    for (index l = 0; l < c.layers; ++l)
        m.layers.push_back({one, some(c.hidden, c.hidden), some(keys, c.hidden),
                            some(keys, c.hidden), some(c.hidden, c.hidden, last), one,
                            some(c.filters, c.hidden), some(c.filters, c.hidden),
                            some(c.hidden, c.filters, last)});
    return m;
}

std::vector<decoder::weight_array> weights(model& m) {
    std::vector<decoder::weight_array> all{{m.words, true}, {m.last, false}, {m.head, true}};
    for (layer& l : m.layers) {
        for (matrix* x : {&l.query, &l.key, &l.value, &l.projection, &l.gate, &l.up, &l.down})
            all.emplace_back(*x, true);
        for (vector* x : {&l.before_attention, &l.before_filters}) all.emplace_back(*x, false);
    }
    return all;
}

matrix embed(const model& m, const tokens& ids) {
    matrix x(static_cast<index>(ids.size()), m.config.hidden);
    for (index t = 0; t < x.rows(); ++t) x.row(t) = m.words.row(ids[static_cast<std::size_t>(t)]);
    return x;
}
matrix attend(const model& m, const layer& l, const matrix& x) {
    const attention_input qkv(m.config, l, times(unit_rows(x), l.before_attention));
    return qkv.attention(m.config).contexts();
}
matrix activate(const layer& l, const matrix& x) {
    const matrix h = times(unit_rows(x), l.before_filters);
    return gated(h * l.gate.transpose(), h * l.up.transpose());
}
matrix logits(const model& m, const matrix& x) {
    return times(unit_rows(x), m.last) * m.head.transpose();
}

void backward_pass(const model& m, const tokens& ids, const decoder::logits_gradient& at_logits,
                   model* found, const decoder::visitor& visit) {
    using decoder::add;
    matrix x = embed(m, ids);
    std::vector<record> records;
    for (const layer& l : m.layers) {
        unit_rows in_attention(x);
        attention_input qkv(m.config, l, times(in_attention, l.before_attention));
        matrix context = qkv.attention(m.config).contexts();
        add(l.projection, context, x);
        unit_rows in_filters(x);
        const matrix h = times(in_filters, l.before_filters);
        matrix gate = h * l.gate.transpose(), up = h * l.up.transpose();
        matrix active = gated(gate, up);
        add(l.down, active, x);
        records.push_back({std::move(in_attention), std::move(in_filters), std::move(qkv),
                           std::move(context), std::move(gate), std::move(up), std::move(active)});
    }
    const unit_rows in_last(x);
    const matrix last = times(in_last, m.last);
    const matrix at = at_logits(last * m.head.transpose());
    matrix at_x =
        times_backward(in_last, m.last, found ? &found->last : nullptr,
                       product_backward(m.head, found ? &found->head : nullptr, last, at));
    for (index i = static_cast<index>(m.layers.size()); i-- > 0;) {
        const auto l = static_cast<std::size_t>(i);
        const layer& w = m.layers[l];
        layer* const to = found ? &found->layers[l] : nullptr;
        const record& r = records[l];
        matrix at_units = product_backward(w.down, to ? &to->down : nullptr, r.active, at_x);
        if (visit) visit(2 * i + 1, r.active, at_units, at_x);
        const matrix in_filters = times(r.in_filters, w.before_filters);
        const matrix at_up = at_units.cwiseProduct(r.gate.unaryExpr(&silu));
        const matrix at_gate =
            at_units.cwiseProduct(r.up).cwiseProduct(r.gate.unaryExpr(&silu_slope));
        at_x +=
            times_backward(r.in_filters, w.before_filters, to ? &to->before_filters : nullptr,
                           product_backward(w.gate, to ? &to->gate : nullptr, in_filters, at_gate) +
                               product_backward(w.up, to ? &to->up : nullptr, in_filters, at_up));
        at_units = product_backward(w.projection, to ? &to->projection : nullptr, r.context, at_x);
        if (visit) visit(2 * i, r.context, at_units, at_x);
        const matrix in_attention = times(r.in_attention, w.before_attention);
        matrix at_q = r.qkv.q, at_k = r.qkv.k, at_v = r.qkv.v; // in shape
        r.qkv.attention(m.config).backward(at_units, at_q, at_k, at_v);
        rotate(m.config, at_q, -1);
        rotate(m.config, at_k, -1);
        at_x += times_backward(
            r.in_attention, w.before_attention, to ? &to->before_attention : nullptr,
            product_backward(w.query, to ? &to->query : nullptr, in_attention, at_q) +
                product_backward(w.key, to ? &to->key : nullptr, in_attention, at_k) +
                product_backward(w.value, to ? &to->value : nullptr, in_attention, at_v));
    }
    if (!found) return;
    for (index t = 0; t < at_x.rows(); ++t)
        found->words.row(ids[static_cast<std::size_t>(t)]) += at_x.row(t);
}

} // namespace llama
