// What small decoders have in common: norms without their weights, causal attention, the loss, and
// how they learn. A model has
//
//     config.length                     tokens of a sequence
//     layers                            each with `projection` and `down`, which read its units
//     embed(m, ids)                     the residual stream [tokens x hidden]
//     attend(m, layer, x)               contexts of all heads [tokens x heads * head size]
//     activate(layer, x)                values of the FFN's filters [tokens x filters]
//     add(reader, units, x)             x += what the reader makes of them
//     logits(m, x)
//     backward_pass(m, ids, at_logits, found, visit)
//                                       and a forward pass: adds the gradients at all weights to
//                                       `found` and calls `visit`, the last sublayer first, unless
//                                       they are null
//     weights(m)                        all of them
#pragma once

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <utility>
#include <vector>

namespace decoder {

using index = Eigen::Index;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::RowVectorXf;
using block = Eigen::Ref<const matrix>; ///< some columns of a matrix

/// Sequences of one length, one behind another.
using tokens = std::vector<std::uint8_t>;

/// What a backward pass shows of sublayer s, attention (even) or FFN (odd) of layer s / 2: its
/// units' values [tokens x units' columns], the gradient at them, and that at the stream behind it
/// [tokens x hidden].
using visitor =
    std::function<void(index s, const matrix& units, const matrix& at_units, const matrix& at_sum)>;
/// From logits to the gradient at them.
using logits_gradient = std::function<matrix(const matrix& logits)>;

/// Random weights to begin with.
class first_weights {
  public:
    explicit first_weights(unsigned seed) : random_(seed) {}
    matrix operator()(index rows, index columns, float scale = 1) {
        return matrix::NullaryExpr(rows, columns, [&] { return scale * normal_(random_); });
    }

  private:
    std::mt19937 random_;
    std::normal_distribution<float> normal_{0, 0.02f};
};

/// An array of a model's weights.
struct weight_array {
    Eigen::Map<Eigen::VectorXf> values;
    bool decays; ///< or is a norm's, or a bias

    template <class X>
    weight_array(X& x, bool can_decay) : values(x.data(), x.size()), decays(can_decay) {}
};

inline void add(const matrix& weight, const block& units, matrix& x) {
    x.noalias() += units * weight.transpose();
}
/// Of y = x W': adds the gradient at W to `found` unless that is null; returns that at x.
inline matrix product_backward(const matrix& weight, matrix* found, const matrix& x,
                               const matrix& at_y) {
    if (found) found->noalias() += at_y.transpose() * x;
    return at_y * weight;
}

/// Rows whose mean square is 1, and what they were multiplied by.
struct unit_rows {
    matrix x;
    Eigen::VectorXf scale;

    explicit unit_rows(matrix from, float epsilon = 1e-5f) : x(std::move(from)) {
        scale = (x.rowwise().squaredNorm() / static_cast<float>(x.cols())).array() + epsilon;
        scale = scale.array().rsqrt();
        x.array().colwise() *= scale.array();
    }
    /// From the gradient at x to that at what it was made of.
    matrix backward(matrix at_x) const {
        const Eigen::VectorXf along = at_x.cwiseProduct(x).rowwise().mean();
        at_x -= (x.array().colwise() * along.array()).matrix();
        at_x.array().colwise() *= scale.array();
        return at_x;
    }
};

/// Heads of `size` columns, in sequences of `length` rows. Where q has more heads than k and v, as
/// many in a row share one of those.
struct causal_attention {
    block q, k, v;
    index length, size;

  private:
    index group() const { return q.cols() / k.cols(); }
    float scale() const { return 1 / std::sqrt(static_cast<float>(size)); }

    /// One head of one sequence.
    template <class X>
    auto of(X& x, index row, index head) const {
        return x.block(row, head * size, length, size);
    }
    matrix probabilities(index row, index head, index key_head) const {
        matrix p = of(q, row, head) * of(k, row, key_head).transpose();
        for (index i = 0; i < length; ++i) {
            auto seen = p.row(i).head(i + 1).array();
            seen *= scale();
            seen = (seen - seen.maxCoeff()).exp();
            seen /= seen.sum();
            p.row(i).tail(length - i - 1).setZero();
        }
        return p;
    }
    /// f(first row, head of k and v) of each sequence, in parallel.
    template <class F>
    void for_key_heads(const F& f) const {
        const index heads = k.cols() / size, all = k.rows() / length * heads;
#pragma omp parallel for
        for (index i = 0; i < all; ++i) f(i / heads * length, i % heads);
    }

  public:
    /// [rows x columns of q]
    matrix contexts() const {
        matrix out(q.rows(), q.cols());
        for_key_heads([&](index row, index head) {
            for (index h = head * group(); h < (head + 1) * group(); ++h)
                of(out, row, h).noalias() = probabilities(row, h, head) * of(v, row, head);
        });
        return out;
    }

