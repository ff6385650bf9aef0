// Which tokens stay, and their rows, in the memory of a Thrust policy. Nothing here waits: how many stay
// is known there, and to the host where it follows from the lengths.
#pragma once

#include "device_batch.hpp"
#include "device_blocks.hpp"

#include <pare/core/fast_math.hpp>

namespace encoder::device {

/// Bits that are ordered as the numbers are, those of NaN above or below all others by their sign.
PARE_HD inline std::uint32_t order_of(float x) {
    constexpr std::uint32_t sign = 0x80000000u;
    const std::uint32_t bits = pare::detail::bits_of(x);
    if ((bits & ~sign) == 0) return sign; // one zero
    return (bits & sign) != 0 ? ~bits : bits | sign;
}

/// One block's sequence: its first token stays, and of the others those with a score of at least the
/// threshold or, if `by_rank`, those with the highest scores, as many as the offsets behind have room
/// for, of equal ones the earlier. Each thread has neighbouring tokens.
struct choice {
    struct shared {
        alignas(16) int staying[thread_block::size], before[thread_block::size];
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    const float* scores;
    const place* offsets;
    index_t sequences;
    bool by_rank;
    std::uint32_t least; ///< the threshold's order
    place* counts;       ///< of sequences, by threshold: written if `positions` is null, else read
    place *behind, *positions;
    float* leaving; ///< 1 or 0 a token, or null

    PARE_HD void operator()(index_t s, unsigned char* memory) const {
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block together;
        const int begin = offsets[s], n = offsets[s + 1] - begin;
        const int each = (n + thread_block::size - 1) / thread_block::size;
        together.step([&](int thread) {
            int staying = 0;
            for (int i = thread * each; i < n && i < (thread + 1) * each; ++i)
                staying += stays(s, begin, n, i);
            m.staying[thread] = staying;
            if (by_rank || !positions) return;
            int before = 0;
            for (index_t i = thread; i < s; i += thread_block::size) before += counts[i];
            m.before[thread] = before;
        });
        together.step([&](int thread) {
            if (!positions) {
                if (thread == 0) counts[s] = sum_of(m.staying, thread_block::size);
                return;
            }
            const int first = by_rank ? behind[s] : sum_of(m.before, thread_block::size);
            if (!by_rank && thread == 0) behind[s] = first;
            int to = first + sum_of(m.staying, thread);
            for (int i = thread * each; i < n && i < (thread + 1) * each; ++i) {
                const bool stay = stays(s, begin, n, i);
                if (stay) positions[to++] = begin + i;
                if (leaving) leaving[begin + i] = stay ? 0.f : 1.f;
            }
            if (!by_rank && s == sequences - 1 && thread == thread_block::size - 1)
                behind[sequences] = to;
        });
    }

  private:
    PARE_HD bool stays(index_t s, int begin, int n, int i) const {
        if (i == 0) return true;
        const std::uint32_t mine = order_of(scores[begin + i]);
        if (!by_rank) return mine >= least;
        const int room = behind[s + 1] - behind[s];
        if (room == n) return true;
        int better = 1;
        for (int j = 1; j < n; ++j) {
            const std::uint32_t other = order_of(scores[begin + j]);
            better += other > mine || (other == mine && j < i);
        }
        return better < room;
    }
    PARE_HD static int sum_of(const int* x, int count) {
        int sum = 0;
        for (int i = 0; i < count; ++i) sum += x[i];
        return sum;
    }
};

/// Positions of the tokens that stay, their offsets there if by threshold, and whether each leaves
/// unless that is null. Complexity: scores, or by rank the squares of the lengths.
template <class Policy>
void choose_tokens(const Policy& policy, const sequences& from, const float* scores, bool by_rank,
                   float threshold, place* counts, place* behind, place* positions,
                   float* leaving) {
    choice c{scores, from.there, from.count, by_rank, order_of(threshold),
             counts, behind,     nullptr,    nullptr};
    if (!by_rank) policy.for_blocks(from.count, c);
    c.positions = positions;
    c.leaving = leaving;
    policy.for_blocks(from.count, c);
}

/// Rows of two arrays, a warp each: row index[i] becomes row i, for i < *count.
template <class T>
struct gathered_rows {
    static constexpr int lanes = 32, rows_of_block = thread_block::size / lanes;
    static constexpr std::size_t shared_bytes = 16; // it has no use for any
    struct rows {
        const T* from;
        T* to;
        index_t columns;
    };

    const place *index, *count;
    rows x, y;

    PARE_HD void operator()(index_t block, unsigned char*) const {
        thread_block().step([&](int thread) {
            const index_t i = block * rows_of_block + thread / lanes;
            if (i >= *count) return;
            copy(x, i, index[i], thread % lanes);
            copy(y, i, index[i], thread % lanes);
        });
    }

  private:
    PARE_HD static void copy(const rows& of, index_t to, index_t from, int lane) {
        constexpr int size = pack<T>::size;
        if (of.columns % size == 0)
            copy<pack<T>>(of, to, from, lane, of.columns / size);
        else
            copy<T>(of, to, from, lane, of.columns);
    }
    /// Some parts are read before any is written, which might be of the same memory for all that a
    /// compiler knows.
    template <class Part>
    PARE_HD static void copy(const rows& of, index_t to, index_t from, int lane, index_t parts) {
        constexpr int some = 4;
        const auto* const in = reinterpret_cast<const Part*>(of.from + from * of.columns);
        auto* const out = reinterpret_cast<Part*>(of.to + to * of.columns);
        for (index_t first = lane; first < parts; first += some * lanes) {
            Part read[some];
            PARE_UNROLL
            for (int i = 0; i < some; ++i)
                if (first + i * lanes < parts) read[i] = in[first + i * lanes];
            PARE_UNROLL
            for (int i = 0; i < some; ++i)
                if (first + i * lanes < parts) out[first + i * lanes] = read[i];
        }
    }
};
/// For at most `most` rows, whose number *count is in the policy's memory.
template <class T, class Policy>
void gather_rows(const Policy& policy, index_t most, const place* index, const place* count,
                 const typename gathered_rows<T>::rows& x,
                 const typename gathered_rows<T>::rows& y) {
    constexpr int rows = gathered_rows<T>::rows_of_block;
    policy.for_blocks((most + rows - 1) / rows, gathered_rows<T>{index, count, x, y});
}

} // namespace encoder::device
