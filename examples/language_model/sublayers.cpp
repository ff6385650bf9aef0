#include "sublayers.hpp"

#include "layers.hpp"

#include <utility>

namespace language {
namespace {

float silu_slope(float x) {
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
}

/// Rows of `x` as parts of `columns`, or parts as rows.
matrix reshaped(const matrix& x, index_t columns) {
    return Eigen::Map<const matrix>(x.data(), x.size() / columns, columns);
}

} // namespace

norm::norm(const matrix& x, const vector& gain, double epsilon) : gain_(gain), out_(x) {
    if (gain.size() == 0) return;
    rows_.emplace(reshaped(x, gain.size()), static_cast<float>(epsilon));
    out_ = reshaped((rows_->x.array().rowwise() * gain.array()).matrix(), x.cols());
}
matrix norm::backward(const matrix& at_out) const {
    if (!rows_) return at_out;
    const matrix parts = reshaped(at_out, gain_.size());
    return reshaped(rows_->backward((parts.array().rowwise() * gain_.array()).matrix()),
                    at_out.cols());
}

attention_sublayer::attention_sublayer(const model& m, const layer& l, const matrix& x,
                                       index_t length)
    : m_(m), l_(l), length_(length), in_(x, l.before_attention, m.config.epsilon),
      query_(times(in_.out(), l.query), l.query_norm, m.config.epsilon),
      key_(times(in_.out(), l.key), l.key_norm, m.config.epsilon), q_(query_.out()), k_(key_.out()),
      v_(times(in_.out(), l.value)) {
    turn(q_, 1);
    turn(k_, 1);
    context_ = attention().contexts();
}
void attention_sublayer::turn(matrix& x, float direction) const {
    rotate(
        m_, [&](index_t t) { return t % length_; }, x, direction);
}
decoder::causal_attention attention_sublayer::attention() const {
    return {q_, k_, v_, length_, m_.config.head_size};
}
matrix attention_sublayer::backward(const matrix& at_units) const {
    matrix at_q(q_.rows(), q_.cols()), at_k(k_.rows(), k_.cols()), at_v(v_.rows(), v_.cols());
    attention().backward(at_units, at_q, at_k, at_v);
    turn(at_q, -1);
    turn(at_k, -1);
    return in_.backward(query_.backward(at_q) * l_.query.weight +
                        key_.backward(at_k) * l_.key.weight + at_v * l_.value.weight);
}

ffn_sublayer::ffn_sublayer(const model& m, const layer& l, const matrix& x)
    : l_(l), in_(x, l.before_filters, m.config.epsilon), gate_(times(in_.out(), l.gate)),
      up_(times(in_.out(), l.up)), active_(gate_.unaryExpr(&silu).cwiseProduct(up_)) {}
matrix ffn_sublayer::backward(const matrix& at_units) const {
    const matrix at_up = at_units.cwiseProduct(gate_.unaryExpr(&silu)),
                 at_gate = at_units.cwiseProduct(up_).cwiseProduct(gate_.unaryExpr(&silu_slope));
    return in_.backward(at_gate * l_.gate.weight + at_up * l_.up.weight);
}

} // namespace language
