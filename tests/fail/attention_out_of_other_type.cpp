// expect: pare::attention: queries and out have one element type, and keys and values have one
#include <pare/pare.hpp>

void misuse(const float* q, const float* kv, const std::vector<int>& offsets, double* out) {
    const pare::view<const float, 3> k(kv, 8, 2, 4);
    pare::attention(pare::seq, pare::view(q, 8, 2, 4), k, k, offsets, pare::view(out, 8, 2, 4));
}
