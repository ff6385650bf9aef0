// What a network does with rows in the memory of a Thrust policy besides attention. T is the type
// that they are stored in, float or a half type; sums are made in float or double.
#pragma once

#include "device_normalize.hpp"
#include "device_sums.hpp"
#include "device_tokens.hpp"

#include <cmath>

namespace encoder::device {

/// f(i, j) for each element of a matrix.
template <class Policy, class F>
void for_elements(const Policy& policy, index_t rows, index_t columns, const F& f) {
    policy.for_each(rows * columns, [=] PARE_HD(index_t at) {
        if (at < index_t{1} << 32) { // GPUs divide short numbers in a fraction of the time
            const auto n = static_cast<std::uint32_t>(columns), i = static_cast<std::uint32_t>(at);
            f(static_cast<index_t>(i / n), static_cast<index_t>(i % n));
        } else {
            f(at / columns, at % columns);
        }
    });
}

template <class Policy, class T>
void fill(const Policy& policy, T* x, index_t count, float value) {
    policy.for_each(count, [=] PARE_HD(index_t i) { x[i] = static_cast<T>(value); });
}

/// Threads that a row is shared by, so that neighbouring threads read neighbouring numbers.
inline constexpr index_t lanes = 16;

/// Of what half types need; on a GPU an instruction or two.
PARE_HD inline float short_exp(float x) {
#ifdef __CUDA_ARCH__
    return __expf(x);
#else
    return std::exp(x);
#endif
}
PARE_HD inline float short_inverse(float x) {
#ifdef __CUDA_ARCH__
    return __fdividef(1.f, x);
#else
    return 1 / x;
#endif
}

// Activations: f(x) and f'(x), as exact as T is.
template <class T>
struct gelu {
    PARE_HD static float value(float x) { return x * gate(x, bell(x)); }
    PARE_HD static float slope(float x) {
        const float y = bell(x);
        return gate(x, y) + x * 0.39894228f * y;
    }

  private:
    static constexpr bool is_short = sizeof(T) < sizeof(float);

    PARE_HD static float bell(float x) {
        return is_short ? short_exp(-0.5f * x * x) : std::exp(-0.5f * x * x);
    }
    /// The distribution function of a normal number, given bell(x); for half types up to 7.5e-8, by
    /// formula 7.1.26 of Abramowitz and Stegun's handbook.
    PARE_HD static float gate(float x, [[maybe_unused]] float y) {
        if constexpr (is_short) {
            const float t = short_inverse(1 + 0.23164189f * std::abs(x));
            const float beyond = // half of 1 - erf(|x| / sqrt(2))
                t * y *
                (0.127414796f +
                 t * (-0.142248368f +
                      t * (0.7107068705f + t * (-0.7265760135f + t * 0.5307027145f))));
            return x > 0 ? 1 - beyond : beyond;
        } else {
            return 0.5f * std::erfc(-0.70710678f * x);
        }
    }
};
template <class T>
struct gelu_tanh { // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
    PARE_HD static float value(float x) { return x * gate(x); }
    PARE_HD static float slope(float x) {
        const float g = gate(x);
        return g + x * (linear + 3 * cubic * x * x) * g * (1 - g);
    }

