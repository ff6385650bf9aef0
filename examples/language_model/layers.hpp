// What passes with a cache and those without one do to rows alike.
#pragma once

#include "model.hpp"

#include <cmath>
#include <cstddef>

namespace language {

inline matrix times(const matrix& x, const linear& of) {
    matrix y = x * of.weight.transpose();
    if (of.bias.size() > 0) y.rowwise() += of.bias;
    return y;
}

inline float sigmoid(float x) {
    return 1 / (1 + std::exp(-x));
}
inline float silu(float x) {
    return x * sigmoid(x);
}

/// Turns each two neighbouring columns of a head by an angle that grows with place(t), that of row t in
/// its text; or back, in direction -1.
template <class Place>
void rotate(const model& m, const Place& place, matrix& x, float direction = 1) {
    const index_t size = m.config.head_size;
    for (index_t i = 0; i < size / 2; ++i)
        for (index_t t = 0; t < x.rows(); ++t) {
            const double angle =
                static_cast<double>(place(t)) * m.turns[static_cast<std::size_t>(i)];
            const auto along = static_cast<float>(std::cos(angle)),
                       across = direction * static_cast<float>(std::sin(angle));
            for (index_t j = 2 * i; j < x.cols(); j += size) {
                const float a = x(t, j), b = x(t, j + 1);
                x(t, j) = along * a - across * b;
                x(t, j + 1) = across * a + along * b;
            }
        }
}

} // namespace language
