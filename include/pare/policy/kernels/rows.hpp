// Vectors of scores, and rows times a number each.
#pragma once

#include "../../core/fast_math.hpp"
#include "../../core/view.hpp"
#include "exponential.hpp"
#include "halves.hpp"
#include "merge.hpp"
#include "registers.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The sum of all lanes; xsimd renamed it in version 9.
template <class T>
PARE_INLINE T sum_lanes(const batch<T>& x) {
#if XSIMD_VERSION_MAJOR < 9
    return xsimd::hadd(x);
#else
    return xsimd::reduce_add(x);
#endif
}

/// The first of n numbers that is NaN, or -1.
template <class E, class T = compute_t<E>>
index_t first_nan(index_t n, const E* x) {
    using integer = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    using integers = xsimd::batch<integer>;
    constexpr index_t W = lanes<T>, piece = 32 * W;
    constexpr auto infinity = static_cast<integer>(infinity_bits<T>);
    const integers all_but_sign(static_cast<integer>(magnitude_bits<T>));
    for (index_t i = 0; i < n; i += piece) {
        const index_t end = std::min(n, i + piece);
        if (end == i + piece) {
            integers largest(integer(0));
            for (index_t j = i; j < end; j += W)
                largest = xsimd::max(largest, bits_as<integer>(load_wide(x + j)) & all_but_sign);
            integer bits[W];
            largest.store_unaligned(bits);
            if (*std::max_element(bits, bits + W) <= infinity) continue;
        }
        for (index_t j = i; j < end; ++j)
            if (is_nan(static_cast<T>(x[j]))) return j;
    }
    return -1;
}

/// The first `count` numbers at x, fewer than a register has lanes, and zeros.
template <class E, class T = compute_t<E>>
PARE_INLINE batch<T> load_first(const E* x, index_t count) {
    T numbers[lanes<T>] = {};
    for (index_t i = 0; i < count; ++i) numbers[i] = static_cast<T>(x[i]);
    return batch<T>::load_unaligned(numbers);
}

/// out[i] = op(in[i], ...) and, if Sum, the sum of what was written. The last numbers go through
/// registers too, so that each depends only on its inputs and not on its place.
template <bool Sum, class Op, class E, class... In>
double transform_sum(Op op, index_t n, E* out, const In*... in) {
    using T = compute_t<E>;
    using B = batch<T>;
    constexpr index_t W = lanes<T>;
    double total = 0;
    index_t i = 0;
    while (i + W <= n) {
        const index_t end = Sum ? std::min(n, i + 256 * W) : n;
        B sum(T(0));
        for (; i + W <= end; i += W) {
            const B value = op(load_wide(in + i)...);
            store_narrow(value, out + i);
            if constexpr (Sum) add_in_order(sum, value);
        }
        if constexpr (Sum) total += static_cast<double>(sum_lanes(sum));
    }
    if (i < n) {
        T last[W];
        op(load_first(in + i, n - i)...).store_unaligned(last);
        for (index_t l = 0; l < n - i; ++l) {
            out[i + l] = static_cast<E>(last[l]);
            if constexpr (Sum) total += static_cast<double>(last[l]);
        }
    }
    return total;
}

/// Rows that one task works on: about 64 KB of them.
template <class T>
index_t rows_of_task(index_t columns) {
    return std::max<index_t>(1, 65536 / static_cast<index_t>(sizeof(T)) /
                                    std::max<index_t>(1, columns));
}

/// f(i) for every row i, a block of rows a task.
template <class T, class Executor, class F>
void for_rows(const Executor& executor, index_t rows, index_t columns, const F& f) {
    const index_t height = rows_of_task<T>(columns);
    executor.run((rows + height - 1) / height, [=](index_t task, index_t) {
        const index_t end = std::min(rows, (task + 1) * height);
        for (index_t i = task * height; i < end; ++i) f(i);
    });
}

