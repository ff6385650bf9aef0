// Plain loops of attention and of what its keys receive.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/attention_calls.hpp"
#include "../../core/executor.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"
#include "rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// y[k] = x[k] times the factor of key k, for some keys of one sequence.
template <class X, class Y>
void scale_sequence(const importance_options& options, index_t heads, index_t queries, index_t keys,
                    const index_range& some, const X* x, index_t x_stride, Y* y, index_t y_stride) {
    const auto scale = [=](index_t k, double factor) {
        y[k * y_stride] = from_double<Y>(to_double(x[k * x_stride]) * factor);
    };
    if (same_factor_for_all(options) ||
        queries == 1) { // what one query does not see has a sum of 0
        const index_t seen = queries == 1 ? visible_keys(options.mask, 0, 1, keys).size() : keys;
        const double factor = factor_for_all(options, heads, queries, seen);
        for (index_t k = some.begin; k < some.end; ++k) scale(k, factor);
        return;
    }
    uniform_attention_of_keys uniform(options, queries, keys);
    for (index_t k = 0; k < some.end; ++k) {
        const double sum = uniform.next();
        if (k >= some.begin) scale(k, inverse_or_zero(sum * static_cast<double>(heads)));
    }
}

/// The largest, or the mean, of x[row, u] for u of `all` that are at most `radius` from t.
template <class T>
PARE_HD T pooled(const view<const T, 2>& x, index_t row, index_t t, const index_range& all,
                 index_t radius, bool largest) {
    using C = compute_t<T>;
    const index_t begin = t - all.begin > radius ? t - radius : all.begin;
    const index_t end = all.end - t > radius ? t + radius + 1 : all.end;
    C sum = largest ? static_cast<C>(x(row, begin)) : C(0);
    for (index_t u = begin; u < end; ++u) {
        const auto score = static_cast<C>(x(row, u));
        sum = largest ? larger_or_nan(sum, score) : sum + score;
    }
    return static_cast<T>(largest ? sum : sum / static_cast<C>(end - begin));
}

/// key_sums of packed sequences, by(executor) being a policy that has it. A sequence that is no more
/// than a task's share of all is a task; the others are cut into blocks of keys.
template <class Executor, class By, class T, class Offset>
void key_sums_packed(const Executor& executor, const By& by, const T* p, index_t heads,
                     const Offset* offsets, index_t sequences, const attention_mask& mask,
                     const counted_queries& counted, view<double, 1> sums) {
    struct packed {
        const T* p;
        index_t begin, n;
    };
    const auto length = [&](index_t s) {
        return static_cast<index_t>(offsets[s + 1]) - static_cast<index_t>(offsets[s]);
    };
    const auto sum_up = [&](const auto& policy, const packed& x) {
        policy.key_sums(view<const T, 4>(x.p, 1, heads, x.n, x.n),
                        padded_batch<index_t>{nullptr, x.n, x.n}, mask, counted,
                        view<double, 2>(sums.data_handle() + x.begin, 1, x.n));
    };
    const auto square = [](index_t n) { return static_cast<double>(n) * static_cast<double>(n); };
    double share = 0; // parts of a call cut all
    if constexpr (!is_partial<Executor>) {
        for (index_t s = 0; s < sequences; ++s) share += square(length(s));
        share /= 4 * static_cast<double>(shares_of(executor));
    }
    std::vector<packed> tasks;
    tasks.reserve(static_cast<std::size_t>(sequences));
    for (index_t s = 0; s < sequences; ++s) {
        const packed x{p, static_cast<index_t>(offsets[s]), length(s)};
        p += heads * x.n * x.n;
        if (x.n == 0) continue;
        if (square(x.n) > share)
            sum_up(by(in_turn(executor, s)), x);
        else
            tasks.push_back(x);
    }
    executor.run(static_cast<index_t>(tasks.size()), [&](index_t i, index_t) {
        sum_up(by(serial{}), tasks[static_cast<std::size_t>(i)]);
    });
}

/// Primitives of attention, its probabilities and scores.
template <class Executor>
class attention_loops : public row_loops<Executor> {
    using base = row_loops<Executor>;

  public:
    using base::base;

    /// sums[b, k] = sum over heads h and counted queries q that see k of p[b, h, q, k], for the
    /// keys of sequence b; the rest of `sums` stays. Partial sums of at most 256 rows in
    /// compute_t<T>.
    template <class T, class Batch>
    void key_sums(view<const T, 4> p, const Batch& batch, const attention_mask& mask,
                  const counted_queries& counted, view<double, 2> sums) const {
        using C = compute_t<T>;
        for_key_blocks(p.extent(0), p.extent(3), [=](index_t b, const detail::index_range& some) {
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const detail::index_range q = detail::counted(counted, queries);
            for (index_t k = some.begin; k < std::min(some.end, keys); ++k) {
                double total = 0;
                for (index_t h = 0; h < p.extent(1); ++h)
                    for (index_t q0 = q.begin; q0 < q.end; q0 += base::row_block) {
                        C sum = 0;
                        for (index_t i = q0; i < base::block_end(q0, q.end); ++i) {
                            const auto seen = detail::visible_keys(mask, i, queries, keys);
                            if (k >= seen.begin && k < seen.end)
                                detail::add_in_order(sum, static_cast<C>(p(b, h, i, k)));
                        }
                        detail::add_in_order(total, static_cast<double>(sum));
                    }
                sums(b, k) = total;
            }
        });
    }

