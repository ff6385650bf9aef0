#include <pare/rearrange.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call(const double* block, int* mask) {
    return pare::rearrange(POLICY, pare::view(block, 4, 4), pare::view(mask, 4)).loss_after;
}
