// expect: pare: this call expects a vector, and the array is a matrix
#include <pare/pare.hpp>

void misuse() {
    const float importance[2][3] = {};
    pare::sorted_losses(importance);
}