    /// The same for packed sequences: p has, one after another, each sequence's [heads, n, n], and
    /// sums [tokens].
    template <class T, class Offset>
    void key_sums_packed(const T* p, index_t heads, const Offset* offsets, index_t sequences,
                         const attention_mask& mask, const counted_queries& counted,
                         view<double, 1> sums) const {
        const auto by = [](const auto& e) { return attention_loops<std::decay_t<decltype(e)>>(e); };
        detail::key_sums_packed(this->executor(), by, p, heads, offsets, sequences, mask, counted,
                                sums);
    }

    /// f(b, keys) for the keys of each sequence b that a task of key_sums sums up: in a part of a call,
    /// for those that are that part's.
    template <class F>
    void for_key_blocks(index_t sequences, index_t room, const F& f) const {
        const detail::key_blocks blocks(this->executor(), sequences, room);
        this->executor().run(blocks.tasks(), [&](index_t task, index_t) {
            f(blocks.sequence(task), blocks.keys(task));
        });
    }

    /// The adjoint: p[b, h, q, k] += row[b, k] for the same elements.
    template <class T, class Batch>
    void add_to_keys(view<const T, 2> row, const Batch& batch, const attention_mask& mask,
                     const counted_queries& counted, view<T, 4> p) const {
        using C = compute_t<T>;
        const index_t heads = p.extent(1);
        this->executor().run(p.extent(0) * heads, [=](index_t task, index_t) {
            const index_t b = task / heads, h = task % heads, queries = batch.queries(b);
            const detail::index_range q = detail::counted(counted, queries);
            for (index_t i = q.begin; i < q.end; ++i) {
                const auto seen = detail::visible_keys(mask, i, queries, batch.keys(b));
                for (index_t k = seen.begin; k < seen.end; ++k)
                    p(b, h, i, k) =
                        static_cast<T>(static_cast<C>(p(b, h, i, k)) + static_cast<C>(row(b, k)));
            }
        });
    }

    /// y[b, k] = x[b, k] times the factor of `options` from sums over `heads` heads to scores; 0
    /// behind the keys of sequence b. Every part of a call makes all of it.
    template <class X, class Batch, class Y>
    void scale_keys(view<const X, 2> x, const Batch& batch, index_t heads,
                    const importance_options& options, view<Y, 2> y) const {
        if (y.size() == 0) return;
        detail::run_all(this->executor(), x.extent(0), [=](index_t b, index_t) {
            const index_t keys = batch.keys(b);
            detail::scale_sequence(options, heads, batch.queries(b), keys, {0, keys}, &x(b, 0),
                                   x.stride(1), &y(b, 0), y.stride(1));
            for (index_t k = keys; k < y.extent(1); ++k) y(b, k) = Y(0);
        });
    }

    /// The same for packed sequences: x and y [rows x keys].
    template <class X, class Sequences, class Y>
    void scale_tokens(view<const X, 2> x, const Sequences& where, index_t heads,
                      const importance_options& options, view<Y, 2> y) const {
        if (y.size() == 0) return;
        const index_t rows = x.extent(0);
        detail::run_all(this->executor(), where.sequences * rows, [=](index_t task, index_t) {
            const index_t s = task / rows, row = task % rows, begin = where.key_begin(s);
            const index_t n = where.keys(s), end = begin + where.room(s);
            detail::scale_sequence(options, heads, where.queries(s), n, {0, n},
                                   x.address(row, begin), x.stride(1), y.address(row, begin),
                                   y.stride(1));
            for (index_t t = begin + n; t < end; ++t) y(row, t) = Y(0);
        });
    }

    /// y[r, t] = the largest, or the mean, of x[r, u] over the keys u of the same sequence that are at
    /// most `radius` away.
    template <class T, class Offset>
    void pool(view<const T, 2> x, const Offset* offsets, index_t sequences, index_t radius,
              bool largest, view<T, 2> y) const {
        this->executor().run(x.extent(0) * sequences, [=](index_t task, index_t) {
            const index_t row = task / sequences, s = task % sequences;
            const detail::index_range all{static_cast<index_t>(offsets[s]),
                                          static_cast<index_t>(offsets[s + 1])};
            for (index_t t = all.begin; t < all.end; ++t)
                y(row, t) = detail::pooled(x, row, t, all, radius, largest);
        });
    }

