// What becomes of texts: the ids of their tokens, which a network takes in batches.
#pragma once

#include <cstdint>
#include <vector>

namespace encoder {

/// A token's id may have `pinned` added to it: that token is never dropped, as those of a question that
/// is asked of the tokens behind it.
using sequence = std::vector<std::int32_t>;
inline constexpr std::int32_t pinned = 1 << 30;
inline std::int32_t without_pin(std::int32_t id) {
    return id & (pinned - 1);
}

/// Sequences one after another, without padding: sequence s is ids[offsets[s]] .. ids[offsets[s +
/// 1]]. A token of type t has the id of its word plus t * config.vocabulary, as if each type had a
/// vocabulary of its own.
struct batch {
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> offsets = {0};
    std::vector<char> pins; ///< 1 for tokens that stay [tokens], or empty if there are none

    std::int64_t tokens() const { return offsets.back(); }
    std::int64_t sequences() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
    void append(const sequence& s) {
        for (std::int32_t id : s) {
            if (id >= pinned) {
                id -= pinned;
                pins.resize(ids.size());
                pins.push_back(1);
            }
            ids.push_back(id);
        }
        if (!pins.empty()) pins.resize(ids.size());
        offsets.push_back(static_cast<std::int64_t>(ids.size()));
    }
};

} // namespace encoder
