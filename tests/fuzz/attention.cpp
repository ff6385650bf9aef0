// Attention over packed sequences of any offsets, masks, biases and shapes, also against caches, and
// scores from any log-sum-exp rows.
#include "scores.hpp"

#include <pare/attention_scores.hpp>

namespace {

using namespace pare;
using fuzz::bytes;
using fuzz::output;

/// The scores of a call; none of one that is refused, behind which nothing was written that must not be.
template <class Policy, class Views, class Offsets, class T, int Rank>
std::vector<T> scores_of(const Policy& policy, const Views& x, const Offsets& offsets,
                         output<T, 3>& out, output<T, Rank>& scores, index_t rows,
                         const attention_options<T>& options) {
    workspace scratch;
    bool shapes = false, values = false;
    try {
        attention(policy, x.q, x.k, x.v, offsets, out.view(), scores.view(), options, scratch);
    } catch (const shape_error&) {
        shapes = true;
    } catch (const value_error&) {
        values = true;
    }
    EXPECT(out.intact_but(shapes ? 0 : x.q.extent(0)) &&
           scores.intact_but(shapes || values ? 0 : rows));
    return shapes || values ? std::vector<T>() : scores.values();
}

/// What attention reads, row after row.
template <class T>
struct views {
    view<const T, 3> q, k, v;

