// The rows of matrices by blocks of a Thrust policy's threads: their sums and products, scaled and moved.
#pragma once

#include "../../core/config.hpp"

PARE_SIGNED_ARRAYS_BEGIN
#include "../kernels/thrust_affine.hpp"
#include "../kernels/thrust_folds.hpp"
#include "../kernels/thrust_gram.hpp"
#include "../kernels/thrust_matrix.hpp"
#include "../kernels/thrust_rows.hpp"
#include "../kernels/thrust_sums.hpp"
#include "device.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Primitives of rows and columns.
template <class Exec>
class thrust_row_primitives : public thrust_device<Exec> {
    using base = thrust_device<Exec>;

  public:
    using base::base;

    template <class Op, class Offsets, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offsets& offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        detail::segment_sums_by_blocks(*this, op, offsets, unit, out, x, others...);
    }

    /// store(g, u, sum over the columns c of unit u and all pieces of some(g, piece, c)), for each
    /// group g and unit.
    template <class Some, class Store>
    void sum_pieces(index_t groups, index_t pieces, index_t columns, index_t unit, const Some& some,
                    const Store& store) const {
        const index_t units = columns / unit;
        const auto memory = this->template temporary<double>(groups * pieces * columns);
        double* const sums = memory.data();
        this->for_each(groups * pieces * columns, [=] PARE_HD(index_t at) {
            sums[at] = some(at / (pieces * columns), at / columns % pieces, at % columns);
        });
        this->for_each(groups * units, [=] PARE_HD(index_t at) {
            const index_t g = at / units, u = at % units;
            double total = 0;
            for (index_t piece = 0; piece < pieces; ++piece)
                for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                    total += sums[(g * pieces + piece) * columns + c];
            store(g, u, total);
        });
    }

    template <class Op, class Out, class... Ts>
    void transform(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        detail::transform_by_blocks(*this, op, out, in...);
    }

    template <class Op, class Out, class... Ts>
    double transform_sum(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        return detail::transform_sum_by_blocks(*this, op, out, in...);
    }

    template <class T>
    void scale_rows(view<const T, 1> scales, view<const T, 2> x, view<T, 2> y) const {
        detail::scale_rows_by_blocks(*this, scales, x, y);
    }

    template <class T>
    void centre_rows(view<const compute_t<T>, 1> scales, view<const T, 2> x,
                     view<const compute_t<T>, 1> shift, view<compute_t<T>, 2> y) const {
        detail::centre_rows_by_blocks(*this, scales, x, shift, y);
    }

    template <class T>
    void scale_rows_dot(view<const T, 1> scales, view<const T, 2> x, view<const T, 2> y,
                        view<T, 2> z, view<T, 1> dots) const {
        detail::scale_rows_dot_by_blocks(*this, scales, x, y, z, dots);
    }

    template <class T, class Index>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        detail::gather_by_blocks(*this, in, rows, out, detail::all_rows{});
    }

    template <class T, class Index>
    void gather_columns(view<const T, 2> in, const Index* columns, view<T, 2> out) const {
        detail::gather_from(*this, in, out, detail::of_column<const T, Index>{in, columns},
                            detail::all_rows{});
    }

    template <class T, class Index>
    void scatter_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        detail::scatter_by_blocks(*this, in, rows, out, detail::all_rows{});
    }

    /// The same of the first `*count` rows, a number in the policy's memory.
    template <class T, class Index, class Count>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out,
                     const Count* count) const {
        detail::gather_by_blocks(*this, in, rows, out, detail::rows_there<Count>{count});
    }

    template <class T, class Index, class Count>
    void scatter_rows(view<const T, 2> in, const Index* rows, view<T, 2> out,
                      const Count* count) const {
        detail::scatter_by_blocks(*this, in, rows, out, detail::rows_there<Count>{count});
    }

    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace& scratch) const {
        if constexpr (base::on_host)
            base::gram(alpha, x, y, g, lower, scratch);
        else
            detail::gram_about_centre(*this, alpha, x, y, g, lower);
    }

    /// out[i, r, c] = sum over k of a[i, r, k] * b[i, k, c], added to `out` if `add`: a batch of
    /// products, made in compute_t<T> and, on CUDA, by cuBLAS. a and b have stride 1 along their
    /// second or third extent, out along the third; all are in the policy's memory.
    template <class T, class Out>
    void multiply(view<const T, 3> a, view<const T, 3> b, view<Out, 3> out,
                  bool add = false) const {
        const index_t terms = a.extent(2);
        if (out.size() == 0 || (add && terms == 0)) return;
#ifdef __CUDACC__
        if constexpr (detail::is_cuda<Exec>)
            if (terms > 0) return detail::cuda_multiply(this->stream(), a, b, out, add);
#endif
        detail::multiply_by_threads(*this, a, b, out, add);
    }

    /// A dense layer: out[r, c] = bias[c] + the sum over k of x[r, k] * weight[c, k], made in
    /// compute_t<T> and rounded once; on CUDA by cuBLASLt. x [rows x inputs], weight [outputs x
    /// inputs] and out [rows x outputs] have neighbours in their rows, the bias has stride 1; all are
    /// in the policy's memory.
    template <class T>
    void affine(view<const T, 2> x, view<const T, 2> weight, view<const T, 1> bias,
                view<T, 2> out) const {
        if (out.size() == 0) return;
#ifdef __CUDACC__
        if constexpr (detail::is_cuda<Exec>)
            if (x.extent(1) > 0) {
                const auto memory = [this](index_t bytes) {
                    return this->template temporary<char>(bytes);
                };
                if constexpr (!std::is_same_v<T, double>) // which has no such kernels
                    if (detail::cuda_affine(this->stream(), x, weight, bias, out, memory)) return;
                return detail::affine_by_product(*this, x, weight, bias, out);
            }
#endif
        detail::affine_by_threads(*this, x, weight, bias, out);
    }

#ifdef __CUDACC__
    /// Overwrites b [n x m] with g^-1 b, both in the host's memory, by way of the device's; false,
    /// with b as it was, if g [n x n] is not positive definite. Reads the lower triangle of g.
    bool solve(view<const double, 2> g, view<double, 2> b) const {
        const index_t n = g.extent(0), m = b.extent(1);
        if (n == 0 || m == 0) return true;
        const auto g_memory = this->template temporary<double>(n * n),
                   b_memory = this->template temporary<double>(n * m);
        const auto info = this->template temporary<int>(1);
        std::vector<double> packed(static_cast<std::size_t>(n * std::max(n, m)));
        const auto at = [&](index_t i) -> double& { return packed[static_cast<std::size_t>(i)]; };
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j <= i; ++j) {
                if (!detail::is_finite(g(i, j))) return false;
                at(i * n + j) = g(i, j);
            }
        this->copy_from_host(packed.data(), n * n, g_memory.data());
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < m; ++j) at(j * n + i) = b(i, j);
        this->copy_from_host(packed.data(), n * m, b_memory.data());
        if (!detail::cuda_solve(
                this->stream(), g_memory.data(), n, b_memory.data(), m, info.data(),
                [this](index_t count) { return this->template temporary<double>(count); }))
            return false;
        this->copy_to_host(b_memory.data(), n * m, packed.data());
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < m; ++j) b(i, j) = at(j * n + i);
        return true;
    }
#endif
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
PARE_SIGNED_ARRAYS_END
