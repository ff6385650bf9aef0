// expect: pare::gram: x and y have one element type
#include <pare/gram.hpp>
#include <pare/policy/seq.hpp>

void misuse(const float* x, const double* y) {
    pare::gram<> gram(4, 4);
    gram.add(pare::seq, pare::view(x, 8, 4), pare::view(y, 8, 4));
}
