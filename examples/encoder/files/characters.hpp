// Texts character by character, whatever bytes they are.
#pragma once

#include <utf8proc.h>

#include <cstddef>
#include <string_view>

namespace encoder {

/// use(bytes, character) for each character, or for a byte that is of none with -1.
template <class Use>
void for_characters(std::string_view text, const Use& use) {
    while (!text.empty()) {
        utf8proc_int32_t character = -1;
        const utf8proc_ssize_t read =
            utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                             static_cast<utf8proc_ssize_t>(text.size()), &character);
        const std::size_t size = read < 1 ? 1 : static_cast<std::size_t>(read);
        use(text.substr(0, size), read < 1 ? -1 : character);
        text.remove_prefix(size);
    }
}

} // namespace encoder
