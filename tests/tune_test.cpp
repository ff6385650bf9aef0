// Tuning against least squares by QR in long double on the data themselves.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/tune.hpp>

#include <Eigen/QR>

#include <cstdint>
#include <numeric>

namespace tune_test {

namespace {

using real_matrix = Eigen::Matrix<real, Eigen::Dynamic, Eigen::Dynamic>;
using real_vector = Eigen::Matrix<real, Eigen::Dynamic, 1>;

template <class T>
real_matrix to_real(const matrix<T>& m) {
    real_matrix r(m.height, m.width);
    for (index_t i = 0; i < m.height; ++i)
        for (index_t j = 0; j < m.width; ++j) r(i, j) = static_cast<real>(m(i, j));
    return r;
}
template <class T>
real_vector to_real(const std::vector<T>& v) {
    real_vector r(static_cast<index_t>(v.size()));
    for (index_t i = 0; i < r.size(); ++i) r(i) = static_cast<real>(v[static_cast<std::size_t>(i)]);
    return r;
}

// E |y - W x - b|^2.
real error_of(const real_matrix& x, const real_matrix& y, const real_matrix& w,
              const real_vector& b) {
    return (y - ((x * w.transpose()).rowwise() + b.transpose())).squaredNorm() /
           static_cast<real>(x.rows());
}

// What rounding in the sums is relative to.
real magnitude_of(const real_matrix& x, const real_matrix& y, const real_matrix& w,
                  const real_vector& b) {
    return (y.squaredNorm() + (x.cwiseAbs() * w.cwiseAbs().transpose()).squaredNorm()) /
               static_cast<real>(x.rows()) +
           b.squaredNorm();
}

// min E |y - W x - b|^2 + ridge * mean variance of x * |W - W0|^2: returns [W b].
real_matrix fit(const real_matrix& x, const real_matrix& y, const real_matrix& w0, double ridge) {
    const index_t n = x.rows(), k = x.cols();
    const real_matrix centred = x.rowwise() - x.colwise().mean();
    const real r = static_cast<real>(ridge) * centred.squaredNorm() / static_cast<real>(n * k);
    const real root = std::sqrt(static_cast<real>(n));
    real_matrix rows = real_matrix::Zero(n + k, k + 1), target(n + k, y.cols());
    rows.topLeftCorner(n, k) = x / root;
    rows.topRightCorner(n, 1).setConstant(1 / root);
    rows.bottomLeftCorner(k, k).diagonal().setConstant(std::sqrt(r));
    target.topRows(n) = y / root;
    target.bottomRows(k) = std::sqrt(r) * w0.transpose();
    return rows.colPivHouseholderQr().solve(target).transpose();
}

// The same for one scale a unit, W and b fixed.
real_vector fit_scales(const real_matrix& x, const real_matrix& y, const real_matrix& w,
                       const real_vector& b, index_t unit, double ridge) {
    const index_t n = x.rows(), m = y.cols(), units = x.cols() / unit;
    const real root = std::sqrt(static_cast<real>(n));
    real_matrix rows = real_matrix::Zero(n * m + units, units);
    real_vector target(n * m + units);
    for (index_t t = 0; t < n; ++t)
        for (index_t o = 0; o < m; ++o) {
            target(t * m + o) = (y(t, o) - b(o)) / root;
            for (index_t i = 0; i < x.cols(); ++i)
                rows(t * m + o, i / unit) += w(o, i) * x(t, i) / root;
        }
    const real r = static_cast<real>(ridge) * rows.squaredNorm() / static_cast<real>(units);
    rows.bottomRows(units).diagonal().setConstant(std::sqrt(r));
    target.tail(units).setConstant(std::sqrt(r));
    return rows.colPivHouseholderQr().solve(target);
}

void check_equal(const real_matrix& actual, const real_matrix& expected, double share) {
    REQUIRE(actual.size() == expected.size());
    // The numbers here are of order 1; a single one may be 0.
    const double scale = std::max(1.0, static_cast<double>(expected.cwiseAbs().maxCoeff()));
    const double off = static_cast<double>((actual - expected).cwiseAbs().maxCoeff());
    CHECK_THAT(off / scale, WithinAbs(0, share));
}

// A layer and its data as numbers of the oracles.
struct layer {
    real_matrix x, y, w;
    real_vector b;

