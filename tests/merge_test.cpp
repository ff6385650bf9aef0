// Rows that leave and are added to those most like them, against the definition.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/compact.hpp>
#include <pare/merge.hpp>

#include <algorithm>
#include <numeric>

namespace merge_test {

namespace {

const std::vector<int> offsets = {0, 1, 1, 20, 70, 75};

/// Some positions, of the third sequence none.
std::vector<int> some_positions(random_source& random) {
    std::vector<int> index;
    for (int t = 0; t < 75; ++t)
        if (t < 20 ? t % 3 == 0 : t < 70 ? random.integer(0, 2) == 0 : false) index.push_back(t);
    return index;
}

template <class T>
real cosine(const matrix<T>& x, index_t a, index_t b) {
    real dot = 0, of_a = 0, of_b = 0;
    for (index_t c = 0; c < x.width; ++c) {
        const real p = value(x(a, c)), q = value(x(b, c));
        dot += p * q, of_a += p * p, of_b += q * q;
    }
    return of_a * of_b > 0 ? dot / std::sqrt(of_a * of_b) : 0;
}

/// What nearest_rows gives, against the definition; similarities are as exact as `rounding`.
template <class Policy, class T>
void check_nearest(const Policy& policy, const matrix<T>& keys,
                   const std::vector<int>& of_sequences, const std::vector<int>& index,
                   double rounding) {
    const auto tokens = static_cast<std::size_t>(keys.height);
    std::vector<int> nearest(tokens, 99999);
    std::vector<T> similarity(tokens, static_cast<T>(99.0f));
    pare::nearest_rows(policy, keys.view(), of_sequences, index, nearest, similarity);
    const auto in_index = [&](int t) { return std::binary_search(index.begin(), index.end(), t); };
    for (std::size_t s = 0; s + 1 < of_sequences.size(); ++s)
        for (int t = of_sequences[s]; t < of_sequences[s + 1]; ++t) {
            const auto found = nearest[static_cast<std::size_t>(t)];
            const double near = value(similarity[static_cast<std::size_t>(t)]);
            if (in_index(t)) {
                REQUIRE(found == t);
                REQUIRE(near == 1);
                continue;
            }
            real most = -2;
            for (const int u : index)
                if (u >= of_sequences[s] && u < of_sequences[s + 1])
                    most = std::max(most, cosine(keys, t, u));
            if (most < -1.5L) { // none
                REQUIRE(found == -1);
                REQUIRE(near == -1);
                continue;
            }
            REQUIRE((found >= of_sequences[s] && found < of_sequences[s + 1] && in_index(found)));
            REQUIRE(distance(cosine(keys, t, found), most) < tolerance<pare::compute_t<T>>);
            REQUIRE(distance(near, most) < rounding);
        }
}

/// Of 450 tokens none, one, every second one, most, all but one, or all.
std::vector<int> positions_of(int rule, random_source& random) {
    std::vector<int> index;
    for (int t = 0; t < 450; ++t)
        if (rule == 1   ? t == 300
            : rule == 2 ? t % 2 == 0
            : rule == 3 ? random.integer(0, 9) > 0
            : rule == 4 ? t != 449
                        : rule == 5)
            index.push_back(t);
    return index;
}

} // namespace

TEMPLATE_LIST_TEST_CASE("the most similar rows", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::padded, layout::columns})
        for (const index_t size : {1, 7, 40, 70}) {
            CAPTURE(l, size);
            matrix<T> keys(75, size, random, l);
            for (index_t c = 0; c < size; ++c) keys(30, c) = keys(21, c) = 0; // like nothing
            const auto index = some_positions(random);
            check_nearest(TestType::policy(), keys, offsets, index, tolerance<T>);
        }
    // Of equal ones the first.
    const matrix<T> same(6, 1, random);
    std::vector<T> equal(6, T(2)), similarity(6);
    std::vector<int> nearest(6);
    pare::nearest_rows(TestType::policy(), pare::view<const T, 2>(equal.data(), 6, 1),
                       std::vector<int>{0, 6}, std::vector<int>{2, 4}, nearest, similarity);
    CHECK(nearest == std::vector<int>{2, 2, 2, 2, 4, 2});
}

