// Exchanging kept and pruned units against the block Fisher matrix, counts kept.
#pragma once

#include "core/error.hpp"
#include "core/view.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

struct rearrange_options {
    /// Added to the block's diagonal, relative to it. A block from fewer samples than units has
    /// rank deficiency: exchanges then fit the sample, and a ridge holds against it.
    double ridge = 0;
    /// 1 is the published greedy pass.
    index_t max_sweeps = 100;
};

struct rearrange_result {
    double loss_before = 0, loss_after = 0; ///< 1/2 (1 - m)' I (1 - m), in the scale of `block`
    index_t exchanges = 0, sweeps = 0;
    bool converged = false; ///< no exchange of one kept unit with one pruned unit improves any more
};

/// Lowers 1/2 (1 - m)' I (1 - m) by exchanging one kept unit with one pruned unit at a time until
/// no such exchange helps; the number of units kept stays. A sweep takes the kept units in the
/// order of their diagonal, adds each to the pruned set and takes back the unit whose return lowers
/// the loss most. From the diagonal's own mask the first sweep is the published greedy
/// (arXiv:2204.09656, section 4.2).
///
/// block  I times any positive factor (fisher::block_sums), symmetric [n x n], rows contiguous
/// mask   [n], 0 = pruned, anything else = kept; the start and, overwritten, the result
///
/// Throws shape_error, and value_error for a negative ridge or a diagonal that is negative or not
/// finite. Complexity: a sweep reads kept * n matrix elements twice, O(n) memory.
template <class Policy, class Block, class Mask>
rearrange_result rearrange(const Policy& policy, const Block& block, Mask&& mask,
                           const rearrange_options& options = {}) {
    const auto g = as_input<2>(block);
    const auto m = as_view<1>(mask);
    using T = typename decltype(g)::value_type;
    const index_t n = g.extent(0);
    if (g.extent(1) != n || m.extent(0) != n)
        detail::fail<shape_error>("rearrange", "block is ", n, " x ", g.extent(1), ", mask has ",
                                  m.extent(0), " units");
    if (n > 0 && g.stride(1) != 1)
        detail::fail<shape_error>("rearrange", "rows of the block have stride ", g.stride(1));
    if (!detail::is_finite(options.ridge) || options.ridge < 0 || options.max_sweeps < 0)
        detail::fail<value_error>("rearrange", "ridge ", options.ridge, ", ", options.max_sweeps,
                                  " sweeps");
    const auto size = static_cast<std::size_t>(n);
    const T ridge = static_cast<T>(options.ridge);
    // Taking unit i back from the pruned set changes the loss by 1/2 (gain[i] - 2 sums[i]), where
    // sums is the block times the pruned set; the ridge cancels out of sums.
    std::vector<T> gain(size), sums(size), penalty(size);
    constexpr T kept = std::numeric_limits<T>::max() / 4; // no candidate; finite, for -Ofast
    for (index_t i = 0; i < n; ++i) {
        const T d = g(i, i);
        if (!detail::is_finite(d) || d < 0 || d > kept / 4)
            detail::fail<value_error>("rearrange", "diagonal element ", i, " is ", d);
        gain[static_cast<std::size_t>(i)] = (1 - ridge) * d;
        penalty[static_cast<std::size_t>(i)] = m(i) ? kept : T(0);
    }
    const auto is_kept = [&](index_t i) { return penalty[static_cast<std::size_t>(i)] != T(0); };

    // Also removes the rounding that a sweep of updates leaves in the sums.
    const auto sum_pruned = [&] {
        std::vector<double> total(size, 0.0);
        double loss = 0;
        for (index_t i = 0; i < n; ++i)
            if (!is_kept(i))
                for (index_t j = 0; j < n; ++j) total[static_cast<std::size_t>(j)] += g(i, j);
        for (index_t i = 0; i < n; ++i) {
            sums[static_cast<std::size_t>(i)] = static_cast<T>(total[static_cast<std::size_t>(i)]);
            if (!is_kept(i)) loss += total[static_cast<std::size_t>(i)] + options.ridge * g(i, i);
        }
        return loss / 2;
    };

    std::vector<index_t> order(size);
    std::iota(order.begin(), order.end(), index_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](index_t a, index_t b) { return g(a, a) < g(b, b); });

    rearrange_result result;
    result.loss_before = result.loss_after = sum_pruned();
    for (; result.sweeps < options.max_sweeps && !result.converged; ++result.sweeps) {
        index_t exchanged = 0;
        index_t last = -1; // its row is subtracted together with the next one's addition
        std::vector<index_t> candidates;
        for (index_t a : order)
            if (is_kept(a)) candidates.push_back(a);
        for (index_t a : candidates) {
            const auto at = static_cast<std::size_t>(a);
            penalty[at] = 0;
            index_t back =
                policy.exchange(n, sums.data(), &g(a, 0), last < 0 ? nullptr : &g(last, 0),
                                gain.data(), penalty.data());
            // An improvement below the rounding of its own terms is none; it would exchange for
            // ever.
            const auto b = static_cast<std::size_t>(back);
            const T own = gain[at] - 2 * sums[at], best = gain[b] - 2 * sums[b];
            const T noise = 4 * std::numeric_limits<T>::epsilon() *
                            (gain[at] + 2 * std::abs(sums[at]) + gain[b] + 2 * std::abs(sums[b]));
            if (!(own - best > noise)) back = a;
            penalty[static_cast<std::size_t>(back)] = kept;
            exchanged += back != a;
            last = back;
        }
        result.exchanges += exchanged;
        result.converged = exchanged == 0;
        result.loss_after = sum_pruned();
    }
    for (index_t i = 0; i < n; ++i) m(i) = is_kept(i) ? 1 : 0;
    return result;
}

} // namespace PARE_ISA
} // namespace pare
