// The forward pass of device_network, step by step.
#pragma once

#include "device_network.hpp"

namespace encoder {

template <class Policy, class T>
T* device_network<Policy, T>::run_layers(const batch& b, purpose of, double temperature,
                                         std::vector<token_use>* use) {
    const bool keep = of != purpose::outputs, learn = of == purpose::learning;
    const bool leaving = of != purpose::units && !pruning_.numbers.empty();
    if (leaving && (model_.is_per_token() || !b.pins.empty()))
        fail("tokens of a head on tokens, or pinned ones, leave on the CPU alone; run it there");
    fading_ = leaving && temperature > 0;
    start(b, leaving && !fading_);
    const index_t all = b.tokens(), d = hidden();
    gone_counts_ = leaving && pruning_.carried && model_.config.pooling == pooling::mean;
    if (gone_counts_)
        device::fill(policy_, gone_.get(policy_, b.sequences() * d), b.sequences() * d, 0);
    if (fading_) device::fill(policy_, carry_.get(policy_, all), all, 1);
    if (use) use->resize(layers_.size());
    while (keep && records_.size() < layers_.size()) records_.push_back(std::make_unique<record>());
    T* x = stream_.get(policy_, all * d);
    embed_rows(
        learn ? embedding_sum_.get(policy_, all * model_.config.embedding_columns()) : nullptr, x);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        weights& w = *layers_[l];
        record* const r = keep ? records_[l].get() : nullptr;
        if (use)
            for (index_t s = 0; s < left_.count; ++s) (*use)[l].attend(left_.length(s));
        const index_t before = left_.tokens(), columns = w.attention_output.inputs;
        if (learn) {
            device::copy(policy_, before * d, x, r->input.get(policy_, before * d));
            r->came = left_;
            r->stay = before;
            r->moved = moved_;
            if (moved_) {
                const device::place* const from = stood_.data();
                device::place* const to = r->stood.get(policy_, before);
                policy_.for_each(before, [=] PARE_HD(index_t t) { to[t] = from[t]; });
            }
        }
        T* context = (r ? r->context : context_).get(policy_, before * columns);
        if (fading_) {
            attend_fading(l, x, temperature, *r, context);
        } else {
            float* const scores =
                leaving && columns > 0 && before > 0 ? scores_.get(policy_, before) : nullptr;
            attend(l, x, r ? r->projected : projected_, {},
                   !keep && w.masked_heads ? w.heads_mask.data() : nullptr, context, scores);
            if (scores) drop(l, scores, x, context, r);
        }
        const index_t tokens = left_.tokens(), n = w.output.inputs;
        if (use) {
            (*use)[l].kept += tokens;
            if (tokens < before && gone_counts_ && !model_.exits.empty())
                (*use)[l].guessed += b.sequences();
        }
        add(w.attention_output, w.attention_norm, tokens, context, x,
            keep ? r->attention_sum.get(policy_, tokens * d) : nullptr, x);
        T* const active = active_.get(policy_, tokens * n);
        activate(l, tokens, x, r ? r->before.get(policy_, tokens * n) : active,
                 !keep && w.masked_filters ? w.filters_mask.data() : nullptr, active);
        add(w.output, w.output_norm, tokens, active, x,
            keep ? r->output_sum.get(policy_, tokens * d) : nullptr, x);
    }
    return x;
}

template <class Policy, class T>
void device_network<Policy, T>::embed_rows(T* sum, T* x) {
    const index_t narrow = model_.config.narrow_embeddings, tokens = batch_.tokens();
    if (narrow == 0) return normalize_embeddings(sum, x);
    T* const normalized = narrow_.get(policy_, tokens * narrow);
    normalize_embeddings(sum, normalized);
    embedding_projection_.apply(policy_, tokens, normalized, x);
}

template <class Policy, class T>
void device_network<Policy, T>::normalize_embeddings(T* sum, T* x) {
    const index_t columns = model_.config.embedding_columns();
    const device::embeddings<T> of{batch_.ids(),
                                   batch_.places(),
                                   words_.data(),
                                   positions_.data() + model_.config.first_position * columns,
                                   model_.config.types > 0 ? types_.data() : nullptr,
                                   static_cast<std::uint32_t>(model_.config.vocabulary),
                                   columns};
    device::normalize(policy_, embedding_norm_, model_.config.layer_norm_epsilon, batch_.tokens(),
                      columns, of, sum, x);
}

