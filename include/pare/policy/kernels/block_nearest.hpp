// Which rows are most like others by blocks of threads: tiles of 64 tokens x 64 rows of which one is
// looked for, their products in registers.
#pragma once

#include "block_tiles.hpp"
#include "merge.hpp"

#include <algorithm>
#include <cstddef>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Rows by their lengths, each by the lanes of a warp; see unit_row.
template <class T>
struct unit_rows_block {
    using C = compute_t<T>;
    static constexpr int lanes = 32, rows = thread_block::size / lanes;
    static constexpr std::size_t shared_bytes = thread_block::size * sizeof(C);

    view<const T, 2> x;
    C* to;

    index_t blocks() const { return (x.extent(0) + rows - 1) / rows; }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const thread_block threads;
        C* const parts = reinterpret_cast<C*>(memory);
        const index_t columns = x.extent(1);
        const auto row = [&](int thread) { return block * rows + thread / lanes; };
        // f(its number, where it goes) of each number of a thread.
        const auto for_own = [&](int thread, const auto& f) {
            const index_t t = row(thread);
            if (t >= x.extent(0)) return;
            for (index_t c = thread % lanes; c < columns; c += lanes)
                f(static_cast<C>(x(t, c)), to[t * columns + c]);
        };
        const auto fold_rows = [&](const auto& join) {
            for (int apart = lanes / 2; apart > 0; apart /= 2)
                threads.step([&](int thread) {
                    if (thread % lanes < apart)
                        parts[thread] = join(parts[thread], parts[thread + apart]);
                });
        };
        threads.step([&](int thread) {
            C largest = 0;
            for_own(thread, [&](C value, C&) {
                const C size = std::abs(value);
                if (size > largest) largest = size;
            });
            parts[thread] = largest;
        });
        fold_rows([](C a, C b) { return b > a ? b : a; });
        per_thread<C> scale;
        threads.step(
            [&](int thread) { scale[thread] = scale_of_squares(parts[thread / lanes * lanes]); });
        threads.step([&](int thread) {
            C sum = 0;
            for_own(thread, [&](C value, C& scaled) {
                scaled = opaque(value * scale[thread]);
                add_in_order(sum, scaled * scaled);
            });
            parts[thread] = sum;
        });
        fold_rows([](C a, C b) { return opaque(a + b); });
        threads.step([&](int thread) {
            const C factor = inverse_length(parts[thread / lanes * lanes]);
            for_own(thread, [&](C, C& scaled) { scaled *= factor; });
        });
    }
};

/// One block's part: 64 tokens of a sequence that are none of the rows to choose from, and every
/// parts-th tile of those.
template <class C, class Offset, class Index>
struct nearest_block {
    using tile = tiles<C, 32>;
    static constexpr int strip = tile::rows, stride = tile::stride;
    static constexpr int width = stride - tile::padding; // columns in memory at once
    static constexpr int of_row = 16;                    // threads that have products of a token
    static constexpr int blocks_a_processor = sizeof(C) > sizeof(float) ? 3 : 5;

    const C* rows; ///< of all tokens, by their lengths
    index_t size, tokens;
    const Offset* offsets;
    index_t sequences;
    const Index* index;
    index_t count;
    const index_t* first; ///< [sequences + 1]: of `index`, where those of each sequence begin
    index_t parts;
    nearest_row<C>* found; ///< [parts x tokens that are not in `index`], of numbers in `index`

    struct shared {
        union {
            C x[2][strip * stride];                 // columns of tokens, and of rows to choose from
            nearest_row<C> best[strip][of_row + 1]; // of what each thread has seen
        };
        index_t row[2][strip]; // where they are; or -1
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);

