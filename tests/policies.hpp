// The policies and element types that every component is tested with, and the tolerances. Those of
// Thrust are in a program of their own.
#pragma once

#ifndef __CUDACC__
#include <pare/policy/simd.hpp>
#endif
#ifdef PARE_TEST_THRUST
#include "remote.hpp"
#ifndef __CUDACC__
#include "far_memory.hpp"
#endif
#endif

#include <tuple>
#include <type_traits>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PARE_TEST_SANITIZED
#endif
#endif

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
} // namespace pare

struct run_cuda {
    static constexpr bool vectorised = false;
    static auto policy() { return remote::on(thrust::cuda::par); }
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
#if defined(PARE_TEST_THRUST) && !defined(__CUDACC__)
struct run_far {
    static constexpr bool vectorised = false;
    static auto policy() { return remote::on(far::system{}); }
};
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

template <class Run, class T>
struct run : Run {
    using type = T;
};

// `policies`, for what has a type of its own, and `runs`, policies with float and with double. Threads
// and Thrust's systems know nothing of types, and types nothing of them: they take turns in `runs`, so
// that every kernel is compiled for both types and every system runs, but not each with each, which
// would be half of the time that tests take to compile. `host_policies` and `host_runs` are for
// components that work in the host's memory alone and take only products of a policy.
#if defined(__CUDACC__)
using policies = std::tuple<run_cuda>;
using runs = std::tuple<run<run_cuda, float>, run<run_cuda, double>>;
using host_policies = std::tuple<run_seq>;
using host_runs = std::tuple<run<run_seq, float>, run<run_seq, double>>;
#elif defined(PARE_TEST_THRUST) && defined(_OPENMP)
using policies = std::tuple<run_far, run_thrust, run_thrust_threads>;
using runs =
    std::tuple<run<run_far, float>, run<run_thrust, double>, run<run_thrust_threads, float>>;
using host_policies = std::tuple<run_thrust, run_thrust_threads>;
using host_runs = std::tuple<run<run_thrust, double>, run<run_thrust_threads, float>>;
#elif defined(PARE_TEST_THRUST)
using policies = std::tuple<run_far, run_thrust>;
using runs = std::tuple<run<run_far, float>, run<run_thrust, double>>;
using host_policies = std::tuple<run_thrust>;
using host_runs = std::tuple<run<run_thrust, float>, run<run_thrust, double>>;
#elif defined(_OPENMP)
using policies = std::tuple<run_seq, run_simd, run_simd_threads>;
using host_policies = std::tuple<run_seq, run_simd_threads>;
using host_runs = std::tuple<run<run_seq, double>, run<run_simd_threads, float>>;
#ifdef PARE_TEST_SANITIZED // whose code takes twice as long to compile, and whose errors know no type
using runs = host_runs;
#else
using runs = std::tuple<run<run_seq, float>, run<run_seq, double>, run<run_simd, double>,
                        run<run_simd_threads, float>>;
#endif
#else
using policies = std::tuple<run_seq, run_simd>;
using runs = std::tuple<run<run_seq, float>, run<run_seq, double>, run<run_simd, float>,
                        run<run_simd, double>>;
using host_policies = policies;
using host_runs = std::tuple<run<run_seq, double>, run<run_simd, float>>;
#endif

/// Whether calls look at numbers in memory before they use them.
template <class Run>
inline constexpr bool on_host = decltype(Run::policy())::on_host;

/// A sum made in T differs from the exact one by at most this share of its terms' magnitudes: 256
/// roundings.
template <class T>
inline constexpr double tolerance = std::is_same_v<T, float> ? 1e-5 : 3e-14;
/// The same for one number stored as T.
template <class T>
inline constexpr double rounding = std::is_same_v<T, float> ? 1.2e-7 : 2.3e-16;
