// Solving (G + r I) Z = B for symmetric positive definite G, in double.
#pragma once

#include "core/error.hpp"
#include "core/executor.hpp"
#include "core/view.hpp"
#include "core/workspace.hpp"
#include "policy/seq.hpp"

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_major_map = Eigen::Map<row_major, 0, Eigen::OuterStride<>>;

/// What a solve overwrites.
template <class X>
view<double, 2> doubles(X&& x) {
    const auto v = as_output<2>(std::forward<X>(x));
    static_assert(std::is_same_v<typename decltype(v)::value_type, double>,
                  "pare: matrices of a solve are of double");
    return v;
}
inline row_major_map map_rows(view<double, 2> v) {
    return row_major_map(v.data_handle(), v.extent(0), v.extent(1),
                         Eigen::OuterStride<>(v.stride(0)));
}

inline void check_contiguous(const char* function, view<double, 2> v) {
    if (v.extent(1) > 1 && v.stride(1) != 1) fail<shape_error>(function, "rows are not contiguous");
}
inline void check_matrix_of_solve(const char* function, view<double, 2> g) {
    if (g.extent(0) != g.extent(1))
        fail<shape_error>(function, "G is ", g.extent(0), " x ", g.extent(1));
    check_contiguous(function, g);
}
inline void check_solve(const char* function, view<double, 2> g, view<double, 2> b) {
    check_matrix_of_solve(function, g);
    if (b.extent(0) != g.extent(0))
        fail<shape_error>(function, "G is ", g.extent(0), " x ", g.extent(1), ", b ", b.extent(0),
                          " x ", b.extent(1));
    check_contiguous(function, b);
}

} // namespace detail

/// Factors G = U'U by blocks; G [n x n], rows contiguous. Reads the lower triangle and overwrites
/// both: U stands in the upper one. Returns false if G is not positive definite (NaN included); G
/// is then lost. Throws shape_error. Complexity: n^3 / 3, of which the policy's gram does all but the
/// share of the diagonal blocks and panels.
template <class Policy, class G>
bool factor_cholesky(const Policy& policy, G&& gram,
                     workspace& scratch = detail::of_this_call({})) {
    detail::check_whole(policy);
    const view<double, 2> g = detail::doubles(std::forward<G>(gram));
    detail::check_matrix_of_solve("factor_cholesky", g);
    constexpr index_t block = 96;
    const index_t n = g.extent(0);
    auto a = detail::map_rows(g);
    for (index_t k = 0; k < n; k += block) {
        const index_t b = std::min(block, n - k), rest = n - k - b;
        auto diagonal = a.block(k, k, b, b);
        const Eigen::LLT<detail::row_major> factor(diagonal);
        if (factor.info() != Eigen::Success) return false;
        for (index_t i = 0; i < b; ++i)
            if (!detail::is_finite(factor.matrixLLT()(i, i))) return false;
        diagonal.triangularView<Eigen::Upper>() = detail::row_major(factor.matrixU());
        if (rest == 0) break;
        // The panel's rows [b x rest] = L^-1 A12, where A12 is the mirror of the lower triangle's
        // A21.
        constexpr index_t columns = 64;
        detail::run_allocating(policy.executor(), (rest + columns - 1) / columns,
                               [&, k, b, rest](index_t task, index_t) {
                                   const index_t j = k + b + task * columns,
                                                 width = std::min(columns, n - j);
                                   (void)rest;
                                   detail::row_major panel = a.block(j, k, width, b).transpose();
                                   factor.matrixL().solveInPlace(panel);
                                   a.block(k, j, b, width) = panel;
                               });
        const view<const double, 2> panel(&g(k, k + b), {b, rest}, {g.stride(0), 1});
        policy.gram(-1.0, panel, panel,
                    view<double, 2>(&g(k + b, k + b), {rest, rest}, {g.stride(0), 1}), true,
                    scratch);
    }
    return true;
}

/// Overwrites b [n x m], rows contiguous, with (U'U)^-1 b, for U from factor_cholesky. Throws
/// shape_error. Complexity: 2 n^2 m.
template <class Policy, class G, class B>
void solve_cholesky(const Policy& policy, G&& factored, B&& b) {
    detail::check_policy(policy);
    constexpr index_t columns = 64; // right-hand sides do not depend on each other
    const auto of_u = detail::doubles(std::forward<G>(factored));
    const auto of_b = detail::doubles(std::forward<B>(b));
    detail::check_solve("solve_cholesky", of_u, of_b);
    detail::row_major_map u = detail::map_rows(of_u), right = detail::map_rows(of_b);
    const index_t m = right.cols();
    detail::run_allocating(policy.executor(), (m + columns - 1) / columns,
                           [&](index_t task, index_t) {
                               const index_t j = task * columns, width = std::min(columns, m - j);
                               detail::row_major part = right.middleCols(j, width);
                               u.triangularView<Eigen::Upper>().transpose().solveInPlace(part);
                               u.triangularView<Eigen::Upper>().solveInPlace(part);
                               right.middleCols(j, width) = part;
                           });
}

/// Overwrites b [n x m] with (G + ridge I)^-1 b. G [n x n] has a valid lower triangle and is
/// overwritten. Returns false, with b unchanged, if G + ridge I is not positive definite. Throws
/// shape_error, and value_error for a ridge that is negative or not finite.
template <class Policy, class G, class B>
bool ridge_solve(const Policy& policy, G&& gram, double ridge, B&& b) {
    detail::check_whole(policy);
    const auto g = detail::doubles(std::forward<G>(gram));
    const auto right = detail::doubles(std::forward<B>(b));
    detail::check_solve("ridge_solve", g, right);
    if (!detail::is_finite(ridge) || ridge < 0)
        detail::fail<value_error>("ridge_solve", "the ridge is ", ridge);
    for (index_t i = 0; i < g.extent(0); ++i) g(i, i) += ridge;
    if constexpr (Policy::on_host) {
        workspace scratch;
        if (!factor_cholesky(policy, g, scratch)) return false;
        solve_cholesky(policy, g, right);
        return true;
    } else {
        return policy.solve(g, right);
    }
}

} // namespace PARE_ISA
} // namespace pare
