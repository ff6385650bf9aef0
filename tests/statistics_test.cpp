// Statistics of rows whose mean is many times their deviation, of float, double and half types,
// against sums in long double about the mean.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/fisher.hpp>
#include <pare/gram.hpp>
#include <pare/head_shapes.hpp>
#include <pare/tune.hpp>

#include <Eigen/Eigenvalues>

#include <algorithm>
#include <limits>
#include <numeric>

namespace statistics_test {

namespace {

using first_policy = std::tuple_element_t<0, policies>;
using last_policy = std::tuple_element_t<std::tuple_size_v<policies> - 1, policies>;
using all_runs = decltype(std::tuple_cat(
    runs{}, std::tuple<run<first_policy, fp16_like>, run<last_policy, bf16_like>>{}));

// Of the sums of a type, relative to how much columns vary.
template <class T>
inline constexpr double share = tolerance<pare::compute_t<T>>;

using real_matrix = Eigen::Matrix<real, Eigen::Dynamic, Eigen::Dynamic>;
using real_vector = Eigen::Matrix<real, Eigen::Dynamic, 1>;

double least_share_of_largest(const real_matrix& symmetric) {
    const Eigen::VectorXd values =
        Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(symmetric.cast<double>()).eigenvalues();
    return values.minCoeff() / values.maxCoeff();
}

/// Weighted means and covariances of [x y].
struct oracle {
    real_vector mean;
    real_matrix covariance;

    template <class T>
    oracle(const matrix<T>& x, const matrix<T>& y, const std::vector<double>& weights) {
        const index_t n = x.height, inputs = x.width, all = inputs + y.width;
        const auto number = [&](index_t t, index_t c) {
            return static_cast<real>(c < inputs ? value(x(t, c)) : value(y(t, c - inputs)));
        };
        const auto weight = [&](index_t t) {
            return weights.empty() ? real(1)
                                   : static_cast<real>(weights[static_cast<std::size_t>(t)]);
        };
        mean = real_vector::Zero(all);
        covariance = real_matrix::Zero(all, all);
        real total = 0;
        for (index_t t = 0; t < n; ++t) {
            total += weight(t);
            for (index_t c = 0; c < all; ++c) mean(c) += weight(t) * number(t, c);
        }
        mean /= total;
        real_vector row(all);
        for (index_t t = 0; t < n; ++t) {
            for (index_t c = 0; c < all; ++c) row(c) = number(t, c) - mean(c);
            for (index_t j = 0; j < all; ++j) {
                const real left = weight(t) * row(j);
                for (index_t i = j; i < all; ++i) covariance(i, j) += left * row(i);
            }
        }
        covariance /= total;
        covariance.triangularView<Eigen::StrictlyUpper>() = covariance.transpose();
    }

    /// The most that an element of [x y]'s covariance is off, of the deviations of its columns.
    double off(const real_matrix& found) const {
        real most = 0;
        for (index_t i = 0; i < found.rows(); ++i)
            for (index_t j = 0; j < found.cols(); ++j) {
                const real scale = std::sqrt(covariance(i, i) * covariance(j, j));
                most = std::max(most, distance(found(i, j), covariance(i, j)) / scale);
            }
        return static_cast<double>(most);
    }
    /// The same for means, but for the rounding of a double.
    double off_means(const real_vector& found, index_t first) const {
        real most = 0;
        for (index_t i = 0; i < found.size(); ++i) {
            const real expected = mean(first + i);
            most = std::max(most, (distance(found(i), expected) - 4e-16L * std::abs(expected)) /
                                      std::sqrt(covariance(first + i, first + i)));
        }
        return static_cast<double>(most);
    }
};

/// The same as the statistics have it.
void check(const pare::least_squares& s, const oracle& expected, double within) {
    const index_t n = s.inputs(), m = s.outputs();
    real_matrix found = expected.covariance; // y's own is not among the statistics
    const real_matrix xx = s.covariance().cast<real>();
    found.topLeftCorner(n, n) = xx;
    found.topRightCorner(n, m) = s.covariance_xy().cast<real>();
    found.bottomLeftCorner(m, n) = found.topRightCorner(n, m).transpose();
    CHECK(expected.off(found) < within);
    CHECK(expected.off_means(s.mean_x().cast<real>(), 0) < within);
    CHECK(expected.off_means(s.mean_y().cast<real>(), n) < within);
    CHECK_THAT(s.variance_y(),
               WithinRel(static_cast<double>(expected.covariance.bottomRightCorner(m, m).trace()),
                         within));
    CHECK(least_share_of_largest(xx) > -1e-12);
}

/// Rows of the deviation that a column has, and of a mean `ratio` times that, to either side. The
/// last column is the first one again.
template <class T>
struct data {
    matrix<T> x, y;

