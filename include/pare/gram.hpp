// Gram matrices: the sufficient statistics of least squares and of the block Fisher.
#pragma once

#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/kept_sums.hpp"
#include "core/ops.hpp"
#include "core/view.hpp"
#include "core/workspace.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

struct saved;

/// sums[c] = the sum of op(x[t, c], ...) over all rows t of each column c, in the policy's memory.
template <class Policy, class Op, class T, class... Ts>
void sum_columns(const Policy& policy, Op op, double* sums, view<const T, 2> x,
                 view<const Ts, 2>... others) {
    policy.segment_sums(op, offsets_of_one{x.extent(0)}, 1, view<double, 2>(sums, 1, x.extent(1)),
                        x, others...);
}
/// Numbers that primitives write in the policy's memory, and that the host reads in one copy.
template <class Policy>
class fetched_numbers {
  public:
    fetched_numbers(const Policy& policy, index_t count)
        : policy_(policy), here_(static_cast<std::size_t>(count)),
          memory_(policy.template temporary<double>(scratch_, Policy::on_host ? 0 : count)) {}

    double* there() {
        if constexpr (Policy::on_host)
            return here_.data();
        else
            return memory_.data();
    }
    /// Waits for what is queued.
    const double* fetch() {
        if constexpr (!Policy::on_host)
            policy_.copy_to_host(memory_.data(), static_cast<index_t>(here_.size()), here_.data());
        return here_.data();
    }
    /// What the last fetch() has brought.
    const double* last() const { return here_.data(); }

  private:
    const Policy& policy_;
    std::vector<double> here_;
    workspace scratch_;
    decltype(std::declval<const Policy&>().template temporary<double>(std::declval<workspace&>(),
                                                                      index_t{})) memory_;
};
/// sum_columns() in the host's memory.
template <class Policy, class Op, class T, class... Ts>
std::vector<double> column_sums(const Policy& policy, Op op, view<const T, 2> x,
                                view<const Ts, 2>... others) {
    fetched_numbers<Policy> sums(policy, x.extent(1));
    sum_columns(policy, op, sums.there(), x, others...);
    const double* const here = sums.fetch();
    return {here, here + x.extent(1)};
}

/// Whether a column whose squares have this sum has neither NaN nor infinity, and its Gram matrix,
/// of rows less what policies take off them, no overflow.
template <class T>
PARE_HD bool good_squares(double sum) {
    constexpr double most = static_cast<double>(std::numeric_limits<compute_t<T>>::max()) / 256;
    return is_finite(sum) && sum <= most;
}
template <class T>
struct bad_squares {
    const double* sums;
    PARE_HD bool operator()(index_t column) const { return !good_squares<T>(sums[column]); }
};
/// Throws value_error unless that holds for all columns of rows whose squares have these sums.
template <class T>
void check_squares(const char* function, const double* squares, index_t columns, index_t rows,
                   const char* name) {
    for (index_t j = 0; j < columns; ++j)
        if (!good_squares<T>(squares[j]))
            fail<value_error>(function, name,
                              " has NaN, infinity or overflowing squares in column ", j, " of ",
                              rows, " rows");
}

/// to [columns of x x columns of y] += x' y, of which only the lower triangle if `lower`.
template <class Policy, class T, class Acc>
void add_product(const Policy& policy, view<const T, 2> x, view<const T, 2> y, kept_sums<Acc>& to,
                 bool lower, workspace& scratch) {
    const index_t rows = x.extent(1), columns = y.extent(1);
    if constexpr (Policy::on_host) {
        policy.gram(1.0, x, y, view<Acc, 2>(to.here().data(), rows, columns), lower, scratch);
    } else {
        const auto there = to.there(policy);
        policy.gram(1.0, x, y, view<double, 2>(there.data(), rows, columns), lower, scratch);
    }
}

} // namespace detail

/// Accumulates G += x' y over rows that come in any number of pieces; one Gram matrix (y = x,
/// symmetric) or a cross product. Acc is the type that it is kept in. Sums over at most 2,048 rows of
/// float and of half types are made in float (pare::seq: in double), of rows less a number near the
/// mean of each column; what that takes off is added in double. So rounding is in proportion to how
/// much the columns of a call vary, however large their means: G stays positive semidefinite up to
/// some 1e-6 of the variances, and to the rounding of its own numbers in Acc. That does not hold for
/// calls of fewer than eight rows, which are multiplied as they are, but by pare::seq.
///
/// The rows are in the policy's memory. So are the sums until they are asked for, on a GPU in double;
/// lower_sums(), sums(), mean(), merge() and copies bring them to the host and give the GPU's memory
/// back; what is added there later is not in views from before.
///
/// Memory: columns_x * columns_y * sizeof(Acc), and during a call a copy of the rows, up to 16 MB,
/// and 0.3 MB a thread. On a GPU: there, from the first call on 8 bytes * columns_x * columns_y, of
/// cudaMalloc's, and during a call 12 more, and 2,048 rows as float; on the host, while they are
/// brought, another 8 bytes * columns_x * columns_y.
template <class Acc = double>
class gram {
    template <class>
    friend class fisher;         // has checked its gradients already
    friend struct detail::saved; // prune/statistics_file.hpp
    friend class query_statistics;
    friend struct sublayer_statistics; // which checks all its parts before it merges one

  public:
    gram() = default;
    /// A symmetric matrix [columns x columns]. Both throw shape_error for a negative number, or for
    /// more than any memory has room for.
    explicit gram(index_t columns) : gram(columns, columns, true) {}
    /// A cross product [columns_x x columns_y].
    gram(index_t columns_x, index_t columns_y) : gram(columns_x, columns_y, false) {}

