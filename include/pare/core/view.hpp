// Non-owning strided views, and how a user's own containers become one.
#pragma once

#include "config.hpp"
#include "policy.hpp"

#include <array>
#include <iterator>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

template <class...>
inline constexpr bool always_false = false;

/// Extents or strides of an array of rank Rank.
template <int Rank>
using extents_of = std::array<index_t, static_cast<std::size_t>(Rank)>;

/// What `{}` is for an array that may be absent.
struct none {};

template <template <class> class Has, class X, class = void>
struct has : std::false_type {};
template <template <class> class Has, class X>
struct has<Has, X, std::void_t<Has<X>>> : std::true_type {};

template <class X>
using mdspan_like = decltype(std::declval<X&>().data_handle(), std::declval<X&>().extent(0),
                             std::declval<X&>().stride(0));
template <class X>
using eigen_like = decltype(std::declval<X&>().data(), std::declval<X&>().rows(),
                            std::declval<X&>().rowStride(), std::declval<X&>().colStride());
template <class X>
using range_like = decltype(*std::data(std::declval<X&>()), std::size(std::declval<X&>()));

template <class X, class T, class = void>
inline constexpr bool is_range_of = false;
template <class X, class T>
inline constexpr bool is_range_of<X, T, std::void_t<range_like<X>>> =
    std::is_convertible_v<decltype(std::data(std::declval<X&>())), T*>&& std::is_same_v<
        std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<X&>()))>>,
        std::remove_cv_t<T>>;

template <int Rank, class X>
auto as_view_impl(X& x);

} // namespace detail

/// Pointer, extents and strides (in elements) of an array of rank Rank; like std::mdspan with
/// layout_stride. Constness is the element's: view<const float, 2> reads, view<float, 2> writes.
///
///     pare::view(p, n)                                vector
///     pare::view(p, rows, columns)                    row-major matrix, and so on for more extents
///     pare::view(p, {rows, columns}, {stride, 1})     any strides
template <class T, int Rank>
class view {
  public:
    using element_type = T;
    using value_type = std::remove_const_t<T>;

    constexpr view() = default;
    constexpr view(T* data, const detail::extents_of<Rank>& extents,
                   const detail::extents_of<Rank>& strides)
        : data_(data), extents_(extents), strides_(strides) {}
    /// Contiguous, last extent fastest.
    template <class... Extents,
              std::enable_if_t<sizeof...(Extents) == Rank && (std::is_integral_v<Extents> && ...),
                               int> = 0>
    constexpr view(T* data, Extents... extents)
        : data_(data), extents_{static_cast<index_t>(extents)...} {
        index_t stride = 1;
        for (int i = Rank; i-- > 0;) {
            strides_[static_cast<std::size_t>(i)] = stride;
            stride *= extents_[static_cast<std::size_t>(i)];
        }
    }
    /// A view that writes is a view that reads.
    template <class U,
              std::enable_if_t<std::is_same_v<const U, T> && !std::is_same_v<U, T>, int> = 0>
    constexpr view(const view<U, Rank>& other) : data_(other.data_handle()) {
        for (int i = 0; i < Rank; ++i) {
            extents_[static_cast<std::size_t>(i)] = other.extent(i);
            strides_[static_cast<std::size_t>(i)] = other.stride(i);
        }
    }

    /// Of a container that outlives the view, where a structure asks for a vector's.
    template <class X, std::enable_if_t<Rank == 1 && detail::is_range_of<X, T>, int> = 0>
    constexpr view(X& x) : view(detail::as_view_impl<Rank>(x)) {}

    constexpr T* data_handle() const { return data_; }
    constexpr index_t extent(int i) const { return extents_[static_cast<std::size_t>(i)]; }
    constexpr index_t stride(int i) const { return strides_[static_cast<std::size_t>(i)]; }
    static constexpr int rank() { return Rank; }

    constexpr index_t size() const {
        index_t n = 1;
        for (index_t e : extents_) n *= e;
        return n;
    }

    template <class... Indices>
    constexpr T& operator()(Indices... i) const {
        static_assert(sizeof...(Indices) == Rank, "pare::view: one index per dimension");
        index_t offset = 0;
        std::size_t d = 0;
        ((offset += static_cast<index_t>(i) * strides_[d++]), ...);
        return data_[offset];
    }
    /// Where an element would be, of a row without columns too; null in a view of no memory.
    template <class... Indices>
    constexpr T* address(Indices... i) const {
        return data_ ? &(*this)(i...) : nullptr;
    }

  private:
    T* data_ = nullptr;
    detail::extents_of<Rank> extents_{};
    detail::extents_of<Rank> strides_{};
};

template <
    class T, class... Extents,
    std::enable_if_t<(sizeof...(Extents) > 0) && (std::is_integral_v<Extents> && ...), int> = 0>
view(T*, Extents...) -> view<T, static_cast<int>(sizeof...(Extents))>;
template <class T, std::size_t Rank>
view(T*, const index_t (&)[Rank], const index_t (&)[Rank]) -> view<T, static_cast<int>(Rank)>;

