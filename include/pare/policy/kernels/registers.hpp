// Vector registers, and the product of a small block that stays in them.
#pragma once

#include "../../core/config.hpp"
#include "../../core/fast_math.hpp"

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

template <class T>
inline constexpr bool has_batch = std::is_same_v<T, float> || std::is_same_v<T, double>;

template <class T>
using batch = xsimd::batch<T>;
template <class T>
inline constexpr index_t lanes = static_cast<index_t>(batch<T>::size);

/// Registers that a block's sums may take, so that its factors find room beside them.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t sum_registers = 24; // of 32
#else
inline constexpr index_t sum_registers = 12; // of 16
#endif

template <class T, class A>
struct barrier<xsimd::batch<T, A>> {
    PARE_INLINE static void pass(xsimd::batch<T, A>& x) { PARE_HIDE_NUMBER(x.data); }
};

/// x, loaded once: g++ loads again what several products have in common, of which there are so many
/// that loads are what they wait for. Not opaque(), which is nothing where g++ keeps to the rules.
template <class T, class A>
PARE_INLINE xsimd::batch<T, A> held(xsimd::batch<T, A> x) {
#if defined(__GNUC__) && !defined(__clang__) && defined(PARE_NUMBER_REGISTER)
    asm("" : PARE_NUMBER_REGISTER(x.data));
#endif
    return x;
}

/// a * b + c, in one rounding where the processor can: for AVX-512 xsimd multiplies and adds, which
/// clang leaves so.
template <class T, class A>
PARE_INLINE xsimd::batch<T, A> multiply_add(const xsimd::batch<T, A>& a,
                                            const xsimd::batch<T, A>& b,
                                            const xsimd::batch<T, A>& c) {
#ifdef __AVX512F__
    constexpr bool wide = sizeof(a.data) == 64;
    if constexpr (wide && std::is_same_v<T, float>)
        return _mm512_fmadd_ps(a.data, b.data, c.data);
    else if constexpr (wide && std::is_same_v<T, double>)
        return _mm512_fmadd_pd(a.data, b.data, c.data);
    else
#endif
        return xsimd::fma(a, b, c);
}

