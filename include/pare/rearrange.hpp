// Exchanging kept and pruned units against the block Fisher matrix, counts kept.
#pragma once

#include "core/error.hpp"
#include "core/view.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// values -= the sum of the rows of g [n x n] that are not kept.
template <class T>
void subtract_pruned_rows(view<const T, 2> g, const std::vector<char>& kept,
                          std::vector<double>& values) {
    const std::size_t size = kept.size();
    const std::vector<T> nothing(size);
    std::vector<const T*> rows; // then zeros, up to whole groups
    for (std::size_t i = 0; i < size; ++i)
        if (!kept[i]) rows.push_back(&g(static_cast<index_t>(i), 0));
    rows.resize((rows.size() + 3) / 4 * 4, nothing.data());
    for (std::size_t r = 0; r < rows.size(); r += 4) // four at a time: the sums leave L1
        for (std::size_t j = 0; j < size; ++j)
            values[j] -=
                (static_cast<double>(rows[r][j]) + static_cast<double>(rows[r + 1][j])) +
                (static_cast<double>(rows[r + 2][j]) + static_cast<double>(rows[r + 3][j]));
}

} // namespace detail

/// What rearrange guards against, and when it stops.
struct rearrange_options {
    /// Added to the block's diagonal, relative to it. A block from fewer samples than units has
    /// rank deficiency: exchanges then fit the sample, and a ridge holds against it.
    double ridge = 0;
    /// 1 is the published greedy pass.
    index_t max_sweeps = 100;
};

/// What the exchanges gained.
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
/// finite. Complexity: the rows of pruned units are read once, those of kept units in each sweep, and
/// those of exchanged ones once more; O(n) memory.
template <class Policy, class Block, class Mask>
rearrange_result rearrange(const Policy& policy, const Block& block, Mask&& mask,
                           const rearrange_options& options = {}) {
    detail::check_policy(policy);
    const auto g = as_input<2>(block);
    const auto m = as_output<1>(std::forward<Mask>(mask));
    using T = typename decltype(g)::value_type;
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                  "pare::rearrange: the block is of float or double");
    const index_t n = g.extent(0);
    if (g.extent(1) != n || m.extent(0) != n)
        detail::fail<shape_error>("rearrange", "block is ", n, " x ", g.extent(1), ", mask has ",
                                  m.extent(0), " units");
    if (n > 1 && g.stride(1) != 1)
        detail::fail<shape_error>("rearrange", "rows of the block have stride ", g.stride(1));
    if (!detail::is_finite(options.ridge) || options.ridge < 0 || options.max_sweeps < 0)
        detail::fail<value_error>("rearrange", "ridge ", options.ridge, ", ", options.max_sweeps,
                                  " sweeps");
    const auto size = static_cast<std::size_t>(n);
    // Taking unit i back from the pruned set changes the loss by values[i] = gain[i] - (block times
    // pruned set)[i]; the ridge cancels out of the second term. A score is the value of a unit that
    // may be taken back, rounded, or `never`.
    std::vector<double> gain(size);
    std::vector<T> scores(size);
    constexpr T never = std::numeric_limits<T>::max() / 4; // finite, for -Ofast
    std::vector<char> kept(size);
    for (index_t i = 0; i < n; ++i) {
        const T d = g(i, i);
        if (!detail::is_finite(d) || d < 0 || d > never / 4)
            detail::fail<value_error>("rearrange", "diagonal element ", i, " is ", d);
        gain[static_cast<std::size_t>(i)] = (1 - options.ridge) * static_cast<double>(d) / 2;
        kept[static_cast<std::size_t>(i)] = m(i) != 0 ? 1 : 0;
    }
    std::vector<double> values = gain;
    detail::subtract_pruned_rows(g, kept, values);

    const auto loss = [&] {
        double sum = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const auto at = static_cast<index_t>(i);
            if (!kept[i])
                sum += gain[i] - values[i] + options.ridge * static_cast<double>(g(at, at));
        }
        return sum / 2;
    };

    std::vector<index_t> order(size);
    std::iota(order.begin(), order.end(), index_t{0});
    std::sort(order.begin(), order.end(),
              [&](index_t a, index_t b) { return std::pair(g(a, a), a) < std::pair(g(b, b), b); });

    rearrange_result result;
    result.loss_before = result.loss_after = loss();
    for (; result.sweeps < options.max_sweeps && !result.converged; ++result.sweeps) {
        index_t exchanged = 0;
        std::vector<index_t> candidates;
        for (index_t a : order)
            if (kept[static_cast<std::size_t>(a)]) candidates.push_back(a);
        for (std::size_t i = 0; i < size; ++i)
            scores[i] = kept[i] ? never : static_cast<T>(values[i]);
        for (std::size_t c = 0; c < candidates.size(); ++c) {
            const index_t a = candidates[c];
            if (c + 1 < candidates.size()) { // rows come in no order that hardware could foresee
                constexpr index_t line = 64 / static_cast<index_t>(sizeof(T));
                const T* const next = &g(candidates[c + 1], 0);
                for (index_t i = 0; i < n; i += line) PARE_PREFETCH(next + i);
            }
            // With a in the pruned set too, every value falls by a's row.
            const auto from = static_cast<std::size_t>(a);
            const double own = values[from] - static_cast<double>(g(a, a));
            const index_t b =
                policy.argmin_difference(n, scores.data(), &g(a, 0), static_cast<T>(own));
            if (b < 0) continue;
            const auto to = static_cast<std::size_t>(b);
            if (kept[to]) continue; // of a block that no gradients have
            const double best = values[to] - static_cast<double>(g(a, b));
            // An improvement below the rounding of its own terms is none; it would exchange for
            // ever.
            const double noise =
                4 * static_cast<double>(std::numeric_limits<T>::epsilon()) *
                (gain[from] + std::abs(gain[from] - own) + gain[to] + std::abs(gain[to] - best));
            if (!(own - best > noise)) continue;
            policy.exchange(n, values.data(), scores.data(), &g(a, 0), &g(b, 0));
            kept[from] = 0;
            kept[to] = 1;
            scores[from] = static_cast<T>(values[from]);
            scores[to] = never;
            ++exchanged;
        }
        result.exchanges += exchanged;
        result.converged = exchanged == 0;
        result.loss_after = loss();
    }
    using M = typename decltype(m)::value_type;
    for (index_t i = 0; i < n; ++i) m(i) = static_cast<M>(kept[static_cast<std::size_t>(i)]);
    return result;
}

} // namespace PARE_ISA
} // namespace pare
