// What every header needs: the index type, the namespace's name, and compiler switches.
#pragma once

#include "isa.hpp"

#include <cstddef>

// g++ 12 keeps arrays of vector registers in memory unless the loops over them are fully unrolled.
#if defined(__clang__)
#define PARE_UNROLL _Pragma("unroll")
#elif defined(__NVCC__) // passes the pragma on, with a warning
#define PARE_UNROLL                                                                                \
    _Pragma("nv_diagnostic push") _Pragma("nv_diag_suppress 1675") _Pragma("GCC unroll 32")        \
        _Pragma("nv_diagnostic pop")
#elif defined(__GNUC__)
#define PARE_UNROLL _Pragma("GCC unroll 32")
#else
#define PARE_UNROLL
#endif

#if defined(__GNUC__)
#define PARE_INLINE inline __attribute__((always_inline))
#define PARE_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define PARE_INLINE inline
#define PARE_PREFETCH(address) static_cast<void>(address)
#endif

// Around what has arrays whose extents are parameters of templates, and signed as all extents are:
// g++'s -Wsign-conversion warns of these before it knows them, where a host asks for it.
#if defined(__GNUC__) && !defined(__clang__)
#define PARE_SIGNED_ARRAYS_BEGIN                                                                   \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wsign-conversion\"")
#define PARE_SIGNED_ARRAYS_END _Pragma("GCC diagnostic pop")
#else
#define PARE_SIGNED_ARRAYS_BEGIN
#define PARE_SIGNED_ARRAYS_END
#endif

// A function of which there is one copy, whatever calls it: its roundings, too, which flags leave to
// the compiler, are the same everywhere.
#if defined(__clang__)
#define PARE_ONE_COPY __attribute__((noinline))
#elif defined(__GNUC__)
#define PARE_ONE_COPY __attribute__((noinline, noclone))
#else
#define PARE_ONE_COPY
#endif

// Code that runs on a GPU too. What can be constexpr is that instead: nvcc's flag
// --expt-relaxed-constexpr compiles it for both.
#ifdef __CUDACC__
#define PARE_HD __host__ __device__
#else
#define PARE_HD
#endif

namespace pare {
inline namespace PARE_ISA {

/// Sizes, strides and positions; signed, so that differences need no casts.
using index_t = std::ptrdiff_t;

} // namespace PARE_ISA
} // namespace pare
