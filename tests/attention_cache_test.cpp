// Attention of queries that are other tokens than the keys: steps of decoders against caches with
// room, pieces of prompts, cross-attention; and scores of each head and group, and by maximum. All
// against the definition in long double.
#include "distance_biases.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention_scores.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace attention_cache_test {

namespace {

/// How many queries and keys a sequence has, and for how many more there is room.
struct sequence_lengths {
    int queries, keys, more = 0;
};

/// Queries [tokens][heads], and a cache [keys][k of all groups, v of all groups], with poison between
/// and behind the keys of sequences.
template <class T>
struct problem {
    index_t heads, groups, size, value_size, stride;
    std::vector<int> query_offsets = {0}, key_offsets = {0}, lengths;
    std::vector<T> queries, cache;

    problem(index_t h, index_t g, index_t of_query, index_t of_value,
            const std::vector<sequence_lengths>& sequences, random_source& random,
            double spread = 2, index_t between = 3)
        : heads(h), groups(g), size(of_query), value_size(of_value),
          stride(g * (of_query + of_value) + between) {
        for (const auto& s : sequences) {
            query_offsets.push_back(query_offsets.back() + s.queries);
            key_offsets.push_back(key_offsets.back() + s.keys + s.more);
            lengths.push_back(s.keys);
        }
        queries = random.vector<T>(tokens() * heads * size, -spread, spread);
        cache.assign(static_cast<std::size_t>(keys() * stride), poison<T>());
        for (std::size_t s = 0; s < lengths.size(); ++s)
            for (index_t j = 0; j < lengths[s]; ++j)
                for (index_t i = 0; i < stride - between; ++i)
                    cache[static_cast<std::size_t>((key_offsets[s] + j) * stride + i)] =
                        random.uniform<T>(-spread, spread);
    }
    index_t tokens() const { return query_offsets.back(); }
    index_t keys() const { return key_offsets.back(); }
    pare::view<const T, 3> q() const { return {queries.data(), tokens(), heads, size}; }
    pare::view<const T, 3> k() const {
        return {cache.data(), {keys(), groups, size}, {stride, size, 1}};
    }
    pare::view<const T, 3> v() const {
        return {
            cache.data() + groups * size, {keys(), groups, value_size}, {stride, value_size, 1}};
    }
    pare::view<T, 3> out(std::vector<T>& x) const {
        x.assign(static_cast<std::size_t>(tokens() * heads * value_size), poison<T>());
        return {x.data(), tokens(), heads, value_size};
    }
    pare::view<T, 2> scores(std::vector<T>& x, index_t rows) const {
        x.assign(static_cast<std::size_t>(rows * keys()), poison<T>());
        return {x.data(), rows, keys()};
    }
    auto offsets() const { return pare::query_key_offsets{query_offsets, key_offsets, lengths}; }
};

template <class T>
struct answer {
    std::vector<T> out, scores, from_lse;
};

template <class T>
struct expectation {
    std::vector<real> out, scores;
    std::vector<T> lse;
};

index_t place(index_t i, index_t n) {
    return std::clamp<index_t>(i < 0 ? n + i : i, 0, n);
}

template <class T>
expectation<T> oracle(const problem<T>& p, const pare::attention_options<T>& o, index_t rows) {
    expectation<T> e;
    e.scores.resize(static_cast<std::size_t>(rows * p.keys()));
    const auto q = p.q(), k = p.k(), v = p.v();
    const index_t heads_of_row = p.heads / rows;
    const bool largest = o.reduction == pare::score_reduction::max;
    const bool relative = o.scores == pare::score_scale::relative;
    const real scale =
        o.scale != 0 ? static_cast<real>(o.scale) : 1 / std::sqrt(static_cast<real>(p.size));
    for (std::size_t s = 0; s < p.lengths.size(); ++s) {
        const index_t at = p.key_offsets[s], n = p.lengths[s], from = p.query_offsets[s];
        const index_t queries = p.query_offsets[s + 1] - from;
        const index_t first = place(o.queries.begin, queries),
                      last = std::max(first, place(o.queries.end, queries));
        std::vector<real> uniform(static_cast<std::size_t>(n));
        for (index_t i = 0; i < queries; ++i) {
            const index_t stands = i + n - queries; // the last one at the last key
            std::vector<std::size_t> seen;
            for (index_t j = 0; j < n; ++j)
                if (!(o.mask.causal && j > stands) &&
                    !(o.mask.window > 0 && std::abs(j - stands) >= o.mask.window))
                    seen.push_back(static_cast<std::size_t>(j));
            const bool counts = i >= first && i < last;
            for (const std::size_t j : seen)
                if (counts) uniform[j] += 1 / static_cast<real>(seen.size());
            for (index_t h = 0; h < p.heads; ++h) {
                const index_t g = h * p.groups / p.heads;
                std::vector<real> x(static_cast<std::size_t>(n));
                for (const std::size_t j : seen) {
                    const auto key = static_cast<index_t>(j);
                    real logit = 0;
                    for (index_t d = 0; d < p.size; ++d)
                        logit += static_cast<real>(q(from + i, h, d)) *
                                 static_cast<real>(k(at + key, g, d));
                    logit *= scale;
                    index_t away = key - stands;
                    if (o.positions.extent(0) > 0)
                        away = o.positions(at + key) -
                               (stands < 0 ? stands : o.positions(at + stands));
                    if (o.key_bias.extent(0) > 0) logit += static_cast<real>(o.key_bias(at + key));
                    if (o.head_slopes.extent(0) > 0)
                        logit -=
                            static_cast<real>(o.head_slopes(h)) * static_cast<real>(std::abs(away));
                    if (o.distance_bias.extent(1) > 0)
                        logit += static_cast<real>(bias_at(o.distance_bias, h, away));
                    x[j] = std::exp(logit);
                }
                const real sum = std::accumulate(x.begin(), x.end(), real(0));
                e.lse.push_back(seen.empty() ? minus_infinite<T>() : static_cast<T>(std::log(sum)));
                for (index_t d = 0; d < p.value_size; ++d) {
                    real y = 0;
                    for (const std::size_t j : seen)
                        y += x[j] / sum * static_cast<real>(v(at + static_cast<index_t>(j), g, d));
                    e.out.push_back(y);
                }
                if (!counts) continue;
                real weight = 1;
                if (o.query_weights.extent(0) > 0)
                    weight = static_cast<real>(o.query_weights(from + i));
                if (largest && relative) weight *= static_cast<real>(seen.size());
                for (const std::size_t j : seen) {
                    real& score =
                        e.scores[static_cast<std::size_t>(h / heads_of_row * p.keys() + at) + j];
                    score = largest ? std::max(score, weight * x[j] / sum)
                                    : score + weight * x[j] / sum;
                }
            }
        }
        for (index_t row = 0; row < rows && !largest; ++row)
            for (index_t j = 0; j < n; ++j) {
                real& score = e.scores[static_cast<std::size_t>(row * p.keys() + at + j)];
                real by = relative ? uniform[static_cast<std::size_t>(j)]
                                   : static_cast<real>(last - first);
                if (o.scores == pare::score_scale::fixed) by = static_cast<real>(o.fixed_length);
                score = by > 0 ? score / by / static_cast<real>(heads_of_row) : 0;
            }
    }
    return e;
}

template <class T>
void check_close(const std::vector<T>& found, const std::vector<real>& expected) {
    const real tolerated = std::is_same_v<T, float> ? 2e-5L : 1e-13L;
    REQUIRE(found.size() == expected.size());
    real worst = 0;
    for (std::size_t i = 0; i < found.size(); ++i)
        worst = std::max(worst, distance(found[i], expected[i]) / (1 + std::abs(expected[i])));
    REQUIRE(worst < tolerated);
}

/// Attention with and without scores, and scores from log-sum-exp rows.
template <class Policy, class T>
answer<T> run_all(const Policy& policy, const problem<T>& p, const pare::attention_options<T>& o,
                  index_t rows, const std::vector<T>& lse) {
    answer<T> a;
    pare::workspace scratch;
    pare::attention(policy, p.q(), p.k(), p.v(), p.offsets(), p.out(a.out),
                    p.scores(a.scores, rows), o, scratch);
    std::vector<T> alone;
    pare::attention(policy, p.q(), p.k(), p.v(), p.offsets(), p.out(alone), o, scratch);
    CHECK(same_bits(alone, a.out));
    pare::attention_scores(policy, p.q(), p.k(),
                           pare::view<const T, 2>(lse.data(), p.tokens(), p.heads), p.offsets(),
                           p.scores(a.from_lse, rows), o, scratch);
    return a;
}

template <class Policy, class T>
answer<T> check(const Policy& policy, const problem<T>& p, const pare::attention_options<T>& o,
                index_t rows) {
    const auto expected = oracle(p, o, rows);
    auto a = run_all(policy, p, o, rows, expected.lse);
    check_close(a.out, expected.out);
    check_close(a.scores, expected.scores);
    check_close(a.from_lse, expected.scores);
    return a;
}

template <class T>
std::vector<pare::attention_options<T>> all_options() {
    std::vector<pare::attention_options<T>> all(9);
    all[1].mask.causal = true;
    all[2].mask = {true, 5};
    all[3].mask = {false, 20};
    all[4].scores = pare::score_scale::per_query;
    all[4].queries = pare::counted_queries::first();
    all[5].queries = pare::counted_queries::last(2);
    all[5].mask.causal = true;
    all[6].scores = pare::score_scale::fixed;
    all[6].fixed_length = 64;
    all[7].reduction = pare::score_reduction::max;
    all[7].mask.causal = true;
    all[8].reduction = pare::score_reduction::max;
    all[8].scores = pare::score_scale::per_query;
    all[8].queries = pare::counted_queries::last(1);
    return all;
}

// Steps, pieces of prompts, more queries than keys, nothing on either side.
const std::vector<std::vector<sequence_lengths>> batches = {
    {},
    {{0, 0}},
    {{1, 1}},
    {{1, 40, 3}, {1, 100, 0}, {1, 17, 60}},
    {{3, 70, 1}, {0, 5, 2}, {1, 0, 4}, {2, 300, 9}, {7, 7, 0}},
    {{4, 64}, {4, 63}, {8, 128}, {9, 200}, {20, 64, 8}},
    {{30, 9, 2}, {50, 120}},
    {{8, 8}, {1, 8, 2}, {8, 1}, {5, 3, 1}, {0, 4}, {3, 0, 2}, {9, 8}, {8, 9}},
};

} // namespace

