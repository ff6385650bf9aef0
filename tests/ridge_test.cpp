// Blocked Cholesky against one in long double.
#include "policies.hpp"
#include "support.hpp"
#include <pare/ridge.hpp>

namespace ridge_test {

namespace {

// Solves (g + ridge I) z = b in place in long double, by rows of the lower triangle.
std::vector<real> solve(const matrix<double>& g, double ridge, const matrix<double>& b) {
    const index_t n = g.height, m = b.width;
    const auto at = [](index_t i, index_t j, index_t width) {
        return static_cast<std::size_t>(i * width + j);
    };
    std::vector<real> l(static_cast<std::size_t>(n * n)), z(static_cast<std::size_t>(n * m));
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j <= i; ++j) {
            real x = static_cast<real>(g(i, j)) + (i == j ? static_cast<real>(ridge) : 0);
            for (index_t k = 0; k < j; ++k) x -= l[at(i, k, n)] * l[at(j, k, n)];
            if (i == j) REQUIRE(x > 0);
            l[at(i, j, n)] = i == j ? std::sqrt(x) : x / l[at(j, j, n)];
        }
    for (index_t c = 0; c < m; ++c) {
        for (index_t i = 0; i < n; ++i) {
            real x = static_cast<real>(b(i, c));
            for (index_t k = 0; k < i; ++k) x -= l[at(i, k, n)] * z[at(k, c, m)];
            z[at(i, c, m)] = x / l[at(i, i, n)];
        }
        for (index_t i = n; i-- > 0;) {
            real x = z[at(i, c, m)];
            for (index_t k = i + 1; k < n; ++k) x -= l[at(k, i, n)] * z[at(k, c, m)];
            z[at(i, c, m)] = x / l[at(i, i, n)];
        }
    }
    return z;
}

// Columns of norm from 1 down to condition^-1/2: G = X'X has about this condition. The strict upper
// triangle is poison.
matrix<double> positive_definite(index_t n, double condition, random_source& random,
                                 layout l = layout::rows) {
    const matrix<double> x(n + 10, n, random);
    matrix<double> g(n, n, l);
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j <= i; ++j) {
            double sum = 0;
            for (index_t t = 0; t < x.height; ++t) sum += x(t, i) * x(t, j);
            const auto norm = [&](index_t k) {
                return std::pow(condition, -0.5 * static_cast<double>(k) /
                                               static_cast<double>(std::max<index_t>(1, n - 1)));
            };
            g(i, j) = sum * norm(i) * norm(j);
        }
    return g;
}

} // namespace

TEMPLATE_LIST_TEST_CASE("ridge_solve agrees with Cholesky in long double", "", policies) {
    random_source random;
    CAPTURE(random);
    for (index_t n : {0, 1, 2, 3, 95, 96, 97, 200, 300})
        for (double ridge : {0.0, 0.3}) {
            const index_t m = n == 300 ? 2 : n == 97 ? 70 : 5;
            CAPTURE(n, ridge, m);
            matrix<double> g = positive_definite(n, 100, random, layout::padded);
            matrix<double> b(n, m, random, layout::padded);
            const auto expected = solve(g, ridge, b);
            REQUIRE(pare::ridge_solve(TestType::policy(), g.view(), ridge, b.view()));
            real worst = 0, scale = 1e-300L;
            for (index_t i = 0; i < n; ++i)
                for (index_t c = 0; c < m; ++c) {
                    const real e = expected[static_cast<std::size_t>(i * m + c)];
                    worst = std::max(worst, distance(b(i, c), e));
                    scale = std::max(scale, std::abs(e));
                }
            CHECK(static_cast<double>(worst / scale) <= 1e-10);
            CHECK(b.outside_untouched());
            CHECK(g.outside_untouched());
        }
}

TEMPLATE_LIST_TEST_CASE("ill-conditioned matrices leave a small residual", "", policies) {
    random_source random;
    CAPTURE(random);
    for (double condition : {1e6, 1e10})
        for (index_t n : {50, 150}) {
            CAPTURE(condition, n);
            matrix<double> g = positive_definite(n, condition, random);
            const matrix<double> original = g, right(n, 3, random);
            matrix<double> z = right;
            REQUIRE(pare::ridge_solve(TestType::policy(), g.view(), 0, z.view()));
            for (index_t c = 0; c < 3; ++c)
                for (index_t i = 0; i < n; ++i) {
                    real sum = -static_cast<real>(right(i, c)), magnitude = std::abs(sum);
                    for (index_t k = 0; k < n; ++k) {
                        const real term =
                            static_cast<real>(i >= k ? original(i, k) : original(k, i)) *
                            static_cast<real>(z(k, c));
                        sum += term;
                        magnitude += std::abs(term);
                    }
                    // Cholesky is backward stable: the residual knows nothing of the condition.
                    REQUIRE(static_cast<double>(distance(sum, 0) / magnitude) <= 1e-12);
                }
        }
}

