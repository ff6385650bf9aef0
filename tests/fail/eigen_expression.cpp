// expect: pare: pass a pare::view \(pointer, extents\), an mdspan, an Eigen object
#include <Eigen/Core>
#include <pare/pare.hpp>

void misuse(const Eigen::MatrixXf& gradients) {
    pare::fisher<> fisher(3);
    fisher.add(pare::seq, gradients * 2);
}
