// Attention of few queries against many keys, as in a decoder's step, by blocks of threads: the keys
// of a sequence are cut into parts, and each key and value is read once for all heads of its group.
#pragma once

#include "step_parts.hpp"
#include "tensor_cores.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One block's part: rows of a step, and a part of its keys. Queries and values have at most Width
/// elements.
template <class Call, int Width>
struct step_attention {
    using T = typename Call::of_query;
    using K = typename Call::of_key;
    using C = typename Call::compute;
    static constexpr int most_rows = rows_of_step, size = pack<K>::size, stride = Width + size;
    static constexpr int passing = 8192 / (Width * static_cast<int>(sizeof(K))); // keys of a tile
    static constexpr int rows_apart = thread_block::size / passing; // rows of a key's threads
    static constexpr int of_row = thread_block::size / most_rows;   // threads of a row
    static constexpr int pairs = Width / 2;                         // of columns; one is a thread's
    static constexpr int keys_apart = thread_block::size / pairs;   // keys of a pair's threads

    Call call;
    step_results<C> to;
    int heads_of_group;
    bool packed_k, packed_v;
    strips_there there; ///< blocks_of_step; or none are counted, and some have nothing to do

    static constexpr int blocks_a_processor = sizeof(C) > sizeof(float) ? 3 : 4;

    struct shared {
        alignas(128) T q[most_rows * stride];
        alignas(128) K kv[2][2][passing * stride]; // keys and values, twice; then sums of values
        // Logits, and then their exponentials. Rows are apart so that what the threads of a warp write
        // for their keys is in eight banks and not in two, and four of them are one load still.
        alignas(128) C x[passing][most_rows + 4];
        C less[most_rows];
        int begin[most_rows], end[most_rows]; // keys that a row sees
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);
    static_assert(sizeof(C) * keys_apart * most_rows * Width <= sizeof(shared::kv));

