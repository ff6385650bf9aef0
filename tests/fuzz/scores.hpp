// What the targets of token scores share.
#pragma once

#include "fuzz.hpp"

#include <pare/importance.hpp>
#include <pare/policy/simd.hpp>

#include <cmath>

namespace fuzz {

inline pare::attention_mask mask(bytes& in) {
    return {in.flag(), in.flag() ? 0 : in.number<index_t>()};
}

inline pare::counted_queries counted(bytes& in) {
    if (in.flag()) return {};
    return {in.number<index_t>(), in.number<index_t>()};
}

inline pare::score_scale scale(bytes& in) {
    return static_cast<pare::score_scale>(in.up_to(2));
}

inline pare::importance_options options(bytes& in) {
    pare::importance_options o;
    o.scale = scale(in);
    o.length = in.number<double>();
    o.mask = mask(in);
    o.queries = counted(in);
    return o;
}

/// Equal but for roundings, as far as inputs and results are neither too large for that nor not finite.
template <class T>
bool alike(const bytes& in, const std::vector<T>& a, const std::vector<T>& b) {
    if (!in.moderate()) return true;
    if (a.size() != b.size()) return false;
    constexpr T large = 1e6;
    const auto is_small = [](T x) { return std::abs(x) < large; };
    if (!std::all_of(a.begin(), a.end(), is_small)) return true;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (is_small(b[i]) && !(std::abs(a[i] - b[i]) <= T(1e-3) * (1 + std::abs(a[i]))))
            return false;
    return true;
}

} // namespace fuzz
