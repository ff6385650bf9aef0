// Attention and its scores of a half type against float's: what tensor cores do on a GPU, Thrust's
// host systems do in loops with the same fragments.
#include "distance_biases.hpp"
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention_scores.hpp>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <Eigen/Core>
#endif

#include <algorithm>
#include <limits>

namespace attention_half_test {

#if defined(__FLT16_MANT_DIG__) && !defined(__clang__) && !defined(__CUDACC__)
namespace {

using short_float = _Float16;

/// Interleaved queries, keys and values that both types hold exactly.
struct problem {
    index_t heads, groups, size, value_size, stride;
    std::vector<int> offsets = {0};
    std::vector<float> data;

    problem(index_t h, index_t g, index_t of_query, index_t of_value,
            const std::vector<int>& lengths, random_source& random)
        : heads(h), groups(g), size(of_query), value_size(of_value),
          stride((h + g) * of_query + g * of_value + 8) {
        for (int n : lengths) offsets.push_back(offsets.back() + n);
        data = random.vector<float>(tokens() * stride);
        for (float& x : data) x = static_cast<float>(static_cast<short_float>(x));
    }
    index_t tokens() const { return offsets.back(); }
    template <class T>
    pare::view<const T, 3> part(const T* from, int which) const {
        const index_t at[] = {0, heads * size, (heads + groups) * size};
        return {from + at[which],
                {tokens(), which == 0 ? heads : groups, which == 2 ? value_size : size},
                {stride, which == 2 ? value_size : size, 1}};
    }
};

template <class To, class From>
pare::attention_options<To> same(const pare::attention_options<From>& o) {
    pare::attention_options<To> other;
    other.scale = o.scale;
    other.mask = o.mask;
    other.key_bias = o.key_bias;
    other.head_slopes = o.head_slopes;
    other.distance_bias = o.distance_bias;
    other.positions = o.positions;
    other.query_weights = o.query_weights;
    other.scores = o.scores;
    other.queries = o.queries;
    other.reduction = o.reduction;
    return other;
}

template <class T>
struct answer {
    std::vector<T> out;
    std::vector<float> scores, again;
};

/// Attention with scores, and the scores once more from rows.
template <class T, class K, class Policy>
answer<T> run_attention(const Policy& policy, const problem& p, const T* queries, const K* data,
                        const pare::attention_options<T>& o, const std::vector<float>& lse,
                        index_t out_stride) {
    const auto tokens = static_cast<std::size_t>(p.tokens());
    answer<T> a{std::vector<T>(tokens * static_cast<std::size_t>(p.heads * out_stride)),
                std::vector<float>(tokens, poison<float>()),
                std::vector<float>(tokens, poison<float>())};
    pare::workspace scratch;
    pare::attention(policy, p.part(queries, 0), p.part(data, 1), p.part(data, 2), p.offsets,
                    pare::view<T, 3>(a.out.data(), {p.tokens(), p.heads, p.value_size},
                                     {p.heads * out_stride, out_stride, 1}),
                    a.scores, o, scratch);
    pare::attention_scores(policy, p.part(queries, 0), p.part(data, 1),
                           pare::view<const float, 2>(lse.data(), p.tokens(), p.heads), p.offsets,
                           a.again, o, scratch);
    return a;
}

std::vector<float> rows_of(const problem& p, const pare::attention_options<float>& o) {
    const auto q = p.part(p.data.data(), 0), k = p.part(p.data.data(), 1);
    const double scale = o.scale != 0 ? o.scale : 1 / std::sqrt(static_cast<double>(p.size));
    std::vector<float> lse;
    for (std::size_t s = 0; s + 1 < p.offsets.size(); ++s) {
        const index_t at = p.offsets[s], n = p.offsets[s + 1] - at;
        for (index_t i = 0; i < n; ++i)
            for (index_t h = 0; h < p.heads; ++h) {
                double sum = 0;
                for (index_t j = 0; j < n; ++j) {
                    const index_t apart = std::abs(i - j);
                    if ((o.mask.causal && j > i) || (o.mask.window > 0 && apart >= o.mask.window))
                        continue;
                    double logit = 0;
                    for (index_t e = 0; e < p.size; ++e)
                        logit += static_cast<double>(q(at + i, h, e)) *
                                 static_cast<double>(k(at + j, h * p.groups / p.heads, e));
                    logit *= scale;
                    if (o.key_bias.extent(0) > 0) logit += static_cast<double>(o.key_bias(at + j));
                    if (o.head_slopes.extent(0) > 0)
                        logit -= static_cast<double>(o.head_slopes(h)) *
                                 static_cast<double>(std::abs(biased_distance(o, at, i, j)));
                    if (o.distance_bias.extent(1) > 0)
                        logit += static_cast<double>(
                            bias_at(o.distance_bias, h, biased_distance(o, at, i, j)));
                    sum += std::exp(logit);
                }
                lse.push_back(static_cast<float>(std::log(sum)));
            }
    }
    return lse;
}

template <class Policy>
void check(const Policy& policy, const problem& p, const pare::attention_options<float>& o,
           index_t odd = 0) {
    CAPTURE(p.size, p.value_size, o.mask.causal, o.mask.window, o.scale, odd, o.queries.begin);
    const auto lse = rows_of(p, o);
    const float* const wide = p.data.data();
    const auto expected = run_attention(pare::seq, p, wide, wide, o, lse, p.value_size);
    const auto compare = [&](const auto& found, real most) {
        real worst = 0;
        for (index_t i = 0; i < p.tokens() * p.heads; ++i)
            for (index_t e = 0; e < p.value_size; ++e)
                worst = std::max(
                    worst,
                    distance(static_cast<float>(
                                 found.out[static_cast<std::size_t>(i * (p.value_size + odd) + e)]),
                             expected.out[static_cast<std::size_t>(i * p.value_size + e)]));
        REQUIRE(worst < most);
        for (std::size_t i = 0; i < found.scores.size(); ++i) {
            const real allowed = 2e-5L * (1 + std::abs(static_cast<real>(expected.scores[i])));
            REQUIRE(distance(found.scores[i], expected.scores[i]) < allowed);
            REQUIRE(distance(found.again[i], expected.scores[i]) < allowed);
        }
    };
    std::vector<short_float> data(p.data.size() + 1);
    std::copy(p.data.begin(), p.data.end(), data.begin() + odd);
    const short_float* const narrow = data.data() + odd;
    const index_t stride = p.value_size + odd;
    compare(run_attention(policy, p, narrow, narrow, same<short_float>(o), lse, stride), 1e-3L);
    compare(run_attention(policy, p, wide, narrow, o, lse, stride), 1e-5L);
}

std::vector<pare::attention_options<float>> all_options() {
    std::vector<pare::attention_options<float>> all(10);
    all[1].mask.causal = true;
    all[2].mask = {true, 5};
    all[3].mask = {false, 40};
    all[4].scores = pare::score_scale::per_query;
    all[4].queries = pare::counted_queries::first();
    all[5].queries = pare::counted_queries::last(7);
    all[5].scale = -0.3;
    all[6].mask = {true, 100};
    all[6].queries = {-90, -3};
    all[7].mask.causal = true;
    all[7].queries = pare::counted_queries::last(70);
    all[8].reduction = pare::score_reduction::max;
    all[9] = all[7];
    all[9].reduction = pare::score_reduction::max;
    all[9].scores = pare::score_scale::per_query;
    return all;
}

} // namespace

TEMPLATE_LIST_TEST_CASE("attention of a half type is that of float", "", policies) {
    random_source random;
    CAPTURE(random);
    for (const auto& o : all_options()) {
        check(TestType::policy(), problem(2, 1, 64, 64, {150, 1, 65}, random), o);
        check(TestType::policy(), problem(2, 2, 24, 32, {33, 0, 129}, random), o);
    }
    const auto causal = all_options()[1], open = all_options()[0];
    for (const auto& [size, value_size] :
         {std::pair<index_t, index_t>{1, 1}, {16, 72}, {72, 8}, {128, 128}, {120, 31}, {130, 16}})
        for (const auto& o : {open, causal, all_options()[3]})
            check(TestType::policy(), problem(2, 1, size, value_size, {5, 140}, random), o);
    // Rows that do not begin at multiples of 16 bytes.
    for (const auto& o : {open, causal})
        check(TestType::policy(), problem(2, 1, 32, 32, {70, 3}, random), o, 1);
}

TEMPLATE_LIST_TEST_CASE("biases and weights with a half type", "", policies) {
    random_source random;
    CAPTURE(random);
    const problem p(2, 1, 32, 32, {5, 150, 1}, random);
    auto bias = random.vector<float>(p.tokens(), -3, 0);
    bias[3] = bias[50] = minus_infinite<float>();
    const auto weights = random.vector<float>(p.tokens(), -0.2, 1);
    const std::vector<float> slopes = {0.5f, 0.0625f};
    for (const int which : {0, 1, 4, 7}) {
        auto o = all_options()[static_cast<std::size_t>(which)];
        o.query_weights = pare::view<const float, 1>(weights.data(), p.tokens());
        check(TestType::policy(), p, o);
        o.key_bias = pare::view<const float, 1>(bias.data(), p.tokens());
        check(TestType::policy(), p, o);
        o.head_slopes = pare::view<const float, 1>(slopes.data(), 2);
        check(TestType::policy(), p, o);
    }
}

TEMPLATE_LIST_TEST_CASE("biases by relative position with a half type", "", policies) {
    random_source random;
    CAPTURE(random);
    const std::vector<float> slopes = {0.5f, 0.0625f};
    for (const index_t size : {32, 64, 128, 130}) {
        const problem p(2, 1, size, size, {5, 150, 1}, random);
        auto bias = random.vector<float>(p.tokens(), -3, 0);
        bias[3] = bias[50] = minus_infinite<float>();
        const auto positions = random_positions(p.offsets, random);
        distance_table<float> table(2, size, random);
        table.at(1, -4) = table.at(0, 2) = minus_infinite<float>();
        for (const int which : {0, 6}) { // any width with a window, one without
            if (which == 0 && size > 32) continue;
            auto o = all_options()[static_cast<std::size_t>(which)];
            o.distance_bias = table.view();
            check(TestType::policy(), p, o);
            o.key_bias = bias;
            o.head_slopes = slopes;
            check(TestType::policy(), p, o);
            o.positions = positions;
            check(TestType::policy(), p, o);
            o.distance_bias = {}; // positions of slopes
            check(TestType::policy(), p, o);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("queries of a half type that see padded keys alone give numbers", "",
                        policies) {
    random_source random;
    CAPTURE(random);
    const problem p(2, 1, 32, 32, {150}, random);
    const std::vector<float> lse(static_cast<std::size_t>(p.tokens() * p.heads));
    for (const float b : {-1e9f, -1e20f, -1e30f, -1e38f, std::numeric_limits<float>::lowest()}) {
        std::vector<float> bias(150, 0.0f);
        std::fill_n(bias.begin(), 70, b);
        distance_table<float> far(2, 150, random);
        for (index_t h = 0; h < 2; ++h)
            for (index_t d = -150; d <= 150; ++d) far.at(h, d) = b;
        for (const bool by_distance : {false, true}) {
            CAPTURE(b, by_distance);
            pare::attention_options<float> o;
            o.mask.causal = true;
            o.key_bias = bias;
            if (by_distance) o.distance_bias = far.view();
            const auto expected =
                run_attention(pare::seq, p, p.data.data(), p.data.data(), o, lse, 32);
            const std::vector<short_float> data(p.data.begin(), p.data.end());
            const auto found = run_attention(TestType::policy(), p, data.data(), data.data(),
                                             same<short_float>(o), lse, 32);
            real worst = 0, worst_score = 0;
            for (std::size_t i = 0; i < found.out.size(); ++i)
                worst =
                    std::max(worst, distance(static_cast<float>(found.out[i]), expected.out[i]));
            for (std::size_t i = 0; i < found.scores.size(); ++i)
                worst_score = std::max(worst_score, distance(found.scores[i], expected.scores[i]));
            CHECK(worst < 1e-3L);
            CHECK(worst_score < 1e-4L);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("queries of a half type that do not count may be any", "", policies) {
    random_source random;
    CAPTURE(random);
    const problem p(2, 1, 64, 64, {200}, random);
    for (const auto& counts : {pare::counted_queries::first(), pare::counted_queries::last(3),
                               pare::counted_queries{-120, -60}}) {
        pare::attention_options<short_float> o;
        o.queries = counts;
        const std::vector<float> lse = rows_of(p, {});
        std::vector<short_float> data(p.data.begin(), p.data.end());
        const auto expected =
            run_attention(TestType::policy(), p, data.data(), data.data(), o, lse, 64);
        const auto counted = pare::detail::counted(counts, 200);
        for (index_t i = 0; i < 200; ++i)
            if (i < counted.begin || i >= counted.end)
                data[static_cast<std::size_t>(i * p.stride + random.integer(0, 127))] =
                    static_cast<short_float>(i % 2 ? not_a_number<float>()
                                                   : std::numeric_limits<float>::max());
        const auto found =
            run_attention(TestType::policy(), p, data.data(), data.data(), o, lse, 64);
        CHECK(found.scores == expected.scores);
        CHECK(found.again == expected.again);
    }
}

TEMPLATE_LIST_TEST_CASE("a key of a half type that is not a number", "", policies) {
    if constexpr (decltype(TestType::policy())::on_host) {
        random_source random;
        problem p(1, 1, 32, 32, {70}, random);
        const std::vector<float> lse = rows_of(p, {});
        std::vector<short_float> data(p.data.begin(), p.data.end());
        data[static_cast<std::size_t>(20 * p.stride + 40)] =
            static_cast<short_float>(not_a_number<float>());
        CHECK_THAT(sentence_of<pare::value_error>([&] {
                       run_attention(TestType::policy(), p, data.data(), data.data(),
                                     pare::attention_options<short_float>(), lse, 32);
                   }),
                   ContainsSubstring("the attention to key 0 of sequence 0 sums up to "));
    }
}
#endif

namespace {

/// Steps, and pieces of prompts, against what float gives for the same numbers. Queries and outputs
/// are of type Wide, keys and values of type Half.
template <class Wide, class Half, class Policy>
void check_cache(const Policy& policy, random_source& random, real allowed) {
    const std::vector<int> queries = {0, 1, 4, 5, 45}, keys = {0, 700, 830, 831, 900};
    for (const auto& sizes : {std::pair<index_t, index_t>{64, 64}, {128, 128}, {80, 9}, {1, 200}}) {
        const index_t size = sizes.first, value_size = sizes.second;
        const index_t heads = 6, groups = random.integer(0, 1) ? 2 : 1;
        const auto numbers = [&](auto zero, index_t n) {
            std::vector<decltype(zero)> x(static_cast<std::size_t>(n));
            for (auto& number : x)
                number = static_cast<decltype(zero)>(random.uniform<float>(-1, 1));
            return x;
        };
        const auto q = numbers(Wide(), 45 * heads * size);
        const auto k = numbers(Half(), 900 * groups * size),
                   v = numbers(Half(), 900 * groups * value_size);
        const auto run = [&](const auto& by, const auto& of_queries, const auto& of_keys,
                             const auto& values, auto& out, std::vector<float>& scores) {
            using T = typename std::decay_t<decltype(out)>::value_type;
            using K = typename std::decay_t<decltype(of_keys)>::value_type;
            out.assign(static_cast<std::size_t>(45 * heads * value_size), T());
            scores.assign(static_cast<std::size_t>(900 * groups), poison<float>());
            pare::attention_options<T> o;
            o.mask.causal = true;
            pare::attention(by, pare::view<const T, 3>(of_queries.data(), 45, heads, size),
                            pare::view<const K, 3>(of_keys.data(), 900, groups, size),
                            pare::view<const K, 3>(values.data(), 900, groups, value_size),
                            pare::query_key_offsets{queries, keys},
                            pare::view<T, 3>(out.data(), 45, heads, value_size),
                            pare::view<float, 2>(scores.data(), groups, 900), o);
        };
        const auto wide = [](const auto& x) {
            std::vector<float> y;
            for (const auto& number : x) y.push_back(static_cast<float>(number));
            return y;
        };
        std::vector<Wide> out;
        std::vector<float> expected, scores, expected_scores;
        run(policy, q, k, v, out, scores);
        run(pare::seq, wide(q), wide(k), wide(v), expected, expected_scores);
        real worst = 0, worst_score = 0;
        for (std::size_t i = 0; i < out.size(); ++i)
            worst = std::max(worst, distance(static_cast<float>(out[i]), expected[i]));
        for (std::size_t i = 0; i < scores.size(); ++i)
            worst_score = std::max(worst_score, distance(scores[i], expected_scores[i]));
        CAPTURE(size, value_size, groups);
        CHECK(worst < allowed);
        CHECK(worst_score < 1e-4L);
        if constexpr (Policy::on_host) {
            const pare::query_key_offsets where{queries, keys};
            std::vector<float> shares(static_cast<std::size_t>(4 * heads * 900)), again(900);
            pare::attention_options<Wide> o;
            o.mask.causal = true;
            pare::attention_shares(policy, pare::view<const Wide, 3>(q.data(), 45, heads, size),
                                   pare::view<const Half, 3>(k.data(), 900, groups, size),
                                   pare::view<const Half, 3>(v.data(), 900, groups, value_size),
                                   where, pare::view<Wide, 3>(out.data(), 45, heads, value_size),
                                   pare::view<float, 2>(shares.data(), 4 * heads, 900), o);
            pare::scores_of_shares(
                policy, pare::view<const float, 2>(shares.data(), 4 * heads, 900), where, again, o);
            for (std::size_t t = 0; t < 900; ++t) {
                real mean = 0; // groups have as many heads
                for (index_t g = 0; g < groups; ++g)
                    mean += static_cast<real>(scores[static_cast<std::size_t>(g * 900) + t]) /
                            static_cast<real>(groups);
                CHECK(std::abs(static_cast<real>(again[t]) - mean) < 1e-4L);
            }
        }
    }
}

} // namespace

TEMPLATE_LIST_TEST_CASE("a cache of a half type is that of float", "", policies) {
    random_source random;
    CAPTURE(random);
    const auto policy = TestType::policy();
#ifdef __CUDACC__ // a device converts its own
    using half = __half;
    using bfloat16 = __nv_bfloat16;
#else
    using Eigen::bfloat16, Eigen::half;
#endif
    check_cache<half, half>(policy, random, 1e-3L);
    check_cache<bfloat16, bfloat16>(policy, random, 8e-3L);
    check_cache<float, half>(policy, random, 1e-5L); // as engines on CPUs have it
    check_cache<float, bfloat16>(policy, random, 1e-5L);
    check_cache<bfloat16, half>(policy, random, 8e-3L);
    check_cache<fp16_like, fp16_like>(policy, random, 1e-3L);
    check_cache<float, bf16_like>(policy, random, 1e-5L);
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__) && !defined(__CUDACC__)
    check_cache<_Float16, _Float16>(policy, random, 1e-3L);
    check_cache<_Float16, float>(policy, random, 1e-3L);
#endif
}

TEMPLATE_LIST_TEST_CASE("scores of a padded batch whose keys are of a half type", "", policies) {
    random_source random;
    CAPTURE(random);
    constexpr index_t batch = 3, heads = 4, groups = 2, n = 67, size = 24;
    const std::vector<int> lengths = {67, 0, 30};
    const auto q = random.vector<float>(batch * heads * n * size);
    const auto lse = random.vector<float>(batch * heads * n, 2, 3);
    std::vector<fp16_like> narrow;
    std::vector<float> wide;
    for (const float x : random.vector<float>(batch * groups * n * size)) {
        narrow.push_back(fp16_like(x));
        wide.push_back(static_cast<float>(narrow.back()));
    }
    const auto run = [&](const auto& policy, const auto& k) {
        using K = typename std::decay_t<decltype(k)>::value_type;
        std::vector<float> scores(batch * n, poison<float>());
        pare::attention_scores(policy, pare::view<const float, 4>(q.data(), batch, heads, n, size),
                               pare::view<const K, 4>(k.data(), batch, groups, n, size),
                               pare::view<const float, 3>(lse.data(), batch, heads, n), lengths,
                               pare::view<float, 2>(scores.data(), batch, n));
        return scores;
    };
    const auto expected = run(pare::seq, wide), found = run(TestType::policy(), narrow);
    for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK(distance(found[i], expected[i]) <
              1e-5L * (1 + std::abs(static_cast<real>(expected[i]))));
}

} // namespace attention_half_test