    void backward(const matrix& at_out, Eigen::Ref<matrix> at_q, Eigen::Ref<matrix> at_k,
                  Eigen::Ref<matrix> at_v) const {
        at_k.setZero();
        at_v.setZero();
        for_key_heads([&](index row, index head) {
            for (index h = head * group(); h < (head + 1) * group(); ++h) {
                const matrix p = probabilities(row, h, head);
                const matrix at_context = of(at_out, row, h);
                of(at_v, row, head).noalias() += p.transpose() * at_context;
                matrix at_scores = at_context * of(v, row, head).transpose();
                const Eigen::VectorXf sums = at_scores.cwiseProduct(p).rowwise().sum();
                at_scores.colwise() -= sums;
                at_scores.array() *= p.array() * scale();
                of(at_q, row, h).noalias() = at_scores * of(k, row, head);
                of(at_k, row, head).noalias() += at_scores.transpose() * of(q, row, h);
            }
        });
    }
};

/// -log p(next) of each row, and p in its place.
inline double softmax(matrix& x, const tokens& next) {
    double sum = 0;
    for (index t = 0; t < x.rows(); ++t) {
        auto row = x.row(t).array();
        row = (row - row.maxCoeff()).exp();
        row /= row.sum();
        sum -= std::log(std::max(row(next[static_cast<std::size_t>(t)]), 1e-30f));
    }
    return sum;
}

inline tokens part(const tokens& text, std::size_t first, std::size_t count) {
    const auto begin = text.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

/// The mean over tokens of -log p(next), next[t] being the one behind token t.
template <class Model>
double loss(const Model& m, const tokens& ids, const tokens& next) {
    double sum = 0;
    const auto most = static_cast<std::size_t>(16 * m.config.length);
    for (std::size_t first = 0; first < ids.size(); first += most) {
        const std::size_t count = std::min(most, ids.size() - first);
        matrix x = embed(m, part(ids, first, count));
        for (const auto& l : m.layers) {
            add(l.projection, attend(m, l, x), x);
            add(l.down, activate(l, x), x);
        }
        matrix p = logits(m, x);
        sum += softmax(p, part(next, first, count));
    }
    return sum / static_cast<double>(ids.size());
}

/// Learns `steps` batches of random pieces of the text by AdamW.
template <class Model>
void train(Model& m, const tokens& text, int steps, unsigned seed) {
    constexpr int sequences = 16, warm_up = 20;
    constexpr float rate = 3e-3f, first = 0.9f, second = 0.99f, decay = 0.1f;
    std::mt19937 random(seed);
    const auto n = static_cast<std::size_t>(m.config.length);
    std::uniform_int_distribution<std::size_t> place(0, text.size() - n - 1);
    Model gradient = m, mean = m, square = m;
    auto x = weights(m), g = weights(gradient), v = weights(mean), s = weights(square);
    for (std::size_t i = 0; i < x.size(); ++i) {
        v[i].values.setZero();
        s[i].values.setZero();
    }
    for (int step = 1; step <= steps; ++step) {
        tokens ids, next;
        for (int i = 0; i < sequences; ++i) {
            const auto at = text.begin() + static_cast<std::ptrdiff_t>(place(random));
            ids.insert(ids.end(), at, at + static_cast<std::ptrdiff_t>(n));
            next.insert(next.end(), at + 1, at + 1 + static_cast<std::ptrdiff_t>(n));
        }
        for (auto& of : g) of.values.setZero();
        backward_pass(
            m, ids,
            [&](matrix p) {
                softmax(p, next);
                for (index t = 0; t < p.rows(); ++t) p(t, next[static_cast<std::size_t>(t)]) -= 1;
                return matrix(p / static_cast<float>(p.rows()));
            },
            &gradient, nullptr);
        double norm = 0;
        for (const auto& of : g) norm += static_cast<double>(of.values.squaredNorm());
        const float clip = std::min(1.f, 1 / static_cast<float>(std::sqrt(norm)));
        const float progress = static_cast<float>(step) / static_cast<float>(steps);
        const float speed = rate * std::min(1.f, static_cast<float>(step) / warm_up) *
                            (0.05f + 0.95f * 0.5f * (1 + std::cos(3.14159265f * progress)));
        const auto corrected = [&](float share) {
            return 1 / (1 - std::pow(share, static_cast<float>(step)));
        };
        for (std::size_t i = 0; i < x.size(); ++i) {
            g[i].values *= clip;
            v[i].values = first * v[i].values + (1 - first) * g[i].values;
            s[i].values = second * s[i].values + (1 - second) * g[i].values.cwiseAbs2();
            if (x[i].decays) x[i].values *= 1 - speed * decay;
            x[i].values.array() -= speed * corrected(first) * v[i].values.array() /
                                   ((corrected(second) * s[i].values.array()).sqrt() + 1e-8f);
        }
    }
}

} // namespace decoder
