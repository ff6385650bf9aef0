// expect: pare::on: expected a Thrust execution policy of the C\+\+, OpenMP or CUDA system
#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_CPP
#include <pare/policy/thrust.hpp>

void misuse(float* scores) {
    pare::on(2).first_nan(pare::view<const float, 1>(scores, 3));
}
