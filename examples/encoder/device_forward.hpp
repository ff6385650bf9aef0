// The forward pass of device_network, step by step.
#pragma once

#include "device_network.hpp"

#include <pare/compact.hpp>
#include <pare/gather.hpp>

namespace encoder {

template <class Policy, class T>
void device_network<Policy, T>::forward(const batch& b, matrix& outputs,
                                        std::vector<token_use>* use) {
    start(b);
    const bool dropping = !pruning_.numbers.empty();
    const index_t d = hidden();
    gone_counts_ = dropping && pruning_.carried && model_.config.pooling == pooling::mean;
    if (gone_counts_)
        device::fill(policy_, gone_.get(policy_, b.sequences() * d), b.sequences() * d, 0);
    if (use) use->resize(layers_.size());
    T* const x = stream_.get(policy_, b.tokens() * d);
    embed_rows(b, x);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        weights& w = *layers_[l];
        if (use)
            for (index_t s = 0; s < left_.count(); ++s) (*use)[l].attend(left_.length(s));
        const index_t before = left_.tokens(), columns = w.attention_output.inputs;
        T* const context = context_.get(policy_, before * columns);
        float* const scores = dropping && columns > 0 ? scores_.get(policy_, before) : nullptr;
        attend(l, x, projected_, w.masked_heads ? w.heads_mask.data() : nullptr, context, scores);
        if (scores) drop(l, scores, x, context);
        const index_t tokens = left_.tokens();
        if (use) {
            (*use)[l].kept += tokens;
            if (tokens < before && gone_counts_ && !model_.exits.empty())
                (*use)[l].guessed += b.sequences();
        }
        add(w.attention_output, w.attention_norm, tokens, context, x, x, x);
        T* const active = active_.get(policy_, tokens * w.output.inputs);
        activate(l, tokens, x, active, w.masked_filters ? w.filters_mask.data() : nullptr, active);
        add(w.output, w.output_norm, tokens, active, x, x, x);
    }
    outputs = outputs_of(model_, pooled(x));
}

template <class Policy, class T>
void device_network<Policy, T>::embed_rows(const batch& b, T* x) {
    const index_t tokens = b.tokens(), d = hidden(), sequences = b.sequences();
    const index_t vocabulary = model_.config.vocabulary;
    std::int32_t* const ids = ids_.get(policy_, tokens);
    std::int32_t* const places = places_.get(policy_, tokens);
    policy_.copy_from_host(b.ids.data(), tokens, ids);
    const std::int64_t* const offsets = came_.there().data_handle();
    policy_.for_each(tokens, [=] PARE_HD(index_t t) {
        const index_t s = pare::detail::segment_of(offsets, sequences, t);
        places[t] = static_cast<std::int32_t>(t - offsets[s]);
    });
    const T *const words = words_.data(), *const positions = positions_.data();
    const T* const types = model_.config.types > 0 ? types_.data() : nullptr;
    const auto sum = [=] PARE_HD(index_t t, index_t j) {
        const index_t word = ids[t] % vocabulary, type = ids[t] / vocabulary;
        return static_cast<float>(words[word * d + j]) +
               static_cast<float>(positions[places[t] * d + j]) +
               (types ? static_cast<float>(types[type * d + j]) : 0.f);
    };
    device::normalize(policy_, embedding_norm_, model_.config.layer_norm_epsilon, tokens, d, sum, x,
                      x);
}

template <class Policy, class T>
void device_network<Policy, T>::attend(std::size_t l, const T* x, buffer<T>& projections,
                                       const float* mask, T* context, float* scores) {
    const dense_weights& qkv = layers_[l]->qkv;
    const index_t tokens = left_.tokens(), size = model_.config.head_size;
    T* const projected = projections.get(policy_, tokens * qkv.outputs);
    qkv.multiply(policy_, tokens, x, projected);
    device::attention_forward(policy_, left_, qkv.outputs / (3 * size), size, projected,
                              qkv.bias.data(), mask, context, scores, pruning_.scores,
                              attention_memory_);
}

template <class Policy, class T>
void device_network<Policy, T>::add(const dense_weights& to, const device::norm<Policy>& after,
                                    index_t tokens, const T* in, const T* x, T* sum, T* y) {
    const index_t d = hidden();
    T* const products = products_.get(policy_, tokens * d);
    to.multiply(policy_, tokens, in, products);
    const float* const bias = to.bias.data();
    const auto of = [=] PARE_HD(index_t t, index_t j) {
        return static_cast<float>(x[t * d + j]) + static_cast<float>(products[t * d + j]) + bias[j];
    };
    device::normalize(policy_, after, model_.config.layer_norm_epsilon, tokens, d, of, sum, y);
}

template <class Policy, class T>
void device_network<Policy, T>::add_rows(const dense_weights& to, index_t tokens, const T* in,
                                         const T* x, T* sum) {
    const index_t d = hidden();
    to.multiply(policy_, tokens, in, sum);
    const float* const bias = to.bias.data();
    device::for_elements(policy_, tokens, d, [=] PARE_HD(index_t t, index_t j) {
        T& y = sum[t * d + j];
        y = static_cast<T>(static_cast<float>(x[t * d + j]) + static_cast<float>(y) + bias[j]);
    });
}

template <class Policy, class T>
void device_network<Policy, T>::normalize_rows(const device::norm<Policy>& n, index_t tokens,
                                               const T* sum, T* y) {
    const index_t d = hidden();
    const auto of = [=] PARE_HD(index_t t, index_t j) {
        return static_cast<float>(sum[t * d + j]);
    };
    device::normalize(policy_, n, model_.config.layer_norm_epsilon, tokens, d, of, y, y);
}

