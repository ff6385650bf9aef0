// Errors: a call checks its arguments, then works without failing. A failed check throws shape_error or
// value_error with one sentence that holds the numbers, before anything is written.
#pragma once

#include "config.hpp"
#include "fast_math.hpp"

#include <cstdio>
#include <cstdlib>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace pare {

// Outside of the namespace of the instruction set, so that a host can catch what a unit built with
// other flags throws, and handles its errors: nothing of them is vectorised.

/// Base of what pare throws.
struct error : std::runtime_error {
    using std::runtime_error::runtime_error;
};
/// Extents that do not fit together.
struct shape_error : error {
    using error::error;
};
/// A number that cannot be worked with: NaN, infinity, a negative ridge, an index out of range.
struct value_error : error {
    using error::error;
};
/// A call of CUDA or of its libraries that failed, with its name.
struct device_error : error {
    using error::error;
};

/// In units without exceptions a failed check calls this, or prints to stderr where it is null, and
/// then aborts. Replace it, from any unit, to report elsewhere.
inline void (*error_handler)(const char* sentence) = nullptr;

inline namespace PARE_ISA {
namespace detail {

template <class Part, class = void>
inline constexpr bool has_output = false;
template <class Part>
inline constexpr bool has_output<
    Part, std::void_t<decltype(std::declval<std::ostream&>() << std::declval<const Part&>())>> =
    true;

/// A part of a sentence as it is written: integers of one byte, which streams take for characters,
/// as numbers, since text is of more than one; and what no stream takes, half types, as float.
template <class Part>
decltype(auto) written(const Part& part) {
    if constexpr (std::is_integral_v<Part> && sizeof(Part) == 1)
        return static_cast<int>(part);
    else if constexpr (has_output<Part>)
        return (part);
    else
        return static_cast<float>(part);
}

/// Throws Error("pare::" function ": " parts...).
template <class Error, class... Parts>
[[noreturn]] void fail(const char* function, const Parts&... parts) {
    std::ostringstream sentence;
    sentence.imbue(std::locale::classic()); // the host's may group digits
    sentence << "pare::" << function << ": ";
    (sentence << ... << written(parts));
#if defined(__cpp_exceptions)
    throw Error(sentence.str());
#else
    if (error_handler)
        error_handler(sentence.str().c_str());
    else
        std::fprintf(stderr, "%s\n", sentence.str().c_str());
    std::abort();
#endif
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
