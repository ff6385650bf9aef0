// expect: pare: the call writes to this argument, and its elements are const
#include <Eigen/Core>
#include <pare/pare.hpp>

void misuse(const std::vector<float>& scores, const float* mask) {
    pare::soft_mask(pare::seq, scores, 0.1, 0.01, Eigen::Map<const Eigen::VectorXf>(mask, 3));
}
