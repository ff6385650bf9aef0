// Checks of index lists and offsets that several components share.
#pragma once

#include "config.hpp"
#include "error.hpp"

#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Positions stand one after another, ascend, and are within 0 <= position < extent.
template <class Positions>
void check_positions(const char* name, const Positions& p, index_t extent) {
    static_assert(std::is_integral_v<typename Positions::value_type>,
                  "pare: positions are integers");
    if (p.extent(0) > 0 && p.stride(0) != 1)
        fail<shape_error>(name, "positions have stride ", p.stride(0));
    index_t last = -1;
    for (index_t i = 0; i < p.extent(0); ++i) {
        const index_t at = static_cast<index_t>(p(i));
        if (at <= last || at >= extent)
            fail<value_error>(name, "position ", i, " is ", at, ", which does not ascend below ",
                              extent);
        last = at;
    }
}

/// Offsets of packed sequences: one more than there are sequences, from 0 to the number of tokens.
template <class Offsets>
void check_offsets(const char* name, const Offsets& offsets, index_t tokens) {
    static_assert(std::is_integral_v<typename Offsets::value_type>, "pare: offsets are integers");
    const index_t last = offsets.extent(0) - 1;
    if (last < 0) fail<shape_error>(name, "no offsets; of no sequences they are one 0");
    if (offsets.stride(0) != 1) fail<shape_error>(name, "offsets have stride ", offsets.stride(0));
    if (offsets(0) != 0 || static_cast<index_t>(offsets(last)) != tokens)
        fail<shape_error>(name, "offsets go from ", offsets(0), " to ", offsets(last),
                          ", there are ", tokens, " tokens");
    for (index_t s = 0; s < last; ++s)
        if (static_cast<index_t>(offsets(s + 1)) < static_cast<index_t>(offsets(s)))
            fail<shape_error>(name, "offset ", s + 1, " is ", offsets(s + 1), " after ",
                              offsets(s));
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
