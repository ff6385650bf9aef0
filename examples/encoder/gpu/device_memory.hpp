// What a network has in the memory of a Thrust policy, its own on a GPU: numbers and parameters. T is
// the type that they are stored in, float or a half type.
#pragma once

#include "encoder/files/model.hpp"

#include <pare/policy/thrust.hpp>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace encoder::device {

using pare::index_t;
using pare::view;

/// What a policy refers to, such as a stream, with its name.
struct home {
    explicit home(std::string of) : name(std::move(of)) {}
    virtual ~home() = default;
    std::string name;
};

/// Memory of the policy that grows and is used again.
template <class T, class Policy>
class buffer {
  public:
    /// Room for `count` elements, uninitialised; valid until the next call.
    T* get(const Policy& policy, index_t count) {
        if (!memory_ || count > size_) {
            memory_.reset(); // what is there and what comes need not fit beside each other
            memory_.reset(new memory(policy.template temporary<T>(count)));
            size_ = count;
        }
        return memory_->data();
    }
    /// What the last call gave, or null.
    T* data() const { return memory_ ? memory_->data() : nullptr; }

  private:
    using memory = decltype(std::declval<const Policy&>().template temporary<T>(index_t{}));
    std::unique_ptr<memory> memory_;
    index_t size_ = 0;
};

/// One of the weights, and where its learner adds up its gradient.
template <class T, class Policy>
struct parameter : buffer<T, Policy> {
    float* gradient = nullptr;
};

/// A normalisation's parameters in the policy's memory.
template <class Policy>
struct norm {
    parameter<float, Policy> weight, bias;
};

/// A dense layer's parameters in the policy's memory.
template <class T, class Policy>
struct dense_weights {
    parameter<T, Policy> weight; // [outputs x inputs]
    parameter<T, Policy> bias;
    index_t outputs = 0, inputs = 0;

    /// y [rows x outputs] = x [rows x inputs] weight' + bias.
    void apply(const Policy& policy, index_t rows, const T* x, T* y) const {
        policy.affine(view<const T, 2>(x, rows, inputs),
                      view<const T, 2>(weight.data(), outputs, inputs),
                      view<const T, 1>(bias.data(), outputs), view<T, 2>(y, rows, outputs));
    }
    /// y [rows x outputs] = x [rows x inputs] weight', added to y if `add`.
    template <class Out>
    void multiply(const Policy& policy, index_t rows, const T* x, Out* y, bool add = false) const {
        policy.multiply(view<const T, 3>(x, 1, rows, inputs),
                        view<const T, 3>(weight.data(), {1, inputs, outputs}, {0, 1, inputs}),
                        view<Out, 3>(y, 1, rows, outputs), add);
    }
    /// The adjoint: x [rows x inputs] = y [rows x outputs] weight, added to x if `add`.
    void multiply_back(const Policy& policy, index_t rows, const T* y, T* x,
                       bool add = false) const {
        policy.multiply(view<const T, 3>(y, 1, rows, outputs),
                        view<const T, 3>(weight.data(), 1, outputs, inputs),
                        view<T, 3>(x, 1, rows, inputs), add);
    }
    /// Adds y' x to the weight's gradient, for rows of inputs x and of gradients at the outputs y.
    void add_weight_gradient(const Policy& policy, index_t rows, const T* x, const T* y) const {
        policy.multiply(view<const T, 3>(y, {1, outputs, rows}, {0, 1, outputs}),
                        view<const T, 3>(x, 1, rows, inputs),
                        view<float, 3>(weight.gradient, 1, outputs, inputs), true);
    }
};

/// Numbers of the host's memory in the policy's, as T.
template <class T, class Policy>
void upload(const Policy& policy, const float* from, index_t count, buffer<T, Policy>& to) {
    T* const out = to.get(policy, count);
    if (count == 0) return;
    if constexpr (std::is_same_v<T, float>) {
        policy.copy_from_host(from, count, out);
    } else {
        const auto memory = policy.template temporary<float>(count);
        float* const all = memory.data();
        policy.copy_from_host(from, count, all);
        policy.for_each(count, [=] PARE_HD(index_t i) { out[i] = static_cast<T>(all[i]); });
    }
}
template <class Policy>
void upload(const Policy& policy, const layer_norm& from, norm<Policy>& to) {
    upload(policy, from.weight.data(), from.weight.size(), to.weight);
    upload(policy, from.bias.data(), from.bias.size(), to.bias);
}
template <class T, class Policy>
void upload(const Policy& policy, const dense& from, dense_weights<T, Policy>& to) {
    to.outputs = from.weight.rows();
    to.inputs = from.weight.cols();
    upload(policy, from.weight.data(), from.weight.size(), to.weight);
    upload(policy, from.bias.data(), from.bias.size(), to.bias);
}

} // namespace encoder::device