  private:
    static constexpr float linear = 1.5957691f, cubic = 0.071354816f;
    PARE_HD static float gate(float x) {
        const float u = -(linear * x + cubic * x * x * x);
        return sizeof(T) < sizeof(float) ? short_inverse(1 + short_exp(u)) : 1 / (1 + std::exp(u));
    }
};
template <class T>
struct relu {
    PARE_HD static float value(float x) { return x > 0 ? x : 0.f; }
    PARE_HD static float slope(float x) { return x > 0 ? 1.f : 0.f; }
};
template <class F>
struct value_of {
    PARE_HD float operator()(float x) const { return F::value(x); }
};
template <class F>
struct slope_times {
    PARE_HD float operator()(float x, float gradient) const { return F::slope(x) * gradient; }
};
/// f(one of those).
template <class T, class F>
void with_activation(activation of, const F& f) {
    switch (of) {
    case activation::gelu:
        return f(gelu<T>());
    case activation::gelu_tanh:
        return f(gelu_tanh<T>());
    case activation::relu:
        return f(relu<T>());
    }
}

/// store(t, the sum of f(t, j) over all j) for each row.
template <class Policy, class F, class Store>
void row_sums(const Policy& policy, index_t rows, index_t columns, const F& f, const Store& store) {
    const auto memory = policy.template temporary<float>(rows * lanes);
    float* const parts = memory.data();
    policy.for_each(rows * lanes, [=] PARE_HD(index_t at) {
        float sum = 0;
        for (index_t j = at % lanes; j < columns; j += lanes) sum += f(at / lanes, j);
        parts[at] = sum;
    });
    policy.for_each(rows, [=] PARE_HD(index_t t) {
        float sum = 0;
        for (index_t lane = t * lanes; lane < (t + 1) * lanes; ++lane) sum += parts[lane];
        store(t, sum);
    });
}

/// to[j] += the sum of f(t, j) over all rows, added up in an order that depends on the shape alone.
template <class Policy, class F>
void add_column_sums(const Policy& policy, index_t rows, index_t columns, const F& f, float* to) {
    constexpr index_t pieces = 64; // enough threads for a narrow matrix
    policy.sum_pieces(
        1, pieces, columns, 1,
        [=] PARE_HD(index_t, index_t piece, index_t j) {
            double sum = 0;
            for (index_t t = piece; t < rows; t += pieces) sum += static_cast<double>(f(t, j));
            return sum;
        },
        [=] PARE_HD(index_t, index_t j, double sum) { to[j] += static_cast<float>(sum); });
}
/// Of x [rows x columns].
template <class Policy, class T>
void add_column_sums(const Policy& policy, const T* x, index_t rows, index_t columns, float* to) {
    const auto element = [=] PARE_HD(index_t t, index_t j) {
        return static_cast<float>(x[t * columns + j]);
    };
    add_column_sums(policy, rows, columns, element, to);
}

/// to[t, j] += shares[t] * from[s, j] for the tokens t of each sequence s, to [tokens x columns], rows
/// of `from` a `stride` apart.
template <class Policy, class T>
void add_shares(const Policy& policy, const sequences& batch, const float* shares, const T* from,
                index_t stride, index_t columns, T* to) {
    const place* const offsets = batch.there;
    const index_t count = batch.count;
    for_elements(policy, batch.tokens(), columns, [=] PARE_HD(index_t t, index_t j) {
        const index_t s = pare::detail::segment_of(offsets, count, t);
        T& y = to[t * columns + j];
        y = static_cast<T>(static_cast<float>(y) +
                           shares[t] * static_cast<float>(from[s * stride + j]));
    });
}

/// Adds to a dense layer's gradients what rows of its inputs x and of the gradients at its outputs y
/// mean.
template <class Policy, class T>
void add_gradients(const Policy& policy, const dense_weights<T, Policy>& to, index_t rows,
                   const T* x, const T* y) {
    to.add_weight_gradient(policy, rows, x, y);
    add_column_sums(policy, y, rows, to.outputs, to.bias.gradient);
}

/// Replaces the gradient at what normalize() gives of rows `sum` by that at them; if `learn`, adds
/// to the gradients of weight and bias.
template <class Policy, class T>
void normalize_backward(const Policy& policy, const norm<Policy>& n, float epsilon, index_t rows,
                        index_t columns, const T* sum, T* gradient, bool learn) {
    if (learn) {
        const auto memory = policy.template temporary<float>(2 * rows);
        float* const found = memory.data();
        normalize_backward(policy, n, epsilon, rows, columns, sum, gradient, found);
        const auto of_weight = [=] PARE_HD(index_t t, index_t j) {
            const float s = static_cast<float>(sum[t * columns + j]) - found[2 * t];
            return static_cast<float>(gradient[t * columns + j]) * s * found[2 * t + 1];
        };
        add_column_sums(policy, rows, columns, of_weight, n.weight.gradient);
        add_column_sums(policy, gradient, rows, columns, n.bias.gradient);
    }
    normalize_backward(policy, n, epsilon, rows, columns, sum, gradient,
                       static_cast<float*>(nullptr));
}

} // namespace encoder::device
