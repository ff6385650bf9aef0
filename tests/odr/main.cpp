// The baseline part must run on any processor and the others must give its result, although all of
// them are instantiations of the same templates in one program.
#include <cmath>
#include <cstdio>

double part_baseline(int samples, int units);
#ifdef HAVE_AVX2
double part_avx2(int samples, int units);
#endif
#ifdef HAVE_AVX512
double part_avx512(int samples, int units);
#endif

int main() {
    const double expected = part_baseline(21, 37);
    int failed = 0;
    [[maybe_unused]] const auto check = [&](const char* name, double result) {
        const bool same = std::abs(result - expected) <= 1e-5 * std::abs(expected);
        std::printf("%s: %.9g, baseline: %.9g%s\n", name, result, expected,
                    same ? "" : "  DIFFERENT");
        failed += !same;
    };
#ifdef HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        check("avx2", part_avx2(21, 37));
#endif
#ifdef HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        check("avx512", part_avx512(21, 37));
#endif
    return failed;
}
