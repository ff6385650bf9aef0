#include "normalize.hpp"
#include "unicode.hpp"

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace encoder::detail {
namespace {

/// Throws file_error for what is not base64.
std::string decode_base64(const std::filesystem::path& file, const std::string& text) {
    const std::string_view digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3);
    std::uint32_t bits = 0;
    int count = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto digit = digits.find(text[i]);
        if (digit == digits.npos) {
            if (text.size() - i <= 2 && text.find_first_not_of('=', i) == text.npos) break;
            fail(file, "precompiled_charsmap is not base64 at byte ", i);
        }
        bits = bits << 6 | static_cast<std::uint32_t>(digit);
        if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 0xffu);
    }
    return bytes;
}

/// A double-array trie whose values are places in a list of texts that end with zeros.
class charsmap {
  public:
    charsmap(const std::filesystem::path& file, const std::string& bytes) {
        std::uint32_t size = 0; // bytes of the trie
        if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
        if (size == 0 || size % sizeof size != 0 || size > bytes.size() - sizeof size)
            fail(file, "precompiled_charsmap has ", bytes.size(),
                 " bytes, its trie alone is said to have ", size);
        units_.resize(size / sizeof size);
        std::memcpy(units_.data(), bytes.data() + sizeof size, size);
        texts_ = bytes.substr(sizeof size + size);
    }

    /// What stands for the shortest beginning of `text` that the trie holds; null if it holds none.
    const char* find(std::string_view text) const {
        std::size_t at = 0;
        if (!follow(at, 0)) return nullptr;
        for (const char c : text) {
            const auto byte = static_cast<unsigned char>(c);
            if (byte == 0) return nullptr;
            std::size_t next = at ^ byte;
            if (next >= units_.size() || label(units_[next]) != byte) return nullptr;
            const bool ends = has_leaf(units_[next]);
            if (!follow(next, next)) return nullptr;
            at = next;
            if (!ends) continue;
            const std::size_t place = units_[at] & 0x7fffffffu;
            if (place >= texts_.size()) return nullptr;
            const char* const found = texts_.c_str() + place;
            const std::string_view bounded(found, ::strnlen(found, longest_text + 1));
            return bounded.size() <= longest_text && find_invalid(bounded) == bounded.npos
                       ? found
                       : nullptr;
        }
        return nullptr;
    }

    void operator()(std::string& text) const {
        constexpr std::size_t longest = 5; // bytes of a cluster that is looked up whole
        std::string mapped;
        for_graphemes(text, [&](std::size_t begin, std::size_t end) {
            const std::string_view whole(text.data() + begin, end - begin);
            const char* const found = whole.size() <= longest ? find(whole) : nullptr;
            if (found != nullptr) {
                mapped += found;
                check_growth(mapped.size());
                return;
            }
            for (std::size_t at = 0; at < whole.size();) {
                const std::size_t from = at;
                next_character(whole, at);
                const std::string_view part = whole.substr(from, at - from);
                const char* const other = find(part);
                if (other != nullptr)
                    mapped += other;
                else
                    mapped += part;
                check_growth(mapped.size());
            }
        });
        text = std::move(mapped);
    }

  private:
    static constexpr std::size_t longest_text = 1 << 10; // so that a text grows with bounds
    static std::uint32_t label(std::uint32_t unit) { return unit & 0x800000ffu; }
    static bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
    /// From unit `of` to its children.
    bool follow(std::size_t& at, std::size_t of) const {
        const std::uint32_t unit = units_[of];
        at = of ^ static_cast<std::size_t>(unit >> 10) << ((unit & 0x200u) >> 6);
        return at < units_.size();
    }

    std::vector<std::uint32_t> units_;
    std::string texts_;
};

} // namespace

normalizer make_charsmap(const std::filesystem::path& file, const std::string& base64) {
    const auto map = std::make_shared<const charsmap>(file, decode_base64(file, base64));
    return traced([map](std::string& text) { (*map)(text); });
}

} // namespace encoder::detail
