// The Thrust policy: pare::on(exec) runs components by a Thrust execution policy: thrust::cpp::par,
// thrust::omp::par or, in files that nvcc compiles with --extended-lambda and
// --expt-relaxed-constexpr, thrust::cuda::par and par_nosync, with or without a stream and an
// allocator.
//
// On CUDA, views and pointers are of device memory. Calls are queued on the policy's stream and do
// not wait, except for those that return a number: keep_above, keep_top_k, mask_penalty and
// soft_mask_backward; and thrust::cuda::par waits in each of its algorithms, par_nosync does not.
// Contents of memory (offsets, positions, NaN) are checked by calls that wait anyway, but for
// soft_mask_backward; elsewhere they are the caller's to get right. Temporary memory comes from the
// policy's allocator; Thrust's own waits for the device when it gives memory back.
//
// Statistics are in the host's memory, with this policy too: fisher, gram and least_squares add rows
// of the device's memory to sums there, and wait for them; rearrange, reconstruct, scale and
// ridge_solve work on what is there, the last three by cuSOLVER.
#pragma once

#if defined(__CUDACC__)
#if !defined(__CUDACC_EXTENDED_LAMBDA__) || !defined(__CUDACC_RELAXED_CONSTEXPR__)
#error "pare: nvcc needs --extended-lambda and --expt-relaxed-constexpr for the Thrust policy"
#endif
#elif !defined(THRUST_DEVICE_SYSTEM)
#error                                                                                             \
    "pare: Thrust takes CUDA for its device system, which this compiler does not know; define THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP or THRUST_DEVICE_SYSTEM_OMP, or link pare::thrust"
#endif

#include "kernels/block_attention.hpp"
#include "kernels/thrust_attention.hpp"
#include "kernels/thrust_gram.hpp"
#include "kernels/thrust_matrix.hpp"
#include "kernels/thrust_select.hpp"
#include "kernels/thrust_system.hpp"
#include "seq.hpp"

#include <thrust/for_each.h>
#include <thrust/functional.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/reduce.h>
#include <thrust/transform_reduce.h>

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
/// Primitives as algorithms of Thrust, made for thousands of threads that read neighbouring
/// numbers. Sums are made in double, in an order that depends on the shapes alone. What has no such
/// form runs as tasks of pare::seq's loops, on systems of the host only.
template <class Exec>
class thrust_policy : public sequential<detail::thrust_tasks<Exec>> {
    using tasks = detail::thrust_tasks<Exec>;
    using base = sequential<tasks>;

  public:
    explicit thrust_policy(const Exec& exec) : base(tasks{exec}) {}

    static constexpr bool on_host = tasks::system != detail::thrust_system::device;

    const Exec& exec() const { return this->executor().exec; }

    /// Throws value_error for memory that the device cannot read.
    void check_memory([[maybe_unused]] const void* p) const {
#ifdef __CUDACC__
        cudaPointerAttributes found;
        int device = 0, reads_all = 0;
        if (p == nullptr || cudaPointerGetAttributes(&found, p) != cudaSuccess ||
            found.type != cudaMemoryTypeUnregistered)
            return;
        if (cudaGetDevice(&device) == cudaSuccess &&
            cudaDeviceGetAttribute(&reads_all, cudaDevAttrPageableMemoryAccess, device) ==
                cudaSuccess &&
            reads_all == 0)
            detail::fail<value_error>("on", p, " is in memory of the host, which device ", device,
                                      " does not read");
#endif
    }

    template <class T>
    detail::thrust_memory<T, Exec> temporary(workspace&, index_t count) const {
        return temporary<T>(count);
    }
    template <class T>
    detail::thrust_memory<T, Exec> temporary(index_t count) const {
        return {exec(), count};
    }
    template <class T>
    T read(const T* p) const {
        return thrust::reduce(exec(), p, p + 1, T(0), thrust::plus<T>());
    }

