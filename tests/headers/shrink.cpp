#include <pare/shrink.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* weight, float* small) {
    const int mask[] = {1, 0, 1, 0};
    const auto kept = pare::kept_positions(mask);
    pare::keep_rows(POLICY, pare::view(weight, 4, 3), kept, pare::view(small, 2, 3));
}
