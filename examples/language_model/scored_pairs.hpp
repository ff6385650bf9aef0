// Byte-pair encoding as SentencePiece has it: what two neighbours make together is a token or not, and
// tokens have scores.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace language {

/// Again and again those two neighbours become one that make the token of the highest score and, of
/// these, the first two. What is left over, characters, are tokens or those of their bytes.
class scored_pairs {
  public:
    struct token {
        std::string text;
        std::int32_t id;
        double score;
    };
    /// `bytes`: ids of the tokens <0x00> to <0xFF>.
    scored_pairs(std::vector<token> tokens, const std::array<std::int32_t, 256>& bytes);
    scored_pairs(const scored_pairs&) = delete;
    scored_pairs& operator=(const scored_pairs&) = delete;

    /// Appends the ids of some UTF-8. Time grows with it by a logarithm more.
    void append(std::string_view text, std::vector<std::int32_t>& to) const;

  private:
    const token* find(std::string_view text) const;

    std::vector<token> tokens_;
    std::unordered_map<std::string_view, const token*> by_text_; ///< into tokens_
    std::size_t longest_ = 0;
    std::array<std::int32_t, 256> bytes_;
};

} // namespace language
