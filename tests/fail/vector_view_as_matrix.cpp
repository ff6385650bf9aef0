// expect: pare: this view has another rank than the call expects
#include <pare/pare.hpp>

void misuse(const float* gradients) {
    pare::fisher<> fisher(3);
    fisher.add(pare::seq, pare::view(gradients, 6));
}
