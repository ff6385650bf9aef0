// Every allocation of a calibration fails once, those of OpenMP's threads among them: each time the
// call throws, and frees what it had.
#include <pare/eliminate.hpp>
#include <pare/policy/simd.hpp>
#include <pare/tune.hpp>

#include <atomic>
#include <cstdio>
#include <new>
#include <vector>

extern "C" void* __libc_malloc(std::size_t);

namespace {

std::atomic<long> before_failure{-1}; // allocations; none fails if negative

} // namespace

extern "C" void* malloc(std::size_t size) {
    if (before_failure.load() >= 0 && before_failure.fetch_sub(1) == 0) return nullptr;
    return __libc_malloc(size);
}

int main() {
    constexpr int tokens = 150, inputs = 130, outputs = 70;
    std::vector<float> x(tokens * inputs), y(tokens * outputs), w(outputs * inputs), b(outputs);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 101) / 50 - 1;
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(i * 104729 % 97) / 50 - 1;
    const pare::view<const float, 2> from(x.data(), tokens, inputs), to(y.data(), tokens, outputs);
    const pare::view<float, 2> weight(w.data(), outputs, inputs);
#ifdef _OPENMP
    const auto policy = pare::simd.with(pare::openmp{2});
#else
    const auto policy = pare::simd;
#endif
    const auto calibrate = [&] {
        pare::least_squares statistics(inputs, outputs);
        statistics.add(policy, from, to);
        pare::gram<> metric(outputs);
        metric.add(policy, to);
        pare::eliminate(policy, statistics.covariance(), metric.lower_sums(), weight, 5, 0.1);
        pare::reconstruct(policy, statistics, weight, b);
    };
    calibrate(); // and OpenMP has what it needs for itself
    long failing = 0, thrown = 0;
    for (bool failed = true; failed; ++failing) {
        before_failure = failing;
        try {
            calibrate();
        } catch (const std::bad_alloc&) {
            ++thrown;
        }
        failed = before_failure.exchange(-1) < 0;
    }
    std::printf("%ld allocations, %ld of them failed and were thrown\n", failing - 1, thrown);
    return thrown == failing - 1 && thrown > 0 ? 0 : 1;
}