TEMPLATE_LIST_TEST_CASE("the most similar rows, of more than a tile of tokens and of rows", "",
                        runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    // Sequences of a tile and one more or less, and of several; one; and none that has tokens.
    for (const std::vector<int>& of_sequences :
         {std::vector<int>{0, 1, 1, 64, 193, 450}, std::vector<int>{0, 450},
          std::vector<int>{0, 0, 64, 128, 449, 450, 450}})
        for (const index_t size : {0, 1, 31, 32, 33, 100})
            for (int rule = 0; rule < 6; ++rule) {
                CAPTURE(of_sequences.size(), size, rule);
                const layout l = rule % 2 ? layout::interleaved : layout::rows;
                const matrix<T> keys(450, size, random, l);
                check_nearest(TestType::policy(), keys, of_sequences, positions_of(rule, random),
                              tolerance<T>);
            }
    check_nearest(TestType::policy(), matrix<T>(0, 3), {0, 0, 0}, {}, 0);
    check_nearest(TestType::policy(), matrix<T>(0, 3), {0}, {}, 0);
}

TEMPLATE_LIST_TEST_CASE("the most similar rows of a half type", "", policies) {
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::columns}) {
        matrix<fp16_like> keys(450, 70, l);
        for (index_t t = 0; t < 450; ++t)
            for (index_t c = 0; c < 70; ++c) keys(t, c) = fp16_like(random.uniform<float>());
        check_nearest(TestType::policy(), keys, {0, 64, 450}, positions_of(2, random),
                      epsilon_of<fp16_like>);
    }
}

