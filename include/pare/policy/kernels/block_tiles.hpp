// Which block of threads has which tokens, and how their rows come into memory that it shares.
#pragma once

#include "../../core/attention.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"

#include <cstdint>
#include <cstring>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Whether each row of x along its last extent begins where a pack may, and is whole packs.
template <class T, int Rank>
bool in_packs(const view<T, Rank>& x) {
    return rows_in_packs(x) && x.extent(Rank - 1) % pack<std::remove_const_t<T>>::size == 0;
}

/// Strips of `size` tokens. A sequence has as many as it may need wherever it begins, so that the
/// host can count all strips without its length; some have no tokens.
template <class Call>
index_t strips_of_all(const Call& call, index_t tokens, index_t size) {
    return tokens / size + call.sequences;
}
struct strip_place {
    index_t sequence, first; // token of the sequence
};
template <class Call>
PARE_HD strip_place strip_at(const Call& call, index_t strip, index_t size) {
    index_t s = 0, end = call.sequences;
    while (s + 1 < end) {
        const index_t middle = (s + end) / 2;
        if (call.begin(middle) / size + middle <= strip)
            s = middle;
        else
            end = middle;
    }
    return {s, (strip - call.begin(s) / size - s) * size};
}

/// Rows `from` and on of x, to 64 rows of a tile that are `stride` apart; zeros from row `end` and
/// beyond the columns.
template <int Width, class T>
PARE_HD void load_tile(int thread, const view<const T, 3>& x, bool packed, index_t head,
                       index_t from, index_t end, T* tile, int stride) {
    constexpr int rows = 64;
    const int columns = static_cast<int>(x.extent(2));
    if (packed) {
        constexpr int size = pack<T>::size, in_row = Width / size;
        for (int i = thread; i < rows * in_row; i += thread_block::size) {
            const int r = i / in_row, c = i % in_row * size;
            pack<T> some{};
            if (from + r < end && c < columns)
                some = *reinterpret_cast<const pack<T>*>(&x(from + r, head, c));
            for (int e = 0; e < size; ++e) tile[r * stride + c + e] = some.of[e];
        }
    } else {
        for (int i = thread; i < rows * Width; i += thread_block::size) {
            const int r = i / Width, c = i % Width;
            const bool inside = from + r < end && c < columns;
            tile[r * stride + c] = inside ? x(from + r, head, c) : static_cast<T>(0);
        }
    }
}

/// Which queries see a key, in numbers of 32 bits.
struct narrow_mask {
    bool causal;
    int window, n;

    PARE_HD narrow_mask(const attention_mask& mask, index_t length)
        : causal(mask.causal),
          window(static_cast<int>(mask.window > 0 && mask.window < length ? mask.window : length)),
          n(static_cast<int>(length)) {}
    PARE_HD bool sees(int query, int key) const {
        const int distance = query - key;
        return key < n && (distance >= 0 ? distance < window : !causal && -distance < window);
    }
    /// Whether each query of first <= q < end sees each key of begin <= k < keys_end <= n.
    PARE_HD bool all_see(int first, int end, int begin, int keys_end) const {
        return sees(first, keys_end - 1) && sees(end - 1, begin) && sees(first, begin) &&
               sees(end - 1, keys_end - 1);
    }
};

/// Of each query and head, the largest logit and the sum of the exponentials of logits less it,
/// [heads x tokens] each; or null where nobody asks.
template <class C>
struct softmax_rows {
    C *most, *total;
    index_t tokens;

    PARE_HD void store(index_t token, index_t head, C most_of, C total_of) const {
        if (!most) return;
        most[head * tokens + token] = most_of;
        total[head * tokens + token] = total_of;
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
