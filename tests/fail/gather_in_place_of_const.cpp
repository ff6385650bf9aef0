// expect: pare::gather_rows: an array in place is overwritten, and this one is const
#include <pare/pare.hpp>

void misuse(const float* hidden, const std::vector<int>& index) {
    pare::gather_rows(pare::seq, index, pare::view(hidden, 8, 4));
}
