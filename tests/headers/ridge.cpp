#include <pare/ridge.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

bool call(double* g, double* b) {
    return pare::ridge_solve(POLICY, pare::view(g, 4, 4), 0.1, pare::view(b, 4, 2));
}
