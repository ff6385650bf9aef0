// expect: pare: lengths are integers
#include <pare/pare.hpp>

void misuse(const float* probabilities, const std::vector<float>& lengths, float* scores) {
    pare::importance(pare::seq, pare::view(probabilities, 3, 2, 5, 5), lengths,
                     pare::view(scores, 3, 5));
}
