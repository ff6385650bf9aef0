// expect: pare::rearrange: the block is of float or double
#include "../half_types.hpp"
#include <pare/pare.hpp>

void misuse(const fp16_like* block, std::vector<int>& mask) {
    pare::rearrange(pare::seq, pare::view(block, 8, 8), mask);
}
