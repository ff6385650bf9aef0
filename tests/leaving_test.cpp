// What leaving tokens are, added up, and what a map guesses of it, against sums in long double.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/leaving.hpp>

#include <vector>

namespace leaving_test {

namespace {

template <class T>
struct left_batch {
    std::vector<int> offsets = {0};
    matrix<T> x, context;
    std::vector<T> leaving;

    left_batch(random_source& random, const std::vector<int>& lengths, layout l)
        : x(count(lengths), 7, random, l), context(count(lengths), 4, random) {
        for (int n : lengths) offsets.push_back(offsets.back() + n);
        for (index_t t = 0; t < x.height; ++t)
            leaving.push_back(static_cast<T>(random.integer(0, 2)) / 2);
    }
    static index_t count(const std::vector<int>& lengths) {
        index_t n = 0;
        for (int length : lengths) n += length;
        return n;
    }
    index_t sequences() const { return static_cast<index_t>(offsets.size()) - 1; }
    real input(index_t t, index_t c) const {
        if (c == 11) return 1;
        return c < 7 ? static_cast<real>(x(t, c)) : static_cast<real>(context(t, c - 7));
    }
    real sum(index_t s, index_t c) const {
        real total = 0;
        for (index_t t = offsets[static_cast<std::size_t>(s)];
             t < offsets[static_cast<std::size_t>(s) + 1]; ++t)
            total += static_cast<real>(leaving[static_cast<std::size_t>(t)]) * input(t, c);
        return total;
    }
};

} // namespace

TEMPLATE_LIST_TEST_CASE("sums of leaving tokens, and guesses of them", "", host_runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::padded, layout::columns}) {
        const left_batch<T> b(random, {3, 0, 40, 1}, l);
        matrix<T> sums(b.sequences(), 12, l), gone(b.sequences(), 5, random);
        pare::leaving_sums(policy, b.leaving, b.offsets, sums.view(), b.x.view(), b.context.view());
        CHECK(sums.outside_untouched());
        pare::leaving_map<T> map(11, 5);
        const matrix<T> w(5, 11, random);
        for (index_t i = 0; i < 5; ++i) {
            for (index_t j = 0; j < 11; ++j) map.weight()(i, j) = w(i, j);
            map.bias()(i) = static_cast<T>(i);
        }
        const matrix<T> before = gone;
        map.add(policy, sums.view(), gone.view());
        for (index_t s = 0; s < b.sequences(); ++s) {
            for (index_t c = 0; c < 12; ++c)
                CHECK(distance(sums(s, c), b.sum(s, c)) < 50 * rounding<T>);
            for (index_t i = 0; i < 5; ++i) {
                real expected =
                    static_cast<real>(before(s, i)) + static_cast<real>(i) * b.sum(s, 11);
                for (index_t j = 0; j < 11; ++j)
                    expected += static_cast<real>(w(i, j)) * b.sum(s, j);
                CHECK(distance(gone(s, i), expected) < 500 * rounding<T>);
            }
        }
    }
}

TEMPLATE_LIST_TEST_CASE("a map guesses what was linear, and nothing before it is fitted", "",
                        host_runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const matrix<T> x(300, 6, random), a(4, 6, random);
    matrix<T> y(300, 4);
    for (index_t t = 0; t < 300; ++t)
        for (index_t i = 0; i < 4; ++i) {
            y(t, i) = static_cast<T>(0.5 * static_cast<double>(i));
            for (index_t j = 0; j < 6; ++j) y(t, i) += a(i, j) * x(t, j);
        }
    pare::leaving_map<T> map(6, 4);
    // One sequence, of which half a token leaves.
    std::vector<T> leaving(300), sums(7), gone(4);
    leaving[17] = T(0.5);
    const std::vector<int> offsets = {0, 300};
    const auto guess = [&] {
        std::fill(gone.begin(), gone.end(), T(0));
        pare::leaving_sums(policy, leaving, offsets, pare::view(sums.data(), 1, 7), x.view());
        map.add(policy, pare::view(sums.data(), 1, 7), pare::view(gone.data(), 1, 4));
    };
    guess();
    for (index_t i = 0; i < 4; ++i)
        CHECK(distance(2 * gone[static_cast<std::size_t>(i)], x(17, i)) < rounding<T>);

    pare::least_squares statistics(6, 4);
    statistics.add(policy, x.view(), y.view());
    const pare::tune_result fitted = map.fit(policy, statistics, 0);
    REQUIRE(fitted);
    CHECK(fitted.error_after < tolerance<T> * fitted.error_before);
    guess();
    for (index_t i = 0; i < 4; ++i)
        CHECK(distance(2 * gone[static_cast<std::size_t>(i)], y(17, i)) < 200 * tolerance<T>);
}

