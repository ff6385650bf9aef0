// Gram matrices of rows in a Thrust policy's memory, and rows less a number a column.
#pragma once

#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"
#include "thrust_rows.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// sequential::centre_rows. A pack of a half type becomes two of float.
template <class T>
struct centre_rows_job {
    using C = compute_t<T>;
    static constexpr int size = pack<T>::size, size_out = pack<C>::size, parts = size / size_out;
    static constexpr int at_once = 4 / parts;
    struct value {
        pack<T> x;
        C scale;
    };

    view<const C, 1> scales; ///< or a null view
    view<const T, 2> x;
    view<const C, 1> shift;
    view<C, 2> y;
    index_t whole;

    PARE_HD index_t last(index_t rows) const { return rows; }
    template <bool Whole>
    PARE_HD void load(index_t i, index_t at, value& to) const {
        to.x = load_pack<Whole>(x.address(i, at * size), x.stride(1), x.extent(1) - at * size);
        to.scale = scales.data_handle() ? scales(i) : C(1);
    }
    template <bool Whole>
    PARE_HD void store(index_t i, index_t at, const value& of) const {
        for (int p = 0; p < parts; ++p) {
            const index_t c = at * size + p * size_out, count = x.extent(1) - c;
            const pack<C> less = load_pack<Whole>(shift.address(c), shift.stride(0), count);
            pack<C> centred;
            for (int e = 0; e < size_out; ++e)
                centred.of[e] = of.scale * (static_cast<C>(of.x.of[p * size_out + e]) - less.of[e]);
            store_pack<Whole>(centred, y.address(i, c), y.stride(1), count);
        }
    }
};

template <class Policy, class T>
void centre_rows_by_blocks(const Policy& policy, view<const compute_t<T>, 1> scales,
                           view<const T, 2> x, view<const compute_t<T>, 1> shift,
                           view<compute_t<T>, 2> y) {
    const bool packed = rows_in_packs(x) && rows_in_packs(shift) && rows_in_packs(y);
    map(policy, x.extent(0), packs_of<T>(x.extent(1)),
        centre_rows_job<T>{scales, x, shift, y, packed ? x.extent(1) / pack<T>::size : 0});
}

/// A number near the mean of each column: that of a few rows from all over them. Products of what
/// differs from it in compute_t<T> are rounded in proportion to how much columns vary. Where there
/// are next to no rows it is 0: it would be they.
template <class Policy, class T>
void find_centre(const Policy& policy, view<const T, 2> x, compute_t<T>* centre) {
    using C = compute_t<T>;
    constexpr index_t most = 32, least = 8;
    const index_t rows = x.extent(0), some = rows < least ? 0 : std::min(rows, most);
    policy.for_each(x.extent(1), [=] PARE_HD(index_t c) {
        double sum = 0;
        for (index_t i = 0; i < some; ++i)
            sum += static_cast<double>(static_cast<C>(x(rows / some * i, c)));
        centre[c] = static_cast<C>(some > 0 ? sum / static_cast<double>(some) : 0);
    });
}

/// g += alpha x' y, all in the policy's memory, without waiting. Temporary memory: 12 bytes for each
/// element of g and 4 for each element of 2,048 rows of x and y, for rows of float or a half type.
/// Where memory ends or a product fails, nothing is added.
template <class Policy, class T, class Acc>
void gram_about_centre(const Policy& policy, double alpha, view<const T, 2> x, view<const T, 2> y,
                       view<Acc, 2> g, bool lower) {
    using C = compute_t<T>;
    constexpr index_t most = 2048; // rows whose products are summed in C
    const index_t rows = x.extent(0), height = g.extent(0), columns = g.extent(1), n = g.size();
    if (rows == 0 || n == 0) return;
    const bool one = lower && x.data_handle() == y.data_handle();
    const index_t chunk = std::min(rows, most), width = one ? 0 : columns; // of y's own memory
    const auto centres = policy.template temporary<C>(height + width);
    const auto column_memory = policy.template temporary<double>(height + width);
    const auto left_memory = policy.template temporary<C>(chunk * height);
    const auto right_memory = policy.template temporary<C>(chunk * width);
    const auto part_memory = policy.template temporary<C>(n);
    const auto sums_memory = policy.template temporary<double>(n);
    C *const centre_x = centres.data(), *const centre_y = one ? centre_x : centre_x + height;
    double* const sum_x = column_memory.data();
    double* const sum_y = one ? sum_x : sum_x + height;
    C *const left = left_memory.data(), *const right = one ? left : right_memory.data();
    C* const part = part_memory.data();
    double* const sums = sums_memory.data();
    find_centre(policy, x, centre_x);
    if (!one) find_centre(policy, y, centre_y);
    const auto move = [&](view<const T, 2> from, const C* centre, index_t t, index_t some, C* to) {
        policy.centre_rows(
            view<const C, 1>(),
            view<const T, 2>(&from(t, 0), {some, from.extent(1)}, {from.stride(0), from.stride(1)}),
            view<const C, 1>(centre, from.extent(1)), view<C, 2>(to, some, from.extent(1)));
    };
    for (index_t t = 0; t < rows; t += chunk) {
        const index_t some = std::min(chunk, rows - t);
        move(x, centre_x, t, some, left);
        if (!one) move(y, centre_y, t, some, right);
        policy.multiply(view<const C, 3>(left, {1, height, some}, {0, 1, height}),
                        view<const C, 3>(right, 1, some, columns),
                        view<C, 3>(part, 1, height, columns));
        policy.for_each(n, [=] PARE_HD(index_t at) {
            if (lower && at % columns > at / columns) return;
            sums[at] = (t == 0 ? 0 : sums[at]) + static_cast<double>(part[at]);
        });
    }
    // What is left of each column when its centre is taken off.
    const auto add_up = [&](view<const T, 2> from, const C* centre, double* to) {
        policy.segment_sums(ops::difference{}, offsets_of_one{rows}, 1,
                            view<double, 2>(to, 1, from.extent(1)), from,
                            view<const C, 2>(centre, {rows, from.extent(1)}, {0, 1}));
    };
    add_up(x, centre_x, sum_x);
    if (!one) add_up(y, centre_y, sum_y);
    policy.for_each(n, [=] PARE_HD(index_t at) {
        const index_t i = at / columns, j = at % columns;
        if (lower && j > i) return;
        const auto of_x = static_cast<double>(centre_x[i]), of_y = static_cast<double>(centre_y[j]);
        const double all = sum_x[i] + static_cast<double>(rows) * of_x; // of x itself
        g(i, j) += static_cast<Acc>(alpha * (sums[at] + all * of_y + of_x * sum_y[j]));
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
