// expect: pare: pass a pare::view \(pointer, extents\), an mdspan, an Eigen object
#include <pare/pare.hpp>

void misuse(const std::vector<float>& gradients) {
    pare::fisher<> fisher(3);
    fisher.add(pare::seq, gradients);
}
