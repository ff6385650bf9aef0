// Removing pruned units from weight matrices.
#pragma once

#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/view.hpp"
#include "policy/seq.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// The positions along a weight's axis that a mask keeps, ascending.
///
/// mask   [units], 0 = pruned
/// unit   positions of one unit: head size, or 1 for filters; group size * head size for the query
///        heads of a key-value group
/// parts  stacked matrices along the axis, each with all units: 3 for Q, K, V one below another, 2
///        for gate|up. (Where Q, K and V of a head stand together, that is one part with 3 * head
///        size a unit.)
///
/// Throws shape_error, also where Index cannot hold all of the axis.
template <class Index = index_t, class Mask>
std::vector<Index> kept_positions(const Mask& mask, index_t unit = 1, index_t parts = 1) {
    const auto m = as_input<1>(mask);
    if (unit < 1 || parts < 1)
        detail::fail<shape_error>("kept_positions", "units of ", unit, " in ", parts, " parts");
    constexpr auto most = static_cast<index_t>(std::min<std::uint64_t>(
        std::numeric_limits<Index>::max(), std::numeric_limits<index_t>::max() - 1));
    std::vector<Index> positions;
    if (m.extent(0) == 0) return positions;
    if (unit > (most + 1) / m.extent(0) / parts)
        detail::fail<shape_error>("kept_positions", "positions up to ", most, " do not reach the ",
                                  m.extent(0), " units of ", unit, " in ", parts, " parts");
    for (index_t p = 0; p < parts; ++p)
        for (index_t u = 0; u < m.extent(0); ++u)
            if (static_cast<bool>(m(u)))
                for (index_t c = 0; c < unit; ++c)
                    positions.push_back(static_cast<Index>((p * m.extent(0) + u) * unit + c));
    return positions;
}

/// out[i, :] = weight[positions[i], :]: removes output units of weights stored out x in (query,
/// key, value, FFN input), or input units of weights stored in x out. Any element type that is copied
/// by assignment; of pare::on, a trivially copyable one. `out` may be the memory of `weight`, with the
/// same strides. Throws shape_error and value_error, and what an assignment throws.
template <class Policy, class W, class Positions, class Out>
void keep_rows(const Policy& policy, const W& weight, const Positions& positions, Out&& out) {
    const auto w = as_input<2>(policy, weight);
    const auto p = as_input<1>(policy, positions);
    const auto o = as_output<2>(policy, std::forward<Out>(out));
    static_assert(
        std::is_same_v<typename decltype(w)::value_type, typename decltype(o)::value_type>,
        "pare::keep_rows: weight and out have one element type");
    detail::check_positions("keep_rows", policy, p, w.extent(0));
    if (o.extent(0) != p.extent(0) || o.extent(1) != w.extent(1))
        detail::fail<shape_error>("keep_rows", p.extent(0), " of ", w.extent(0), " x ", w.extent(1),
                                  " go into ", o.extent(0), " x ", o.extent(1));
    policy.gather_rows(w, p.data_handle(), o);
}

/// out[:, j] = weight[:, positions[j]]: removes input units of weights stored out x in (attention
/// output, FFN output), or output units of weights stored in x out. `out` may be the memory of
/// `weight`, with the same strides. Throws shape_error and value_error.
template <class Policy, class W, class Positions, class Out>
void keep_columns(const Policy& policy, const W& weight, const Positions& positions, Out&& out) {
    const auto w = as_input<2>(policy, weight);
    const auto p = as_input<1>(policy, positions);
    const auto o = as_output<2>(policy, std::forward<Out>(out));
    static_assert(
        std::is_same_v<typename decltype(w)::value_type, typename decltype(o)::value_type>,
        "pare::keep_columns: weight and out have one element type");
    detail::check_positions("keep_columns", policy, p, w.extent(1));
    if (o.extent(1) != p.extent(0) || o.extent(0) != w.extent(0))
        detail::fail<shape_error>("keep_columns", p.extent(0), " of ", w.extent(0), " x ",
                                  w.extent(1), " go into ", o.extent(0), " x ", o.extent(1));
    policy.gather_columns(w, p.data_handle(), o);
}

/// out[i] = bias[positions[i]], for biases and per-row quantisation scales. Throws as keep_rows.
template <class Policy, class Bias, class Positions, class Out>
void keep_entries(const Policy& policy, const Bias& bias, const Positions& positions, Out&& out) {
    const auto b = as_input<1>(policy, bias);
    const auto o = as_output<1>(policy, std::forward<Out>(out));
    using T = typename decltype(o)::value_type;
    keep_rows(policy,
              view<const typename decltype(b)::value_type, 2>(b.data_handle(), {b.extent(0), 1},
                                                              {b.stride(0), 1}),
              positions, view<T, 2>(o.data_handle(), {o.extent(0), 1}, {o.stride(0), 1}));
}

/// weight[:, u * unit + c] *= scales[u]: folds mask values or tuned scales of units into the matrix
/// that reads them (stored out x in; pass the transposed view for in x out). Throws shape_error and
/// value_error.
template <class Scales, class W>
void fold_scales(const Scales& scales, index_t unit, W&& weight) {
    const auto s = as_input<1>(scales);
    const auto w = as_output<2>(std::forward<W>(weight));
    using T = typename decltype(w)::value_type;
    using C = std::common_type_t<compute_t<T>, compute_t<typename decltype(s)::value_type>>;
    detail::check_real<T>();
    if (!detail::is_product(w.extent(1), s.extent(0), unit))
        detail::fail<shape_error>("fold_scales", s.extent(0), " units of ", unit,
                                  ", the weight is ", w.extent(0), " x ", w.extent(1));
    for (index_t u = 0; u < s.extent(0); ++u)
        if (!detail::is_finite(detail::to_double(s(u))))
            detail::fail<value_error>("fold_scales", "scale ", u, " is ", s(u));
    for (index_t i = 0; i < w.extent(0); ++i)
        for (index_t j = 0; j < w.extent(1); ++j)
            w(i, j) = static_cast<T>(
                static_cast<compute_t<T>>(static_cast<C>(detail::to_double(w(i, j))) *
                                          static_cast<C>(detail::to_double(s(j / unit)))));
}

} // namespace PARE_ISA
} // namespace pare