    data(index_t rows, index_t inputs, index_t outputs, double ratio, random_source& random)
        : x(rows, inputs, layout::padded), y(rows, outputs) {
        const std::vector<double> sizes = random.vector<double>(inputs, 0.5, 2);
        for (index_t t = 0; t < rows; ++t) {
            const double common = random.uniform();
            for (index_t c = 0; c < inputs; ++c) {
                const double size = sizes[static_cast<std::size_t>(c)];
                const double varies = random.uniform() + common;
                x(t, c) = T(static_cast<pare::compute_t<T>>(size * (varies + ratio * (c % 3 - 1))));
            }
            if (inputs > 1) x(t, inputs - 1) = x(t, 0);
            for (index_t o = 0; o < outputs; ++o)
                y(t, o) = T(static_cast<pare::compute_t<T>>(common + random.uniform() + ratio));
        }
    }

    template <class Policy>
    void add(const Policy& policy, index_t first, index_t last, pare::least_squares& s,
             const std::vector<double>& weights = {}) const {
        if (weights.empty())
            s.add(policy, x.slice(first, last), y.slice(first, last));
        else
            s.add(policy, x.slice(first, last), y.slice(first, last),
                  std::vector<double>(weights.begin() + first, weights.begin() + last));
    }
};

/// Whether numbers of a type can tell what varies so little beside its mean, and statistics do.
template <class T>
bool can_be(double ratio) {
    return 2 * ratio * epsilon_of<T> < 1 && 20 * ratio * epsilon_of<pare::compute_t<T>> < 1;
}

/// A device's products add up 2,048 rows in float, where the host's kernels add up some hundreds.
template <class Run>
inline constexpr double longer_sums = on_host<Run> ? 1 : 4;

} // namespace

TEMPLATE_LIST_TEST_CASE("covariances of rows with large means, in many batches", "", all_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const double ratio : {0.0, 1e2, 1e4, 1e5, 1e6}) {
        if (!can_be<T>(ratio)) continue;
        CAPTURE(ratio);
        const index_t rows = 9000;
        const data<T> d(rows, 33, 3, ratio, random);
        const oracle expected(d.x, d.y, {});
        pare::least_squares s(33, 3);
        index_t first = 0;
        for (const index_t last : {1, 2, 40, 40, 300, 4500, 9000}) { // also more than a chunk
            d.add(TestType::policy(), first, last, s);
            first = last;
        }
        CHECK(s.tokens() == rows);
        check(s, expected, longer_sums<TestType> * share<T>);
        // What is not centred, of numbers of the mean's size.
        const real_vector mean = expected.mean.head(33);
        const real_matrix moment =
            expected.covariance.topLeftCorner(33, 33) + mean * mean.transpose();
        const double scale = static_cast<double>(moment.cwiseAbs().maxCoeff());
        CHECK(static_cast<double>((s.moment_xx().cast<real>() - moment).cwiseAbs().maxCoeff()) <
              share<T> * scale);
    }
}

TEMPLATE_LIST_TEST_CASE("a hundred thousand rows of a half type", "", policies) {
    random_source random;
    CAPTURE(random);
    const index_t rows = 100000;
    const auto check_type = [&](auto number) {
        const data<decltype(number)> d(rows, 64, 1, 100, random);
        const oracle expected(d.x, d.y, {});
        pare::least_squares s(64, 1);
        for (index_t t = 0; t < rows; t += 10000) d.add(TestType::policy(), t, t + 10000, s);
        check(s, expected, longer_sums<TestType> * 1e-5);
        pare::gram<> gram(64);
        for (index_t t = 0; t < rows; t += 10000)
            gram.add(TestType::policy(), d.x.slice(t, t + 10000));
        const auto sums = gram.sums();
        real_matrix centred(64, 64);
        for (index_t i = 0; i < 64; ++i)
            for (index_t j = 0; j < 64; ++j)
                centred(i, j) = static_cast<real>(sums(i, j)) / static_cast<real>(rows) -
                                expected.mean(i) * expected.mean(j);
        CHECK(expected.off(centred) < longer_sums<TestType> * 1e-5);
        CHECK(least_share_of_largest(centred) > -1e-9); // sums of 1e4 times as much, in double
    };
    check_type(fp16_like());
    check_type(bf16_like());
}

