// Rank inside heads with rotary positions: which pairs of numbers queries and keys need least.
//
// A rotation by a token's position turns each pair of a vector's numbers by an angle of its own, and
// only maps that commute with all of them can stand before it: of each pair a multiple and another
// rotation, a x + b J x with J (x, y) = (-y, x), or nothing. So pairs leave whole, and what is left of
// queries is scaled and turned to make up for them. In such maps P = sum of a_i B_i, the loss of
// project.hpp, 1/2 the mean of (g' (P - I) q)^2, is a quadratic form of least squares:
//
//     1/2 (a - w)' Q (a - w),   Q_ij = tr(B_i S B_j' M),   w = 1 for a, 0 for b,
//
// from which pare::eliminate takes pairs. Query heads that share a head of keys lose the same pairs.
#pragma once

#include "project.hpp"

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <cstdint>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// Which of a head's numbers are turned together.
enum class rotary_layout {
    halves,  ///< i and i + size / 2: Llama and GPT-NeoX, as Hugging Face stores them
    adjacent ///< 2 i and 2 i + 1: GPT-J
};

/// A pair's numbers in a head of `size` numbers.
inline std::pair<index_t, index_t> rotary_pair(rotary_layout layout, index_t size, index_t pair) {
    return layout == rotary_layout::halves ? std::pair(pair, pair + size / 2)
                                           : std::pair(2 * pair, 2 * pair + 1);
}

/// What pairs of a head of keys, and of the query heads that share it, cost.
struct rotary_pairs {
    loss_curve curve;       ///< of pairs
    detail::row_major form; ///< Q + r I; of a pair (a, b) of each query head, pairs side by side
    index_t heads = 1;      ///< query heads

    /// (a, b) of the query heads [kept pairs x 2 heads], with which the pairs kept lose least: what was
    /// (x, y) of a query is to be (a x - b y, b x + a y), by the rows of W and b that make it. Throws
    /// shape_error.
    detail::row_major factors(const std::vector<std::uint8_t>& kept) const {
        const index_t of_pair = 2 * heads;
        if (static_cast<index_t>(kept.size()) != curve.units())
            detail::fail<shape_error>("rotary_pairs", "a mask of ", kept.size(),
                                      " pairs, there are ", curve.units());
        std::vector<index_t> in, out;
        for (index_t i = 0; i < form.rows(); ++i)
            (kept[static_cast<std::size_t>(i / of_pair)] ? in : out).push_back(i);
        const auto count = static_cast<index_t>(in.size());
        Eigen::VectorXd more = Eigen::VectorXd::Zero(count); // what those that are gone leave to do
        detail::row_major rest(count, count);
        for (index_t i = 0; i < count; ++i) {
            const index_t row = in[static_cast<std::size_t>(i)];
            for (index_t j = 0; j < count; ++j)
                rest(i, j) = form(row, in[static_cast<std::size_t>(j)]);
            for (const index_t j : out)
                if (j % 2 == 0) more(i) += form(row, j);
        }
        if (count > 0 && more.squaredNorm() > 0) more = rest.ldlt().solve(more).eval();
        detail::row_major found(count / of_pair, of_pair);
        for (index_t i = 0; i < count; ++i)
            found(i / of_pair, i % of_pair) = more(i) + (i % 2 == 0 ? 1 : 0);
        return found;
    }
};

/// The order in which to remove pairs, and what is lost.
///
/// moments  [query heads x size x size] S of each head's queries before they are turned, with their
///          bias; lower triangles are read. Tokens may be weighted
/// metrics  [query heads x size x size] M of the gradients there
/// ridge    relative to Q's mean diagonal: how much it costs to scale and turn what stays
///
/// Throws shape_error, and value_error for numbers that are not finite, a ridge that is negative and
/// matrices that are not positive semidefinite. Complexity: heads * size^2, and what
/// pare::eliminate takes of 2 heads * pairs inputs.
template <class Policy, class S, class M>
rotary_pairs eliminate_pairs(const Policy& policy, const S& moments, const M& metrics,
                             rotary_layout layout, double ridge = 1e-3) {
    constexpr const char* name = "eliminate_pairs";
    const auto all_s = as_input<3>(moments);
    const auto all_m = as_input<3>(metrics);
    const index_t heads = all_s.extent(0), size = all_s.extent(1), pairs = size / 2;
    if (heads < 1 || size % 2 != 0 || all_s.extent(2) != size || all_m.extent(0) != heads ||
        all_m.extent(1) != size || all_m.extent(2) != size)
        detail::fail<shape_error>(name, "the moments are ", heads, " x ", size, " x ",
                                  all_s.extent(2), ", the metrics ", all_m.extent(0), " x ",
                                  all_m.extent(1), " x ", all_m.extent(2));
    rotary_pairs found;
    found.heads = heads;
    found.form.setZero(pairs * heads * 2, pairs * heads * 2);
    for (index_t h = 0; h < heads; ++h) {
        const auto of_head = [&](const auto& of, const char* what) {
            using T = typename std::decay_t<decltype(of)>::value_type;
            const view<const T, 2> one(&of(h, 0, 0), {size, size}, {of.stride(1), of.stride(2)});
            detail::row_major all = detail::mirrored(detail::finite_matrix(name, what, one, true));
            detail::semidefinite(name, what, all);
            return all;
        };
        if (size == 0) break;
        const detail::row_major s = of_head(all_s, "moments"), m = of_head(all_m, "metric");
        using block = Eigen::Matrix2d;
        const auto block_of = [&](const detail::row_major& of, index_t p, index_t q) {
            const auto rows = rotary_pair(layout, size, p), columns = rotary_pair(layout, size, q);
            block b;
            b << of(rows.first, columns.first), of(rows.first, columns.second),
                of(rows.second, columns.first), of(rows.second, columns.second);
            return b;
        };
        block turn;
        turn << 0, -1, 1, 0;
        for (index_t p = 0; p < pairs; ++p)
            for (index_t q = 0; q < pairs; ++q) {
                const block of_s = block_of(s, p, q), of_m = block_of(m, q, p);
                const auto at = [&](index_t pair) { return (pair * heads + h) * 2; };
                found.form(at(p), at(q)) = (of_s * of_m).trace();
                found.form(at(p) + 1, at(q)) = (turn * of_s * of_m).trace();
                found.form(at(p), at(q) + 1) = (of_s * turn.transpose() * of_m).trace();
                found.form(at(p) + 1, at(q) + 1) = (turn * of_s * turn.transpose() * of_m).trace();
            }
    }
    detail::row_major weight(1, found.form.cols());
    for (index_t i = 0; i < weight.cols(); ++i) weight(0, i) = i % 2 == 0 ? 1 : 0;
    found.curve = eliminate(
        policy, view<const double, 2>(found.form.data(), found.form.rows(), found.form.cols()),
        view<const double, 2>(), weight, 2 * heads, ridge);
    if (pairs > 0) found.form.diagonal().array() += ridge * found.form.diagonal().mean();
    return found;
}

} // namespace PARE_ISA
} // namespace pare
