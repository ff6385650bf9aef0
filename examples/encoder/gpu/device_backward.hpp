// The backward pass of device_network: for the gradients of masks, or of weights and thresholds.
#pragma once

#include "device_network.hpp"

#include <pare/gather.hpp>

#include <algorithm>
#include <numeric>

namespace encoder {

template <class Policy, class T>
void device_network<Policy, T>::backward(const batch& b, const loss_gradient& loss,
                                         const unit_visitor* visit, lesson* learn) {
    const index_t d = hidden();
    const float epsilon = model_.config.layer_norm_epsilon;
    T* g = run_layers(b, learn ? purpose::learning : purpose::units,
                      learn ? learn->how.temperature : 0, nullptr);
    const matrix rows_pooled = pooled(g), outputs = outputs_of(model_, rows_pooled);
    matrix gradient = matrix::Zero(outputs.rows(), outputs.cols());
    loss(outputs, gradient);
    check_shape("gradient", gradient, outputs.rows(), outputs.cols());

    const outputs_gradient above = outputs_backward(model_, rows_pooled, outputs, gradient);
    float chosen = 0, &lift = learn ? learn->lift : chosen;
    if (lift == 0) lift = lift_of(above.at_pooled, learn);
    if (learn && model_.head) {
        const bool two = model_.head->before.has_value();
        learn_dense(head_output_, two ? above.inner : rows_pooled, lift * gradient);
        if (two) learn_dense(head_before_, rows_pooled, lift * above.at_before);
    }
    // From here on, the residual stream's place holds the gradient at it.
    pool_backward(above.at_pooled, lift, g, g);
    for (std::size_t l = layers_.size(); l-- > 0;) {
        const weights& w = *layers_[l];
        record& r = *records_[l];
        const index_t tokens = left_.tokens();
        const index_t n = w.output.inputs, columns = w.attention_output.inputs;
        const auto show = [&](unit_kind kind, const T* inputs, const T* at_inputs,
                              index_t columns_of_kind, const heads_of_rows& queries = {},
                              const heads_of_rows& at_queries = {}) {
            if (visit)
                (*visit)({l, kind, rows{nullptr, inputs, tokens, columns_of_kind},
                          shown(at_inputs, columns_of_kind, lift, shown_inputs_),
                          shown(g, d, lift, shown_outputs_), queries, at_queries});
        };
        if (learn) count_left(l, *learn);
        device::normalize_backward(policy_, w.output_norm, epsilon, tokens, d, r.output_sum.data(),
                                   g, learn != nullptr);
        T* const at_active = unit_gradients_.get(policy_, tokens * n);
        w.output.multiply_back(policy_, tokens, g, at_active);
        T* const active = active_.get(policy_, tokens * n);
        activate_rows(l, tokens, r.before.data(), active);
        show(unit_kind::filter, active, at_active, n);
        if (learn) device::add_gradients(policy_, w.output, tokens, active, g);

        activation_backward(l, r.before.data(), at_active);
        if (learn) {
            T* const middle = products_.get(policy_, tokens * d);
            normalize_rows(w.attention_norm, tokens, r.attention_sum.data(), middle);
            device::add_gradients(policy_, w.intermediate, tokens, middle, at_active);
        }
        w.intermediate.multiply_back(policy_, tokens, at_active, g, true);
        device::normalize_backward(policy_, w.attention_norm, epsilon, tokens, d,
                                   r.attention_sum.data(), g, learn != nullptr);
        T* at_context = unit_gradients_.get(policy_, tokens * columns);
        w.attention_output.multiply_back(policy_, tokens, g, at_context);

        const bool dropped = learn && tokens < r.came.tokens();
        if (learn) {
            const T* const kept = dropped ? kept_context(l, r) : r.context.data();
            device::add_gradients(policy_, w.attention_output, tokens, kept, g);
        }
        if (dropped) {
            undrop(l, r, g, at_context);
            if (gone_counts_) leave_backward(l, r, g, at_context, nullptr);
        }
        if (fading_) fade_backward(l, r, *learn, g, at_context);

        const index_t all = left_.tokens();
        T* const at_projected = projected_.get(policy_, all * w.qkv.outputs);
        fading soft;
        device::fading_gradients others;
        if (fading_) {
            soft = {r.key_bias.data(), r.carry.data()};
            others = {at_scores_.data(), at_key_bias_.get(policy_, all),
                      at_query_weights_.get(policy_, all)};
        }
        const auto in = in_rows<const T>(l, r.projected.data());
        device::attention_backward(
            policy_, left_, in, soft, by_distance(l, r.moved ? r.stood.data() : nullptr),
            at_context, in_rows(l, at_projected), fading_ ? &others : nullptr, attention_memory_);
        if (visit) {
            const auto queries = [&](const head_rows<const T>& x) -> heads_of_rows {
                return {x.data, all, in.heads, x.size, x.token_stride, x.head_stride};
            };
            const rows at = shown(at_projected, w.qkv.outputs, lift, shown_projected_);
            show(unit_kind::head, r.context.data(), at_context, columns, queries(in.q),
                 queries(in_rows<const T>(l, data(at)).q));
        }
        if (l == 0 && !learn) return; // nothing below is masked
        if (learn) device::add_gradients(policy_, w.qkv, all, r.input.data(), at_projected);
        w.qkv.multiply_back(policy_, all, at_projected, g, true);
        if (fading_ && columns > 0) carry_backward(r);
    }
    if (learn) embed_backward(b, g);
}

template <class Policy, class T>
float device_network<Policy, T>::lift_of(const matrix& gradient, const lesson* learn) const {
    float largest = gradient.size() > 0 ? gradient.cwiseAbs().maxCoeff() : 0.f;
    if (learn && fading_) // the price of tokens has gradients of its own
        for (const double weight : learn->how.weights)
            largest = std::max(largest, static_cast<float>(learn->how.lambda * weight /
                                                           static_cast<double>(left_.count)));
    const bool short_exponent = static_cast<float>(static_cast<T>(1e-10f)) == 0;
    return short_exponent && largest > 0 ? std::exp2(std::floor(std::log2(64 / largest))) : 1.f;
}

template <class Policy, class T>
void device_network<Policy, T>::learn_dense(device::dense_weights<float, Policy>& of,
                                            const matrix& inputs, const matrix& gradient) {
    const auto x = policy_.template temporary<float>(inputs.size()),
               y = policy_.template temporary<float>(gradient.size());
    policy_.copy_from_host(inputs.data(), inputs.size(), x.data());
    policy_.copy_from_host(gradient.data(), gradient.size(), y.data());
    device::add_gradients(policy_, of, inputs.rows(), x.data(), y.data());
}

template <class Policy, class T>
const T* device_network<Policy, T>::kept_context(std::size_t l, const record& r) {
    const index_t columns = layers_[l]->attention_output.inputs;
    T* const kept = context_.get(policy_, r.stay * columns);
    pare::gather_rows(policy_, view<const device::place, 1>(r.kept.data(), r.stay),
                      pare::from_to(view<const T, 2>(r.context.data(), r.came.tokens(), columns),
                                    view<T, 2>(kept, r.stay, columns)));
    return kept;
}

template <class Policy, class T>
void device_network<Policy, T>::pool_backward(const matrix& pooled_gradient, float lift, const T* x,
                                              T* gradient) {
    const index_t d = hidden(), count = left_.count, tokens = left_.tokens();
    if (model_.is_per_token()) {
        float* const at_rows = float_sums_.get(policy_, tokens * d);
        policy_.copy_from_host(pooled_gradient.data(), pooled_gradient.size(), at_rows);
        device::for_elements(policy_, tokens, d, [=] PARE_HD(index_t t, index_t j) {
            gradient[t * d + j] = static_cast<T>(lift * at_rows[t * d + j]);
        });
        return;
    }
    const bool mean = model_.config.pooling == pooling::mean;
    const device::place* const largest =
        model_.config.pooling == pooling::max ? largest_.data() : nullptr;
    float* const at_sums = float_sums_.get(policy_, count * d);
    policy_.copy_from_host(pooled_gradient.data(), pooled_gradient.size(), at_sums);
    const float* const divisors = divisors_.data();
    T* const at_gone = gone_counts_ ? at_gone_.get(policy_, count * d) : nullptr;
    device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
        const float g = lift * at_sums[s * d + j] / divisors[s];
        at_sums[s * d + j] = g;
        if (at_gone) at_gone[s * d + j] = static_cast<T>(g);
    });
    const float* const carry = mean && fading_ ? carry_.data() : nullptr;
    const device::place* const offsets = left_.there;
    if (fading_) {
        device::fill(policy_, at_carry_.get(policy_, tokens), tokens, 0);
        device::fill(policy_, weighted_.get(policy_, tokens), tokens, 0);
    }
    if (carry) { // the mean is (sum of carry x + what is gone) / divisor
        float* const at_carry = at_carry_.data();
        device::row_sums(
            policy_, tokens, d,
            [=] PARE_HD(index_t t, index_t j) {
                const index_t s = pare::detail::segment_of(offsets, count, t);
                return static_cast<float>(x[t * d + j]) * at_sums[s * d + j];
            },
            [=] PARE_HD(index_t t, float sum) { at_carry[t] = sum; });
        if (!at_gone) { // and the divisor is the sum of carry
            float* const along = counts_.get(policy_, count);
            device::weighted_sums(
                policy_, left_, device::token_rows<float>{at_carry, 1}, {}, carry,
                [=] PARE_HD(index_t s, index_t, float sum, float) { along[s] = sum; });
            policy_.for_each(tokens, [=] PARE_HD(index_t t) {
                const index_t s = pare::detail::segment_of(offsets, count, t);
                at_carry[t] -= along[s] / divisors[s];
            });
        }
    }
    if (largest && fading_) { // log(carry) is added to its row
        float* const at_carry = at_carry_.data();
        const float* const left = carry_.data();
        device::row_sums(
            policy_, tokens, d,
            [=] PARE_HD(index_t t, index_t j) {
                const index_t s = pare::detail::segment_of(offsets, count, t);
                return largest[s * d + j] == t ? at_sums[s * d + j] : 0.f;
            },
            [=] PARE_HD(index_t t, float sum) {
                at_carry[t] = left[t] > least_carry ? sum / left[t] : 0.f;
            });
    }
    device::for_elements(policy_, tokens, d, [=] PARE_HD(index_t t, index_t j) {
        const index_t s = pare::detail::segment_of(offsets, count, t);
        float share = carry ? carry[t] : 1.f;
        if (!mean && t != (largest ? largest[s * d + j] : offsets[s])) share = 0;
        gradient[t * d + j] = static_cast<T>(share * at_sums[s * d + j]);
    });
}