TEMPLATE_LIST_TEST_CASE("Gram matrices of rows with large means", "", all_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const double ratio : {1e2, 1e3}) {
        if (!can_be<T>(ratio)) continue;
        for (const index_t rows : {8, 100, 2049, 5000}) {
            CAPTURE(ratio, rows);
            const data<T> d(rows, 50, 21, ratio, random);
            const oracle expected(d.x, d.y, {});
            pare::gram<> gram(50), cross(50, 21);
            gram.add(TestType::policy(), d.x.view());
            cross.add(TestType::policy(), d.x.view(), d.y.view());
            const auto xx = gram.sums(), xy = cross.sums();
            real_matrix found = expected.covariance;
            const auto n = static_cast<real>(rows);
            for (index_t i = 0; i < 50; ++i)
                for (index_t j = 0; j < 71; ++j) {
                    const double sum = j < 50 ? xx(i, j) : xy(i, j - 50);
                    found(i, j) = static_cast<real>(sum) / n - expected.mean(i) * expected.mean(j);
                }
            found.bottomLeftCorner(21, 50) = found.topRightCorner(50, 21).transpose();
            // What rounding leaves of columns' sums, times their means, and of totals in double.
            const double of_sums = ratio * share<T> / 5 / std::sqrt(static_cast<double>(rows));
            CHECK(expected.off(found) <
                  2 * longer_sums<TestType> * share<T> + of_sums + 1e-14 * ratio * ratio);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("parts of other means, merged in any order, with weights", "", all_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const double ratio = std::is_same_v<T, double> ? 1e6 : 100;
    const index_t rows = 3000, part = 500;
    data<T> d(rows, 20, 4, ratio, random);
    for (index_t t = 0; t < rows; ++t) // the parts' means differ by as much as rows vary
        for (index_t c = 0; c < 20; ++c)
            d.x(t, c) = T(static_cast<pare::compute_t<T>>(
                value(d.x(t, c)) + static_cast<double>(t / part) * (c % 2 ? 1 : -1)));
    std::vector<double> weights = random.vector<double>(rows, 0, 3);
    for (index_t t = 0; t < rows; t += 3) weights[static_cast<std::size_t>(t)] = 0;
    for (const bool weighted : {false, true}) {
        CAPTURE(weighted);
        if (weighted) { // what does not count is far from the rest
            for (index_t t = 0; t < rows; t += 3)
                for (index_t c = 0; c < 20; ++c)
                    d.x(t, c) = T(static_cast<pare::compute_t<T>>(3e4 * random.uniform()));
        }
        const std::vector<double> w = weighted ? weights : std::vector<double>();
        const oracle expected(d.x, d.y, w);
        std::vector<index_t> order(static_cast<std::size_t>(rows / part));
        std::iota(order.begin(), order.end(), index_t{0});
        for (int again = 0; again < 3; ++again) {
            std::shuffle(order.begin(), order.end(), random.engine);
            pare::least_squares merged(20, 4), nothing(20, 4);
            for (const index_t p : order) {
                pare::least_squares s(20, 4);
                const index_t middle = p * part + random.integer(0, part);
                d.add(TestType::policy(), p * part, middle, s, w);
                d.add(TestType::policy(), middle, (p + 1) * part, s, w);
                if (p % 2) {
                    merged.merge(s);
                } else {
                    s.merge(merged);
                    merged = s;
                }
                merged.merge(nothing);
            }
            CHECK(merged.tokens() == rows);
            check(merged, expected, 2 * share<T>);
            pare::least_squares twice = merged;
            twice.merge(twice);
            CHECK(twice.tokens() == 2 * rows);
            check(twice, expected, 2 * share<T>);
        }
    }
}

TEMPLATE_LIST_TEST_CASE("first rows that are not like the others", "", all_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const double ratio : {1e2, 1e4})
        for (const index_t few : {1, 5}) {
            if (!can_be<T>(ratio)) continue;
            CAPTURE(ratio, few);
            const index_t rows = 9000;
            data<T> d(rows, 17, 3, ratio, random);
            for (index_t t = 0; t < few; ++t) { // padding, for example
                for (index_t c = 0; c < 17; ++c) d.x(t, c) = T(pare::compute_t<T>(0));
                for (index_t c = 0; c < 3; ++c) d.y(t, c) = T(pare::compute_t<T>(0));
            }
            for (const bool weighted : {false, true}) {
                CAPTURE(weighted);
                std::vector<double> weights;
                if (weighted) weights = random.vector<double>(rows, 0.25, 4);
                pare::least_squares s(17, 3), other(17, 3);
                d.add(TestType::policy(), 0, few, s, weights);
                d.add(TestType::policy(), few, 6000, s, weights);
                d.add(TestType::policy(), 6000, rows, other, weights);
                s.merge(other);
                check(s, oracle(d.x, d.y, weights), longer_sums<TestType> * share<T>);
            }
        }
}

TEST_CASE("rows of float are added to sums of rows of double") {
    random_source random;
    CAPTURE(random);
    const data<double> wide(400, 6, 2, 1e5, random);
    matrix<float> x(400, 6), y(400, 2);
    matrix<double> all_x(800, 6), all_y(800, 2);
    const auto copy = [](const matrix<double>& from, matrix<float>& to, matrix<double>& all) {
        for (index_t t = 0; t < 400; ++t)
            for (index_t c = 0; c < from.width; ++c) {
                to(t, c) = static_cast<float>(from(t, c)) + 1;
                all(t, c) = from(t, c);
                all(400 + t, c) = static_cast<double>(to(t, c));
            }
    };
    copy(wide.x, x, all_x);
    copy(wide.y, y, all_y);
    const oracle expected(all_x, all_y, {});
    pare::least_squares s(6, 2), t(6, 2);
    s.add(pare::simd, wide.x.view(), wide.y.view());
    s.add(pare::simd, x.view(), y.view());
    check(s, expected, 1e-5);
    t.add(pare::seq, x.view(), y.view());
    t.add(pare::seq, wide.x.view(), wide.y.view());
    check(t, expected, 1e-5);
}

TEMPLATE_LIST_TEST_CASE("a large constant beside inputs that hardly vary", "", all_runs) {
    using T = typename TestType::type;
    using C = pare::compute_t<T>;
    random_source random;
    CAPTURE(random);
    const index_t rows = 2500;
    data<T> d(rows, 12, 2, 0, random);
    std::vector<double> weights = random.vector<double>(rows, 0, 2);
    for (index_t t = 0; t < rows; ++t) {
        for (index_t c = 0; c < 12; ++c) d.x(t, c) = T(static_cast<C>(1e-3 * value(d.x(t, c))));
        d.x(t, 11) = T(static_cast<C>(random.uniform()));
        d.x(t, 2) = T(static_cast<C>(3e4 / 7));
        d.x(t, 5) = T(static_cast<C>(-0.1));
        d.x(t, 7) = T(static_cast<C>(0));
    }
    for (const bool weighted : {false, true}) {
        CAPTURE(weighted);
        const std::vector<double> w = weighted ? weights : std::vector<double>();
        pare::least_squares s(12, 2), part(12, 2);
        d.add(TestType::policy(), 0, 1, s, w);
        d.add(TestType::policy(), 1, 900, s, w);
        d.add(TestType::policy(), 900, rows, part, w);
        s.merge(part);
        const oracle expected(d.x, d.y, w);
        const real_matrix c = s.covariance().cast<real>();
        const Eigen::MatrixXd xy = s.covariance_xy();
        for (const index_t constant : {2, 5, 7}) {
            CHECK(c.row(constant).isZero(0));
            CHECK(c.col(constant).isZero(0));
            CHECK(xy.row(constant).isZero(0));
            CHECK(s.mean_x()(constant) == value(d.x(0, constant)));
        }
        for (const index_t i : {0, 1, 3, 4, 6, 8, 9, 10, 11})
            for (const index_t j : {0, 1, 3, 4, 6, 8, 9, 10, 11}) {
                const real scale = std::sqrt(expected.covariance(i, i) * expected.covariance(j, j));
                CHECK(static_cast<double>(distance(c(i, j), expected.covariance(i, j)) / scale) <
                      2 * share<T>);
            }
        matrix<double> weight(2, 12, random);
        const matrix<double> before = weight;
        std::vector<double> bias(2);
        const auto result = pare::reconstruct(pare::simd, s, weight.view(), bias, 1e-9);
        REQUIRE(result);
        for (const index_t constant : {2, 5, 7})
            for (index_t o = 0; o < 2; ++o) CHECK(weight(o, constant) == before(o, constant));
        CHECK(weight(0, 3) != before(0, 3));
    }
}

TEMPLATE_LIST_TEST_CASE("a target of inputs with large means is reached", "", all_runs) {
    using T = typename TestType::type;
    using C = pare::compute_t<T>;
    random_source random;
    CAPTURE(random);
    const index_t rows = 2000, inputs = 12, outputs = 3;
    data<T> d(rows, inputs, outputs, 100, random);
    for (index_t t = 0; t < rows; ++t) d.x(t, inputs - 1) = T(static_cast<C>(random.uniform()));
    const matrix<double> truth(outputs, inputs, random);
    matrix<double> weight(outputs, inputs, random);
    std::vector<double> bias = random.vector<double>(outputs);
    std::vector<real> left(static_cast<std::size_t>(rows * outputs)); // y - truth x
    for (index_t t = 0; t < rows; ++t)
        for (index_t o = 0; o < outputs; ++o) {
            real sum = 0;
            for (index_t i = 0; i < inputs; ++i)
                sum += static_cast<real>(truth(o, i)) * static_cast<real>(value(d.x(t, i)));
            d.y(t, o) = T(static_cast<C>(sum));
        }
    const auto error = [&] {
        real sum = 0;
        for (index_t t = 0; t < rows; ++t)
            for (index_t o = 0; o < outputs; ++o) {
                real off = static_cast<real>(value(d.y(t, o))) -
                           static_cast<real>(bias[static_cast<std::size_t>(o)]);
                for (index_t i = 0; i < inputs; ++i)
                    off -= static_cast<real>(weight(o, i)) * static_cast<real>(value(d.x(t, i)));
                sum += off * off;
            }
        return static_cast<double>(sum / static_cast<real>(rows));
    };
    pare::least_squares s(inputs, outputs);
    d.add(TestType::policy(), 0, rows, s);
    const double before = error();
    const auto result = pare::reconstruct(pare::simd, s, weight.view(), bias, 0);
    REQUIRE(result);
    CHECK_THAT(result.error_before, WithinRel(before, 1e-4));
    // What the target's own rounding leaves, found to within the rounding of the sums.
    const double after = error();
    CHECK(std::abs(result.error_after - after) < 1e-4 * result.variance + 0.01 * after);
    const double of_target = 4 * 1e4 * outputs * std::pow(epsilon_of<T>, 2);
    CHECK(after < of_target * 100 + 1e-9 * result.variance);
}

TEST_CASE("statistics that no memory has room for") {
    constexpr index_t most = std::numeric_limits<index_t>::max(), many = index_t{1} << 40;
    const auto shape = [](const auto& f) { return sentence_of<pare::shape_error>(f); };
    CHECK(shape([] { pare::fisher<>{most}; }) ==
          "pare::fisher: 9223372036854775807 x 1 numbers have no room in any memory");
    CHECK(shape([] {
              pare::fisher<>{many, pare::fisher_kind::block};
          }) == "pare::fisher: 1099511627776 x 1099511627776 numbers have no room in any memory");
    CHECK(shape([] { pare::gram<>{many}; }) ==
          "pare::gram: 1099511627776 x 1099511627776 numbers have no room in any memory");
    CHECK(shape([] { pare::gram<float>(most / 4, 1); }) ==
          "pare::gram: 2305843009213693951 x 1 numbers have no room in any memory");
    CHECK(shape([] { pare::least_squares{most}; }) ==
          "pare::least_squares: 9223372036854775807 x 9223372036854775807 numbers have no room in "
          "any memory");
    CHECK(shape([] { pare::least_squares(0, most / 8); }) ==
          "pare::least_squares: 1152921504606846975 x 1 numbers have no room in any memory");
    CHECK(
        shape([] { pare::query_statistics(many, 1 << 20); }) ==
        "pare::query_statistics: 1099511627776 x 1099511627776 numbers have no room in any memory");
    // Of nothing there may be much.
    CHECK(pare::gram<>(most, 0).lower_sums().size() == 0);
}

} // namespace statistics_test