TEMPLATE_LIST_TEST_CASE("a step of more keys than parts are made of", "", policies) {
    random_source random;
    CAPTURE(random);
    const index_t heads = 2, size = 8;
    const std::vector<int> queries = {0, 1, 4, 4}, keys = {0, 40000, 56384, 72769};
    const index_t all = keys.back();
    const auto q = random.vector<float>(queries.back() * heads * size, -3, 3),
               k = random.vector<float>(all * size), v = random.vector<float>(all * size);
    for (const index_t window : {0, 30000}) {
        const auto run = [&](const auto& policy, std::vector<float>& out,
                             std::vector<float>& scores) {
            pare::attention_options<float> o;
            o.mask = {true, window};
            out.assign(static_cast<std::size_t>(queries.back() * heads * size), poison<float>());
            scores.assign(static_cast<std::size_t>(all), poison<float>());
            pare::attention(policy, pare::view(q.data(), queries.back(), heads, size),
                            pare::view(k.data(), all, index_t{1}, size),
                            pare::view(v.data(), all, index_t{1}, size),
                            pare::query_key_offsets{queries, keys},
                            pare::view(out.data(), queries.back(), heads, size), scores, o);
        };
        std::vector<float> out, scores, expected, expected_scores;
        run(pare::seq, expected, expected_scores);
        run(TestType::policy(), out, scores);
        real off = 0, scores_off = 0;
        for (std::size_t i = 0; i < out.size(); ++i)
            off = std::max(off, distance(out[i], expected[i]));
        for (std::size_t i = 0; i < scores.size(); ++i)
            scores_off = std::max(scores_off, distance(scores[i], expected_scores[i]) /
                                                  (1 + static_cast<real>(expected_scores[i])));
        CHECK(off < 1e-5L);
        CHECK(scores_off < 1e-4L);
    }
}

