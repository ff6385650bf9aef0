// Gram matrices and cross products against sums of products in long double.
#include "policies.hpp"
#include "support.hpp"
#include <pare/gram.hpp>

#include <algorithm>

namespace gram_test {

namespace {

// actual[i, j] = sum over rows of x[t, i] y[t, j], for j <= i or all j.
template <class T, class Acc>
void check_product(pare::view<const Acc, 2> actual, const matrix<T>& x, const matrix<T>& y,
                   bool lower) {
    CAPTURE(x.height, x.width, y.width, lower);
    REQUIRE(actual.extent(0) == x.width);
    REQUIRE(actual.extent(1) == y.width);
    // Rows of long double sums: the inner loop runs along rows of y.
    std::vector<real> value(static_cast<std::size_t>(y.width)), magnitude(value.size());
    index_t wrong = 0;
    for (index_t i = 0; i < x.width; ++i) {
        const index_t columns = lower ? i + 1 : y.width;
        std::fill(value.begin(), value.end(), 0);
        std::fill(magnitude.begin(), magnitude.end(), 0);
        for (index_t t = 0; t < x.height; ++t) {
            const real left = static_cast<real>(x(t, i));
            for (index_t j = 0; j < columns; ++j) {
                const real term = left * static_cast<real>(y(t, j));
                value[static_cast<std::size_t>(j)] += term;
                magnitude[static_cast<std::size_t>(j)] += std::abs(term);
            }
        }
        for (index_t j = 0; j < columns; ++j) {
            const auto e = static_cast<std::size_t>(j);
            const real off = distance(actual(i, j), value[e]);
            const double share = tolerance<T> + tolerance<Acc>; // of partial sums, and of totals
            wrong += !(off <= static_cast<real>(share) * magnitude[e]);
        }
    }
    CHECK(wrong == 0);
}

template <class Acc, class Policy, class T>
void check_gram(const Policy& policy, const matrix<T>& x) {
    pare::gram<Acc> gram(x.width);
    gram.add(policy, x.view());
    CHECK(gram.rows() == x.height);
    check_product(gram.lower_sums(), x, x, true);
    const auto full = gram.sums();
    index_t asymmetric = 0;
    for (index_t i = 0; i < x.width; ++i)
        for (index_t j = 0; j < i; ++j) asymmetric += full(i, j) != full(j, i);
    CHECK(asymmetric == 0);
    const std::vector<Acc> mean = gram.mean();
    REQUIRE(mean.size() == static_cast<std::size_t>(full.size()));
    index_t wrong = 0;
    for (index_t i = 0; i < full.size(); ++i) {
        const real expected = static_cast<real>(full.data_handle()[i]) /
                              static_cast<real>(std::max<index_t>(1, x.height));
        wrong += !(distance(mean[static_cast<std::size_t>(i)], expected) <=
                   rounding<Acc> * std::abs(expected));
    }
    CHECK(wrong == 0);
}

template <class Acc, class Policy, class T>
void check_cross(const Policy& policy, const matrix<T>& x, const matrix<T>& y) {
    pare::gram<Acc> gram(x.width, y.width);
    gram.add(policy, x.view(), y.view());
    check_product(gram.lower_sums(), x, y, false);
    CHECK(gram.sums().data_handle() == gram.lower_sums().data_handle());
}

template <class Acc>
std::vector<Acc> numbers(pare::gram<Acc>& gram) {
    const auto g = gram.sums();
    return {g.data_handle(), g.data_handle() + g.size()};
}

} // namespace

TEMPLATE_LIST_TEST_CASE("Gram matrices and cross products of any size", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);

    SECTION("columns") {
        for (index_t n : {0, 1, 2, 3, 5, 8, 11, 12, 13, 24, 31, 32, 33, 95, 96, 97}) {
            check_gram<double>(policy, matrix<T>(19, n, random));
            check_gram<float>(policy, matrix<T>(19, n, random));
            for (index_t m : {0, 1, 7, 33, 97})
                check_cross<double>(policy, matrix<T>(5, n, random), matrix<T>(5, m, random));
        }
        for (index_t n : {191, 192, 193, 250}) check_gram<double>(policy, matrix<T>(6, n, random));
        check_cross<float>(policy, matrix<T>(6, 250, random), matrix<T>(6, 101, random));
        check_cross<double>(policy, matrix<T>(3, 1031, random), matrix<T>(3, 20, random));
        check_cross<double>(policy, matrix<T>(3, 20, random), matrix<T>(3, 1031, random));
    }
    SECTION("rows") {
        for (index_t rows : {0, 1, 2, 127, 128, 129, 255, 256, 257, 600}) {
            check_gram<double>(policy, matrix<T>(rows, 14, random));
            check_cross<float>(policy, matrix<T>(rows, 9, random), matrix<T>(rows, 14, random));
        }
    }
    SECTION("layouts") {
        for (layout l : {layout::padded, layout::columns, layout::interleaved})
            for (layout other : {layout::rows, l}) {
                const matrix<T> x(70, 50, random, l), y(70, 61, random, other);
                check_gram<double>(policy, x);
                check_cross<double>(policy, x, y);
                check_cross<double>(policy, y, x);
            }
    }
    SECTION("pieces, and accumulators merged") {
        const matrix<T> x(400, 37, random), y(400, 5, random);
        pare::gram<> symmetric(37), cross(37, 5), merged(37), merged_cross(37, 5);
        for (index_t first : {100, 0, 399, 250}) {
            const index_t last = first == 0 ? 100 : first == 100 ? 250 : first == 250 ? 399 : 400;
            symmetric.add(policy, x.slice(first, last));
            cross.add(policy, x.slice(first, last), y.slice(first, last));
            pare::gram<> part(37), part_cross(37, 5);
            part.add(policy, x.slice(first, last));
            part_cross.add(policy, x.slice(first, last), y.slice(first, last));
            const pare::gram<> copy = part; // accumulators are values
            merged.sums();
            merged.merge(copy);
            merged_cross.merge(part_cross);
        }
        CHECK(merged.rows() == 400);
        check_product(symmetric.sums(), x, x, false);
        check_product(merged.sums(), x, x, false);
        check_product(cross.sums(), x, y, false);
        check_product(merged_cross.sums(), x, y, false);
    }
}

