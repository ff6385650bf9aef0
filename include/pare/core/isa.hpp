// PARE_ISA: the inline namespace of this translation unit, named after all that its flags change in
// the code of these headers.
//
// The linker keeps one copy of an inline function. Units with other instruction sets, executors,
// rules for floating point or errors have other names here, so that it cannot hand AVX-512 code to
// the unit that must run everywhere.
#pragma once

#define PARE_JOIN_(a, b) a##b
#define PARE_JOIN(a, b) PARE_JOIN_(a, b)
#define PARE_JOIN4(a, b, c, d) PARE_JOIN(PARE_JOIN(a, b), PARE_JOIN(c, d))
#define PARE_JOIN16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                                \
    PARE_JOIN4(PARE_JOIN4(a, b, c, d), PARE_JOIN4(e, f, g, h), PARE_JOIN4(i, j, k, l),             \
               PARE_JOIN4(m, n, o, p))

// PARE_FLAG(macro, name): the name where the macro is 1, nothing where it is 0 or not defined.
#define PARE_COMMA_1 ,
#define PARE_SECOND_(a, b, ...) b
#define PARE_SECOND(...) PARE_SECOND_(__VA_ARGS__)
#define PARE_FLAG_(commas, name) PARE_SECOND(commas name, , )
#define PARE_FLAG(macro, name) PARE_FLAG_(PARE_JOIN(PARE_COMMA_, macro), name)

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)

// Levels 2, 3 and 4 of the x86-64 ABI, each as one name where it is whole and else as its parts.
#if defined(__SSE3__) && defined(__SSSE3__) && defined(__SSE4_1__) && defined(__SSE4_2__) &&       \
    defined(__POPCNT__)
#define PARE_X86_2 _v2
#else
#define PARE_X86_2                                                                                 \
    PARE_JOIN(PARE_JOIN4(PARE_FLAG(__SSE3__, _sse3), PARE_FLAG(__SSSE3__, _ssse3),                 \
                         PARE_FLAG(__SSE4_1__, _sse41), PARE_FLAG(__SSE4_2__, _sse42)),            \
              PARE_FLAG(__POPCNT__, _popcnt))
#endif
#if defined(__AVX__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) &&              \
    defined(__BMI__) && defined(__BMI2__) && defined(__LZCNT__) && defined(__MOVBE__)
#define PARE_X86_3 _v3
#else
#define PARE_X86_3                                                                                 \
    PARE_JOIN(PARE_JOIN4(PARE_FLAG(__AVX__, _avx), PARE_FLAG(__AVX2__, _avx2),                     \
                         PARE_FLAG(__FMA__, _fma), PARE_FLAG(__F16C__, _f16c)),                    \
              PARE_JOIN4(PARE_FLAG(__BMI__, _bmi), PARE_FLAG(__BMI2__, _bmi2),                     \
                         PARE_FLAG(__LZCNT__, _lzcnt), PARE_FLAG(__MOVBE__, _movbe)))
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) &&                      \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
#define PARE_X86_4 _v4
#else
#define PARE_X86_4                                                                                 \
    PARE_JOIN(PARE_JOIN4(PARE_FLAG(__AVX512F__, _avx512f), PARE_FLAG(__AVX512BW__, _bw),           \
                         PARE_FLAG(__AVX512CD__, _cd), PARE_FLAG(__AVX512DQ__, _dq)),              \
              PARE_FLAG(__AVX512VL__, _vl))
#endif
// What compilers use of their own accord, or xsimd where it is there, beyond the levels.
#define PARE_X86_MORE                                                                              \
    PARE_JOIN16(PARE_FLAG(__AVX512IFMA__, _ifma), PARE_FLAG(__AVX512VBMI__, _vbmi),                \
                PARE_FLAG(__AVX512VBMI2__, _vbmi2), PARE_FLAG(__AVX512VNNI__, _vnni),              \
                PARE_FLAG(__AVX512BITALG__, _bitalg), PARE_FLAG(__AVX512VPOPCNTDQ__, _vpopcnt),    \
                PARE_FLAG(__AVX512BF16__, _bf16), PARE_FLAG(__AVX512FP16__, _fp16),                \
                PARE_FLAG(__AVXVNNI__, _avxvnni), PARE_FLAG(__AVXNECONVERT__, _neconvert),         \
                PARE_FLAG(__AVX10_2__, _avx10), PARE_FLAG(__APX_F__, _apx),                        \
                PARE_FLAG(__GFNI__, _gfni), PARE_FLAG(__FMA4__, _fma4), PARE_FLAG(__XOP__, _xop),  \
                PARE_FLAG(__TBM__, _tbm))
#define PARE_ISA_CPU PARE_JOIN(x86, PARE_JOIN4(PARE_X86_2, PARE_X86_3, PARE_X86_4, PARE_X86_MORE))

#elif defined(__aarch64__) || defined(__arm__) || defined(_M_ARM64)

#ifdef __ARM_FEATURE_SVE_BITS
#define PARE_ARM_SVE_BITS __ARM_FEATURE_SVE_BITS
#else
#define PARE_ARM_SVE_BITS
#endif
#define PARE_ISA_CPU                                                                               \
    PARE_JOIN16(arm, PARE_FLAG(__ARM_NEON, _neon), PARE_FLAG(__ARM_FEATURE_FMA, _fma),             \
                PARE_FLAG(__ARM_FEATURE_FP16_SCALAR_ARITHMETIC, _fp16),                            \
                PARE_FLAG(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC, _vfp16),                           \
                PARE_FLAG(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC, _bf16),                            \
                PARE_FLAG(__ARM_FEATURE_DOTPROD, _dot),                                            \
                PARE_FLAG(__ARM_FEATURE_MATMUL_INT8, _i8mm),                                       \
                PARE_FLAG(__ARM_FEATURE_ATOMICS, _lse), PARE_FLAG(__ARM_FEATURE_MOPS, _mops),      \
                PARE_FLAG(__ARM_FEATURE_SVE, _sve), PARE_ARM_SVE_BITS,                             \
                PARE_FLAG(__ARM_FEATURE_SVE2, _sve2), PARE_FLAG(__ARM_FEATURE_SME, _sme), , )

#else
#define PARE_ISA_CPU base
#endif

// OpenMP decides the default executor, and with it the type of pare::simd.
#ifdef _OPENMP
#define PARE_ISA_THREADS _omp
#else
#define PARE_ISA_THREADS
#endif
#ifdef __cpp_exceptions
#define PARE_ISA_ERRORS
#else
#define PARE_ISA_ERRORS _noexceptions
#endif
// Results do not depend on these flags, but what the compiler makes of the code does.
#ifdef __FAST_MATH__
#define PARE_ISA_MATH _fast
#else
#define PARE_ISA_MATH                                                                              \
    PARE_JOIN(PARE_FLAG(__FINITE_MATH_ONLY__, _finite),                                            \
              PARE_FLAG(__ASSOCIATIVE_MATH__, _associative))
#endif
// The standard library's containers, which are members of ours, have other members then.
#ifdef _GLIBCXX_DEBUG
#define PARE_ISA_DEBUG _debug
#else
#define PARE_ISA_DEBUG
#endif

#define PARE_ISA                                                                                   \
    PARE_JOIN(PARE_ISA_CPU,                                                                        \
              PARE_JOIN4(PARE_ISA_THREADS, PARE_ISA_ERRORS, PARE_ISA_MATH, PARE_ISA_DEBUG))
