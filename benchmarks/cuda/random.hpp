// Random numbers in a GPU's memory: each from a counter, so that threads make them in any order.
#pragma once

#include <pare/policy/thrust.hpp>

#include <thrust/device_vector.h>

#include <cmath>
#include <cstdint>

namespace bench {

/// 64 random bits for each seed and number: SplitMix64 (Steele, Lea, Flood 2014) at its i-th step.
PARE_HD inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t i) {
    std::uint64_t x = (seed << 32) + (i + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
/// Of normal distribution, by Box and Muller.
PARE_HD inline float normal_of(std::uint64_t seed, std::uint64_t i) {
    const std::uint64_t bits = random_bits(seed, i);
    constexpr float unit = 1.0f / 4294967296.0f, whole_turn = 6.2831853f;
    const float radius = (static_cast<float>(bits >> 32) + 0.5f) * unit;
    const float angle = static_cast<float>(bits & 0xffffffffu) * unit * whole_turn;
    return std::sqrt(-2.0f * std::log(radius)) * std::cos(angle);
}

template <class T>
thrust::device_vector<T> device_normal(pare::index_t n, std::uint64_t seed = 1) {
    thrust::device_vector<T> numbers(static_cast<std::size_t>(n));
    T* const to = thrust::raw_pointer_cast(numbers.data());
    pare::on(thrust::cuda::par).for_each(n, [=] PARE_HD(pare::index_t i) {
        to[i] = static_cast<T>(normal_of(seed, static_cast<std::uint64_t>(i)));
    });
    return numbers;
}

} // namespace bench
