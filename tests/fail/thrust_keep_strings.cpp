// expect: pare: this policy moves elements as bytes, so they must be trivially copyable
#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_CPP
#include <pare/policy/thrust.hpp>
#include <pare/shrink.hpp>

#include <string>

void misuse(const std::string* names, const std::vector<int>& positions, std::string* out) {
    pare::keep_rows(pare::on(thrust::cpp::par), pare::view(names, 8, 2), positions,
                    pare::view(out, 2, 2));
}
