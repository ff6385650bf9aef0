// What a sublayer loses as its units are removed one after another.
#pragma once

#include "core/error.hpp"
#include "core/ops.hpp"
#include "core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

/// 0 for the first `gone` of an order, which are units that there are, each once; 1 for the others.
inline std::vector<std::uint8_t> units_left(const char* function, const std::vector<index_t>& order,
                                            index_t gone) {
    std::vector<std::uint8_t> left(order.size(), 1);
    for (index_t k = 0; k < gone; ++k) {
        const index_t u = order[static_cast<std::size_t>(k)];
        if (u < 0 || u >= static_cast<index_t>(order.size()))
            fail<value_error>(function, "unit ", u, " is number ", k, " to go, there are ",
                              order.size(), " units");
        if (!left[static_cast<std::size_t>(u)])
            fail<value_error>(function, "unit ", u, " is number ", k, " to go, and gone before");
        left[static_cast<std::size_t>(u)] = 0;
    }
    return left;
}

} // namespace detail

/// An order in which to remove a sublayer's units, heads or filters, and the loss after each
/// removal. Whoever makes one by hand need not check it: what reads it does, and throws.
struct loss_curve {
    std::vector<index_t> order; ///< all units, the first to go first
    std::vector<double> loss;   ///< loss[k] with the first k of them gone; loss[0] = 0, never falls

    index_t units() const { return static_cast<index_t>(order.size()); }

    /// 1 for the `kept` units that go last, 0 for the others. Throws shape_error unless
    /// 0 <= kept <= units(), and value_error for a unit that goes twice or is none.
    std::vector<std::uint8_t> mask(index_t kept) const {
        if (kept < 0 || kept > units())
            detail::fail<shape_error>("loss_curve", kept, " of ", units(), " units");
        return detail::units_left("loss_curve", order, units() - kept);
    }
};

/// The curve of units whose losses just add up: 1/2 of the importance of those removed, the least
/// important first, of equals the last one first. importance [units] >= 0, a diagonal Fisher for
/// example. Throws value_error for an importance that is negative or not finite. O(n log n).
template <class Importance>
loss_curve sorted_losses(const Importance& importance) {
    const auto v = as_input<1>(importance);
    loss_curve curve;
    curve.order.resize(static_cast<std::size_t>(v.extent(0)));
    for (index_t u = 0; u < v.extent(0); ++u)
        if (!detail::is_finite(detail::to_double(v(u))) || detail::to_double(v(u)) < 0)
            detail::fail<value_error>("sorted_losses", "the importance of unit ", u, " is ", v(u));
    std::iota(curve.order.begin(), curve.order.end(), index_t{0});
    std::sort(curve.order.begin(), curve.order.end(), [&](index_t a, index_t b) {
        return std::pair(detail::to_double(v(a)), b) < std::pair(detail::to_double(v(b)), a);
    });
    curve.loss.push_back(0);
    for (const index_t u : curve.order)
        curve.loss.push_back(curve.loss.back() + detail::to_double(v(u)) / 2);
    return curve;
}

} // namespace PARE_ISA
} // namespace pare
