// Tokens that leave in no case.
#pragma once

#include "view.hpp"

#include <cstdint>

namespace pare {
inline namespace PARE_ISA {

/// Tokens that are kept whatever their score: pare::pins{1} for [CLS], pare::pins{1, 1} for [SEP]
/// too, pare::pins{4, 32} for the sinks and the window of a decoder.
struct pins {
    index_t first = 0;                      ///< so many at the start of each sequence
    index_t last = 0;                       ///< and so many at its end
    view<const std::uint8_t, 1> flags = {}; ///< [tokens], those that are not 0; or empty
};

} // namespace PARE_ISA
} // namespace pare