template <class Policy, class T>
void device_network<Policy, T>::attend(std::size_t l, const T* x, buffer<T>& projections,
                                       const fading& soft, const float* mask, T* context,
                                       float* scores) {
    const dense_weights& qkv = layers_[l]->qkv;
    const index_t tokens = left_.tokens();
    T* const projected = projections.get(policy_, tokens * qkv.outputs);
    qkv.apply(policy_, tokens, x, projected);
    device::attention_forward(policy_, left_, in_rows<const T>(l, projected), soft,
                              by_distance(l, moved_ ? stood_.data() : nullptr), context, scores,
                              soft.key_bias ? pare::score_scale::relative : pruning_.scores,
                              attention_scratch_);
    if (mask)
        device::scale_columns(policy_, tokens, layers_[l]->attention_output.inputs, mask, context);
}

template <class Policy, class T>
void device_network<Policy, T>::add(const dense_weights& to, const device::norm<Policy>& after,
                                    index_t tokens, const T* in, const T* x, T* sum, T* y) {
    const index_t d = hidden();
    T* const products = products_.get(policy_, tokens * d);
    to.apply(policy_, tokens, in, products);
    device::normalize(policy_, after, model_.config.layer_norm_epsilon, tokens, d,
                      device::sum_of_rows<T, 2>{d, {x, products}}, sum, y);
}

template <class Policy, class T>
void device_network<Policy, T>::add_rows(const dense_weights& to, index_t tokens, const T* in,
                                         const T* x, T* sum) {
    to.apply(policy_, tokens, in, sum);
    const T* const products = sum;
    device::map(policy_, tokens * hidden(), device::plus(), sum, x, products);
}

template <class Policy, class T>
void device_network<Policy, T>::normalize_rows(const device::norm<Policy>& n, index_t tokens,
                                               const T* sum, T* y) {
    device::normalize(policy_, n, model_.config.layer_norm_epsilon, tokens, hidden(),
                      device::sum_of_rows<T, 1>{hidden(), {sum}}, static_cast<T*>(nullptr), y);
}

template <class Policy, class T>
void device_network<Policy, T>::activate(std::size_t l, index_t tokens, const T* x, T* before,
                                         const float* mask, T* active) {
    layers_[l]->intermediate.apply(policy_, tokens, x, before);
    activate_rows(l, tokens, before, active);
    if (mask) device::scale_columns(policy_, tokens, layers_[l]->output.inputs, mask, active);
}

template <class Policy, class T>
void device_network<Policy, T>::activate_rows(std::size_t l, index_t tokens, const T* before,
                                              T* active) {
    device::with_activation<T>(model_.config.activation, [&](auto f) {
        device::map(policy_, tokens * layers_[l]->output.inputs, device::value_of<decltype(f)>(),
                    active, before);
    });
}

template <class Policy, class T>
void device_network<Policy, T>::drop(std::size_t l, const float* scores, T*& x, T*& context,
                                     record* r) {
    const index_t tokens = left_.tokens(), d = hidden();
    const index_t columns = layers_[l]->attention_output.inputs;
    const auto layer = static_cast<index_t>(l);
    const bool by_threshold = pruning_.by == token_pruning::rule::threshold;
    const device::sequences behind = batch_.behind(layer);
    if (!by_threshold && behind.tokens() == tokens) {
        left_ = behind;
        return;
    }
    device::place* const positions = (r ? r->kept : kept_).get(policy_, tokens);
    float* const leaving =
        gone_counts_ ? (r ? r->leaving : leaving_).get(policy_, tokens) : nullptr;
    device::choose_tokens(policy_, left_, scores, !by_threshold,
                          static_cast<float>(pruning_.alpha * pruning_.numbers[l]),
                          staying_.get(policy_, left_.count), batch_.there_behind(layer), positions,
                          leaving);
    if (by_threshold) batch_.fetch(layer);
    // What the host need not know the number of tokens for, before it waits for that.
    if (leaving) leave(l, leaving, x, context);
    T *const rows = spare_.get(policy_, tokens * d), *const units = kept_context_.get(
                                                         policy_, tokens * columns);
    device::gather_rows<T>(policy_, by_threshold ? tokens : behind.tokens(), positions,
                           behind.there + behind.count, {x, rows, d}, {context, units, columns});
    if (model_.config.distance_buckets > 0) {
        const device::place* const stood = moved_ ? stood_.data() : batch_.places();
        const device::place* const count = behind.there + behind.count;
        device::place* const to = spare_stood_.get(policy_, tokens);
        policy_.for_each(tokens, [=] PARE_HD(index_t i) {
            if (i < *count) to[i] = stood[positions[i]];
        });
        std::swap(stood_, spare_stood_);
        moved_ = true;
    }
    if (by_threshold) batch_.wait();
    std::swap(stream_, spare_);
    x = rows;
    context = units;
    left_ = behind;
    if (r) r->stay = left_.tokens();
}

