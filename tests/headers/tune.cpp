#include <pare/tune.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

bool call(float* weight, float* bias) {
    const pare::least_squares statistics(4, 3);
    return static_cast<bool>(
        pare::reconstruct(POLICY, statistics, pare::view(weight, 3, 4), pare::view(bias, 3)));
}
