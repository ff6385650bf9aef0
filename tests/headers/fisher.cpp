#include <pare/fisher.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call(const float* activation, const float* gradient, const int* offsets, float* out) {
    pare::mask_gradients(POLICY, pare::view(activation, 5, 4), pare::view(gradient, 5, 4),
                         pare::view(offsets, 3), 2, pare::view(out, 2, 2));
    pare::fisher<> fisher(2);
    fisher.add(POLICY, pare::view(out, 2, 2));
    return fisher.diagonal()[0];
}
