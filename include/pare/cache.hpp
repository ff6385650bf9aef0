// What is chosen of a decoder's cache of keys and values, beside keep_top_k and keep_above: scores
// that neighbours share, and one budget for all groups of heads.
//
//     pare::attention(policy, q, k, v, offsets, out, scores, options); // scores [groups x keys]
//     pare::pool_scores(policy, scores, offsets, 3, pare::pooling::max, pooled);
//     pare::share_budget(pooled, groups * budget, least, counts);
//
// and of each group keep_top_k, gather_rows.
#pragma once

#include "attention.hpp"
#include "compact/selection.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What neighbours give a key: the largest of their scores, or the mean.
enum class pooling { max, mean };

/// Scores of each key and its neighbours of one sequence, up to `radius` positions away: words whose
/// neighbours are attended to stay with them (SnapKV, arXiv:2404.14469, whose kernels of 5 and 7 are
/// radius 2 and 3; its mean, PyTorch's, divides by the kernel's size at the ends too, where this one
/// divides by the keys that there are).
///
/// scores   [keys], or [rows x keys]
/// offsets  [sequences + 1]: sequence s has the keys offsets[s] .. offsets[s + 1]
/// pooled   as scores, overwritten; it is other memory
///
/// NaN goes into the scores of all neighbours. Throws shape_error, and value_error for a radius below
/// 0. Complexity: rows * keys * radius.
template <class Policy, class Scores, class Offsets, class Pooled>
void pool_scores(const Policy& policy, const Scores& scores, const Offsets& offsets, index_t radius,
                 pooling how, Pooled&& pooled) {
    constexpr const char* name = "pool_scores";
    detail::check_policy(policy);
    const auto from = as_input<detail::rank_of_scores<Scores>()>(policy, scores);
    const auto to = detail::as_scores(policy, std::forward<Pooled>(pooled));
    const auto o = as_input<1>(policy, offsets);
    const auto x = detail::rows_of_scores(from);
    const auto y = detail::rows_of_scores(to);
    using T = typename decltype(x)::value_type;
    detail::check_real<T>();
    static_assert(std::is_same_v<T, typename decltype(y)::value_type>,
                  "pare::pool_scores: scores are of one type before and after");
    if (x.extent(0) != y.extent(0) || x.extent(1) != y.extent(1))
        detail::fail<shape_error>(name, "scores are ", detail::shape_of(x), ", pooled ones ",
                                  detail::shape_of(y));
    if (radius < 0) detail::fail<value_error>(name, "the radius is ", radius);
    detail::check_offsets(name, policy, o, x.extent(1));
    policy.pool(x, o.data_handle(), o.extent(0) - 1, std::min(radius, x.extent(1)),
                how == pooling::max, y);
}

/// How many keys of each row stay where all rows share one budget (Ada-KV, arXiv:2407.11550): of each
/// row its `least` best, and of all others the best of any row. keep_top_k of a row with its number
/// keeps these. Of equal ones the earlier come first, as there.
///
/// scores  [rows x keys], of the groups or heads of one sequence, in the host's memory
/// total   how many are to stay in all; at least rows * min(least, keys)
/// least   how many of each row; at least 1
/// counts  [rows] integers, overwritten; they sum up to `total`, or to all there are
/// pinned  come first in each row; flags are [keys], the same for all rows
///
/// Throws shape_error, and value_error for such numbers and for a score that is NaN. Complexity: rows *
/// keys, in as many numbers of memory.
template <class Scores, class Counts>
void share_budget(const Scores& scores, index_t total, index_t least, Counts&& counts,
                  const pins& pinned = {}) {
    constexpr const char* name = "share_budget";
    const auto x = as_input<2>(scores);
    const auto n = as_output<1>(std::forward<Counts>(counts));
    using T = typename decltype(x)::value_type;
    using count = typename decltype(n)::value_type;
    detail::check_real<T>();
    static_assert(std::is_integral_v<count>, "pare::share_budget: counts are integers");
    const index_t rows = x.extent(0), keys = x.extent(1), flags = pinned.flags.extent(0);
    if (n.extent(0) != rows || (flags != 0 && flags != keys) || pinned.first < 0 || pinned.last < 0)
        detail::fail<shape_error>(name, "scores are ", detail::shape_of(x), ", there are ",
                                  n.extent(0), " counts; pinned are the first ", pinned.first,
                                  " keys, the last ", pinned.last, " and by ", flags, " flags");
    if (least < 1 || total < detail::product(rows, std::min(least, keys)))
        detail::fail<value_error>(
            name, "a budget of ", total, " for ", rows, " rows, of which each keeps at least ",
            least, "; that has to be 1 or more, and the budget ",
            detail::product(rows, std::min(std::max<index_t>(least, 1), keys)));
    detail::check_counts_to<count>(name, keys);
    struct candidate {
        index_t row, key;
        compute_t<T> score;
        bool pinned;
    };
    const auto before = [](const candidate& a, const candidate& b) {
        if (a.pinned != b.pinned) return a.pinned;
        if (a.score != b.score) return a.score > b.score;
        return a.row != b.row ? a.row < b.row : a.key < b.key;
    };
    const detail::kept_before<T> rule{{}, pinned};
    std::vector<candidate, detail::allocator<candidate>> rest, row;
    const index_t each = std::min(least, keys);
    for (index_t r = 0; r < rows; ++r) {
        row.clear();
        for (index_t j = 0; j < keys; ++j) {
            const auto score = static_cast<compute_t<T>>(x(r, j));
            if (detail::is_nan(score))
                detail::fail<value_error>(name, "score ", j, " of row ", r, " is NaN");
            row.push_back({r, j, score, rule.is_pinned(j, {0, keys})});
        }
        const auto others = row.begin() + each;
        if (others != row.end()) std::nth_element(row.begin(), others, row.end(), before);
        rest.insert(rest.end(), others, row.end());
    }
    const auto left = static_cast<std::ptrdiff_t>(
        std::min(total - rows * each, static_cast<index_t>(rest.size())));
    const auto stop = rest.begin() + left;
    if (stop != rest.end()) std::nth_element(rest.begin(), stop, rest.end(), before);
    for (index_t r = 0; r < rows; ++r) n(r) = static_cast<count>(each);
    for (auto c = rest.begin(); c != stop; ++c) ++n(c->row);
}

} // namespace PARE_ISA
} // namespace pare
