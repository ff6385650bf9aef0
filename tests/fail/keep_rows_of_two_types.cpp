// expect: pare::keep_rows: weight and out have one element type
#include <pare/pare.hpp>

void misuse(const float* weight, const std::vector<int>& positions, double* out) {
    pare::keep_rows(pare::seq, pare::view(weight, 8, 4), positions, pare::view(out, 2, 4));
}
