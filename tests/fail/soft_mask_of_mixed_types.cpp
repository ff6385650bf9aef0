// expect: pare::soft_mask: scores and mask have one element type
#include <pare/pare.hpp>

void misuse(const std::vector<double>& scores, std::vector<float>& mask) {
    pare::soft_mask(pare::seq, scores, 0.1, 0.01, mask);
}
