// Attention in plain loops for many threads.
#pragma once

#include "../../core/attention.hpp"
#include "../seq.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The logit of query i and key j of the sequence that begins at `begin`.
template <class T, class Offset>
PARE_HD compute_t<T> logit(const attention_call<T, Offset>& c, index_t head, index_t begin,
                           index_t i, index_t j) {
    using C = compute_t<T>;
    C sum = 0;
    for (index_t e = 0; e < c.q.extent(2); ++e)
        sum += static_cast<C>(c.q(begin + i, head, e)) *
               static_cast<C>(c.k(begin + j, c.group(head), e));
    return sum * static_cast<C>(c.scale) + static_cast<C>(c.bias(head, begin, i, j));
}

/// A thread has a query of one head, and 32 columns of its output; then a key of one head.
template <class Policy, class T, class Offset>
void attention_by_threads(const Policy& policy, const attention_call<T, Offset>& call) {
    using C = compute_t<T>;
    constexpr index_t strip = 32;
    const attention_call<T, Offset> c = call;
    const index_t tokens = c.q.extent(0), heads = c.heads(), width = c.v.extent(2);
    const index_t strips = std::max<index_t>(1, (width + strip - 1) / strip);
    const auto memory = policy.template temporary<C>(2 * tokens * heads);
    C* const most = memory.data(); // logit of each query and head
    C* const total = most + tokens * heads;
    policy.for_each(tokens * heads * strips, [=] PARE_HD(index_t at) {
        const index_t first = at % strips * strip, t = at / (strips * heads);
        const index_t h = at / strips % heads, g = c.group(h);
        const index_t last = first + strip < width ? first + strip : width;
        const index_t s = segment_of(c.offsets, c.sequences, t);
        const index_t begin = c.begin(s), n = c.length(s);
        const index_range seen = visible_keys(c.mask, t - begin, n, n);
        C highest = std::numeric_limits<C>::lowest(), sum = 0, out[strip] = {};
        for (index_t j = seen.begin; j < seen.end; ++j) {
            const C x = logit(c, h, begin, t - begin, j);
            if (!(x <= highest)) { // NaN too
                const C less = std::exp(highest - x);
                sum *= less;
                for (index_t e = first; e < last; ++e) out[e - first] *= less;
                highest = x;
            }
            const C p = std::exp(x - highest);
            sum += p;
            for (index_t e = first; e < last; ++e)
                out[e - first] += p * static_cast<C>(c.v(begin + j, g, e));
        }
        for (index_t e = first; e < last; ++e)
            c.out(t, h, e) = static_cast<T>(out[e - first] / sum);
        if (first > 0) return;
        most[t * heads + h] = highest;
        total[t * heads + h] = sum;
    });
    if (c.received.extent(0) == 0) return;
    const auto received_memory = policy.template temporary<double>(tokens * heads);
    double* const received = received_memory.data();
    policy.for_each(tokens * heads, [=] PARE_HD(index_t at) {
        const index_t h = at % heads, t = at / heads;
        const index_t s = segment_of(c.offsets, c.sequences, t);
        const index_t begin = c.begin(s), n = c.length(s), j = t - begin;
        const index_range q = counted(c.counted, n);
        double sum = 0;
        for (index_t i = q.begin; i < q.end; ++i) {
            const index_range seen = visible_keys(c.mask, i, n, n);
            if (j < seen.begin || j >= seen.end) continue;
            const index_t query = (begin + i) * heads + h;
            const C p = std::exp(logit(c, h, begin, i, j) - most[query]);
            sum += static_cast<double>(p * (static_cast<C>(c.weight(begin + i)) / total[query]));
        }
        received[at] = sum;
    });
    policy.for_each(tokens, [=] PARE_HD(index_t t) {
        double sum = 0;
        for (index_t h = 0; h < heads; ++h) sum += received[t * heads + h];
        c.received(t) = sum;
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
