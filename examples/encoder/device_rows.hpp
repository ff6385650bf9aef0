// What a network does with rows in the memory of a Thrust policy besides attention. T is the type
// that they are stored in, float or a half type; sums are made in float or double.
#pragma once

#include "device_memory.hpp"

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

/// For rows s(t, j) = f(t, j), which `sum` [rows x columns] gets: y = (s - mean) / deviation *
/// weight + bias. `sum` and y may be one, and f may read what they held at its place.
template <class Policy, class T, class F>
void normalize(const Policy& policy, const norm<Policy>& n, float epsilon, index_t rows,
               index_t columns, const F& f, T* sum, T* y) {
    const auto memory = policy.template temporary<double>(2 * rows * lanes);
    double* const moments = memory.data(); // parts of the sums of s and of s^2
    const float *const weight = n.weight.data(), *const bias = n.bias.data();
    policy.for_each(rows * lanes, [=] PARE_HD(index_t at) {
        const index_t t = at / lanes;
        double total = 0, squares = 0;
        for (index_t j = at % lanes; j < columns; j += lanes) {
            const T stored = static_cast<T>(f(t, j));
            sum[t * columns + j] = stored;
            const auto value = static_cast<double>(static_cast<float>(stored));
            total += value;
            squares += value * value;
        }
        moments[2 * at] = total;
        moments[2 * at + 1] = squares;
    });
    policy.for_each(rows * lanes, [=] PARE_HD(index_t at) {
        const index_t t = at / lanes;
        double total = 0, squares = 0;
        for (index_t lane = t * lanes; lane < (t + 1) * lanes; ++lane) {
            total += moments[2 * lane];
            squares += moments[2 * lane + 1];
        }
        const double mean = total / static_cast<double>(columns);
        const double variance = squares / static_cast<double>(columns) - mean * mean;
        const auto inverse = static_cast<float>(
            1 / std::sqrt((variance > 0 ? variance : 0.0) + static_cast<double>(epsilon)));
        for (index_t j = at % lanes; j < columns; j += lanes) {
            const float x = static_cast<float>(sum[t * columns + j]) - static_cast<float>(mean);
            y[t * columns + j] = static_cast<T>(x * inverse * weight[j] + bias[j]);
        }
    });
}

/// f(x) of an activation.
PARE_HD inline float activated(activation f, float x) {
    switch (f) {
    case activation::gelu:
        return 0.5f * x * std::erfc(-0.70710678f * x);
    case activation::gelu_tanh: // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
        return x / (1 + std::exp(-(1.5957691f * x + 0.071354816f * x * x * x)));
    case activation::relu:
        break;
    }
    return x > 0 ? x : 0.f;
}

/// f'(x).
PARE_HD inline float slope(activation f, float x) {
    switch (f) {
    case activation::gelu:
        return 0.5f * std::erfc(-0.70710678f * x) + x * 0.39894228f * std::exp(-0.5f * x * x);
    case activation::gelu_tanh: {
        const float linear = 1.5957691f, cubic = 0.071354816f;
        const float gate = 1 / (1 + std::exp(-(linear * x + cubic * x * x * x)));
        return gate + x * (linear + 3 * cubic * x * x) * gate * (1 - gate);
    }
    case activation::relu:
        break;
    }
    return x > 0 ? 1.f : 0.f;
}

/// Replaces the gradient at what normalize() gives of rows `sum` by that at them.
template <class Policy, class T>
void normalize_backward(const Policy& policy, const norm<Policy>& n, float epsilon, index_t rows,
                        index_t columns, const T* sum, T* gradient) {
    const auto memory = policy.template temporary<double>(4 * rows * lanes);
    double* const moments = memory.data(); // parts of the sums of s, s^2, g and g s
    const float* const weight = n.weight.data();
    policy.for_each(rows * lanes, [=] PARE_HD(index_t at) {
        const index_t t = at / lanes;
        double parts[4] = {};
        for (index_t j = at % lanes; j < columns; j += lanes) {
            const auto s = static_cast<double>(static_cast<float>(sum[t * columns + j]));
            const auto g =
                static_cast<double>(static_cast<float>(gradient[t * columns + j]) * weight[j]);
            parts[0] += s;
            parts[1] += s * s;
            parts[2] += g;
            parts[3] += g * s;
        }
        for (index_t i = 0; i < 4; ++i) moments[4 * at + i] = parts[i];
    });
    policy.for_each(rows * lanes, [=] PARE_HD(index_t at) {
        const index_t t = at / lanes;
        double means[4] = {};
        for (index_t lane = t * lanes; lane < (t + 1) * lanes; ++lane)
            for (index_t i = 0; i < 4; ++i) means[i] += moments[4 * lane + i];
        for (index_t i = 0; i < 4; ++i) means[i] /= static_cast<double>(columns);
        const double variance = means[1] - means[0] * means[0];
        const double squared = 1 / ((variance > 0 ? variance : 0.0) + static_cast<double>(epsilon));
        // What changes the mean or the length of s has no effect.
        const auto along_s = static_cast<float>((means[3] - means[0] * means[2]) * squared);
        const auto mean = static_cast<float>(means[0]), along_ones = static_cast<float>(means[2]);
        const auto inverse = static_cast<float>(std::sqrt(squared));
        for (index_t j = at % lanes; j < columns; j += lanes) {
            T& g = gradient[t * columns + j];
            const float s = static_cast<float>(sum[t * columns + j]) - mean;
            g = static_cast<T>((static_cast<float>(g) * weight[j] - along_ones - s * along_s) *
                               inverse);
        }
    });
}

/// Sums of squares of rows [rows x columns].
template <class Policy, class T>
void squared_lengths(const Policy& policy, index_t rows, index_t columns, const T* x,
                     float* squares) {
    const auto memory = policy.template temporary<float>(rows * lanes);
    float* const parts = memory.data();
    policy.for_each(rows * lanes, [=] PARE_HD(index_t at) {
        float sum = 0;
        for (index_t j = at % lanes; j < columns; j += lanes) {
            const auto value = static_cast<float>(x[at / lanes * columns + j]);
            sum += value * value;
        }
        parts[at] = sum;
    });
    policy.for_each(rows, [=] PARE_HD(index_t t) {
        float sum = 0;
        for (index_t lane = t * lanes; lane < (t + 1) * lanes; ++lane) sum += parts[lane];
        squares[t] = sum;
    });
}

} // namespace encoder::device
