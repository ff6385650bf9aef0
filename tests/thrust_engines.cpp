// The encoders of thrust_engines.hpp, which take long to compile, once for all tests.
#include "thrust_engines.hpp"

#include "far_memory.hpp"
#include "policies.hpp"

#include "encoder/gpu/device_network.hpp"

std::vector<std::unique_ptr<engine>> make_engines(const model& m, precision in) {
    std::vector<std::unique_ptr<engine>> all;
    const auto here = std::make_shared<device::home>("Thrust");
    const auto add = [&](const auto& policy) {
        all.push_back(std::make_unique<device_network<std::decay_t<decltype(policy)>, float>>(
            m, policy, here));
    };
    if (in == precision::fp32) {
        std::apply([&](auto... run) { (add(run.policy()), ...); }, host_policies{});
        add(far::far_policy);
    }
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__)
    using far_policy = std::decay_t<decltype(far::far_policy)>;
    if (in == precision::fp16)
        all.push_back(
            std::make_unique<device_network<far_policy, _Float16>>(m, far::far_policy, here));
#endif
    return all;
}
