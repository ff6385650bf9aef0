// expect: pare::keep_columns: weight and out have one element type
#include <pare/pare.hpp>

void misuse(const float* weight, const std::vector<int>& positions, double* out) {
    pare::keep_columns(pare::seq, pare::view(weight, 8, 4), positions, pare::view(out, 8, 2));
}
