// What a run takes beside a limit and a peer, as counters of Google Benchmark.
#pragma once

#include <pare/core/view.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace bench {

using pare::index_t;

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

/// Rounds in which ours, a limit and a peer took their turns. Counters: of_limit (1 = at the limit)
/// and vs_<name> (> 1: ours is faster) as medians of the paired ratios, with the distance of their
/// 10 % and 90 % quantiles as `spread`; limit_drift, how far apart the median limits of the first
/// and the second half of the rounds are: a machine on which that is much is not to be trusted.
class ratios {
  public:
    void add_limit(double ours, double limit) {
        limits_.push_back(limit);
        of_limit_.push_back(limit / ours);
    }
    void add_peer(double ours, double peer) { versus_.push_back(peer / ours); }

    void report(benchmark::State& state, const std::string& peer_name) const {
        if (!limits_.empty()) {
            state.counters["of_limit"] = quantile(of_limit_, 0.5);
            state.counters["spread"] = quantile(of_limit_, 0.9) - quantile(of_limit_, 0.1);
            state.counters["limit_drift"] = drift();
        }
        if (!versus_.empty()) state.counters["vs_" + peer_name] = quantile(versus_, 0.5);
    }

  private:
    double drift() const {
        const auto middle = limits_.begin() + static_cast<std::ptrdiff_t>(limits_.size() / 2);
        if (limits_.size() < 4) return 0;
        const double first = quantile({limits_.begin(), middle}, 0.5);
        const double second = quantile({middle, limits_.end()}, 0.5);
        return std::abs(first - second) / std::min(first, second);
    }

    std::vector<double> of_limit_, versus_, limits_;
};

} // namespace bench
