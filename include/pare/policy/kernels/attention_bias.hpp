// What is added to the logits of a head, row by row.
#pragma once

#include "../../core/attention_calls.hpp"
#include "registers.hpp"

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// y += x; `n` numbers.
template <class T>
void add_row(index_t n, const T* x, T* y) {
    using B = batch<T>;
    index_t i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>)
        (B::load_unaligned(y + i) + B::load_unaligned(x + i)).store_unaligned(y + i);
    for (; i < n; ++i) y[i] += x[i];
}

/// The biases of one head's logits in the sequence that begins at `at`. Where distances are those of
/// places in the sequence, what is added by distance is a part of one row for all queries.
template <class T>
class head_biases {
  public:
    /// Numbers of memory for so many distances.
    static index_t room(const attention_terms<T>& terms, index_t distances) {
        return terms.by_distance() && terms.positions.extent(0) == 0 ? distances : 0;
    }

    /// `distances`: from queries to keys, of all calls of `add`.
    head_biases(const attention_terms<T>& terms, index_t head, index_t at,
                const index_range& distances, T* memory)
        : terms_(terms), head_(head), at_(at), first_(distances.begin), row_(memory) {
        for (index_t i = 0; i < room(terms, distances.size()); ++i)
            row_[i] = terms.bias_of_distance(head, first_ + i);
    }

    /// To the logits of query i and these keys.
    void add(index_t i, const index_range& keys, T* logits) const {
        if (terms_.by_distance() && terms_.positions.extent(0) > 0) {
            for (index_t j = keys.begin; j < keys.end; ++j)
                logits[j - keys.begin] += terms_.bias(head_, at_, i, j);
            return;
        }
        if (terms_.key_bias.extent(0) > 0)
            for (index_t j = keys.begin; j < keys.end; ++j)
                logits[j - keys.begin] += terms_.bias_of_key(at_ + j);
        if (terms_.by_distance()) add_row(keys.size(), row_ + (keys.begin - i - first_), logits);
    }

  private:
    const attention_terms<T>& terms_;
    index_t head_, at_, first_;
    T* row_;
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
