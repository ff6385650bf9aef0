// The keys and values of a text that a decoder has read, of which groups of heads may keep different
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

/// Of one layer: keys and values [groups x room x head size], of which the first lengths[g] of a
/// group are there, and the places in the text that they are from.
class layer_cache {
  public:
    layer_cache(const shape& c, index_t room)
        : groups_(c.groups), room_(room), size_(c.head_size()),
          keys_(static_cast<std::size_t>(groups_ * room_ * size_)), values_(keys_.size()),
          places_(static_cast<std::size_t>(groups_ * room_)),
          lengths_(static_cast<std::size_t>(groups_)), rooms_(lengths_.size() + 1) {
        for (std::size_t g = 0; g < rooms_.size(); ++g)
            rooms_[g] = static_cast<std::int32_t>(static_cast<index_t>(g) * room_);
    }

    index_t groups() const { return groups_; }
    index_t room() const { return room_; }
    index_t length(index_t g) const { return lengths_[static_cast<std::size_t>(g)]; }
    const std::vector<std::int32_t>& lengths() const { return lengths_; }
    /// A group is a sequence to pare::attention: [groups * room x 1 x head size].
    pare::view<const float, 3> keys() const { return {keys_.data(), groups_ * room_, 1, size_}; }
    pare::view<const float, 3> values() const {
        return {values_.data(), groups_ * room_, 1, size_};
    }
    const std::vector<std::int32_t>& rooms() const { return rooms_; }
    /// Of group g, where its keys are from.
    const std::int32_t* places(index_t g) const { return places_.data() + g * room_; }

    /// Adds rows of k and v, [tokens x groups * head size], which stand at `place` and on in the text.
    /// Throws std::invalid_argument where there is no room for them.
    void append(const matrix& k, const matrix& v, index_t place) {
        for (const auto length : lengths_)
            if (length + k.rows() > room_)
                throw std::invalid_argument(std::to_string(k.rows()) + " keys behind " +
                                            std::to_string(length) + " in room for " +
                                            std::to_string(room_));
        for (index_t g = 0; g < groups_; ++g)
            for (index_t i = 0; i < k.rows(); ++i) {
                const index_t row = g * room_ + lengths_[static_cast<std::size_t>(g)]++;
                std::copy_n(k.row(i).data() + g * size_, size_, keys_.data() + row * size_);
                std::copy_n(v.row(i).data() + g * size_, size_, values_.data() + row * size_);
                places_[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(place + i);
            }
    }
    /// Group g keeps only these keys, ascending.
    void keep(index_t g, const pare::view<const std::int32_t, 1>& kept) {
        const auto n = length(g);
        pare::gather_rows(pare::simd, kept, pare::view(keys_.data() + g * room_ * size_, n, size_),
                          pare::view(values_.data() + g * room_ * size_, n, size_),
                          pare::view(places_.data() + g * room_, n));
        lengths_[static_cast<std::size_t>(g)] = static_cast<std::int32_t>(kept.extent(0));
    }
    void clear() { std::fill(lengths_.begin(), lengths_.end(), 0); }

  private:
    index_t groups_, room_, size_;
    std::vector<float> keys_, values_;
    std::vector<std::int32_t> places_, lengths_, rooms_;
};

using cache = std::vector<layer_cache>; ///< of all layers

} // namespace language
