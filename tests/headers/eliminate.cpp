#include <pare/eliminate.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

pare::loss_curve call(const double* covariance, const float* weight) {
    return pare::eliminate(POLICY, pare::view(covariance, 4, 4), {}, pare::view(weight, 3, 4));
}
