// A loss that needs no targets, for the gradients of language models and classifiers.
#pragma once

#include "core/error.hpp"
#include "core/ops.hpp"
#include "core/view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// gradients[t, :] = softmax(logits[t, :]) less 1 at a class that is drawn from it: what a loss without
/// targets has for a gradient, whose squares are the Fisher information of the classes.
///
/// logits, gradients  [tokens x classes], in the host's memory; may be the same
/// seed               what is drawn for a token depends on it and on t alone
///
/// Throws shape_error. NaN goes through.
template <class Logits, class Gradients>
void draw_class_gradients(const Logits& logits, std::uint64_t seed, Gradients&& gradients) {
    const auto x = as_input<2>(logits);
    const auto g = as_output<2>(std::forward<Gradients>(gradients));
    using T = typename decltype(g)::value_type;
    detail::check_real<typename decltype(x)::value_type, T>();
    const index_t classes = x.extent(1);
    if (g.extent(0) != x.extent(0) || g.extent(1) != classes)
        detail::fail<shape_error>("draw_class_gradients", "logits are ", x.extent(0), " x ",
                                  classes, ", gradients ", g.extent(0), " x ", g.extent(1));
    std::vector<double> p(static_cast<std::size_t>(classes));
    for (index_t t = 0; t < x.extent(0) && classes > 0; ++t) {
        double most = detail::to_double(x(t, 0)), sum = 0;
        for (index_t c = 1; c < classes; ++c) most = std::max(most, detail::to_double(x(t, c)));
        for (index_t c = 0; c < classes; ++c)
            sum += p[static_cast<std::size_t>(c)] = std::exp(detail::to_double(x(t, c)) - most);
        // splitmix64 of the token's number: 53 bits of it are a number in [0, 1).
        std::uint64_t bits = seed + (static_cast<std::uint64_t>(t) + 1) * 0x9e3779b97f4a7c15u;
        bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
        bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
        double left = static_cast<double>((bits ^ (bits >> 31)) >> 11) * 0x1p-53 * sum;
        index_t drawn = 0;
        while (drawn < classes - 1 && left >= p[static_cast<std::size_t>(drawn)])
            left -= p[static_cast<std::size_t>(drawn++)];
        for (index_t c = 0; c < classes; ++c)
            g(t, c) =
                detail::from_double<T>(p[static_cast<std::size_t>(c)] / sum - (c == drawn ? 1 : 0));
    }
}

} // namespace PARE_ISA
} // namespace pare