    index_t blocks() const {
        return there.blocks(to.places.all * strips_of_rows(to.slots, heads_of_group) *
                            call.k.extent(1));
    }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        there.for_block(block, call.k.extent(1), [&](const block_place& mine) {
            place at{};
            at.group = mine.which;
            index_t part = 0; // of the sequence's
            if (there.before) {
                const strip_place own = there.at(mine.strip, 1);
                const block_place rows(own.first,
                                       strips_of_rows(call.queries(own.sequence), heads_of_group));
                at.s = own.sequence;
                at.first = rows.which * most_rows;
                part = rows.strip;
            } else {
                const block_place rows(mine.strip, strips_of_rows(to.slots, heads_of_group));
                const strip_place own = to.places.at(call, rows.strip);
                at.s = own.sequence;
                at.first = rows.which * most_rows;
                part = own.first;
            }
            if (is_step(call, at.s)) one(at, part, memory);
        });
    }

  private:
    struct place {
        index_t s, part;
        int queries, keys, group, first; // the first row
        int rows, begin, end;            // keys of the part that a row sees
    };

    PARE_HD void one(place& at, index_t part, unsigned char* memory) const {
        at.part = to.places.first(call, at.s) + part;
        at.queries = static_cast<int>(call.queries(at.s));
        at.keys = static_cast<int>(call.keys(at.s));
        const index_range of_step = seen_by_step(call, at.s);
        const index_t of_part = size_of_parts(of_step.size());
        const index_t part_begin = of_step.begin + part * of_part;
        if (part_begin >= of_step.end) return;
        const int rows = at.queries * heads_of_group - at.first;
        if (rows <= 0) return;
        at.rows = rows < most_rows ? rows : most_rows;
        // What the rows see begins at the first one's, and ends at the last one's.
        const index_range first = seen(at, 0), last = seen(at, at.rows - 1);
        const index_t begin = part_begin > first.begin ? part_begin : first.begin;
        const index_t part_end = part_begin + of_part;
        const index_t end = part_end < last.end ? part_end : last.end;
        at.begin = static_cast<int>(begin);
        at.end = static_cast<int>(end);
        if (begin < end) attend(*reinterpret_cast<shared*>(memory), at);
    }

    /// As many elements of a query as a pack has of a key.
    struct alignas(sizeof(T) * size < 16 ? sizeof(T) * size : 16) piece {
        T of[size];
    };
    struct state {
        C out[most_rows][2]; // of a pair of columns and every keys_apart-th key
        C most, total;       // of row thread / of_row
    };

    PARE_HD int query(const place& at, int row) const { return (at.first + row) / heads_of_group; }
    PARE_HD int head(const place& at, int row) const {
        return at.group * heads_of_group + (at.first + row) % heads_of_group;
    }
    PARE_HD index_range seen(const place& at, int row) const {
        return visible_keys(call.mask, query(at, row), at.queries, at.keys);
    }

    PARE_HD void attend(shared& m, const place& at) const {
        const index_t first_key = call.key_begin(at.s);
        const tile_source<K> k = source_of(call.k, packed_k, first_key, at.end, at.group),
                             v = source_of(call.v, packed_v, first_key, at.end, at.group);
        const thread_block threads;
        per_thread<state> own;
        threads.step([&](int thread) {
            load(thread, k, at.begin, m.kv[0][0]);
            load(thread, v, at.begin, m.kv[0][1]);
            load_queries(thread, at, m);
            if (thread < at.rows) {
                const index_range keys = seen(at, thread);
                m.begin[thread] = static_cast<int>(keys.begin);
                m.end[thread] = static_cast<int>(keys.end);
            }
            for (int i = thread; i < passing * most_rows; i += thread_block::size)
                m.x[i / most_rows][i % most_rows] = 0; // rows that are not there stay 0
            state& mine = own[thread];
            PARE_UNROLL_ON_DEVICE
            for (int row = 0; row < most_rows; ++row) mine.out[row][0] = mine.out[row][1] = 0;
            mine.most = std::numeric_limits<C>::lowest();
            mine.total = 0;
            wait_for_copies();
        });
        int now = 0;
        for (int key = at.begin; key < at.end; key += passing, now = 1 - now) {
            threads.step([&](int thread) {
                if (key + passing < at.end) {
                    load(thread, k, key + passing, m.kv[1 - now][0]);
                    load(thread, v, key + passing, m.kv[1 - now][1]);
                }
                multiply(thread, at, key, m.kv[now][0], m);
            });
            for_warps([&](const warp& w) { exponentials(w, at.rows, m, own); });
            threads.step([](int) {});
            threads.step([&](int thread) {
                add_values(thread, at.rows, m.kv[now][1], m, own[thread]);
                wait_for_copies();
            });
        }
        C* const sums = reinterpret_cast<C*>(m.kv);
        threads.step([&](int thread) {
            const int apart = thread / pairs, column = thread % pairs * 2;
            PARE_UNROLL_ON_DEVICE
            for (int row = 0; row < most_rows; ++row)
                for (int c = 0; c < 2; ++c)
                    sums[(apart * most_rows + row) * Width + column + c] = own[thread].out[row][c];
        });
        threads.step([&](int thread) { store(thread, at, sums, own[thread]); });
    }

    /// Rows `from` and on, before row x.rows, to a tile; zeros around them.
    PARE_HD static void load(int thread, const tile_source<K>& x, int from, K* tile) {
        constexpr int pieces = Width / size;
        if (x.packed) {
            for (int at = thread; at < passing * pieces; at += thread_block::size) {
                const int row = at / pieces, column = at % pieces * size;
                const bool inside = from + row < x.rows && column < x.columns;
                copy_later(tile, row * stride + column,
                           x.first + (inside ? (from + row) * x.row + column : 0), inside);
            }
        } else {
            for (int at = thread; at < passing * Width; at += thread_block::size) {
                const int row = at / Width, column = at % Width;
                tile[row * stride + column] =
                    from + row < x.rows && column < x.columns
                        ? x.first[(from + row) * x.row + column * x.element]
                        : static_cast<K>(C(0));
            }
        }
    }
    PARE_HD void load_queries(int thread, const place& at, shared& m) const {
        const int columns = static_cast<int>(call.q.extent(2));
        for (int i = thread; i < most_rows * Width; i += thread_block::size) {
            const int row = i / Width, column = i % Width;
            m.q[row * stride + column] =
                row < at.rows && column < columns
                    ? call.q(call.query_begin(at.s) + query(at, row), head(at, row), column)
                    : static_cast<T>(C(0));
        }
    }

    /// Logits of one key and every rows_apart-th row; the lowest number where a row does not see it.
    PARE_HD void multiply(int thread, const place& at, int first, const K* keys, shared& m) const {
        constexpr int rows = (most_rows + rows_apart - 1) / rows_apart;
        const int key = thread % passing, first_row = thread / passing, j = first + key;
        C x[rows] = {};
        for (int column = 0; column < Width; column += size) {
            const auto k = *reinterpret_cast<const pack<K>*>(keys + key * stride + column);
            PARE_UNROLL_ON_DEVICE
            for (int i = 0; i < rows; ++i) {
                const int row = first_row + i * rows_apart;
                if (row >= at.rows) break;
                const auto q = *reinterpret_cast<const piece*>(m.q + row * stride + column);
                PARE_UNROLL_ON_DEVICE
                for (int e = 0; e < size; ++e)
                    x[i] += static_cast<C>(q.of[e]) * static_cast<C>(k.of[e]);
            }
        }
        PARE_UNROLL_ON_DEVICE
        for (int i = 0; i < rows; ++i) {
            const int row = first_row + i * rows_apart;
            if (row >= at.rows) break;
            const bool sees = j < at.end && j >= m.begin[row] && j < m.end[row];
            C logit = std::numeric_limits<C>::lowest();
            if (sees) {
                const int query_of = query(at, row), head_of = head(at, row);
                logit = x[i] * call.scale;
                if (call.biased())
                    logit += call.bias(head_of, call.key_begin(at.s),
                                       query_of + at.keys - at.queries, j);
                if (to.logits)
                    to.logits_of(query_of, head_of, call.key_begin(at.s), at.keys)[j] = logit;
            }
            m.x[key][row] = logit;
        }
    }

    /// x = exp(x less the largest one so far), and sums of them.
    PARE_HD static void exponentials(const warp& w, int rows, shared& m, per_thread<state>& own) {
        constexpr C lowest = std::numeric_limits<C>::lowest();
        per_lane<C> most, sum;
        w.lanes([&](int lane) {
            const int row = w.thread(lane) / of_row;
            C top = lowest;
            if (row < rows)
                for (int key = lane % of_row; key < passing; key += of_row)
                    top = m.x[key][row] > top ? m.x[key][row] : top;
            most[lane] = top;
        });
        fold_lanes<of_row>([&](int lane) -> C& { return most[lane]; },
                           [](C a, C b) { return a < b ? b : a; });
        w.lanes([&](int lane) {
            const int row = w.thread(lane) / of_row;
            state& mine = own[w.thread(lane)];
            const C next = mine.most < most[lane] ? most[lane] : mine.most;
            const C less = std::exp(mine.most - next);
            mine.most = next;
            mine.total *= less;
            sum[lane] = 0;
            if (row >= rows) return;
            for (int key = lane % of_row; key < passing; key += of_row) {
                C& x = m.x[key][row];
                x = x <= lowest ? C(0) : std::exp(x - next); // NaN stays
                sum[lane] += x;
            }
            if (lane % of_row == 0) m.less[row] = less;
        });
        fold_lanes<of_row>([&](int lane) -> C& { return sum[lane]; },
                           [](C a, C b) { return a + b; });
        w.lanes([&](int lane) { own[w.thread(lane)].total += sum[lane]; });
    }

    PARE_HD static void add_values(int thread, int rows, const K* values, const shared& m,
                                   state& own) {
        PARE_UNROLL_ON_DEVICE
        for (int row = 0; row < most_rows; ++row) {
            if (row >= rows) break;
            own.out[row][0] *= m.less[row];
            own.out[row][1] *= m.less[row];
        }
        for (int key = thread / pairs; key < passing; key += keys_apart) {
            const K* const v = values + key * stride + thread % pairs * 2;
            const C first = static_cast<C>(v[0]), second = static_cast<C>(v[1]);
            PARE_UNROLL_ON_DEVICE
            for (int row = 0; row < most_rows; ++row) {
                if (row % 4 == 0 && row >= rows) break; // four exponentials are one load
                own.out[row][0] += m.x[key][row] * first;
                own.out[row][1] += m.x[key][row] * second;
            }
        }
    }

    PARE_HD void store(int thread, const place& at, const C* sums, const state& own) const {
        const int columns = static_cast<int>(to.width);
        const auto place_of = [&](int row) {
            return to.place(at.part, query(at, row), head(at, row));
        };
        for (int i = thread; i < at.rows * columns; i += thread_block::size) {
            const int row = i / columns, column = i % columns;
            C sum = 0;
            for (int apart = 0; apart < keys_apart; ++apart)
                sum += sums[(apart * most_rows + row) * Width + column];
            to.sums[place_of(row) * columns + column] = sum;
        }
        const int row = thread / of_row;
        if (thread % of_row > 0 || row >= at.rows) return;
        to.most[place_of(row)] = own.most;
        to.total[place_of(row)] = own.total;
    }
};

