// The policies and element types that every component is tested with, and the tolerances.
#pragma once

#include <pare/policy/simd.hpp>

#include <tuple>
#include <type_traits>

struct run_seq {
    static constexpr auto policy() { return pare::seq; }
};
struct run_simd {
    static constexpr auto policy() { return pare::simd.with(pare::serial{}); }
};
#ifdef _OPENMP
struct run_simd_threads {
    static constexpr auto policy() { return pare::simd.with(pare::openmp{2}); }
};
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
