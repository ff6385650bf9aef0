// The reference policy: plain loops, any element type, any strides. It and its rooms in seq/ are also
// the list of primitives that a backend provides; a backend that derives from it replaces those that
// it does better.
#pragma once

#include "../core/executor.hpp"
#include "../core/view.hpp"
#include "../core/workspace.hpp"
#include "kernels/merge.hpp"
#include "kernels/select.hpp"
#include "seq/attention.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {

/// Plain loops, in tasks of an executor: those of numbers, rows and attention, and here of the rows that
/// stay and those that they take in.
template <class Executor = serial>
class sequential : public detail::attention_loops<Executor> {
    using base = detail::attention_loops<Executor>;

  public:
    constexpr sequential() = default;
    constexpr explicit sequential(Executor e) : base(e) {}

    /// How many positions select() keeps. Every part of a call counts all of them.
    template <class Keep, class Offset>
    index_t count_selected(const Keep& keep, const detail::kept_ends& always, const Offset* offsets,
                           index_t segments) const {
        return detail::count_selected(keep, always, offsets, segments);
    }

    /// The positions i for which keep(i) holds and those at the ends of each segment,
    /// ascending; where that is none of a segment, its first one with the highest score. `index`
    /// has room for all of them, kept_offsets [segments + 1] may be `offsets`. Returns how many.
    template <class Keep, class T, class Offset, class Index, class KeptOffset>
    index_t select(const Keep& keep, const detail::kept_ends& always, view<const T, 1> scores,
                   const Offset* offsets, index_t segments, Index* index,
                   KeptOffset* kept_offsets) const {
        index_t kept = -1;
        this->executor().run(1, [&](index_t, index_t) {
            kept = detail::select(keep, always, scores, offsets, segments, index, kept_offsets);
        });
        // Another part of the call has written them.
        return kept < 0 ? count_selected(keep, always, offsets, segments) : kept;
    }

    /// The min(counts(s), size) first positions of each segment s, in ascending order: the pinned ones
    /// and then those with the highest of before.scores, of equal ones the earlier. before(i, j, the
    /// segment) is that order. kept_offsets [segments + 1] may be `offsets`.
    template <class Before, class Counts, class Offset, class Index, class KeptOffset>
    void select_first(const Before& before, const Counts& counts, const Offset* offsets,
                      index_t segments, [[maybe_unused]] index_t tokens, Index* index,
                      KeptOffset* kept_offsets) const {
        this->executor().run(1, [=](index_t, index_t) {
            detail::select_first(before, counts, offsets, segments, index, kept_offsets);
        });
    }

    /// Of each token t the row of its sequence among index[i] whose key is most like its own; see
    /// pare::nearest_rows. `memory`: tokens * size.
    template <class T, class Offset, class Index, class Nearest>
    void nearest_rows(view<const T, 2> keys, const Offset* offsets, index_t sequences,
                      const Index* index, index_t count, compute_t<T>* memory,
                      view<Nearest, 1> nearest, view<T, 1> similarity) const {
        nearest_rows_by(detail::plain_product{}, keys, offsets, sequences, index, count, memory,
                        nearest, similarity);
    }

    /// parts [tokens]: tokens by the row of index[i] that they become a part of, first those of none;
    /// starts [count + 1]: where the parts of each row start. `rows`: [tokens] of memory.
    template <class Index, class Nearest>
    void group_rows(const Index* index, index_t count, view<const Nearest, 1> nearest,
                    index_t* parts, index_t* starts, index_t* rows) const {
        const index_t tokens = nearest.extent(0);
        std::fill_n(starts, count + 1, index_t{0});
        index_t none = 0;
        for (index_t t = 0; t < tokens; ++t) {
            rows[t] = detail::row_of_token(index, count, nearest, t);
            ++(rows[t] < 0 ? none : starts[rows[t]]);
        }
        for (index_t i = 0, at = none; i <= count; ++i) {
            const index_t here = starts[i];
            starts[i] = at;
            at += here;
        }
        none = 0;
        for (index_t t = 0; t < tokens; ++t) parts[rows[t] < 0 ? none++ : starts[rows[t]]++] = t;
        for (index_t i = count; i > 0; --i) starts[i] = starts[i - 1];
        starts[0] = none;
    }

    /// out[i, :] = the mean of in[t, :] over the parts t of row i, weighted by weights[t].
    template <class T, class W>
    void merge_rows(view<const T, 2> in, view<const W, 1> weights, const index_t* parts,
                    const index_t* starts, view<T, 2> out) const {
        merge_rows_by(detail::plain_share{}, in, weights, parts, starts, out);
    }

    /// weights[i] = the sum of weights[t] over the parts t of row i < count.
    template <class W>
    void merge_sizes(const index_t* parts, const index_t* starts, index_t count, view<W, 1> weights,
                     workspace& scratch) const {
        W* const sums = scratch.template get<W>(count);
        for (index_t i = 0; i < count; ++i)
            sums[i] = detail::size_of_parts(view<const W, 1>(weights), parts, starts, i);
        for (index_t i = 0; i < count; ++i) weights(i) = sums[i];
    }

  protected:
    template <class Product, class T, class Offset, class Index, class Nearest>
    void nearest_rows_by(const Product& product, view<const T, 2> keys, const Offset* offsets,
                         index_t sequences, const Index* index, index_t count, compute_t<T>* memory,
                         view<Nearest, 1> nearest, view<T, 1> similarity) const {
        constexpr index_t some = 16; // tokens of a task
        const index_t tokens = keys.extent(0), size = keys.extent(1);
        const auto for_tokens = [&](const auto& f) {
            this->executor().run((tokens + some - 1) / some, [&](index_t task, index_t) {
                const index_t end = std::min(tokens, (task + 1) * some);
                for (index_t t = task * some; t < end; ++t) f(t);
            });
        };
        for_tokens([&](index_t t) { detail::unit_row(keys, t, memory + t * size); });
        for_tokens([&](index_t t) {
            detail::find_nearest(memory, size, offsets, sequences, index, count, t, nearest,
                                 similarity, product);
        });
    }

    template <class AddShare, class T, class W>
    void merge_rows_by(const AddShare& add_share, view<const T, 2> in, view<const W, 1> weights,
                       const index_t* parts, const index_t* starts, view<T, 2> out) const {
        constexpr index_t most = 256; // columns whose sums stay near
        this->executor().run(out.extent(0), [=](index_t i, index_t) {
            for (index_t c = 0; c < out.extent(1); c += most)
                detail::mean_of_parts<most>(add_share, in, weights, parts, starts, i,
                                            {c, std::min(out.extent(1), c + most)}, out);
        });
    }
};

/// Plain loops on the calling thread.
inline constexpr sequential<> seq{};

} // namespace PARE_ISA
} // namespace pare
