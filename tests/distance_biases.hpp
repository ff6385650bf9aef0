// Biases by relative position for tests of attention, and what they add by definition.
#pragma once

#include "support.hpp"
#include <pare/core/view.hpp>

#include <cstdint>
#include <vector>

/// A table [heads x (2 * most + 1)] of which every second number is used; poison is between them.
template <class T>
class distance_table {
  public:
    distance_table(index_t heads, index_t most, random_source& random)
        : heads_(heads), most_(most),
          numbers_(static_cast<std::size_t>(heads * stride()), poison<T>()) {
        for (index_t h = 0; h < heads; ++h)
            for (index_t d = -most; d <= most; ++d) at(h, d) = random.uniform<T>(-2, 2);
    }
    T& at(index_t head, index_t distance) {
        return numbers_[static_cast<std::size_t>(head * stride() + 2 * (most_ + distance))];
    }
    pare::view<const T, 2> view() const {
        return {numbers_.data(), {heads_, 2 * most_ + 1}, {stride(), 2}};
    }

  private:
    index_t stride() const { return 4 * most_ + 5; }

    index_t heads_, most_;
    std::vector<T> numbers_;
};

/// Positions that ascend within each sequence, with gaps.
inline std::vector<std::int32_t> random_positions(const std::vector<int>& offsets,
                                                  random_source& random) {
    std::vector<std::int32_t> positions;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        index_t at = random.integer(0, 3);
        for (int t = offsets[s]; t < offsets[s + 1]; ++t, at += random.integer(1, 4))
            positions.push_back(static_cast<std::int32_t>(at));
    }
    return positions;
}

/// From query i to key j of the sequence that begins at `at`.
template <class Options>
index_t biased_distance(const Options& o, index_t at, index_t i, index_t j) {
    if (o.positions.extent(0) == 0) return j - i;
    return static_cast<index_t>(o.positions(at + j)) - static_cast<index_t>(o.positions(at + i));
}

/// What a table adds there: its end's where a distance is beyond it.
template <class T>
T bias_at(const pare::view<const T, 2>& table, index_t head, index_t distance) {
    const index_t most = (table.extent(1) - 1) / 2;
    if (distance < -most) return table(head, 0);
    if (distance > most) return table(head, 2 * most);
    return table(head, distance + most);
}
