// A part of a text.
#pragma once

#include <cstddef>

namespace encoder {

/// Bytes of a text, the last one not in it.
struct text_range {
    std::size_t begin, end;
};

} // namespace encoder
