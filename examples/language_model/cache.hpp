// The keys and values of texts that a decoder has read, of which groups of heads may keep different
// ones.
#pragma once

#include "model.hpp"

#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace language {

/// Of one layer: keys and values [texts * groups x room x head size], and the places in the text
/// that they are from. A group of a text is a sequence, of which the first lengths[sequence] are
/// there.
class layer_cache {
  public:
    layer_cache(index_t groups, index_t size, index_t room, index_t texts = 1)
        : groups_(groups), sequences_(texts * groups), room_(room), size_(size),
          keys_(static_cast<std::size_t>(sequences_ * room_ * size_)), values_(keys_.size()),
          places_(static_cast<std::size_t>(sequences_ * room_)),
          lengths_(static_cast<std::size_t>(sequences_)), rooms_(lengths_.size() + 1) {
        for (std::size_t s = 0; s < rooms_.size(); ++s)
            rooms_[s] = static_cast<std::int32_t>(static_cast<index_t>(s) * room_);
    }

    index_t sequences() const { return sequences_; }
    index_t room() const { return room_; }
    index_t length(index_t s) const { return lengths_[static_cast<std::size_t>(s)]; }
    const std::vector<std::int32_t>& lengths() const { return lengths_; }
    /// As pare::attention takes them: [sequences * room x 1 x head size].
    pare::view<const float, 3> keys() const { return {keys_.data(), sequences_ * room_, 1, size_}; }
    pare::view<const float, 3> values() const {
        return {values_.data(), sequences_ * room_, 1, size_};
    }
    const std::vector<std::int32_t>& rooms() const { return rooms_; }
    /// Where the keys of a sequence are from.
    const std::int32_t* places(index_t s) const { return places_.data() + s * room_; }

    /// Adds rows of k and v, [tokens x groups * head size]: offsets[i] .. offsets[i + 1] to text i,
    /// where they stand at places[i] and on. Throws std::invalid_argument where there is no room.
    void append(const matrix& k, const matrix& v, const std::vector<index_t>& offsets,
                const std::vector<index_t>& places) {
        const auto of_text = [&](index_t s) { return static_cast<std::size_t>(s / groups_); };
        const auto added = [&](index_t s) { return offsets[of_text(s) + 1] - offsets[of_text(s)]; };
        for (index_t s = 0; s < sequences_; ++s)
            if (length(s) + added(s) > room_)
                throw std::invalid_argument(std::to_string(added(s)) + " keys behind " +
                                            std::to_string(length(s)) + " in room for " +
                                            std::to_string(room_));
        for (index_t s = 0; s < sequences_; ++s)
            for (index_t i = 0; i < added(s); ++i) {
                const index_t from = offsets[of_text(s)] + i, first = s % groups_ * size_;
                const index_t to = s * room_ + lengths_[static_cast<std::size_t>(s)]++;
                std::copy_n(k.row(from).data() + first, size_, keys_.data() + to * size_);
                std::copy_n(v.row(from).data() + first, size_, values_.data() + to * size_);
                places_[static_cast<std::size_t>(to)] =
                    static_cast<std::int32_t>(places[of_text(s)] + i);
            }
    }
    /// A sequence keeps only these keys, ascending.
    void keep(index_t s, const pare::view<const std::int32_t, 1>& kept) {
        const auto n = length(s);
        pare::gather_rows(pare::simd, kept, pare::view(keys_.data() + s * room_ * size_, n, size_),
                          pare::view(values_.data() + s * room_ * size_, n, size_),
                          pare::view(places_.data() + s * room_, n));
        lengths_[static_cast<std::size_t>(s)] = static_cast<std::int32_t>(kept.extent(0));
    }
    /// That many texts whose keys are all those of this one, and room for `more` behind them. Throws
    /// std::invalid_argument unless it is the cache of one text.
    layer_cache copies(index_t texts, index_t more) const {
        if (sequences_ != groups_)
            throw std::invalid_argument("copies are made of a cache of one text, not of " +
                                        std::to_string(sequences_ / groups_));
        const index_t room = *std::max_element(lengths_.begin(), lengths_.end()) + more;
        layer_cache to(groups_, size_, room, texts);
        for (index_t s = 0; s < to.sequences_; ++s) {
            const index_t g = s % groups_, n = length(g), from = g * room_, at = s * room;
            std::copy_n(keys_.data() + from * size_, n * size_, to.keys_.data() + at * size_);
            std::copy_n(values_.data() + from * size_, n * size_, to.values_.data() + at * size_);
            std::copy_n(places_.data() + from, n, to.places_.data() + at);
            to.lengths_[static_cast<std::size_t>(s)] = static_cast<std::int32_t>(n);
        }
        return to;
    }

  private:
    index_t groups_, sequences_, room_, size_;
    std::vector<float> keys_, values_;
    std::vector<std::int32_t> places_, lengths_, rooms_;
};

using cache = std::vector<layer_cache>; ///< of all layers

/// Of nothing yet, with the same room in all layers.
inline cache make_cache(const model& m, index_t room, index_t texts = 1) {
    cache c;
    for (const layer& l : m.layers)
        c.emplace_back(groups_of(l, m.config), m.config.head_size, room, texts);
    return c;
}

} // namespace language
