// expect: pare: the call writes to this argument, and it is a temporary
#include <pare/pare.hpp>

void misuse(const std::vector<int>& index) {
    pare::gather_rows(pare::seq, index, std::vector<float>(8));
}
