// The reference policy: plain loops, any element type, any strides. It is also the list of
// primitives that a backend provides; a backend that derives from it replaces those that it does
// better.
#pragma once

#include "../core/attention_calls.hpp"
#include "../core/error.hpp"
#include "../core/executor.hpp"
#include "../core/fast_math.hpp"
#include "../core/ops.hpp"
#include "../core/view.hpp"
#include "../core/workspace.hpp"
#include "kernels/merge.hpp"
#include "kernels/select.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
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

/// The first of some i for which f(i) holds, or their end.
template <class F>
index_t first_of(const index_range& some, const F& f) {
    constexpr index_t block = 64; // without a way out, so that it is made in registers
    index_t i = some.begin;
    for (bool any = false; i + block <= some.end && !any; i += any ? 0 : block)
        for (index_t j = i; j < i + block; ++j) any |= f(j);
    while (i < some.end && !f(i)) ++i;
    return i;
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

} // namespace detail

/// Plain loops, in tasks of an executor.
template <class Executor = serial>
class sequential {
  public:
    constexpr sequential() = default;
    constexpr explicit sequential(Executor e) : executor_(e) {}

    const Executor& executor() const { return executor_; }

    // Primitives.

    /// Whether views and pointers are of memory that the host reads and writes.
    static constexpr bool on_host = true;

    /// Memory for `count` elements that primitives read and write, uninitialised, valid as long as
    /// what is returned; its data() is the first one. Here it is the workspace's.
    template <class T>
    auto temporary(workspace& scratch, index_t count) const {
        struct block {
            T* first;
            T* data() const { return first; }
        };
        return block{scratch.template get<T>(count)};
    }
    /// What is at p in the policy's memory.
    template <class T>
    T read(const T* p) const {
        return *p;
    }

    /// The first i < n for which f(i) holds, or -1; f is asked about others, too. A check: every part
    /// of a call makes all of it.
    template <class F>
    index_t first(index_t n, const F& f) const {
        constexpr index_t piece = 4096;
        if (n <= piece) {
            const index_t i = detail::first_of({0, n}, f);
            return i < n ? i : -1;
        }
        std::atomic<index_t> found{n};
        detail::run_all(executor_, (n + piece - 1) / piece, [&](index_t task, index_t) {
            const index_t begin = task * piece, end = std::min(n, begin + piece);
            index_t before = found;
            if (before <= begin) return;
            const index_t i = detail::first_of({begin, end}, f);
            while (i < end && i < before && !found.compare_exchange_weak(before, i)) {
            }
        });
        return found < n ? found.load() : -1;
    }
    /// The sum of the integers f(i), i < n. Every part of a call makes all of it.
    template <class F>
    index_t sum(index_t n, const F& f) const {
        index_t total = 0;
        for (index_t i = 0; i < n; ++i) total += f(i);
        return total;
    }
    /// The sum of f(s, begin, end) over pieces begin <= i < end of segments s, offsets[s] <= begin,
    /// end <= offsets[s + 1], that make up all `rows` rows. Of a part of a call: over those that it
    /// makes.
    template <class Offset, class F>
    double sum_segments(const Offset* offsets, index_t segments, index_t rows, const F& f) const {
        return sum_of_pieces(rows, [=](index_t begin, index_t end) {
            double total = 0;
            for (index_t s = detail::segment_of(offsets, segments, begin); begin < end; ++s) {
                const index_t stop = std::min(end, static_cast<index_t>(offsets[s + 1]));
                if (begin < stop) total += f(s, begin, stop);
                begin = stop;
            }
            return total;
        });
    }

