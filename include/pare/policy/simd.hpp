// The CPU policy: vector registers by xsimd (any architecture that it knows), threads by an
// executor.
#pragma once

#include "../core/config.hpp"

#include <xsimd/xsimd.hpp>

#ifdef XSIMD_NO_SUPPORTED_ARCHITECTURE // nothing else, or the sentence drowns in errors of xsimd's
#error                                                                                             \
    "pare::simd: the compiler's flags have no vector registers that xsimd knows; on x86 compile with -msse2 or more, elsewhere with those of the processor, or use pare::seq"
#else

PARE_SIGNED_ARRAYS_BEGIN
#include "kernels/attention_scores.hpp"
#include "kernels/exponential.hpp"
#include "kernels/few_queries.hpp"
#include "kernels/gram.hpp"
#include "kernels/pool.hpp"
#include "kernels/registers.hpp"
#include "kernels/rows.hpp"
#include "kernels/sums.hpp"
#include "seq.hpp"

namespace pare {
inline namespace PARE_ISA {
/// Vectorised primitives for float, double and half types, computed in float, with unit stride along
/// rows; everything else is inherited.
template <class Executor = default_executor>
class vectorised : public sequential<Executor> {
    using base = sequential<Executor>;

  public:
    constexpr vectorised() = default;
    constexpr explicit vectorised(Executor e) : base(e) {}

    /// The same policy on another executor: pare::simd.with(pare::openmp{4}).
    template <class Other>
    constexpr vectorised<Other> with(Other e) const {
        return vectorised<Other>(e);
    }

    // Primitives.

    template <class Op, class Offsets, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offsets& offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        if constexpr (detail::has_batch<compute_t<T>> && (std::is_same_v<T, Ts> && ...)) {
            if (x.stride(1) == 1 && ((others.stride(1) == 1) && ...))
                return segment_sums_rows(
                    op, offsets, unit, out, detail::strided_rows<T>{x.data_handle(), x.stride(0)},
                    detail::strided_rows<T>{others.data_handle(), others.stride(0)}...);
        }
        base::segment_sums(op, offsets, unit, out, x, others...);
    }

    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace& scratch) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (x.stride(1) == 1 && y.stride(1) == 1 && g.stride(1) == 1)
                return detail::gram_tiles(this->executor(), static_cast<Acc>(alpha), x, y, g, lower,
                                          scratch);
        }
        base::gram(alpha, x, y, g, lower, scratch);
    }

    template <class T, class Batch>
    void key_sums(view<const T, 4> p, const Batch& batch, const attention_mask& mask,
                  const counted_queries& counted, view<double, 2> sums) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (p.stride(3) == 1)
                return detail::key_sums(this->executor(), p, batch, mask, counted, sums);
        }
        base::key_sums(p, batch, mask, counted, sums);
    }

    template <class T, class Offset>
    void key_sums_packed(const T* p, index_t heads, const Offset* offsets, index_t sequences,
                         const attention_mask& mask, const counted_queries& counted,
                         view<double, 1> sums) const {
        const auto by = [](const auto& e) { return vectorised<std::decay_t<decltype(e)>>(e); };
        detail::key_sums_packed(this->executor(), by, p, heads, offsets, sequences, mask, counted,
                                sums);
    }

    template <class T, class Offset>
    void pool(view<const T, 2> x, const Offset* offsets, index_t sequences, index_t radius,
              bool largest, view<T, 2> y) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (x.stride(1) == 1 && y.stride(1) == 1)
                return this->executor().run(x.extent(0) * sequences, [=](index_t task, index_t) {
                    const index_t row = task / sequences, s = task % sequences;
                    const detail::index_range all{static_cast<index_t>(offsets[s]),
                                                  static_cast<index_t>(offsets[s + 1])};
                    const T* const from = x.address(row, all.begin);
                    T* const to = y.address(row, all.begin);
                    const auto at = [&](index_t t) {
                        return detail::pooled(x, row, all.begin + t, all, radius, largest);
                    };
                    if (largest)
                        detail::pool_row<true>(all.size(), from, radius, to, at);
                    else
                        detail::pool_row<false>(all.size(), from, radius, to, at);
                });
        }
        base::pool(x, offsets, sequences, radius, largest, y);
    }

    template <class T, class K, class Sequences>
    void attention(const detail::attention_call<T, K, Sequences>& c, workspace& scratch) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            const auto contiguous = [](const auto& x) {
                return x.extent(2) <= 1 || x.stride(2) == 1;
            };
            if (contiguous(c.q) && contiguous(c.k) && contiguous(c.v))
                return detail::attention_by_registers(this->executor(), c, scratch);
        }
        base::attention(c, scratch);
    }

    template <class T, class K, class L, class Sequences>
    void attention_scores(const detail::scores_call<T, K, L, Sequences>& c,
                          workspace& scratch) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            const auto contiguous = [](const auto& x) {
                return x.extent(3) <= 1 || x.stride(3) == 1;
            };
            if (contiguous(c.q) && contiguous(c.k))
                return detail::attention_score_tiles(this->executor(), c, scratch);
        }
        base::attention_scores(c, scratch);
    }

    template <class T, class Offset, class Index, class Nearest>
    void nearest_rows(view<const T, 2> keys, const Offset* offsets, index_t sequences,
                      const Index* index, index_t count, compute_t<T>* memory,
                      view<Nearest, 1> nearest, view<T, 1> similarity) const {
        if constexpr (detail::has_batch<compute_t<T>>)
            this->nearest_rows_by(detail::product_in_registers{}, keys, offsets, sequences, index,
                                  count, memory, nearest, similarity);
        else
            base::nearest_rows(keys, offsets, sequences, index, count, memory, nearest, similarity);
    }

    template <class T, class W>
    void merge_rows(view<const T, 2> in, view<const W, 1> weights, const index_t* parts,
                    const index_t* starts, view<T, 2> out) const {
        if constexpr (detail::has_batch<compute_t<T>>)
            this->merge_rows_by(detail::share_in_registers{}, in, weights, parts, starts, out);
        else
            base::merge_rows(in, weights, parts, starts, out);
    }

    /// First whether there is one, which most calls have answered with no, and then which.
    template <class T>
    index_t argmin_difference(index_t n, const T* x, const T* y, T below) const {
        using B = detail::batch<T>;
        constexpr index_t W = detail::lanes<T>, unroll = 4;
        B lowest[unroll];
        for (index_t u = 0; u < unroll; ++u) lowest[u] = B(below);
        index_t i = 0;
        for (; i + unroll * W <= n; i += unroll * W) PARE_UNROLL
        for (index_t u = 0; u < unroll; ++u)
            lowest[u] = xsimd::min(
                B::load_unaligned(x + i + u * W) - B::load_unaligned(y + i + u * W), lowest[u]);
        const B least =
            xsimd::min(xsimd::min(lowest[0], lowest[1]), xsimd::min(lowest[2], lowest[3]));
        T lanes[W];
        least.store_unaligned(lanes);
        T best = *std::min_element(lanes, lanes + W);
        for (; i < n; ++i) best = x[i] - y[i] < best ? x[i] - y[i] : best;
        if (!(best < below)) return -1;
        for (i = 0; i + W <= n; i += W)
            if (xsimd::any(B::load_unaligned(x + i) - B::load_unaligned(y + i) == B(best))) break;
        for (; i < n; ++i)
            if (x[i] - y[i] == best) return i;
        return -1;
    }

    template <class T>
    index_t first_nan(view<const T, 1> x) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (x.stride(0) == 1) return detail::first_nan(x.extent(0), x.data_handle());
        }
        return base::first_nan(x);
    }

    template <class Op, class Out, class... Ts>
    void transform(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        if constexpr (detail::has_batch<compute_t<Out>> &&
                      (std::is_same_v<compute_t<Out>, compute_t<Ts>> && ...)) {
            const auto piece = [=](index_t task, index_t) {
                const index_t first = task * base::stretch;
                detail::transform_sum<false>(op, std::min(base::stretch, out.extent(0) - first),
                                             &out(first), &in(first)...);
            };
            if (out.stride(0) == 1 && ((in.stride(0) == 1) && ...))
                return this->executor().run(base::stretches(out.extent(0)), piece);
        }
        base::transform(op, out, in...);
    }

    template <class Op, class Out, class... Ts>
    double transform_sum(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        if constexpr (detail::has_batch<compute_t<Out>> &&
                      (std::is_same_v<compute_t<Out>, compute_t<Ts>> && ...)) {
            if (out.stride(0) == 1 && ((in.stride(0) == 1) && ...))
                return base::sum_of_pieces(out.extent(0), [=](index_t begin, index_t end) {
                    return detail::transform_sum<true>(op, end - begin, &out(begin), &in(begin)...);
                });
        }
        return base::transform_sum(op, out, in...);
    }

    template <class T>
    void scale_rows(view<const T, 1> scales, view<const T, 2> x, view<T, 2> y) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (x.stride(1) == 1 && y.stride(1) == 1)
                return detail::scale_rows(this->executor(), scales, x, y);
        }
        base::scale_rows(scales, x, y);
    }

    template <class T>
    void centre_rows(view<const compute_t<T>, 1> scales, view<const T, 2> x,
                     view<const compute_t<T>, 1> shift, view<compute_t<T>, 2> y) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (x.stride(1) == 1 && y.stride(1) == 1 && shift.stride(0) == 1)
                return detail::centre_rows(this->executor(), scales, x, shift, y);
        }
        base::centre_rows(scales, x, shift, y);
    }

    template <class T>
    void scale_rows_dot(view<const T, 1> scales, view<const T, 2> x, view<const T, 2> y,
                        view<T, 2> z, view<T, 1> dots) const {
        if constexpr (detail::has_batch<compute_t<T>>) {
            if (x.stride(1) == 1 && y.stride(1) == 1 && z.stride(1) == 1)
                return detail::scale_rows_dot(this->executor(), scales, x, y, z, dots);
        }
        base::scale_rows_dot(scales, x, y, z, dots);
    }

  private:
    template <class Op, class Offsets, class Out, class T, class... Rows>
    void segment_sums_rows(Op op, const Offsets& offsets, index_t unit, view<Out, 2> out,
                           detail::strided_rows<T> x, Rows... others) const {
        const index_t units = out.extent(1), segments = out.extent(0);
        if (segments == 0 || units == 0) return;
        constexpr index_t strip = 4096; // columns whose sums stay near
        const index_t columns =
            detail::piece_of_rows(units * unit, segments, strip, this->executor());
        const index_t block = std::max<index_t>(1, columns / unit);
        const index_t blocks = (units + block - 1) / block;
        this->executor().run(segments * blocks, [=](index_t task, index_t) {
            const index_t s = task / blocks, first = task % blocks * block;
            const index_t last = std::min(units, first + block);
            compute_t<T> partial[strip];
            double total[strip];
            double of_unit = 0;
            index_t u = first, in_unit = 0;
            for (index_t c0 = first * unit; c0 < last * unit; c0 += strip) {
                const index_t n = std::min(strip, last * unit - c0);
                std::fill(total, total + n, 0.0);
                for (index_t t0 = offsets[s]; t0 < static_cast<index_t>(offsets[s + 1]);
                     t0 += base::row_block) {
                    const index_t rows = std::min<index_t>(
                        base::row_block, static_cast<index_t>(offsets[s + 1]) - t0);
                    std::fill(partial, partial + n, compute_t<T>(0));
                    detail::add_rows(op, rows, n, partial, x.from(t0, c0), others.from(t0, c0)...);
                    for (index_t c = 0; c < n; ++c) total[c] += static_cast<double>(partial[c]);
                }
                for (index_t c = 0; c < n; ++c) {
                    of_unit += total[c];
                    if (++in_unit == unit) {
                        out(s, u++) = detail::from_double<Out>(of_unit);
                        of_unit = 0;
                        in_unit = 0;
                    }
                }
            }
        });
    }
};

/// xsimd on OpenMP's threads where the translation unit is compiled with OpenMP, else on the
/// calling one.
inline constexpr vectorised<> simd{};

} // namespace PARE_ISA
} // namespace pare

PARE_SIGNED_ARRAYS_END
#endif
