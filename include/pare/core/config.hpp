// What every header needs: the index type, the ISA tag, and compiler switches.
#pragma once

#include <cstddef>

// Everything in pare lives in an inline namespace that carries the instruction set of the
// translation unit. Two units compiled with different -march flags then have different symbols, and
// the linker cannot hand AVX-512 code to the one that must run everywhere.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define PARE_ISA_NAME avx512
#elif defined(__AVX512F__)
#define PARE_ISA_NAME avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define PARE_ISA_NAME avx2_fma
#elif defined(__AVX2__)
#define PARE_ISA_NAME avx2
#elif defined(__AVX__)
#define PARE_ISA_NAME avx
#elif defined(__SSE4_1__)
#define PARE_ISA_NAME sse4
#elif defined(__ARM_FEATURE_SVE)
#define PARE_ISA_NAME sve
#elif defined(__ARM_NEON)
#define PARE_ISA_NAME neon
#else
#define PARE_ISA_NAME base
#endif

#define PARE_JOIN_(a, b) a##b
#define PARE_JOIN(a, b) PARE_JOIN_(a, b)

// OpenMP decides the default executor, and with it the type of pare::simd.
#ifdef _OPENMP
#define PARE_ISA PARE_JOIN(PARE_ISA_NAME, _omp)
#else
#define PARE_ISA PARE_ISA_NAME
#endif

// g++ 12 keeps arrays of vector registers in memory unless the loops over them are fully unrolled.
#if defined(__clang__)
#define PARE_UNROLL _Pragma("unroll")
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
