// Scores from queries, keys and log-sum-exp rows against their definition in long double, and
// against what attention gives: masks, biases, grouped inputs, lengths, layouts of other libraries.
#include "distance_biases.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention_scores.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

namespace attention_scores_test {

namespace {

/// Packed sequences: [tokens][q of all heads, k of all groups], with poison between the tokens.
template <class T>
struct problem {
    index_t heads, groups, size, stride;
    std::vector<int> offsets = {0};
    std::vector<T> data;

    problem(index_t h, index_t g, index_t each, const std::vector<int>& lengths,
            random_source& random, double spread = 2)
        : heads(h), groups(g), size(each), stride((h + g) * each + 8) {
        for (int n : lengths) offsets.push_back(offsets.back() + n);
        data.assign(static_cast<std::size_t>(tokens() * stride), poison<T>());
        for (index_t t = 0; t < tokens(); ++t)
            for (index_t i = 0; i < stride - 8; ++i)
                data[static_cast<std::size_t>(t * stride + i)] = random.uniform<T>(-spread, spread);
    }
    index_t tokens() const { return offsets.back(); }
    pare::view<const T, 3> q() const {
        return {data.data(), {tokens(), heads, size}, {stride, size, 1}};
    }
    pare::view<const T, 3> k() const {
        return {data.data() + heads * size, {tokens(), groups, size}, {stride, size, 1}};
    }
    problem alone(std::size_t s) const {
        problem one = *this;
        one.offsets = {0, offsets[s + 1] - offsets[s]};
        one.data.assign(data.begin() + offsets[s] * stride, data.begin() + offsets[s + 1] * stride);
        return one;
    }
};

/// The definition. Log-sum-exp rows [tokens x heads], and the scores of those that are finite.
template <class T, class L>
struct expectation {
    std::vector<L> lse;
    std::vector<real> scores;
    std::vector<bool> counts; // rows

    template <class O>
    expectation(const problem<T>& p, const O& o, std::vector<bool> rows = {}) : counts(rows) {
        const auto heads = static_cast<std::size_t>(p.heads);
        lse.resize(static_cast<std::size_t>(p.tokens()) * heads);
        if (counts.empty()) counts.assign(lse.size(), true);
        for (std::size_t s = 0; s + 1 < p.offsets.size(); ++s)
            of_sequence(p, o, p.offsets[s], p.offsets[s + 1] - p.offsets[s]);
    }

