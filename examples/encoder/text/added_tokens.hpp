// Tokens that stand for themselves wherever they are written in a text.
#pragma once

#include "prefixes.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace encoder::detail {

struct added_token {
    std::string content;
    std::int32_t id = 0;
    bool single_word = false; ///< only where no letter or digit is beside it
    bool lstrip = false;      ///< takes the whitespace before it
    bool rstrip = false;      ///< takes the whitespace after it
    bool normalized = false;  ///< is looked for in the normalized text
};

class added_tokens {
  public:
    static constexpr std::int32_t none = -1;
    struct segment {
        std::size_t begin, end;
        std::int32_t id; ///< none: text between tokens
    };

    added_tokens() = default;
    explicit added_tokens(std::vector<added_token> all);

    /// The text cut at the tokens, of which the first one counts and, of those that begin there,
    /// the longest. As in the reference, whitespace that a token takes after it may be another one.
    std::vector<segment> find(std::string_view text) const;

  private:
    const added_token* longest_at(std::string_view text) const;

    std::vector<added_token> all_;
    prefixes contents_; // with places in all_
};

} // namespace encoder::detail
