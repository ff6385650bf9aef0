// What every call's first argument is.
#pragma once

#include "config.hpp"

#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

template <class P, class = void>
inline constexpr bool is_policy = false;
template <class P>
inline constexpr bool is_policy<P, std::void_t<decltype(P::on_host)>> = true;

template <class P>
constexpr void check_policy(const P&) {
    static_assert(is_policy<P>,
                  "pare: the first argument is the policy: pare::seq, pare::simd or pare::on(...)");
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
