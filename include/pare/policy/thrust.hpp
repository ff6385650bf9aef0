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
#include "kernels/thrust_folds.hpp"
#include "kernels/thrust_select.hpp"
#include "kernels/thrust_top.hpp"
#include "thrust/attention.hpp"

#include <thrust/sort.h>

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {

/// Primitives as algorithms of Thrust, made for thousands of threads that read neighbouring
/// numbers: those of rows and attention, and here of the rows that stay and those that they take in.
/// Sums are made in double, in an order that depends on the shapes alone. What has no such form runs
/// as tasks of pare::seq's loops, on systems of the host only.
template <class Exec>
class thrust_policy : public detail::thrust_attention_primitives<Exec> {
    using base = detail::thrust_attention_primitives<Exec>;

  public:
    explicit thrust_policy(const Exec& exec) : base(exec) {}

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
        this->for_each(tokens, [=] PARE_HD(index_t t) {
            rows[t] = detail::row_of_token(index, count, nearest, t);
            parts[t] = t;
        });
        const auto before = [=] PARE_HD(index_t a, index_t b) {
            return rows[a] != rows[b] ? rows[a] < rows[b] : a < b;
        };
        this->by_thrust([&](const Exec& how) { thrust::sort(how, parts, parts + tokens, before); });
        this->for_each(count + 1, [=] PARE_HD(index_t i) {
            starts[i] = detail::first_not_below(
                tokens, [=](index_t p) { return rows[parts[p]]; }, i);
        });
    }

    template <class T, class W>
    void merge_rows(view<const T, 2> in, view<const W, 1> weights, const index_t* parts,
                    const index_t* starts, view<T, 2> out) const {
        const index_t columns = out.extent(1);
        this->for_each(out.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, c = at % columns;
            detail::mean_of_parts<1>(detail::plain_share{}, in, weights, parts, starts, i,
                                     {c, c + 1}, out);
        });
    }

    template <class W>
    void merge_sizes(const index_t* parts, const index_t* starts, index_t count, view<W, 1> weights,
                     workspace&) const {
        const auto memory = this->template temporary<W>(count);
        W* const sums = memory.data();
        const view<const W, 1> old(weights);
        this->for_each(count, [=] PARE_HD(index_t i) {
            sums[i] = detail::size_of_parts(old, parts, starts, i);
        });
        this->for_each(count, [=] PARE_HD(index_t i) { weights(i) = sums[i]; });
    }
};

/// The policy of a Thrust execution policy: pare::importance(pare::on(thrust::omp::par), ...).
template <class Exec>
thrust_policy<Exec> on(const Exec& exec) {
    return thrust_policy<Exec>(exec);
}

} // namespace PARE_ISA
} // namespace pare
PARE_SIGNED_ARRAYS_END
