// What becomes of texts: the ids of their tokens, which a network takes in batches.
#pragma once

#include <cstdint>
#include <vector>

namespace encoder {

using sequence = std::vector<std::int32_t>;

/// Sequences one after another, without padding: sequence s is ids[offsets[s]] .. ids[offsets[s +
/// 1]]. A token of type t has the id of its word plus t * config.vocabulary, as if each type had a
/// vocabulary of its own.
struct batch {
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> offsets = {0};

    std::int64_t tokens() const { return offsets.back(); }
    std::int64_t sequences() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
    void append(const sequence& s) {
        ids.insert(ids.end(), s.begin(), s.end());
        offsets.push_back(static_cast<std::int64_t>(ids.size()));
    }
};

} // namespace encoder
