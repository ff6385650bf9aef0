#include "pointwise.hpp"

#include "kernel.hpp"

#include <cmath>

namespace encoder {
namespace {

using Eigen::Index;
using kernel::simd;

template <class... Coefficients>
simd polynomial(const simd& x, float last, Coefficients... before) {
    simd y(last);
    ((y = xsimd::fma(y, x, simd(before))), ...);
    return y;
}

/// Distribution function of the normal distribution, within 1e-7: 1/2 + x P(x^2) / Q(x^2), where P
/// / Q is the minimax fit on [0, 5.5^2] (error 7e-9); beyond that, floats see only 0 and 1.
simd normal_distribution(const simd& x) {
    const simd z = xsimd::min(xsimd::max(x, simd(-5.5f)), simd(5.5f)), t = z * z;
    const simd p = polynomial(t, 2.274934432e-8f, 6.352106131e-6f, 1.688255609e-4f, 4.677260096e-3f,
                              3.385264802e-2f, 3.989422346e-1f);
    const simd q = polynomial(t, 1.197502398e-6f, 7.364740365e-5f, 1.884444388e-3f, 2.864587072e-2f,
                              2.515219232e-1f, 1.f);
    return xsimd::fma(z, p / q, simd(0.5f));
}

struct gelu {
    static simd value(const simd& x) { return x * normal_distribution(x); }
    static simd derivative(const simd& x) {
        const simd density = simd(0.3989422804f) * xsimd::exp(simd(-0.5f) * x * x);
        return xsimd::fma(x, density, normal_distribution(x));
    }
};

// x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), and (1 + tanh(u)) / 2 = 1 / (1 +
// exp(-2 u)).
struct gelu_tanh {
    static constexpr float linear = 1.5957691216f,
                           cubic = 0.0713548163f; // 2 u = linear x + cubic x^3

    static simd gate(const simd& x) {
        const simd u = x * xsimd::fma(simd(cubic), x * x, simd(linear));
        // Below -80 the gate is 0 either way, and exp stays finite.
        return simd(1.f) / (simd(1.f) + xsimd::exp(-xsimd::max(u, simd(-80.f))));
    }
    static simd value(const simd& x) { return x * gate(x); }
    static simd derivative(const simd& x) {
        const simd g = gate(x), slope = xsimd::fma(simd(3 * cubic), x * x, simd(linear));
        return xsimd::fma(x * slope, g * (simd(1.f) - g), g);
    }
};

struct relu {
    static simd value(const simd& x) { return xsimd::max(x, simd(0.f)); }
    static simd derivative(const simd& x) {
        return xsimd::select(x > simd(0.f), simd(1.f), simd(0.f));
    }
};

template <class F>
void dispatch(activation f, F&& call) {
    switch (f) {
    case activation::gelu:
        return call(gelu{});
    case activation::gelu_tanh:
        return call(gelu_tanh{});
    case activation::relu:
        return call(relu{});
    }
}

using number_row = Eigen::Array<float, 1, Eigen::Dynamic>;

/// 1 / standard deviation of `x`, of which `mean` is the mean.
template <class X>
float inverse_deviation(const X& x, float mean, float epsilon) {
    return 1 / std::sqrt((x - mean).square().mean() + epsilon);
}

} // namespace

void activate(activation f, Index n, const float* x, float* y) {
    dispatch(f, [=](auto g) {
        kernel::map(
            n, [](const simd& a) { return decltype(g)::value(a); }, y, x);
    });
}

void activate_backward(activation f, Index n, const float* x, const float* gradient, float* y) {
    dispatch(f, [=](auto g) {
        kernel::map(
            n, [](const simd& a, const simd& b) { return decltype(g)::derivative(a) * b; }, y, x,
            gradient);
    });
}

void normalize(const layer_norm& norm, float epsilon, Index rows, const float* x, float* y) {
    const Index n = norm.weight.size();
    const auto weight = norm.weight.transpose().array(), bias = norm.bias.transpose().array();
    for (Index i = 0; i < rows; ++i, x += n, y += n) {
        const Eigen::Map<const number_row> in(x, n);
        const float mean = in.mean(), inverse = inverse_deviation(in, mean, epsilon);
        Eigen::Map<number_row>(y, n) = (in - mean) * inverse * weight + bias;
    }
}

void normalize_backward(const layer_norm& norm, float epsilon, Index rows, const float* x,
                        float* gradient, float* parameters) {
    const Index n = norm.weight.size();
    const auto weight = norm.weight.transpose().array();
    for (Index i = 0; i < rows; ++i, x += n, gradient += n) {
        const Eigen::Map<const number_row> in(x, n);
        Eigen::Map<number_row> g(gradient, n);
        const float mean = in.mean(), inverse = inverse_deviation(in, mean, epsilon);
        if (parameters) {
            Eigen::Map<number_row>(parameters, n) += g * (in - mean) * inverse;
            Eigen::Map<number_row>(parameters + n, n) += g;
        }
        g *= weight;
        // What changes the mean or the length of x has no effect.
        const float along_ones = g.mean(), along_x = (g * (in - mean)).mean() * inverse;
        g = (g - along_ones - (in - mean) * (inverse * along_x)) * inverse;
    }
}

} // namespace encoder
