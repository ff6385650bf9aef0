// Neighbours of a row that a thread loads and stores at once: 16 bytes of them, where they begin at
// a multiple of 16 bytes.
#pragma once

#include "../../core/fast_math.hpp"
#include "../../core/ops.hpp"
#include "../../core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

// PARE_ONE_BY_ONE: before a loop that a GPU's compiler should leave as it is.
// PARE_OUT_OF_LINE: one function on the host, whose compiler then orders a product in one way.
#ifdef __CUDA_ARCH__
#define PARE_ONE_BY_ONE _Pragma("unroll 1")
#define PARE_OUT_OF_LINE
#elif defined(__GNUC__)
#define PARE_ONE_BY_ONE
#define PARE_OUT_OF_LINE __attribute__((noinline))
#else
#define PARE_ONE_BY_ONE
#define PARE_OUT_OF_LINE
#endif

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Neighbours that are loaded at once.
template <class T>
struct alignas(16) pack {
    static constexpr int size = 16 / sizeof(T);
    T of[size];
};

/// Whether a pack may begin at every pack<T>::size-th element of each row of x, rows along the last
/// extent. The last one of a row need not be whole.
template <class T, int Rank>
bool rows_in_packs(view<T, Rank> x) {
    constexpr index_t size = pack<std::remove_const_t<T>>::size;
    for (int i = 0; i + 1 < Rank; ++i)
        if (x.extent(i) > 1 && x.stride(i) % size != 0) return false;
    return reinterpret_cast<std::uintptr_t>(x.data_handle()) % 16 == 0 &&
           (x.extent(Rank - 1) <= 1 || x.stride(Rank - 1) == 1);
}
/// Packs of a row of `columns` elements, the last of them perhaps not whole.
template <class T>
constexpr index_t packs_of(index_t columns) {
    return (columns + pack<T>::size - 1) / pack<T>::size;
}

/// A sum that is made in C for some terms and in double from then on.
template <class C>
struct piecewise_sum {
    C piece = 0;
    double before = 0;
    int added = 0;

    /// So many packs have gone into the piece, which ends with `most` of them.
    PARE_HD void add(int packs, int most) {
        added += packs;
        if (added < most) return;
        add_in_order(before, static_cast<double>(piece));
        piece = 0;
        added = 0;
    }
    PARE_HD double total() const { return opaque(before + static_cast<double>(piece)); }
};

/// How many neighbours of several arrays a thread has at once, and whether they are packs of all.
template <class... Ts>
inline constexpr int common_size = std::min({pack<Ts>::size...});
template <class... Ts>
inline constexpr bool same_size = ((pack<Ts>::size == common_size<Ts...>)&&...);

/// A pack from where one may begin; or the `count` elements x[0], x[stride], ..., and zeros.
template <bool Whole, class T>
PARE_HD inline pack<std::remove_const_t<T>> load_pack(T* x, [[maybe_unused]] index_t stride,
                                                      [[maybe_unused]] index_t count) {
    using E = std::remove_const_t<T>;
    if constexpr (Whole) {
        return *reinterpret_cast<const pack<E>*>(x);
    } else {
        pack<E> some;
        for (int e = 0; e < pack<E>::size; ++e)
            some.of[e] = e < count ? x[e * stride] : static_cast<E>(compute_t<E>(0));
        return some;
    }
}
template <bool Whole, class T>
PARE_HD inline void store_pack(const pack<T>& some, T* x, [[maybe_unused]] index_t stride,
                               [[maybe_unused]] index_t count) {
    if constexpr (Whole)
        *reinterpret_cast<pack<T>*>(x) = some;
    else
        for (int e = 0; e < pack<T>::size; ++e)
            if (e < count) x[e * stride] = some.of[e];
}

/// f(x[i], y[i]) for the elements of two tuples, whose own assignment a GPU does not know.
template <class X, class Y, class F, std::size_t... At>
PARE_HD inline void for_pairs(X& x, const Y& y, const F& f, std::index_sequence<At...>) {
    (f(std::get<At>(x), std::get<At>(y)), ...);
}
/// A pack of each of several arrays, load(array).
template <class... Ts, class Arrays, class Load>
PARE_HD inline void load_packs(std::tuple<pack<Ts>...>& to, const Arrays& arrays,
                               const Load& load) {
    for_pairs(
        to, arrays, [&](auto& some, const auto& array) { some = load(array); },
        std::index_sequence_for<Ts...>());
}

template <class... Ts, class Places, class Arrays, class Load, std::size_t... At>
PARE_HD inline void load_packs(std::tuple<pack<Ts>...>& to, Places& places, const Arrays& arrays,
                               const Load& load, std::index_sequence<At...>) {
    ((std::get<At>(to) = load(std::get<At>(places), std::get<At>(arrays))), ...);
}
/// load(place, array), for a place that goes on in each array.
template <class... Ts, class Places, class Arrays, class Load>
PARE_HD inline void load_packs(std::tuple<pack<Ts>...>& to, Places& places, const Arrays& arrays,
                               const Load& load) {
    load_packs(to, places, arrays, load, std::index_sequence_for<Ts...>());
}

template <class C, int Size>
struct results_of {
    C of[Size];
};
/// op(x, ...) of the first elements of packs, the same wherever they are.
template <class C, int Size, class Op, class... Ts>
PARE_HD PARE_OUT_OF_LINE results_of<C, Size> apply(const Op& op, const std::tuple<pack<Ts>...>& x) {
    results_of<C, Size> results;
    for (int e = 0; e < Size; ++e)
        results.of[e] = std::apply(
            [&](const auto&... of) { return op(opaque(static_cast<C>(of.of[e]))...); }, x);
    return results;
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
