#include "gpt.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace gpt {
namespace {

/// f(array of each model, whether it decays) for all weights, the same array of all models at once.
template <class F, class First, class... Models>
void for_weights(const F& f, First& m, Models&... others) {
    f(true, m.words, others.words...);
    f(true, m.positions, others.positions...);
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const auto both = [&](auto part) {
            f(true, (m.layers[l].*part).weight, (others.layers[l].*part).weight...);
            f(false, (m.layers[l].*part).bias, (others.layers[l].*part).bias...);
        };
        const auto of_norm = [&](auto part) {
            f(false, (m.layers[l].*part).gain, (others.layers[l].*part).gain...);
            f(false, (m.layers[l].*part).bias, (others.layers[l].*part).bias...);
        };
        of_norm(&layer::before_attention);
        both(&layer::qkv);
        both(&layer::projection);
        of_norm(&layer::before_filters);
        both(&layer::up);
        both(&layer::down);
    }
    f(false, m.last.gain, others.last.gain...);
    f(false, m.last.bias, others.last.bias...);
}

model zeros_like(const model& m) {
    model z = m;
    for_weights([](bool, auto& x) { x.setZero(); }, z);
    return z;
}

matrix times(const linear& l, const Eigen::Ref<const matrix>& x) {
    matrix y = x * l.weight.transpose();
    y.rowwise() += l.bias;
    return y;
}
/// Adds the gradients at weight and bias to `found`; returns that at x.
matrix times_backward(const linear& l, linear* found, const matrix& x, const matrix& at_y) {
    if (found) {
        found->weight.noalias() += at_y.transpose() * x;
        found->bias += at_y.colwise().sum();
    }
    return at_y * l.weight;
}

/// x with mean 0 and variance 1 in each row, and what it was divided by.
struct normal_rows {
    matrix x;
    Eigen::VectorXf scale;

    explicit normal_rows(const matrix& from) : x(from) {
        x.colwise() -= from.rowwise().mean();
        scale = (x.rowwise().squaredNorm() / static_cast<float>(x.cols())).array() + 1e-5f;
        scale = scale.array().rsqrt();
        x.array().colwise() *= scale.array();
    }
    matrix times(const norm& n) const {
        return (x.array().rowwise() * n.gain.array()).rowwise() + n.bias.array();
    }
    matrix backward(const norm& n, norm* found, const matrix& at_y) const {
        if (found) {
            found->gain += (at_y.array() * x.array()).matrix().colwise().sum();
            found->bias += at_y.colwise().sum();
        }
        matrix at_x = at_y.array().rowwise() * n.gain.array();
        const Eigen::VectorXf along = at_x.cwiseProduct(x).rowwise().mean();
        const Eigen::VectorXf mean = at_x.rowwise().mean();
        at_x.colwise() -= mean;
        at_x -= (x.array().colwise() * along.array()).matrix();
        at_x.array().colwise() *= scale.array();
        return at_x;
    }
};

float gelu(float x) {
    return 0.5f * x * (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
}
float gelu_slope(float x) {
    const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 0.134145f * x * x);
}

/// f(first token, first column) of each head of each sequence, in parallel.
template <class F>
void for_heads(const model& m, const layer& l, index rows, const F& f) {
    const index heads = l.projection.weight.cols() / m.config.head_size();
    const index all = rows / m.config.length * heads;
#pragma omp parallel for
    for (index i = 0; i < all; ++i)
        f(i / heads * m.config.length, i % heads * m.config.head_size());
}

/// Probabilities of one head of one sequence.
matrix attention_of(const model& m, const matrix& qkv, index row, index column) {
    const index n = m.config.length, size = m.config.head_size(), width = qkv.cols() / 3;
    matrix p =
        qkv.block(row, column, n, size) * qkv.block(row, width + column, n, size).transpose();
    for (index i = 0; i < n; ++i) {
        auto seen = p.row(i).head(i + 1).array();
        seen *= 1 / std::sqrt(static_cast<float>(size));
        seen = (seen - seen.maxCoeff()).exp();
        seen /= seen.sum();
        p.row(i).tail(n - i - 1).setZero();
    }
    return p;
}