    real_matrix fitted(double ridge) const { return fit(x, y, w, ridge); }
    real_vector fitted_scales(index_t unit, double ridge) const {
        return fit_scales(x, y, w, b, unit, ridge);
    }
    real_matrix scaled(const real_vector& scales) const {
        real_matrix result = w;
        for (index_t i = 0; i < w.cols(); ++i)
            result.col(i) *= scales(i * scales.size() / w.cols());
        return result;
    }
    double error() const { return static_cast<double>(error_of(x, y, w, b)); }
    double magnitude() const { return static_cast<double>(magnitude_of(x, y, w, b)); }
    double variance() const {
        return static_cast<double>((y.rowwise() - y.colwise().mean()).squaredNorm() /
                                   static_cast<real>(y.rows()));
    }
};

void check_errors(const pare::tune_result& result, const layer& before, const layer& after,
                  double share) {
    const double slack = 4 * share * (before.magnitude() + after.magnitude());
    CHECK_THAT(result.error_before, WithinAbs(before.error(), slack));
    CHECK_THAT(result.error_after, WithinAbs(after.error(), slack));
    CHECK_THAT(result.variance, WithinAbs(before.variance(), slack));
    CHECK((result.error_after >= 0 && result.error_after <= result.error_before + slack));
}

void check_statistics(const pare::least_squares& s, const layer& l, double share) {
    const auto n = static_cast<real>(l.x.rows());
    CHECK(s.tokens() == l.x.rows());
    check_equal(s.mean_x().cast<real>(), l.x.colwise().mean().transpose(), share);
    check_equal(s.mean_y().cast<real>(), l.y.colwise().mean().transpose(), share);
    CHECK_THAT(s.mean_square_y(), WithinRel(static_cast<double>(l.y.squaredNorm() / n), share));
    const real_matrix xx = s.moment_xx().cast<real>(), expected = l.x.transpose() * l.x / n;
    check_equal(xx.triangularView<Eigen::Lower>(), expected.triangularView<Eigen::Lower>(), share);
    check_equal(s.moment_xy().cast<real>(), l.x.transpose() * l.y / n, share);
}

// A layer, its inputs and a target that it cannot quite reach.
template <class T>
struct problem {
    matrix<T> x, y, weight;
    std::vector<T> bias;

    problem(index_t tokens, index_t inputs, index_t outputs, random_source& random,
            layout of_weight = layout::rows, double noise = 0.1)
        : x(tokens, inputs, random, layout::padded), y(tokens, outputs, layout::padded),
          weight(outputs, inputs, random, of_weight), bias(random.vector<T>(outputs)) {
        const matrix<T> truth(outputs, inputs, random);
        const auto offset = random.vector<T>(outputs), shift = random.vector<T>(inputs);
        for (index_t t = 0; t < tokens; ++t) {
            for (index_t i = 0; i < inputs; ++i) x(t, i) += shift[static_cast<std::size_t>(i)];
            for (index_t o = 0; o < outputs; ++o) {
                real sum = static_cast<real>(offset[static_cast<std::size_t>(o)]) +
                           static_cast<real>(noise * random.uniform());
                for (index_t i = 0; i < inputs; ++i)
                    sum += static_cast<real>(truth(o, i)) * static_cast<real>(x(t, i));
                y(t, o) = static_cast<T>(sum);
            }
        }
    }

