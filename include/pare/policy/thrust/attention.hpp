// Attention and what its keys receive, by blocks of a Thrust policy's threads.
#pragma once

#include "../../core/config.hpp"

PARE_SIGNED_ARRAYS_BEGIN
#include "../kernels/thrust_attention.hpp"
#include "../kernels/thrust_importance.hpp"
#include "rows.hpp"

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Primitives of attention, its probabilities and scores.
template <class Exec>
class thrust_attention_primitives : public thrust_row_primitives<Exec> {
    using base = thrust_row_primitives<Exec>;

  public:
    using base::base;

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
        this->for_each(y.size(), [=] PARE_HD(index_t at) {
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
        this->for_each(y.size(), [=] PARE_HD(index_t i) {
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
        this->for_each(x.size(), [=] PARE_HD(index_t i) {
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
        if constexpr (base::on_host) // a GPU's kernels have no parts
            if (call.shares.extent(0) > 0) return base::attention(call, scratch);
        if constexpr (!Sequences::same) return detail::attend_cache(*this, call);
        const index_t queries = call.q.extent(0), rows = queries * call.heads();
        const bool scored = call.received.extent(0) > 0;
        const auto memory = this->template temporary<C>(scored ? 2 * rows : 0);
        C* const total = scored && rows > 0 ? memory.data() + rows : nullptr;
        detail::attend(*this, call, detail::softmax_rows<C>{memory.data(), total, queries});
        if (scored) attention_scores(detail::scores_of(call, memory.data(), total), scratch);
    }

    template <class T, class K, class L, class Sequences>
    void attention_scores(const detail::scores_call<T, K, L, Sequences>& call, workspace&) const {
        const index_t keys = call.all_keys(), rows = call.received.extent(0);
        const index_t heads_of_row = call.heads() / rows;
        const auto memory = this->template temporary<double>(keys * call.heads());
        const detail::head_sums parts{memory.data(), keys, 1};
        detail::score_heads(*this, call, parts);
        this->for_each(rows * keys, [=] PARE_HD(index_t i) {
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
        const auto memory = this->template temporary<double>(keys * call.heads());
        const detail::head_sums parts{memory.data(), keys, 1};
        detail::score_heads(*this, call, parts);
        this->for_each(rows * keys, [=] PARE_HD(index_t i) {
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
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
PARE_SIGNED_ARRAYS_END