    /// out[s, u] = sum of op(x[t, c], ...) over the rows t of segment s, offsets[s] <= t <
    /// offsets[s + 1], and the `unit` columns c of unit u. Shapes: x [rows x units * unit], out
    /// [segments x units]. Partial sums of at most 256 rows in compute_t<T>, their total in double.
    template <class Op, class Offsets, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offsets& offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        using C = compute_t<T>;
        const index_t units = out.extent(1);
        executor_.run(out.extent(0) * units, [=](index_t task, index_t) {
            const index_t s = task / units, u = task % units;
            double total = 0;
            for (index_t t0 = offsets[s]; t0 < static_cast<index_t>(offsets[s + 1]);
                 t0 += row_block) {
                const index_t t1 = block_end(t0, static_cast<index_t>(offsets[s + 1]));
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
        executor_.run(g.extent(0), [=](index_t i, index_t) {
            const index_t columns = lower ? i + 1 : g.extent(1);
            for (index_t j = 0; j < columns; ++j)
                for (index_t t0 = 0; t0 < x.extent(0); t0 += row_block) {
                    const index_t t1 = block_end(t0, x.extent(0));
                    double sum = 0;
                    for (index_t t = t0; t < t1; ++t)
                        detail::add_in_order(sum, static_cast<double>(static_cast<C>(x(t, i))) *
                                                      static_cast<double>(static_cast<C>(y(t, j))));
                    g(i, j) += static_cast<Acc>(alpha * sum);
                }
        });
    }

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
                    for (index_t q0 = q.begin; q0 < q.end; q0 += row_block) {
                        C sum = 0;
                        for (index_t i = q0; i < block_end(q0, q.end); ++i) {
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
        const auto by = [](const auto& e) { return sequential<std::decay_t<decltype(e)>>(e); };
        detail::key_sums_packed(executor_, by, p, heads, offsets, sequences, mask, counted, sums);
    }

    /// f(b, keys) for the keys of each sequence b that a task of key_sums sums up: in a part of a call,
    /// for those that are that part's.
    template <class F>
    void for_key_blocks(index_t sequences, index_t room, const F& f) const {
        const detail::key_blocks blocks(executor_, sequences, room);
        executor_.run(blocks.tasks(),
                      [&](index_t task, index_t) { f(blocks.sequence(task), blocks.keys(task)); });
    }

    /// The adjoint: p[b, h, q, k] += row[b, k] for the same elements.
    template <class T, class Batch>
    void add_to_keys(view<const T, 2> row, const Batch& batch, const attention_mask& mask,
                     const counted_queries& counted, view<T, 4> p) const {
        using C = compute_t<T>;
        const index_t heads = p.extent(1);
        executor_.run(p.extent(0) * heads, [=](index_t task, index_t) {
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
        detail::run_all(executor_, x.extent(0), [=](index_t b, index_t) {
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
        detail::run_all(executor_, where.sequences * rows, [=](index_t task, index_t) {
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
        executor_.run(x.extent(0) * sequences, [=](index_t task, index_t) {
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
        C* const memory = scratch.template get<C>(executor_.concurrency() * longest);
        double* const of_head =
            scratch.inner().template get<double>(shared ? executor_.concurrency() * longest : 0);
        executor_.run(c.sequences, [&, memory, of_head](index_t s, index_t slot) {
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
        executor_.run(c.sequences, [&](index_t s, index_t) {
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

    /// The first i with the smallest x[i] - y[i], if that is less than `below`, or -1.
    template <class T>
    index_t argmin_difference(index_t n, const T* x, const T* y, T below) const {
        index_t best = -1;
        for (index_t i = 0; i < n; ++i)
            if (x[i] - y[i] < below) {
                below = x[i] - y[i];
                best = i;
            }
        return best;
    }

    /// values += drop - add, scores += drop - add; all of length n.
    template <class T>
    void exchange(index_t n, double* values, T* scores, const T* add, const T* drop) const {
        for (index_t i = 0; i < n; ++i) {
            const double change = static_cast<double>(drop[i]) - static_cast<double>(add[i]);
            values[i] += change;
            scores[i] += static_cast<T>(change);
        }
    }

    /// The first i for which x[i] is NaN, or -1. A check: every part of a call makes all of it.
    template <class T>
    index_t first_nan(view<const T, 1> x) const {
        for (index_t i = 0; i < x.extent(0); ++i)
            if (detail::is_nan(static_cast<compute_t<T>>(x(i)))) return i;
        return -1;
    }

    /// out[i] = op(in[i], ...), computed in compute_t<Out>. `out` may be one of the inputs.
    template <class Op, class Out, class... Ts>
    void transform(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        using C = compute_t<Out>;
        executor_.run(stretches(out.extent(0)), [=](index_t task, index_t) {
            const index_t end = std::min(out.extent(0), (task + 1) * stretch);
            for (index_t i = task * stretch; i < end; ++i)
                out(i) = static_cast<Out>(op(detail::opaque(static_cast<C>(in(i)))...));
        });
    }

    /// The same, and the sum of what was written: partial sums of at most 256 numbers in
    /// compute_t<Out>, their total in double. Of a part of a call: the sum of what that part wrote.
    template <class Op, class Out, class... Ts>
    double transform_sum(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        using C = compute_t<Out>;
        return sum_of_pieces(out.extent(0), [=](index_t begin, index_t end) {
            double total = 0;
            for (index_t i = begin; i < end;) {
                const index_t stop = block_end(i, end);
                C sum = 0;
                for (; i < stop; ++i) {
                    const C value = op(static_cast<C>(in(i))...);
                    out(i) = static_cast<Out>(value);
                    detail::add_in_order(sum, value);
                }
                detail::add_in_order(total, static_cast<double>(sum));
            }
            return total;
        });
    }

    /// y[i, :] = scales[i] * x[i, :]. `y` may be `x`.
    template <class T>
    void scale_rows(view<const T, 1> scales, view<const T, 2> x, view<T, 2> y) const {
        using C = compute_t<T>;
        executor_.run(x.extent(0), [=](index_t i, index_t) {
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
        executor_.run(x.extent(0), [=](index_t i, index_t) {
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
        executor_.run(x.extent(0), [=](index_t i, index_t) {
            const C scale = static_cast<C>(scales(i));
            double total = 0;
            for (index_t j = 0; j < x.extent(1);) {
                const index_t end = block_end(j, x.extent(1));
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
        executor_.run(1, [&](index_t, index_t) {
            kept = detail::select(keep, always, scores, offsets, segments, index, kept_offsets);
        });
        // Another part of the call has written them.
        return kept < 0 ? count_selected(keep, always, offsets, segments) : kept;
    }

    /// The min(counts(s), size) first positions of each segment s by the order before(i, j,
    /// the segment), strict and total, in ascending order. kept_offsets [segments + 1] may be
    /// `offsets`.
    template <class Before, class Counts, class Offset, class Index, class KeptOffset>
    void select_first(const Before& before, const Counts& counts, const Offset* offsets,
                      index_t segments, [[maybe_unused]] index_t tokens, Index* index,
                      KeptOffset* kept_offsets) const {
        executor_.run(1, [=](index_t, index_t) {
            detail::select_first(before, counts, offsets, segments, index, kept_offsets);
        });
    }

    /// out[i, :] = in[rows[i], :]. Where rows ascend, `out` may start where `in` does, with the
    /// same strides, or with contiguous rows that are closer together.
    template <class T, class Index>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        detail::copy_rows(
            executor_, out.extent(0), in, [=](index_t i) { return static_cast<index_t>(rows[i]); },
            out, [](index_t i) { return i; });
    }

    /// out[rows[i], :] = in[i, :]; the other rows of `out` stay. Rows ascend, memory does not
    /// overlap.
    template <class T, class Index>
    void scatter_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        detail::copy_rows(
            executor_, in.extent(0), in, [](index_t i) { return i; }, out,
            [=](index_t i) { return static_cast<index_t>(rows[i]); });
    }

    /// out[:, j] = in[:, columns[j]]. `out` may be `in` itself where columns ascend.
    template <class T, class Index>
    void gather_columns(view<const T, 2> in, const Index* columns, view<T, 2> out) const {
        detail::run_copying<T>(executor_, out.extent(0), [=](index_t i, index_t) {
            for (index_t j = 0; j < out.extent(1); ++j)
                out(i, j) = in(i, static_cast<index_t>(columns[j]));
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
    static constexpr index_t row_block = 256;
    /// Where a block from `begin` on, of what ends at `end`, ends. begin + row_block might be beyond
    /// all numbers, which g++ -O3 warns of.
    static constexpr index_t block_end(index_t begin, index_t end) {
        return begin + std::min(row_block, end - begin);
    }
    static constexpr index_t stretch = 4096; // numbers that one task transforms

    static index_t stretches(index_t n) { return (n + stretch - 1) / stretch; }

    template <class Product, class T, class Offset, class Index, class Nearest>
    void nearest_rows_by(const Product& product, view<const T, 2> keys, const Offset* offsets,
                         index_t sequences, const Index* index, index_t count, compute_t<T>* memory,
                         view<Nearest, 1> nearest, view<T, 1> similarity) const {
        constexpr index_t some = 16; // tokens of a task
        const index_t tokens = keys.extent(0), size = keys.extent(1);
        const auto for_tokens = [&](const auto& f) {
            executor_.run((tokens + some - 1) / some, [&](index_t task, index_t) {
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
        executor_.run(out.extent(0), [=](index_t i, index_t) {
            for (index_t c = 0; c < out.extent(1); c += most)
                detail::mean_of_parts<most>(add_share, in, weights, parts, starts, i,
                                            {c, std::min(out.extent(1), c + most)}, out);
        });
    }

    /// The sum of sum(begin, end) over pieces of 0 ... n, the same pieces for any number of
    /// threads.
    template <class Sum>
    double sum_of_pieces(index_t n, const Sum& sum) const {
        constexpr index_t most = 64;
        double sums[most] = {};
        const index_t pieces = std::min(most, stretches(n));
        executor_.run(pieces, [&](index_t piece, index_t) {
            sums[piece] = sum(n * piece / pieces, n * (piece + 1) / pieces);
        });
        double total = 0;
        for (index_t piece = 0; piece < pieces; ++piece) total += sums[piece];
        return total;
    }

  private:
    Executor executor_;
};

/// Plain loops on the calling thread.
inline constexpr sequential<> seq{};

} // namespace PARE_ISA
} // namespace pare