/// y[i, :] = scales[i] * x[i, :]; rows contiguous.
template <class Executor, class E>
void scale_rows(const Executor& executor, view<const E, 1> scales, view<const E, 2> x,
                view<E, 2> y) {
    using T = compute_t<E>;
    using B = batch<T>;
    constexpr index_t W = lanes<T>;
    const index_t columns = x.extent(1);
    for_rows<E>(executor, x.extent(0), columns, [=](index_t i) {
        const T scale = static_cast<T>(scales(i));
        const E* const from = x.address(i, 0);
        E* const to = y.address(i, 0);
        index_t j = 0;
        for (; j + W <= columns; j += W) store_narrow(B(scale) * load_wide(from + j), to + j);
        for (; j < columns; ++j) to[j] = static_cast<E>(scale * static_cast<T>(from[j]));
    });
}

/// y[i, :] = scales[i] * (x[i, :] - shift), all scales 1 where they are a null view; rows and shift
/// contiguous.
template <class Executor, class E, class T = compute_t<E>>
void centre_rows(const Executor& executor, view<const T, 1> scales, view<const E, 2> x,
                 view<const T, 1> shift, view<T, 2> y) {
    using B = batch<T>;
    constexpr index_t W = lanes<T>;
    const index_t columns = x.extent(1);
    for_rows<T>(executor, x.extent(0), columns, [=](index_t i) {
        const T scale = scales.data_handle() ? scales(i) : T(1);
        const E* const from = x.address(i, 0);
        const T* const less = shift.data_handle();
        T* const to = y.address(i, 0);
        index_t j = 0;
        for (; j + W <= columns; j += W)
            (B(scale) * (load_wide(from + j) - B::load_unaligned(less + j)))
                .store_unaligned(to + j);
        for (; j < columns; ++j) to[j] = scale * (static_cast<T>(from[j]) - less[j]);
    });
}

/// plain_share, of contiguous numbers in registers.
struct share_in_registers {
    template <class E, class T>
    void operator()(index_t n, T share, const E* x, index_t stride, T* sums) const {
        using B = batch<T>;
        if (stride != 1) return plain_share{}(n, share, x, stride, sums);
        index_t c = 0;
        for (; c + lanes<T> <= n; c += lanes<T>)
            (B::load_unaligned(sums + c) + B(share) * load_wide(x + c)).store_unaligned(sums + c);
        plain_share{}(n - c, share, x + c, 1, sums + c);
    }
};

/// z[j] = scale * y[j]; returns the sum of x[j] * y[j]. Each of four registers adds up at most 256
/// products before they are added in double.
template <class E, class T = compute_t<E>>
PARE_INLINE double scale_dot(index_t n, T scale, const E* x, const E* y, E* z) {
    using B = batch<T>;
    constexpr index_t W = lanes<T>, unroll = 4;
    double total = 0;
    index_t j = 0;
    while (j + unroll * W <= n) {
        const index_t end = std::min(n, j + 256 * unroll * W);
        B sum[unroll];
        PARE_UNROLL
        for (index_t u = 0; u < unroll; ++u) sum[u] = B(T(0));
        for (; j + unroll * W <= end; j += unroll * W) PARE_UNROLL
        for (index_t u = 0; u < unroll; ++u) {
            const B value = load_wide(y + j + u * W);
            sum[u] = multiply_add(load_wide(x + j + u * W), value, sum[u]);
            store_narrow(B(scale) * value, z + j + u * W);
        }
        total += static_cast<double>(sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])));
    }
    B sum(T(0));
    for (; j + W <= n; j += W) {
        const B value = load_wide(y + j);
        sum = multiply_add(load_wide(x + j), value, sum);
        store_narrow(B(scale) * value, z + j);
    }
    T last = sum_lanes(sum);
    for (; j < n; ++j) {
        const T value = static_cast<T>(y[j]);
        add_in_order(last, static_cast<T>(x[j]) * value);
        z[j] = static_cast<E>(scale * value);
    }
    return total + static_cast<double>(last);
}

/// z[i, :] = scales[i] * y[i, :], dots[i] = sum over j of x[i, j] * y[i, j]; rows contiguous.
template <class Executor, class T>
void scale_rows_dot(const Executor& executor, view<const T, 1> scales, view<const T, 2> x,
                    view<const T, 2> y, view<T, 2> z, view<T, 1> dots) {
    const index_t columns = x.extent(1);
    for_rows<T>(executor, x.extent(0), columns, [=](index_t i) {
        dots(i) = from_double<T>(scale_dot(columns, static_cast<compute_t<T>>(scales(i)),
                                           x.address(i, 0), y.address(i, 0), z.address(i, 0)));
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
