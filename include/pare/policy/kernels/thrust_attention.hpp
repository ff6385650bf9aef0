// Attention on Thrust's systems: which kernel, and plain loops for heads of any size.
#pragma once

#include "../../core/attention_calls.hpp"
#include "block_attention.hpp"
#include "block_scores.hpp"
#include "step_attention.hpp"
#include "tensor_attention.hpp"
#include "tensor_scores.hpp"
#include "thrust_before.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// The product of query i and key j, as a logit before anything is added.
template <class C, class T, class K>
PARE_HD C scaled_product(const view<const T, 3>& q, const view<const K, 3>& k, index_t i,
                         index_t head, index_t j, index_t group, C scale) {
    C sum = 0;
    for (index_t e = 0; e < q.extent(2); ++e)
        sum += static_cast<C>(q(i, head, e)) * static_cast<C>(k(j, group, e));
    return sum * scale;
}

/// A thread has a query of one head, and 32 columns of its output.
template <class Policy, class Call, class C = typename Call::compute>
void attention_by_threads(const Policy& policy, const Call& call, const softmax_rows<C>& rows) {
    using T = typename Call::of_query;
    constexpr index_t strip = 32;
    const Call c = call;
    const softmax_rows<C> results = rows;
    const index_t tokens = c.q.extent(0), heads = c.heads(), width = c.v.extent(2);
    const index_t strips = std::max<index_t>(1, (width + strip - 1) / strip);
    policy.for_each(tokens * heads * strips, [=] PARE_HD(index_t at) {
        const index_t first = at % strips * strip, t = at / (strips * heads);
        const index_t h = at / strips % heads, g = c.group(h);
        const index_t last = first + strip < width ? first + strip : width;
        const index_t s = c.with_query(t), begin = c.key_begin(s), i = t - c.query_begin(s);
        if (is_step(c, s)) return;
        const index_t place = place_of_query(c.where(), s, i);
        const index_range seen = visible_keys(c.mask, i, c.queries(s), c.keys(s));
        C highest = std::numeric_limits<C>::lowest(), sum = 0, out[strip] = {};
        for (index_t j = seen.begin; j < seen.end; ++j) {
            const C x =
                scaled_product(c.q, c.k, t, h, begin + j, g, c.scale) + c.bias(h, begin, place, j);
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
            c.out(t, h, e) = static_cast<T>(seen.size() > 0 ? out[e - first] / sum : C(0));
        if (first == 0) results.store(t, h, highest, sum);
    });
}

/// What key j of sequence s receives from one head; logit(query) of the counted queries that see it.
template <class Call, class Logit>
PARE_HD double received_from_head(const Call& c, index_t s, index_t j, index_t head,
                                  const Logit& logit) {
    const index_range queries = counted(c.counted, c.queries(s));
    double sum = 0;
    for (index_t i = queries.begin; i < queries.end; ++i) {
        const index_range seen = visible_keys(c.mask, i, c.queries(s), c.keys(s));
        if (j < seen.begin || j >= seen.end) continue;
        sum = c.together(sum, static_cast<double>(std::exp(logit(i) - c.shift(s, i, head)) *
                                                  c.factor(s, i, head, seen.size())));
    }
    return sum;
}

/// A thread has a key of one head.
template <class Policy, class Call>
void scores_by_threads(const Policy& policy, const Call& call, const head_sums& to) {
    const Call c = call;
    const head_sums parts = to;
    const index_t keys = c.all_keys();
    policy.for_each(keys * c.heads(), [=] PARE_HD(index_t at) {
        const index_t h = at / keys;
        const key_place here = place_of(c.where(), at % keys);
        const index_t s = here.sequence, j = here.key;
        if (!here.inside || c.queries(s) < c.least_queries) return;
        const auto q = c.queries_of(s);
        const auto k = c.keys_of(s);
        parts.of(h, c.key_begin(s))[j] = received_from_head(c, s, j, h, [&](index_t i) {
            return scaled_product(q, k, i, h, j, c.group(h), c.scale) +
                   c.bias(h, c.key_begin(s), place_of_query(c.where(), s, i), j);
        });
    });
}

/// f(a constant): terms.relative(). Kernels without it have no registers for it.
template <class Terms, class F>
bool with_relative(const Terms& terms, const F& f) {
    return terms.relative() ? f(std::true_type()) : f(std::false_type());
}

/// Whether tensor cores multiply: elements of one half type, of the same tokens.
template <class Policy, class Call>
inline constexpr bool
    by_tensor_cores = (has_tensor_cores<typename Call::of_key, Policy::on_cuda> && Call::same &&
                       std::is_same_v<typename Call::of_query, typename Call::of_key>);

/// f(a constant) with the least width that a kernel has for heads of `size`; false if none has or f
/// finds no room.
template <class T, bool TensorCores, class F>
bool with_width(index_t size, const F& f) {
    const auto fits = [&](auto width) { return size <= width && f(width); };
    if constexpr (TensorCores)
        if (fits(std::integral_constant<int, 32>())) return true;
    if (fits(std::integral_constant<int, 64>())) return true;
    if constexpr (sizeof(T) < sizeof(double)) // of 128 doubles, tiles fit no block's memory
        return fits(std::integral_constant<int, 128>());
    return false;
}

/// False, with nothing done, where the device does not run the kernel.
template <class Policy, class Kernel>
bool run_if_possible(const Policy& policy, const Kernel& kernel) {
    const bool can = policy.can_run(kernel);
    if (can) policy.for_blocks(kernel.blocks(), kernel);
    return can;
}

/// By the kernel for elements of these types and heads of `size`, of a width and of whether there are
/// biases of distance: tensor(width, relative), or block(width, relative) where there are no tensor
/// cores. False, with nothing done, where the device runs neither.
template <class Policy, class Call, class Tensor, class Block>
bool run_for_heads(const Policy& policy, const Call& c, index_t size, const Tensor& tensor,
                   const Block& block) {
    constexpr bool tensor_cores = by_tensor_cores<Policy, Call>;
    return with_width<tile_element<Call>, tensor_cores>(size, [&](auto width) {
        constexpr int most = decltype(width)::value;
        return with_relative(c, [&](auto relative) {
            if constexpr (tensor_cores)
                if (run_if_possible(policy, tensor(width, relative))) return true;
            if constexpr (most >= 64 && !(tensor_cores && always_tensor_cores))
                return run_if_possible(policy, block(width, relative));
            else
                return false;
        });
    });
}

/// Outputs and, for scores, the rows' softmax. Not of steps.
template <class Policy, class Call>
void attend(const Policy& policy, const Call& c, const softmax_rows<typename Call::compute>& rows) {
    const bool q = in_packs(c.q), k = in_packs(c.k), v = in_packs(c.v);
    if (c.heads() == 0) return;
    const auto tensor = [&](auto width, auto relative) {
        using kernel = tensor_attention<Call, decltype(width)::value, decltype(relative)::value>;
        return kernel{c,
                      rows,
                      strips_of_all(c, c.q.extent(0), kernel::strip),
                      static_cast<int>(c.heads() / c.k.extent(1)),
                      q,
                      k,
                      v,
                      in_packs(c.out)};
    };
    const auto block = [&](auto width, auto relative) {
        return block_attention<Call, decltype(width)::value, decltype(relative)::value>{c, rows, q,
                                                                                        k, v};
    };
    if (!run_for_heads(policy, c, std::max(c.q.extent(2), c.v.extent(2)), tensor, block))
        attention_by_threads(policy, c, rows);
}

/// The same of what keys receive.
template <class Policy, class Call>
void score_heads(const Policy& policy, const Call& c, const head_sums& parts) {
    const index_t keys = c.all_keys();
    const bool q = in_packs(c.q), k = in_packs(c.k);
    if (c.heads() == 0) return;
    const auto strips = policy.template temporary<index_t>(Call::same ? 0 : c.sequences + 1);
    const strips_there to_score{strips.data(), c.sequences};
    if constexpr (!Call::same)
        sums_before(policy, c.sequences, strips_to_score<Call>{c}, strips.data());
    const auto tensor = [&](auto width, auto relative) {
        using kernel = tensor_scores<Call, decltype(width)::value, decltype(relative)::value>;
        return kernel{c,
                      parts,
                      strips_of_all(c, keys, kernel::strip),
                      static_cast<int>(c.heads() / c.k.extent(2)),
                      q,
                      k};
    };
    const auto block = [&](auto width, auto relative) {
        return block_scores<Call, decltype(width)::value, decltype(relative)::value>{
            c, parts, keys, q, k, to_score};
    };
    if (!run_for_heads(policy, c, c.q.extent(3), tensor, block))
        scores_by_threads(policy, c, parts);
}

/// Attention of queries that are other tokens than the keys. Steps are apart: their keys and values
/// pass once for all heads of a group, and logits are kept where scores are asked for.
template <class Policy, class Call>
void attend_cache(const Policy& policy, const Call& call) {
    using C = typename Call::compute;
    const index_t queries = call.q.extent(0), heads = call.heads(), keys = call.k.extent(0);
    const index_t width = call.v.extent(2), rows = queries * heads;
    const bool scored = call.received.extent(0) > 0, steps = has_steps(call);
    const bool others = !steps || queries > queries_of_step;
    if (heads == 0) return;

    const auto of_rows = policy.template temporary<C>(scored ? 2 * rows : 0);
    const softmax_rows<C> softmax{of_rows.data(),
                                  scored && rows > 0 ? of_rows.data() + rows : nullptr, queries};
    const index_t slots = steps ? std::min(queries, queries_of_step) : 0;
    const auto places = part_places::of(call, keys);
    const auto of_parts = policy.template temporary<C>(places.all * slots * heads * (width + 2));
    const auto of_logits = policy.template temporary<C>(scored ? slots * heads * keys : 0);
    const step_results<C> left(of_parts.data(), places, scored ? of_logits.data() : nullptr, slots,
                               heads, keys, width);
    if (slots > 0) {
        const auto by = [&](auto most) {
            using kernel = step_attention<Call, decltype(most)::value>;
            const index_t heads_of_group = heads / call.k.extent(1);
            kernel run{call,
                       left,
                       static_cast<int>(heads_of_group),
                       in_packs(call.k),
                       in_packs(call.v),
                       {nullptr, call.sequences}};
            // Of fewer, those that have nothing to do cost less than the counting.
            const bool many = run.blocks() > strips_there::most_blocks;
            const auto counted = policy.template temporary<index_t>(many ? call.sequences + 1 : 0);
            run.there.before = counted.data();
            if (many)
                sums_before(policy, call.sequences, blocks_of_step<Call>{call, heads_of_group},
                            counted.data());
            policy.for_blocks(run.blocks(), run);
        };
        const index_t size = std::max(call.q.extent(2), width);
        if (size <= 64)
            by(std::integral_constant<int, 64>());
        else if (size <= 128)
            by(std::integral_constant<int, 128>());
        else
            by(std::integral_constant<int, 256>());
        join_parts(policy, call, softmax, left);
    }
    if (others) attend(policy, call, softmax);
    if (!scored) return;

    auto scores = scores_of(call, softmax.most, softmax.total);
    scores.least_queries = steps ? queries_of_step + 1 : 0;
    const auto of_heads = policy.template temporary<double>(steps ? 0 : heads * keys);
    const head_sums parts = steps ? left.sums_of_heads() : head_sums{of_heads.data(), keys, 1};
    if (others) score_heads(policy, scores, parts);
    const index_t heads_of_row = heads / scores.received.extent(0);
    policy.for_each(scores.received.extent(0) * keys, [=] PARE_HD(index_t at) {
        const index_t row = at / keys, t = at % keys;
        const key_place here = place_of(scores.where(), t);
        const index_t s = here.sequence, j = here.key;
        if (!here.inside) return;
        double sum = 0;
        if (scores.queries(s) >= scores.least_queries)
            sum = received_in_row(scores, parts, heads_of_row, row, here);
        else
            for (index_t h = row * heads_of_row; h < (row + 1) * heads_of_row; ++h)
                sum = scores.together(sum, received_from_head(scores, s, j, h, [&](index_t i) {
                                          return left.logits_of(i, h, scores.key_begin(s),
                                                                scores.keys(s))[j];
                                      }));
        scores.received(row, t) = sum;
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
