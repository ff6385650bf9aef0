// expect: pare::attention: queries and out have one element type, and keys and values have one
#include <pare/pare.hpp>

void misuse(const float* q, const float* k, const double* v, const std::vector<int>& offsets,
            float* out) {
    pare::attention(pare::seq, pare::view(q, 8, 2, 4), pare::view(k, 8, 2, 4),
                    pare::view(v, 8, 2, 4), offsets, pare::view(out, 8, 2, 4));
}
