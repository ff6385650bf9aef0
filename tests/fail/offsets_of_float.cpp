// expect: pare: offsets are integers
#include <pare/pare.hpp>

void misuse(const float* activation, const float* offsets, float* out) {
    pare::mask_gradients(pare::seq, pare::view(activation, 8, 4), pare::view(activation, 8, 4),
                         pare::view(offsets, 3), 2, pare::view(out, 2, 2));
}
