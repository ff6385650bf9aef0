// Scores from attention probabilities against a sum in long double: layouts, lengths, masks,
// scales, counted queries; the adjoint; sums across layers.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/importance.hpp>

#include <algorithm>
#include <cstdint>

namespace importance_test {

namespace {

using pare::counted_queries;
using pare::importance_options;
using pare::score_scale;

// Softmax rows over the keys that a query sees, for one sequence: [heads][queries][keys], 0 where
// hidden.
struct sequence_attention {
    index_t heads, queries, keys;
    std::vector<double> p;

    sequence_attention(index_t h, index_t q, index_t k, const pare::attention_mask& mask,
                       random_source& random)
        : heads(h), queries(q), keys(k), p(static_cast<std::size_t>(h * q * k), 0.0) {
        for (index_t i = 0; i < h * q; ++i) {
            double sum = 0;
            for (index_t j = 0; j < k; ++j)
                if (sees(mask, i % q, j)) sum += at(i / q, i % q, j) = random.uniform(0.01, 1);
            for (index_t j = 0; j < k; ++j)
                if (sum > 0) at(i / q, i % q, j) /= sum;
        }
    }
    bool sees(const pare::attention_mask& mask, index_t q, index_t k) const {
        const index_t distance = k - (q + keys - queries);
        if (mask.causal && distance > 0) return false;
        return mask.window == 0 || std::abs(distance) < mask.window;
    }
    double& at(index_t h, index_t q, index_t k) {
        return p[static_cast<std::size_t>((h * queries + q) * keys + k)];
    }
    double at(index_t h, index_t q, index_t k) const {
        return p[static_cast<std::size_t>((h * queries + q) * keys + k)];
    }
};

bool counts(const counted_queries& which, index_t q, index_t queries) {
    const index_t begin = which.begin < 0 ? queries + which.begin : which.begin;
    const index_t end = which.end < 0 ? queries + which.end : which.end;
    return q >= begin && q < end;
}

// The definition.
template <class T>
std::vector<real> oracle(const sequence_attention& a, const importance_options& o) {
    std::vector<real> scores(static_cast<std::size_t>(a.keys));
    for (index_t k = 0; k < a.keys; ++k) {
        real sum = 0, uniform = 0;
        index_t counted = 0;
        for (index_t q = 0; q < a.queries; ++q) {
            if (!counts(o.queries, q, a.queries)) continue;
            ++counted;
            if (!a.sees(o.mask, q, k)) continue;
            index_t seen = 0;
            for (index_t j = 0; j < a.keys; ++j) seen += a.sees(o.mask, q, j);
            uniform += real(1) / static_cast<real>(seen);
            for (index_t h = 0; h < a.heads; ++h) sum += static_cast<T>(a.at(h, q, k));
        }
        real by = static_cast<real>(counted);
        if (o.scale == score_scale::relative) by = uniform;
        if (o.scale == score_scale::fixed) by = static_cast<real>(o.length);
        by *= static_cast<real>(a.heads);
        scores[static_cast<std::size_t>(k)] = by > 0 ? sum / by : 0;
    }
    return scores;
}

std::vector<importance_options> all_options() {
    std::vector<importance_options> all;
    for (score_scale scale : {score_scale::relative, score_scale::per_query, score_scale::fixed})
        for (pare::attention_mask mask : {pare::attention_mask{}, {true, 0}, {true, 3}, {false, 5}})
            for (counted_queries queries :
                 {counted_queries::all(), counted_queries::first(), counted_queries::last(4)})
                all.push_back({scale, 12.5, mask, queries});
    return all;
}

template <class T>
void check(const std::vector<T>& scores, const std::vector<real>& expected) {
    REQUIRE(scores.size() == expected.size());
    for (std::size_t k = 0; k < scores.size(); ++k) {
        CAPTURE(k);
        REQUIRE_THAT(
            static_cast<double>(scores[k]),
            Catch::Matchers::WithinAbs(static_cast<double>(expected[k]), tolerance<T> * 40));
    }
}

} // namespace

TEMPLATE_LIST_TEST_CASE("scores of one sequence are the definition's", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const importance_options& o : all_options())
        for (const auto& [q, k] : {std::pair<index_t, index_t>{0, 0},
                                   {1, 1},
                                   {7, 7},
                                   {33, 33},
                                   {64, 64},
                                   {5, 70},
                                   {1, 19},
                                   {131, 131}}) {
            CAPTURE(q, k, o.mask.causal, o.mask.window, o.queries.begin, o.queries.end);
            const index_t h = random.integer(1, 5);
            const sequence_attention a(h, q, k, o.mask, random);
            const std::vector<T> p(a.p.begin(), a.p.end());
            std::vector<T> scores(static_cast<std::size_t>(k), poison<T>());
            pare::importance(TestType::policy(), pare::view<const T, 3>(p.data(), h, q, k), scores,
                             o);
            check(scores, oracle<T>(a, o));
        }
}

