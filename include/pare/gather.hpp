// Moving the rows of kept tokens together, in all arrays that have a row a token, and back.
#pragma once

#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/view.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <tuple>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {

/// Two arrays between which rows move; made by from_to.
template <class T>
struct row_move {
    view<const T, 2> from;
    view<T, 2> to;
};

namespace detail {

template <class T>
view<T, 2> as_column(const view<T, 1>& x) {
    return {x.data_handle(), {x.extent(0), 1}, {x.stride(0), 1}};
}

/// A vector as rows of one element, a matrix as it is.
template <class X>
auto as_rows(X& x) {
    if constexpr (has<mdspan_like, X>::value) {
        static_assert(X::rank() <= 2, "pare: an array of rows is a vector or a matrix");
        if constexpr (X::rank() == 2)
            return as_view<2>(x);
        else
            return as_column(as_view<1>(x));
    } else if constexpr (has<eigen_like, X>::value) {
        if constexpr (X::RowsAtCompileTime == 1 || X::ColsAtCompileTime == 1)
            return as_column(as_view<1>(x));
        else
            return as_view<2>(x);
    } else {
        return as_column(as_view<1>(x));
    }
}

template <class X>
inline constexpr bool is_row_move = false;
template <class T>
inline constexpr bool is_row_move<row_move<T>> = true;

/// An argument of gather_rows: what from_to made, or an array whose first `kept` rows are the
/// target.
template <class X>
auto gather_of(X&& x, [[maybe_unused]] index_t kept) {
    if constexpr (is_row_move<std::remove_cv_t<std::remove_reference_t<X>>>) {
        return x;
    } else {
        check_stays<X>();
        const auto rows = as_rows(x);
        using T = typename decltype(rows)::element_type;
        static_assert(!std::is_const_v<T>,
                      "pare::gather_rows: an array in place is overwritten, and this one is const; "
                      "pass pare::from_to(from, to)");
        return row_move<T>{rows, view<T, 2>(rows.data_handle(), {kept, rows.extent(1)},
                                            {rows.stride(0), rows.stride(1)})};
    }
}

/// `few` has a row for each of `kept` positions of `all`.
template <class Few, class All>
void check_rows(const char* name, int array, const Few& few, const All& all, index_t kept) {
    static_assert(std::is_trivially_copyable_v<typename All::value_type>,
                  "pare: rows are moved as bytes, so their elements must be trivially copyable");
    if (few.extent(0) != kept || few.extent(1) != all.extent(1))
        fail<shape_error>(name, "array ", array, ": ", kept, " of ", all.extent(0), " x ",
                          all.extent(1), " against ", few.extent(0), " x ", few.extent(1));
}

/// The same for a policy, which may refuse their memory.
template <class Policy, class T>
row_move<T> on_policy(const Policy& policy, const row_move<T>& move) {
    return {as_view<2>(policy, move.from), as_view<2>(policy, move.to)};
}

} // namespace detail

/// For gather_rows and restore: rows of `from` go into `to`, two vectors or two matrices of one
/// element type, any strides. They do not overlap, except that gather_rows may close up rows: into
/// the memory where `from` starts, both with contiguous rows, those of `to` no farther apart.
template <class From, class To>
auto from_to(const From& from, To&& to) {
    detail::check_stays<To>();
    const auto in = detail::as_rows(from);
    const auto out = detail::as_rows(to);
    using T = typename decltype(out)::element_type;
    static_assert(std::is_same_v<typename decltype(in)::value_type, T>,
                  "pare::from_to: both arrays have one element type, and the second is not const");
    return row_move<T>{in, out};
}

/// Row index[i] becomes row i, in every array given:
///
///     pare::gather_rows(pare::simd, index, hidden, ids, pare::from_to(residual, kept_residual));
///
/// index   positions kept, ascending, stride 1
/// arrays  each a vector [rows] or a matrix [rows x columns] of its own width and any trivially
///         copyable type, and any strides. In place, where what is behind the kept rows is left as
///         it is; or from_to(from [rows x columns], to [kept x columns]).
///
/// Throws shape_error, and value_error for positions that do not ascend below the rows of the
/// shortest array; then nothing has moved. The adjoint of a gather is restore, into zeros.
/// Complexity: reads and writes the kept rows once; threads share out rows, or in place columns.
template <class Policy, class Index, class... Arrays>
void gather_rows(const Policy& policy, const Index& index, Arrays&&... arrays) {
    static_assert(sizeof...(arrays) > 0, "pare::gather_rows: pass the arrays after the index");
    const auto p = as_input<1>(policy, index);
    const index_t kept = p.extent(0);
    std::apply(
        [&](const auto&... move) {
            detail::check_positions("gather_rows", policy, p, std::min({move.from.extent(0)...}));
            int array = 0;
            (detail::check_rows("gather_rows", array++, move.to, move.from, kept), ...);
            (policy.gather_rows(move.from, p.data_handle(), move.to), ...);
        },
        std::tuple(
            detail::on_policy(policy, detail::gather_of(std::forward<Arrays>(arrays), kept))...));
}