TEST_CASE("parts of a call leave what one call leaves") {
    random_source random;
    CAPTURE(random);
    const left_batch<float> b(random, {5, 9, 0, 30, 2}, layout::rows);
    pare::leaving_map<> map(11, 3);
    const auto run = [&](int nth) {
        std::vector<float> sums(60), gone(15);
        for (index_t ith = 0; ith < nth; ++ith)
            pare::leaving_sums(pare::simd.with(pare::part{ith, nth}), b.leaving, b.offsets,
                               pare::view(sums.data(), 5, 12), b.x.view(), b.context.view());
        for (index_t ith = 0; ith < nth; ++ith)
            map.add(pare::simd.with(pare::part{ith, nth}), pare::view(sums.data(), 5, 12),
                    pare::view(gone.data(), 5, 3));
        sums.insert(sums.end(), gone.begin(), gone.end());
        return sums;
    };
    CHECK(run(3) == run(1));
    CHECK(run(7) == run(1));
}

TEST_CASE("maps of leaving tokens check their arguments") {
    const std::vector<float> leaving(3), x(6);
    const std::vector<int> offsets = {0, 3};
    std::vector<float> sums(4);
    const auto shape = [](const auto& f) { return sentence_of<pare::shape_error>(f); };
    CHECK(shape([&] {
              pare::leaving_sums(pare::seq, leaving, offsets, pare::view(sums.data(), 1, 4),
                                 pare::view(x.data(), 3, 2));
          }) == "pare::leaving_sums: sums are 1 x 4, 1 sequences have 2 columns and a count");
    CHECK(shape([&] {
              pare::leaving_sums(pare::seq, leaving, offsets, pare::view(sums.data(), 1, 3),
                                 pare::view(x.data(), 2, 2));
          }) == "pare::leaving_sums: 2 rows, 3 tokens");
    CHECK(shape([&] {
              pare::leaving_sums(pare::seq, leaving, std::vector<int>{0, 2},
                                 pare::view(sums.data(), 1, 3), pare::view(x.data(), 3, 2));
          }) == "pare::leaving_sums: offsets go from 0 to 2, there are 3 tokens");
    CHECK(shape([] { pare::leaving_map<>(2, 3); }) == "pare::leaving_map: 2 inputs and 3 outputs");
    constexpr index_t most = std::numeric_limits<index_t>::max();
    CHECK(shape([] { pare::leaving_map<>(most, 0); }) ==
          "pare::leaving_map: 9223372036854775807 x 1 numbers have no room in any memory");
    CHECK(shape([] { pare::leaving_map<>(index_t{1} << 40, index_t{1} << 40); }) ==
          "pare::leaving_map: 1099511627777 x 1099511627776 numbers have no room in any memory");
    const pare::leaving_map<> map(3, 1);
    CHECK(shape([&] {
              map.add(pare::seq, pare::view(x.data(), 2, 3), pare::view(sums.data(), 2, 1));
          }) == "pare::leaving_map: sums are 2 x 3, guesses 2 x 1; the map has 3 inputs and 1 "
                "outputs");
}

TEST_CASE("what a map of leaving tokens was moved from is a map of nothing") {
    pare::leaving_map<> from(2, 2);
    const pare::leaving_map<> to = std::move(from);
    CHECK(to.inputs() + to.outputs() == 4);
    CHECK(from.inputs() + from.outputs() + from.weight().size() + from.bias().size() == 0);
    const std::vector<float> sums(3, 1.0F);
    std::vector<float> gone(2);
    CHECK_THROWS_AS(
        from.add(pare::seq, pare::view(sums.data(), 1, 3), pare::view(gone.data(), 1, 2)),
        pare::shape_error);
}

TEMPLATE_LIST_TEST_CASE("tokens, weights and maps of half types", "", half_types) {
    using T = TestType;
    const auto leaves = halves_of<T>({1, 0, 0.5F}), rows = halves_of<T>({1, 2, 9, 9, 4, 6});
    const std::vector<int> offsets{0, 3};
    auto sums = halves_of<T>({7, 7, 7}), gone = halves_of<T>({1, 1});
    pare::leaving_sums(pare::simd, leaves, offsets, pare::view(sums.data(), 1, 3),
                       pare::view(rows.data(), 3, 2));
    CHECK(value(sums[0]) == 3);
    CHECK(value(sums[1]) == 5);
    CHECK(value(sums[2]) == 1.5);
    const pare::leaving_map<T> map(2, 2);
    map.add(pare::simd, pare::view(sums.data(), 1, 3), pare::view(gone.data(), 1, 2));
    CHECK(value(gone[0]) == 4);
    CHECK(value(gone[1]) == 6);
}

} // namespace leaving_test
