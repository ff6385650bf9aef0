// Regular expressions of tokenizers.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace encoder::detail {

struct span {
    std::size_t begin, end; ///< bytes
    bool is_match = true;
};

/// A regular expression as the reference (Oniguruma) has it, over UTF-8 with Unicode's classes.
/// Safe for concurrent calls.
class pattern {
  public:
    /// Throws file_error, which names `file`, for an expression that is not understood, or that
    /// would be understood otherwise here.
    pattern(const std::filesystem::path& file, const std::string& expression);

    /// All of `text`: where the expression matches, one match after another, and what is between.
    /// Throws std::invalid_argument, which names the file and how the text begins, where finding a
    /// match takes more than 100,000 steps. As in the reference, time is quadratic in what nearly
    /// matches from each of its places: a run of spaces that ends no line, for \s+$.
    std::vector<span> spans(std::string_view text) const;

  private:
    std::shared_ptr<const void> code_;
    std::filesystem::path file_;
    std::string expression_;
};

} // namespace encoder::detail