matrix contexts(const model& m, const layer& l, const matrix& qkv) {
    const index n = m.config.length, size = m.config.head_size(), width = qkv.cols() / 3;
    matrix out(qkv.rows(), width);
    for_heads(m, l, qkv.rows(), [&](index row, index column) {
        out.block(row, column, n, size).noalias() =
            attention_of(m, qkv, row, column) * qkv.block(row, 2 * width + column, n, size);
    });
    return out;
}

matrix contexts_backward(const model& m, const layer& l, const matrix& qkv, const matrix& at_out) {
    const index n = m.config.length, size = m.config.head_size(), width = qkv.cols() / 3;
    matrix at(qkv.rows(), qkv.cols());
    for_heads(m, l, qkv.rows(), [&](index row, index column) {
        const matrix p = attention_of(m, qkv, row, column);
        const auto of = [&](index part, auto& x) {
            return x.block(row, part * width + column, n, size);
        };
        const matrix at_context = at_out.block(row, column, n, size);
        of(2, at).noalias() = p.transpose() * at_context;
        matrix at_logits = at_context * of(2, qkv).transpose();
        const Eigen::VectorXf sums = at_logits.cwiseProduct(p).rowwise().sum();
        at_logits.colwise() -= sums;
        at_logits.array() *= p.array() / std::sqrt(static_cast<float>(size));
        of(0, at).noalias() = at_logits * of(1, qkv);
        of(1, at).noalias() = at_logits.transpose() * of(0, qkv);
    });
    return at;
}

/// What a backward pass needs of a layer.
struct record {
    normal_rows in_attention, in_filters;
    matrix qkv, context, before, active;
};

} // namespace

model make_model(const shape& c, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.02f);
    const auto some = [&](index rows, index columns, float scale = 1) {
        return matrix(matrix::NullaryExpr(rows, columns, [&] { return scale * normal(random); }));
    };
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

matrix embed(const model& m, const tokens& ids) {
    matrix x(static_cast<index>(ids.size()), m.config.hidden);
    for (index t = 0; t < x.rows(); ++t)
        x.row(t) =
            m.words.row(ids[static_cast<std::size_t>(t)]) + m.positions.row(t % m.config.length);
    return x;
}
matrix attend(const model& m, const layer& l, const matrix& x) {
    return contexts(m, l, times(l.qkv, normal_rows(x).times(l.before_attention)));
}
matrix activate(const layer& l, const matrix& x) {
    return times(l.up, normal_rows(x).times(l.before_filters)).unaryExpr(&gelu);
}
void add(const linear& reader, const Eigen::Ref<const matrix>& units, matrix& x) {
    x += times(reader, units);
}
matrix logits(const model& m, const matrix& x) {
    return normal_rows(x).times(m.last) * m.words.transpose();
}

namespace {

/// -log p(next) of each row, and p in its place.
double softmax(matrix& x, const tokens& next) {
    double sum = 0;
    for (index t = 0; t < x.rows(); ++t) {
        auto row = x.row(t).array();
        row = (row - row.maxCoeff()).exp();
        row /= row.sum();
        sum -= std::log(std::max(row(next[static_cast<std::size_t>(t)]), 1e-30f));
    }
    return sum;
}

} // namespace

double loss(const model& m, const tokens& ids, const tokens& next) {
    double sum = 0;
    const auto each = static_cast<std::size_t>(16 * m.config.length);
    for (std::size_t first = 0; first < ids.size(); first += each) {
        const auto part = [&](const tokens& of) {
            return tokens(of.begin() + static_cast<std::ptrdiff_t>(first),
                          of.begin() +
                              static_cast<std::ptrdiff_t>(std::min(of.size(), first + each)));
        };
        matrix x = embed(m, part(ids));
        for (const layer& l : m.layers) {
            add(l.projection, attend(m, l, x), x);
            add(l.down, activate(l, x), x);
        }
        matrix p = logits(m, x);
        sum += softmax(p, part(next));
    }
    return sum / static_cast<double>(ids.size());
}

