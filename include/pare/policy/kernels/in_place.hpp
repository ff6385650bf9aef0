// Products with rows of keys and values that are read where they are, in registers.
#pragma once

#include "halves.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// step(i) for the registers of rows of `size` numbers of type E, prefetch(i) where a line of the cache
/// begins; returns where what is less than a register begins.
template <class E, class Prefetch, class Step>
PARE_INLINE index_t for_lines(index_t size, const Prefetch& prefetch, const Step& step) {
    constexpr index_t n = lanes<compute_t<E>>,
                      line = std::max(n, 64 / static_cast<index_t>(sizeof(E)));
    index_t i = 0;
    for (; i + line <= size; i += line) {
        prefetch(i);
        PARE_UNROLL
        for (index_t at = 0; at < line; at += n) step(i + at);
    }
    for (; i + n <= size; i += n) step(i);
    return i;
}

/// What is read some turns later: rows of one group are too short, and too far apart, for processors to
/// see where they go on.
template <index_t Rows, class E>
PARE_INLINE void prefetch_later(const E* x, index_t stride) {
    constexpr std::uintptr_t later = 32 * 1024; // bytes; the address may be beyond the cache
    PARE_UNROLL
    for (index_t r = 0; r < Rows; ++r)
        PARE_PREFETCH(reinterpret_cast<const char*>(
            reinterpret_cast<std::uintptr_t>(x + r * stride) + later));
}

/// e[r, j] = q[r] k[j] for j < keys; q[r] are `size` numbers each, `size` apart, and keys `k_stride`.
template <index_t Rows, index_t Keys, class E, class T = compute_t<E>>
void multiply_in_place(index_t size, const T* q, index_t keys, const E* k, index_t k_stride, T* e,
                       index_t e_stride) {
    using B = batch<T>;
    for (index_t first = 0; first + Keys <= keys; first += Keys, k += Keys * k_stride) {
        B sum[Rows * Keys];
        PARE_UNROLL
        for (index_t u = 0; u < Rows * Keys; ++u) sum[u] = B(T(0));
        index_t i = for_lines<E>(
            size, [&](index_t at) { prefetch_later<Keys>(k + at, k_stride); },
            [&](index_t at) {
                B right[Keys];
                PARE_UNROLL
                for (index_t j = 0; j < Keys; ++j)
                    right[j] = held(load_wide(k + j * k_stride + at));
                PARE_UNROLL
                for (index_t r = 0; r < Rows; ++r) {
                    const B left = held(B::load_unaligned(q + r * size + at));
                    PARE_UNROLL
                    for (index_t j = 0; j < Keys; ++j)
                        sum[r * Keys + j] = multiply_add(left, right[j], sum[r * Keys + j]);
                }
            });
        T logits[Rows * Keys];
        fold<Rows * Keys, T>(sum, logits, [](const auto& x, const auto& y) { return x + y; });
        for (; i < size; ++i)
            for (index_t r = 0; r < Rows; ++r)
                for (index_t j = 0; j < Keys; ++j)
                    logits[r * Keys + j] += q[r * size + i] * static_cast<T>(k[j * k_stride + i]);
        for (index_t r = 0; r < Rows; ++r)
            std::copy_n(logits + r * Keys, Keys, e + r * e_stride + first);
    }
}

