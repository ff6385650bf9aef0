// The forward pass of device_network, step by step.
#pragma once

#include "device_network.hpp"

#include <pare/compact.hpp>
#include <pare/gather.hpp>

namespace encoder {

template <class Policy, class T>
T* device_network<Policy, T>::run_layers(const batch& b, purpose of, double temperature,
                                         std::vector<token_use>* use) {
    start(b);
    const bool keep = of != purpose::outputs, learn = of == purpose::learning;
    const bool leaving = of != purpose::units && !pruning_.numbers.empty();
    const index_t all = b.tokens(), d = hidden();
    fading_ = leaving && temperature > 0;
    gone_counts_ = leaving && pruning_.carried && model_.config.pooling == pooling::mean;
    if (gone_counts_)
        device::fill(policy_, gone_.get(policy_, b.sequences() * d), b.sequences() * d, 0);
    if (fading_) device::fill(policy_, carry_.get(policy_, all), all, 1);
    if (use) use->resize(layers_.size());
    while (keep && records_.size() < layers_.size()) records_.push_back(std::make_unique<record>());
    T* const x = stream_.get(policy_, all * d);
    embed_rows(b, learn ? embedding_sum_.get(policy_, all * d) : x, x);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        weights& w = *layers_[l];
        record* const r = keep ? records_[l].get() : nullptr;
        if (use)
            for (index_t s = 0; s < left_.count(); ++s) (*use)[l].attend(left_.length(s));
        const index_t before = left_.tokens(), columns = w.attention_output.inputs;
        if (learn) {
            T* const input = r->input.get(policy_, before * d);
            policy_.for_each(before * d, [=] PARE_HD(index_t i) { input[i] = x[i]; });
            r->came.copy(policy_, left_);
            r->stay = before;
        }
        T* context = (r ? r->context : context_).get(policy_, before * columns);
        if (fading_) {
            attend_fading(l, x, temperature, *r, context);
        } else {
            float* const scores = leaving && columns > 0 ? scores_.get(policy_, before) : nullptr;
            attend(l, x, r ? r->projected : projected_, {},
                   !keep && w.masked_heads ? w.heads_mask.data() : nullptr, context, scores);
            if (scores) context = drop(l, scores, x, context, r);
        }
        const index_t tokens = left_.tokens(), n = w.output.inputs;
        if (use) {
            (*use)[l].kept += tokens;
            if (tokens < before && gone_counts_ && !model_.exits.empty())
                (*use)[l].guessed += b.sequences();
        }
        add(w.attention_output, w.attention_norm, tokens, context, x,
            r ? r->attention_sum.get(policy_, tokens * d) : x, x);
        T* const active = active_.get(policy_, tokens * n);
        activate(l, tokens, x, r ? r->before.get(policy_, tokens * n) : active,
                 !keep && w.masked_filters ? w.filters_mask.data() : nullptr, active);
        add(w.output, w.output_norm, tokens, active, x,
            r ? r->output_sum.get(policy_, tokens * d) : x, x);
    }
    return x;
}

template <class Policy, class T>
void device_network<Policy, T>::embed_rows(const batch& b, T* sum, T* x) {
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
    const auto of = [=] PARE_HD(index_t t, index_t j) {
        const index_t word = ids[t] % vocabulary, type = ids[t] / vocabulary;
        return static_cast<float>(words[word * d + j]) +
               static_cast<float>(positions[places[t] * d + j]) +
               (types ? static_cast<float>(types[type * d + j]) : 0.f);
    };
    device::normalize(policy_, embedding_norm_, model_.config.layer_norm_epsilon, tokens, d, of,
                      sum, x);
}

