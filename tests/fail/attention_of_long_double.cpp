// expect: pare: these numbers are of float, double or a half type, not long double
#include <pare/pare.hpp>

void misuse(const long double* q, const std::vector<int>& offsets, long double* out) {
    const pare::view<const long double, 3> all(q, 8, 2, 4);
    pare::attention(pare::seq, all, all, all, offsets, pare::view(out, 8, 2, 4));
}