TEMPLATE_LIST_TEST_CASE("no solution: false, and the right-hand side stays", "", policies) {
    random_source random;
    CAPTURE(random);
    const double infinity = infinite<double>();
    for (index_t n : {1, 50, 150, 250})
        for (double bad : {0.0, -1.0, not_a_number<double>(), infinity, -infinity}) {
            CAPTURE(n, bad);
            matrix<double> g = positive_definite(n, 10, random), b(n, 4, random);
            const std::vector<double> before = b.data;
            const index_t i = random.integer(0, n - 1);
            if (bad == 0) { // two equal rows and columns, or an empty one
                for (index_t k = 0; k < n; ++k) (i >= k ? g(i, k) : g(k, i)) = 0;
            } else {
                g(i, i) = bad;
            }
            CHECK_FALSE(pare::ridge_solve(TestType::policy(), g.view(), 0, b.view()));
            CHECK(same_bits(b.data, before));
        }
    matrix<double> g = positive_definite(120, 10, random), b(120, 1, random);
    g(110, 20) = not_a_number<double>();
    CHECK_FALSE(pare::ridge_solve(TestType::policy(), g.view(), 1, b.view()));
}

TEST_CASE("ridge_solve takes Eigen's vectors and row-major matrices") {
    random_source random;
    CAPTURE(random);
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> g =
        Eigen::MatrixXd::Identity(4, 4) * 3;
    Eigen::VectorXd b = Eigen::VectorXd::Constant(4, 8.0);
    REQUIRE(pare::ridge_solve(pare::seq, g, 1, b));
    for (index_t i = 0; i < 4; ++i) CHECK_THAT(b(i), WithinRel(2.0, 1e-14));
}

#ifdef _OPENMP
TEST_CASE("solutions do not depend on the number of threads") {
    random_source random;
    CAPTURE(random);
    const matrix<double> g = positive_definite(333, 100, random), b(333, 150, random);
    const auto solved = [&](auto policy) {
        matrix<double> scratch = g, z = b;
        REQUIRE(pare::ridge_solve(policy, scratch.view(), 0.1, z.view()));
        return z.data;
    };
    const auto expected = solved(pare::simd.with(pare::serial{}));
    for (int threads : {1, 2, 5})
        CHECK(same_bits(solved(pare::simd.with(pare::openmp{threads})), expected));
}
#endif

TEST_CASE("ridge_solve checks its arguments") {
    random_source random;
    CAPTURE(random);
    matrix<double> g = positive_definite(4, 10, random), b(4, 2, random), longer(5, 2);
    matrix<double> wide(4, 5), columns(4, 4, random, layout::columns);
    const auto before = b.data;
    const auto call = [&](auto& matrix, double ridge, auto& right) {
        pare::ridge_solve(pare::seq, matrix.view(), ridge, right.view());
    };
    CHECK(sentence_of<pare::shape_error>([&] { call(g, 0, longer); }) ==
          "pare::ridge_solve: G is 4 x 4, b 5 x 2");
    CHECK_THROWS_AS(call(wide, 0, b), pare::shape_error);
    CHECK_THROWS_AS(call(columns, 0, b), pare::shape_error);
    CHECK_THAT(sentence_of<pare::value_error>([&] { call(g, -1, b); }),
               ContainsSubstring("the ridge is -1"));
    CHECK_THROWS_AS(call(g, not_a_number<double>(), b), pare::value_error);
    CHECK(same_bits(b.data, before));
}

TEST_CASE("factors and their solutions check their arguments") {
    random_source random;
    CAPTURE(random);
    matrix<double> g = positive_definite(4, 10, random), b(4, 2, random), longer(5, 2, random);
    matrix<double> tall(4, 1, random), columns = positive_definite(4, 10, random, layout::columns);
    matrix<double> right(4, 2, random, layout::columns);
    const auto factor = [](auto& matrix) {
        return sentence_of<pare::shape_error>(
            [&] { pare::factor_cholesky(pare::seq, matrix.view()); });
    };
    const auto solve = [](auto& matrix, auto& of) {
        return sentence_of<pare::shape_error>(
            [&] { pare::solve_cholesky(pare::seq, matrix.view(), of.view()); });
    };
    const auto all = [&] {
        std::vector<std::vector<double>> data;
        for (const auto* m : {&g, &b, &longer, &tall, &columns, &right}) data.push_back(m->data);
        return data;
    };
    const auto before = all();
    CHECK(factor(tall) == "pare::factor_cholesky: G is 4 x 1");
    CHECK(factor(columns) == "pare::factor_cholesky: rows are not contiguous");
    CHECK(solve(g, longer) == "pare::solve_cholesky: G is 4 x 4, b 5 x 2");
    CHECK(solve(tall, b) == "pare::solve_cholesky: G is 4 x 1");
    CHECK(solve(columns, b) == "pare::solve_cholesky: rows are not contiguous");
    CHECK(solve(g, right) == "pare::solve_cholesky: rows are not contiguous");
    const auto after = all();
    for (std::size_t i = 0; i < before.size(); ++i) CHECK(same_bits(after[i], before[i]));
}

} // namespace ridge_test
