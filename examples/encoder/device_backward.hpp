// The backward pass of device_network, for the gradients of masks.
#pragma once

#include "device_network.hpp"

namespace encoder {

template <class Policy, class T>
void device_network<Policy, T>::backward_units(const batch& b, const loss_gradient& loss,
                                               const unit_visitor& visit) {
    start(b);
    gone_counts_ = false;
    const index_t tokens = b.tokens(), d = hidden(), size = model_.config.head_size;
    const float epsilon = model_.config.layer_norm_epsilon;
    T* const x = stream_.get(policy_, tokens * d);
    embed_rows(b, x);
    while (records_.size() < layers_.size()) records_.push_back(std::make_unique<record>());
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        const weights& w = *layers_[l];
        record& r = *records_[l];
        T* const context = r.context.get(policy_, tokens * w.attention_output.inputs);
        attend(l, x, r.projected, nullptr, context, nullptr);
        add(w.attention_output, w.attention_norm, tokens, context, x,
            r.attention_sum.get(policy_, tokens * d), x);
        T* const active = active_.get(policy_, tokens * w.output.inputs);
        activate(l, tokens, x, r.before.get(policy_, tokens * w.output.inputs), nullptr, active);
        add(w.output, w.output_norm, tokens, active, x, r.output_sum.get(policy_, tokens * d), x);
    }
    const matrix rows_pooled = pooled(x), outputs = outputs_of(model_, rows_pooled);
    matrix gradient = matrix::Zero(outputs.rows(), outputs.cols());
    loss(outputs, gradient);
    check_shape("gradient", gradient, outputs.rows(), outputs.cols());
    gradient = outputs_backward(model_, rows_pooled, outputs, gradient);

    // Gradients of gradients' size would be lost in a short exponent, such as fp16's: a power of
    // two lifts them on their way.
    float factor = 1;
    const float largest = gradient.size() > 0 ? gradient.cwiseAbs().maxCoeff() : 0.f;
    if (static_cast<float>(static_cast<T>(1e-10f)) == 0 && largest > 0)
        factor = std::exp2(std::floor(std::log2(64 / largest)));

    T* const g = x; // from here on, the residual stream's place holds the gradient at it
    pool_backward(gradient, factor, g);
    for (std::size_t l = layers_.size(); l-- > 0;) {
        const weights& w = *layers_[l];
        record& r = *records_[l];
        const index_t n = w.output.inputs, columns = w.attention_output.inputs;
        const auto show = [&](unit_kind kind, const T* inputs, const T* at_inputs,
                              index_t columns_of_kind) {
            visit({l, kind, rows{nullptr, inputs, tokens, columns_of_kind},
                   shown(at_inputs, columns_of_kind, factor, shown_inputs_),
                   shown(g, d, factor, shown_outputs_)});
        };
        device::normalize_backward(policy_, w.output_norm, epsilon, tokens, d, r.output_sum.data(),
                                   g);
        T* const at_active = unit_gradients_.get(policy_, tokens * n);
        w.output.multiply_back(policy_, tokens, g, at_active);
        T* const active = active_.get(policy_, tokens * n);
        activate_rows(l, tokens, r.before.data(), nullptr, active);
        show(unit_kind::filter, active, at_active, n);

        activation_backward(l, r.before.data(), at_active);
        w.intermediate.multiply_back(policy_, tokens, at_active, g, true);
        device::normalize_backward(policy_, w.attention_norm, epsilon, tokens, d,
                                   r.attention_sum.data(), g);
        T* const at_context = unit_gradients_.get(policy_, tokens * columns);
        w.attention_output.multiply_back(policy_, tokens, g, at_context);
        show(unit_kind::head, r.context.data(), at_context, columns);
        if (l == 0) return; // nothing below is masked

        T* const at_projected = projected_.get(policy_, tokens * w.qkv.outputs);
        device::attention_backward(policy_, left_, columns / size, size, r.projected.data(),
                                   w.qkv.bias.data(), at_context, at_projected, attention_memory_);
        w.qkv.multiply_back(policy_, tokens, at_projected, g, true);
    }
}

/// `pooled_gradient` is in the host's memory, and `gradient` factor times what it means for rows.
template <class Policy, class T>
void device_network<Policy, T>::pool_backward(const matrix& pooled_gradient, float factor,
                                              T* gradient) {
    const index_t d = hidden(), count = left_.count();
    const bool mean = model_.config.pooling == pooling::mean;
    float* const there = float_sums_.get(policy_, pooled_gradient.size());
    policy_.copy_from_host(pooled_gradient.data(), pooled_gradient.size(), there);
    const std::int64_t* const offsets = left_.there().data_handle();
    const std::int32_t* const places = places_.data();
    device::for_elements(policy_, left_.tokens(), d, [=] PARE_HD(index_t t, index_t j) {
        const index_t s = pare::detail::segment_of(offsets, count, t);
        float share = mean ? 1 / static_cast<float>(offsets[s + 1] - offsets[s]) : 1.f;
        if (!mean && places[t] > 0) share = 0;
        gradient[t * d + j] = static_cast<T>(factor * share * there[s * d + j]);
    });
}

template <class Policy, class T>
void device_network<Policy, T>::activation_backward(std::size_t l, const T* before, T* gradient) {
    const index_t n = layers_[l]->intermediate.outputs;
    const float* const bias = layers_[l]->intermediate.bias.data();
    const encoder::activation f = model_.config.activation;
    device::for_elements(policy_, left_.tokens(), n, [=] PARE_HD(index_t t, index_t j) {
        T& g = gradient[t * n + j];
        const auto u = static_cast<float>(before[t * n + j]) + bias[j];
        g = static_cast<T>(static_cast<float>(g) * device::slope(f, u));
    });
}

template <class Policy, class T>
rows device_network<Policy, T>::shown(const T* x, index_t columns, float factor, buffer<T>& copy) {
    const index_t tokens = left_.tokens();
    if (factor != 1) {
        const T* const from = x;
        T* const to = copy.get(policy_, tokens * columns);
        policy_.for_each(tokens * columns, [=] PARE_HD(index_t i) {
            to[i] = static_cast<T>(static_cast<float>(from[i]) / factor);
        });
        x = to;
    }
    return {nullptr, x, tokens, columns};
}

} // namespace encoder
