// Attention over packed sequences against softmax in long double: output and scores, over masks,
// biases, grouped and interleaved inputs, lengths and sizes.
#include "distance_biases.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention.hpp>

#include <algorithm>

namespace attention_test {

namespace {

template <class T>
struct problem {
    index_t heads, groups, size, value_size;
    std::vector<int> offsets = {0};
    // Interleaved as [tokens][q of all heads, k, v of all groups], with poison between the tokens.
    std::vector<T> data;
    index_t stride;

    problem(index_t h, index_t g, index_t of_query, index_t of_value,
            const std::vector<int>& lengths, random_source& random, double spread = 2)
        : heads(h), groups(g), size(of_query), value_size(of_value),
          stride((h + g) * of_query + g * of_value + 3) {
        for (int n : lengths) offsets.push_back(offsets.back() + n);
        data.assign(static_cast<std::size_t>(tokens() * stride), poison<T>());
        for (index_t t = 0; t < tokens(); ++t)
            for (index_t i = 0; i < stride - 3; ++i)
                data[static_cast<std::size_t>(t * stride + i)] = random.uniform<T>(-spread, spread);
    }
    index_t tokens() const { return offsets.back(); }
    pare::view<const T, 3> part(index_t at, index_t count, index_t each) const {
        return {data.data() + at, {tokens(), count, each}, {stride, each, 1}};
    }
    pare::view<const T, 3> q() const { return part(0, heads, size); }
    pare::view<const T, 3> k() const { return part(heads * size, groups, size); }
    pare::view<const T, 3> v() const { return part((heads + groups) * size, groups, value_size); }
    /// Sequence s alone.
    problem alone(std::size_t s) const {
        problem one = *this;
        one.offsets = {0, offsets[s + 1] - offsets[s]};
        one.data.assign(data.begin() + offsets[s] * stride, data.begin() + offsets[s + 1] * stride);
        return one;
    }
};

template <class T>
struct answer {
    std::vector<T> out, scores;
};

template <class Policy, class T>
answer<T> run_attention(const Policy& policy, const problem<T>& p,
                        const pare::attention_options<T>& o = {}) {
    answer<T> a{
        std::vector<T>(static_cast<std::size_t>(p.tokens() * p.heads * p.value_size), poison<T>()),
        std::vector<T>(static_cast<std::size_t>(p.tokens()), poison<T>())};
    pare::workspace scratch;
    pare::attention(policy, p.q(), p.k(), p.v(), p.offsets,
                    pare::view<T, 3>(a.out.data(), p.tokens(), p.heads, p.value_size), a.scores, o,
                    scratch);
    return a;
}

// The definition: probabilities first, in long double, then their importance.
template <class T>
answer<real> oracle(const problem<T>& p, const pare::attention_options<T>& o) {
    answer<real> a;
    const auto q = p.q(), k = p.k(), v = p.v();
    const real scale =
        o.scale != 0 ? static_cast<real>(o.scale) : 1 / std::sqrt(static_cast<real>(p.size));
    for (std::size_t s = 0; s + 1 < p.offsets.size(); ++s) {
        const index_t at = p.offsets[s], n = p.offsets[s + 1] - at;
        std::vector<double> all; // [heads, n, n]
        for (index_t h = 0; h < p.heads; ++h)
            for (index_t i = 0; i < n; ++i) {
                std::vector<real> e;
                real sum = 0;
                for (index_t j = 0; j < n; ++j) {
                    const index_t distance = std::abs(i - j);
                    const index_t away = biased_distance(o, at, i, j);
                    real logit = 0;
                    for (index_t x = 0; x < p.size; ++x)
                        logit += static_cast<real>(q(at + i, h, x)) *
                                 static_cast<real>(k(at + j, h * p.groups / p.heads, x));
                    logit *= scale;
                    if (o.key_bias.extent(0) > 0) logit += static_cast<real>(o.key_bias(at + j));
                    if (o.head_slopes.extent(0) > 0)
                        logit -=
                            static_cast<real>(o.head_slopes(h)) * static_cast<real>(std::abs(away));
                    bool removed = o.key_bias.extent(0) > 0 &&
                                   o.key_bias(at + j) < std::numeric_limits<T>::lowest() / 2;
                    if (o.distance_bias.extent(1) > 0) {
                        const T bias = bias_at(o.distance_bias, h, away);
                        logit += static_cast<real>(bias);
                        removed = removed || bias < std::numeric_limits<T>::lowest() / 2;
                    }
                    const bool hidden = removed || (o.mask.causal && j > i) ||
                                        (o.mask.window > 0 && distance >= o.mask.window);
                    e.push_back(hidden ? 0 : std::exp(logit));
                    sum += e.back();
                }
                for (real x : e) all.push_back(static_cast<double>(x / sum));
            }
        for (index_t i = 0; i < n; ++i)
            for (index_t h = 0; h < p.heads; ++h)
                for (index_t x = 0; x < p.value_size; ++x) {
                    real y = 0;
                    for (index_t j = 0; j < n; ++j)
                        y += static_cast<real>(all[static_cast<std::size_t>((h * n + i) * n + j)]) *
                             static_cast<real>(v(at + j, h * p.groups / p.heads, x));
                    a.out.push_back(y);
                }
        if (o.query_weights.extent(0) > 0)
            for (std::size_t i = 0; i < all.size(); ++i)
                all[i] *=
                    static_cast<double>(o.query_weights(at + static_cast<index_t>(i) / n % n));
        std::vector<double> scores(static_cast<std::size_t>(n));
        pare::importance(pare::seq, pare::view<const double, 3>(all.data(), p.heads, n, n), scores,
                         {o.scores, o.fixed_length, o.mask, o.queries});
        a.scores.insert(a.scores.end(), scores.begin(), scores.end());
    }
    return a;
}

template <class T>
void check(const answer<T>& a, const answer<real>& expected) {
    REQUIRE(a.out.size() == expected.out.size());
    REQUIRE(a.scores.size() == expected.scores.size());
    // Logits of up to 2 * 2 * size in T, and exp of xsimd within a few roundings.
    const double relative = std::is_same_v<T, float> ? 2e-5 : 1e-13;
    double worst = 0;
    for (std::size_t i = 0; i < a.out.size(); ++i)
        worst = std::max(worst, static_cast<double>(distance(a.out[i], expected.out[i])));
    for (std::size_t i = 0; i < a.scores.size(); ++i)
        worst = std::max(worst, static_cast<double>(distance(a.scores[i], expected.scores[i]) /
                                                    (1 + expected.scores[i])));
    REQUIRE(worst < relative);
}

template <class T>
std::vector<pare::attention_options<T>> all_options() {
    std::vector<pare::attention_options<T>> all(8);
    all[1].mask.causal = true;
    all[2].mask = {true, 5};
    all[3].mask = {false, 20};
    all[4].scores = pare::score_scale::per_query;
    all[4].queries = pare::counted_queries::first();
    all[5].queries = pare::counted_queries::last(7);
    all[5].scale = 0.3;
    all[6].scores = pare::score_scale::fixed;
    all[6].fixed_length = 64;
    all[7].mask.causal = true;
    all[7].queries = pare::counted_queries::last(3);
    return all;
}

} // namespace

TEMPLATE_LIST_TEST_CASE("attention and its scores are the definition's", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const std::vector<std::vector<int>> batches = {
        {}, {0}, {1}, {2, 0, 1}, {3, 8, 9, 4}, {15, 16, 17}, {31, 32, 33}, {64}, {48, 100}};
    for (const auto& lengths : batches)
        for (const auto& o : all_options<T>()) {
            const index_t groups = random.integer(1, 2), size = random.integer(1, 40),
                          value_size = random.integer(1, 70);
            CAPTURE(lengths, o.mask.causal, o.mask.window, groups, size, value_size);
            const problem<T> p(groups * random.integer(1, 3), groups, size, value_size, lengths,
                               random);
            check(run_attention(TestType::policy(), p, o), oracle(p, o));
        }
}

TEMPLATE_LIST_TEST_CASE("relative scores are 1 on average, by what uniform attention gives", "",
                        runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const pare::attention_mask mask :
         {pare::attention_mask{}, {true, 0}, {true, 9}, {false, 9}})
        for (const index_t heads : {2, 6}) {
            CAPTURE(mask.causal, mask.window, heads);
            pare::attention_options<T> o;
            o.mask = mask;
            const problem<T> p(heads, 2, 20, 5, {1, 30, 70}, random, 3);
            const auto scores = run_attention(TestType::policy(), p, o).scores;
            for (std::size_t s = 0; s + 1 < p.offsets.size(); ++s) {
                const index_t at = p.offsets[s], n = p.offsets[s + 1] - at;
                std::vector<real> uniform(static_cast<std::size_t>(n));
                for (index_t i = 0; i < n; ++i) {
                    std::vector<std::size_t> seen;
                    for (index_t j = 0; j < n; ++j)
                        if (!(mask.causal && j > i) &&
                            (mask.window == 0 || std::abs(i - j) < mask.window))
                            seen.push_back(static_cast<std::size_t>(j));
                    for (const std::size_t j : seen)
                        uniform[j] += 1 / static_cast<real>(seen.size());
                }
                real mean = 0, plain = 0;
                for (std::size_t j = 0; j < uniform.size(); ++j) {
                    const auto score = static_cast<real>(scores[static_cast<std::size_t>(at) + j]);
                    mean += uniform[j] * score / static_cast<real>(n);
                    plain += score / static_cast<real>(n);
                }
                CHECK(distance(mean, 1) < tolerance<T>);
                if (!mask.causal && mask.window == 0) CHECK(distance(plain, 1) < tolerance<T>);
            }
        }
}

