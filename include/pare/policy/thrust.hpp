// The Thrust policy: pare::on(exec) runs components by a Thrust execution policy: thrust::cpp::par,
// thrust::omp::par or, in files that nvcc compiles with `--extended-lambda` and
// `--expt-relaxed-constexpr`, thrust::cuda::par and par_nosync, with or without a stream and an
// allocator.
//
// On CUDA, views and pointers are of device memory. Calls are queued on the policy's stream and do
// not wait, except for those that return a number: keep_above, keep_top_k, mask_penalty and
// soft_mask_backward; and thrust::cuda::par waits in each of its algorithms, par_nosync does not.
// Contents of memory (offsets, positions, NaN) are checked by calls that wait anyway, but for
// soft_mask_backward; elsewhere they are the caller's to get right. keep_above_async and what follows
// it wait for nothing. Temporary memory comes from the policy's allocator; without one it is taken
// from the device's pool in the order of the stream, which with cudaMemPoolAttrReleaseThreshold keeps
// it for the next call. Thrust's sort of long sequences takes memory that waits for the device.
//
// fisher, gram and least_squares add rows of the device's memory to sums that stay there until they
// are asked for, in memory of cudaMalloc's: neither the stream nor the allocator need live as long.
// They wait only to look whether the rows are finite, and streams that add to the same sums wait for
// one another. What works on statistics does so in the host's memory: rearrange, reconstruct, scale
// and ridge_solve, the last three by cuSOLVER.
#pragma once

#if defined(__CUDACC__)
#if !defined(__CUDACC_EXTENDED_LAMBDA__) || !defined(__CUDACC_RELAXED_CONSTEXPR__)
#error "pare: nvcc needs --extended-lambda and --expt-relaxed-constexpr for the Thrust policy"
#endif
#elif !defined(THRUST_DEVICE_SYSTEM)
#error                                                                                             \
    "pare: Thrust takes CUDA for its device system, which this compiler does not know; define THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP or THRUST_DEVICE_SYSTEM_OMP, or link pare::thrust"
#endif

#include "../core/config.hpp"

