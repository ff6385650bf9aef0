// Softmax attention of short sequences: keys and values are read where they are.
#pragma once

#include "attention.hpp"
#include "in_place.hpp"

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The attention of sequences with few queries and few keys. Rows, the queries of some heads, take each
/// step together: one row's is too short for processors to begin the next one's meanwhile.
template <class Call>
class short_sequences {
    using T = typename Call::compute;

  public:
    /// Whether a sequence is better off so: of its numbers of queries and keys alone, so that results
    /// depend on nothing else.
    static bool are(index_t queries, index_t keys) { return queries <= most && keys <= most; }

    short_sequences(const Call& call, const head_shares<T>& received)
        : c_(call), received_(received), width_(round_up(call.v.extent(2), lanes<T>)) {}

    /// Numbers that a sequence takes: scaled queries, exponentials, outputs, and of a head what keys
    /// receive, and biases.
    index_t room() const {
        return round_up(most_rows * (c_.q.extent(2) + stride + width_) + stride +
                            head_biases<T>::room(c_, 2 * most),
                        lanes<T>);
    }

    void run(index_t s, T* memory) const {
        const index_t queries = c_.queries(s);
        if (queries == 0 && !received_.first) return;
        const index_t at_once = most_rows / std::max<index_t>(queries, 1);
        for (index_t h = 0; h < c_.heads(); h += at_once)
            run_heads(s, {h, std::min(c_.heads(), h + at_once)}, memory);
    }

  private:
    static constexpr index_t most = 8, most_rows = 48, stride = round_up(most, lanes<T>);

    void run_heads(index_t s, const index_range& heads, T* const q) const {
        const index_t queries = c_.queries(s), n = c_.keys(s), rows = heads.size() * queries;
        const index_t first = c_.query_begin(s), at = c_.key_begin(s), room = round_up(n, lanes<T>);
        const index_t size = c_.q.extent(2), value_size = c_.v.extent(2);
        T* const e = q + most_rows * size;
        T* const out = e + most_rows * stride;
        T* const sums = out + most_rows * width_;
        T weights[most_rows];
        const auto seen_by = [&](index_t i) { return visible_keys(c_.mask, i, queries, n); };
        // f(head, its first row), f(head, query, row); the latter as memory has them.
        const auto for_heads = [&](const auto& f) {
            for (index_t h = heads.begin; h < heads.end; ++h) f(h, (h - heads.begin) * queries);
        };
        const auto for_rows = [&](const auto& f) {
            for (index_t i = 0; i < queries; ++i)
                for_heads([&](index_t h, index_t row) { f(h, i, row + i); });
        };

        for_rows([&](index_t h, index_t i, index_t row) {
            if (size == 0) return;
            const auto* const from = c_.q.address(first + i, h, 0);
            prefetch_row(from + queries * c_.q.stride(0), size);
            scale_row(size, from, c_.scale, q + row * size, 1);
        });
        for_heads([&](index_t h, index_t row) {
            multiply_rows_in_place(queries, size, q + row * size, n,
                                   c_.k.address(at, c_.group(h), 0), c_.k.stride(0),
                                   e + row * stride, stride);
            if (!c_.biased()) return;
            const head_biases<T> biases(c_, h, at, {1 - n, queries}, sums + stride);
            for (index_t i = 0; i < queries; ++i) {
                const index_range seen = seen_by(i);
                biases.add(place_of_query(c_.where(), s, i), seen,
                           e + (row + i) * stride + seen.begin);
            }
        });
        for_rows([&](index_t, index_t i, index_t row) {
            hide_unseen(e + row * stride, seen_by(i).begin, seen_by(i).end, room);
        });
        exponentials_of_rows(rows, e, stride, room, weights);
        std::fill_n(out, rows * width_, T(0));
        for_heads([&](index_t h, index_t row) {
            add_rows_in_place(queries, value_size, e + row * stride, stride, n,
                              c_.v.address(at, c_.group(h), 0), c_.v.stride(0), out + row * width_,
                              width_);
        });
        for_rows([&](index_t h, index_t i, index_t row) {
            if (seen_by(i).size() == 0) { // its sum of values may be no number
                weights[row] = 0;
                std::fill_n(out + row * width_, value_size, T(0));
            }
            auto* const to = c_.out.address(first + i, h, 0);
            scale_row(value_size, out + row * width_, weights[row], to, c_.out.stride(2));
        });
        if (!received_.first) return;
        const index_range counts = counted(c_.counted, queries);
        for_heads([&](index_t h, index_t row) {
            for (index_t i = counts.begin; i < counts.end; ++i)
                weights[row + i] *= c_.weight(first + i, seen_by(i).size());
            share_of_rows(counts.size(), n, weights + row + counts.begin,
                          e + (row + counts.begin) * stride, stride, c_.largest, sums,
                          received_.row(h, 0) + at);
            for (index_t part = 1; received_.complete && part < shares_of_head; ++part)
                std::fill_n(received_.row(h, part) + at, n, T(0));
        });
    }

    const Call& c_;
    head_shares<T> received_;
    index_t width_; // of rows of outputs
};

template <class Executor, class Call, class T = typename Call::compute>
void attention_of_short(const Executor& executor, const Call& c, const head_shares<T>& received,
                        workspace& scratch) {
    const short_sequences<Call> all(c, received);
    constexpr index_t at_once = 4; // a task's
    const index_t room = all.room();
    T* const memory = scratch.template get<T>(executor.concurrency() * room);
    executor.run((c.sequences + at_once - 1) / at_once, [&, memory](index_t task, index_t slot) {
        const index_t end = std::min(c.sequences, (task + 1) * at_once);
        for (index_t s = task * at_once; s < end; ++s)
            if (all.are(c.queries(s), c.keys(s))) all.run(s, memory + slot * room);
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
