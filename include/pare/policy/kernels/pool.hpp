// Scores that neighbours share.
#pragma once

#include "halves.hpp"
#include "rows.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// y[t] = the largest, or the mean, of those of n numbers x[u] that are at most `radius` from t; where
/// there are fewer neighbours, and for a maximum where one is no number, which it would lose, at(t).
template <bool Largest, class E, class At>
void pool_row(index_t n, const E* x, index_t radius, E* y, const At& at) {
    using T = compute_t<E>;
    index_t t = 0;
    if (!Largest || first_nan(n, x) < 0) {
        for (; t < std::min(radius, n); ++t) y[t] = at(t);
        const batch<T> count(static_cast<T>(2 * radius + 1));
        for (; t + lanes<T> <= n - radius; t += lanes<T>) {
            batch<T> sum = Largest ? load_wide(x + t) : batch<T>(T(0));
            for (index_t u = t - radius; u <= t + radius; ++u)
                sum = Largest ? xsimd::max(load_wide(x + u), sum) : sum + load_wide(x + u);
            store_narrow(Largest ? sum : sum / count, y + t);
        }
    }
    for (; t < n; ++t) y[t] = at(t);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
