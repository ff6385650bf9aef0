// The reference policy: plain loops, any element type, any strides. It is also the list of
// primitives that a backend provides; a backend that derives from it replaces those that it does
// better.
#pragma once

#include "../core/attention.hpp"
#include "../core/executor.hpp"
#include "../core/ops.hpp"
#include "../core/view.hpp"
#include "../core/workspace.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace pare {
inline namespace PARE_ISA {

/// The type that sums over elements of type T are made in. Specialise for a half type of your own,
/// which must convert by static_cast.
template <class T>
struct compute {
    using type = float;
};
template <>
struct compute<double> {
    using type = double;
};
template <class T>
using compute_t = typename compute<T>::type;

template <class Executor = serial>
class sequential {
  public:
    constexpr sequential() = default;
    constexpr explicit sequential(Executor e) : executor_(e) {}

    const Executor& executor() const { return executor_; }

    /// out[s, u] = sum of op(x[t, c], ...) over the rows t of segment s, offsets[s] <= t <
    /// offsets[s + 1], and the `unit` columns c of unit u. Shapes: x [rows x units * unit], out
    /// [segments x units]. Partial sums of at most 256 rows in compute_t<T>, their total in double.
    template <class Op, class Offset, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offset* offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        using C = compute_t<T>;
        const index_t units = out.extent(1);
        executor_.run(out.extent(0) * units, [=](index_t task, index_t) {
            const index_t s = task / units, u = task % units;
            double total = 0;
            for (index_t t0 = offsets[s]; t0 < static_cast<index_t>(offsets[s + 1]);
                 t0 += row_block) {
                const index_t t1 = std::min<index_t>(t0 + row_block, offsets[s + 1]);
                C sum = 0;
                for (index_t t = t0; t < t1; ++t)
                    for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                        sum += op(static_cast<C>(x(t, c)), static_cast<C>(others(t, c))...);
                total += static_cast<double>(sum);
            }
            out(s, u) = static_cast<Out>(total);
        });
    }

    /// g[i, j] += alpha * sum over rows t of x[t, i] * y[t, j]; only j <= i if `lower` (then x and
    /// y have the same number of columns). Sums of at most 2,048 rows are made in compute_t<T>,
    /// from partial ones of at most 256, totals in Acc.
    template <class T, class Acc>
    void gram(double alpha, view<const T, 2> x, view<const T, 2> y, view<Acc, 2> g, bool lower,
              workspace&) const {
        using C = compute_t<T>;
        executor_.run(g.extent(0), [=](index_t i, index_t) {
            const index_t columns = lower ? i + 1 : g.extent(1);
            for (index_t j = 0; j < columns; ++j)
                for (index_t t0 = 0; t0 < x.extent(0); t0 += row_block) {
                    const index_t t1 = std::min(t0 + row_block, x.extent(0));
                    C sum = 0;
                    for (index_t t = t0; t < t1; ++t)
                        sum += static_cast<C>(x(t, i)) * static_cast<C>(y(t, j));
                    g(i, j) += static_cast<Acc>(alpha * static_cast<double>(sum));
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
        executor_.run(p.extent(0), [=](index_t b, index_t) {
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const detail::index_range q = detail::counted(counted, queries);
            for (index_t k = 0; k < keys; ++k) {
                double total = 0;
                for (index_t h = 0; h < p.extent(1); ++h)
                    for (index_t q0 = q.begin; q0 < q.end; q0 += row_block) {
                        C sum = 0;
                        for (index_t i = q0; i < std::min(q0 + row_block, q.end); ++i) {
                            const auto seen = detail::visible_keys(mask, i, queries, keys);
                            if (k >= seen.begin && k < seen.end)
                                sum += static_cast<C>(p(b, h, i, k));
                        }
                        total += static_cast<double>(sum);
                    }
                sums(b, k) = total;
            }
        });
    }

    /// The adjoint: p[b, h, q, k] += row[b, k] for the same elements.
    template <class T, class Batch>
    void add_to_keys(view<const T, 2> row, const Batch& batch, const attention_mask& mask,
                     const counted_queries& counted, view<T, 4> p) const {
        const index_t heads = p.extent(1);
        executor_.run(p.extent(0) * heads, [=](index_t task, index_t) {
            const index_t b = task / heads, h = task % heads, queries = batch.queries(b);
            const detail::index_range q = detail::counted(counted, queries);
            for (index_t i = q.begin; i < q.end; ++i) {
                const auto seen = detail::visible_keys(mask, i, queries, batch.keys(b));
                for (index_t k = seen.begin; k < seen.end; ++k) p(b, h, i, k) += row(b, k);
            }
        });
    }

    /// Softmax attention; see attention_call. Logits, exponentials and products in compute_t<T>.
    template <class T, class Offset>
    void attention(const detail::attention_call<T, Offset>& c, workspace& scratch) const {
        using C = compute_t<T>;
        const index_t longest = c.longest();
        C* const memory = scratch.template get<C>(executor_.concurrency() * longest);
        executor_.run(c.sequences, [&, memory](index_t s, index_t slot) {
            C* const p = memory + slot * longest; // probabilities of one query
            const index_t at = c.begin(s), n = c.length(s);
            const detail::index_range counted = detail::counted(c.counted, n);
            for (index_t j = 0; j < n && c.received.extent(0) > 0; ++j) c.received(at + j) = 0;
            for (index_t h = 0; h < c.heads(); ++h)
                for (index_t i = 0; i < n; ++i) {
                    const detail::index_range seen = detail::visible_keys(c.mask, i, n, n);
                    const index_t g = c.group(h);
                    C most = std::numeric_limits<C>::lowest(), sum = 0;
                    for (index_t j = seen.begin; j < seen.end; ++j) {
                        C logit = 0;
                        for (index_t e = 0; e < c.q.extent(2); ++e)
                            logit += static_cast<C>(c.q(at + i, h, e)) *
                                     static_cast<C>(c.k(at + j, g, e));
                        p[j] =
                            logit * static_cast<C>(c.scale) + static_cast<C>(c.bias(h, at, i, j));
                        if (!(p[j] <= most)) most = p[j]; // NaN too
                    }
                    for (index_t j = seen.begin; j < seen.end; ++j)
                        sum += p[j] = std::exp(p[j] - most);
                    for (index_t e = 0; e < c.v.extent(2); ++e) {
                        C out = 0;
                        for (index_t j = seen.begin; j < seen.end; ++j)
                            out += p[j] * static_cast<C>(c.v(at + j, g, e));
                        c.out(at + i, h, e) = static_cast<T>(out / sum);
                    }
                    if (c.received.extent(0) == 0 || i < counted.begin || i >= counted.end)
                        continue;
                    for (index_t j = seen.begin; j < seen.end; ++j)
                        c.received(at + j) += static_cast<double>(p[j] / sum);
                }
        });
    }

    /// The first i with the smallest x[i] - y[i]; n > 0.
    template <class T>
    index_t argmin_difference(index_t n, const T* x, const T* y) const {
        index_t best = 0;
        for (index_t i = 1; i < n; ++i)
            if (x[i] - y[i] < x[best] - y[best]) best = i;
        return best;
    }

    /// values += drop - add, scores += drop - add; all of length n.
    template <class T>
    void exchange(index_t n, T* values, T* scores, const T* add, const T* drop) const {
        for (index_t i = 0; i < n; ++i) {
            values[i] += drop[i] - add[i];
            scores[i] += drop[i] - add[i];
        }
    }

    /// out[i, :] = in[rows[i], :]. `out` may be `in` itself where rows ascend and the executor is
    /// serial.
    template <class T, class Index>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        const index_t columns = in.extent(1);
        const bool contiguous = in.stride(1) == 1 && out.stride(1) == 1;
        executor_.run(out.extent(0), [=](index_t i, index_t) {
            const index_t from = static_cast<index_t>(rows[i]);
            if (contiguous) {
                if (columns > 0)
                    std::memmove(&out(i, 0), &in(from, 0),
                                 static_cast<std::size_t>(columns) * sizeof(T));
            } else {
                for (index_t j = 0; j < columns; ++j) out(i, j) = in(from, j);
            }
        });
    }

    /// out[:, j] = in[:, columns[j]]. `out` may be `in` itself where columns ascend.
    template <class T, class Index>
    void gather_columns(view<const T, 2> in, const Index* columns, view<T, 2> out) const {
        executor_.run(out.extent(0), [=](index_t i, index_t) {
            for (index_t j = 0; j < out.extent(1); ++j)
                out(i, j) = in(i, static_cast<index_t>(columns[j]));
        });
    }

  protected:
    static constexpr index_t row_block = 256;

  private:
    Executor executor_;
};

/// Plain loops on the calling thread.
inline constexpr sequential<> seq{};

} // namespace PARE_ISA
} // namespace pare
