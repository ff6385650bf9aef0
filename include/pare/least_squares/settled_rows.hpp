// The rows of a call of least_squares, less a shift that is near the mean of all rows so far.
#pragma once

#include "../core/fast_math.hpp"
#include "../core/ops.hpp"
#include "../core/view.hpp"
#include "../core/workspace.hpp"
#include "../gram.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Of x or y: what rows are less, and the sums of what is left and of its squares, by weight.
struct shifted_sums {
    std::vector<double> shift, sums, squares;

    shifted_sums() = default;
    explicit shifted_sums(index_t columns)
        : shift(static_cast<std::size_t>(columns), 0.0), sums(shift), squares(shift) {}

    index_t columns() const { return static_cast<index_t>(shift.size()); }

    /// The same of rows of so much weight less another shift.
    shifted_sums moved(const std::vector<double>& to, double weight) const {
        shifted_sums other = *this;
        for (std::size_t j = 0; j < to.size(); ++j) {
            const double less = shift[j] - to[j];
            other.squares[j] += less * (2 * sums[j] + weight * less);
            other.sums[j] += weight * less;
        }
        other.shift = to;
        return other;
    }
    void add(const double* more_squares, const double* more_sums) {
        for (std::size_t j = 0; j < sums.size(); ++j) {
            squares[j] += more_squares[j];
            sums[j] += more_sums[j];
        }
    }
    void add(const shifted_sums& more) { add(more.squares.data(), more.sums.data()); }

    /// Whether a column's mean is more than four deviations away from the shift, so that squares
    /// have lost digits.
    bool is_off(double weight) const {
        for (std::size_t j = 0; j < sums.size(); ++j) {
            const double mean = sums[j] / weight;
            if (17 * mean * mean > 16 * (squares[j] / weight)) return true;
        }
        return false;
    }
};

/// To the nearest numbers of C that are finite.
template <class C>
std::vector<double> rounded_to(std::vector<double> shift) {
    constexpr double most = static_cast<double>(std::numeric_limits<C>::max());
    for (double& x : shift)
        x = static_cast<double>(opaque(static_cast<C>(std::clamp(x, -most, most))));
    return shift;
}
/// The shift that is nearest to the mean of rows with these sums less another shift.
template <class C>
std::vector<double> nearest_shift(std::vector<double> shift, const double* sums, double weight) {
    for (std::size_t j = 0; j < shift.size(); ++j)
        shift[j] = nearest_finite(shift[j] + sums[j] / weight);
    return rounded_to<C>(std::move(shift));
}

template <class C>
struct is_positive {
    const C* numbers;
    constexpr bool operator()(index_t t) const { return numbers[t] > 0; }
};

/// Numbers that go to the policy's memory as part of a kernel: nobody waits for a copy.
template <class C>
struct set_numbers {
    static constexpr index_t most = 3072 / sizeof(C); // CUDA's kernels take 4 KB
    C numbers[static_cast<std::size_t>(most)];
    C* to;
    constexpr void operator()(index_t i) const { to[i] = numbers[i]; }
};

/// Rows first <= t < first + count.
template <class T>
view<const T, 2> some_rows(view<const T, 2> x, index_t first, index_t count) {
    return {x.address(first, 0), {count, x.extent(1)}, {x.stride(0), x.stride(1)}};
}
template <class T>
view<const T, 1> some_rows(view<const T, 1> x, index_t first, index_t count) {
    return {x.address(first), {count}, {x.stride(0)}};
}

/// Rows less a shift, times the roots of their weights.
template <class Policy, class T>
class shifted_rows {
    using C = compute_t<T>;

  public:
    /// `roots` is a null view where all weights are 1. Memory, the policy's: `most` rows of C.
    shifted_rows(const Policy& policy, view<const T, 2> x, view<const C, 1> roots, index_t most)
        : policy_(policy), x_(x), roots_(roots),
          memory_(policy.template temporary<C>(scratch_, (most + 1) * x.extent(1))),
          rows_(memory_.data()), shift_(memory_.data() + most * x.extent(1)) {}

    void set_shift(const std::vector<double>& shift) {
        there_ = 0;
        const index_t columns = x_.extent(1);
        if constexpr (Policy::on_host) {
            for (index_t c = 0; c < columns; ++c)
                shift_[c] = static_cast<C>(shift[static_cast<std::size_t>(c)]);
        } else {
            set_numbers<C> some{};
            for (index_t c = 0; c < columns; c += some.most) {
                const index_t count = std::min(some.most, columns - c);
                for (index_t i = 0; i < count; ++i)
                    some.numbers[i] = static_cast<C>(shift[static_cast<std::size_t>(c + i)]);
                some.to = shift_ + c;
                policy_.for_each(count, some);
            }
        }
    }
    /// Rows first <= t < first + count, count > 0; valid until another call.
    view<const C, 2> get(index_t first, index_t count) {
        const view<C, 2> to(rows_, count, x_.extent(1));
        if (first != first_ || count != there_)
            policy_.centre_rows(some_rows(roots_, first, count), some_rows(x_, first, count),
                                view<const C, 1>(shift_, x_.extent(1)), to);
        first_ = first;
        there_ = count;
        return to;
    }
    /// sums[c] = the sums of what get() gives, each row by its weight.
    void sum_up(index_t first, index_t count, double* sums) {
        const view<const C, 2> rows = get(first, count);
        if (roots_.data_handle()) {
            there_ = 0; // they are scaled in place
            policy_.scale_rows(some_rows(roots_, first, count), rows,
                               view<C, 2>(rows_, count, x_.extent(1)));
        }
        sum_columns(policy_, ops::identity{}, sums, rows);
    }

