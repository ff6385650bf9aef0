// Plain loops over numbers, in tasks of an executor: what the reference policy is made of.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/error.hpp"
#include "../../core/executor.hpp"
#include "../../core/fast_math.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"

#include <algorithm>
#include <atomic>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

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

/// Primitives of numbers one after another, and what those of rows share.
template <class Executor>
class number_loops {
  public:
    constexpr number_loops() = default;
    constexpr explicit number_loops(Executor e) : executor_(e) {}

    const Executor& executor() const { return executor_; }

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

  protected:
    static constexpr index_t row_block = 256;
    /// Where a block from `begin` on, of what ends at `end`, ends. begin + row_block might be beyond
    /// all numbers, which g++ -O3 warns of.
    static constexpr index_t block_end(index_t begin, index_t end) {
        return begin + std::min(row_block, end - begin);
    }
    static constexpr index_t stretch = 4096; // numbers that one task transforms

    static index_t stretches(index_t n) { return (n + stretch - 1) / stretch; }

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

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