TEMPLATE_LIST_TEST_CASE("logits of any magnitude", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const double most : {1.0, 5.0, 30.0, 100.0}) { // products are exact, up to the square
        problem<T> p(2, 2, 1, 3, {40, 7}, random);
        for (index_t t = 0; t < p.tokens(); ++t)
            for (index_t i = 0; i < 4; ++i) { // queries and keys
                T& x = p.data[static_cast<std::size_t>(t * p.stride + i)];
                x = static_cast<T>(std::round(static_cast<double>(x) / 2 * most));
            }
        pare::attention_options<T> o;
        o.scale = 1;
        check(run_attention(TestType::policy(), p, o), oracle(p, o));
    }
}

TEMPLATE_LIST_TEST_CASE("logits are the same far from 0", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    problem<T> near(2, 1, 1, 3, {40, 3}, random);
    const auto with_logits = [](problem<T>& p, const auto& of_key) {
        for (index_t t = 0; t < p.tokens(); ++t) {
            T* const row = &p.data[static_cast<std::size_t>(t * p.stride)];
            row[0] = row[1] = 1;
            row[2] = static_cast<T>(of_key(t));
        }
    };
    pare::attention_options<T> o;
    o.scale = 1;
    with_logits(near, [](index_t t) { return t % 7; });
    const answer<T> expected = run_attention(TestType::policy(), near, o);
    problem<T> far = near, equal = near;
    with_logits(equal, [](index_t) { return 0; });
    const answer<T> mean = run_attention(TestType::policy(), equal, o);
    const double close = std::is_same_v<T, float> ? 1e-6 : 1e-14;
    const auto check_same = [&](const answer<T>& a, const answer<T>& b) {
        for (std::size_t i = 0; i < a.out.size(); ++i) CHECK(distance(a.out[i], b.out[i]) < close);
        for (std::size_t i = 0; i < a.scores.size(); ++i)
            CHECK(distance(a.scores[i], b.scores[i]) < 10 * close);
    };
    for (const double sign : {1., -1.}) {
        for (const double by : {100., 1e3, 1e4, 1e5, 1e6}) { // sums are exact
            CAPTURE(sign * by);
            with_logits(far, [&](index_t t) { return sign * by + static_cast<double>(t % 7); });
            check_same(run_attention(TestType::policy(), far, o), expected);
        }
        for (const double by : {1.5e9, 1.494e9, 1e20, 1e29, 1e30, 3e38}) {
            CAPTURE(sign * by);
            with_logits(equal, [&](index_t) { return sign * by; });
            check_same(run_attention(TestType::policy(), equal, o), mean);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("queries that see padded keys alone give numbers", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(2, 2, 8, 8, {64}, random);
    std::vector<T> bias(64, T(0));
    pare::attention_options<T> o;
    o.mask.causal = true;
    o.key_bias = pare::view<const T, 1>(bias.data(), 64);
    std::vector<T> first; // of queries that see others
    for (const double b :
         {-1e9, -3e9, -1e20, -1e30, -1e38, static_cast<double>(std::numeric_limits<T>::lowest())}) {
        CAPTURE(b);
        std::fill_n(bias.begin(), 20, static_cast<T>(b));
        const answer<T> a = run_attention(TestType::policy(), p, o);
        for (const T x : a.out) REQUIRE(std::abs(static_cast<double>(x)) <= 2.001);
        const std::vector<T> rest(a.out.begin() + 20 * 16, a.out.end());
        if (first.empty()) first = rest;
        CHECK(same_bits(first, rest));
    }
}

TEMPLATE_LIST_TEST_CASE("long sequences, and sizes of real models", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (index_t size : {32, 64}) {
        const problem<T> p(2, 2, size, size, {300, 520}, random, 1);
        for (bool causal : {false, true}) {
            pare::attention_options<T> o;
            o.mask.causal = causal;
            check(run_attention(TestType::policy(), p, o), oracle(p, o));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("heads of any size", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const auto& [size, value_size] :
         {std::pair<index_t, index_t>{1, 65}, {80, 4}, {128, 128}, {129, 30}, {3, 200}}) {
        CAPTURE(size, value_size);
        const problem<T> p(4, 2, size, value_size, {70, 3}, random, 1);
        for (const auto& o : {all_options<T>()[0], all_options<T>()[2]})
            check(run_attention(TestType::policy(), p, o), oracle(p, o));
    }
}

#if defined(__FLT16_MANT_DIG__) && !defined(__clang__) && !defined(__CUDACC__)
TEMPLATE_LIST_TEST_CASE("queries, keys and values of a half type", "", policies) {
    if constexpr (!TestType::vectorised) {
        random_source random;
        CAPTURE(random);
        problem<float> p(4, 2, 40, 24, {5, 37, 1, 130}, random, 1);
        for (float& x : p.data) x = static_cast<float>(static_cast<_Float16>(x));
        const std::vector<_Float16> halves(p.data.begin(), p.data.end());
        const auto narrowed = [&](const pare::view<const float, 3>& x) {
            return pare::view<const _Float16, 3>(halves.data() + (x.data_handle() - p.data.data()),
                                                 {x.extent(0), x.extent(1), x.extent(2)},
                                                 {x.stride(0), x.stride(1), x.stride(2)});
        };
        const std::vector<float> bias = random.vector<float>(p.tokens(), -3, 0);
        std::vector<_Float16> out(static_cast<std::size_t>(p.tokens() * p.heads * p.value_size));
        std::vector<float> scores(static_cast<std::size_t>(p.tokens()));
        for (const bool causal : {false, true}) {
            pare::attention_options<_Float16> o;
            pare::attention_options<float> same;
            o.key_bias = same.key_bias = pare::view<const float, 1>(bias.data(), p.tokens());
            o.mask.causal = same.mask.causal = causal;
            pare::workspace scratch;
            pare::attention(TestType::policy(), narrowed(p.q()), narrowed(p.k()), narrowed(p.v()),
                            p.offsets,
                            pare::view<_Float16, 3>(out.data(), p.tokens(), p.heads, p.value_size),
                            scores, o, scratch);
            const auto expected = oracle(p, same);
            for (std::size_t i = 0; i < out.size(); ++i)
                REQUIRE(distance(out[i], expected.out[i]) < 2e-3L);
            for (std::size_t i = 0; i < scores.size(); ++i) // from probabilities in float
                REQUIRE(distance(scores[i], expected.scores[i]) < 2e-5L * (1 + expected.scores[i]));
        }
    }
}
#endif

TEMPLATE_LIST_TEST_CASE("biases of keys and of distance", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 16, 16, {5, 37, 1, 70}, random);
    std::vector<T> bias = random.vector<T>(p.tokens(), -3, 0);
    const std::vector<T> slopes = {T(0.5), T(0.25), T(0.125), T(0)};
    pare::attention_options<T> o;
    o.key_bias = pare::view<const T, 1>(bias.data(), p.tokens());
    check(run_attention(TestType::policy(), p, o), oracle(p, o));
    o.head_slopes = pare::view<const T, 1>(slopes.data(), 4);
    o.mask.causal = true;
    check(run_attention(TestType::policy(), p, o), oracle(p, o));

    // Minus infinity removes a key: as if the token were not there.
    o = {};
    o.key_bias = pare::view<const T, 1>(bias.data(), p.tokens());
    std::fill(bias.begin(), bias.end(), T(0));
    bias[3] = bias[50] = minus_infinite<T>();
    const auto removed = run_attention(TestType::policy(), p, o);
    check(removed, oracle(p, o));
    CHECK(removed.scores[3] == 0);
}

TEMPLATE_LIST_TEST_CASE("biases by relative position", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 16, 16, {5, 37, 0, 1, 70}, random, 1);
    const auto bias = random.vector<T>(p.tokens(), -3, 0);
    const auto slopes = random.vector<T>(4, 0, 0.5);
    const auto positions = random_positions(p.offsets, random);
    for (const index_t most : {0, 9, 100}) {
        const distance_table<T> table(4, most, random);
        for (pare::attention_options<T> o : all_options<T>()) {
            CAPTURE(most, o.mask.causal, o.mask.window);
            o.distance_bias = table.view();
            check(run_attention(TestType::policy(), p, o), oracle(p, o));
            o.head_slopes = slopes;
            check(run_attention(TestType::policy(), p, o), oracle(p, o));
            o.key_bias = bias;
            o.positions = positions;
            check(run_attention(TestType::policy(), p, o), oracle(p, o));
        }
    }
    const problem<T> several_parts(1, 1, 8, 8, {530, 3}, random, 1);
    const distance_table<T> table(1, 129, random);
    const auto places = random_positions(several_parts.offsets, random);
    pare::attention_options<T> o;
    o.distance_bias = table.view();
    check(run_attention(TestType::policy(), several_parts, o), oracle(several_parts, o));
    o.positions = places;
    o.mask.causal = true;
    check(run_attention(TestType::policy(), several_parts, o), oracle(several_parts, o));
    const problem<T> nothing(4, 2, 3, 3, {}, random);
    o = {};
    const distance_table<T> of_four(4, 1, random);
    o.distance_bias = of_four.view();
    check(run_attention(TestType::policy(), nothing, o), oracle(nothing, o));
}

TEMPLATE_LIST_TEST_CASE("tokens that stay keep the distances they had", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> all(2, 1, 8, 8, {20, 33}, random);
    problem<T> some = all;
    some.data.clear();
    some.offsets = {0};
    std::vector<std::int32_t> positions;
    std::vector<index_t> kept;
    std::vector<T> dropped(static_cast<std::size_t>(all.tokens()));
    for (std::size_t s = 0; s < 2; ++s) {
        for (index_t t = all.offsets[s]; t < all.offsets[s + 1]; ++t)
            if (random.integer(0, 1) == 0 && t != all.offsets[s]) {
                dropped[static_cast<std::size_t>(t)] = minus_infinite<T>();
            } else {
                kept.push_back(t);
                positions.push_back(static_cast<std::int32_t>(t - all.offsets[s]));
                some.data.insert(some.data.end(), all.data.begin() + t * all.stride,
                                 all.data.begin() + (t + 1) * all.stride);
            }
        some.offsets.push_back(static_cast<int>(kept.size()));
    }
    const distance_table<T> table(2, 12, random);
    const std::vector<T> slopes = {T(0.25), T(0)};
    pare::attention_options<T> o;
    o.distance_bias = table.view();
    o.head_slopes = slopes;
    o.key_bias = dropped;
    const auto before = run_attention(TestType::policy(), all, o);
    o.key_bias = {};
    o.positions = positions;
    const auto after = run_attention(TestType::policy(), some, o);
    for (std::size_t t = 0; t < kept.size(); ++t)
        for (std::size_t x = 0; x < 16; ++x)
            REQUIRE(distance(after.out[t * 16 + x],
                             before.out[static_cast<std::size_t>(kept[t]) * 16 + x]) <
                    4 * tolerance<T>);
}

TEMPLATE_LIST_TEST_CASE("biases by distance that remove keys, or are not numbers", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(2, 1, 8, 8, {30, 4}, random);
    distance_table<T> table(2, 5, random);
    table.at(0, -2) = table.at(1, 3) = table.at(1, 5) = minus_infinite<T>();
    std::vector<T> bias(static_cast<std::size_t>(p.tokens()));
    bias[7] = minus_infinite<T>(); // twice, of some queries
    const auto positions = random_positions(p.offsets, random);
    pare::attention_options<T> o;
    o.distance_bias = table.view();
    check(run_attention(TestType::policy(), p, o), oracle(p, o));
    o.key_bias = bias;
    check(run_attention(TestType::policy(), p, o), oracle(p, o));
    o.positions = positions;
    check(run_attention(TestType::policy(), p, o), oracle(p, o));
    o.positions = {};
    const auto check_nan = [&] {
        if constexpr (on_host<TestType>)
            CHECK_THAT(
                sentence_of<pare::value_error>([&] { run_attention(TestType::policy(), p, o); }),
                ContainsSubstring("of sequence 0 sums up to "));
        else
            CHECK(is_nan(run_attention(TestType::policy(), p, o).scores[9]));
    };
    bias[9] = not_a_number<T>();
    check_nan();
    bias[9] = 0;
    table.at(1, 2) = not_a_number<T>();
    check_nan();
}

TEMPLATE_LIST_TEST_CASE("queries count by their weights", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 16, 16, {5, 37, 1, 70}, random);
    const std::vector<T> weights = random.vector<T>(p.tokens(), 0, 1);
    for (pare::attention_options<T> o : all_options<T>()) {
        o.query_weights = pare::view<const T, 1>(weights.data(), p.tokens());
        check(run_attention(TestType::policy(), p, o), oracle(p, o));
    }
}

TEMPLATE_LIST_TEST_CASE("a sequence's result does not depend on batch, order or threads", "",
                        runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    std::vector<int> lengths;
    for (int s = 0; s < 12; ++s) lengths.push_back(static_cast<int>(random.integer(1, 90)));
    lengths.push_back(530);
    const problem<T> p(3, 1, 24, 24, lengths, random);
    const distance_table<T> table(3, 60, random);
    pare::attention_options<T> biased;
    biased.distance_bias = table.view();
    for (const auto& o : {all_options<T>()[0], all_options<T>()[2], biased}) {
        const auto together = run_attention(TestType::policy(), p, o);
        const auto row = static_cast<std::ptrdiff_t>(p.heads * p.value_size);
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const auto one = run_attention(TestType::policy(), p.alone(s), o);
            const std::vector<T> out(together.out.begin() + p.offsets[s] * row,
                                     together.out.begin() + p.offsets[s + 1] * row);
            const std::vector<T> scores(together.scores.begin() + p.offsets[s],
                                        together.scores.begin() + p.offsets[s + 1]);
            CHECK(same_bits(one.out, out));
            CHECK(same_bits(one.scores, scores));
        }
#ifdef _OPENMP
        if constexpr (TestType::vectorised)
            for (int threads : {1, 2, 5}) {
                const auto other = run_attention(pare::simd.with(pare::openmp{threads}), p, o);
                CHECK(same_bits(other.out, together.out));
                CHECK(same_bits(other.scores, together.scores));
            }
#endif
    }
}

TEMPLATE_LIST_TEST_CASE("a window of any size", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(2, 1, 8, 8, {3, 40, 1}, random);
    constexpr index_t most = std::numeric_limits<index_t>::max();
    for (const bool causal : {false, true}) {
        pare::attention_options<T> o;
        o.mask.causal = causal;
        const auto without = run_attention(TestType::policy(), p, o);
        for (const index_t window : {most, most - 1, most - 39, most / 2, index_t{40}}) {
            CAPTURE(window);
            o.mask.window = window;
            const auto with = run_attention(TestType::policy(), p, o);
            CHECK(same_bits(with.out, without.out));
            check(with, oracle(p, o));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("one key that is not a number", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    problem<T> p(1, 1, 8, 8, {33}, random);
    for (index_t e = 8; e < 16; ++e)
        p.data[static_cast<std::size_t>(20 * p.stride + e)] =
            e % 2 ? not_a_number<T>() : -not_a_number<T>();
    if constexpr (!on_host<TestType>) {
        const auto found = run_attention(TestType::policy(), p);
        CHECK(is_nan(found.scores[0]));
        return;
    }
    CHECK_THAT(sentence_of<pare::value_error>([&] { run_attention(TestType::policy(), p); }),
               ContainsSubstring("the attention to key 0 of sequence 0 sums up to "));
}

TEMPLATE_LIST_TEST_CASE("attention without scores, and with large logits", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const problem<T> p(2, 2, 8, 8, {40}, random, 30); // logits of thousands: one key takes all
    const auto with = run_attention(TestType::policy(), p);
    for (T x : with.out) REQUIRE(distance(x, 0) <= 31);
    std::vector<T> out(with.out.size(), poison<T>());
    pare::workspace scratch;
    pare::attention(TestType::policy(), p.q(), p.k(), p.v(), p.offsets,
                    pare::view<T, 3>(out.data(), p.tokens(), p.heads, p.value_size), {}, scratch);
    CHECK(same_bits(out, with.out));
}

TEMPLATE_LIST_TEST_CASE("options and scratch may be left out", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const problem<T> p(2, 1, 4, 3, {5, 9}, random);
    const auto expected = run_attention(policy, p);
    std::vector<T> out(expected.out.size()), scores(expected.scores.size());
    const pare::view<T, 3> to(out.data(), p.tokens(), p.heads, p.value_size);
    const auto again = [&](const auto& call) {
        std::fill(out.begin(), out.end(), poison<T>());
        std::fill(scores.begin(), scores.end(), poison<T>());
        call();
        CHECK(same_bits(out, expected.out));
    };
    pare::attention_options<T> options;
    const std::vector<typename pare::attention_options<T>::compute_type> none(
        static_cast<std::size_t>(p.tokens()));
    options.key_bias = none; // a container is a view, too
    again([&] { pare::attention(policy, p.q(), p.k(), p.v(), p.offsets, to); });
    again([&] { pare::attention(policy, p.q(), p.k(), p.v(), p.offsets, to, options); });
    again([&] { pare::attention(policy, p.q(), p.k(), p.v(), p.offsets, to, {}); });
    again([&] { pare::attention(policy, p.q(), p.k(), p.v(), p.offsets, to, scores); });
    CHECK(same_bits(scores, expected.scores));
    again([&] { pare::attention(policy, p.q(), p.k(), p.v(), p.offsets, to, scores, options); });
    CHECK(same_bits(scores, expected.scores));
    again([&] { pare::attention(policy, p.q(), p.k(), p.v(), p.offsets, to, scores, {}); });
    CHECK(same_bits(scores, expected.scores));
}

namespace {

template <class T, class Policy>
void check_parts_of_attention(random_source& random, const Policy& policy_of, double tolerated) {
    const problem<T> p(6, 2, 16, 9, {300, 0, 33, 1}, random);
    const index_t rows = 4 * p.heads;
    for (const auto& o : all_options<T>()) {
        CAPTURE(o.mask.causal, o.mask.window);
        const auto whole = run_attention(policy_of(pare::serial{}), p, o);
        for (const index_t nth : {1, 3, 40}) {
            CAPTURE(nth);
            std::vector<T> out(whole.out.size(), poison<T>()),
                alone = out, shares(static_cast<std::size_t>(rows * p.tokens()), poison<T>()),
                scores(whole.scores.size(), poison<T>());
            const pare::view<T, 3> to(out.data(), p.tokens(), p.heads, p.value_size);
            const pare::view<T, 2> received(shares.data(), rows, p.tokens());
            for (index_t ith = nth; ith-- > 0;) {
                const auto policy = policy_of(pare::part{ith, nth});
                pare::attention_shares(policy, p.q(), p.k(), p.v(), p.offsets, to, received, o);
                pare::attention(policy, p.q(), p.k(), p.v(), p.offsets,
                                pare::view<T, 3>(alone.data(), p.tokens(), p.heads, p.value_size),
                                o);
            }
            for (index_t ith = nth; ith-- > 0;)
                pare::scores_of_shares(policy_of(pare::part{ith, nth}), received, p.offsets, scores,
                                       o);
            REQUIRE(same_bits(out, whole.out));
            REQUIRE(same_bits(alone, whole.out));
            for (std::size_t i = 0; i < scores.size(); ++i)
                REQUIRE(distance(scores[i], whole.scores[i]) <= tolerated * (1 + whole.scores[i]));
        }
    }
}

} // namespace

TEMPLATE_TEST_CASE("parts of attention make up the whole", "", float, double) {
    random_source random;
    CAPTURE(random);
    check_parts_of_attention<TestType>(
        random, [](const auto& e) { return pare::sequential<std::decay_t<decltype(e)>>(e); },
        16 * rounding<TestType>);
    check_parts_of_attention<TestType>(
        random, [](const auto& e) { return pare::simd.with(e); }, 0);
}

TEMPLATE_LIST_TEST_CASE("shares by any policy of the host are those of attention", "", host_runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const problem<T> p(4, 2, 8, 8, {70, 20}, random);
    pare::attention_options<T> o;
    o.mask.causal = true;
    answer<T> a{std::vector<T>(static_cast<std::size_t>(p.tokens() * 32)),
                std::vector<T>(static_cast<std::size_t>(p.tokens()))};
    std::vector<T> shares(static_cast<std::size_t>(16 * p.tokens()), poison<T>());
    const pare::view<T, 2> received(shares.data(), 16, p.tokens());
    pare::attention_shares(policy, p.q(), p.k(), p.v(), p.offsets,
                           pare::view<T, 3>(a.out.data(), p.tokens(), 4, 8), received, o);
    pare::scores_of_shares(policy, received, p.offsets, a.scores, o);
    check(a, oracle(p, o));

    CHECK(sentence_of<pare::shape_error>([&] {
              pare::attention_shares(policy, p.q(), p.k(), p.v(), p.offsets,
                                     pare::view<T, 3>(a.out.data(), p.tokens(), 4, 8),
                                     pare::view<T, 2>(shares.data(), 15, p.tokens()), o);
          }) == "pare::attention_shares: shares are 15x90 of stride 1, 4 heads and 90 keys have "
                "16x90 of stride 1");
    CHECK(sentence_of<pare::shape_error>([&] {
              pare::scores_of_shares(policy, pare::view<T, 2>(shares.data(), 15, p.tokens()),
                                     p.offsets, a.scores, o);
          }) == "pare::scores_of_shares: shares are 15x90, scores 1x90");
    received(3, 71) = not_a_number<T>();
    CHECK(sentence_of<pare::value_error>([&] {
              pare::scores_of_shares(policy, received, p.offsets, a.scores, o);
          }).find("pare::scores_of_shares: the attention to key 1 of sequence 1 sums up to") == 0);
}

TEST_CASE("what attention cannot use, it says in numbers") {
    random_source random;
    problem<float> p(4, 2, 8, 6, {3, 4}, random);
    std::vector<float> out(7 * 4 * 6), scores(7);
    const pare::view<float, 3> result(out.data(), 7, 4, 6);
    pare::workspace scratch;
    const auto sentence = [&](const auto& q, const auto& offsets, auto& s,
                              const pare::attention_options<float>& o = {}) {
        return sentence_of<pare::error>(
            [&] { pare::attention(pare::simd, q, p.k(), p.v(), offsets, result, s, o, scratch); });
    };
    CHECK_THAT(sentence(p.part(0, 3, 8), p.offsets, scores),
               ContainsSubstring("pare::attention: q is 7x3x8, k 7x2x8, v 7x2x6, out 7x4x6"));
    CHECK_THAT(sentence(p.q(), std::vector<int>{0, 3, 6}, scores),
               ContainsSubstring("offsets go from 0 to 6, there are 7 tokens"));
    CHECK_THAT(sentence(p.q(), std::vector<int>{0, 5, 4, 7}, scores),
               ContainsSubstring("offset 2 is 4 after 5"));
    std::vector<float> few(5);
    CHECK_THAT(sentence(p.q(), p.offsets, few), ContainsSubstring("5 scores, 7 keys"));
    pare::attention_options<float> o;
    o.scale = 1e200; // no float
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o), ContainsSubstring("the scale is 1e+200"));
    o = {};
    o.key_bias = pare::view<const float, 1>(few.data(), 5);
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("5 key biases, 7 are expected"));
    o = {};
    o.head_slopes = pare::view<const float, 1>(few.data(), 5);
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("5 slopes, 4 are expected"));
    o = {};
    o.query_weights = pare::view<const float, 1>(few.data(), 5);
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("5 query weights, 7 are expected"));
    o = {};
    o.distance_bias = pare::view<const float, 2>(few.data(), 4, 0);
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("distance biases are 4x0; of 4 heads there are as many rows, with "
                                 "an odd number of columns"));
    o.distance_bias = pare::view<const float, 2>(out.data(), 4, 6);
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("distance biases are 4x6; of 4 heads"));
    o.distance_bias = pare::view<const float, 2>(out.data(), 2, 7);
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("distance biases are 2x7; of 4 heads"));
    o = {};
    std::vector<std::int32_t> positions(5);
    o.positions = positions;
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("5 positions, 7 are expected"));
    positions = {0, 1, 2, 0, 1, -2, 3};
    o.positions = positions;
    CHECK_THAT(sentence(p.q(), p.offsets, scores, o),
               ContainsSubstring("the position of token 5 is -2"));
    o = {};
    for (const double scale : {not_a_number<double>(), infinite<double>(), 1e300}) {
        o.scale = scale;
        CHECK_THAT(sentence(p.q(), p.offsets, scores, o), ContainsSubstring("the scale is "));
    }
    p.data[static_cast<std::size_t>(4 * p.stride)] = not_a_number<float>();
    CHECK_THAT(sentence(p.q(), p.offsets, scores), ContainsSubstring("of sequence 1 sums up to "));
}

} // namespace attention_test