TEMPLATE_LIST_TEST_CASE("queries that are other tokens than the keys", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const auto& sequences : batches)
        for (const auto& o : all_options<T>()) {
            const index_t groups = random.integer(1, 2), heads = groups * random.integer(1, 3);
            const index_t size = random.integer(1, 40), value_size = random.integer(1, 70);
            const index_t rows[] = {1, groups, heads};
            const problem<T> p(heads, groups, size, value_size, sequences, random);
            CAPTURE(p.query_offsets, p.key_offsets, o.mask.causal, o.mask.window, groups, heads,
                    size, value_size, &o - all_options<T>().data());
            check(TestType::policy(), p, o, rows[random.integer(0, 2)]);
        }
}

TEMPLATE_LIST_TEST_CASE("long caches of real sizes, and heads of any", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const auto& [size, value_size] : {std::pair<index_t, index_t>{64, 64},
                                           {128, 128},
                                           {80, 9},
                                           {140, 200},
                                           {256, 8},
                                           {260, 64}})
        for (const index_t between : {3, 16}) { // with 16, rows begin where vectors may
            const problem<T> p(4, 2, size, value_size, {{1, 700, 7}, {4, 300}, {60, 70}}, random, 1,
                               between);
            pare::attention_options<T> o;
            o.mask.causal = true;
            check(TestType::policy(), p, o, 2);
        }
}