    /// Softmax attention; see attention_call. Logits, exponentials and products in compute_t<T>.
    template <class T, class K, class Sequences>
    void attention(const detail::attention_call<T, K, Sequences>& c, workspace& scratch) const {
        using C = compute_t<T>;
        const index_t longest = detail::most_keys(c.where());
        const bool shared = c.shares.extent(0) > 0, scored = shared || c.received.extent(0) > 0;
        const index_t heads_of_row = c.heads() / std::max<index_t>(c.received.extent(0), 1);
        C* const memory = scratch.template get<C>(this->executor().concurrency() * longest);
        double* const of_head = scratch.inner().template get<double>(
            shared ? this->executor().concurrency() * longest : 0);
        this->executor().run(c.sequences, [&, memory, of_head](index_t s, index_t slot) {
            C* const p = memory + slot * longest; // probabilities of one query
            const index_t at = c.key_begin(s), n = c.keys(s), queries = c.queries(s);
            const detail::index_range counted = detail::counted(c.counted, queries);
            for (index_t row = 0; row < c.received.extent(0); ++row)
                std::fill_n(c.received.address(row, at), n, 0.0);
            for (index_t h = 0; h < c.heads(); ++h) {
                double* const sums =
                    shared ? of_head + slot * longest : c.received.address(h / heads_of_row, at);
                if (shared) std::fill_n(sums, n, 0.0);
                for (index_t i = 0; i < queries; ++i) {
                    const detail::index_range seen = detail::visible_keys(c.mask, i, queries, n);
                    const index_t g = c.group(h), row = c.query_begin(s) + i;
                    const index_t place = detail::place_of_query(c.where(), s, i);
                    C most = std::numeric_limits<C>::lowest(), sum = 0;
                    for (index_t j = seen.begin; j < seen.end; ++j) {
                        C logit = 0;
                        for (index_t e = 0; e < c.q.extent(2); ++e)
                            detail::add_in_order(logit, static_cast<C>(c.q(row, h, e)) *
                                                            static_cast<C>(c.k(at + j, g, e)));
                        p[j] = logit * static_cast<C>(c.scale) +
                               static_cast<C>(c.bias(h, at, place, j));
                        if (p[j] > most) most = p[j];
                    }
                    for (index_t j = seen.begin; j < seen.end; ++j)
                        detail::add_in_order(sum, p[j] = std::exp(p[j] - most));
                    for (index_t e = 0; e < c.v.extent(2); ++e) {
                        C out = 0;
                        for (index_t j = seen.begin; j < seen.end; ++j)
                            detail::add_in_order(out, p[j] * static_cast<C>(c.v(at + j, g, e)));
                        c.out(row, h, e) = static_cast<T>(seen.size() > 0 ? out / sum : C(0));
                    }
                    if (!scored || i < counted.begin || i >= counted.end) continue;
                    const C weight = c.weight(row, seen.size()) / sum;
                    for (index_t j = seen.begin; j < seen.end; ++j)
                        sums[j] = c.together(sums[j], static_cast<double>(p[j] * weight));
                }
                if (!shared) continue;
                constexpr index_t rows = detail::shares_of_head;
                for (index_t j = 0; j < n; ++j)
                    for (index_t r = 0; r < rows; ++r)
                        c.shares(h * rows + r, at + j) = r == 0 ? static_cast<C>(sums[j]) : C(0);
            }
        });
    }

    /// What keys receive, from queries, keys and log-sum-exp rows; see scores_call.
    template <class T, class K, class L, class Sequences>
    void attention_scores(const detail::scores_call<T, K, L, Sequences>& c, workspace&) const {
        using C = compute_t<T>;
        const index_t heads_of_row = c.heads() / c.received.extent(0);
        this->executor().run(c.sequences, [&](index_t s, index_t) {
            const index_t at = c.key_begin(s), n = c.keys(s), queries = c.queries(s);
            if (n == 0) return;
            const auto q = c.queries_of(s);
            const auto k = c.keys_of(s);
            const detail::index_range counted = detail::counted(c.counted, queries);
            for (index_t row = 0; row < c.received.extent(0); ++row)
                std::fill_n(&c.received(row, at), n, 0.0);
            for (index_t h = 0; h < c.heads(); ++h)
                for (index_t i = counted.begin; i < counted.end; ++i) {
                    const detail::index_range seen = detail::visible_keys(c.mask, i, queries, n);
                    const index_t g = c.group(h), place = detail::place_of_query(c.where(), s, i);
                    const C shift = c.shift(s, i, h), factor = c.factor(s, i, h, seen.size());
                    for (index_t j = seen.begin; j < seen.end; ++j) {
                        C logit = 0;
                        for (index_t e = 0; e < q.extent(2); ++e)
                            detail::add_in_order(logit, static_cast<C>(q(i, h, e)) *
                                                            static_cast<C>(k(j, g, e)));
                        logit = logit * static_cast<C>(c.scale) +
                                static_cast<C>(c.bias(h, at, place, j));
                        double& sum = c.received(h / heads_of_row, at + j);
                        sum =
                            c.together(sum, static_cast<double>(std::exp(logit - shift) * factor));
                    }
                }
        });
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