    /// Copies `count` elements from the host's memory to the policy's, and waits until it has read
    /// them.
    template <class T>
    void copy_from_host(const T* from, index_t count, T* to) const {
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            copy_memory(from, count, to, cudaMemcpyHostToDevice);
#endif
        } else {
            for_each(count, [=](index_t i) { to[i] = from[i]; });
        }
    }
    /// Copies `count` elements from the policy's memory to the host's, and waits for them.
    template <class T>
    void copy_to_host(const T* from, index_t count, T* to) const {
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            copy_memory(from, count, to, cudaMemcpyDeviceToHost);
#endif
        } else {
            for_each(count, [=](index_t i) { to[i] = from[i]; });
        }
    }

    /// f(i) for i < n, in any order.
    template <class F>
    void for_each(index_t n, const F& f) const {
        if (n > 0) thrust::for_each_n(exec(), thrust::counting_iterator<index_t>(0), n, f);
    }
    template <class F>
    index_t first(index_t n, const F& f) const {
        const thrust::counting_iterator<index_t> begin(0);
        const index_t at = thrust::transform_reduce(
            exec(), begin, begin + n, [=] PARE_HD(index_t i) { return f(i) ? i : n; }, n,
            thrust::minimum<index_t>());
        return at < n ? at : -1;
    }
    template <class F>
    index_t sum(index_t n, const F& f) const {
        const thrust::counting_iterator<index_t> begin(0);
        return thrust::transform_reduce(
            exec(), begin, begin + n, [=] PARE_HD(index_t i) { return index_t{f(i)}; }, index_t{0},
            thrust::plus<index_t>());
    }
    template <class Offset, class F>
    double sum_segments(const Offset* offsets, index_t segments, index_t rows, const F& f) const {
        return sum_in_double(rows, [=] PARE_HD(index_t i) {
            return f(detail::segment_of(offsets, segments, i), i, i + 1);
        });
    }
    /// The sum of the numbers f(i), i < n.
    template <class F>
    double sum_in_double(index_t n, const F& f) const {
        if (n <= 0) return 0;
        index_t lanes = std::min<index_t>((n + 15) / 16, threads);
        const auto memory = temporary<double>(2 * lanes);
        double* sums = memory.data();
        for_each(lanes, [=] PARE_HD(index_t lane) {
            double total = 0;
            for (index_t i = lane; i < n; i += lanes) total += f(i);
            sums[lane] = total;
        });
        while (lanes > 1) {
            const index_t before = lanes;
            const double* const in = sums;
            lanes = (before + 63) / 64;
            double* const out = sums += before;
            for_each(lanes, [=] PARE_HD(index_t lane) {
                double total = 0;
                for (index_t i = lane; i < before; i += lanes) total += in[i];
                out[lane] = total;
            });
        }
        return read(sums);
    }

    template <class Op, class Offset, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offset* offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        using C = compute_t<T>;
        constexpr index_t pieces = 8; // of any segment, so that its sums do not depend on others
        const std::tuple<view<const T, 2>, view<const Ts, 2>...> in(x, others...);
        sum_pieces(
            out.extent(0), pieces, out.extent(1) * unit, unit,
            [=] PARE_HD(index_t s, index_t piece, index_t c) {
                const index_t end = static_cast<index_t>(offsets[s + 1]);
                double total = 0;
                for (index_t t = static_cast<index_t>(offsets[s]) + piece; t < end; t += pieces)
                    total += static_cast<double>(std::apply(
                        [&](const auto&... y) { return op(static_cast<C>(y(t, c))...); }, in));
                return total;
            },
            [=] PARE_HD(index_t s, index_t u, double total) {
                out(s, u) = static_cast<Out>(total);
            });
    }

    /// x and y are in the policy's memory, g in the host's; waits for the sums.
    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace& scratch) const {
        if constexpr (on_host)
            base::gram(alpha, x, y, g, lower, scratch);
        else
            detail::gram_about_centre(*this, alpha, x, y, g, lower, scratch);
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
            if (terms > 0) return detail::cuda_multiply(stream(), a, b, out, add);
#endif
        detail::multiply_by_threads(*this, a, b, out, add);
    }

#ifdef __CUDACC__
    /// Overwrites b [n x m] with g^-1 b, both in the host's memory, by way of the device's; false,
    /// with b as it was, if g [n x n] is not positive definite. Reads the lower triangle of g.
    bool solve(view<const double, 2> g, view<double, 2> b) const {
        const index_t n = g.extent(0), m = b.extent(1);
        if (n == 0 || m == 0) return true;
        const auto g_memory = temporary<double>(n * n), b_memory = temporary<double>(n * m);
        const auto info = temporary<int>(1);
        std::vector<double> packed(static_cast<std::size_t>(n * std::max(n, m)));
        const auto at = [&](index_t i) -> double& { return packed[static_cast<std::size_t>(i)]; };
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j <= i; ++j) {
                if (!detail::is_finite(g(i, j))) return false;
                at(i * n + j) = g(i, j);
            }
        copy_from_host(packed.data(), n * n, g_memory.data());
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < m; ++j) at(j * n + i) = b(i, j);
        copy_from_host(packed.data(), n * m, b_memory.data());
        if (!detail::cuda_solve(stream(), g_memory.data(), n, b_memory.data(), m, info.data(),
                                [this](index_t count) { return temporary<double>(count); }))
            return false;
        copy_to_host(b_memory.data(), n * m, packed.data());
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < m; ++j) b(i, j) = at(j * n + i);
        return true;
    }