TEMPLATE_LIST_TEST_CASE("steps of many heads a group", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const index_t of_group : {5, 12, 16, 17, 71}) {
        const problem<T> p(
            2 * of_group, 2, 16, 24,
            {{1, 130, 2}, {3, 128}, {4, 257, 1}, {2, 1}, {4, 2}, {5, 40}, {1, 0}, {8, 8, 1}},
            random, 2, 8);
        for (const auto& o : all_options<T>())
            check(TestType::policy(), p, o, random.integer(0, 1) ? 2 : 2 * of_group);
    }
}

TEMPLATE_LIST_TEST_CASE("more strips and parts of keys than blocks, and room for many more", "",
                        runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const std::vector<sequence_lengths> sequences = {{1, 3000, 700}, {5, 1400, 300}, {0, 64},
                                                     {4, 1200},      {6, 1025, 1},   {5, 1, 200},
                                                     {2, 300, 900}};
    for (const auto& [groups, window] : {std::pair<index_t, index_t>{2, 400}, {128, 0}}) {
        const problem<T> p(128, groups, 2, 3, sequences, random);
        pare::attention_options<T> o;
        o.mask = {true, window};
        check(TestType::policy(), p, o, 1);
    }
}

TEMPLATE_LIST_TEST_CASE("biases, positions and weights where queries are other tokens", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const auto& sequences : batches) {
        const problem<T> p(4, 2, 16, 24, sequences, random, 1);
        const auto bias = random.vector<T>(p.keys(), -3, 0), slopes = random.vector<T>(4, 0, 0.5),
                   weights = random.vector<T>(p.tokens(), 0, 1);
        const auto positions = random_positions(p.key_offsets, random);
        const distance_table<T> table(4, 9, random);
        for (pare::attention_options<T> o : all_options<T>()) {
            CAPTURE(p.query_offsets, p.key_offsets, o.mask.causal, o.mask.window);
            o.query_weights = weights;
            o.head_slopes = slopes;
            check(TestType::policy(), p, o, 1);
            o.key_bias = bias;
            o.distance_bias = table.view();
            check(TestType::policy(), p, o, 4);
            o.positions = positions;
            check(TestType::policy(), p, o, 2);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("a step does not depend on batch or threads", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    std::vector<sequence_lengths> sequences = {{1, 700, 3}};
    for (int s = 0; s < 8; ++s)
        sequences.push_back({static_cast<int>(random.integer(0, 6)),
                             static_cast<int>(random.integer(1, 400)),
                             static_cast<int>(random.integer(0, 3))});
    const problem<T> p(4, 2, 24, 24, sequences, random);
    pare::attention_options<T> o;
    o.mask.causal = true;
    const auto lse = oracle(p, o, 1).lse;
    const auto together = run_all(TestType::policy(), p, o, 2, lse);
    for (std::size_t s = 0; s < sequences.size(); ++s) {
        problem<T> one = p;
        const auto row = static_cast<std::ptrdiff_t>(p.heads * p.size);
        one.query_offsets = {0, p.query_offsets[s + 1] - p.query_offsets[s]};
        one.key_offsets = {0, p.key_offsets[s + 1] - p.key_offsets[s]};
        one.lengths = {p.lengths[s]};
        one.queries.assign(p.queries.begin() + p.query_offsets[s] * row,
                           p.queries.begin() + p.query_offsets[s + 1] * row);
        one.cache.assign(p.cache.begin() + p.key_offsets[s] * p.stride,
                         p.cache.begin() + p.key_offsets[s + 1] * p.stride);
        const std::vector<T> rows(lse.begin() + p.query_offsets[s] * p.heads,
                                  lse.begin() + p.query_offsets[s + 1] * p.heads);
        const auto alone = run_all(TestType::policy(), one, o, 2, rows);
        const auto wide = static_cast<std::ptrdiff_t>(p.heads * p.value_size);
        CHECK(same_bits(alone.out,
                        std::vector<T>(together.out.begin() + p.query_offsets[s] * wide,
                                       together.out.begin() + p.query_offsets[s + 1] * wide)));
        for (index_t r = 0; r < 2; ++r)
            for (index_t j = 0; j < one.keys(); ++j) {
                const auto of_one = static_cast<std::size_t>(r * one.keys() + j);
                const auto of_all = static_cast<std::size_t>(r * p.keys() + p.key_offsets[s] + j);
                CHECK(same_bits(alone.scores[of_one], together.scores[of_all]));
            }
    }
#ifdef _OPENMP
    if constexpr (TestType::vectorised)
        for (int threads : {1, 2, 40}) {
            const auto other = run_all(pare::simd.with(pare::openmp{threads}), p, o, 2, lse);
            CHECK(same_bits(other.out, together.out));
            CHECK(same_bits(other.scores, together.scores));
        }
#endif
}

template <class T, class MakePolicy>
void check_parts(random_source& random, const MakePolicy& policy_of) {
    const problem<T> p(4, 2, 24, 24, {{1, 700, 3}, {3, 60, 1}, {30, 40, 2}}, random);
    for (const auto& o : all_options<T>())
        for (const index_t rows : {1, 2, 4}) {
            const auto expected = oracle(p, o, rows);
            for (const index_t nth : {1, 3}) {
                std::vector<T> out, shares, scores;
                const auto to = p.out(out);
                const auto received = p.scores(shares, 16), result = p.scores(scores, rows);
                for (index_t ith = nth; ith-- > 0;)
                    pare::attention_shares(policy_of(pare::part{ith, nth}), p.q(), p.k(), p.v(),
                                           p.offsets(), to, received, o);
                for (index_t ith = nth; ith-- > 0;)
                    pare::scores_of_shares(policy_of(pare::part{ith, nth}), received, p.offsets(),
                                           result, o);
                check_close(out, expected.out);
                check_close(scores, expected.scores);
            }
        }
}

TEMPLATE_TEST_CASE("parts of a step", "", float, double) {
    random_source random;
    CAPTURE(random);
    check_parts<TestType>(
        random, [](const auto& e) { return pare::sequential<std::decay_t<decltype(e)>>(e); });
    check_parts<TestType>(random, [](const auto& e) { return pare::simd.with(e); });
}

TEMPLATE_LIST_TEST_CASE("a maximum does not lose what is not a number", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const sequence_lengths& sequence : {sequence_lengths{1, 100}, {40, 50}}) {
        problem<T> p(2, 1, 8, 8, {sequence}, random);
        p.cache[static_cast<std::size_t>(20 * p.stride)] = not_a_number<T>();
        pare::attention_options<T> o;
        o.reduction = pare::score_reduction::max;
        const auto lse = oracle(p, o, 1).lse;
        if constexpr (on_host<TestType>) {
            std::vector<T> out, scores;
            CHECK_THAT(sentence_of<pare::value_error>([&] {
                           pare::attention(TestType::policy(), p.q(), p.k(), p.v(), p.offsets(),
                                           p.out(out), p.scores(scores, 2), o);
                       }),
                       ContainsSubstring("the attention to key "));
        } else {
            std::vector<T> out, scores;
            pare::attention(TestType::policy(), p.q(), p.k(), p.v(), p.offsets(), p.out(out),
                            p.scores(scores, 2), o);
            CHECK(is_nan(scores[20]));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("what is not a number is named by its sequence, in whichever row", "",
                        runs) {
    using T = typename TestType::type;
    if constexpr (on_host<TestType>) {
        random_source random;
        CAPTURE(random);
        problem<T> p(2, 2, 8, 8, {{1, 3000}, {1, 3000}}, random);
        const index_t of_last_group = 8; // of the key in the middle of the second sequence
        p.cache[static_cast<std::size_t>(4500 * p.stride + of_last_group)] = not_a_number<T>();
        std::vector<T> out, scores;
        CHECK_THAT(sentence_of<pare::value_error>([&] {
                       pare::attention(TestType::policy(), p.q(), p.k(), p.v(), p.offsets(),
                                       p.out(out), p.scores(scores, 2), {});
                   }),
                   ContainsSubstring("the attention to key 0 of sequence 1 sums up to"));
    }
}

TEMPLATE_LIST_TEST_CASE("a query that sees no key gets 0 of values of any size", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const sequence_lengths& sequence :
         {sequence_lengths{4, 2}, {8, 5}, {8, 0}, {3, 1, 2}, {20, 9}, {70, 33}}) {
        CAPTURE(sequence.queries, sequence.keys);
        problem<T> p(4, 2, 8, 8, {sequence}, random);
        for (index_t j = 0; j < sequence.keys; ++j)
            for (index_t d = 0; d < 2 * 8; ++d)
                p.cache[static_cast<std::size_t>(j * p.stride + 2 * 8 + d)] =
                    std::numeric_limits<T>::max() / 2;
        pare::attention_options<T> o;
        o.mask.causal = true;
        std::vector<T> out, scores;
        pare::attention(TestType::policy(), p.q(), p.k(), p.v(), p.offsets(), p.out(out),
                        p.scores(scores, 2), o);
        const auto unseen = static_cast<std::size_t>((sequence.queries - sequence.keys) * 4 * 8);
        for (std::size_t i = 0; i < unseen; ++i) CHECK(out[i] == 0);
    }
}

TEST_CASE("what a cache is not, attention says in numbers") {
    random_source random;
    const problem<float> p(4, 2, 8, 6, {{1, 3, 2}, {2, 4}}, random);
    std::vector<float> out, scores;
    const auto sentence = [&](const auto& offsets, index_t rows,
                              const pare::attention_options<float>& o = {}) {
        return sentence_of<pare::error>([&] {
            pare::attention(pare::simd, p.q(), p.k(), p.v(), offsets, p.out(out),
                            p.scores(scores, rows), o);
        });
    };
    using offsets = std::vector<int>;
    const offsets queries = {0, 1, 3}, keys = {0, 5, 9};
    CHECK(sentence(queries, 1) == "pare::attention: 3 queries, 9 keys: give query_key_offsets, "
                                  "where they are not the same tokens");
    CHECK(sentence(pare::query_key_offsets{queries, offsets{0, 9}}, 1) ==
          "pare::attention: 2 sequences of queries, 1 of keys");
    CHECK_THAT(sentence(pare::query_key_offsets{queries, offsets{0, 5, 8}}, 1),
               ContainsSubstring("offsets go from 0 to 8, there are 9 tokens"));
    CHECK_THAT(sentence(pare::query_key_offsets{queries, keys, offsets{6, 4}}, 1),
               ContainsSubstring("sequence 0 has 6 keys, and room for 5"));
    CHECK_THAT(sentence(pare::query_key_offsets{queries, keys, offsets{3, -1}}, 1),
               ContainsSubstring("sequence 1 has -1 keys, and room for 4"));
    CHECK_THAT(sentence(pare::query_key_offsets{queries, keys, offsets{3}}, 1),
               ContainsSubstring("1 lengths of stride 1, 2 sequences"));
    CHECK(sentence(p.offsets(), 3) ==
          "pare::attention: scores are 3x9, there are 4 heads, 2 groups and 9 keys");
    pare::attention_options<float> o;
    const std::vector<float> few(3);
    o.key_bias = few;
    CHECK_THAT(sentence(p.offsets(), 1, o), ContainsSubstring("3 key biases, 9 are expected"));
    o = {};
    o.reduction = pare::score_reduction::max;
    o.scores = pare::score_scale::fixed;
    o.fixed_length = 8;
    CHECK_THAT(sentence(p.offsets(), 1, o),
               ContainsSubstring("score_scale::fixed is for sums, and the reduction is max"));
}

} // namespace attention_cache_test