template <class Policy, class T>
void device_network<Policy, T>::activation_backward(std::size_t l, const T* before, T* gradient) {
    const T* const at_active = gradient;
    device::with_activation<T>(model_.config.activation, [&](auto f) {
        device::map(policy_, left_.tokens() * layers_[l]->output.inputs,
                    device::slope_times<decltype(f)>(), gradient, before, at_active);
    });
}

template <class Policy, class T>
rows device_network<Policy, T>::shown(const T* x, index_t columns, float lift, buffer<T>& copy) {
    const index_t tokens = left_.tokens();
    if (lift != 1) {
        T* const to = copy.get(policy_, tokens * columns);
        device::map(policy_, tokens * columns, device::times{1 / lift}, to, x); // a power of two
        x = to;
    }
    return {nullptr, x, tokens, columns};
}

template <class Policy, class T>
void device_network<Policy, T>::embed_backward(const batch& b, T* gradient) {
    const index_t tokens = b.tokens(), d = model_.config.embedding_columns(), count = left_.count;
    const index_t vocabulary = model_.config.vocabulary;
    if (model_.config.narrow_embeddings > 0) { // through the projection
        device::add_gradients(policy_, embedding_projection_, tokens, narrow_.data(), gradient);
        T* const narrow = spare_.get(policy_, tokens * d);
        embedding_projection_.multiply_back(policy_, tokens, gradient, narrow);
        gradient = narrow;
    }
    device::normalize_backward(policy_, embedding_norm_, model_.config.layer_norm_epsilon, tokens,
                               d, embedding_sum_.data(), gradient, true);
    const T* const g = gradient;

    // A word's row gets the sum over its tokens, which the host puts one behind another.
    const auto word = [&](index_t t) {
        return static_cast<index_t>(b.ids[static_cast<std::size_t>(t)]) % vocabulary;
    };
    std::vector<device::place> order(static_cast<std::size_t>(tokens)), starts;
    std::iota(order.begin(), order.end(), device::place{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](index_t i, index_t j) { return word(i) < word(j); });
    for (std::size_t i = 0; i < order.size(); ++i)
        if (i == 0 || word(order[i]) != word(order[i - 1]))
            starts.push_back(static_cast<device::place>(i));
    const auto words = static_cast<index_t>(starts.size());
    starts.push_back(static_cast<device::place>(tokens));
    device::place *const token = order_.get(policy_, tokens), *const start =
                                                                  starts_.get(policy_, words + 1);
    policy_.copy_from_host(order.data(), tokens, token);
    policy_.copy_from_host(starts.data(), words + 1, start);
    const std::int32_t* const ids = batch_.ids();
    float* const to_words = words_.gradient;
    constexpr index_t pieces = 8;
    policy_.sum_pieces(
        words, pieces, d, 1,
        [=] PARE_HD(index_t w, index_t piece, index_t j) {
            double sum = 0;
            for (index_t i = start[w] + piece; i < start[w + 1]; i += pieces)
                sum += static_cast<double>(static_cast<float>(g[token[i] * d + j]));
            return sum;
        },
        [=] PARE_HD(index_t w, index_t j, double sum) {
            to_words[ids[token[start[w]]] % vocabulary * d + j] += static_cast<float>(sum);
        });

    index_t longest = 0;
    for (index_t s = 0; s < count; ++s) longest = std::max(longest, left_.length(s));
    const device::place* const offsets = left_.there;
    float* const to_positions = positions_.gradient + model_.config.first_position * d;
    policy_.sum_pieces(
        longest, pieces, d, 1,
        [=] PARE_HD(index_t place, index_t piece, index_t j) {
            double sum = 0;
            for (index_t s = piece; s < count; s += pieces)
                if (const index_t t = offsets[s] + place; t < offsets[s + 1])
                    sum += static_cast<double>(static_cast<float>(g[t * d + j]));
            return sum;
        },
        [=] PARE_HD(index_t place, index_t j, double sum) {
            to_positions[place * d + j] += static_cast<float>(sum);
        });
    for (index_t type = 0; type < model_.config.types; ++type)
        device::add_column_sums(
            policy_, tokens, d,
            [=] PARE_HD(index_t t, index_t j) {
                return ids[t] / vocabulary == type ? static_cast<float>(g[t * d + j]) : 0.f;
            },
            types_.gradient + type * d);
}

} // namespace encoder
