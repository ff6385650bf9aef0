// expect: pare: pass a pare::view \(pointer, extents\), an mdspan, an Eigen object
#include <list>
#include <pare/pare.hpp>

void misuse(const std::list<int>& mask) {
    pare::kept_positions(mask);
}
