// expect: pare: these attention_options are not of the queries' element type
#include <pare/pare.hpp>

void misuse(const float* q, const double* kv, const std::vector<int>& offsets, float* out) {
    const pare::view<const double, 3> k(kv, 8, 2, 4);
    pare::attention(pare::seq, pare::view(q, 8, 2, 4), k, k, offsets, pare::view(out, 8, 2, 4),
                    pare::attention_options<double>());
}
