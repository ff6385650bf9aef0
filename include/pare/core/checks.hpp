// Checks of index lists and offsets that several components share. Shapes are always checked; what
// is in memory that the host cannot read, only by calls that wait for a result from there anyway.
#pragma once

#include "config.hpp"
#include "error.hpp"

#include <limits>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// A user's integer, or the largest index where it is more: no limit at all.
template <class Integer>
constexpr index_t to_index(Integer x) {
    constexpr index_t most = std::numeric_limits<index_t>::max();
    if constexpr (std::is_unsigned_v<Integer> && sizeof(Integer) >= sizeof(index_t))
        return x > static_cast<Integer>(most) ? most : static_cast<index_t>(x);
    else
        return static_cast<index_t>(x);
}
/// a * b * ... of numbers >= 0, or the largest index where that is more.
constexpr index_t product(index_t a) {
    return a;
}
template <class... Numbers>
constexpr index_t product(index_t a, index_t b, Numbers... more) {
    constexpr index_t most = std::numeric_limits<index_t>::max();
    return product(b > 0 && a > most / b ? most : a * b, more...);
}

/// How many Ts an array of these extents >= 0 has. Throws shape_error where no memory has room for
/// them and one more.
template <class T>
index_t count_of(const char* function, index_t rows, index_t columns = 1) {
    constexpr index_t most = std::numeric_limits<index_t>::max() / static_cast<index_t>(sizeof(T));
    const index_t count = product(rows, columns);
    if (count >= most)
        fail<shape_error>(function, rows, " x ", columns, " numbers have no room in any memory");
    return count;
}

/// Whether `total` is `count` of `unit` each, for a count and a unit that may be any numbers: their
/// product may be none.
constexpr bool is_product(index_t total, index_t count, index_t unit) {
    return unit > 0 && total % unit == 0 && total / unit == count;
}

/// Whether numbers stand one behind another: of one alone, the stride is any.
template <class Vector>
constexpr bool is_contiguous(const Vector& x) {
    return x.extent(0) <= 1 || x.stride(0) == 1;
}

/// What is wrong with position i of a list that should ascend within 0 <= position < extent.
template <class Position>
struct misplaced {
    const Position* positions;
    index_t extent;
    constexpr bool operator()(index_t i) const {
        const index_t before = i > 0 ? static_cast<index_t>(positions[i - 1]) : -1;
        const index_t at = static_cast<index_t>(positions[i]);
        return at <= before || at >= extent;
    }
};
/// The same for offsets from 0 to `tokens`: i = 0 stands for their ends, i > 0 for offset i.
template <class Offset>
struct misplaced_offset {
    const Offset* offsets;
    index_t last, tokens;
    constexpr bool operator()(index_t i) const {
        if (i == 0) return offsets[0] != 0 || static_cast<index_t>(offsets[last]) != tokens;
        return static_cast<index_t>(offsets[i]) < static_cast<index_t>(offsets[i - 1]);
    }
};

/// Positions stand one after another, ascend, and are within 0 <= position < extent.
template <class Policy, class Positions>
void check_positions(const char* name, const Policy& policy, const Positions& p, index_t extent) {
    using Position = typename Positions::value_type;
    static_assert(std::is_integral_v<Position>, "pare: positions are integers");
    if (!is_contiguous(p)) fail<shape_error>(name, "positions have stride ", p.stride(0));
    if constexpr (Policy::on_host) {
        const misplaced<Position> wrong{p.data_handle(), extent};
        if (const index_t i = policy.first(p.extent(0), wrong); i >= 0)
            fail<value_error>(name, "position ", i, " is ", p(i), ", which does not ascend below ",
                              extent);
    }
}

/// Offsets of packed sequences: one more than there are sequences, from 0 to the number of tokens.
/// `waits`: the call waits for the policy's work anyway.
template <class Policy, class Offsets>
void check_offsets(const char* name, const Policy& policy, const Offsets& offsets, index_t tokens,
                   bool waits = false) {
    using Offset = typename Offsets::value_type;
    static_assert(std::is_integral_v<Offset>, "pare: offsets are integers");
    const index_t last = offsets.extent(0) - 1;
    if (last < 0) fail<shape_error>(name, "no offsets; of no sequences they are one 0");
    if (!is_contiguous(offsets)) fail<shape_error>(name, "offsets have stride ", offsets.stride(0));
    if (!Policy::on_host && !waits) return;
    const misplaced_offset<Offset> wrong{offsets.data_handle(), last, tokens};
    const auto value = [&](index_t i) { return policy.read(offsets.data_handle() + i); };
    const index_t i = policy.first(last + 1, wrong);
    if (i == 0)
        fail<shape_error>(name, "offsets go from ", value(0), " to ", value(last), ", there are ",
                          tokens, " tokens");
    if (i > 0) fail<shape_error>(name, "offset ", i, " is ", value(i), " after ", value(i - 1));
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
