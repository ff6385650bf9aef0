// Timing a kernel beside the machine's limit and a peer, in turn in one process, so that the ratios
// hold on a noisy machine.
#pragma once

#include <pare/core/executor.hpp>
#include <pare/policy/simd.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace bench {

using pare::index_t;

#ifdef _OPENMP
using threads = pare::openmp;
#else
struct threads : pare::serial {
    explicit threads(int) {}
};
#endif

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

template <class F>
double seconds(const F& f) {
    const double start = now();
    f();
    return now() - start;
}

inline double quantile(std::vector<double> values, double q) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

template <class T>
std::vector<T> random_normal(index_t n, std::uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    std::normal_distribution<T> normal;
    std::vector<T> values(static_cast<std::size_t>(n));
    for (T& x : values) x = normal(random);
    return values;
}

/// Seconds to read `n` numbers once with `count` threads: the limit of a kernel that must read
/// them.
template <class T>
double read_seconds(const T* x, index_t n, int count) {
    using B = xsimd::batch<T>;
    constexpr index_t W = static_cast<index_t>(B::size), step = 8 * W;
    std::vector<T> sums(static_cast<std::size_t>(count) * 64);
    return seconds([&] {
        threads{count}.run(count, [&](index_t part, index_t) {
            B sum[8];
            for (B& s : sum) s = B(T(0));
            const index_t share = n / count / step * step;
            const T* from = x + part * share;
            for (index_t i = 0; i < share; i += step) PARE_UNROLL
            for (index_t u = 0; u < 8; ++u) sum[u] += B::load_unaligned(from + i + u * W);
            for (index_t u = 1; u < 8; ++u) sum[0] += sum[u];
            sum[0].store_unaligned(&sums[static_cast<std::size_t>(part) * 64]);
        });
        benchmark::DoNotOptimize(sums.data());
    });
}

/// Seconds to copy `n` numbers once with `count` threads: the limit of a kernel that must read and
/// write as many. By memcpy or by a loop, whichever is faster: on some processors memcpy moves a few
/// hundred kilobytes by an instruction that takes several times as long where the two addresses'
/// places in their pages are close.
template <class T>
double copy_seconds(const T* from, T* to, index_t n, int count) {
    using B = xsimd::batch<T>;
    constexpr index_t W = static_cast<index_t>(B::size), step = 8 * W;
    const auto copy = [&](const auto& part_of) {
        return seconds([&] {
            threads{count}.run(count, [&](index_t part, index_t) {
                const index_t begin = n * part / count, end = n * (part + 1) / count;
                part_of(from + begin, to + begin, end - begin);
            });
            benchmark::DoNotOptimize(to);
        });
    };
    const double by_loop = copy([](const T* x, T* y, index_t size) {
        index_t i = 0;
        for (; i + step <= size; i += step) {
            B moved[8];
            PARE_UNROLL
            for (index_t u = 0; u < 8; ++u) moved[u] = B::load_unaligned(x + i + u * W);
            PARE_UNROLL
            for (index_t u = 0; u < 8; ++u) moved[u].store_unaligned(y + i + u * W);
        }
        std::copy(x + i, x + size, y + i);
    });
    const double by_memcpy = copy([](const T* x, T* y, index_t size) {
        std::memcpy(y, x, static_cast<std::size_t>(size) * sizeof(T));
    });
    return std::min(by_loop, by_memcpy);
}

/// Multiply-adds per second that `count` threads reach on registers alone, times 2.
template <class T>
double peak_flops(int count) {
    using B = xsimd::batch<T>;
    constexpr index_t chains = 10, steps = 4000000; // long enough to leave the boost clock
    std::vector<T> sums(static_cast<std::size_t>(count) * 64);
    const double elapsed = seconds([&] {
        threads{count}.run(count, [&](index_t part, index_t) {
            B x[chains];
            for (index_t i = 0; i < chains; ++i) x[i] = B(static_cast<T>(i));
            const B a(T(0.999)), b(T(0.001));
            for (index_t s = 0; s < steps; ++s) PARE_UNROLL
            for (index_t i = 0; i < chains; ++i) x[i] = xsimd::fma(x[i], a, b);
            for (index_t i = 1; i < chains; ++i) x[0] += x[i];
            x[0].store_unaligned(&sums[static_cast<std::size_t>(part) * 64]);
        });
        benchmark::DoNotOptimize(sums.data());
    });
    return 2.0 * static_cast<double>(chains * steps * static_cast<index_t>(B::size) * count) /
           elapsed;
}

/// Runs ours, the limit and the peer in turn. `limit` returns the seconds that the limit allows,
/// `peer` does the peer's work. Counters: of_limit (1 = at the limit) and vs_<name> (> 1: ours is
/// faster) as medians of the paired ratios, with the distance of their 10 % and 90 % quantiles as
/// `spread`; limit_drift, how far apart the median limits of the first and the second half of the
/// rounds are: a machine on which that is much is not to be trusted.
class race {
  public:
    race(benchmark::State& state, const char* peer_name) : state_(state), peer_name_(peer_name) {}

    /// What one run has to do at least: arithmetic, and bytes of memory. For the roofline.
    race& work(double flops, double bytes) {
        state_.counters["flops"] = flops;
        state_.counters["bytes"] = bytes;
        return *this;
    }

    template <class Ours, class Limit, class Peer>
    void run(const Ours& ours, const Limit& limit, const Peer& peer) {
        ours(); // touches all memory
        peer();
        std::vector<double> of_limit, versus, limits;
        for (auto _ : state_) {
            const double t = seconds(ours);
            limits.push_back(limit());
            of_limit.push_back(limits.back() / t);
            versus.push_back(seconds(peer) / t);
            state_.SetIterationTime(t);
        }
        state_.counters["of_limit"] = quantile(of_limit, 0.5);
        state_.counters["spread"] = quantile(of_limit, 0.9) - quantile(of_limit, 0.1);
        state_.counters["limit_drift"] = drift(limits);
        state_.counters[std::string("vs_") + peer_name_] = quantile(versus, 0.5);
    }

  private:
    static double drift(const std::vector<double>& limits) {
        const auto middle = limits.begin() + static_cast<std::ptrdiff_t>(limits.size() / 2);
        if (limits.size() < 4) return 0;
        const double first = quantile({limits.begin(), middle}, 0.5);
        const double second = quantile({middle, limits.end()}, 0.5);
        return std::abs(first - second) / std::min(first, second);
    }

    benchmark::State& state_;
    const char* peer_name_;
};

} // namespace bench
