// expect: pare::restore: pass pare::from_to\(kept rows, all rows\) after the index
#include <pare/pare.hpp>

void misuse(float* hidden, const std::vector<int>& index) {
    pare::restore(pare::seq, index, pare::view(hidden, 8, 4));
}
