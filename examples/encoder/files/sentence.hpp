// Errors in one sentence.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace encoder {

/// `text` on one line that ends soon, whatever stands in it: what files say is part of sentences.
/// Control characters and bytes that are not UTF-8 become \xNN, and then the middle of more than 1,000
/// bytes is left out. What it returns it leaves as it is.
std::string on_one_line(std::string_view text);

/// A file or folder that cannot be used; what() is one sentence that names it.
struct file_error : std::runtime_error {
    explicit file_error(const std::string& sentence) : std::runtime_error(on_one_line(sentence)) {}
};

} // namespace encoder