  private:
    const Policy& policy_;
    view<const T, 2> x_;
    view<const C, 1> roots_;
    workspace scratch_; // not kept: there may be an accumulator for each layer
    decltype(std::declval<const Policy&>().template temporary<C>(std::declval<workspace&>(),
                                                                 index_t{})) memory_;
    C *rows_, *shift_;
    index_t first_ = 0, there_ = 0; // which rows are in memory
};

/// The rows of a call for two sides, x and y, and what they add to each: less the shift from before
/// where that is near the mean of all rows. On a GPU it waits once for the sums of both sides, once or
/// twice more where a shift is off, and twice to find the first one.
template <class Policy, class T>
class settled_rows {
    using C = compute_t<T>;

  public:
    struct side {
        const char* name;
        const shifted_sums& before;
        shifted_sums sums; ///< of the call, and their shift
        shifted_rows<Policy, T> rows;
        index_t at; ///< where the sums of squares and then of rows are among the numbers of both
        bool settled = false;
    };
    side x, y;

    /// `roots` of the rows' weights, or a null view. Rows are looked at `chunk` at a time, on a GPU all;
    /// the rows before weigh `weight_before`. Throws value_error for numbers that are not finite, of x
    /// first.
    settled_rows(const Policy& policy, view<const T, 2> of_x, view<const T, 2> of_y,
                 view<const C, 1> roots, index_t chunk, const shifted_sums& x_before,
                 const shifted_sums& y_before, double weight_before)
        : x{"x", x_before, shifted_sums(of_x.extent(1)), {policy, of_x, roots, chunk}, 1},
          y{"y",
            y_before,
            shifted_sums(of_y.extent(1)),
            {policy, of_y, roots, chunk},
            1 + 2 * of_x.extent(1)},
          policy_(policy), roots_(roots), count_(of_x.extent(0)), chunk_(chunk),
          numbers_(policy, 1 + 2 * (of_x.extent(1) + of_y.extent(1))) {
        for (side* s : {&x, &y}) s->sums.shift = rounded_to<C>(s->before.shift);
        if (!(weight_before > 0)) find_first_shift();
        sum_weights(0, count_);
        measure();
        weight_ = weight_of(count_);
        const double weight = weight_before + weight_;
        // Twice, so that of a constant column nothing is left: the mean of what the first mean, which
        // is rounded, leaves is next to nothing, and so is its rounding.
        for (int i = 0; i < 2 && weight > 0; ++i) {
            for (side* s : {&x, &y}) {
                if (s->settled) continue;
                shifted_sums both = s->before.moved(s->sums.shift, weight_before);
                both.add(s->sums);
                if (both.is_off(weight))
                    s->sums.shift = nearest_shift<C>(both.shift, both.sums.data(), weight);
                else
                    s->settled = true;
            }
            if (x.settled && y.settled) break;
            measure();
        }
    }

    /// Of all rows.
    double weight() const { return weight_; }

  private:
    /// Queues the sum of the weights of some rows.
    void sum_weights(index_t first, index_t count) {
        if (roots_.data_handle())
            sum_columns(policy_, ops::square{}, numbers_.there(),
                        view<const C, 2>(roots_.data_handle() + first, count, index_t{1}));
    }
    /// That sum, once the numbers are here.
    double weight_of(index_t count) const {
        return roots_.data_handle() ? numbers_.last()[0] : static_cast<double>(count);
    }

    /// The mean of the first rows that count, found twice as well.
    void find_first_shift() {
        index_t first = 0;
        if (roots_.data_handle())
            first =
                std::max<index_t>(0, policy_.first(count_, is_positive<C>{roots_.data_handle()}));
        const index_t count = std::min(chunk_, count_ - first);
        sum_weights(first, count);
        for (int i = 0; i < 2; ++i) {
            for (side* s : {&x, &y}) {
                s->rows.set_shift(s->sums.shift);
                s->rows.sum_up(first, count, numbers_.there() + s->at + s->sums.columns());
            }
            const double* const here = numbers_.fetch();
            const double weight = weight_of(count);
            if (!(weight > 0)) return;
            for (side* s : {&x, &y}) {
                const double* const sums = here + s->at + s->sums.columns();
                s->sums.shift = nearest_shift<C>(std::move(s->sums.shift), sums, weight);
            }
        }
    }

    /// The sums of sides whose shift is not settled.
    void measure() {
        for (side* s : {&x, &y}) {
            if (s->settled) continue;
            std::fill(s->sums.sums.begin(), s->sums.sums.end(), 0.0);
            std::fill(s->sums.squares.begin(), s->sums.squares.end(), 0.0);
            s->rows.set_shift(s->sums.shift);
            for (index_t t = 0; t < count_; t += chunk_) {
                const index_t count = std::min(chunk_, count_ - t);
                double* const to = numbers_.there() + s->at;
                sum_columns(policy_, ops::square{}, to, s->rows.get(t, count));
                s->rows.sum_up(t, count, to + s->sums.columns());
                if constexpr (Policy::on_host) add(*s, count);
            }
        }
        if constexpr (!Policy::on_host) {
            numbers_.fetch();
            for (side* s : {&x, &y})
                if (!s->settled) add(*s, count_);
        }
    }
    void add(side& s, index_t rows) const {
        const double* const squares = numbers_.last() + s.at;
        check_squares<C>("least_squares", squares, s.sums.columns(), rows, s.name);
        s.sums.add(squares, squares + s.sums.columns());
    }

    const Policy& policy_;
    view<const C, 1> roots_;
    index_t count_, chunk_;
    fetched_numbers<Policy> numbers_; // the rows' weight, and the sums of both sides
    double weight_ = 0;
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