#endif

    template <class T, class Batch>
    void key_sums(view<const T, 4> p, const Batch& batch, const attention_mask& mask,
                  const counted_queries& counted, view<double, 2> sums) const {
        constexpr index_t pieces = pieces_of_head;
        sum_pieces(
            p.extent(0), p.extent(1) * pieces, p.extent(3), 1,
            [=] PARE_HD(index_t b, index_t piece, index_t k) {
                const index_t queries = batch.queries(b), keys = batch.keys(b);
                const detail::index_range q = detail::counted(counted, queries);
                double total = 0;
                if (k >= keys) return total;
                for (index_t i = q.begin + piece % pieces; i < q.end; i += pieces) {
                    const auto seen = detail::visible_keys(mask, i, queries, keys);
                    if (k >= seen.begin && k < seen.end)
                        total += static_cast<double>(p(b, piece / pieces, i, k));
                }
                return total;
            },
            [=] PARE_HD(index_t b, index_t k, double total) {
                if (k < batch.keys(b)) sums(b, k) = total;
            });
    }

    template <class T, class Offset>
    void key_sums_packed(const T* p, index_t heads, const Offset* offsets, index_t sequences,
                         const attention_mask& mask, const counted_queries& counted,
                         view<double, 1> sums) const {
        constexpr index_t pieces = pieces_of_head;
        const auto memory = temporary<index_t>(sequences + 1);
        index_t* const starts = memory.data(); // of the sequences' probabilities
        for_each(sequences + 1, [=] PARE_HD(index_t s) {
            starts[s] = 0;
            if (s == sequences) return;
            const index_t n =
                static_cast<index_t>(offsets[s + 1]) - static_cast<index_t>(offsets[s]);
            starts[s] = heads * n * n;
        });
        thrust::exclusive_scan(exec(), starts, starts + sequences + 1, starts, index_t{0});
        sum_pieces(
            1, heads * pieces, sums.extent(0), 1,
            [=] PARE_HD(index_t, index_t piece, index_t t) {
                const index_t s = detail::segment_of(offsets, sequences, t);
                const index_t begin = static_cast<index_t>(offsets[s]), k = t - begin;
                const index_t n = static_cast<index_t>(offsets[s + 1]) - begin;
                const T* const of_key = p + starts[s] + piece / pieces * n * n + k;
                const detail::index_range q = detail::counted(counted, n);
                double total = 0;
                for (index_t i = q.begin + piece % pieces; i < q.end; i += pieces) {
                    const auto seen = detail::visible_keys(mask, i, n, n);
                    if (k >= seen.begin && k < seen.end)
                        total += static_cast<double>(of_key[i * n]);
                }
                return total;
            },
            [=] PARE_HD(index_t, index_t t, double total) { sums(t) = total; });
    }

    template <class T, class Batch>
    void add_to_keys(view<const T, 2> row, const Batch& batch, const attention_mask& mask,
                     const counted_queries& counted, view<T, 4> p) const {
        const index_t heads = p.extent(1), rows = p.extent(2), columns = p.extent(3);
        for_each(p.size(), [=] PARE_HD(index_t at) {
            const index_t k = at % columns, i = at / columns % rows;
            const index_t h = at / (columns * rows) % heads, b = at / (columns * rows * heads);
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const detail::index_range q = detail::counted(counted, queries);
            const detail::index_range seen = detail::visible_keys(mask, i, queries, keys);
            if (i >= q.begin && i < q.end && k >= seen.begin && k < seen.end)
                p(b, h, i, k) += row(b, k);
        });
    }

    template <class X, class Batch, class Y>
    void scale_keys(view<const X, 2> x, const Batch& batch, index_t heads,
                    const importance_options& options, view<Y, 2> y) const {
        const index_t columns = y.extent(1);
        for_each(y.size(), [=] PARE_HD(index_t at) {
            const index_t b = at / columns, k = at % columns;
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const double factor = detail::factor_of_key(options, heads, k, queries, keys);
            y(b, k) = k < keys ? static_cast<Y>(static_cast<double>(x(b, k)) * factor) : Y(0);
        });
    }

    template <class X, class Offset, class Y>
    void scale_tokens(view<const X, 1> x, const Offset* offsets, index_t sequences, index_t heads,
                      const importance_options& options, view<Y, 1> y) const {
        for_each(y.extent(0), [=] PARE_HD(index_t i) {
            const index_t s = detail::segment_of(offsets, sequences, i);
            const index_t begin = static_cast<index_t>(offsets[s]);
            const index_t n = static_cast<index_t>(offsets[s + 1]) - begin;
            y(i) = static_cast<Y>(static_cast<double>(x(i)) *
                                  detail::factor_of_key(options, heads, i - begin, n, n));
        });
    }

    template <class T, class Offset>
    void attention(const detail::attention_call<T, Offset>& call, workspace&) const {
        const index_t most = std::max(call.q.extent(2), call.v.extent(2));
        if (most <= 64) return detail::attention_by_blocks<64>(*this, call);
        if constexpr (sizeof(T) < sizeof(double)) // of 128 doubles, tiles fit no block's memory
            if (most <= 128) return detail::attention_by_blocks<128>(*this, call);
        detail::attention_by_threads(*this, call);
    }

    /// kernel(i, memory) for i < count, each by a block of threads that share Kernel::shared_bytes
    /// of memory.
    template <class Kernel>
    void for_blocks(index_t count, const Kernel& kernel) const {
        if (count <= 0) return;
        constexpr std::size_t bytes = Kernel::shared_bytes;
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            void (*const run)(Kernel) = detail::run_block<Kernel>;
            if constexpr (bytes > 48 * 1024) // which every kernel has
                detail::check_cuda("cudaFuncSetAttribute",
                                   cudaFuncSetAttribute(run,
                                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                        static_cast<int>(bytes)));
            run<<<static_cast<unsigned>(count), detail::thread_block::size, bytes, stream()>>>(
                kernel);
            detail::check_cuda("cudaLaunchKernel", cudaGetLastError());
            Exec found = exec();
            detail::check_cuda("cudaStreamSynchronize",
                               thrust::cuda_cub::synchronize_optional(found));
#endif
        } else {
            for_each(count, [=](index_t i) {
                alignas(128) unsigned char memory[bytes];
                kernel(i, memory);
            });
        }
    }

    template <class T>
    index_t first_nan(view<const T, 1> x) const {
        return first(x.extent(0), [=] PARE_HD(index_t i) {
            return detail::is_nan(static_cast<compute_t<T>>(x(i)));
        });
    }

    template <class Op, class Out, class... Ts>
    void transform(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        using C = compute_t<Out>;
        const std::tuple<view<const Ts, 1>...> inputs(in...);
        for_each(out.extent(0), [=] PARE_HD(index_t i) {
            out(i) = static_cast<Out>(
                std::apply([&](const auto&... x) { return op(static_cast<C>(x(i))...); }, inputs));
        });
    }
    template <class Op, class Out, class... Ts>
    double transform_sum(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        using C = compute_t<Out>;
        const std::tuple<view<const Ts, 1>...> inputs(in...);
        return sum_in_double(out.extent(0), [=] PARE_HD(index_t i) {
            const C value =
                std::apply([&](const auto&... x) { return op(static_cast<C>(x(i))...); }, inputs);
            out(i) = static_cast<Out>(value);
            return static_cast<double>(value);
        });
    }

    template <class T>
    void scale_rows(view<const T, 1> scales, view<const T, 2> x, view<T, 2> y) const {
        using C = compute_t<T>;
        const index_t columns = x.extent(1);
        for_each(x.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, j = at % columns;
            y(i, j) = static_cast<T>(static_cast<C>(scales(i)) * static_cast<C>(x(i, j)));
        });
    }
    template <class T>
    void centre_rows(view<const compute_t<T>, 1> scales, view<const T, 2> x,
                     view<const compute_t<T>, 1> shift, view<compute_t<T>, 2> y) const {
        using C = compute_t<T>;
        const index_t columns = x.extent(1);
        for_each(x.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, j = at % columns;
            const C scale = scales.data_handle() ? scales(i) : C(1);
            y(i, j) = scale * (static_cast<C>(x(i, j)) - shift(j));
        });
    }
    template <class T>
    void scale_rows_dot(view<const T, 1> scales, view<const T, 2> x, view<const T, 2> y,
                        view<T, 2> z, view<T, 1> dots) const {
        using C = compute_t<T>;
        const index_t rows = x.extent(0), columns = x.extent(1);
        const index_t lanes = std::min<index_t>(32, std::max<index_t>(1, columns));
        const auto memory = temporary<double>(rows * lanes);
        double* const sums = memory.data();
        for_each(rows * lanes, [=] PARE_HD(index_t at) {
            const index_t i = at / lanes;
            const C scale = static_cast<C>(scales(i));
            double total = 0;
            for (index_t j = at % lanes; j < columns; j += lanes) {
                const C value = static_cast<C>(y(i, j));
                total += static_cast<double>(static_cast<C>(x(i, j)) * value);
                z(i, j) = static_cast<T>(scale * value);
            }
            sums[at] = total;
        });
        for_each(rows, [=] PARE_HD(index_t i) {
            double total = 0;
            for (index_t lane = 0; lane < lanes; ++lane) total += sums[i * lanes + lane];
            dots(i) = static_cast<T>(total);
        });
    }

    template <class Keep, class Offset>
    index_t count_selected(const Keep& keep, index_t always, const Offset* offsets,
                           index_t segments) const {
        return detail::count_by_threads(*this, keep, always, offsets, segments);
    }
    template <class Keep, class T, class Offset, class Index, class KeptOffset>
    index_t select(const Keep& keep, index_t always, view<const T, 1> scores, const Offset* offsets,
                   index_t segments, Index* index, KeptOffset* kept_offsets) const {
        return detail::select_by_threads(*this, keep, always, scores, offsets, segments, index,
                                         kept_offsets);
    }
    template <class Before, class Counts, class Offset, class Index, class KeptOffset>
    void select_first(const Before& before, const Counts& counts, const Offset* offsets,
                      index_t segments, index_t tokens, Index* index,
                      KeptOffset* kept_offsets) const {
        detail::select_first_by_threads(*this, before, counts, offsets, segments, tokens, index,
                                        kept_offsets);
    }

    template <class T, class Index>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        gather(in, out, [=] PARE_HD(index_t i, index_t j) -> const T& {
            return in(static_cast<index_t>(rows[i]), j);
        });
    }
    template <class T, class Index>
    void gather_columns(view<const T, 2> in, const Index* columns, view<T, 2> out) const {
        gather(in, out, [=] PARE_HD(index_t i, index_t j) -> const T& {
            return in(i, static_cast<index_t>(columns[j]));
        });
    }
    template <class T, class Index>
    void scatter_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        const index_t columns = in.extent(1);
        for_each(in.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, j = at % columns;
            out(static_cast<index_t>(rows[i]), j) = in(i, j);
        });
    }
    /// out(i, j) = from(i, j), elements of `in`; in place by way of temporary memory.
    template <class T, class From>
    void gather(view<const T, 2> in, view<T, 2> out, const From& from) const {
        const index_t columns = out.extent(1);
        if (in.data_handle() != out.data_handle())
            return for_each(out.size(), [=] PARE_HD(index_t at) {
                const index_t i = at / columns, j = at % columns;
                out(i, j) = from(i, j);
            });
        const auto memory = temporary<T>(out.size());
        T* const moved = memory.data();
        for_each(out.size(),
                 [=] PARE_HD(index_t at) { moved[at] = from(at / columns, at % columns); });
        for_each(out.size(),
                 [=] PARE_HD(index_t at) { out(at / columns, at % columns) = moved[at]; });
    }

    /// store(g, u, sum over the columns c of unit u and all pieces of some(g, piece, c)), for each
    /// group g and unit.
    template <class Some, class Store>
    void sum_pieces(index_t groups, index_t pieces, index_t columns, index_t unit, const Some& some,
                    const Store& store) const {
        const index_t units = columns / unit;
        const auto memory = temporary<double>(groups * pieces * columns);
        double* const sums = memory.data();
        for_each(groups * pieces * columns, [=] PARE_HD(index_t at) {
            sums[at] = some(at / (pieces * columns), at / columns % pieces, at % columns);
        });
        for_each(groups * units, [=] PARE_HD(index_t at) {
            const index_t g = at / units, u = at % units;
            double total = 0;
            for (index_t piece = 0; piece < pieces; ++piece)
                for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                    total += sums[(g * pieces + piece) * columns + c];
            store(g, u, total);
        });
    }

  private:
    // Every eighth query of a head is summed up by one thread: the same sums for any layout.
    static constexpr index_t pieces_of_head = 8;

#ifdef __CUDACC__
    cudaStream_t stream() const {
        Exec found = exec();
        return thrust::cuda_cub::stream(found);
    }

    template <class T>
    void copy_memory(const T* from, index_t count, T* to, cudaMemcpyKind kind) const {
        const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
        detail::check_cuda("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, kind, stream()));
        detail::check_cuda("cudaStreamSynchronize", cudaStreamSynchronize(stream()));
    }
#endif

    static constexpr index_t threads = index_t{1} << 17; // so many are worth making
};

/// The policy of a Thrust execution policy: pare::importance(pare::on(thrust::omp::par), ...).
template <class Exec>
thrust_policy<Exec> on(const Exec& exec) {
    return thrust_policy<Exec>(exec);
}

} // namespace PARE_ISA
} // namespace pare
