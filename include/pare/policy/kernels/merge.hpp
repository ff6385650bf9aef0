// Which rows are most like others, and rows that become one.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/view.hpp"

#include <cmath>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The number of the first of ascending positions that is not less than `position`.
template <class Index>
constexpr index_t rank_of_position(const Index* index, index_t count, index_t position) {
    return first_not_below(
        count, [=](index_t i) { return index[i]; }, position);
}
/// Which of index[i] token t becomes a part of: its own row, or else its nearest; -1 where of none.
template <class Index, class Nearest>
constexpr index_t row_of_token(const Index* index, index_t count,
                               const view<const Nearest, 1>& nearest, index_t t) {
    index_t i = rank_of_position(index, count, t);
    if (i < count && static_cast<index_t>(index[i]) == t) return i;
    const index_t to = static_cast<index_t>(nearest(t));
    i = rank_of_position(index, count, to);
    return i < count && static_cast<index_t>(index[i]) == to ? i : -1;
}

/// 2^n.
template <class C>
constexpr C two_to(int n) {
    C x = 1;
    for (; n > 0; --n) x *= 2;
    return x;
}

/// By what a row is multiplied whose largest number is this, before it is squared: there may be no
/// numbers for the squares. A power of 2 changes no digit.
template <class C>
constexpr C scale_of_squares(C largest) {
    constexpr C large = two_to<C>(std::numeric_limits<C>::max_exponent / 3);
    return largest > large ? 1 / (large * large) : largest < 1 / large ? large * large : C(1);
}
/// By what it is then, of its squares' sum; by 0 NaN stays NaN.
template <class C>
PARE_HD C inverse_length(C sum) {
    return opaque(sum > 0 ? 1 / std::sqrt(sum) : C(0));
}

/// to = row t of x by its length; zeros stay.
template <class T>
PARE_HD void unit_row(const view<const T, 2>& x, index_t t, compute_t<T>* to) {
    using C = compute_t<T>;
    C largest = 0;
    for (index_t c = 0; c < x.extent(1); ++c) {
        const C size = std::abs(static_cast<C>(x(t, c)));
        if (size > largest) largest = size;
    }
    const C scale = scale_of_squares(largest);
    C sum = 0;
    for (index_t c = 0; c < x.extent(1); ++c) {
        to[c] = opaque(static_cast<C>(x(t, c)) * scale);
        add_in_order(sum, to[c] * to[c]);
    }
    const C factor = inverse_length(sum);
    for (index_t c = 0; c < x.extent(1); ++c) to[c] *= factor;
}

/// What a token is most like of some rows in their order: the first of the nearest ones. A cosine that
/// is no number is nearest where there is none besides.
template <class C>
struct nearest_row {
    index_t row; ///< or -1: there is none
    C cosine;

    static constexpr nearest_row none() { return {-1, C(-1)}; }
    /// Whether a row behind this one, of this cosine, is nearer.
    PARE_HD bool loses_to(const C& other) const {
        return row < 0 || (!is_nan(other) && (is_nan(cosine) || other > cosine));
    }
};
/// Of other rows, in whichever order.
template <class C>
PARE_HD nearest_row<C> join(const nearest_row<C>& a, const nearest_row<C>& b) {
    if (a.row < 0 || b.row < 0) return a.row < 0 ? b : a;
    const bool second = a.row < b.row ? a.loses_to(b.cosine) : !b.loses_to(a.cosine);
    return {second ? b.row : a.row, second ? b.cosine : a.cosine};
}

struct plain_product {
    template <class C>
    PARE_HD C operator()(index_t n, const C* a, const C* b) const {
        C sum = 0;
        for (index_t i = 0; i < n; ++i) add_in_order(sum, a[i] * b[i]);
        return sum;
    }
};

/// Of token t, from the rows of all tokens by their lengths; see pare::nearest_rows.
template <class C, class Offset, class Index, class Nearest, class T, class Product>
PARE_HD void find_nearest(const C* rows, index_t size, const Offset* offsets, index_t sequences,
                          const Index* index, index_t count, index_t t,
                          const view<Nearest, 1>& nearest, const view<T, 1>& similarity,
                          const Product& product) {
    const index_t s = segment_of(offsets, sequences, t);
    const index_t begin = rank_of_position(index, count, static_cast<index_t>(offsets[s]));
    const index_t end = rank_of_position(index, count, static_cast<index_t>(offsets[s + 1]));
    const index_t own = rank_of_position(index, count, t);
    nearest_row<C> best = nearest_row<C>::none();
    if (own < end && static_cast<index_t>(index[own]) == t) {
        best = {t, C(1)};
    } else {
        for (index_t j = begin; j < end; ++j) {
            const auto u = static_cast<index_t>(index[j]);
            const C cosine = product(size, rows + t * size, rows + u * size);
            if (best.loses_to(cosine)) best = {u, cosine};
        }
    }
    nearest(t) = static_cast<Nearest>(best.row);
    similarity(t) = static_cast<T>(best.cosine);
}

/// sums[c] += share * x[c * stride], c < n.
struct plain_share {
    template <class T, class C>
    PARE_HD void operator()(index_t n, C share, const T* x, index_t stride, C* sums) const {
        for (index_t c = 0; c < n; ++c) sums[c] += share * static_cast<C>(x[c * stride]);
    }
};

/// Row i in some columns, up to Most, from the tokens parts[starts[i]] .. parts[starts[i + 1]].
template <std::size_t Most, class AddShare, class T, class W>
PARE_HD void mean_of_parts(const AddShare& add_share, const view<const T, 2>& x,
                           const view<const W, 1>& weights, const index_t* parts,
                           const index_t* starts, index_t i, const index_range& columns,
                           const view<T, 2>& out) {
    using C = compute_t<T>;
    const index_t begin = starts[i], end = starts[i + 1], size = columns.size();
    if (end - begin == 1) { // as it is, however often rows are merged
        for (index_t c = columns.begin; c < columns.end; ++c) out(i, c) = x(parts[begin], c);
        return;
    }
    C total = 0, sums[Most] = {};
    for (index_t p = begin; p < end; ++p) total += static_cast<C>(weights(parts[p]));
    for (index_t p = begin; p < end; ++p) {
        const C share = static_cast<C>(weights(parts[p])) / total;
        add_share(size, share, x.address(parts[p], columns.begin), x.stride(1), sums);
    }
    for (index_t c = 0; c < size; ++c) out(i, columns.begin + c) = static_cast<T>(sums[c]);
}
template <class W>
PARE_HD W size_of_parts(const view<const W, 1>& weights, const index_t* parts,
                        const index_t* starts, index_t i) {
    compute_t<W> sum = 0;
    for (index_t p = starts[i]; p < starts[i + 1]; ++p)
        sum += static_cast<compute_t<W>>(weights(parts[p]));
    return static_cast<W>(sum);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
