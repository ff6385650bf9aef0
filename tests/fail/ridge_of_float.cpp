// expect: pare: matrices of a solve are of double
#include <pare/ridge.hpp>

void misuse(float* g, float* b) {
    pare::ridge_solve(pare::seq, pare::view(g, 4, 4), 0.1, pare::view(b, 4, 1));
}
