// Texts that another one begins with.
#pragma once

#include "encoder/files/file.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace encoder::detail {

/// Throws where a token of `file` is so long that looking for it at every place of a text takes for
/// ever.
inline void check_length(const std::filesystem::path& file, std::string_view token) {
    constexpr std::size_t most = 1024;
    if (token.size() > most)
        fail(file, "has a token of ", token.size(), " bytes, which begins with '",
             token.substr(0, 20), "'; up to ", most, " are read");
}

/// A sorted list of texts with numbers. Finding takes time for each byte that is looked at, times
/// the logarithm of the list's length.
class prefixes {
  public:
    using entry = std::pair<std::string, std::int32_t>;

    prefixes() : prefixes(std::vector<entry>{}) {}
    /// Of equal texts the last one counts.
    explicit prefixes(std::vector<entry> all) : all_(std::move(all)) {
        std::stable_sort(all_.begin(), all_.end(),
                         [](const entry& a, const entry& b) { return a.first < b.first; });
        const auto kept =
            std::unique(all_.rbegin(), all_.rend(),
                        [](const entry& a, const entry& b) { return a.first == b.first; });
        all_.erase(all_.begin(), kept.base());
        for (const entry& e : all_)
            if (!e.first.empty()) ++ends_[static_cast<unsigned char>(e.first[0]) + 1u];
        ends_[0] = !all_.empty() && all_[0].first.empty() ? 1 : 0;
        for (std::size_t i = 1; i < ends_.size(); ++i) ends_[i] += ends_[i - 1];
    }

    bool empty() const { return all_.empty(); }

    /// Calls visit(length, number) for each one but the empty one that `text` begins with, shortest
    /// first.
    template <class Visit>
    void for_each(std::string_view text, const Visit& visit) const {
        if (text.empty()) return;
        const auto first = static_cast<unsigned char>(text[0]);
        auto from = all_.begin() + static_cast<std::ptrdiff_t>(ends_[first]);
        auto to = all_.begin() + static_cast<std::ptrdiff_t>(ends_[first + 1u]);
        for (std::size_t length = 1; from != to; ++length) {
            if (from->first.size() == length) {
                visit(length, from->second);
                ++from;
            }
            if (length == text.size()) return;
            const auto byte = static_cast<unsigned char>(text[length]);
            const auto byte_of = [length](const entry& e) {
                return static_cast<unsigned char>(e.first[length]);
            };
            from = std::lower_bound(
                from, to, byte, [&](const entry& e, unsigned char b) { return byte_of(e) < b; });
            to = std::upper_bound(from, to, byte,
                                  [&](unsigned char b, const entry& e) { return b < byte_of(e); });
        }
    }

  private:
    std::vector<entry> all_;
    std::array<std::size_t, 257> ends_{}; // where those with a smaller first byte end
};

} // namespace encoder::detail