TEMPLATE_LIST_TEST_CASE("of equal rows the first, in whichever tile, and none that is no number",
                        "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const int tokens = 700, kinds = 5;
    for (const index_t size : {3, 32, 77}) {
        CAPTURE(size);
        const matrix<T> some(kinds, size, random);
        matrix<T> keys(tokens, size);
        // Of the rows to choose from, each third token, the first 70 are no numbers, and the next 70
        // of one kind; of the second sequence no row is a number.
        const int second = 600;
        std::vector<int> index, kind(static_cast<std::size_t>(tokens));
        for (int t = 0; t < tokens; ++t) {
            int& k = kind[static_cast<std::size_t>(t)];
            k = t % 3 == 0 && t < 420 ? 0 : static_cast<int>(random.integer(0, kinds - 1));
            for (index_t c = 0; c < size; ++c) keys(t, c) = some(k, c);
            if (t % 3 == 0) index.push_back(t);
            if ((t % 3 == 0 && (t < 210 || t >= second)) || t == 5) {
                k = -1;
                keys(t, t % size) = t % 2 ? not_a_number<T>() : infinite<T>();
            }
        }
        std::vector<int> nearest(static_cast<std::size_t>(tokens));
        std::vector<T> similarity(nearest.size());
        pare::nearest_rows(TestType::policy(), keys.view(), std::vector<int>{0, second, tokens},
                           index, nearest, similarity);
        for (int t = 0; t < tokens; ++t) {
            CAPTURE(t);
            const auto at = static_cast<std::size_t>(t);
            const int first = t < second ? 0 : second;
            int expected = t % 3 == 0 ? t : first; // of rows that are no numbers the first
            if (t % 3 > 0 && t < second && kind[at] >= 0)
                for (int u = 597; u >= 0; u -= 3)
                    if (kind[static_cast<std::size_t>(u)] == kind[at]) expected = u;
            REQUIRE(nearest[at] == expected);
            if (t % 3 == 0)
                REQUIRE(similarity[at] == 1);
            else if (t >= second || kind[at] < 0)
                REQUIRE(is_nan(similarity[at]));
            else
                REQUIRE(distance(similarity[at], 1) < tolerance<T>);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("keys whose squares there are no numbers for", "", runs) {
    using T = typename TestType::type;
    using limits = std::numeric_limits<T>;
    const auto root = static_cast<T>(std::pow(10, limits::max_exponent10 / 2 + 1));
    for (const T a : {limits::min(), 1 / root, T(1), root, limits::max()}) {
        CAPTURE(a);
        const std::vector<T> keys = {a, 0, a, a};
        std::vector<T> similarity(2);
        std::vector<int> nearest(2);
        pare::nearest_rows(TestType::policy(), pare::view<const T, 2>(keys.data(), 2, 2),
                           std::vector<int>{0, 2}, std::vector<int>{0}, nearest, similarity);
        CHECK(distance(similarity[1], std::sqrt(0.5L)) < tolerance<T>);
    }
}

TEMPLATE_LIST_TEST_CASE("keys that are no numbers draw no other token", "", runs) {
    using T = typename TestType::type;
    const index_t size = 19;
    for (const T bad : {not_a_number<T>(), infinite<T>(), minus_infinite<T>()})
        for (const index_t column : {0, 3, 18})
            for (const int row : {0, 1, 2}) {
                CAPTURE(column, row);
                // Tokens 3 and 4 are opposite to those that stay, 5 and 6 like them; 7 is alone with
                // bad ones.
                matrix<T> keys(10, size);
                for (index_t t = 0; t < 10; ++t)
                    for (index_t c = 0; c < size; ++c)
                        keys(t, c) = static_cast<T>((t == 3 || t == 4 ? -1 : 1) * (1 + c % 3));
                keys(row, column) = keys(4, column) = keys(8, column) = keys(9, column) = bad;
                std::vector<int> nearest(10);
                std::vector<T> similarity(10);
                pare::nearest_rows(TestType::policy(), keys.view(), std::vector<int>{0, 7, 10},
                                   std::vector<int>{0, 1, 2, 8, 9}, nearest, similarity);
                const int first = row == 0 ? 1 : 0;
                CHECK(nearest == std::vector<int>{0, 1, 2, first, 0, first, first, 8, 8, 9});
                CHECK(distance(similarity[3], -1) < tolerance<T>);
                CHECK(distance(similarity[5], 1) < tolerance<T>);
                CHECK(is_nan(similarity[4]));
                CHECK(is_nan(similarity[7]));
            }
}

TEMPLATE_LIST_TEST_CASE("a row to which nothing is added stays", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    matrix<T> x(40, 5, random);
    x(3, 2) = std::numeric_limits<T>::max();
    std::vector<T> sizes(40, T(3)), to(200, poison<T>());
    std::vector<int> index(40);
    std::iota(index.begin(), index.end(), 0);
    pare::merge_rows(TestType::policy(), index, std::vector<int>(40, -1), sizes,
                     pare::from_to(x.view(), pare::view<T, 2>(to.data(), 40, 5)));
    for (index_t t = 0; t < 40; ++t)
        for (index_t c = 0; c < 5; ++c) REQUIRE(to[static_cast<std::size_t>(t * 5 + c)] == x(t, c));
    CHECK(sizes == std::vector<T>(40, T(3)));
}

TEMPLATE_LIST_TEST_CASE("rows become means of what they stand for", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 20; ++round) {
        const layout l = round % 2 ? layout::padded : layout::columns;
        const matrix<T> x(75, 9, random, l), y(75, 1, random);
        const auto index = round == 3 ? std::vector<int>{} : some_positions(random);
        const auto kept = static_cast<index_t>(index.size());
        std::vector<int> nearest(75, -1);
        auto sizes = random.vector<T>(75, 1, 9);
        const auto before = sizes;
        std::vector<std::vector<std::size_t>> parts(index.size());
        for (std::size_t t = 0; t < 75; ++t) {
            const auto own = std::find(index.begin(), index.end(), static_cast<int>(t));
            if (own != index.end()) {
                nearest[t] = static_cast<int>(random.integer(-5, 80)); // is not looked at
                parts[static_cast<std::size_t>(own - index.begin())].push_back(t);
            } else if (kept > 0 && random.integer(0, 4) > 0) {
                const auto to = static_cast<std::size_t>(random.integer(0, kept - 1));
                nearest[t] = index[to];
                parts[to].push_back(t);
            }
        }
        matrix<T> merged(kept, 9, l), other(kept, 1);
        pare::merge_rows(TestType::policy(), index, nearest, sizes,
                         pare::from_to(x.view(), merged.view()),
                         pare::from_to(y.view(), other.view()));
        for (index_t i = 0; i < kept; ++i) {
            real size = 0, of_y = 0;
            for (const std::size_t t : parts[static_cast<std::size_t>(i)]) {
                size += static_cast<real>(before[t]);
                of_y +=
                    static_cast<real>(before[t]) * static_cast<real>(y(static_cast<index_t>(t), 0));
            }
            REQUIRE(distance(sizes[static_cast<std::size_t>(i)], size) < tolerance<T> * size);
            REQUIRE(distance(other(i, 0), of_y / size) < tolerance<T>);
            for (index_t c = 0; c < 9; ++c) {
                real sum = 0;
                for (const std::size_t t : parts[static_cast<std::size_t>(i)])
                    sum += static_cast<real>(before[t]) *
                           static_cast<real>(x(static_cast<index_t>(t), c));
                REQUIRE(distance(merged(i, c), sum / size) < tolerance<T>);
            }
        }
        CHECK(merged.outside_untouched());
        for (std::size_t t = index.size(); t < 75; ++t) REQUIRE(sizes[t] == before[t]);
    }
}

TEMPLATE_LIST_TEST_CASE("merging equal rows loses nothing", "", host_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    // 10 rows, each of them several times: as many stay, and with sizes attention is as before.
    const matrix<T> different(10, 8, random);
    matrix<T> all(40, 8);
    std::vector<int> index;
    for (index_t t = 0; t < 40; ++t)
        for (index_t c = 0; c < 8; ++c) all(t, c) = different(t < 10 ? t : (t * t) % 10, c);
    index.resize(10);
    std::iota(index.begin(), index.end(), 0);
    std::vector<int> nearest(40);
    std::vector<T> similarity(40), sizes(40, T(1));
    pare::nearest_rows(TestType::policy(), all.view(), std::vector<int>{0, 40}, index, nearest,
                       similarity);
    matrix<T> merged(10, 8);
    pare::merge_rows(TestType::policy(), index, nearest, sizes,
                     pare::from_to(all.view(), merged.view()));
    for (index_t t = 0; t < 40; ++t)
        CHECK(distance(similarity[static_cast<std::size_t>(t)], 1) < tolerance<T>);
    for (index_t i = 0; i < 10; ++i)
        for (index_t c = 0; c < 8; ++c)
            CHECK(distance(merged(i, c), different(i, c)) < tolerance<T>);
    CHECK(std::accumulate(sizes.begin(), sizes.begin() + 10, T(0)) == 40);
}

TEST_CASE("what merging cannot use, it says in numbers") {
    random_source random;
    const matrix<float> x(6, 2, random);
    matrix<float> y(2, 2);
    std::vector<int> nearest(6, 1);
    std::vector<float> sizes(6, 1.0f), few(5);
    const std::vector<int> index = {1, 4};
    const auto merge = [&](const std::vector<int>& positions, std::vector<float>& s) {
        return sentence_of<pare::error>([&] {
            pare::merge_rows(pare::simd, positions, nearest, s, pare::from_to(x.view(), y.view()));
        });
    };
    CHECK(merge(index, few) == "pare::merge_rows: 5 sizes, 6 nearest rows");
    CHECK_THAT(merge({4, 1}, sizes), ContainsSubstring("position 1 is 1"));
    CHECK_THAT(merge({1, 4, 5}, sizes), ContainsSubstring("array 0: 3 of 6 x 2 against 2 x 2"));
    nearest[2] = 3;
    CHECK(merge(index, sizes) ==
          "pare::merge_rows: token 2 goes to row 3, which is none of those kept");
    std::vector<float> similarity(5);
    CHECK(sentence_of<pare::shape_error>([&] {
              pare::nearest_rows(pare::simd, x.view(), std::vector<int>{0, 6}, index, nearest,
                                 similarity);
          }) == "pare::nearest_rows: 6 keys, 6 nearest rows and 5 similarities");
}

} // namespace merge_test