template <class Policy, class T>
void device_network<Policy, T>::leave(std::size_t l, const float* leaving, const T* x,
                                      const T* context) {
    const index_t d = hidden(), count = left_.count;
    float* const gone = gone_.data();
    const device::token_rows<T> of_x{x, d};
    if (model_.exits.empty())
        return device::weighted_sums(
            policy_, left_, of_x, {}, leaving,
            [=] PARE_HD(index_t s, index_t j, float sum, float) { gone[s * d + j] += sum; });
    const dense_weights& exit = layers_[l]->exit;
    const index_t inputs = exit.inputs;
    T* const sums = sums_.get(policy_, count * inputs);
    const T* const bias = exit.bias.data();
    device::weighted_sums(policy_, left_, of_x, {context, inputs - d}, leaving,
                          [=] PARE_HD(index_t s, index_t j, float sum, float many) {
                              sums[s * inputs + j] = static_cast<T>(sum);
                              if (j < d) gone[s * d + j] += many * static_cast<float>(bias[j]);
                          });
    exit.multiply(policy_, count, sums, gone, true);
}

template <class Policy, class T>
matrix device_network<Policy, T>::pooled(const T* x) {
    const bool per_token = model_.is_per_token();
    const index_t count = per_token ? left_.tokens() : left_.count;
    const index_t d = hidden(), size = count * d;
    float *const result = float_sums_.get(policy_, size), *const divisors =
                                                              divisors_.get(policy_, count);
    const device::place* const offsets = left_.there;
    if (per_token) {
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t t, index_t j) {
            result[t * d + j] = static_cast<float>(x[t * d + j]);
        });
    } else if (model_.config.pooling == pooling::max) {
        device::place* const largest = largest_.get(policy_, size);
        const float* const carry = fading_ ? carry_.data() : nullptr;
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
            if (j == 0) divisors[s] = 1;
            float most = 0;
            for (device::place t = offsets[s]; t < offsets[s + 1]; ++t) {
                float value = static_cast<float>(x[t * d + j]);
                // As to a key: one that is gone is never the largest.
                if (carry) value += std::log(carry[t] > least_carry ? carry[t] : least_carry);
                if (t > offsets[s] && !(value > most)) continue;
                most = value;
                largest[s * d + j] = t;
            }
            result[s * d + j] = most;
        });
    } else if (model_.config.pooling == pooling::cls) {
        device::for_elements(policy_, count, d, [=] PARE_HD(index_t s, index_t j) {
            if (j == 0) divisors[s] = 1;
            result[s * d + j] = static_cast<float>(x[offsets[s] * d + j]);
        });
    } else {
        const float* const gone = gone_counts_ ? gone_.data() : nullptr;
        const bool by_carry = fading_ && !gone;
        const device::place* const divided = gone ? came_.there : offsets;
        device::weighted_sums(
            policy_, left_, device::token_rows<T>{x, d}, {}, fading_ ? carry_.data() : nullptr,
            [=] PARE_HD(index_t s, index_t j, float sum, float carried) {
                const float by =
                    by_carry ? carried : static_cast<float>(divided[s + 1] - divided[s]);
                if (j == 0) divisors[s] = by;
                result[s * d + j] = (sum + (gone ? gone[s * d + j] : 0.f)) / by;
            });
    }
    return download(result, count, d);
}

} // namespace encoder