  private:
    template <class O>
    void of_sequence(const problem<T>& p, const O& o, index_t at, index_t n) {
        const auto q = p.q(), k = p.k();
        const real scale =
            o.scale != 0 ? static_cast<real>(o.scale) : 1 / std::sqrt(static_cast<real>(p.size));
        const index_t first = o.queries.begin < 0 ? std::max<index_t>(0, n + o.queries.begin)
                                                  : std::min(n, o.queries.begin);
        const index_t last = o.queries.end < 0 ? n + o.queries.end : std::min(n, o.queries.end);
        std::vector<real> sums(static_cast<std::size_t>(n)), uniform = sums;
        for (index_t i = 0; i < n; ++i) {
            const auto sees = [&](index_t j) {
                return !(o.mask.causal && j > i) &&
                       !(o.mask.window > 0 && std::abs(i - j) >= o.mask.window);
            };
            real seen = 0;
            for (index_t j = 0; j < n; ++j) seen += sees(j);
            const bool counted = i >= first && i < last;
            for (index_t j = 0; j < n && counted; ++j)
                uniform[static_cast<std::size_t>(j)] += sees(j) ? 1 / seen : 0;
            for (index_t h = 0; h < p.heads; ++h) {
                std::vector<real> e(static_cast<std::size_t>(n));
                for (index_t j = 0; j < n; ++j) {
                    real logit = 0;
                    for (index_t x = 0; x < p.size; ++x)
                        logit += static_cast<real>(q(at + i, h, x)) *
                                 static_cast<real>(k(at + j, h * p.groups / p.heads, x));
                    logit *= scale;
                    bool removed = false;
                    if (o.key_bias.extent(0) > 0) {
                        logit += static_cast<real>(o.key_bias(at + j));
                        removed = o.key_bias(at + j) < std::numeric_limits<T>::lowest() / 2;
                    }
                    const index_t away = biased_distance(o, at, i, j);
                    if (o.head_slopes.extent(0) > 0)
                        logit -=
                            static_cast<real>(o.head_slopes(h)) * static_cast<real>(std::abs(away));
                    if (o.distance_bias.extent(1) > 0)
                        logit += static_cast<real>(bias_at(o.distance_bias, h, away));
                    e[static_cast<std::size_t>(j)] = removed || !sees(j) ? 0 : std::exp(logit);
                }
                const real sum = std::accumulate(e.begin(), e.end(), real(0));
                const auto row = static_cast<std::size_t>((at + i) * p.heads + h);
                lse[row] = static_cast<L>(std::log(sum));
                if (!counted || !counts[row]) continue;
                const real weight =
                    o.query_weights.extent(0) > 0 ? static_cast<real>(o.query_weights(at + i)) : 1;
                for (std::size_t j = 0; j < e.size(); ++j) sums[j] += weight * e[j] / sum;
            }
        }
        for (std::size_t j = 0; j < sums.size(); ++j) {
            real by = static_cast<real>(p.heads);
            if (o.scores == pare::score_scale::relative) by *= uniform[j];
            if (o.scores == pare::score_scale::per_query) by *= static_cast<real>(last - first);
            if (o.scores == pare::score_scale::fixed) by *= static_cast<real>(o.fixed_length);
            scores.push_back(by > 0 ? sums[j] / by : 0);
        }
    }
};

template <class Policy, class T, class L>
std::vector<T> run_scores(const Policy& policy, const problem<T>& p, const std::vector<L>& lse,
                          const pare::attention_options<T>& o = {}) {
    std::vector<T> scores(static_cast<std::size_t>(p.tokens()), poison<T>());
    pare::workspace scratch;
    pare::attention_scores(policy, p.q(), p.k(),
                           pare::view<const L, 2>(lse.data(), p.tokens(), p.heads), p.offsets,
                           scores, o, scratch);
    return scores;
}

template <class T, class Expected>
void check(const std::vector<T>& scores, const std::vector<Expected>& expected, real tolerance) {
    REQUIRE(scores.size() == expected.size());
    real worst = 0;
    for (std::size_t i = 0; i < scores.size(); ++i)
        worst = std::max(worst, distance(scores[i], expected[i]) /
                                    (1 + std::abs(static_cast<real>(expected[i]))));
    REQUIRE(worst < tolerance);
}
/// Logits of up to 2 * 2 * size in T, and rows rounded to L.
template <class L>
constexpr real allowed = std::is_same_v<L, float> ? 2e-5L : 1e-13L;

template <class T>
std::vector<pare::attention_options<T>> all_options() {
    std::vector<pare::attention_options<T>> all(9);
    all[1].mask.causal = true;
    all[2].mask = {true, 5};
    all[3].mask = {false, 20};
    all[4].scores = pare::score_scale::per_query;
    all[4].queries = pare::counted_queries::first();
    all[5].queries = pare::counted_queries::last(7);
    all[5].scale = -0.3;
    all[6].scores = pare::score_scale::fixed;
    all[6].fixed_length = 64;
    all[7].mask.causal = true;
    all[7].queries = pare::counted_queries::last(3);
    all[8].mask = {true, 50};
    all[8].queries = {-60, -2};
    return all;
}

} // namespace

TEMPLATE_LIST_TEST_CASE("scores of log-sum-exp rows are the definition's", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const std::vector<std::vector<int>> batches = {{},           {0},          {1},  {2, 0, 1},
                                                   {15, 16, 17}, {31, 32, 33}, {64}, {48, 200, 65}};
    for (const auto& lengths : batches)
        for (const auto& o : all_options<T>()) {
            const index_t groups = random.integer(1, 2), size = random.integer(1, 40);
            CAPTURE(lengths, o.mask.causal, o.mask.window, groups, size);
            const problem<T> p(groups * random.integer(1, 3), groups, size, lengths, random);
            const expectation<T, T> e(p, o);
            check(run_scores(TestType::policy(), p, e.lse, o), e.scores, allowed<T>);
        }
}

TEMPLATE_LIST_TEST_CASE("scores beside attention are those of attention", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const index_t size : {1, 64, 80, 129}) {
        const problem<T> p(2, 1, size, {130, 1}, random, 1);
        std::vector<T> context(static_cast<std::size_t>(p.tokens() * p.heads * size));
        for (const auto& o : all_options<T>()) {
            CAPTURE(size, o.mask.causal, o.mask.window);
            std::vector<T> scores(static_cast<std::size_t>(p.tokens()));
            pare::workspace scratch;
            // Values do not matter: here they are the keys.
            pare::attention(TestType::policy(), p.q(), p.k(), p.k(), p.offsets,
                            pare::view<T, 3>(context.data(), p.tokens(), p.heads, size), scores, o,
                            scratch);
            const expectation<T, T> e(p, o);
            check(run_scores(TestType::policy(), p, e.lse, o), scores, allowed<T>);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("biases and weights in scores of log-sum-exp rows", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 16, {5, 37, 1, 150}, random);
    std::vector<T> bias = random.vector<T>(p.tokens(), -3, 0);
    bias[3] = bias[50] = minus_infinite<T>();
    const std::vector<T> slopes = {T(0.5), T(0.25), T(0.125), T(0)};
    const std::vector<T> weights = random.vector<T>(p.tokens(), -0.2, 1);
    for (pare::attention_options<T> o : all_options<T>()) {
        if (o.mask.window > 0) continue; // some queries would see removed keys alone
        o.query_weights = pare::view<const T, 1>(weights.data(), p.tokens());
        const expectation<T, T> weighted(p, o);
        check(run_scores(TestType::policy(), p, weighted.lse, o), weighted.scores, allowed<T>);
        o.key_bias = pare::view<const T, 1>(bias.data(), p.tokens());
        const expectation<T, T> with(p, o);
        const auto scores = run_scores(TestType::policy(), p, with.lse, o);
        check(scores, with.scores, allowed<T>);
        CHECK(scores[3] == 0);
        o.head_slopes = pare::view<const T, 1>(slopes.data(), 4);
        const expectation<T, T> sloped(p, o);
        check(run_scores(TestType::policy(), p, sloped.lse, o), sloped.scores, allowed<T>);
    }
}

TEMPLATE_LIST_TEST_CASE("biases by relative position in scores of log-sum-exp rows", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 16, {5, 37, 1, 130}, random);
    const auto bias = random.vector<T>(p.tokens(), -3, 0);
    const auto slopes = random.vector<T>(4, 0, 0.5);
    const auto positions = random_positions(p.offsets, random);
    for (const index_t most : {0, 20, 200}) {
        const distance_table<T> table(4, most, random);
        for (pare::attention_options<T> o : all_options<T>()) {
            CAPTURE(most, o.mask.causal, o.mask.window, o.queries.begin);
            o.distance_bias = table.view();
            const expectation<T, T> with(p, o);
            check(run_scores(TestType::policy(), p, with.lse, o), with.scores, allowed<T>);
            o.positions = positions;
            o.key_bias = bias;
            const expectation<T, T> placed(p, o);
            check(run_scores(TestType::policy(), p, placed.lse, o), placed.scores, allowed<T>);
            o.positions = {};
            o.head_slopes = slopes;
            const expectation<T, T> all(p, o);
            check(run_scores(TestType::policy(), p, all.lse, o), all.scores, allowed<T>);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("rows in float, of any layout, and rows of no key", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 24, {40, 3, 170}, random);
    const index_t tokens = p.tokens();
    for (const auto& o : {all_options<T>()[0], all_options<T>()[1]}) {
        // FlashAttention's rows of packed sequences: [heads x tokens], in float.
        const expectation<T, float> e(p, o);
        std::vector<float> by_head(e.lse.size());
        for (index_t t = 0; t < tokens; ++t)
            for (index_t h = 0; h < p.heads; ++h)
                by_head[static_cast<std::size_t>(h * tokens + t)] =
                    e.lse[static_cast<std::size_t>(t * p.heads + h)];
        std::vector<T> scores(static_cast<std::size_t>(tokens), poison<T>());
        pare::workspace scratch;
        pare::attention_scores(
            TestType::policy(), p.q(), p.k(),
            pare::view<const float, 2>(by_head.data(), {tokens, p.heads}, {1, tokens}), p.offsets,
            scores, o, scratch);
        check(scores, e.scores, allowed<float>);
        CHECK(same_bits(scores, run_scores(TestType::policy(), p, e.lse, o)));

        // Rows without a key are infinite, with FlashAttention 2 positive.
        std::vector<bool> counts(e.lse.size());
        for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = random.integer(0, 2) > 0;
        expectation<T, T> some(p, o, counts);
        for (std::size_t i = 0; i < counts.size(); ++i)
            if (!counts[i]) some.lse[i] = i % 2 ? infinite<T>() : minus_infinite<T>();
        check(run_scores(TestType::policy(), p, some.lse, o), some.scores, allowed<T>);
    }
}

TEMPLATE_LIST_TEST_CASE("a padded batch has the scores of a packed one", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const std::vector<int> lengths = {70, 0, 131, 1};
    const index_t batch = 4, room = 131;
    const problem<T> p(4, 2, 16, lengths, random);
    const index_t heads = p.heads, groups = p.groups, size = p.size, places = batch * room;
    const std::vector<T> weights = random.vector<T>(p.tokens(), 0, 1);
    for (pare::attention_options<T> o : all_options<T>()) {
        const pare::attention_options<T> padded = o;
        for (const bool weighted : {false, true}) {
            std::vector<T> padded_weights(static_cast<std::size_t>(places), poison<T>());
            pare::attention_options<T> other = padded;
            if (weighted) {
                o.query_weights = pare::view<const T, 1>(weights.data(), p.tokens());
                other.query_weights = pare::view<const T, 1>(padded_weights.data(), places);
            }
            const expectation<T, T> e(p, o);
            const auto packed = run_scores(TestType::policy(), p, e.lse, o);
            // PyTorch's [batch x heads x n x size], and [batch x n x heads x size].
            for (const bool by_head : {true, false}) {
                const auto place = [&](index_t b, index_t h, index_t i, index_t all) {
                    return by_head ? (b * all + h) * room + i : (b * room + i) * all + h;
                };
                std::vector<T> q(static_cast<std::size_t>(places * heads * size), poison<T>()),
                    k(static_cast<std::size_t>(places * groups * size), poison<T>()),
                    lse(static_cast<std::size_t>(places * heads), poison<T>());
                for (index_t b = 0; b < batch; ++b)
                    for (index_t i = 0; i < lengths[static_cast<std::size_t>(b)]; ++i) {
                        const index_t t = p.offsets[static_cast<std::size_t>(b)] + i;
                        padded_weights[static_cast<std::size_t>(b * room + i)] =
                            weights[static_cast<std::size_t>(t)];
                        for (index_t h = 0; h < heads; ++h) {
                            for (index_t x = 0; x < size; ++x)
                                q[static_cast<std::size_t>(place(b, h, i, heads) * size + x)] =
                                    p.q()(t, h, x);
                            lse[static_cast<std::size_t>((b * heads + h) * room + i)] =
                                e.lse[static_cast<std::size_t>(t * heads + h)];
                        }
                        for (index_t g = 0; g < groups; ++g)
                            for (index_t x = 0; x < size; ++x)
                                k[static_cast<std::size_t>(place(b, g, i, groups) * size + x)] =
                                    p.k()(t, g, x);
                    }
                const auto four = [&](const std::vector<T>& x, index_t all) {
                    return pare::view<const T, 4>(x.data(), {batch, all, room, size},
                                                  {room * all * size, by_head ? room * size : size,
                                                   by_head ? size : all * size, 1});
                };
                std::vector<T> scores(static_cast<std::size_t>(places), poison<T>());
                pare::workspace scratch;
                pare::attention_scores(TestType::policy(), four(q, heads), four(k, groups),
                                       pare::view<const T, 3>(lse.data(), {batch, heads, room},
                                                              {heads * room, room, 1}),
                                       lengths, pare::view<T, 2>(scores.data(), batch, room), other,
                                       scratch);
                std::vector<T> found;
                for (index_t b = 0; b < batch; ++b)
                    for (index_t i = 0; i < room; ++i) {
                        const T score = scores[static_cast<std::size_t>(b * room + i)];
                        if (i < lengths[static_cast<std::size_t>(b)])
                            found.push_back(score);
                        else
                            REQUIRE(score == 0);
                    }
                CHECK(same_bits(found, packed));
            }
        }
    }
}

TEMPLATE_LIST_TEST_CASE("scores do not depend on batch, order, threads or layout", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    std::vector<int> lengths;
    for (int s = 0; s < 8; ++s) lengths.push_back(static_cast<int>(random.integer(1, 90)));
    lengths.push_back(530);
    const problem<T> p(3, 1, 24, lengths, random);
    for (const auto& o : {all_options<T>()[0], all_options<T>()[2], all_options<T>()[8]}) {
        const expectation<T, T> e(p, o);
        const auto together = run_scores(TestType::policy(), p, e.lse, o);
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const std::vector<T> lse(e.lse.begin() + p.offsets[s] * p.heads,
                                     e.lse.begin() + p.offsets[s + 1] * p.heads);
            const std::vector<T> scores(together.begin() + p.offsets[s],
                                        together.begin() + p.offsets[s + 1]);
            CHECK(same_bits(run_scores(TestType::policy(), p.alone(s), lse, o), scores));
        }
#ifdef _OPENMP
        if constexpr (TestType::vectorised)
            for (int threads : {1, 2, 5})
                CHECK(same_bits(run_scores(pare::simd.with(pare::openmp{threads}), p, e.lse, o),
                                together));
#endif
    }
}

TEMPLATE_LIST_TEST_CASE("a window of any size in scores", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(2, 1, 8, {3, 140, 1}, random);
    constexpr index_t most = std::numeric_limits<index_t>::max();
    for (const bool causal : {false, true}) {
        pare::attention_options<T> o;
        o.mask.causal = causal;
        const expectation<T, T> e(p, o);
        const auto without = run_scores(TestType::policy(), p, e.lse, o);
        check(without, e.scores, allowed<T>);
        for (const index_t window : {most, most - 139, most / 2, index_t{140}}) {
            CAPTURE(window);
            o.mask.window = window;
            check(run_scores(TestType::policy(), p, e.lse, o), without, allowed<T>);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("scores of no tokens, no heads and no size", "", runs) {
    using T = typename TestType::type;
    const std::vector<int> offsets = {0, 2, 5}, none = {0, 0};
    for (const auto& [tokens, heads, size] :
         {std::array<index_t, 3>{0, 2, 4}, {5, 0, 4}, {5, 2, 0}, {0, 0, 0}}) {
        CAPTURE(tokens, heads, size);
        const pare::view<const T, 3> x(nullptr, {tokens, heads, size},
                                       {heads * size + 5, size + 1, 1});
        // Of two keys, or three, without size: all are the same.
        std::vector<T> rows(static_cast<std::size_t>(tokens * heads));
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = std::log(T(i < 4 ? 2 : 3));
        std::vector<T> scores(static_cast<std::size_t>(tokens), poison<T>());
        pare::attention_scores(TestType::policy(), x, x,
                               pare::view<const T, 2>(rows.data(), tokens, heads),
                               tokens ? offsets : none, scores);
        for (const T score : scores)
            REQUIRE(distance(score, heads ? 1 : 0) < static_cast<real>(8 * rounding<T>));
        const pare::view<const T, 4> four(nullptr, {2, heads, 0, size}, {100, 20, 5, 1});
        pare::attention_scores(TestType::policy(), four, four,
                               pare::view<const T, 3>(nullptr, {2, heads, 0}, {7, 3, 1}), {},
                               pare::view<T, 2>(nullptr, 2, 0));
    }
}

TEMPLATE_LIST_TEST_CASE("log-sum-exp rows that are wrong", "", runs) {
    using T = typename TestType::type;
    if constexpr (decltype(TestType::policy())::on_host) {
        random_source random;
        CAPTURE(random);
        problem<T> p(3, 1, 8, {5, 20}, random);
        pare::attention_options<T> o;
        o.queries = pare::counted_queries::last(4);
        const expectation<T, T> e(p, o);
        const auto sentence = [&](const std::vector<T>& lse) {
            return sentence_of<pare::value_error>(
                [&] { run_scores(TestType::policy(), p, lse, o); });
        };
        auto lse = e.lse;
        lse[(5 + 17) * 3 + 2] = not_a_number<T>();
        lse[(5 + 3) * 3] = not_a_number<T>(); // does not count
        CHECK_THAT(sentence(lse),
                   ContainsSubstring("the log-sum-exp of query 17 of sequence 1, head 2, is not a "
                                     "number"));
        lse = e.lse;
        lse[(5 + 17) * 3] = T(-1e30);
        CHECK_THAT(sentence(lse),
                   ContainsSubstring("the attention to key 0 of sequence 1 sums up"));
        p.data[static_cast<std::size_t>(2 * p.stride)] = not_a_number<T>();
        CHECK_THAT(sentence(e.lse), ContainsSubstring("of sequence 0 sums up to "));
    }
}

TEST_CASE("what attention_scores cannot use, it says in numbers") {
    random_source random;
    const problem<float> p(4, 2, 8, {3, 4}, random);
    const expectation<float, float> e(p, pare::attention_options<float>());
    std::vector<float> scores(7), few(5);
    pare::workspace scratch;
    const auto sentence = [&](index_t heads, index_t rows, const std::vector<int>& offsets,
                              std::vector<float>& s, const pare::attention_options<float>& o = {}) {
        return sentence_of<pare::error>([&] {
            pare::attention_scores(
                pare::simd,
                pare::view<const float, 3>(p.data.data(), {7, heads, 8}, {p.stride, 8, 1}), p.k(),
                pare::view<const float, 2>(e.lse.data(), {rows, heads}, {4, 1}), offsets, s, o,
                scratch);
        });
    };
    CHECK_THAT(sentence(4, 6, p.offsets, scores),
               ContainsSubstring("pare::attention_scores: q is 7x4x8, k 7x2x8, lse 6x4"));
    CHECK_THAT(sentence(3, 7, p.offsets, scores), ContainsSubstring("3 heads, 2 groups"));
    CHECK_THAT(sentence(4, 7, {0, 3, 6}, scores),
               ContainsSubstring("offsets go from 0 to 6, there are 7 tokens"));
    CHECK_THAT(sentence(4, 7, p.offsets, few), ContainsSubstring("5 scores, 7 keys"));
    pare::attention_options<float> o;
    o.key_bias = pare::view<const float, 1>(few.data(), 5);
    CHECK_THAT(sentence(4, 7, p.offsets, scores, o),
               ContainsSubstring("pare::attention_scores: 5 key biases, 7 are expected"));
    o = {};
    o.scale = 1e200;
    CHECK_THAT(sentence(4, 7, p.offsets, scores, o), ContainsSubstring("the scale is 1e+200"));
    o = {};
    o.mask.window = -1;
    CHECK_THAT(sentence(4, 7, p.offsets, scores, o), ContainsSubstring("the window is -1"));

    const pare::view<const float, 4> q(p.data.data(), {1, 4, 7, 8}, {0, 8, p.stride, 1});
    const auto padded = [&](index_t rows, const std::vector<int>& lengths) {
        return sentence_of<pare::error>([&] {
            pare::attention_scores(
                pare::simd, q, q, pare::view<const float, 3>(e.lse.data(), {1, 4, rows}, {0, 1, 4}),
                lengths, pare::view<float, 2>(scores.data(), 1, 7), {}, scratch);
        });
    };
    CHECK_THAT(padded(6, {}), ContainsSubstring("q is 1x4x7x8, k 1x4x7x8, lse 1x4x6, scores 1x7"));
    CHECK_THAT(padded(7, {8}), ContainsSubstring("sequence 0 has length 8"));
    CHECK_THAT(padded(7, {2, 3}), ContainsSubstring("2 lengths"));
}

TEST_CASE("what uniform attention gives a key, in as many steps for any length") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 3000; ++round) {
        pare::importance_options o;
        const index_t keys = random.integer(1, round % 10 == 0 ? 3000 : 60);
        const index_t queries = random.integer(0, 2) > 0 ? keys : random.integer(1, 80);
        const index_t key = random.integer(0, keys - 1);
        o.mask.causal = random.integer(0, 1) == 1;
        if (random.integer(0, 1) == 1) o.mask.window = random.integer(1, keys + 5);
        if (random.integer(0, 9) == 0) o.mask.window = std::numeric_limits<index_t>::max() / 2;
        if (random.integer(0, 1) == 1)
            o.queries = {random.integer(-70, 70), random.integer(-70, 70)};
        real sum = 0;
        const auto counted = pare::detail::counted(o.queries, queries);
        for (index_t i = counted.begin; i < counted.end; ++i) {
            const auto seen = pare::detail::visible_keys(o.mask, i, queries, keys);
            if (key >= seen.begin && key < seen.end) sum += 1 / static_cast<real>(seen.size());
        }
        CAPTURE(keys, queries, key, o.mask.causal, o.mask.window, counted.begin, counted.end);
        REQUIRE(distance(pare::detail::uniform_attention(o, key, queries, keys), sum) <=
                1e-14L * sum);
    }
}

} // namespace attention_scores_test
