// What learns a device_network: gradients, moments and weights in float, each kind one array in the
// memory of the network's policy.
#pragma once

#include "device_network.hpp"
#include "encoder/network/optimizer.hpp"

#include <cmath>
#include <stdexcept>

namespace encoder {
namespace device {

/// A model's weights in the order of device_network::for_weights.
inline std::vector<weight> stored_weights(model& m) {
    std::vector<weight> all;
    const auto add = [&](auto&... some) {
        (all.push_back({"", some.data(), some.rows(), some.cols()}), ...);
    };
    add(m.word_embeddings, m.position_embeddings, m.type_embeddings, m.embedding_norm.weight,
        m.embedding_norm.bias);
    if (m.config.narrow_embeddings > 0)
        add(m.embedding_projection.weight, m.embedding_projection.bias);
    for (layer& y : m.layers) {
        add(y.query.weight, y.key.weight, y.value.weight); // one matrix there
        add(y.query.bias, y.key.bias, y.value.bias);
        for (dense* d : {&y.attention_output, &y.intermediate, &y.output}) add(d->weight, d->bias);
        for (layer_norm* n : {&y.attention_norm, &y.output_norm}) add(n->weight, n->bias);
    }
    for (dense& exit : m.exits) add(exit.weight, exit.bias);
    if (m.head) {
        if (m.head->before) add(m.head->before->weight, m.head->before->bias);
        add(m.head->output.weight, m.head->output.bias);
    }
    return all;
}

/// Copies all weights of a model to an array in the policy's memory, or back.
template <class Policy>
void upload(const Policy& policy, model& from, float* to) {
    for (const weight& w : stored_weights(from)) {
        policy.copy_from_host(w.data, w.size(), to);
        to += w.size();
    }
}
template <class Policy>
void download(const Policy& policy, const float* from, model& to) {
    for (const weight& w : stored_weights(to)) {
        policy.copy_to_host(from, w.size(), w.data);
        from += w.size();
    }
}

} // namespace device

template <class Policy, class T>
template <class F>
void device_network<Policy, T>::for_weights(const F& f) {
    const index_t d = model_.config.embedding_columns();
    const auto of_dense = [&](auto& w) {
        f(w.weight, w.outputs, w.inputs);
        f(w.bias, w.outputs, index_t{1});
    };
    const auto of_norm = [&](device::norm<Policy>& n, index_t columns) {
        f(n.weight, columns, index_t{1});
        f(n.bias, columns, index_t{1});
    };
    f(words_, model_.config.vocabulary, d);
    f(positions_, model_.config.positions, d);
    f(types_, model_.config.types, d);
    of_norm(embedding_norm_, d);
    if (model_.config.narrow_embeddings > 0) of_dense(embedding_projection_);
    for (const auto& w : layers_) {
        of_dense(w->qkv);
        for (dense_weights* y : {&w->attention_output, &w->intermediate, &w->output}) of_dense(*y);
        for (device::norm<Policy>* n : {&w->attention_norm, &w->output_norm}) of_norm(*n, hidden());
    }
    if (!model_.exits.empty())
        for (const auto& w : layers_) of_dense(w->exit);
    for_head([&](dense&, auto& w) { of_dense(w); });
}

template <class Policy, class T>
void device_network<Policy, T>::fetch_weights() const {
    device::download(policy_, master_.data(), model_);
    learned_ = false;
}

template <class Policy, class T>
class device_learner : public learner {
    using index_t = pare::index_t;
    template <class Element>
    using parameter = device::parameter<Element, Policy>;

  public:
    explicit device_learner(device_network<Policy, T>& net) : net_(net) {
        if (net.learned_) net.fetch_weights();
        for (const weight& w : device::stored_weights(net.model_)) size_ += w.size();
        device::upload(policy(), net.model_, net.master_.get(policy(), size_));
        for (device::buffer<float, Policy>* of : {&gradients_, &first_, &second_})
            device::fill(policy(), of->get(policy(), size_), size_, 0);
        for_places(
            [&](auto& p, index_t at, index_t, index_t) { p.gradient = gradients_.data() + at; });
    }
    device_learner(const device_learner&) = delete;

