// expect: pare: the first argument is the policy: pare::seq, pare::simd or pare::on
#include <pare/least_squares.hpp>

void misuse(pare::least_squares& statistics, const float* x, const float* y) {
    statistics.add(pare::view(x, 8, 4), pare::view(y, 8, 3));
}