/// Outputs of steps, and their rows' softmax, from what parts of the keys have left. A thread has one
/// number.
template <class Policy, class Call, class C = typename Call::compute>
void join_parts(const Policy& policy, const Call& call, const softmax_rows<C>& rows,
                const step_results<C>& from) {
    using T = typename Call::of_query;
    const Call c = call;
    const softmax_rows<C> results = rows;
    const step_results<C> x = from;
    const index_t columns = std::max<index_t>(1, x.width);
    policy.for_each(c.q.extent(0) * c.heads() * columns, [=] PARE_HD(index_t at) {
        const index_t e = at % columns, h = at / columns % c.heads(), t = at / columns / c.heads();
        const index_t s = c.with_query(t), i = t - c.query_begin(s);
        if (!is_step(c, s)) return;
        const index_range seen = visible_keys(c.mask, i, c.queries(s), c.keys(s));
        const index_range of_step = seen_by_step(c, s);
        const index_t size = size_of_parts(of_step.size());
        const index_t first = x.places.first(c, s),
                      begin = first + (seen.begin - of_step.begin) / size;
        const index_t end = first + (seen.end - of_step.begin + size - 1) / size;
        C most = std::numeric_limits<C>::lowest(), total = 0, sum = 0;
        for (index_t part = begin; part < end; ++part) {
            const C of_part = x.most[x.place(part, i, h)];
            most = most < of_part ? of_part : most;
        }
        for (index_t part = begin; part < end; ++part) {
            const index_t place = x.place(part, i, h);
            const C less = std::exp(x.most[place] - most);
            total += less * x.total[place];
            if (e < x.width) sum += less * x.sums[place * x.width + e];
        }
        if (e < x.width) c.out(t, h, e) = static_cast<T>(seen.size() > 0 ? sum / total : C(0));
        if (e == 0) results.store(t, h, most, total);
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
