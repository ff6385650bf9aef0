// Plain loops over the rows of matrices.
#pragma once

#include "../../core/executor.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"
#include "../kernels/select.hpp"
#include "numbers.hpp"

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Primitives of rows and columns: their sums and products, scaled and moved.
template <class Executor>
class row_loops : public number_loops<Executor> {
    using base = number_loops<Executor>;

  public:
    using base::base;

    /// out[s, u] = sum of op(x[t, c], ...) over the rows t of segment s, offsets[s] <= t <
    /// offsets[s + 1], and the `unit` columns c of unit u. Shapes: x [rows x units * unit], out
    /// [segments x units]. Partial sums of at most 256 rows in compute_t<T>, their total in double.
    template <class Op, class Offsets, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offsets& offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        using C = compute_t<T>;
        const index_t units = out.extent(1);
        this->executor().run(out.extent(0) * units, [=](index_t task, index_t) {
            const index_t s = task / units, u = task % units;
            double total = 0;
            for (index_t t0 = offsets[s]; t0 < static_cast<index_t>(offsets[s + 1]);
                 t0 += base::row_block) {
                const index_t t1 = base::block_end(t0, static_cast<index_t>(offsets[s + 1]));
                C sum = 0;
                for (index_t t = t0; t < t1; ++t)
                    for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                        detail::add_in_order(
                            sum, op(static_cast<C>(x(t, c)), static_cast<C>(others(t, c))...));
                detail::add_in_order(total, static_cast<double>(sum));
            }
            out(s, u) = detail::from_double<Out>(total);
        });
    }

    /// g[i, j] += alpha * sum over rows t of x[t, i] * y[t, j]; only j <= i if `lower` (then x and
    /// y have the same number of columns). Here products and sums are made in double. Where they
    /// are made in compute_t<T>, sums of at most 2,048 rows, then columns are less a number near
    /// their mean, and what that takes off is added in double: rounding is relative to how much
    /// columns vary.
    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace&) const {
        using C = compute_t<T>;
        this->executor().run(g.extent(0), [=](index_t i, index_t) {
            const index_t columns = lower ? i + 1 : g.extent(1);
            for (index_t j = 0; j < columns; ++j)
                for (index_t t0 = 0; t0 < x.extent(0); t0 += base::row_block) {
                    const index_t t1 = base::block_end(t0, x.extent(0));
                    double sum = 0;
                    for (index_t t = t0; t < t1; ++t)
                        detail::add_in_order(sum, static_cast<double>(static_cast<C>(x(t, i))) *
                                                      static_cast<double>(static_cast<C>(y(t, j))));
                    g(i, j) += static_cast<Acc>(alpha * sum);
                }
        });
    }

    /// y[i, :] = scales[i] * x[i, :]. `y` may be `x`.
    template <class T>
    void scale_rows(view<const T, 1> scales, view<const T, 2> x, view<T, 2> y) const {
        using C = compute_t<T>;
        this->executor().run(x.extent(0), [=](index_t i, index_t) {
            const C scale = static_cast<C>(scales(i));
            for (index_t j = 0; j < x.extent(1); ++j)
                y(i, j) = static_cast<T>(scale * static_cast<C>(x(i, j)));
        });
    }

    /// y[i, :] = scales[i] * (x[i, :] - shift), in compute_t<T>; without the scales where they are
    /// a null view.
    template <class T>
    void centre_rows(view<const compute_t<T>, 1> scales, view<const T, 2> x,
                     view<const compute_t<T>, 1> shift, view<compute_t<T>, 2> y) const {
        using C = compute_t<T>;
        this->executor().run(x.extent(0), [=](index_t i, index_t) {
            const C scale = scales.data_handle() ? scales(i) : C(1);
            for (index_t j = 0; j < x.extent(1); ++j)
                y(i, j) = scale * (static_cast<C>(x(i, j)) - shift(j));
        });
    }

    /// z[i, :] = scales[i] * y[i, :] and dots[i] = sum over j of x[i, j] * y[i, j], reading x and y
    /// once. Partial sums of at most 256 columns in compute_t<T>, their total in double. `z` may be
    /// `x` or `y`.
    template <class T>
    void scale_rows_dot(view<const T, 1> scales, view<const T, 2> x, view<const T, 2> y,
                        view<T, 2> z, view<T, 1> dots) const {
        using C = compute_t<T>;
        this->executor().run(x.extent(0), [=](index_t i, index_t) {
            const C scale = static_cast<C>(scales(i));
            double total = 0;
            for (index_t j = 0; j < x.extent(1);) {
                const index_t end = base::block_end(j, x.extent(1));
                C sum = 0;
                for (; j < end; ++j) {
                    const C value = static_cast<C>(y(i, j));
                    detail::add_in_order(sum, static_cast<C>(x(i, j)) * value);
                    z(i, j) = static_cast<T>(scale * value);
                }
                detail::add_in_order(total, static_cast<double>(sum));
            }
            dots(i) = detail::from_double<T>(total);
        });
    }

    /// out[i, :] = in[rows[i], :]. Where rows ascend, `out` may start where `in` does, with the
    /// same strides, or with contiguous rows that are closer together.
    template <class T, class Index>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        detail::copy_rows(
            this->executor(), out.extent(0), in,
            [=](index_t i) { return static_cast<index_t>(rows[i]); }, out,
            [](index_t i) { return i; });
    }

    /// out[rows[i], :] = in[i, :]; the other rows of `out` stay. Rows ascend, memory does not
    /// overlap.
    template <class T, class Index>
    void scatter_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        detail::copy_rows(
            this->executor(), in.extent(0), in, [](index_t i) { return i; }, out,
            [=](index_t i) { return static_cast<index_t>(rows[i]); });
    }

    /// out[:, j] = in[:, columns[j]]. `out` may be `in` itself where columns ascend.
    template <class T, class Index>
    void gather_columns(view<const T, 2> in, const Index* columns, view<T, 2> out) const {
        detail::run_copying<T>(this->executor(), out.extent(0), [=](index_t i, index_t) {
            for (index_t j = 0; j < out.extent(1); ++j)
                out(i, j) = in(i, static_cast<index_t>(columns[j]));
        });
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
