// expect: pare: pass a pare::view \(pointer, extents\), an mdspan, an Eigen object
#include <pare/pare.hpp>

void misuse(const std::vector<bool>& mask) {
    pare::kept_positions(mask);
}