/// out[r] += sum over j < keys of e[r, j] * v[j]; v[j] are `size` numbers each, `v_stride` apart.
template <index_t Rows, index_t Keys, class E, class T = compute_t<E>>
void add_in_place(index_t size, const T* e, index_t e_stride, index_t keys, const E* v,
                  index_t v_stride, T* out, index_t out_stride) {
    using B = batch<T>;
    for (index_t first = 0; first + Keys <= keys; first += Keys, v += Keys * v_stride) {
        B left[Rows][Keys];
        PARE_UNROLL
        for (index_t r = 0; r < Rows; ++r) PARE_UNROLL
        for (index_t j = 0; j < Keys; ++j) left[r][j] = B(e[r * e_stride + first + j]);
        index_t i = for_lines<E>(
            size, [&](index_t at) { prefetch_later<Keys>(v + at, v_stride); },
            [&](index_t at) {
                B sum[Rows];
                PARE_UNROLL
                for (index_t r = 0; r < Rows; ++r)
                    sum[r] = B::load_unaligned(out + r * out_stride + at);
                PARE_UNROLL
                for (index_t j = 0; j < Keys; ++j) {
                    const B right = held(load_wide(v + j * v_stride + at));
                    PARE_UNROLL
                    for (index_t r = 0; r < Rows; ++r)
                        sum[r] = multiply_add(left[r][j], right, sum[r]);
                }
                PARE_UNROLL
                for (index_t r = 0; r < Rows; ++r)
                    sum[r].store_unaligned(out + r * out_stride + at);
            });
        for (; i < size; ++i)
            for (index_t r = 0; r < Rows; ++r)
                for (index_t j = 0; j < Keys; ++j)
                    out[r * out_stride + i] +=
                        e[r * e_stride + first + j] * static_cast<T>(v[j * v_stride + i]);
    }
}

/// Rows of the next block of up to `most`, of those that are left: blocks of nearly equal height, since
/// a last one of one row would run at a tenth of the speed.
constexpr index_t next_block(index_t left, index_t most) {
    const index_t blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

/// The blocks of products in place: of some rows, with as many keys as sums find registers for.
struct blocks_in_place {
    static constexpr index_t most_keys = 4, most_rows = std::max<index_t>(4, sum_registers / 4);
    using up_to_rows = std::make_integer_sequence<index_t, most_rows>;
    static constexpr index_t keys_of(index_t rows) {
        return std::min(most_keys, sum_registers / rows);
    }
    template <index_t Keys, class E, index_t... At>
    static constexpr auto products(std::integer_sequence<index_t, At...>) {
        return std::array{&multiply_in_place<At + 1, std::min(Keys, keys_of(At + 1)), E>...};
    }
    template <index_t Keys, class E, index_t... At>
    static constexpr auto sums(std::integer_sequence<index_t, At...>) {
        return std::array{&add_in_place<At + 1, std::min(Keys, keys_of(At + 1)), E>...};
    }
    /// f(kernel, first row, first key, keys), by kernels of many keys and for the rest of one key.
    template <class Kernels, class F>
    static void run(index_t rows, index_t keys, const Kernels& many, const Kernels& one,
                    const F& f) {
        for (index_t r = 0, here; r < rows; r += here) {
            here = next_block(rows - r, most_rows);
            const auto kernel = static_cast<std::size_t>(here - 1);
            const index_t whole = keys / keys_of(here) * keys_of(here);
            if (whole > 0) f(many[kernel], r, index_t{0}, whole);
            if (whole < keys) f(one[kernel], r, whole, keys - whole);
        }
    }
};

/// multiply_in_place() of any number of rows, with all keys.
template <class E, class T = compute_t<E>>
void multiply_rows_in_place(index_t rows, index_t size, const T* q, index_t keys, const E* k,
                            index_t k_stride, T* e, index_t e_stride) {
    using blocks = blocks_in_place;
    static constexpr auto many = blocks::products<blocks::most_keys, E>(blocks::up_to_rows{});
    static constexpr auto one = blocks::products<1, E>(blocks::up_to_rows{});
    blocks::run(rows, keys, many, one,
                [&](const auto& multiply, index_t r, index_t first, index_t some) {
                    multiply(size, q + r * size, some, k + first * k_stride, k_stride,
                             e + r * e_stride + first, e_stride);
                });
}
/// add_in_place() likewise.
template <class E, class T = compute_t<E>>
void add_rows_in_place(index_t rows, index_t size, const T* e, index_t e_stride, index_t keys,
                       const E* v, index_t v_stride, T* out, index_t out_stride) {
    using blocks = blocks_in_place;
    static constexpr auto many = blocks::sums<blocks::most_keys, E>(blocks::up_to_rows{});
    static constexpr auto one = blocks::sums<1, E>(blocks::up_to_rows{});
    blocks::run(rows, keys, many, one,
                [&](const auto& add, index_t r, index_t first, index_t some) {
                    add(size, e + r * e_stride + first, e_stride, some, v + first * v_stride,
                        v_stride, out + r * out_stride, out_stride);
                });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