    constexpr index_t others() const { return tokens - count; }
    index_t blocks() const { return strips_of_all(*this, others(), strip) * parts; }
    /// Of the tokens that are not in `index`, where those of a sequence begin.
    PARE_HD index_t begin(index_t s) const { return static_cast<index_t>(offsets[s]) - first[s]; }
    /// Which token number i of those is: as many positions stand before it as are no further on than
    /// it would be without them.
    PARE_HD index_t token(index_t i) const {
        return i + first_not_below(
                       count, [&](index_t j) { return static_cast<index_t>(index[j]) - j; }, i + 1);
    }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const index_t part = block % parts;
        const strip_place at = strip_at(
            sequences, [&](index_t s) { return begin(s); }, block / parts, strip);
        const index_t mine = begin(at.sequence) + at.first, end = begin(at.sequence + 1);
        if (mine >= end) return;
        const int here = static_cast<int>(end - mine < strip ? end - mine : strip);
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block threads;
        per_thread<state> own;
        threads.step([&](int thread) {
            if (thread < strip) m.row[0][thread] = thread < here ? token(mine + thread) : -1;
            state& x = own[thread];
            for (int i = 0; i < 8; ++i) x.best[i] = nearest_row<C>::none();
        });
        const index_t last = first[at.sequence + 1];
        for (index_t from = first[at.sequence] + part * strip; from < last; from += parts * strip) {
            threads.step([&](int thread) {
                if (thread < strip)
                    m.row[1][thread] =
                        from + thread < last ? static_cast<index_t>(index[from + thread]) : -1;
                own[thread].products = {};
            });
            for (index_t column = 0; column < size; column += width) {
                const int some = static_cast<int>(size - column < width ? size - column : width);
                threads.step([&](int thread) {
                    for (int side = 0; side < 2; ++side)
                        load(thread, m.row[side], column, some, m.x[side]);
                });
                threads.step([&](int thread) {
                    tile::add_products(thread, m.x[0], m.x[1], some, own[thread].products);
                });
            }
            threads.step([&](int thread) { look(thread, from, last, own[thread]); });
        }
        threads.step([&](int thread) {
            for (int i = 0; i < 8; ++i)
                m.best[thread / of_row * 8 + i][thread % of_row] = own[thread].best[i];
        });
        threads.step([&](int thread) {
            if (thread >= here) return;
            nearest_row<C> best = m.best[thread][0];
            for (int i = 1; i < of_row; ++i) best = join(best, m.best[thread][i]);
            found[part * others() + mine + thread] = best;
        });
    }

  private:
    struct state {
        typename tile::products products;
        nearest_row<C> best[8];
    };

    /// `some` columns of 64 rows; zeros where there is no row.
    PARE_HD void load(int thread, const index_t* row, index_t column, int some, C* to) const {
        for (int i = thread; i < strip * width; i += thread_block::size) {
            const int r = i / width, c = i % width;
            to[r * stride + c] = row[r] >= 0 && c < some ? rows[row[r] * size + column + c] : C(0);
        }
    }
    /// Every 16th row of index[from] and on, before index[last].
    PARE_HD static void look(int thread, index_t from, index_t last, state& x) {
        for (int j = 0; j < 4; ++j) {
            const index_t at = from + thread % of_row + of_row * j;
            if (at >= last) break;
            for (int i = 0; i < 8; ++i)
                if (x.best[i].loses_to(x.products.of[i][j])) x.best[i] = {at, x.products.of[i][j]};
        }
    }
};

/// sequential::nearest_rows.
template <class Policy, class T, class Offset, class Index, class Nearest>
void nearest_rows_by_blocks(const Policy& policy, const view<const T, 2>& keys,
                            const Offset* offsets, index_t sequences, const Index* index,
                            index_t count, compute_t<T>* rows, const view<Nearest, 1>& nearest,
                            const view<T, 1>& similarity) {
    using C = compute_t<T>;
    using kernel = nearest_block<C, Offset, Index>;
    const index_t tokens = keys.extent(0), others = tokens - count;
    const unit_rows_block<T> of_length_one{keys, rows};
    policy.for_blocks(of_length_one.blocks(), of_length_one);

    const auto first_memory = policy.template temporary<index_t>(sequences + 1);
    index_t* const first = first_memory.data();
    policy.for_each(sequences + 1, [=] PARE_HD(index_t s) {
        first[s] = rank_of_position(index, count, static_cast<index_t>(offsets[s]));
    });
    // As many parts as make a GPU's fill of blocks, if sequences are alike.
    constexpr index_t enough = 1024;
    const index_t tiles_of_sequence =
        (count / std::max<index_t>(1, sequences) + kernel::strip - 1) / kernel::strip;
    const index_t parts = std::clamp<index_t>(enough / (others / kernel::strip + sequences + 1), 1,
                                              std::max<index_t>(1, tiles_of_sequence));
    const auto found_memory = policy.template temporary<nearest_row<C>>(parts * others);
    nearest_row<C>* const found = found_memory.data();
    const kernel run{rows,  keys.extent(1), tokens, offsets, sequences,
                     index, count,          first,  parts,   found};
    policy.for_blocks(run.blocks(), run);
    const view<Nearest, 1> to = nearest;
    const view<T, 1> near = similarity;
    policy.for_each(tokens, [=] PARE_HD(index_t t) {
        const index_t before = rank_of_position(index, count, t);
        nearest_row<C> best{t, C(1)};
        if (before == count || static_cast<index_t>(index[before]) != t) {
            best = nearest_row<C>::none();
            for (index_t part = 0; part < parts; ++part)
                best = join(best, found[part * others + t - before]);
            if (best.row >= 0) best.row = static_cast<index_t>(index[best.row]);
        }
        to(t) = static_cast<Nearest>(best.row);
        near(t) = static_cast<T>(best.cosine);
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
