// expect: pare::mask_gradients: activation and gradient have one element type
#include <pare/pare.hpp>

void misuse(const float* activation, const double* gradient, const int* offsets, float* out) {
    pare::mask_gradients(pare::seq, pare::view(activation, 8, 4), pare::view(gradient, 8, 4),
                         pare::view(offsets, 3), 2, pare::view(out, 2, 2));
}