namespace {

/// By the policy, or, if it has no form for packed probabilities, one sequence after another.
template <class Policy, class T>
void packed_importance(const Policy& policy, const std::vector<T>& packed, index_t heads,
                       const std::vector<std::int64_t>& offsets, std::vector<T>& scores,
                       const importance_options& o) {
    if constexpr (Policy::on_host) {
        pare::importance_packed(policy, packed, heads, offsets, scores, o);
    } else {
        const T* block = packed.data();
        for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
            const index_t n = offsets[s + 1] - offsets[s];
            pare::importance(policy, pare::view<const T, 3>(block, {heads, n, n}, {n * n, n, 1}),
                             pare::view(scores.data() + offsets[s], n), o);
            block += heads * n * n;
        }
    }
}

} // namespace

TEMPLATE_LIST_TEST_CASE("the same attention in six layouts has identical scores", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const auto policy = TestType::policy();
    const index_t heads = 3, room = 41;
    for (const importance_options& o : all_options()) {
        std::vector<std::int64_t> lengths, offsets = {0};
        std::vector<sequence_attention> all;
        for (index_t b = 0; b < 4; ++b) {
            lengths.push_back(b == 2 ? 1 : random.integer(1, room));
            offsets.push_back(offsets.back() + lengths.back());
            all.emplace_back(heads, lengths.back(), lengths.back(), o.mask, random);
        }
        const auto batch = static_cast<index_t>(all.size());

        // Packed.
        std::vector<T> packed, expected(static_cast<std::size_t>(offsets.back()), poison<T>());
        for (const auto& a : all) packed.insert(packed.end(), a.p.begin(), a.p.end());
        packed_importance(policy, packed, heads, offsets, expected, o);

        // Padded, in any order of dimensions, with NaN where nothing is. Strides of b, h, q, k:
        const index_t n = room;
        const std::array<index_t, 4> layouts[] = {{heads * n * n, n * n, n, 1},     // [b,h,q,k]
                                                  {n * n, batch * n * n, n, 1},     // [h,b,q,k]
                                                  {heads * n * n, n, heads * n, 1}, // [b,q,h,k]
                                                  {heads * n * n, n * n, 1, n}};    // [b,h,k,q]
        const auto fill = [&](T* at, const std::array<index_t, 4>& strides) {
            for (index_t b = 0; b < batch; ++b) {
                const auto& a = all[static_cast<std::size_t>(b)];
                for (index_t h = 0; h < heads; ++h)
                    for (index_t i = 0; i < a.queries; ++i)
                        for (index_t k = 0; k < a.keys; ++k)
                            if (a.sees(o.mask, i, k)) // what the mask hides is not read
                                at[b * strides[0] + h * strides[1] + i * strides[2] +
                                   k * strides[3]] = static_cast<T>(a.at(h, i, k));
            }
        };
        const auto compare = [&](const pare::view<const T, 4>& p, bool identical = true) {
            std::vector<T> scores(static_cast<std::size_t>(batch * n), poison<T>());
            pare::importance(policy, p, lengths, pare::view<T, 2>(scores.data(), batch, n), o);
            for (index_t b = 0; b < batch; ++b)
                for (index_t k = 0; k < n; ++k) {
                    const auto s = static_cast<std::size_t>(b);
                    const T score = scores[static_cast<std::size_t>(b * n + k)];
                    const T other =
                        k < lengths[s] ? expected[static_cast<std::size_t>(offsets[s] + k)] : T(0);
                    if (identical)
                        REQUIRE(same_bits(score, other));
                    else
                        REQUIRE(distance(score, other) <= static_cast<real>(10 * tolerance<T>));
                }
        };
        const auto size = static_cast<std::size_t>(batch * heads * n * n);
        for (const auto& strides : layouts) {
            std::vector<T> padded(size, poison<T>());
            fill(padded.data(), strides);
            // Where keys are not contiguous, sums are made in another order.
            compare({padded.data(), {batch, heads, n, n}, strides}, strides[3] == 1);
        }
        std::vector<T> layers(3 * size, poison<T>()); // the middle of [l,b,h,q,k]
        fill(layers.data() + size, layouts[0]);
        compare({layers.data() + size, {batch, heads, n, n}, layouts[0]});

        // One sequence at a time, [h,q,k].
        for (index_t b = 0; b < batch; ++b) {
            const auto s = static_cast<std::size_t>(b);
            const std::vector<T> p(all[s].p.begin(), all[s].p.end());
            std::vector<T> scores(static_cast<std::size_t>(lengths[s]));
            pare::importance(policy,
                             pare::view(p.data(), {heads, lengths[s], lengths[s]},
                                        {lengths[s] * lengths[s], lengths[s], 1}),
                             scores, o);
            REQUIRE(std::equal(scores.begin(), scores.end(), expected.begin() + offsets[s],
                               [](T x, T y) { return same_bits(x, y); }));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("uniform attention has relative scores of 1 under any mask", "", runs) {
    using T = typename TestType::type;
    for (pare::attention_mask mask : {pare::attention_mask{}, {true, 0}, {true, 7}, {false, 9}})
        for (index_t n : {1, 8, 100, 400}) {
            importance_options o;
            o.mask = mask;
            std::vector<T> p(static_cast<std::size_t>(2 * n * n), poison<T>()), scores(p.size());
            for (index_t h = 0; h < 2; ++h)
                for (index_t q = 0; q < n; ++q) {
                    const auto seen = pare::detail::visible_keys(mask, q, n, n);
                    for (index_t k = seen.begin; k < seen.end; ++k)
                        p[static_cast<std::size_t>((h * n + q) * n + k)] =
                            1 / static_cast<T>(seen.size());
                }
            pare::importance(TestType::policy(), pare::view<const T, 3>(p.data(), 2, n, n),
                             pare::view<T, 1>(scores.data(), n), o);
            for (index_t k = 0; k < n; ++k)
                CHECK_THAT(static_cast<double>(scores[static_cast<std::size_t>(k)]),
                           Catch::Matchers::WithinAbs(1, 10 * tolerance<T>));
        }
}

TEMPLATE_LIST_TEST_CASE("the adjoint is the adjoint, and adds", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const index_t batch = 3, heads = 2, n = 37;
    for (const importance_options& o : all_options()) {
        const std::vector<int> lengths = {37, 1, 20};
        const auto size = static_cast<std::size_t>(batch * heads * n * n);
        const std::vector<T> p = random.vector<T>(static_cast<index_t>(size));
        const std::vector<T> g = random.vector<T>(batch * n),
                             start = random.vector<T>(static_cast<index_t>(size));
        std::vector<T> gradient = start, scores(static_cast<std::size_t>(batch * n));
        const pare::view<const T, 4> probabilities(p.data(), batch, heads, n, n);
        pare::importance(TestType::policy(), probabilities, lengths,
                         pare::view<T, 2>(scores.data(), batch, n), o);
        pare::importance_backward(TestType::policy(), pare::view<const T, 2>(g.data(), batch, n),
                                  lengths, pare::view<T, 4>(gradient.data(), batch, heads, n, n),
                                  o);
        real left = 0, right = 0, scale = 0;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            left += static_cast<real>(scores[i]) * static_cast<real>(g[i]);
            scale += std::abs(static_cast<real>(scores[i]) * static_cast<real>(g[i]));
        }
        for (std::size_t i = 0; i < size; ++i) {
            right += static_cast<real>(p[i]) *
                     (static_cast<real>(gradient[i]) - static_cast<real>(start[i]));
            scale += std::abs(static_cast<real>(p[i])) * static_cast<real>(rounding<T>);
        }
        CHECK_THAT(
            static_cast<double>(left - right),
            Catch::Matchers::WithinAbs(0, 100 * tolerance<T> * static_cast<double>(scale + 1)));
    }
}

TEMPLATE_LIST_TEST_CASE("scores do not depend on the number of threads", "", runs) {
    using T = typename TestType::type;
    random_source random;
    const index_t batch = 3, heads = 5, n = 150;
    const std::vector<T> p = random.vector<T>(batch * heads * n * n, 0, 1);
    const auto scores = [&](auto policy) {
        std::vector<T> s(static_cast<std::size_t>(batch * n));
        pare::importance(policy, pare::view<const T, 4>(p.data(), batch, heads, n, n),
                         std::vector<int>{}, pare::view<T, 2>(s.data(), batch, n));
        return s;
    };
    const auto expected = scores(TestType::policy());
#ifdef _OPENMP
    if constexpr (TestType::vectorised)
        for (int threads : {1, 2, 5})
            CHECK(same_bits(scores(pare::simd.with(pare::openmp{threads})), expected));
#endif
    CHECK(same_bits(scores(TestType::policy()), expected));
}

TEMPLATE_LIST_TEST_CASE("scores do not depend on who shares the batch", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const auto policy = TestType::policy();
    const index_t heads = 2, queries = 11, batch = 20;
    for (const index_t keys : {1, 7, 33, 64, 100, 128, 130, 256, 300, 513, 600}) {
        CAPTURE(keys);
        const index_t each = heads * queries * keys;
        const std::vector<T> p = random.vector<T>(batch * each, 0, 1);
        const auto scores_of = [&](index_t first, index_t count) {
            std::vector<T> scores(static_cast<std::size_t>(count * keys), poison<T>());
            pare::importance(
                policy,
                pare::view<const T, 4>(p.data() + first * each, count, heads, queries, keys),
                std::vector<int>(), pare::view<T, 2>(scores.data(), count, keys));
            return scores;
        };
        const std::vector<T> all = scores_of(0, batch);
        for (const index_t s : {index_t{0}, batch - 1}) {
            const std::vector<T> alone = scores_of(s, 1);
            CHECK(same_bits(alone, {all.begin() + s * keys, all.begin() + (s + 1) * keys}));
        }
    }
}

TEST_CASE("what importance cannot use, it says in numbers") {
    std::vector<float> p(2 * 3 * 4 * 4, 0.25f), scores(8, 7.f);
    const pare::view<const float, 4> batch(p.data(), 2, 3, 4, 4);
    const pare::view<float, 2> out(scores.data(), 2, 4);
    const auto sentence = [&](auto&& f) { return sentence_of<pare::error>(f); };
    CHECK_THAT(sentence([&] {
                   pare::importance(pare::simd, batch, std::vector<int>{4, 5}, out);
               }),
               ContainsSubstring("pare::importance: sequence 1 has length 5, probabilities 3x4x4"));
    CHECK_THAT(sentence([&] { pare::importance(pare::simd, batch, std::vector<int>{4}, out); }),
               ContainsSubstring("probabilities of 2 sequences, 1 lengths"));
    CHECK_THAT(sentence([&] {
                   pare::importance(pare::simd, batch, std::vector<int>{},
                                    pare::view<float, 2>(scores.data(), 1, 8));
               }),
               ContainsSubstring("scores 1x8"));
    pare::importance_options o;
    o.scale = score_scale::fixed;
    CHECK_THAT(sentence([&] { pare::importance(pare::simd, batch, std::vector<int>{}, out, o); }),
               ContainsSubstring("the fixed length is 0"));
    o = {};
    o.mask.window = -2;
    CHECK_THAT(sentence([&] { pare::importance(pare::simd, batch, std::vector<int>{}, out, o); }),
               ContainsSubstring("the window is -2"));
    CHECK_THAT(sentence([&] {
                   std::vector<float> seven(7);
                   pare::importance_packed(pare::simd, p, 3, std::vector<int>{0, 4, 7}, seven);
               }),
               ContainsSubstring("96 probabilities, 3 heads and 7 tokens in 2 sequences have 75"));
    p[16 * 3 + 5] = not_a_number<float>(); // sequence 1, key 1
    CHECK_THAT(sentence([&] { pare::importance(pare::simd, batch, std::vector<int>{}, out); }),
               ContainsSubstring("the attention to key 1 of sequence 1 sums up to "));
    CHECK(scores == std::vector<float>(8, 7.f)); // nothing was written
}

namespace {

template <class T, class Policy>
void check_parts_of_importance(random_source& random, const Policy& policy_of) {
    const index_t heads = 2, room = 150;
    const std::vector<int> lengths = {150, 0, 77}, offsets = {0, 150, 150, 227};
    std::vector<T> batch = random.vector<T>(3 * heads * room * room, 0, 1);
    const std::vector<T> packed = random.vector<T>(heads * (150 * 150 + 77 * 77), 0, 1);
    for (const importance_options& o : all_options()) {
        CAPTURE(o.mask.causal, o.mask.window, o.queries.begin, o.queries.end);
        const auto run = [&](index_t nth) {
            std::vector<T> padded(3 * room, poison<T>()), of_packed(227, poison<T>()),
                of_one(room, poison<T>());
            for (index_t ith = nth; ith-- > 0;) {
                const auto policy = policy_of(pare::part{ith, nth});
                pare::importance(policy, pare::view<const T, 4>(batch.data(), 3, heads, room, room),
                                 lengths, pare::view(padded.data(), 3, room), o);
                pare::importance_packed(policy, packed, heads, offsets, of_packed, o);
                pare::importance(policy, pare::view<const T, 3>(packed.data(), heads, room, room),
                                 of_one, o);
            }
            padded.insert(padded.end(), of_packed.begin(), of_packed.end());
            padded.insert(padded.end(), of_one.begin(), of_one.end());
            return padded;
        };
        const auto expected = run(1);
        for (const index_t nth : {2, 3, 8, 100}) {
            CAPTURE(nth);
            REQUIRE(same_bits(run(nth), expected));
        }
        std::vector<T> whole(227);
        pare::importance_packed(policy_of(pare::serial{}), packed, heads, offsets, whole, o);
        REQUIRE(std::equal(whole.begin(), whole.end(), expected.begin() + 3 * room));
    }
    // A part that has a sum that is not finite writes nothing.
    batch[0] = not_a_number<T>();
    index_t thrown = 0;
    std::vector<T> padded(3 * room, poison<T>());
    for (index_t ith = 0; ith < 8; ++ith) try {
            pare::importance(policy_of(pare::part{ith, 8}),
                             pare::view<const T, 4>(batch.data(), 3, heads, room, room), lengths,
                             pare::view(padded.data(), 3, room));
        } catch (const pare::value_error& e) {
            CHECK(std::string(e.what()).find("key 0 of sequence 0") != std::string::npos);
            ++thrown;
        }
    CHECK(thrown == 1);
    CHECK(is_nan(padded[0]));
    CHECK_FALSE(is_nan(padded[2 * room]));
}

} // namespace

TEMPLATE_TEST_CASE("parts of importance make up the whole", "", float, double) {
    random_source random;
    CAPTURE(random);
    check_parts_of_importance<TestType>(
        random, [](const auto& e) { return pare::sequential<std::decay_t<decltype(e)>>(e); });
    check_parts_of_importance<TestType>(random, [](const auto& e) { return pare::simd.with(e); });
}

namespace {

/// Runs tasks one by one, and knows how many there were in the largest run.
struct counting {
    index_t* most;
    index_t concurrency() const { return 8; }
    template <class F>
    void run(index_t tasks, const F& f) const {
        *most = std::max(*most, tasks);
        for (index_t i = 0; i < tasks; ++i) f(i, i % 8);
    }
};

} // namespace

TEST_CASE("a part of importance that there is not is refused") {
    const std::vector<float> p(2 * 2 * 16, 0.25F);
    const std::vector<int> offsets = {0, 4, 8};
    for (const pare::part wrong : {pare::part{0, 0}, {-1, 4}, {4, 4}}) {
        std::vector<float> scores(8, 5.0F);
        CHECK_THROWS_AS(pare::importance_packed(pare::simd.with(wrong), p, 2, offsets, scores),
                        pare::value_error);
        CHECK(scores == std::vector<float>(8, 5.0F));
    }
}

TEST_CASE("many short packed sequences are shared out, and a long one among them") {
    random_source random;
    CAPTURE(random);
    const index_t heads = 2;
    std::vector<int> offsets = {0};
    index_t numbers = 0;
    for (int s = 0; s < 60; ++s) {
        const index_t n = s == 20 ? 400 : random.integer(1, 60);
        offsets.push_back(offsets.back() + static_cast<int>(n));
        numbers += heads * n * n;
    }
    const auto tokens = static_cast<std::size_t>(offsets.back());
    const std::vector<float> p = random.vector<float>(numbers, 0, 1);
    std::vector<float> expected(tokens), scores(tokens);
    pare::importance_packed(pare::simd.with(pare::serial{}), p, heads, offsets, expected);
    index_t most = 0;
    pare::importance_packed(pare::simd.with(counting{&most}), p, heads, offsets, scores);
    CHECK(most >= 59);
    CHECK(scores == expected);
    // Each of four parts has some 15 of the short ones.
    for (index_t ith = 0; ith < 4; ++ith) {
        std::vector<float> mine(tokens, poison<float>());
        pare::importance_packed(pare::simd.with(pare::part{ith, 4}), p, heads, offsets, mine);
        index_t sequences = 0;
        for (std::size_t s = 0; s < 60; ++s)
            sequences += !is_nan(mine[static_cast<std::size_t>(offsets[s])]);
        CHECK(sequences >= 14);
        CHECK(sequences <= 16);
    }
}

TEMPLATE_LIST_TEST_CASE("no lengths are {}, and no padding", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const auto p = random.vector<T>(2 * 3 * 5 * 5, 0, 1);
    const pare::view<const T, 4> batch(p.data(), 2, 3, 5, 5);
    std::vector<T> expected(10), scores(10), gradient(p.size()), expected_gradient(p.size());
    const std::vector<int> lengths = {5, 5};
    pare::importance(policy, batch, lengths, pare::view(expected.data(), 2, 5));
    pare::importance(policy, batch, {}, pare::view(scores.data(), 2, 5));
    CHECK(same_bits(scores, expected));
    const pare::view<const T, 2> g(scores.data(), 2, 5);
    pare::importance_backward(policy, g, lengths, pare::view(expected_gradient.data(), 2, 3, 5, 5));
    pare::importance_backward(policy, g, {}, pare::view(gradient.data(), 2, 3, 5, 5));
    CHECK(same_bits(gradient, expected_gradient));
}

TEST_CASE("scores add up across layers and steps") {
    pare::score_accumulator sums;
    sums.add(std::vector<float>{1, 2, 3});
    sums.add(std::vector<double>{1, 1, 1, 5}); // a new token
    const auto values = [&] {
        return std::vector<double>(sums.sums().data_handle(),
                                   sums.sums().data_handle() + sums.sums().extent(0));
    };
    CHECK(values() == std::vector<double>{2, 3, 4, 5});
    sums.keep(std::vector<int>{0, 2, 3});
    CHECK(values() == std::vector<double>{2, 4, 5});
    CHECK_THAT(sentence_of<pare::shape_error>([&] { sums.add(std::vector<float>{1}); }),
               ContainsSubstring("1 scores, there are 3 tokens"));
    CHECK_THAT(sentence_of<pare::value_error>([&] {
                   sums.keep(std::vector<int>{1, 1});
               }),
               ContainsSubstring("index 1 is 1 after 1, of 3 tokens"));
    CHECK_THAT(sentence_of<pare::value_error>([&] { sums.keep(std::vector<int>{3}); }),
               ContainsSubstring("index 0 is 3"));
    CHECK_THROWS_AS(sums.add(std::vector<float>{1, 2, infinite<float>()}), pare::value_error);
    CHECK(values() == std::vector<double>{2, 4, 5});
    CHECK_THROWS_AS(pare::score_accumulator(-1), pare::value_error);

    pare::score_accumulator forgetful(0.5);
    forgetful.add(std::vector<float>{4});
    forgetful.add(std::vector<float>{1});
    CHECK(forgetful.sums()(0) == 3);
}

TEMPLATE_LIST_TEST_CASE("windows and counts of any size", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    constexpr index_t n = 21, most = std::numeric_limits<index_t>::max();
    const std::vector<T> p = random.vector<T>(2 * n * n, 0, 1);
    const auto scores = [&](const importance_options& o) {
        std::vector<T> s(n, poison<T>());
        pare::importance(TestType::policy(), pare::view<const T, 3>(p.data(), 2, n, n), s, o);
        return s;
    };
    for (const bool causal : {false, true}) {
        importance_options o;
        o.mask.causal = causal;
        const auto all = scores(o);
        for (const index_t window : {most, most - n, most / 2, 2 * n}) {
            o.mask.window = window;
            const auto wide = scores(o);
            for (std::size_t i = 0; i < all.size(); ++i)
                CHECK(distance(wide[i], all[i]) <= 10 * static_cast<real>(tolerance<T>));
        }
        for (const index_t queries : {most, n + 1, n}) {
            o = {};
            o.queries = pare::counted_queries::last(queries);
            CHECK(same_bits(scores(o), scores({})));
        }
        o.queries = pare::counted_queries::last(0);
        CHECK(scores(o) == std::vector<T>(n, T(0)));
        o.queries = {std::numeric_limits<index_t>::min(), most};
        CHECK(same_bits(scores(o), scores({})));
    }
    std::vector<T> s(n);
    const std::vector<int> offsets = {0, n};
    for (const index_t heads : {most, most / n, index_t{-2}})
        CHECK_THROWS_AS(pare::importance_packed(TestType::policy(), p, heads, offsets, s),
                        pare::shape_error);
}

TEMPLATE_LIST_TEST_CASE("accumulated scores of half types", "", half_types) {
    pare::score_accumulator sums(0.5);
    sums.add(halves_of<TestType>({1, 2}));
    sums.add(halves_of<TestType>({0.25F, 1, 3}));
    CHECK(sums.sums()(0) == 0.75);
    CHECK(sums.sums()(1) == 2);
    CHECK(sums.sums()(2) == 3);
    auto bad = halves_of<TestType>({1, 2, 3});
    bad[2] = static_cast<TestType>(not_a_number<float>());
    CHECK_THAT(sentence_of<pare::value_error>([&] { sums.add(bad); }),
               ContainsSubstring("score 2 is nan"));
}

TEMPLATE_LIST_TEST_CASE("gradients of half types go back, and add", "", half_types) {
    random_source random;
    CAPTURE(random);
    constexpr index_t batch = 2, heads = 3, n = 9;
    const std::vector<int> lengths = {n, 4};
    const auto halves = [&](index_t count) {
        std::vector<TestType> x;
        for (const float e : random.vector<float>(count)) x.push_back(static_cast<TestType>(e));
        return x;
    };
    const std::vector<TestType> g = halves(batch * n), start = halves(batch * heads * n * n);
    const auto widened = [](const std::vector<TestType>& x) {
        std::vector<double> wide;
        for (const TestType& e : x) wide.push_back(value(e));
        return wide;
    };
    pare::importance_options options;
    options.mask.causal = true;
    std::vector<double> expected = widened(start);
    pare::importance_backward(pare::seq, pare::view(widened(g).data(), batch, n), lengths,
                              pare::view(expected.data(), batch, heads, n, n), options);
    const auto check = [&](const auto& policy) {
        std::vector<TestType> gradient = start;
        pare::importance_backward(policy, pare::view(g.data(), batch, n), lengths,
                                  pare::view(gradient.data(), batch, heads, n, n), options);
        const std::vector<double> found = widened(gradient);
        for (std::size_t i = 0; i < found.size(); ++i)
            CHECK_THAT(found[i],
                       Catch::Matchers::WithinAbs(expected[i], epsilon_of<TestType> *
                                                                   (1 + std::abs(expected[i]))));
    };
    check(std::tuple_element_t<0, policies>::policy());
    check(std::tuple_element_t<std::tuple_size_v<policies> - 1, policies>::policy());
}

} // namespace importance_test