/// The way back: row i becomes row index[i], for outputs that need every position:
///
///     pare::restore(pare::simd, index, pare::from_to(kept_hidden, hidden));
///
/// index  positions that were kept, ascending, stride 1
/// moves  from_to(from [kept x columns], to [rows x columns]), any number of them
///
/// Dropped rows are left as the caller filled them: zeros, or what the tokens were when they left.
/// Errors as for gather_rows. The adjoint is gather_rows.
template <class Policy, class Index, class... Moves>
void restore(const Policy& policy, const Index& index, const Moves&... moves) {
    static_assert(sizeof...(moves) > 0 && (detail::is_row_move<Moves> && ...),
                  "pare::restore: pass pare::from_to(kept rows, all rows) after the index");
    const auto p = as_input<1>(policy, index);
    std::apply(
        [&](const auto&... move) {
            detail::check_positions("restore", policy, p, std::min({move.to.extent(0)...}));
            int array = 0;
            (detail::check_rows("restore", array++, move.from, move.to, p.extent(0)), ...);
            (policy.scatter_rows(move.from, p.data_handle(), move.to), ...);
        },
        std::tuple(detail::on_policy(policy, moves)...));
}

namespace detail {

/// Where a policy of the host reads how many rows move, up to `room`.
template <class Offsets>
index_t rows_of(const char* name, const Offsets& kept_offsets, index_t room) {
    const auto rows = static_cast<index_t>(kept_offsets(kept_offsets.extent(0) - 1));
    if (rows < 0 || rows > room)
        fail<shape_error>(name, rows, " rows, there are ", room, " positions");
    return rows;
}
template <class T>
view<T, 2> first_rows(const view<T, 2>& x, index_t rows) {
    return {x.data_handle(), {rows, x.extent(1)}, {x.stride(0), x.stride(1)}};
}
template <class Positions, class Offsets>
void check_kept(const char* name, const Positions& positions, const Offsets& offsets) {
    static_assert(std::is_integral_v<typename Offsets::value_type>, "pare: offsets are integers");
    if (offsets.extent(0) < 1 || !is_contiguous(offsets))
        fail<shape_error>(name, offsets.extent(0), " offsets of stride ", offsets.stride(0));
    if (!is_contiguous(positions))
        fail<shape_error>(name, "positions have stride ", positions.stride(0));
}

} // namespace detail

/// gather_rows of as many rows as the last of `kept_offsets` says, behind keep_above_async: on a GPU
/// the host does not know that number, and need not wait for it.
///
/// index         [room], of which as many are read
/// kept_offsets  [sequences + 1]
/// arrays        as for gather_rows with `room` positions: in place with at least so many rows, or
///               from_to(from [rows x columns], to [room x columns]); what is behind the rows that
///               move is left as it is
///
/// Throws shape_error; where the host reads the positions, value_error too, as gather_rows does.
/// Elsewhere in place takes temporary memory for all rows.
template <class Policy, class Index, class Offsets, class... Arrays>
void gather_rows_async(const Policy& policy, const Index& index, const Offsets& kept_offsets,
                       Arrays&&... arrays) {
    static_assert(sizeof...(arrays) > 0,
                  "pare::gather_rows_async: pass the arrays after the offsets");
    constexpr const char* name = "gather_rows_async";
    const auto p = as_input<1>(policy, index);
    const auto o = as_input<1>(policy, kept_offsets);
    detail::check_kept(name, p, o);
    const index_t room = p.extent(0);
    std::apply(
        [&](const auto&... move) {
            int array = 0;
            (detail::check_rows(name, array++, move.to, move.from, room), ...);
            if constexpr (Policy::on_host) {
                const index_t rows = detail::rows_of(name, o, room);
                gather_rows(policy, view(p.data_handle(), rows),
                            row_move<typename std::decay_t<decltype(move.to)>::value_type>{
                                move.from, detail::first_rows(move.to, rows)}...);
            } else {
                (policy.gather_rows(move.from, p.data_handle(), move.to,
                                    o.data_handle() + (o.extent(0) - 1)),
                 ...);
            }
        },
        std::tuple(
            detail::on_policy(policy, detail::gather_of(std::forward<Arrays>(arrays), room))...));
}

/// The way back, as restore: moves from_to(from [room x columns], to [rows x columns]), of which the
/// first rows move, as many as the last of `kept_offsets` says.
template <class Policy, class Index, class Offsets, class... Moves>
void restore_async(const Policy& policy, const Index& index, const Offsets& kept_offsets,
                   const Moves&... moves) {
    static_assert(sizeof...(moves) > 0 && (detail::is_row_move<Moves> && ...),
                  "pare::restore_async: pass pare::from_to(kept rows, all rows) after the offsets");
    constexpr const char* name = "restore_async";
    const auto p = as_input<1>(policy, index);
    const auto o = as_input<1>(policy, kept_offsets);
    detail::check_kept(name, p, o);
    const index_t room = p.extent(0);
    std::apply(
        [&](const auto&... move) {
            int array = 0;
            (detail::check_rows(name, array++, move.from, move.to, room), ...);
            if constexpr (Policy::on_host) {
                const index_t rows = detail::rows_of(name, o, room);
                restore(policy, view(p.data_handle(), rows),
                        Moves{detail::first_rows(move.from, rows), move.to}...);
            } else {
                (policy.scatter_rows(move.from, p.data_handle(), move.to,
                                     o.data_handle() + (o.extent(0) - 1)),
                 ...);
            }
        },
        std::tuple(detail::on_policy(policy, moves)...));
}

} // namespace PARE_ISA
} // namespace pare