    /// With each token as many times as its weight says.
    problem repeated(const std::vector<int>& times) const {
        problem more = *this;
        more.x = matrix<T>(std::accumulate(times.begin(), times.end(), 0), x.width);
        more.y = matrix<T>(more.x.height, y.width);
        index_t row = 0;
        for (index_t t = 0; t < x.height; ++t)
            for (int i = 0; i < times[static_cast<std::size_t>(t)]; ++i, ++row) {
                for (index_t j = 0; j < x.width; ++j) more.x(row, j) = x(t, j);
                for (index_t j = 0; j < y.width; ++j) more.y(row, j) = y(t, j);
            }
        return more;
    }

    layer as_real() const { return {to_real(x), to_real(y), to_real(weight), to_real(bias)}; }

    template <class Policy>
    pare::least_squares statistics(const Policy& policy) const {
        pare::least_squares s(x.width, y.width);
        s.add(policy, x.view(), y.view());
        return s;
    }
};

// Solutions lose what the condition of the problems here, about 100, takes.
template <class T>
inline constexpr double solution = 100 * tolerance<T>;

} // namespace

TEMPLATE_LIST_TEST_CASE("a token of weight n counts as n tokens", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (const index_t tokens : {1, 40, 300}) {
        problem<T> p(tokens, 7, 3, random);
        std::vector<int> times;
        for (index_t t = 0; t < tokens; ++t)
            times.push_back(static_cast<int>(random.integer(t == 0, 3)));
        pare::least_squares s(7, 3), part(7, 3);
        const index_t cut = tokens / 2;
        const auto middle = times.begin() + cut;
        s.add(policy, p.x.slice(0, cut), p.y.slice(0, cut),
              std::vector<int>(times.begin(), middle));
        part.add(policy, p.x.slice(cut, tokens), p.y.slice(cut, tokens),
                 std::vector<int>(middle, times.end()));
        s.merge(part);
        CHECK(s.tokens() == tokens);
        const layer l = p.repeated(times).as_real();
        const auto n = static_cast<real>(l.x.rows());
        check_equal(s.mean_x().cast<real>(), l.x.colwise().mean().transpose(), tolerance<T>);
        check_equal(s.mean_y().cast<real>(), l.y.colwise().mean().transpose(), tolerance<T>);
        CHECK_THAT(s.mean_square_y(),
                   WithinRel(static_cast<double>(l.y.squaredNorm() / n), 4 * tolerance<T>));
        check_equal(s.moment_xy().cast<real>(), l.x.transpose() * l.y / n, tolerance<T>);
        const real_matrix centred = l.x.rowwise() - l.x.colwise().mean();
        const real_matrix c = s.covariance().cast<real>(),
                          expected = centred.transpose() * centred / n;
        check_equal(c.triangularView<Eigen::Lower>(), expected.triangularView<Eigen::Lower>(),
                    4 * tolerance<T>);
        if (tokens < 40) continue;
        const problem<T> whole = p;
        pare::reconstruct(policy, s, p.weight.view(), p.bias, 0.1);
        const real_matrix fitted = whole.repeated(times).as_real().fitted(0.1);
        check_equal(p.as_real().w, fitted.leftCols(7), solution<T>);
    }
}

TEST_CASE("weights of tokens are finite, not negative and one each") {
    pare::least_squares s(2, 1);
    const Eigen::MatrixXd x = Eigen::MatrixXd::Ones(3, 2), y = Eigen::MatrixXd::Ones(3, 1);
    CHECK_THROWS_WITH(s.add(pare::simd, x, y, std::vector<double>{1, 2}),
                      ContainsSubstring("2 weights for 3 tokens"));
    for (const double bad : {-1.0, not_a_number<double>(), HUGE_VAL})
        CHECK_THROWS_WITH(s.add(pare::simd, x, y, std::vector<double>{1, bad, 2}),
                          ContainsSubstring("the weight of token 1 is "));
    CHECK(s.tokens() == 0);
    s.add(pare::simd, x, y, std::vector<double>{0, 0, 0});
    CHECK(s.mean_x().isZero());
}

TEMPLATE_LIST_TEST_CASE("statistics of inputs alone are those beside targets", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const matrix<T> x(70, 9, random), y(70, 4, random);
    const auto weights = random.vector<T>(70, 0, 3);
    pare::least_squares both(9, 4), alone(9), empty(9);
    both.add(policy, x.view(), y.view());
    both.add(policy, x.view(), y.view(), weights);
    alone.add(policy, x.view());
    empty.add(policy, x.view(), {}, weights);
    alone.merge(empty);
    CHECK(alone.outputs() == 0);
    CHECK(alone.tokens() == 140);
    CHECK((alone.covariance() - both.covariance()).cwiseAbs().maxCoeff() < tolerance<T>);
    CHECK((alone.mean_x() - both.mean_x()).cwiseAbs().maxCoeff() < tolerance<T>);
    CHECK((alone.moment_xx() - both.moment_xx()).cwiseAbs().maxCoeff() < tolerance<T>);
    CHECK(sentence_of<pare::shape_error>([&] { both.add(policy, x.view()); }) ==
          "pare::least_squares: x is 70 x 9 and y 70 x 0, expected 9 inputs and 4 outputs");
}

TEMPLATE_LIST_TEST_CASE("reconstruct is ridge regression towards the present weight", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    struct size {
        index_t tokens, inputs, outputs;
    };
    for (const size s :
         {size{1, 1, 1}, {50, 1, 3}, {60, 7, 1}, {300, 40, 9}, {300, 33, 0}, {8, 20, 4}})
        for (double ridge : {0.0, 1e-2, 1.0})
            for (layout of_weight : {layout::rows, layout::columns}) {
                if (ridge == 0 && s.tokens <= 8) continue;
                CAPTURE(s.tokens, s.inputs, s.outputs, ridge);
                problem<T> p(s.tokens, s.inputs, s.outputs, random, of_weight);
                const layer before = p.as_real();
                const auto result =
                    pare::reconstruct(policy, p.statistics(policy), p.weight.view(), p.bias, ridge);
                CHECK(result.failure == "");
                CHECK(p.weight.outside_untouched());
                if (s.outputs == 0) continue;
                const layer after = p.as_real();
                if (s.tokens == 1) { // no variance: the weight stays, the bias does it all
                    check_equal(after.w, before.w, 0);
                } else {
                    const real_matrix expected = before.fitted(ridge);
                    check_equal(after.w, expected.leftCols(s.inputs), solution<T>);
                    check_equal(after.b, expected.col(s.inputs), solution<T>);
                }
                check_errors(result, before, after, tolerance<T>);
            }
}

TEMPLATE_LIST_TEST_CASE("scale is ridge regression of one factor a unit", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    struct size {
        index_t tokens, units, unit, outputs;
    };
    for (const size s : {size{1, 1, 1, 1}, {60, 8, 1, 3}, {60, 5, 4, 9}, {20, 3, 10, 2}})
        for (double ridge : {0.0, 1e-2, 1.0})
            for (layout of_weight : {layout::rows, layout::columns}) {
                CAPTURE(s.tokens, s.units, s.unit, s.outputs, ridge);
                problem<T> p(s.tokens, s.units * s.unit, s.outputs, random, of_weight);
                const layer before = p.as_real();
                const auto bias_before = p.bias;
                std::vector<T> scales(static_cast<std::size_t>(s.units), poison<T>());
                const auto result = pare::scale(policy, p.statistics(policy), s.unit,
                                                p.weight.view(), p.bias, scales, ridge);
                CHECK(result.failure == "");
                CHECK(same_bits(p.bias, bias_before));
                CHECK(p.weight.outside_untouched());
                const layer after = p.as_real();
                check_equal(to_real(scales), before.fitted_scales(s.unit, ridge), solution<T>);
                check_equal(after.w, before.scaled(to_real(scales)), 4 * rounding<T>);
                check_errors(result, before, after, tolerance<T>);
            }
}

TEST_CASE("scales by default leave most tokens as they are where a few are far out") {
    random_source random;
    CAPTURE(random);
    constexpr index_t tokens = 400, far_out = 4, kept = 24, units = 2 * kept, outputs = 16;
    matrix<double> x(tokens, units, random), w(outputs, units, random), y(tokens, outputs),
        weight(outputs, kept, random);
    std::vector<double> scales(kept);
    for (index_t t = 0; t < far_out; ++t)
        for (index_t i = 0; i < units; ++i) x(t, i) *= 30;
    for (index_t o = 0; o < outputs; ++o)
        for (index_t i = 0; i < kept; ++i) weight(o, i) = w(o, i);
    const real_matrix all = to_real(x), target = all * to_real(w).transpose();
    for (index_t t = 0; t < tokens; ++t)
        for (index_t o = 0; o < outputs; ++o) y(t, o) = static_cast<double>(target(t, o));
    const auto error = [&](index_t first, index_t count) {
        return error_of(all.block(first, 0, count, kept), target.middleRows(first, count),
                        to_real(weight), real_vector::Zero(outputs));
    };
    const real most = error(far_out, tokens - far_out), few = error(0, far_out);
    pare::least_squares statistics(kept, outputs);
    matrix<double> inputs(tokens, kept);
    for (index_t t = 0; t < tokens; ++t)
        for (index_t i = 0; i < kept; ++i) inputs(t, i) = x(t, i);
    statistics.add(pare::seq, inputs.view(), y.view());
    REQUIRE(pare::scale(pare::seq, statistics, 1, weight.view(), {}, scales));
    CHECK(error(0, far_out) < few);
    CHECK(error(far_out, tokens - far_out) < 1.15 * most);
}

TEMPLATE_LIST_TEST_CASE("a target within reach is reached", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    problem<T> p(500, 30, 6, random, layout::rows, 0);
    const auto statistics = p.statistics(policy);
    const auto result = pare::reconstruct(policy, statistics, p.weight.view(), p.bias, 0);
    REQUIRE(result);
    CHECK(result.error_after >= 0);
    CHECK(result.error_after <= 1e3 * tolerance<T> * result.variance);
    CHECK(p.as_real().error() <= std::pow(solution<T>, 2) * result.error_before);

    // Scales that were taken out come back.
    std::vector<T> taken(10), scales(10, poison<T>());
    for (T& s : taken) s = random.uniform<T>(0.5, 2);
    for (index_t i = 0; i < 30; ++i)
        for (index_t o = 0; o < 6; ++o) p.weight(o, i) /= taken[static_cast<std::size_t>(i / 3)];
    REQUIRE(pare::scale(policy, statistics, 3, p.weight.view(), p.bias, scales, 0));
    check_equal(to_real(scales), to_real(taken), solution<T>);
}

TEMPLATE_LIST_TEST_CASE("statistics in pieces and merged are the same", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const problem<T> p(300, 20, 5, random);
    const auto whole = p.statistics(policy);
    pare::least_squares pieces(20, 5), merged(20, 5);
    for (index_t first : {200, 0, 90}) {
        const index_t last = first == 0 ? 90 : first == 90 ? 200 : 300;
        pieces.add(policy, p.x.slice(first, last), p.y.slice(first, last));
        pare::least_squares part(20, 5);
        part.add(policy, p.x.slice(first, last), p.y.slice(first, last));
        merged.merge(part);
    }
    for (auto s : std::initializer_list<const pare::least_squares*>{&whole, &pieces, &merged})
        check_statistics(*s, p.as_real(), tolerance<T>);
}

TEMPLATE_LIST_TEST_CASE("inputs that are dead or constant", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    SECTION("all of them: the bias does it all") {
        for (double constant : {0.0, 0.1, 12.3}) {
            CAPTURE(constant);
            problem<T> p(400, 10, 4, random);
            for (index_t t = 0; t < 400; ++t)
                for (index_t i = 0; i < 10; ++i) p.x(t, i) = static_cast<T>(constant);
            const layer before = p.as_real();
            const auto result =
                pare::reconstruct(policy, p.statistics(policy), p.weight.view(), p.bias, 1e-2);
            CHECK(result.failure == "");
            const layer after = p.as_real();
            check_equal(after.w, before.w, 0);
            CHECK_THAT(after.error(), WithinRel(before.variance(), 100 * tolerance<T>));
        }
    }
    SECTION("some of them: the rest is fitted") {
        problem<T> p(400, 10, 4, random);
        for (index_t t = 0; t < 400; ++t) p.x(t, 3) = 0, p.x(t, 7) = static_cast<T>(0.7);
        const layer before = p.as_real();
        // Rounding leaves a variance to the constant input, which the ridge holds against.
        const double share = 10 * solution<T>;
        const auto result =
            pare::reconstruct(policy, p.statistics(policy), p.weight.view(), p.bias, 1e-2);
        CHECK(result.failure == "");
        const layer after = p.as_real();
        const real_matrix expected = before.fitted(1e-2);
        check_equal(after.w, expected.leftCols(10), share);
        check_equal(after.b, expected.col(10), share);
        for (index_t dead : {3, 7}) check_equal(after.w.col(dead), before.w.col(dead), share);
    }
    SECTION("scales of units that do nothing stay 1") {
        problem<T> p(100, 6, 4, random);
        for (index_t t = 0; t < 100; ++t) p.x(t, 2) = p.x(t, 3) = 0;
        std::vector<T> scales(3, poison<T>());
        REQUIRE(pare::scale(policy, p.statistics(policy), 2, p.weight.view(), p.bias, scales));
        CHECK(scales[1] == 1);
        matrix<T> none(4, 6);
        for (index_t o = 0; o < 4; ++o)
            for (index_t i = 0; i < 6; ++i) none(o, i) = 0;
        REQUIRE(pare::scale(policy, p.statistics(policy), 2, none.view(), p.bias, scales));
        CHECK(scales == std::vector<T>(3, T(1)));
    }
    SECTION("no inputs, no outputs") {
        problem<T> p(100, 0, 4, random);
        std::vector<T> scales;
        const auto statistics = p.statistics(policy);
        CHECK(pare::scale(policy, statistics, 1, p.weight.view(), p.bias, scales));
        REQUIRE(pare::reconstruct(policy, statistics, p.weight.view(), p.bias));
        check_equal(to_real(p.bias), p.as_real().y.colwise().mean().transpose(), tolerance<T>);
        problem<T> q(100, 3, 0, random);
        CHECK(pare::reconstruct(policy, q.statistics(policy), q.weight.view(), q.bias));
    }
}

TEMPLATE_LIST_TEST_CASE("a layer that cannot be solved stays, and the result says why", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const auto check = [&](problem<T> p, double ridge, const std::string& reason, bool scales_too) {
        const auto statistics = p.statistics(policy);
        const auto weight = p.weight.data;
        const auto bias = p.bias;
        std::vector<T> scales(static_cast<std::size_t>(p.x.width), poison<T>());
        const auto untouched = scales;
        const auto result = pare::reconstruct(policy, statistics, p.weight.view(), p.bias, ridge);
        CHECK_FALSE(result);
        CHECK_THAT(result.failure, ContainsSubstring(reason));
        if (!is_nan(result.error_before)) CHECK(result.error_after == result.error_before);
        if (scales_too) {
            const auto of_scale =
                pare::scale(policy, statistics, 1, p.weight.view(), p.bias, scales, ridge);
            CHECK_FALSE(of_scale);
            CHECK_THAT(of_scale.failure, ContainsSubstring(reason));
        }
        CHECK(same_bits(p.weight.data, weight));
        CHECK(same_bits(p.bias, bias));
        CHECK(same_bits(scales, untouched));
    };
    SECTION("a dead input without a ridge") {
        problem<T> p(100, 12, 3, random);
        for (index_t t = 0; t < 100; ++t) p.x(t, 5) = 0;
        check(p, 0, "not positive definite (12 inputs, 100 tokens)", true);
    }
    SECTION("fewer tokens than inputs without a ridge") {
        check(problem<T>(5, 60, 3, random), 0, "(60 inputs, 5 tokens)", false);
    }
    SECTION("no tokens") {
        check(problem<T>(0, 4, 3, random), 1e-2, "no tokens", true);
    }
    SECTION("a weight that is not finite") {
        problem<T> p(100, 12, 3, random);
        p.weight(1, 2) = not_a_number<T>();
        check(p, 1e-2, "not finite", false);
    }
}

TEST_CASE("float data tune double weights, and the other way round") {
    random_source random;
    CAPTURE(random);
    const problem<float> p(200, 8, 3, random);
    matrix<double> weight(3, 8, random);
    std::vector<double> bias(3), scales(8);
    const real_matrix expected = fit(to_real(p.x), to_real(p.y), to_real(weight), 0.1);
    const auto statistics = p.statistics(pare::simd);
    CHECK(pare::reconstruct(pare::seq, statistics, weight.view(), bias, 0.1));
    check_equal(to_real(weight), expected.leftCols(8), solution<float>);
    CHECK(pare::scale(pare::simd, statistics, 1, weight.view(), bias, scales));

    const problem<double> q(200, 8, 3, random);
    Eigen::MatrixXf single = Eigen::MatrixXf::Zero(3, 8);
    Eigen::VectorXf single_bias = Eigen::VectorXf::Zero(3);
    CHECK(pare::reconstruct(pare::simd, q.statistics(pare::seq), single, single_bias, 0));
    const real_matrix exact = fit(to_real(q.x), to_real(q.y), real_matrix::Zero(3, 8), 0);
    check_equal(single.cast<real>(), exact.leftCols(8), 1e-6);
}

TEMPLATE_LIST_TEST_CASE("layers of half types are tuned", "", half_types) {
    random_source random;
    CAPTURE(random);
    const problem<float> p(200, 8, 3, random);
    const auto statistics = p.statistics(pare::simd);
    const auto check = [&](const auto& tune) {
        std::vector<TestType> halves;
        std::vector<double> wide;
        for (int i = 0; i < 3 * 8 + 3 + 8; ++i) { // weight, bias, scales
            halves.push_back(static_cast<TestType>(random.uniform<float>()));
            wide.push_back(value(halves.back()));
        }
        const auto tuned = [&](auto& all) {
            return tune(pare::view(all.data(), 3, 8), pare::view(all.data() + 24, 3),
                        pare::view(all.data() + 27, 8));
        };
        CHECK(tuned(halves));
        CHECK(tuned(wide));
        for (std::size_t i = 0; i < wide.size(); ++i)
            CHECK_THAT(value(halves[i]), Catch::Matchers::WithinRel(wide[i], epsilon_of<TestType>));
    };
    check([&](auto w, auto b, auto) { return pare::reconstruct(pare::seq, statistics, w, b); });
    check([&](auto w, auto b, auto s) { return pare::scale(pare::seq, statistics, 1, w, b, s); });
}

TEST_CASE("a solution that is no number in the weights' type leaves the layer as it is") {
    random_source random;
    CAPTURE(random);
    problem<double> p(200, 8, 3, random);
    for (double& x : p.x.data) x *= 1e-25;
    for (double& y : p.y.data) y *= 1e25;
    const auto statistics = p.statistics(pare::simd);
    matrix<float> weight(3, 8, random);
    std::vector<float> bias(3, 2.0f), scales(8, 3.0f);
    const auto before = weight.data;
    const auto check = [&](const pare::tune_result& result) {
        CHECK_FALSE(result);
        CHECK_THAT(result.failure, ContainsSubstring("not finite in the layer's type"));
        CHECK(result.error_after == result.error_before);
        CHECK(same_bits(weight.data, before));
        CHECK(bias == std::vector<float>(3, 2.0f));
        CHECK(scales == std::vector<float>(8, 3.0f));
    };
    check(pare::reconstruct(pare::simd, statistics, weight.view(), bias, 1e-6));
    check(pare::scale(pare::simd, statistics, 1, weight.view(), bias, scales, 1e-6));
}

TEMPLATE_LIST_TEST_CASE("statistics refuse what is not finite, and stay", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const problem<T> good(50, 6, 3, random);
    auto statistics = good.statistics(policy);
    const Eigen::VectorXd mx = statistics.mean_x(), my = statistics.mean_y();
    const double square = statistics.mean_square_y();
    for (T bad : {not_a_number<T>(), infinite<T>()}) {
        auto p = good;
        p.x(33, 4) = bad;
        CHECK_THROWS_AS(statistics.add(policy, p.x.view(), p.y.view()), pare::value_error);
        p = good;
        p.y(33, 1) = bad;
        CHECK_THROWS_AS(statistics.add(policy, p.x.view(), p.y.view()), pare::value_error);
    }
    CHECK(statistics.tokens() == 50);
    CHECK(statistics.mean_x() == mx);
    CHECK(statistics.mean_y() == my);
    CHECK(statistics.mean_square_y() == square);
}

TEST_CASE("tuning checks its arguments") {
    random_source random;
    CAPTURE(random);
    problem<double> p(50, 6, 3, random);
    const problem<double> other(50, 7, 3, random);
    auto statistics = p.statistics(pare::seq);
    const auto before = p.weight.data;
    matrix<double> wrong(3, 5);
    std::vector<double> shorter(2), scales(6);
    CHECK(sentence_of<pare::shape_error>([&] {
              statistics.add(pare::seq, other.x.view(), other.y.view());
          }) == "pare::least_squares: x is 50 x 7 and y 50 x 3, expected 6 inputs and 3 outputs");
    CHECK_THROWS_AS(statistics.add(pare::seq, p.x.slice(0, 49), p.y.view()), pare::shape_error);
    CHECK_THROWS_AS(statistics.merge(other.statistics(pare::seq)), pare::shape_error);
    CHECK(statistics.tokens() == 50);
    const auto reconstruct = [&](auto& weight, auto& bias, double ridge) {
        pare::reconstruct(pare::seq, statistics, weight.view(), bias, ridge);
    };
    CHECK(sentence_of<pare::shape_error>([&] { reconstruct(wrong, p.bias, 0.1); }) ==
          "pare::reconstruct: weight is 3 x 5, bias has 3, the statistics have 3 outputs and 6 "
          "inputs");
    CHECK_THROWS_AS(reconstruct(p.weight, shorter, 0.1), pare::shape_error);
    CHECK_THROWS_AS(reconstruct(p.weight, p.bias, -0.1), pare::value_error);
    CHECK_THROWS_AS(reconstruct(p.weight, p.bias, not_a_number<double>()), pare::value_error);
    const auto scale = [&](index_t unit, double ridge) {
        pare::scale(pare::seq, statistics, unit, p.weight.view(), p.bias, scales, ridge);
    };
    CHECK_THROWS_AS(scale(2, 0.1), pare::shape_error);
    CHECK_THROWS_AS(scale(0, 0.1), pare::shape_error);
    CHECK_THROWS_AS(scale(std::numeric_limits<index_t>::max(), 0.1), pare::shape_error);
    CHECK_THROWS_AS(scale(1, -1), pare::value_error);
    CHECK(same_bits(p.weight.data, before));
}

} // namespace tune_test
