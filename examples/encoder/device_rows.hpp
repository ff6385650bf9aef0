// What a network does with rows in the memory of a Thrust policy besides attention. T is the type
// that they are stored in, float or a half type; sums are made in float or double.
#pragma once

#include "device_memory.hpp"

#include <pare/fisher.hpp>

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

/// store(s, j, the sum of weights[t] * x[t, j] over the tokens of sequence s), for x [tokens x
/// columns].
template <class Policy, class T, class Store>
void weighted_sums(const Policy& policy, const sequences<Policy>& batch, const T* x,
                   index_t columns, const float* weights, const Store& store) {
    constexpr index_t pieces = 8; // of any sequence, so that its sums do not depend on others
    const std::int64_t* const offsets = batch.there().data_handle();
    policy.sum_pieces(
        batch.count(), pieces, columns, 1,
        [=] PARE_HD(index_t s, index_t piece, index_t j) {
            double sum = 0;
            for (index_t t = offsets[s] + piece; t < offsets[s + 1]; t += pieces)
                sum += static_cast<double>(weights[t] * static_cast<float>(x[t * columns + j]));
            return sum;
        },
        [=] PARE_HD(index_t s, index_t j, double sum) { store(s, j, static_cast<float>(sum)); });
}
/// Sums of numbers of each sequence's tokens.
template <class Policy>
void token_sums(const Policy& policy, const sequences<Policy>& batch, const float* x, float* sums) {
    pare::sample_sums(policy, view<const float, 2>(x, batch.tokens(), index_t{1}), batch.there(),
                      view<float, 2>(sums, batch.count(), index_t{1}));
}

/// to[t, j] += shares[t] * from[s, j] for the tokens t of each sequence s, to [tokens x columns], rows
/// of `from` a `stride` apart.
template <class Policy, class T>
void add_shares(const Policy& policy, const sequences<Policy>& batch, const float* shares,
                const T* from, index_t stride, index_t columns, T* to) {
    const std::int64_t* const offsets = batch.there().data_handle();
    const index_t count = batch.count();
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
    const auto memory_of_rows = policy.template temporary<float>(4 * rows);
    float* const found = memory_of_rows.data();
    policy.for_each(rows, [=] PARE_HD(index_t t) {
        double means[4] = {};
        for (index_t lane = t * lanes; lane < (t + 1) * lanes; ++lane)
            for (index_t i = 0; i < 4; ++i) means[i] += moments[4 * lane + i];
        for (index_t i = 0; i < 4; ++i) means[i] /= static_cast<double>(columns);
        const double variance = means[1] - means[0] * means[0];
        const double squared = 1 / ((variance > 0 ? variance : 0.0) + static_cast<double>(epsilon));
        float* const of_row = found + 4 * t;
        of_row[0] = static_cast<float>(means[0]);
        of_row[1] = static_cast<float>(std::sqrt(squared));
        of_row[2] = static_cast<float>(means[2]);
        of_row[3] = static_cast<float>((means[3] - means[0] * means[2]) * squared);
    });
    if (learn) {
        const auto of_weight = [=] PARE_HD(index_t t, index_t j) {
            const float s = static_cast<float>(sum[t * columns + j]) - found[4 * t];
            return static_cast<float>(gradient[t * columns + j]) * s * found[4 * t + 1];
        };
        add_column_sums(policy, rows, columns, of_weight, n.weight.gradient);
        add_column_sums(policy, gradient, rows, columns, n.bias.gradient);
    }
    for_elements(policy, rows, columns, [=] PARE_HD(index_t t, index_t j) {
        // What changes the mean or the length of s has no effect.
        const float mean = found[4 * t], inverse = found[4 * t + 1], along_ones = found[4 * t + 2],
                    along_s = found[4 * t + 3];
        T& g = gradient[t * columns + j];
        const float s = static_cast<float>(sum[t * columns + j]) - mean;
        g = static_cast<T>((static_cast<float>(g) * weight[j] - along_ones - s * along_s) *
                           inverse);
    });
}

} // namespace encoder::device
