#include <pare/least_squares.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call(const float* x, const float* y) {
    pare::least_squares statistics(4, 3);
    statistics.add(POLICY, pare::view(x, 5, 4), pare::view(y, 5, 3));
    return statistics.covariance()(0, 0);
}