constexpr index_t round_up(index_t n, index_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/// sum[i, v] += a[i, t] * b[t, v] over `depth` steps t; a(i, t) at a[i * a_row + t * a_step], b's
/// vectors at b + t * b_step.
template <index_t Rows, index_t Vectors, class T>
PARE_INLINE void multiply_registers(index_t depth, const T* a, index_t a_row, index_t a_step,
                                    const T* b, index_t b_step, batch<T> (&sum)[Rows][Vectors]) {
    for (index_t t = 0; t < depth; ++t, a += a_step, b += b_step) {
        batch<T> right[Vectors];
        PARE_UNROLL
        for (index_t v = 0; v < Vectors; ++v) right[v] = batch<T>::load_unaligned(b + v * lanes<T>);
        PARE_UNROLL
        for (index_t i = 0; i < Rows; ++i) {
            const batch<T> left(a[i * a_row]);
            PARE_UNROLL
            for (index_t v = 0; v < Vectors; ++v)
                sum[i][v] = multiply_add(left, right[v], sum[i][v]);
        }
    }
}

// PARE_SHUFFLE: any numbers of two registers in one, where registers are wider than 128 bits. nvcc
// passes no lists of places on.
#if defined(__AVX__) && defined(__has_builtin) && !defined(__CUDACC__)
#if __has_builtin(__builtin_shufflevector)
#define PARE_SHUFFLE __builtin_shufflevector
#endif
#endif

/// The largest power of two up to n > 0.
constexpr index_t power_of_two_up_to(index_t n) {
    return n < 2 ? 1 : 2 * power_of_two_up_to(n / 2);
}

/// Registers of 128 bits, or what the processor has: of wider ones, xsimd interleaves pieces.
#if XSIMD_WITH_SSE2
using short_registers = xsimd::sse2;
#else
using short_registers = xsimd::default_arch;
#endif
template <class T>
using short_batch = xsimd::batch<T, short_registers>;
template <class T>
inline constexpr index_t short_lanes = static_cast<index_t>(short_batch<T>::size);

/// rows[j][i] = rows[i][j].
template <class T>
PARE_INLINE void transpose(short_batch<T> (&rows)[short_lanes<T>]) {
    constexpr index_t n = short_lanes<T>;
    PARE_UNROLL
    for (index_t step = 1; step < n; step *= 2) { // a row's number gets a bit of the column's
        short_batch<T> next[n];
        PARE_UNROLL
        for (index_t i = 0; i < n / 2; ++i) {
            next[2 * i] = xsimd::zip_lo(rows[i], rows[i + n / 2]);
            next[2 * i + 1] = xsimd::zip_hi(rows[i], rows[i + n / 2]);
        }
        PARE_UNROLL
        for (index_t i = 0; i < n; ++i) rows[i] = next[i];
    }
}

/// to[j, i] = from[i, j] for a square of `short_lanes` numbers each way.
template <class T>
PARE_INLINE void transpose(const T* from, index_t from_stride, T* to, index_t to_stride) {
    constexpr index_t n = short_lanes<T>;
    short_batch<T> rows[n];
    PARE_UNROLL
    for (index_t i = 0; i < n; ++i)
        rows[i] = short_batch<T>::load_unaligned(from + i * from_stride);
    transpose<T>(rows);
    PARE_UNROLL
    for (index_t i = 0; i < n; ++i) rows[i].store_unaligned(to + i * to_stride);
}

/// fold() where registers have 128 bits, and of wider ones by pieces of these.
template <index_t Rows, class T, class Op>
PARE_INLINE void fold_by_transposing(const batch<T>* x, T* results, Op op) {
    constexpr index_t n = short_lanes<T>;
    for (index_t first = 0; first < Rows; first += n) {
        short_batch<T> parts[n];
        PARE_UNROLL
        for (index_t r = 0; r < n; ++r) {
            T numbers[lanes<T>];
            x[first + r < Rows ? first + r : first].store_unaligned(numbers);
            parts[r] = short_batch<T>::load_unaligned(numbers);
            PARE_UNROLL
            for (index_t i = n; i < lanes<T>; i += n)
                parts[r] = op(parts[r], short_batch<T>::load_unaligned(numbers + i));
        }
        transpose<T>(parts);
        PARE_UNROLL
        for (index_t r = 1; r < n; ++r) parts[0] = op(parts[0], parts[r]);
        T folded[n];
        parts[0].store_unaligned(folded);
        for (index_t r = 0; r < n && first + r < Rows; ++r) results[first + r] = folded[r];
    }
}

#ifdef PARE_SHUFFLE
/// a's numbers, but b's in places that have this bit.
template <std::size_t Bit, class V, std::size_t... At>
PARE_INLINE V blend(V a, V b, std::index_sequence<At...>) {
    return PARE_SHUFFLE(a, b, ((At & Bit) == 0 ? At : At + sizeof...(At))...);
}
/// x's numbers, each in the place that differs by this bit.
template <std::size_t Bit, class V, std::size_t... At>
PARE_INLINE V swap_places(V x, std::index_sequence<At...>) {
    return PARE_SHUFFLE(x, x, (At ^ Bit)...);
}

/// Place p: what stands in places of x[p % min(Rows, 2 Bit)] that differ from it in bits up to Bit, and
/// in itself, folded. Rows is a power of two. Two registers are folded in one step, into halves of one.
template <index_t Rows, index_t Bit, class T, class Op>
PARE_INLINE batch<T> fold_places(const batch<T>* x, Op op) {
    if constexpr (Bit == 0) {
        return *x;
    } else {
        constexpr auto bit = static_cast<std::size_t>(Bit);
        constexpr auto places = std::make_index_sequence<batch<T>::size>();
        const auto a = fold_places<Rows, Bit / 2, T>(x, op).data;
        if constexpr (Bit >= Rows) {
            return op(batch<T>(a), batch<T>(swap_places<bit>(a, places)));
        } else {
            const auto b = fold_places<Rows, Bit / 2, T>(x + Bit, op).data;
            return op(batch<T>(blend<bit>(a, b, places)),
                      batch<T>(swap_places<bit>(blend<bit>(b, a, places), places)));
        }
    }
}
#endif

/// results[r]: the numbers of x[r] added up, or folded by another associative operation.
template <index_t Rows, class T, class Op>
PARE_INLINE void fold(const batch<T>* x, T* results, Op op) {
#ifdef PARE_SHUFFLE
    if constexpr (batch<T>::size > short_batch<T>::size) {
        constexpr index_t n = power_of_two_up_to(std::min(Rows, lanes<T>));
        T folded[lanes<T>];
        fold_places<n, lanes<T> / 2, T>(x, op).store_unaligned(folded);
        std::copy_n(folded, n, results);
        if constexpr (Rows > n) fold<Rows - n, T>(x + n, results + n, op);
    } else
#endif
        fold_by_transposing<Rows, T>(x, results, op);
}

/// a . b of n numbers each.
struct product_in_registers {
    template <class T>
    T operator()(index_t n, const T* a, const T* b) const {
        constexpr index_t chains = 4;
        batch<T> sum[chains];
        for (batch<T>& x : sum) x = batch<T>(T(0));
        index_t i = 0;
        for (; i + chains * lanes<T> <= n; i += chains * lanes<T>) PARE_UNROLL
        for (index_t c = 0; c < chains; ++c) {
            const index_t at = i + c * lanes<T>;
            sum[c] = multiply_add(batch<T>::load_unaligned(a + at),
                                  batch<T>::load_unaligned(b + at), sum[c]);
        }
        for (; i + lanes<T> <= n; i += lanes<T>)
            sum[0] = multiply_add(batch<T>::load_unaligned(a + i), batch<T>::load_unaligned(b + i),
                                  sum[0]);
        T folded[chains], total = 0;
        fold<chains, T>(sum, folded, [](const auto& x, const auto& y) { return x + y; });
        for (const T x : folded) add_in_order(total, x);
        for (; i < n; ++i) add_in_order(total, a[i] * b[i]);
        return total;
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