    void learn(const batch& b, const engine::loss_gradient& loss, const learning& how) override {
        const std::size_t depth = net_.layers_.size();
        check(how, depth);
        found_.begin(depth);
        typename device_network<Policy, T>::lesson lesson{how, found_, lift_};
        net_.backward(b, loss, nullptr, &lesson);
    }
    token_gradients& found() override { return found_; }

    void step(std::vector<double>& thresholds, const step_size& size) override {
        const float* const g = gradients_.data();
        const double squares = policy().sum_in_double(size_, [=] PARE_HD(index_t i) {
            return static_cast<double>(g[i]) * static_cast<double>(g[i]);
        });
        if (!std::isfinite(squares))
            throw std::runtime_error(
                "the gradients are not finite; fp16 may be too short for them");
        const float lift = lift_ > 0 ? lift_ : 1.f;
        step_factors by(size, ++state_.steps, std::sqrt(squares) / static_cast<double>(lift));
        by.clip /= lift;
        for_places([&](auto& p, index_t at, index_t rows, index_t columns) {
            change(p, at, rows, columns, by);
        });
        net_.learned_ = true;
        net_.for_head([&](dense& to, const auto& from) { // outputs are made on the host
            policy().copy_to_host(from.weight.data(), to.weight.size(), to.weight.data());
            policy().copy_to_host(from.bias.data(), to.bias.size(), to.bias.data());
        });
        lift_ = 0;
        step_thresholds(state_, thresholds, found_.thresholds, size);
    }

    void update(const std::function<void(moments&)>& change) override {
        state_.first = zeros_like(net_.model());
        state_.second = state_.first;
        device::download(policy(), first_.data(), state_.first);
        device::download(policy(), second_.data(), state_.second);
        change(state_);
        device::upload(policy(), state_.first, first_.data());
        device::upload(policy(), state_.second, second_.data());
        state_.first = state_.second = {};
    }

    // Public, because nvcc asks for that where lambdas go to the device.

    /// A step of the weights p, which are `at` in the arrays.
    template <class Element>
    void change(parameter<Element>& p, index_t at, index_t rows, index_t columns,
                const step_factors& by) {
        float *const x = net_.master_.data() + at, *const dx = gradients_.data() + at,
                     *const first = first_.data() + at, *const second = second_.data() + at;
        Element* const stored = p.data();
        const float kept = by.kept(columns > 1);
        float* some = nullptr; // whether there is a gradient, for rows that may have none
        if (at == 0) {         // the word embeddings
            some = present_.get(policy(), rows);
            device::row_sums(
                policy(), rows, columns,
                [=] PARE_HD(index_t i, index_t j) { return dx[i * columns + j] != 0 ? 1.f : 0.f; },
                [=] PARE_HD(index_t i, float sum) { some[i] = sum; });
        }
        device::for_elements(policy(), rows, columns, [=] PARE_HD(index_t row, index_t j) {
            if (some && some[row] == 0) return;
            const index_t i = row * columns + j;
            const float g = by.clip * dx[i];
            const float m = by.b1 * first[i] + (1 - by.b1) * g;
            const float v = by.b2 * second[i] + (1 - by.b2) * g * g;
            first[i] = m;
            second[i] = v;
            x[i] = kept * x[i] - by.rate * m / (std::sqrt(v) * by.root + by.epsilon);
            stored[i] = static_cast<Element>(x[i]);
            dx[i] = 0;
        });
    }

  private:
    const Policy& policy() const { return net_.policy_; }

    /// f(array, its place, rows, columns) for all weights.
    template <class F>
    void for_places(const F& f) {
        index_t at = 0;
        net_.for_weights([&](auto& p, index_t rows, index_t columns) {
            f(p, at, rows, columns);
            at += rows * columns;
        });
    }

    device_network<Policy, T>& net_;
    index_t size_ = 0;
    device::buffer<float, Policy> gradients_, first_, second_, present_;
    float lift_ = 0; // of the gradients
    token_gradients found_;
    moments state_; // without those of weights
};

} // namespace encoder
