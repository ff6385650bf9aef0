// Gram matrices of rows in a Thrust policy's memory.
#pragma once

#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"

#include <algorithm>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

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

/// The centre of each column and the sum of what is left of it, in the host's memory.
struct moments_about_centre {
    std::vector<double> centre, sum;
};
template <class Policy, class T>
moments_about_centre sum_about_centre(const Policy& policy, view<const T, 2> x,
                                      const compute_t<T>* centre) {
    using C = compute_t<T>;
    const index_t rows = x.extent(0), columns = x.extent(1);
    const auto memory = policy.template temporary<double>(2 * columns);
    double* const sums = memory.data();
    with_offsets_of_one(policy, rows, [&](view<index_t, 1> offsets) {
        policy.segment_sums(ops::difference{}, offsets.data_handle(), 1,
                            view<double, 2>(sums, 1, columns), x,
                            view<const C, 2>(centre, {rows, columns}, {0, 1}));
    });
    policy.for_each(columns,
                    [=] PARE_HD(index_t c) { sums[columns + c] = static_cast<double>(centre[c]); });
    const auto size = static_cast<std::size_t>(columns);
    moments_about_centre found{std::vector<double>(size), std::vector<double>(size)};
    policy.copy_to_host(sums, columns, found.sum.data());
    policy.copy_to_host(sums + columns, columns, found.centre.data());
    return found;
}

/// g += alpha x' y, x and y in the policy's memory, g in the host's. Temporary memory there: 12
/// bytes for each element of g and 4 for each element of 2,048 rows of x and y, for rows of float or
/// a half type; here 8 bytes for each element of g.
template <class Policy, class T, class Acc>
void gram_about_centre(const Policy& policy, double alpha, view<const T, 2> x, view<const T, 2> y,
                       view<Acc, 2> g, bool lower, workspace& scratch) {
    using C = compute_t<T>;
    constexpr index_t most = 2048; // rows whose products are summed in C
    const index_t rows = x.extent(0), height = g.extent(0), columns = g.extent(1), n = g.size();
    if (rows == 0 || n == 0) return;
    const bool one = lower && x.data_handle() == y.data_handle();
    const index_t chunk = std::min(rows, most), width = one ? 0 : columns; // of y's own memory
    const auto centres = policy.template temporary<C>(height + width);
    const auto left_memory = policy.template temporary<C>(chunk * height);
    const auto right_memory = policy.template temporary<C>(chunk * width);
    const auto part_memory = policy.template temporary<C>(n);
    const auto sums_memory = policy.template temporary<double>(n);
    C *const centre_x = centres.data(), *const centre_y = one ? centre_x : centre_x + height;
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
            sums[at] = (t == 0 ? 0 : sums[at]) + static_cast<double>(part[at]);
        });
    }
    const auto of_x = sum_about_centre(policy, x, centre_x);
    const auto of_y = one ? of_x : sum_about_centre(policy, y, centre_y);
    double* const here = scratch.get<double>(n);
    policy.copy_to_host(sums, n, here);
    const auto count = static_cast<double>(rows);
    for (index_t i = 0; i < height; ++i) {
        const double centre = of_x.centre[static_cast<std::size_t>(i)];
        const double sum = of_x.sum[static_cast<std::size_t>(i)] + count * centre; // of x itself
        for (index_t j = 0; j < (lower ? i + 1 : columns); ++j) {
            const auto at = static_cast<std::size_t>(j);
            g(i, j) += static_cast<Acc>(
                alpha * (here[i * columns + j] + sum * of_y.centre[at] + centre * of_y.sum[at]));
        }
    }
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
