#include "subwords.hpp"
#include "unicode.hpp"

#include <algorithm>

namespace encoder::detail {
namespace {

class word_piece final : public subwords {
  public:
    word_piece(const settings& given, const word_ids& ids)
        : ids_(ids), prefix_(given.text("continuing_subword_prefix", "##")),
          most_(static_cast<std::size_t>(
              given.count("max_input_chars_per_word", 0, 1000).value_or(100))) {
        const std::string unknown = given.text("unk_token", "[UNK]");
        const auto found = ids_.find(unknown);
        if (found == ids_.end()) fail(given.file(), "lacks the token ", unknown);
        unknown_ = found->second;
        for (const auto& [word, id] : ids_) longest_ = std::max(longest_, word.size());
    }

    void append(const std::string& word, token_list& to) const override {
        const std::size_t before = to.ids.size();
        std::size_t characters = 0;
        for (std::size_t at = 0; at < word.size(); ++at) characters += begins_character(word, at);
        bool is_known = characters <= most_;

        std::string piece;
        for (std::size_t at = 0; at < word.size() && is_known;) {
            std::size_t length = std::min(word.size() - at, longest_);
            piece.assign(at == 0 ? "" : prefix_).append(word, at, length);
            auto found = ids_.end();
            for (; length > 0; --length, piece.pop_back())
                if (begins_character(word, at + length) && (found = ids_.find(piece)) != ids_.end())
                    break;
            is_known = found != ids_.end();
            if (is_known) to.add(found->second, {at, at + length});
            at += length;
        }
        if (!is_known) {
            to.resize(before);
            to.add(unknown_, {0, word.size()});
        }
    }

  private:
    const word_ids& ids_; // outlives this
    std::string prefix_;
    std::size_t most_, longest_ = 0; // characters of a word; bytes of a token
    std::int32_t unknown_;
};

} // namespace

std::unique_ptr<subwords> make_word_piece(const settings& given, const word_ids& ids) {
    return std::make_unique<word_piece>(given, ids);
}

} // namespace encoder::detail