TEMPLATE_LIST_TEST_CASE("a Gram matrix of more than 1024 columns", "", policies) {
    random_source random;
    CAPTURE(random);
    check_gram<double>(TestType::policy(), matrix<float>(2, 1051, random));
    check_gram<float>(TestType::policy(), matrix<double>(2, 1051, random, layout::padded));
}

TEMPLATE_LIST_TEST_CASE("the primitive adds to its triangle and writes nothing else", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (layout l : {layout::padded, layout::columns, layout::interleaved})
        for (index_t n : {1, 12, 40, 100}) {
            const matrix<T> x(30, n, random, layout::padded);
            matrix<double> g(n, n, l), start(n, n, random);
            for (index_t i = 0; i < n; ++i)
                for (index_t j = 0; j <= i; ++j) g(i, j) = start(i, j);
            pare::workspace scratch;
            const auto policy = TestType::policy();
            {
                using pare::as_input, pare::as_view; // or the policy's own
                const auto rows = as_input<2>(policy, x.view());
                const auto sums = as_view<2>(policy, g.view());
                policy.gram(-0.5, rows, rows, pare::view<double, 2>(sums), true, scratch);
            }
            index_t touched = 0;
            for (index_t i = 0; i < n; ++i)
                for (index_t j = 0; j < n; ++j)
                    if (j > i)
                        touched += !same_bits(g(i, j), poison<double>());
                    else
                        start(i, j) = (start(i, j) - g(i, j)) * 2; // sum that was added
            CHECK(touched == 0);
            CHECK(g.outside_untouched());
            check_product<T, double>(start.view(), x, x, true);
        }
}

#ifdef _OPENMP
TEMPLATE_TEST_CASE("Gram matrices do not depend on the number of threads", "", float, double) {
    random_source random;
    CAPTURE(random);
    const matrix<TestType> x(300, 401, random), y(300, 203, random);
    const auto add = [&](auto policy) {
        pare::gram<> symmetric(401), cross(401, 203);
        symmetric.add(policy, x.view());
        cross.add(policy, x.view(), y.view());
        auto all = numbers(symmetric);
        const auto more = numbers(cross);
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    const auto expected = add(pare::simd.with(pare::serial{}));
    for (int threads : {1, 2, 5})
        CHECK(same_bits(add(pare::simd.with(pare::openmp{threads})), expected));
}
#endif

TEMPLATE_LIST_TEST_CASE("rows that are not finite are not added", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const matrix<T> good(300, 21, random);
    pare::gram<> symmetric(21), cross(21, 21);
    symmetric.add(policy, good.view());
    cross.add(policy, good.view(), good.view());
    const auto before = numbers(symmetric), cross_before = numbers(cross);
    for (T x : {not_a_number<T>(), minus_infinite<T>(), std::numeric_limits<T>::max()}) {
        matrix<T> bad = good;
        bad(random.integer(0, 299), 17) = x;
        CHECK_THAT(sentence_of<pare::value_error>([&] { symmetric.add(policy, bad.view()); }),
                   ContainsSubstring("column 17 of 300 rows"));
        CHECK_THAT(
            sentence_of<pare::value_error>([&] { cross.add(policy, bad.view(), good.view()); }),
            ContainsSubstring("pare::gram: x has"));
        CHECK_THAT(
            sentence_of<pare::value_error>([&] { cross.add(policy, good.view(), bad.view()); }),
            ContainsSubstring("pare::gram: y has"));
    }
    CHECK(symmetric.rows() == 300);
    CHECK(same_bits(numbers(symmetric), before));
    CHECK(same_bits(numbers(cross), cross_before));
}

TEST_CASE("Gram matrices of wrong shapes") {
    const matrix<float> x(3, 7), y(4, 5), narrow(3, 6);
    pare::gram<> symmetric(7), cross(7, 5);
    CHECK_THAT(sentence_of<pare::shape_error>([&] { symmetric.add(pare::seq, narrow.view()); }),
               ContainsSubstring("x is 3 x 6 and y 3 x 6, the matrix is 7 x 7"));
    CHECK_THAT(sentence_of<pare::shape_error>([&] { cross.add(pare::seq, x.view(), y.view()); }),
               ContainsSubstring("x is 3 x 7 and y 4 x 5, the matrix is 7 x 5"));
    CHECK_THROWS_AS(cross.add(pare::seq, x.view()), pare::shape_error);
    CHECK_THROWS_AS(symmetric.add(pare::seq, x.view(), x.view()), pare::shape_error);
    CHECK_THROWS_AS(symmetric.merge(cross), pare::shape_error);
    CHECK_THROWS_AS(symmetric.merge(pare::gram<>(7, 7)), pare::shape_error);
    CHECK_THROWS_AS(pare::gram<>(-1), pare::shape_error);
}

} // namespace gram_test
