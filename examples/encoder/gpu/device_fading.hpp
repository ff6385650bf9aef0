// Tokens that leave a device_network while it learns: soft masks and their gradients, and the way
// back of what was dropped.
#pragma once

#include "device_network.hpp"

#include <pare/gather.hpp>
#include <pare/soft_mask.hpp>

namespace encoder {

template <class Policy, class T>
void device_network<Policy, T>::attend_fading(std::size_t l, const T* x, double temperature,
                                              record& r, T* context) {
    const index_t tokens = left_.tokens();
    float *const left = carry_.data(), *const came = r.carry.get(policy_, tokens),
                 *const key_bias = r.key_bias.get(policy_, tokens),
                 *const scores = r.scores.get(policy_, tokens),
                 *const mask = r.mask.get(policy_, tokens),
                 *const leaving = r.leaving.get(policy_, tokens);
    policy_.for_each(tokens, [=] PARE_HD(index_t t) {
        came[t] = left[t];
        key_bias[t] = std::log(left[t] > least_carry ? left[t] : least_carry);
    });
    attend(l, x, r.projected, {key_bias, came}, nullptr, context, scores);
    if (layers_[l]->attention_output.inputs == 0) { // nothing says who matters
        device::fill(policy_, mask, tokens, 1);
    } else {
        if (pruning_.scores == pare::score_scale::per_query) {
            float* const sums = counts_.get(policy_, left_.count);
            device::token_sums(policy_, left_, came, sums);
            const device::place* const offsets = left_.there;
            const index_t count = left_.count;
            policy_.for_each(tokens, [=] PARE_HD(index_t t) {
                scores[t] /= sums[pare::detail::segment_of(offsets, count, t)];
            });
        }
        pare::soft_mask(policy_, view<const float, 1>(scores, tokens),
                        pruning_.alpha * pruning_.numbers[l], temperature,
                        view<float, 1>(mask, tokens));
    }
    const device::place* const places = batch_.places();
    policy_.for_each(tokens, [=] PARE_HD(index_t t) {
        if (places[t] == 0) mask[t] = 1; // the first token stays
        left[t] = came[t] * mask[t];
        leaving[t] = came[t] - left[t];
    });
    if (gone_counts_) leave(l, leaving, x, context);
}

template <class Policy, class T>
void device_network<Policy, T>::count_left(std::size_t l, lesson& learn) {
    token_gradients& found = learn.found;
    const index_t sequences = left_.count, tokens = left_.tokens();
    if (!fading_) {
        found.left[l] = 0;
        for (index_t s = 0; s < sequences; ++s)
            found.left[l] += static_cast<double>(left_.length(s)) /
                             static_cast<double>(came_.length(s)) / static_cast<double>(sequences);
        return;
    }
    const double price = learn.how.weights.empty() ? 0 : learn.how.weights[l];
    const float* const left =
        l + 1 < layers_.size() ? records_[l + 1]->carry.data() : carry_.data();
    const view<float, 1> at_carry(at_carry_.data(), tokens);
    found.left[l] =
        pare::mask_penalty(policy_, view<const float, 1>(left, tokens), left_.offsets(),
                           static_cast<double>(learn.lift) * learn.how.lambda * price, at_carry);

    // A threshold's part in what is left behind its layer and those above: -left (1 - mask) /
    // temperature, the mask being that of its layer.
    float* const weighted = weighted_.data();
    const float* const mask = records_[l]->mask.data();
    const device::place* const offsets = left_.there;
    const device::place* const places = batch_.places();
    const auto weight = static_cast<float>(price);
    policy_.for_each(tokens, [=] PARE_HD(index_t t) { weighted[t] += weight * left[t]; });
    const double sum = policy_.sum_in_double(tokens, [=] PARE_HD(index_t t) {
        const index_t s = pare::detail::segment_of(offsets, sequences, t);
        const float part = places[t] > 0 ? weighted[t] * (1 - mask[t]) : 0.f;
        return static_cast<double>(part) / static_cast<double>(offsets[s + 1] - offsets[s]);
    });
    found.left_by_threshold[l] = -sum / learn.how.temperature / static_cast<double>(sequences);
}

template <class Policy, class T>
void device_network<Policy, T>::undrop(std::size_t l, const record& r, T*& gradient,
                                       T*& context_gradient) {
    const index_t tokens = r.came.tokens(), d = hidden();
    const index_t columns = layers_[l]->attention_output.inputs;
    T *const all = spare_.get(policy_, tokens * d), *const context = restored_units_.get(
                                                        policy_, tokens * columns);
    device::fill(policy_, all, tokens * d, 0);
    device::fill(policy_, context, tokens * columns, 0);
    pare::restore(policy_, view<const device::place, 1>(r.kept.data(), r.stay),
                  pare::from_to(view<const T, 2>(gradient, r.stay, d), view<T, 2>(all, tokens, d)),
                  pare::from_to(view<const T, 2>(context_gradient, r.stay, columns),
                                view<T, 2>(context, tokens, columns)));
    std::swap(stream_, spare_); // the stream's place has the gradient again
    gradient = all;
    context_gradient = context;
    left_ = r.came;
}

template <class Policy, class T>
void device_network<Policy, T>::leave_backward(std::size_t l, const record& r, T* gradient,
                                               T* context_gradient, float* at_leaving) {
    const dense_weights& exit = layers_[l]->exit;
    const bool guessed = !model_.exits.empty();
    const index_t count = left_.count, tokens = left_.tokens(), d = hidden();
    const index_t columns = guessed ? exit.inputs - d : 0, inputs = d + columns;
    const T *const at_gone = at_gone_.data(), *at_sums = at_gone; // [sequences x inputs]
    float* const at_counts = at_counts_.get(policy_, count);
    device::fill(policy_, at_counts, count, 0);
    if (guessed) {
        T* const through = at_sums_.get(policy_, count * inputs);
        exit.multiply_back(policy_, count, at_gone, through);
        at_sums = through;
        const T* const bias = exit.bias.data();
        device::row_sums(
            policy_, count, d,
            [=] PARE_HD(index_t s, index_t j) {
                return static_cast<float>(at_gone[s * d + j]) * static_cast<float>(bias[j]);
            },
            [=] PARE_HD(index_t s, float sum) { at_counts[s] = sum; });
        T* const sums = sums_.get(policy_, count * inputs);
        float* const counts = counts_.get(policy_, count);
        device::weighted_sums(policy_, left_, device::token_rows<T>{r.input.data(), d},
                              {r.context.data(), columns}, r.leaving.data(),
                              [=] PARE_HD(index_t s, index_t j, float sum, float many) {
                                  sums[s * inputs + j] = static_cast<T>(sum);
                                  if (j == 0) counts[s] = many;
                              });
        exit.add_weight_gradient(policy_, count, sums, at_gone);
        device::add_column_sums(
            policy_, count, d,
            [=] PARE_HD(index_t s, index_t j) {
                return static_cast<float>(at_gone[s * d + j]) * counts[s];
            },
            exit.bias.gradient);
    }
    const device::place* const offsets = left_.there;
    const float* const leaving = r.leaving.data();
    device::add_shares(policy_, left_, leaving, at_sums, inputs, d, gradient);
    device::add_shares(policy_, left_, leaving, at_sums + d, inputs, columns, context_gradient);
    if (!at_leaving) return;
    const T *const input = r.input.data(), *const context = r.context.data();
    device::row_sums(
        policy_, tokens, inputs,
        [=] PARE_HD(index_t t, index_t j) {
            const index_t s = pare::detail::segment_of(offsets, count, t);
            const T x = j < d ? input[t * d + j] : context[t * columns + j - d];
            return static_cast<float>(x) * static_cast<float>(at_sums[s * inputs + j]);
        },
        [=] PARE_HD(index_t t, float sum) {
            at_leaving[t] = sum + at_counts[pare::detail::segment_of(offsets, count, t)];
        });
}

template <class Policy, class T>
void device_network<Policy, T>::fade_backward(std::size_t l, const record& r, lesson& learn,
                                              T* gradient, T* context_gradient) {
    const index_t tokens = left_.tokens(), count = left_.count;
    const bool heads = layers_[l]->attention_output.inputs > 0;
    float *const at_leaving = at_leaving_.get(policy_, tokens),
                 *const at_scores = at_scores_.get(policy_, tokens),
                 *const at_carry = at_carry_.data();
    device::fill(policy_, at_leaving, tokens, 0);
    if (gone_counts_) leave_backward(l, r, gradient, context_gradient, at_leaving);
    const float *const carry = r.carry.data(), *const mask = r.mask.data();
    const device::place* const places = batch_.places();
    policy_.for_each(tokens, [=] PARE_HD(index_t t) {
        // left = came * mask, and what leaves is the rest.
        const float left = at_carry[t] - at_leaving[t];
        at_scores[t] = heads && places[t] > 0 ? left * carry[t] : 0.f;
        at_carry[t] = left * mask[t] + at_leaving[t];
    });
    const view<float, 1> of_scores(at_scores, tokens);
    learn.found.thresholds[l] +=
        pruning_.alpha *
        pare::soft_mask_backward(policy_, view<const float, 1>(mask, tokens), of_scores,
                                 learn.how.temperature, of_scores) /
        static_cast<double>(learn.lift);
    if (!heads || pruning_.scores == pare::score_scale::relative) return;

    // A score is the relative one divided by what is left of its sequence.
    const float* const scores = r.scores.data();
    const device::place* const offsets = left_.there;
    float *const left = counts_.get(policy_, count), *const change = at_counts_.get(policy_, count);
    policy_.for_each(tokens, [=] PARE_HD(index_t t) { at_leaving[t] = at_scores[t] * scores[t]; });
    device::token_sums(policy_, left_, carry, left);
    device::token_sums(policy_, left_, at_leaving, change);
    policy_.for_each(tokens, [=] PARE_HD(index_t t) {
        const index_t s = pare::detail::segment_of(offsets, count, t);
        at_scores[t] /= left[s];
        at_carry[t] -= change[s] / left[s];
    });
}

template <class Policy, class T>
void device_network<Policy, T>::carry_backward(const record& r) {
    float* const at_carry = at_carry_.data();
    const float *const carry = r.carry.data(), *const of_log = at_key_bias_.data(),
                       *const of_query = at_query_weights_.data();
    policy_.for_each(left_.tokens(), [=] PARE_HD(index_t t) {
        at_carry[t] += of_query[t] + (carry[t] > least_carry ? of_log[t] / carry[t] : 0.f);
    });
}

} // namespace encoder