template <class Policy, class T>
void device_network<Policy, T>::activate(std::size_t l, index_t tokens, const T* x, T* before,
                                         const float* mask, T* active) {
    layers_[l]->intermediate.multiply(policy_, tokens, x, before);
    activate_rows(l, tokens, before, mask, active);
}

template <class Policy, class T>
void device_network<Policy, T>::activate_rows(std::size_t l, index_t tokens, const T* before,
                                              const float* mask, T* active) {
    const index_t n = layers_[l]->intermediate.outputs;
    const float* const bias = layers_[l]->intermediate.bias.data();
    const encoder::activation f = model_.config.activation;
    device::for_elements(policy_, tokens, n, [=] PARE_HD(index_t t, index_t j) {
        const auto u = static_cast<float>(before[t * n + j]) + bias[j];
        const float value = device::activated(f, u);
        active[t * n + j] = static_cast<T>(mask ? value * mask[j] : value);
    });
}

template <class Policy, class T>
void device_network<Policy, T>::drop(std::size_t l, const float* scores, T* x, T* context) {
    const index_t tokens = left_.tokens(), count = left_.count(), d = hidden();
    const index_t columns = layers_[l]->attention_output.inputs;
    const view<const float, 1> all_scores(scores, tokens);
    const view<std::int64_t, 1> kept(kept_.get(policy_, tokens), tokens),
        kept_offsets(kept_offsets_.get(policy_, count + 1), count + 1);
    const double number = pruning_.numbers[l];
    index_t stay;
    if (pruning_.by == token_pruning::rule::threshold) {
        stay = pare::keep_above(policy_, all_scores, pruning_.alpha * number, left_.there(), kept,
                                kept_offsets, pare::pins{1});
    } else {
        const std::int64_t* const offsets = left_.there().data_handle();
        const token_pruning::rule by = pruning_.by;
        std::int64_t* const k = numbers_kept_.get(policy_, count);
        policy_.for_each(count, [=] PARE_HD(index_t s) {
            k[s] = tokens_to_keep(by, number, offsets[s + 1] - offsets[s]);
        });
        stay = pare::keep_top_k(policy_, all_scores, view<const std::int64_t, 1>(k, count),
                                left_.there(), kept, kept_offsets, pare::pins{1});
    }
    if (stay == tokens) return;
    if (gone_counts_) leave(l, stay, x, context);
    pare::gather_rows(policy_, view<const std::int64_t, 1>(kept.data_handle(), stay),
                      view<T, 2>(x, tokens, d), view<T, 2>(context, tokens, columns));
    left_.change(policy_, kept_offsets);
}

template <class Policy, class T>
void device_network<Policy, T>::leave(std::size_t l, index_t stay, const T* x, const T* context) {
    const dense_weights& exit = layers_[l]->exit;
    const index_t tokens = left_.tokens(), count = left_.count(), d = hidden();
    T* const leaving = leaving_.get(policy_, tokens);
    const std::int64_t* const kept = kept_.data();
    device::fill(policy_, leaving, tokens, 1);
    policy_.for_each(stay, [=] PARE_HD(index_t i) { leaving[kept[i]] = static_cast<T>(0.f); });
    const auto sum = [&](const T* rows, index_t columns, auto sums) {
        pare::mask_gradients(policy_, view<const T, 2>(rows, tokens, columns),
                             view<const T, 2>(leaving, {tokens, columns}, {1, 0}), left_.there(), 1,
                             sums);
    };
    float* const gone = gone_.data();
    if (model_.exits.empty()) {
        float* const sums = float_sums_.get(policy_, count * d);
        sum(x, d, view<float, 2>(sums, count, d));
        policy_.for_each(count * d, [=] PARE_HD(index_t i) { gone[i] += sums[i]; });
        return;
    }
    T* const sums = sums_.get(policy_, count * exit.inputs);
    const index_t columns = exit.inputs - d;
    sum(x, d, view<T, 2>(sums, {count, d}, {exit.inputs, 1}));
    sum(context, columns, view<T, 2>(sums + d, {count, columns}, {exit.inputs, 1}));
    exit.multiply(policy_, count, sums, gone, true);
    const float* const bias = exit.bias.data();
    const std::int64_t *const before = left_.there().data_handle(), *const after =
                                                                        kept_offsets_.data();
    device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
        const std::int64_t all = before[s + 1] - before[s], some = after[s + 1] - after[s];
        gone[s * d + j] += static_cast<float>(all - some) * bias[j];
    });
}

template <class Policy, class T>
matrix device_network<Policy, T>::pooled(const T* x) {
    const index_t count = left_.count(), d = hidden();
    float* const result = float_sums_.get(policy_, count * d);
    const std::int64_t* const offsets = left_.there().data_handle();
    if (model_.config.pooling == pooling::cls) {
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
            result[s * d + j] = static_cast<float>(x[offsets[s] * d + j]);
        });
    } else {
        const float* const gone = gone_counts_ ? gone_.data() : nullptr;
        const std::int64_t* const all = gone ? came_.there().data_handle() : offsets;
        pare::sample_sums(policy_, view<const T, 2>(x, left_.tokens(), d), left_.there(),
                          view<float, 2>(result, count, d));
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
            float& y = result[s * d + j];
            y = (y + (gone ? gone[s * d + j] : 0.f)) / static_cast<float>(all[s + 1] - all[s]);
        });
    }
    matrix found(count, d);
    policy_.copy_to_host(result, found.size(), found.data());
    return found;
}

} // namespace encoder
