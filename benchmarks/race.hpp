// Timing a kernel beside the machine's limit and a peer, in turn in one process, so that the ratios
// hold on a noisy machine.
#pragma once

#include "ratios.hpp"

#include <pare/core/executor.hpp>
#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cstring>
#include <vector>

namespace bench {

#ifdef _OPENMP
using threads = pare::openmp;
#else
struct threads : pare::serial {
    explicit threads(int) {}
};
#endif

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

/// Runs ours, the limit and the peer in turn, for the counters of `ratios`. `limit` returns the
/// seconds that the limit allows, `peer` does the peer's work.
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
        ratios found;
        for (auto _ : state_) {
            const double t = seconds(ours);
            found.add_limit(t, limit());
            found.add_peer(t, seconds(peer));
            state_.SetIterationTime(t);
        }
        found.report(state_, peer_name_);
    }

  private:
    benchmark::State& state_;
    const char* peer_name_;
};

} // namespace bench