template <class Policy, class T>
void device_network<Policy, T>::attend(std::size_t l, const T* x, buffer<T>& projections,
                                       const fading& soft, const float* mask, T* context,
                                       float* scores) {
    const dense_weights& qkv = layers_[l]->qkv;
    const index_t tokens = left_.tokens(), size = model_.config.head_size;
    T* const projected = projections.get(policy_, tokens * qkv.outputs);
    qkv.multiply(policy_, tokens, x, projected);
    device::attention_forward(policy_, left_, qkv.outputs / (3 * size), size, projected,
                              qkv.bias.data(), soft, mask, context, scores,
                              soft.key_bias ? pare::score_scale::relative : pruning_.scores,
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
T* device_network<Policy, T>::drop(std::size_t l, const float* scores, T* x, T* context,
                                   record* r) {
    const index_t tokens = left_.tokens(), count = left_.count(), d = hidden();
    const index_t columns = layers_[l]->attention_output.inputs;
    const view<const float, 1> all_scores(scores, tokens);
    std::int64_t* const positions = (r ? r->kept : kept_).get(policy_, tokens);
    const view<std::int64_t, 1> kept(positions, tokens),
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
    if (stay == tokens) return context;
    if (gone_counts_) {
        float* const leaving = (r ? r->leaving : leaving_).get(policy_, tokens);
        device::fill(policy_, leaving, tokens, 1);
        policy_.for_each(stay, [=] PARE_HD(index_t i) { leaving[positions[i]] = 0; });
        leave(l, leaving, x, context);
    }
    const view<const std::int64_t, 1> index(positions, stay);
    const view<T, 2> all(context, tokens, columns);
    pare::gather_rows(policy_, index, view<T, 2>(x, tokens, d));
    if (r) {
        r->stay = stay;
        context = context_.get(policy_, stay * columns);
        pare::gather_rows(policy_, index, pare::from_to(all, view<T, 2>(context, stay, columns)));
    } else {
        pare::gather_rows(policy_, index, all);
    }
    left_.change(policy_, kept_offsets);
    return context;
}

template <class Policy, class T>
void device_network<Policy, T>::leave(std::size_t l, const float* leaving, const T* x,
                                      const T* context) {
    const index_t d = hidden();
    float* const gone = gone_.data();
    if (model_.exits.empty())
        return device::weighted_sums(
            policy_, left_, x, d, leaving,
            [=] PARE_HD(index_t s, index_t j, float sum) { gone[s * d + j] += sum; });
    sum_leaving(l, leaving, x, context);
    const dense_weights& exit = layers_[l]->exit;
    exit.multiply(policy_, left_.count(), sums_.data(), gone, true);
    const float *const bias = exit.bias.data(), *const counts = counts_.data();
    device::for_elements(policy_, left_.count(), d, [=] PARE_HD(index_t s, index_t j) {
        gone[s * d + j] += counts[s] * bias[j];
    });
}

template <class Policy, class T>
void device_network<Policy, T>::sum_leaving(std::size_t l, const float* leaving, const T* x,
                                            const T* context) {
    const index_t count = left_.count(), d = hidden(), inputs = layers_[l]->exit.inputs;
    T *const sums = sums_.get(policy_, count * inputs), *const behind = sums + d;
    device::weighted_sums(policy_, left_, x, d, leaving,
                          [=] PARE_HD(index_t s, index_t j, float sum) {
                              sums[s * inputs + j] = static_cast<T>(sum);
                          });
    device::weighted_sums(policy_, left_, context, inputs - d, leaving,
                          [=] PARE_HD(index_t s, index_t j, float sum) {
                              behind[s * inputs + j] = static_cast<T>(sum);
                          });
    device::token_sums(policy_, left_, leaving, counts_.get(policy_, count));
}

template <class Policy, class T>
matrix device_network<Policy, T>::pooled(const T* x) {
    const index_t count = left_.count(), d = hidden();
    float *const result = float_sums_.get(policy_, count * d), *const divisors =
                                                                   divisors_.get(policy_, count);
    const bool mean = model_.config.pooling == pooling::mean;
    const float* const gone = gone_counts_ ? gone_.data() : nullptr;
    const std::int64_t* const offsets = left_.there().data_handle();
    if (mean && fading_ && !gone) {
        device::token_sums(policy_, left_, carry_.data(), divisors);
    } else {
        const std::int64_t* const all = gone ? came_.there().data_handle() : offsets;
        policy_.for_each(count, [=] PARE_HD(index_t s) {
            divisors[s] = mean ? static_cast<float>(all[s + 1] - all[s]) : 1.f;
        });
    }
    if (!mean) {
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
            result[s * d + j] = static_cast<float>(x[offsets[s] * d + j]);
        });
    } else {
        if (fading_)
            device::weighted_sums(
                policy_, left_, x, d, carry_.data(),
                [=] PARE_HD(index_t s, index_t j, float sum) { result[s * d + j] = sum; });
        else
            pare::sample_sums(policy_, view<const T, 2>(x, left_.tokens(), d), left_.there(),
                              view<float, 2>(result, count, d));
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
            float& y = result[s * d + j];
            y = (y + (gone ? gone[s * d + j] : 0.f)) / divisors[s];
        });
    }
    matrix found(count, d);
    policy_.copy_to_host(result, found.size(), found.data());
    return found;
}

} // namespace encoder
