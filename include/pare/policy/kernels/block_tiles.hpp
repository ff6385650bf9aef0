// Which block of threads has which tokens, and how their rows come into memory that it shares.
#pragma once

#include "../../core/attention_calls.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Whether each row of x along its last extent begins where a pack may, and is whole packs; and
/// strides have 32 bits.
template <class T, int Rank>
bool in_packs(const view<T, Rank>& x) {
    for (int i = 0; i + 1 < Rank; ++i)
        if (x.extent(i) > 1 && (x.stride(i) < 0 || x.stride(i) > std::numeric_limits<int>::max()))
            return false;
    return rows_in_packs(x) && x.extent(Rank - 1) % pack<std::remove_const_t<T>>::size == 0;
}

/// Strips of `size` tokens, queries or keys. A sequence has as many as it may need wherever it begins,
/// so that the host can count all strips without its length; some have no tokens.
template <class Call>
index_t strips_of_all(const Call& call, index_t tokens, index_t size) {
    return tokens / size + call.sequences;
}
struct strip_place {
    index_t sequence, first; // token of the sequence
};
/// Of a key among those of all.
struct key_place {
    index_t sequence, key;
    bool inside; // of its sequence, and not behind its end
};
template <class Sequences>
PARE_HD key_place place_of(const Sequences& where, index_t t) {
    const index_t s = where.with_key(t), key = t - where.key_begin(s);
    return {s, key, key < where.keys(s)};
}
/// A block's strip, and which of the strip's blocks it is, such as that of a head: they are neighbours.
/// Of numbers below 2^32, which a GPU divides sooner.
struct block_place {
    int which;
    index_t strip;

    PARE_HD block_place(index_t block, index_t of_strip)
        : which(static_cast<int>(static_cast<std::uint32_t>(block) %
                                 static_cast<std::uint32_t>(of_strip))),
          strip(static_cast<index_t>(static_cast<std::uint32_t>(block) /
                                     static_cast<std::uint32_t>(of_strip))) {}
};
/// The strip of sequences that begin at begin(s).
template <class Begin>
PARE_HD strip_place strip_at(index_t sequences, const Begin& begin, index_t strip, index_t size) {
    index_t s = 0, end = sequences;
    while (s + 1 < end) {
        const index_t middle = (s + end) / 2;
        if (begin(middle) / size + middle <= strip)
            s = middle;
        else
            end = middle;
    }
    return {s, (strip - begin(s) / size - s) * size};
}
template <class Call>
PARE_HD strip_place strip_of_queries(const Call& call, index_t strip, index_t size) {
    return strip_at(
        call.sequences, [&](index_t s) { return call.query_begin(s); }, strip, size);
}
template <class Call>
PARE_HD strip_place strip_of_keys(const Call& call, index_t strip, index_t size) {
    return strip_at(
        call.sequences, [&](index_t s) { return call.key_begin(s); }, strip, size);
}

/// Strips of the keys of some sequences alone, one behind another, as the device has counted them; or
/// none are counted, and each block has its own of all.
struct strips_there {
    const index_t* before; ///< [sequences + 1]: how many those before each sequence have; or null
    index_t sequences;

    /// That take turns at counted ones: a decoder's batch has strips for all that its cache holds, most
    /// of which are not there.
    static constexpr index_t most_blocks = 4096;

    index_t blocks(index_t all) const { return before ? std::min(all, most_blocks) : all; }
    /// f(block_place) for what a block does, where each strip takes `of_strip` blocks.
    template <class F>
    PARE_HD void for_block(index_t block, index_t of_strip, const F& f) const {
        const index_t end = before ? before[sequences] * of_strip : block + 1;
        PARE_ROLLED_ON_DEVICE
        for (index_t i = block; i < end; i += most_blocks) f(block_place(i, of_strip));
    }
    PARE_HD strip_place at(index_t strip, index_t size) const {
        const index_t s = segment_of(before, sequences, strip);
        return {s, (strip - before[s]) * size};
    }
};

/// What tiles of a call's arrays have for elements: the type of all of them, or the one that they are
/// computed in.
template <class Call>
using tile_element =
    std::conditional_t<std::is_same_v<typename Call::of_query, typename Call::of_key>,
                       typename Call::of_query, typename Call::compute>;