namespace detail {

template <int Rank, class X>
auto as_view_impl(X& x) {
    if constexpr (has<mdspan_like, X>::value) {
        static_assert(X::rank() == Rank, "pare: this view has another rank than the call expects");
        extents_of<Rank> extents, strides;
        for (int i = 0; i < Rank; ++i) {
            const auto which = static_cast<decltype(X::rank())>(i);
            extents[static_cast<std::size_t>(i)] = static_cast<index_t>(x.extent(which));
            strides[static_cast<std::size_t>(i)] = static_cast<index_t>(x.stride(which));
        }
        using element = std::remove_pointer_t<decltype(x.data_handle())>;
        return view<element, Rank>(x.data_handle(), extents, strides);
    } else if constexpr (has<eigen_like, X>::value) {
        static_assert(Rank <= 2, "pare: an Eigen object is a vector or a matrix");
        using element = std::remove_pointer_t<decltype(x.data())>;
        if constexpr (Rank == 2) {
            return view<element, 2>(x.data(), {x.rows(), x.cols()}, {x.rowStride(), x.colStride()});
        } else {
            static_assert(X::RowsAtCompileTime == 1 || X::ColsAtCompileTime == 1,
                          "pare: this call expects a vector, and the Eigen object is a matrix");
            return view<element, 1>(x.data(), {static_cast<index_t>(x.size())}, {x.innerStride()});
        }
    } else if constexpr (has<range_like, X>::value && Rank == 1) {
        using element = std::remove_pointer_t<decltype(std::data(x))>;
        static_assert(!std::is_array_v<element>, "pare: this call expects a vector, and the array "
                                                 "is a matrix; pass a pare::view of its elements");
        return view<element, 1>(std::data(x), static_cast<index_t>(std::size(x)));
    } else {
        static_assert(always_false<X>,
                      "pare: pass a pare::view (pointer, extents), an mdspan, an Eigen object with "
                      "direct access, or, for vectors, a contiguous range");
    }
}

} // namespace detail

/// The view of rank `Rank` of `x`: a view, anything with data_handle/extent/stride, an Eigen object
/// with direct access, or, for rank 1, a contiguous range. A reader's view is asked for with a
/// const `x`.
template <int Rank, class X>
auto as_view(X&& x) {
    return detail::as_view_impl<Rank>(x);
}

/// As as_view, for an input: the elements are const.
template <int Rank, class X>
auto as_input(const X& x) {
    auto v = detail::as_view_impl<Rank>(x);
    using element = typename decltype(v)::value_type;
    return view<const element, Rank>(v);
}

namespace detail {

template <class X>
using resizable_eigen = decltype(std::declval<X&>().conservativeResize(1, 1));
template <class X>
using elements_of = decltype(std::data(std::declval<X&>()));
/// Whether X holds its elements: they are const where it is.
template <class X, class = void>
inline constexpr bool owns_elements = has<resizable_eigen, X>::value;
template <class X>
inline constexpr bool
    owns_elements<X, std::enable_if_t<has<elements_of, X>::value && !has<mdspan_like, X>::value &&
                                      !has<eigen_like, X>::value>> =
        !std::is_same_v<elements_of<X>, elements_of<const X>>;

template <class X>
struct owns_host_memory : std::is_array<X> {};
template <class T, std::size_t N>
struct owns_host_memory<std::array<T, N>> : std::true_type {};
template <class T>
struct owns_host_memory<std::vector<T>> : std::true_type {};

} // namespace detail

/// Whether X owns memory that only the host reads, so that a GPU's policy refuses it. Specialise it
/// for a container whose memory both read.
template <class X>
inline constexpr bool is_host_container = detail::owns_host_memory<X>::value;

namespace detail {

/// What a call writes to, passed as X, is not lost when it returns.
template <class X>
constexpr void check_stays() {
    static_assert(std::is_lvalue_reference_v<X> || !owns_elements<std::remove_reference_t<X>>,
                  "pare: the call writes to this argument, and it is a temporary that would take "
                  "the result away; pass a variable, or a view of one");
}
template <class X, class V>
constexpr void check_output(const V&) {
    static_assert(!std::is_const_v<typename V::element_type>,
                  "pare: the call writes to this argument, and its elements are const");
    check_stays<X>();
}
template <class... Ts>
inline constexpr bool all_same = true;
template <class T, class... Ts>
inline constexpr bool all_same<T, Ts...> = (std::is_same_v<T, Ts> && ...);

/// Types of numbers that are not counted, but measured.
template <class... Ts>
constexpr void check_real() {
    static_assert(!(std::is_integral_v<Ts> || ...),
                  "pare: these numbers are of float, double or a half type, not integers");
    static_assert(!(std::is_same_v<Ts, long double> || ...),
                  "pare: these numbers are of float, double or a half type, not long double");
}

} // namespace detail

/// As as_view, for what a call overwrites or adds to: pass std::forward<X>(x).
template <int Rank, class X>
auto as_output(X&& x) {
    const auto v = as_view<Rank>(x);
    detail::check_output<X>(v);
    return v;
}

/// As above, for a call that hands the view to a policy. Throws value_error for a pointer to
/// memory that the policy's device cannot read.
template <int Rank, class Policy, class X>
auto as_view([[maybe_unused]] const Policy& policy, X&& x) {
    detail::check_policy(policy);
    static_assert(Policy::on_host ||
                      !is_host_container<std::remove_cv_t<std::remove_reference_t<X>>>,
                  "pare: this policy works on a GPU's memory, and this container is in the host's; "
                  "pass a pare::view of device memory");
    const auto v = as_view<Rank>(x);
    if constexpr (!Policy::on_host)
        if (v.size() != 0) policy.check_memory(v.data_handle()); // where there is none, anything is
    return v;
}
template <int Rank, class Policy, class X>
auto as_input(const Policy& policy, const X& x) {
    const auto v = as_view<Rank>(policy, x);
    return view<const typename decltype(v)::value_type, Rank>(v);
}
template <int Rank, class Policy, class X>
auto as_output(const Policy& policy, X&& x) {
    const auto v = as_view<Rank>(policy, x);
    detail::check_output<X>(v);
    return v;
}

} // namespace PARE_ISA
} // namespace pare
