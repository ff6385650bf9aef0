#include <pare/loss_curve.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call() {
    const double importance[] = {3, 1, 2};
    return pare::sorted_losses(importance).loss[1];
}
