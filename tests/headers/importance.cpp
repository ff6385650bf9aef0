#include <pare/importance.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* probabilities, float* scores) {
    pare::importance(POLICY, pare::view(probabilities, 2, 5, 5), pare::view(scores, 5));
    pare::importance(POLICY, pare::view(probabilities, 1, 2, 5, 5), {}, pare::view(scores, 1, 5));
}
