#include <pare/soft_mask.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call(const float* scores, const int* offsets, float* mask, float* gradient) {
    pare::soft_mask(POLICY, pare::view(scores, 5), 0.5, 0.1, pare::view(mask, 5));
    return pare::mask_penalty(POLICY, pare::view(mask, 5), pare::view(offsets, 3), 1,
                              pare::view(gradient, 5));
}
