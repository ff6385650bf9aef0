// expect: pare: these numbers are of float, double or a half type, not integers
#include <pare/pare.hpp>

void misuse(const float* probabilities, std::vector<int>& scores) {
    pare::importance(pare::seq, pare::view(probabilities, 2, 5, 5), scores);
}
