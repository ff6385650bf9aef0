// The baseline part must run on any processor and the others must give its result, although all of
// them are instantiations of the same templates in one program.
#include <pare/core/error.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

double part_baseline(int samples, int units);
double part_fast(int samples, int units);
double part_noexceptions(int samples, int units);
double part_threads(int samples, int units);
double part_avx2(int samples, int units);
double part_skylake(int samples, int units);

namespace {

int failed = 0;

[[maybe_unused]] void end_with(const char* sentence) {
    std::printf("error handler: %s\n", sentence);
    std::exit(failed + (std::strncmp(sentence, "pare::", 6) != 0));
}

} // namespace

int main() {
    const double expected = part_baseline(21, 37);
    [[maybe_unused]] const auto check = [&](const char* name, double (*part)(int, int)) {
        const double result = part(21, 37);
        const bool same = std::abs(result - expected) <= 1e-5 * std::abs(expected);
        std::printf("%s: %.9g, baseline: %.9g%s\n", name, result, expected,
                    same ? "" : "  DIFFERENT");
        failed += !same;
    };
#ifdef HAVE_FAST
    check("fast", part_fast);
#endif
#ifdef HAVE_NOEXCEPTIONS
    check("noexceptions", part_noexceptions);
#endif
#ifdef HAVE_THREADS
    check("threads", part_threads);
#endif
#ifdef HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) check("avx2", part_avx2);
#endif
#ifdef HAVE_SKYLAKE
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        check("skylake", part_skylake);
#endif
#ifdef HAVE_NOEXCEPTIONS // last, because it ends the program
    pare::error_handler = end_with;
    part_noexceptions(-1, 37);
    failed = 1;
#endif
    return failed;
}