void backward(const model& m, const tokens& ids, const logits_gradient& at_logits, model* found,
              const visitor& visit) {
    matrix x = embed(m, ids);
    std::vector<record> records;
    for (const layer& l : m.layers) {
        normal_rows in_attention(x);
        matrix qkv = times(l.qkv, in_attention.times(l.before_attention));
        matrix context = contexts(m, l, qkv);
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
        if (visit) visit(i, sublayer::filters, r.active, at_units, at_x);
        at_units.array() *= r.before.unaryExpr(&gelu_slope).array();
        at_x +=
            r.in_filters.backward(w.before_filters, to ? &to->before_filters : nullptr,
                                  times_backward(w.up, to ? &to->up : nullptr,
                                                 r.in_filters.times(w.before_filters), at_units));
        at_units = times_backward(w.projection, to ? &to->projection : nullptr, r.context, at_x);
        if (visit) visit(i, sublayer::attention, r.context, at_units, at_x);
        at_x += r.in_attention.backward(w.before_attention, to ? &to->before_attention : nullptr,
                                        times_backward(w.qkv, to ? &to->qkv : nullptr,
                                                       r.in_attention.times(w.before_attention),
                                                       contexts_backward(m, w, r.qkv, at_units)));
    }
    if (!found) return;
    for (index t = 0; t < at_x.rows(); ++t) {
        found->words.row(ids[static_cast<std::size_t>(t)]) += at_x.row(t);
        found->positions.row(t % m.config.length) += at_x.row(t);
    }
}

void train(model& m, const tokens& text, int steps, unsigned seed) {
    constexpr int sequences = 16, warm_up = 20;
    constexpr float rate = 3e-3f, first = 0.9f, second = 0.99f, decay = 0.1f;
    std::mt19937 random(seed);
    const auto n = static_cast<std::size_t>(m.config.length);
    std::uniform_int_distribution<std::size_t> place(0, text.size() - n - 1);
    model gradient = zeros_like(m), mean = gradient, square = gradient;
    for (int step = 1; step <= steps; ++step) {
        tokens ids, next;
        for (int s = 0; s < sequences; ++s) {
            const auto at = text.begin() + static_cast<std::ptrdiff_t>(place(random));
            ids.insert(ids.end(), at, at + static_cast<std::ptrdiff_t>(n));
            next.insert(next.end(), at + 1, at + 1 + static_cast<std::ptrdiff_t>(n));
        }
        for_weights([](bool, auto& x) { x.setZero(); }, gradient);
        backward(
            m, ids,
            [&](matrix p) {
                softmax(p, next);
                for (index t = 0; t < p.rows(); ++t) p(t, next[static_cast<std::size_t>(t)]) -= 1;
                return matrix(p / static_cast<float>(p.rows()));
            },
            &gradient, nullptr);
        double norm = 0;
        for_weights([&](bool, auto& g) { norm += static_cast<double>(g.squaredNorm()); }, gradient);
        const float clip = std::min(1.f, 1 / static_cast<float>(std::sqrt(norm)));
        const float progress = static_cast<float>(step) / static_cast<float>(steps);
        const float speed = rate * std::min(1.f, static_cast<float>(step) / warm_up) *
                            (0.05f + 0.95f * 0.5f * (1 + std::cos(3.14159265f * progress)));
        const auto corrected = [&](float share) {
            return 1 / (1 - std::pow(share, static_cast<float>(step)));
        };
        for_weights(
            [&](bool decays, auto& x, auto& g, auto& v, auto& s) {
                g *= clip;
                v = first * v + (1 - first) * g;
                s = second * s + (1 - second) * g.cwiseAbs2();
                if (decays) x *= 1 - speed * decay;
                x.array() -= speed * corrected(first) * v.array() /
                             ((corrected(second) * s.array()).sqrt() + 1e-8f);
            },
            m, gradient, mean, square);
    }
}

} // namespace gpt
