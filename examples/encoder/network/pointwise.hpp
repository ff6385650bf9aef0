// The parts of a layer that are not products: activations and layer normalisation, with
// derivatives.
#pragma once

#include "encoder/files/model.hpp"

namespace encoder {

/// y = f(x) for n elements; y may be x.
void activate(activation f, Eigen::Index n, const float* x, float* y);
/// y = gradient * f'(x) for n elements; y may be either.
void activate_backward(activation f, Eigen::Index n, const float* x, const float* gradient,
                       float* y);

/// Rows of y are the rows of x [rows x size of norm] with mean 0 and variance 1, times weight plus
/// bias; y may be x.
void normalize(const layer_norm& norm, float epsilon, Eigen::Index rows, const float* x, float* y);
/// Replaces the gradient at the output of normalize(x) by that at its input x. The gradients of
/// weight and bias, one behind the other, are added to `parameters` where that is not null.
void normalize_backward(const layer_norm& norm, float epsilon, Eigen::Index rows, const float* x,
                        float* gradient, float* parameters = nullptr);

} // namespace encoder