    views(const std::vector<T>& queries, const std::vector<T>& keys, const std::vector<T>& values,
          index_t tokens, index_t heads, index_t key_tokens, index_t groups, index_t size,
          index_t value_size)
        : q(queries.data(), {tokens, heads, size}, {heads * size, size, 1}),
          k(keys.data(), {key_tokens, groups, size}, {groups * size, size, 1}),
          v(values.data(), {key_tokens, groups, value_size}, {groups * value_size, value_size, 1}) {
    }
};

template <class T, class Offset>
void attend(bytes& in) {
    index_t tokens = 0;
    const auto offsets = in.offsets<Offset>(3, tokens);
    const index_t groups = in.up_to(2), heads = groups * in.up_to(3) + in.up_to(15) / 15,
                  size = in.up_to(5), value_size = in.up_to(5);
    const auto q = in.numbers<T>(tokens * heads * size), k = in.numbers<T>(tokens * groups * size),
               v = in.numbers<T>(tokens * groups * value_size);
    const views<T> all(q, k, v, tokens, heads, tokens, groups, size, value_size);
    attention_options<T> options;
    options.scale = in.flag() ? 0 : in.number<double>();
    options.mask = fuzz::mask(in);
    options.scores = fuzz::scale(in);
    options.fixed_length = in.number<double>();
    options.queries = fuzz::counted(in);
    const auto vector_of = [&](index_t n) { return in.numbers<T>(in.flag() ? 0 : in.about(n)); };
    const auto bias = vector_of(tokens), slopes = vector_of(heads), weights = vector_of(tokens);
    const auto as_view = [](const std::vector<T>& x) {
        return view<const T, 1>(x.data(), static_cast<index_t>(x.size()));
    };
    options.key_bias = as_view(bias);
    options.head_slopes = as_view(slopes);
    options.query_weights = as_view(weights);
    const index_t rows = in.flag() ? 0 : in.about(heads),
                  columns = rows > 0 ? in.about(2 * in.up_to(4) + 1) : 0;
    const auto table = in.numbers<T>(rows * columns);
    const auto positions = in.numbers<std::int32_t>(in.flag() ? 0 : in.about(tokens));
    options.distance_bias = view<const T, 2>(table.data(), rows, columns);
    options.positions = positions;
    const auto with = [&, start = in](const auto& policy) {
        bytes more = start;
        output<T, 3> out(more, {more.about(tokens), more.about(heads), more.about(value_size)},
                         true);
        output<T, 1> scores(more, {more.flag() ? 0 : more.about(tokens)});
        return scores_of(policy, all, offsets, out, scores, tokens, options);
    };
    const std::vector<T> at_seq = with(seq), at_simd = with(simd);
    // Where numbers are so large that sums overflow, one may refuse what the other can do.
    if (!at_seq.empty() && !at_simd.empty()) EXPECT(fuzz::alike(in, at_seq, at_simd));

    const auto lse = in.numbers<T>(tokens * heads);
    const auto from_rows = [&, start = in](const auto& policy) {
        bytes more = start;
        output<T, 1> scores(more, {more.about(tokens)});
        const index_t rows = more.about(tokens);
        workspace scratch;
        bool thrown = rows > tokens; // than there are numbers of
        try {
            if (!thrown)
                attention_scores(policy, all.q, all.k, view(lse.data(), rows, heads), offsets,
                                 scores.view(), options, scratch);
        } catch (const error&) {
            thrown = true;
        }
        EXPECT(scores.intact_but(thrown ? 0 : tokens));
        return thrown ? std::vector<T>() : scores.values();
    };
    const std::vector<T> rows_seq = from_rows(seq), rows_simd = from_rows(simd);
    if (!rows_seq.empty() && !rows_simd.empty()) EXPECT(fuzz::alike(in, rows_seq, rows_simd));
}

/// Queries that are other tokens than keys, few or many, with room behind the keys; scores of some rows.
template <class T, class Offset>
void attend_caches(bytes& in) {
    const index_t sequences = in.up_to(3);
    std::vector<Offset> query_offsets = {0}, key_offsets = {0}, lengths;
    for (index_t s = 0; s < sequences; ++s) {
        query_offsets.push_back(static_cast<Offset>(query_offsets.back() + in.up_to(3)));
        lengths.push_back(static_cast<Offset>(in.up_to(50)));
        key_offsets.push_back(
            static_cast<Offset>(key_offsets.back() + lengths.back() + in.up_to(3)));
    }
    const auto queries = static_cast<index_t>(query_offsets.back()),
               keys = static_cast<index_t>(key_offsets.back());
    for (std::vector<Offset>* some : {&query_offsets, &key_offsets, &lengths}) {
        if (!some->empty() && in.up_to(15) == 1)
            (*some)[static_cast<std::size_t>(in.up_to(3)) % some->size()] = in.number<Offset>();
        some->resize(static_cast<std::size_t>(in.about(static_cast<index_t>(some->size()))));
    }
    const index_t groups = 1 + in.up_to(1), heads = groups * (1 + in.up_to(2)), size = in.up_to(9),
                  value_size = in.up_to(9);
    const auto q = in.numbers<T>(queries * heads * size), k = in.numbers<T>(keys * groups * size),
               v = in.numbers<T>(keys * groups * value_size);
    const views<T> all(q, k, v, queries, heads, keys, groups, size, value_size);
    attention_options<T> options;
    options.mask = fuzz::mask(in);
    options.scores = fuzz::scale(in);
    options.queries = fuzz::counted(in);
    options.reduction = in.flag() ? score_reduction::max : score_reduction::sum;
    const auto bias = in.numbers<T>(in.flag() ? 0 : in.about(keys));
    options.key_bias = view<const T, 1>(bias.data(), static_cast<index_t>(bias.size()));
    const auto positions = in.numbers<std::int32_t>(in.flag() ? 0 : in.about(keys));
    options.positions = positions;
    const bool with_room = in.flag();
    const index_t kind = in.up_to(3), rows = in.about(kind == 0   ? 0
                                                      : kind == 1 ? 1
                                                      : kind == 2 ? groups
                                                                  : heads);
    const auto with = [&, start = in](const auto& policy) {
        bytes more = start;
        output<T, 3> out(more, {more.about(queries), heads, value_size}, true);
        output<T, 2> scores(more, {rows, rows == 0 ? 0 : more.about(keys)});
        const auto by = [&](const auto& offsets) {
            return scores_of(policy, all, offsets, out, scores, rows, options);
        };
        return with_room ? by(query_key_offsets{query_offsets, key_offsets, lengths})
                         : by(query_key_offsets{query_offsets, key_offsets});
    };
    const std::vector<T> at_seq = with(seq), at_simd = with(simd);
    if (!at_seq.empty() && !at_simd.empty()) EXPECT(fuzz::alike(in, at_seq, at_simd));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes in(data, size);
    switch (in.up_to(4)) {
    case 0:
        attend<float, std::int32_t>(in);
        break;
    case 1:
        attend<float, std::uint64_t>(in);
        break;
    case 2:
        attend_caches<float, std::int32_t>(in);
        break;
    case 3:
        attend_caches<double, std::uint64_t>(in);
        break;
    default:
        attend<double, std::int64_t>(in);
        break;
    }
    return 0;
}
