#include <pare/gram.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call(const float* x) {
    pare::gram<> gram(4);
    gram.add(POLICY, pare::view(x, 5, 4));
    return gram.mean()[0];
}