/// Rows `from` and on of x, to 64 rows of a tile that are `stride` apart; zeros from row `end` and
/// beyond the columns.
template <int Width, class X, class T>
PARE_HD void load_tile(int thread, const view<const X, 3>& x, bool packed, index_t head,
                       index_t from, index_t end, T* tile, int stride) {
    constexpr int rows = 64;
    const T zero = static_cast<T>(compute_t<T>(0)); // which a half type's T() may not be
    const int columns = static_cast<int>(x.extent(2));
    if (packed) {
        constexpr int size = pack<X>::size, in_row = Width / size;
        for (int i = thread; i < rows * in_row; i += thread_block::size) {
            const int r = i / in_row, c = i % in_row * size;
            T* const to = tile + r * stride + c;
            if (from + r < end && c < columns) {
                const auto some = *reinterpret_cast<const pack<X>*>(&x(from + r, head, c));
                for (int e = 0; e < size; ++e) to[e] = static_cast<T>(some.of[e]);
            } else {
                for (int e = 0; e < size; ++e) to[e] = zero;
            }
        }
    } else {
        for (int i = thread; i < rows * Width; i += thread_block::size) {
            const int r = i / Width, c = i % Width;
            const bool inside = from + r < end && c < columns;
            tile[r * stride + c] = inside ? static_cast<T>(x(from + r, head, c)) : zero;
        }
    }
}

/// Which keys a query sees, in numbers of 32 bits: those that are at least `least` and less than
/// `window` before it.
struct narrow_mask {
    int least, window, n;

    PARE_HD narrow_mask(const attention_mask& mask, index_t length)
        : window(static_cast<int>(mask.window > 0 && mask.window < length ? mask.window : length)),
          n(static_cast<int>(length)) {
        least = mask.causal ? 0 : 1 - window;
    }
    /// Whether each query of first <= q < end sees each key of begin <= k < keys_end <= n.
    PARE_HD bool all_see(int first, int end, int begin, int keys_end) const {
        return first - (keys_end - 1) >= least && end - 1 - begin < window;
    }
};

/// logit += terms.bias; where nothing is relative, without the registers that it takes.
template <bool Relative, class C>
PARE_HD void add_bias(const attention_terms<C>& terms, index_t head, index_t at, index_t i,
                      index_t j, C& logit) {
    if constexpr (Relative)
        logit += terms.bias(head, at, i, j);
    else if (terms.biased())
        logit +=
            terms.bias_of_key(at + j) - terms.slope(head) * static_cast<C>(i > j ? i - j : j - i);
}

/// What is added by distance to the logits of one head in a sequence, as exponents of 2, in numbers
/// of 32 bits. A load a logit, and another one a query and a key that have positions.
class narrow_distances {
  public:
    PARE_HD narrow_distances(const attention_terms<float>& terms, index_t head, index_t begin,
                             int n)
        : middle_(nullptr), positions_(terms.positions.address(begin)),
          step_(terms.distance_bias.stride(1)), step_of_positions_(terms.positions.stride(0)),
          most_(0), last_(n - 1), slope_(terms.slope(head)) {
        constexpr index_t narrow = std::numeric_limits<int>::max();
        if (terms.distance_bias.extent(1) == 0) return;
        const index_t most = terms.distance_bias.extent(1) / 2;
        middle_ = &terms.distance_bias(head, most);
        most_ = static_cast<int>(most < narrow ? most : narrow);
    }
    /// Whether tokens have positions of their own.
    PARE_HD bool placed() const { return positions_ != nullptr; }
    /// Of a token, or of the last one for those beyond it.
    PARE_HD int position(int i) const {
        return positions_[(i < last_ ? i : last_) * step_of_positions_];
    }
    PARE_HD float operator()(int distance) const {
        constexpr float log2_e = 1.44269504f;
        float bias = -slope_ * std::abs(static_cast<float>(distance));
        const int d = distance < -most_ ? -most_ : distance > most_ ? most_ : distance;
        if (middle_) bias += middle_[d * step_];
        return attention_terms<float>::bounded(bias) * log2_e;
    }

  private:
    const float* middle_; ///< of distance 0; or null
    const std::int32_t* positions_;
    index_t step_, step_of_positions_;
    int most_, last_;
    float slope_;
};

/// What keys receive from each head: those of a sequence are neighbours.
struct head_sums {
    double* first;
    index_t of_head,
        of_key; ///< numbers apart: heads, and where sequences begin, by their first keys

    PARE_HD double* of(index_t head, index_t key_begin) const {
        return first + head * of_head + key_begin * of_key;
    }
};

/// Of each query and head, the largest logit and the sum of the exponentials of logits less it,
/// [heads x queries] each; or null where nobody asks.
template <class C>
struct softmax_rows {
    C *most, *total;
    index_t queries;

    PARE_HD void store(index_t query, index_t head, C most_of, C total_of) const {
        if (!most) return;
        most[head * queries + query] = most_of;
        total[head * queries + query] = total_of;
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