    /// G += x' x; x [rows x columns]. Complexity: rows * columns^2 multiply-adds, halved by
    /// symmetry. Throws shape_error, and value_error if a row is not finite; then nothing is added.
    template <class Policy, class X>
    void add(const Policy& policy, const X& x) {
        detail::check_whole(policy);
        check(symmetric_, "a cross product is given x and y");
        add_checked(policy, as_input<2>(policy, x), as_input<2>(policy, x));
    }
    /// G += x' y; x [rows x columns_x], y [rows x columns_y], of one element type.
    template <class Policy, class X, class Y>
    void add(const Policy& policy, const X& x, const Y& y) {
        detail::check_whole(policy);
        check(!symmetric_, "a symmetric matrix is given x alone");
        add_checked(policy, as_input<2>(policy, x), as_input<2>(policy, y));
    }

    /// Adds what another accumulator of the same shape has seen; exact up to rounding.
    void merge(const gram& other) {
        check_merge(other);
        sums_.add(other.sums_);
        rows_ += other.rows_;
    }

    /// Rows added so far.
    index_t rows() const { return rows_; }

    /// The sums G [columns_x x columns_y], not divided by rows(). Of a symmetric matrix only the
    /// lower triangle is valid.
    view<const Acc, 2> lower_sums() const {
        return {sums_.here().data(), {columns_x_, columns_y_}, {columns_y_, 1}};
    }
    /// The sums with both triangles valid; mirrors the lower one, O(columns^2).
    view<const Acc, 2> sums() {
        // By way of a tile, so that lines of rows a power of two apart, which share their place in a
        // cache, are read and written once and whole.
        constexpr index_t block = 32;
        Acc tile[block][block];
        const index_t n = symmetric_ ? index_t{columns_x_} : 0;
        std::vector<Acc>& all = sums_.here();
        for (index_t i0 = 0; i0 < n; i0 += block)
            for (index_t j0 = 0; j0 <= i0; j0 += block) {
                const index_t rows = std::min(block, n - i0), columns = std::min(block, n - j0);
                for (index_t i = 0; i < rows; ++i)
                    for (index_t j = 0; j < columns; ++j)
                        tile[j][i] = all[static_cast<std::size_t>((i0 + i) * n + j0 + j)];
                for (index_t j = 0; j < columns; ++j)
                    for (index_t i = i0 == j0 ? j + 1 : 0; i < rows; ++i)
                        all[static_cast<std::size_t>((j0 + j) * n + i0 + i)] = tile[j][i];
            }
        return lower_sums();
    }
    /// G / rows(), both triangles valid, as [columns_x * columns_y] numbers in rows: what
    /// pare::eliminate takes for its metric. Zeros before the first row.
    std::vector<Acc> mean() {
        sums();
        std::vector<Acc> mean(sums_.here());
        for (Acc& x : mean) x /= static_cast<Acc>(std::max<index_t>(1, rows_));
        return mean;
    }

  private:
    gram(index_t columns_x, index_t columns_y, bool symmetric)
        : columns_x_(columns_x), columns_y_(columns_y), symmetric_(symmetric) {
        check(columns_x >= 0 && columns_y >= 0, "a negative number of columns");
        sums_ = detail::kept_sums<Acc>(detail::count_of<Acc>("gram", columns_x, columns_y));
    }

    void check_merge(const gram& other) const {
        check(other.columns_x_ == columns_x_ && other.columns_y_ == columns_y_ &&
                  other.symmetric_ == symmetric_,
              "merge: accumulators of different shapes");
    }
    static void check(bool good, const char* what) {
        if (!good) detail::fail<shape_error>("gram", what);
    }

    template <class Policy, class T, class U>
    void add_checked(const Policy& policy, view<const T, 2> x, view<const U, 2> y) {
        static_assert(std::is_same_v<T, U>, "pare::gram: x and y have one element type");
        if (x.extent(1) != columns_x_ || y.extent(1) != columns_y_ || x.extent(0) != y.extent(0))
            detail::fail<shape_error>("gram", "x is ", x.extent(0), " x ", x.extent(1), " and y ",
                                      y.extent(0), " x ", y.extent(1), ", the matrix is ",
                                      columns_x_, " x ", columns_y_);
        const index_t of_x = x.extent(1), of_y = symmetric_ ? 0 : y.extent(1), rows = x.extent(0);
        detail::fetched_numbers<Policy> squares(policy, of_x + of_y);
        detail::sum_columns(policy, ops::square{}, squares.there(), x);
        if (!symmetric_) detail::sum_columns(policy, ops::square{}, squares.there() + of_x, y);
        const double* const here = squares.fetch();
        detail::check_squares<T>("gram", here, of_x, rows, "x");
        detail::check_squares<T>("gram", here + of_x, of_y, rows, "y");
        add_finite(policy, x, y);
    }

    template <class Policy, class T>
    void add_finite(const Policy& policy, view<const T, 2> x, view<const T, 2> y) {
        workspace scratch; // not kept: there may be an accumulator for each layer
        detail::add_product(policy, x, y, sums_, symmetric_, scratch);
        rows_ += x.extent(0);
    }

    detail::owned<index_t> columns_x_, columns_y_, rows_;
    bool symmetric_ = true;
    detail::kept_sums<Acc> sums_;
};

} // namespace PARE_ISA
} // namespace pare
