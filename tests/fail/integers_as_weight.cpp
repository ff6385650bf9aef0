// expect: pare: these numbers are of float, double or a half type, not integers
#include <pare/pare.hpp>

void misuse(const std::vector<float>& scales, signed char* weight) {
    pare::fold_scales(scales, 1, pare::view(weight, 4, 3));
}