PARE_SIGNED_ARRAYS_BEGIN
#include "kernels/block_nearest.hpp"
#include "kernels/thrust_affine.hpp"
#include "kernels/thrust_attention.hpp"
#include "kernels/thrust_folds.hpp"
#include "kernels/thrust_gram.hpp"
#include "kernels/thrust_importance.hpp"
#include "kernels/thrust_kept.hpp"
#include "kernels/thrust_matrix.hpp"
#include "kernels/thrust_rows.hpp"
#include "kernels/thrust_select.hpp"
#include "kernels/thrust_staging.hpp"
#include "kernels/thrust_sums.hpp"
#include "kernels/thrust_system.hpp"
#include "kernels/thrust_top.hpp"
#include "seq.hpp"

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#ifdef __CUDACC__
#include <thrust/system_error.h>
#endif

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
    /// Whether kernels run on a GPU; on_host is false on any system with memory of its own.
    static constexpr bool on_cuda = detail::is_cuda<Exec>;

    const Exec& exec() const { return this->executor().exec; }

    // Primitives.

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
    /// What keeps sums in the policy's memory between calls, for policies of this type.
    using kept_memory = detail::thrust_kept<Exec>;
    /// Memory of the host for copies that nobody waits for until asked to.
    template <class T>
    detail::thrust_staging<T, Exec> staging(index_t count) const {
        return {exec(), count};
    }
    template <class T>
    T read(const T* p) const {
        T there;
        copy_to_host(p, 1, &there);
        return there;
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
        if (n <= 0) return;
        if constexpr (detail::is_cuda<Exec>) {
#ifdef __CUDACC__
            constexpr int threads = detail::threads_of_each;
            launch(detail::run_each<F>, (n + threads - 1) / threads, threads, 0, f, n);
#endif
        } else {
            thrust::for_each_n(exec(), thrust::counting_iterator<index_t>(0), n, f);
        }
    }
    /// f(exec()), an algorithm of Thrust's.
    template <class F>
    void by_thrust(const F& f) const {
#ifdef __CUDACC__
        try {
            f(exec());
        } catch (const thrust::system_error& error) {
            detail::fail<device_error>("on", error.what());
        }
#else
        f(exec());
#endif
    }
    template <class F>
    index_t first(index_t n, const F& f) const {
        const index_t at = n > 0 ? detail::fold_by_blocks(*this, n, detail::first_where<F>{f}) : n;
        return at < n ? at : -1;
    }
    template <class F>
    index_t sum(index_t n, const F& f) const {
        return n > 0 ? detail::fold_by_blocks(*this, n, detail::sum_of_integers<F>{f}) : 0;
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
        return n > 0 ? detail::fold_by_blocks(*this, n, detail::sum_of_numbers<F>(f)) : 0.0;
    }

    template <class Op, class Offsets, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offsets& offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        detail::segment_sums_by_blocks(*this, op, offsets, unit, out, x, others...);
    }

    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace& scratch) const {
        if constexpr (on_host)
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
            if (terms > 0) return detail::cuda_multiply(stream(), a, b, out, add);
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
                const auto memory = [this](index_t bytes) { return temporary<char>(bytes); };
                if constexpr (!std::is_same_v<T, double>) // which has no such kernels
                    if (detail::cuda_affine(stream(), x, weight, bias, out, memory)) return;
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
        detail::key_sums_by_blocks(*this, p, batch, mask, counted,
                                   [=] PARE_HD(index_t b, index_t k, double sum) {
                                       if (k < batch.keys(b)) sums(b, k) = sum;
                                   });
    }
    template <class T, class Offset>
    void key_sums_packed(const T* p, index_t heads, const Offset* offsets, index_t sequences,
                         const attention_mask& mask, const counted_queries& counted,
                         view<double, 1> sums) const {
        detail::key_sums_packed_by_blocks(*this, p, heads, offsets, sequences, sums.extent(0), mask,
                                          counted, [=] PARE_HD(index_t s, index_t k, double sum) {
                                              sums(static_cast<index_t>(offsets[s]) + k) = sum;
                                          });
    }

    /// key_sums and scale_keys in one: the scores, from the probabilities. For memory that the host
    /// does not read, so that it cannot check the sums between them.
    template <class T, class Batch, class Y>
    void score_keys(view<const T, 4> p, const Batch& batch, const importance_options& options,
                    view<Y, 2> y) const {
        const index_t heads = p.extent(1);
        detail::key_sums_by_blocks(
            *this, p, batch, options.mask, options.queries,
            [=] PARE_HD(index_t b, index_t k, double sum) {
                const index_t queries = batch.queries(b), keys = batch.keys(b);
                y(b, k) = k < keys ? static_cast<Y>(sum * detail::factor_of_key(options, heads, k,
                                                                                queries, keys))
                                   : Y(0);
            });
    }
    /// The same of key_sums_packed and scale_tokens.
    template <class T, class Offset, class Y>
    void score_tokens(const T* p, index_t heads, const Offset* offsets, index_t sequences,
                      const importance_options& options, view<Y, 1> y) const {
        detail::key_sums_packed_by_blocks(
            *this, p, heads, offsets, sequences, y.extent(0), options.mask, options.queries,
            [=] PARE_HD(index_t s, index_t k, double sum) {
                const index_t begin = static_cast<index_t>(offsets[s]);
                const index_t n = static_cast<index_t>(offsets[s + 1]) - begin;
                y(begin + k) = static_cast<Y>(sum * detail::factor_of_key(options, heads, k, n, n));
            });
    }

    template <class T, class Batch>
    void add_to_keys(view<const T, 2> row, const Batch& batch, const attention_mask& mask,
                     const counted_queries& counted, view<T, 4> p) const {
        detail::add_to_keys_by_blocks(*this, row, batch, mask, counted, p);
    }

    template <class X, class Batch, class Y>
    void scale_keys(view<const X, 2> x, const Batch& batch, index_t heads,
                    const importance_options& options, view<Y, 2> y) const {
        const index_t columns = y.extent(1);
        for_each(y.size(), [=] PARE_HD(index_t at) {
            const index_t b = at / columns, k = at % columns;
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const double factor = detail::factor_of_key(options, heads, k, queries, keys);
            y(b, k) = detail::from_double<Y>(k < keys ? detail::to_double(x(b, k)) * factor : 0);
        });
    }

    template <class X, class Sequences, class Y>
    void scale_tokens(view<const X, 2> x, const Sequences& where, index_t heads,
                      const importance_options& options, view<Y, 2> y) const {
        const Sequences w = where;
        const index_t keys = y.extent(1);
        for_each(y.size(), [=] PARE_HD(index_t i) {
            const index_t row = i / keys, t = i % keys;
            const detail::key_place at = detail::place_of(w, t);
            const index_t s = at.sequence;
            double score = 0;
            if (at.inside)
                score = detail::to_double(x(row, t)) *
                        detail::factor_of_key(options, heads, at.key, w.queries(s), w.keys(s));
            y(row, t) = detail::from_double<Y>(score);
        });
    }

    template <class T, class Offset>
    void pool(view<const T, 2> x, const Offset* offsets, index_t sequences, index_t radius,
              bool largest, view<T, 2> y) const {
        const index_t keys = x.extent(1);
        for_each(x.size(), [=] PARE_HD(index_t i) {
            const index_t row = i / keys, t = i % keys;
            const index_t s = detail::segment_of(offsets, sequences, t);
            const detail::index_range all{static_cast<index_t>(offsets[s]),
                                          static_cast<index_t>(offsets[s + 1])};
            y(row, t) = detail::pooled(x, row, t, all, radius, largest);
        });
    }

    /// Keys and values pass once. Where scores are asked for, keys then pass by the queries that
    /// count, or logits are kept; see attend_cache.
    template <class T, class K, class Sequences>
    void attention(const detail::attention_call<T, K, Sequences>& call, workspace& scratch) const {
        using C = compute_t<T>;
        if constexpr (on_host) // a GPU's kernels have no parts
            if (call.shares.extent(0) > 0) return base::attention(call, scratch);
        if constexpr (!Sequences::same) return detail::attend_cache(*this, call);
        const index_t queries = call.q.extent(0), rows = queries * call.heads();
        const bool scored = call.received.extent(0) > 0;
        const auto memory = temporary<C>(scored ? 2 * rows : 0);
        C* const total = scored && rows > 0 ? memory.data() + rows : nullptr;
        detail::attend(*this, call, detail::softmax_rows<C>{memory.data(), total, queries});
        if (scored) attention_scores(detail::scores_of(call, memory.data(), total), scratch);
    }
    template <class T, class K, class L, class Sequences>
    void attention_scores(const detail::scores_call<T, K, L, Sequences>& call, workspace&) const {
        const index_t keys = call.all_keys(), rows = call.received.extent(0);
        const index_t heads_of_row = call.heads() / rows;
        const auto memory = temporary<double>(keys * call.heads());
        const detail::head_sums parts{memory.data(), keys, 1};
        detail::score_heads(*this, call, parts);
        for_each(rows * keys, [=] PARE_HD(index_t i) {
            const index_t row = i / keys, t = i % keys;
            const detail::key_place at = detail::place_of(call.where(), t);
            if (at.inside)
                call.received(row, t) = detail::received_in_row(call, parts, heads_of_row, row, at);
        });
    }
    /// The same in one step less, where sums are not looked at: scores [rows x sequences x keys], or
    /// [rows x 1 x keys] of packed sequences, with 0 behind the keys of a sequence. `heads`: by which
    /// they are scaled.
    template <class T, class K, class L, class Sequences, class S>
    void attention_scores(const detail::scores_call<T, K, L, Sequences>& call, index_t heads,
                          const importance_options& scaling, view<S, 3> scores) const {
        const index_t keys = call.all_keys(), rows = scores.extent(0);
        const index_t heads_of_row = rows > 0 ? call.heads() / rows : 0;
        const auto memory = temporary<double>(keys * call.heads());
        const detail::head_sums parts{memory.data(), keys, 1};
        detail::score_heads(*this, call, parts);
        for_each(rows * keys, [=] PARE_HD(index_t i) {
            const index_t row = i / keys, t = i % keys;
            const detail::key_place at = detail::place_of(call.where(), t);
            const index_t s = at.sequence;
            double score = 0;
            if (at.inside)
                score =
                    detail::received_in_row(call, parts, heads_of_row, row, at) *
                    detail::factor_of_key(scaling, heads, at.key, call.queries(s), call.keys(s));
            constexpr bool packed = Sequences::packed;
            scores(row, packed ? 0 : s, packed ? t : at.key) = static_cast<S>(score);
        });
    }

    /// Whether the device runs a kernel's blocks. They may share 227 KB of memory with sm_90, 163 with
    /// sm_80, and 99 with sm_86 and sm_89, which is too little for doubles in attention; and what was
    /// made for an older device has no tensor cores on any.
    template <class Kernel>
    bool can_run([[maybe_unused]] const Kernel& kernel) const {
#ifdef __CUDACC__
        if constexpr (detail::is_cuda<Exec>) {
            int device = 0, most = 0;
            detail::check_cuda("cudaGetDevice", cudaGetDevice(&device));
            detail::check_cuda(
                "cudaDeviceGetAttribute",
                cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
            if (Kernel::shared_bytes > static_cast<std::size_t>(most)) return false;
            if constexpr (detail::needs_tensor_cores<Kernel> && !detail::always_tensor_cores) {
                cudaFuncAttributes made;
                detail::check_cuda("cudaFuncGetAttributes",
                                   cudaFuncGetAttributes(&made, detail::run_block<Kernel>));
                return made.ptxVersion >= 80;
            }
        }
#endif
        return true;
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
            launch(run, count, detail::threads_of<Kernel>, bytes, kernel);
#endif
        } else {
            for_each(count, [=](index_t i) {
                alignas(128) unsigned char memory[bytes];
                detail::block_player::run(detail::threads_of<Kernel>, kernel, i, memory);
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

    template <class Keep, class T, class Offset, class Index, class KeptOffset>
    index_t select(const Keep& keep, const detail::kept_ends& always, view<const T, 1> scores,
                   const Offset* offsets, index_t segments, Index* index,
                   KeptOffset* kept_offsets) const {
        return detail::select_by_tiles(*this, keep, always, scores, offsets, segments, index,
                                       scores.extent(0), kept_offsets, false, true);
    }
    template <class Before, class Counts, class Offset, class Index, class KeptOffset>
    void select_first(const Before& before, const Counts& counts, const Offset* offsets,
                      index_t segments, index_t tokens, Index* index,
                      KeptOffset* kept_offsets) const {
        detail::select_first_by_threads(*this, before, counts, offsets, segments, tokens, tokens,
                                        index, kept_offsets);
    }

    // For memory that the host does not read, with checks of it in the same kernels.

    /// sum_segments() of make(how many segments are not empty); `wrong`, and nothing is written, where
    /// offsets do not ascend from 0 to `rows`.
    template <class Offset, class Make>
    detail::checked_sum sum_segments_checked(const Offset* offsets, index_t segments, index_t rows,
                                             const Make& make) const {
        return detail::sum_segments_by_blocks(*this, offsets, segments, rows, make);
    }
    /// select() of up to `room` positions; where more are kept, how many, and nothing is written. -1
    /// for NaN and offsets out of order.
    template <class Keep, class T, class Offset, class Index, class KeptOffset>
    index_t select_checked(const Keep& keep, const detail::kept_ends& always,
                           view<const T, 1> scores, const Offset* offsets, index_t segments,
                           Index* index, index_t room, KeptOffset* kept_offsets) const {
        return detail::select_by_tiles(*this, keep, always, scores, offsets, segments, index, room,
                                       kept_offsets, true, true);
    }
    /// The same of one segment, without offsets.
    template <class Keep, class T, class Index>
    index_t select_checked(const Keep& keep, const detail::kept_ends& always,
                           view<const T, 1> scores, Index* index, index_t room) const {
        return detail::select_by_tiles(*this, keep, always, scores,
                                       detail::offsets_of_one{scores.extent(0)}, 1, index, room,
                                       static_cast<index_t*>(nullptr), true, true);
    }
    /// select() without waiting for how many are kept.
    template <class Keep, class T, class Offset, class Index, class KeptOffset>
    void select_async(const Keep& keep, const detail::kept_ends& always, view<const T, 1> scores,
                      const Offset* offsets, index_t segments, Index* index,
                      KeptOffset* kept_offsets) const {
        detail::select_by_tiles(*this, keep, always, scores, offsets, segments, index,
                                scores.extent(0), kept_offsets, false, false);
    }
    /// select_first() of up to `room` positions, as select_checked; -1 also for a count below 1 of a
    /// segment that is not empty. `best`: what of each segment is kept.
    template <class Before, class Best, class Offset, class Index, class KeptOffset>
    index_t select_first_checked(const Before& before, const Best& best, const Offset* offsets,
                                 index_t segments, index_t tokens, Index* index, index_t room,
                                 KeptOffset* kept_offsets) const {
        const detail::look_at_segments<Before, Best, Offset> look{before, best, offsets, segments};
        const auto found = detail::fold_by_blocks(*this, std::max(tokens, segments + 1), look);
        if (found.wrong) return -1;
        if (found.kept <= room)
            detail::select_first_by_threads(*this, before, best.count, offsets, segments, tokens,
                                            found.longest, index, kept_offsets);
        return found.kept;
    }
    /// select_first() without waiting, a block of threads a segment however long that is.
    template <class Before, class Counts, class Offset, class Index, class KeptOffset>
    void select_first_async(const Before& before, const Counts& counts, const Offset* offsets,
                            index_t segments, index_t tokens, Index* index,
                            KeptOffset* kept_offsets) const {
        detail::select_first_by_threads(*this, before, counts, offsets, segments, tokens, 0, index,
                                        kept_offsets);
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

    template <class T, class Offset, class Index, class Nearest>
    void nearest_rows(view<const T, 2> keys, const Offset* offsets, index_t sequences,
                      const Index* index, index_t count, compute_t<T>* memory,
                      view<Nearest, 1> nearest, view<T, 1> similarity) const {
        detail::nearest_rows_by_blocks(*this, keys, offsets, sequences, index, count, memory,
                                       nearest, similarity);
    }
    template <class Index, class Nearest>
    void group_rows(const Index* index, index_t count, view<const Nearest, 1> nearest,
                    index_t* parts, index_t* starts, index_t* rows) const {
        const index_t tokens = nearest.extent(0);
        for_each(tokens, [=] PARE_HD(index_t t) {
            rows[t] = detail::row_of_token(index, count, nearest, t);
            parts[t] = t;
        });
        const auto before = [=] PARE_HD(index_t a, index_t b) {
            return rows[a] != rows[b] ? rows[a] < rows[b] : a < b;
        };
        by_thrust([&](const Exec& how) { thrust::sort(how, parts, parts + tokens, before); });
        for_each(count + 1, [=] PARE_HD(index_t i) {
            starts[i] = detail::first_not_below(
                tokens, [=](index_t p) { return rows[parts[p]]; }, i);
        });
    }
    template <class T, class W>
    void merge_rows(view<const T, 2> in, view<const W, 1> weights, const index_t* parts,
                    const index_t* starts, view<T, 2> out) const {
        const index_t columns = out.extent(1);
        for_each(out.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, c = at % columns;
            detail::mean_of_parts<1>(detail::plain_share{}, in, weights, parts, starts, i,
                                     {c, c + 1}, out);
        });
    }
    template <class W>
    void merge_sizes(const index_t* parts, const index_t* starts, index_t count, view<W, 1> weights,
                     workspace&) const {
        const auto memory = temporary<W>(count);
        W* const sums = memory.data();
        const view<const W, 1> old(weights);
        for_each(count, [=] PARE_HD(index_t i) {
            sums[i] = detail::size_of_parts(old, parts, starts, i);
        });
        for_each(count, [=] PARE_HD(index_t i) { weights(i) = sums[i]; });
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
#ifdef __CUDACC__
    cudaStream_t stream() const {
        Exec found = exec();
        return thrust::cuda_cub::stream(found);
    }

    /// Queues run(arguments...) and waits for it as the policy does. An error that somebody else's call
    /// has left behind is not this one's.
    template <class... Arguments>
    void launch(void (*run)(Arguments...), index_t blocks, int threads, std::size_t bytes,
                Arguments... arguments) const {
        void* all[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
        detail::check_cuda("cudaLaunchKernel",
                           cudaLaunchKernel(reinterpret_cast<const void*>(run),
                                            dim3(static_cast<unsigned>(blocks)),
                                            dim3(static_cast<unsigned>(threads)), all, bytes,
                                            stream()));
        Exec found = exec();
        detail::check_cuda("cudaStreamSynchronize", thrust::cuda_cub::synchronize_optional(found));
    }

    template <class T>
    void copy_memory(const T* from, index_t count, T* to, cudaMemcpyKind kind) const {
        if (count <= 0) return;
        const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
        detail::check_cuda("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, kind, stream()));
        detail::check_cuda("cudaStreamSynchronize", cudaStreamSynchronize(stream()));
    }
#endif
};

/// The policy of a Thrust execution policy: pare::importance(pare::on(thrust::omp::par), ...).
template <class Exec>
thrust_policy<Exec> on(const Exec& exec) {
    return thrust_policy<Exec>(exec);
}

} // namespace PARE_ISA
} // namespace pare
PARE_SIGNED_ARRAYS_END
