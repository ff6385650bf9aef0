// expect: pare: this call expects a vector, and the Eigen object is a matrix
#include <Eigen/Core>
#include <pare/pare.hpp>

void misuse(const Eigen::MatrixXf& mask) {
    pare::kept_positions(mask);
}
