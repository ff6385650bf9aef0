// expect: pare::simd: the compiler's flags have no vector registers that xsimd knows
#include <xsimd/config/xsimd_config.hpp>
#undef XSIMD_NO_SUPPORTED_ARCHITECTURE
#define XSIMD_NO_SUPPORTED_ARCHITECTURE // as xsimd says of -mno-sse2
#include <pare/policy/simd.hpp>
