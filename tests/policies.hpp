// The policies and element types that every component is tested with, and the tolerances. Those of
// Thrust are in a program of their own.
#pragma once

#ifndef __CUDACC__
#include <pare/policy/simd.hpp>
#endif
#ifdef PARE_TEST_THRUST
#include <pare/policy/thrust.hpp>
#endif

#include <tuple>
#include <type_traits>

#ifdef __CUDACC__
// xsimd is not for nvcc: where a test says pare::simd, its base takes its place.
namespace pare {
template <class Executor = default_executor>
struct vectorised : sequential<Executor> {
    using sequential<Executor>::sequential;
    template <class Other>
    constexpr vectorised<Other> with(Other e) const {
        return vectorised<Other>(e);
    }
};
inline constexpr vectorised<> simd{};

// Their memory is shared with the GPU: see cuda/main.cpp.
template <class T>
inline constexpr bool is_host_container<std::vector<T>> = false;
} // namespace pare

struct run_cuda {
    static constexpr bool vectorised = false;
    static auto policy() { return pare::on(thrust::cuda::par); }
};
#endif

struct run_seq {
    static constexpr bool vectorised = false;
    static constexpr auto policy() { return pare::seq; }
};
struct run_simd {
    static constexpr bool vectorised = true;
    static constexpr auto policy() { return pare::simd.with(pare::serial{}); }
};
#ifdef _OPENMP
struct run_simd_threads {
    static constexpr bool vectorised = true;
    static constexpr auto policy() { return pare::simd.with(pare::openmp{2}); }
};
#endif
#ifdef PARE_TEST_THRUST
struct run_thrust {
    static constexpr bool vectorised = false;
    static auto policy() { return pare::on(thrust::cpp::par); }
};
#ifdef _OPENMP
struct run_thrust_threads {
    static constexpr bool vectorised = false;
    static auto policy() { return pare::on(thrust::omp::par); }
};
#endif
#endif

#if defined(__CUDACC__)
using policies = std::tuple<run_cuda>;
#elif defined(PARE_TEST_THRUST) && defined(_OPENMP)
using policies = std::tuple<run_thrust, run_thrust_threads>;
#elif defined(PARE_TEST_THRUST)
using policies = std::tuple<run_thrust>;
#elif defined(_OPENMP)
using policies = std::tuple<run_seq, run_simd, run_simd_threads>;
#else
using policies = std::tuple<run_seq, run_simd>;
#endif

template <class Run, class T>
struct run : Run {
    using type = T;
};

template <class... Runs>
std::tuple<run<Runs, float>..., run<Runs, double>...> with_types(std::tuple<Runs...>);
/// Every policy with float and with double.
using runs = decltype(with_types(policies{}));

/// A sum made in T differs from the exact one by at most this share of its terms' magnitudes: 256
/// roundings.
template <class T>
inline constexpr double tolerance = std::is_same_v<T, float> ? 1e-5 : 3e-14;
/// The same for one number stored as T.
template <class T>
inline constexpr double rounding = std::is_same_v<T, float> ? 1.2e-7 : 2.3e-16;
