// Elimination against refitting the units left from the start, in long double, for every choice.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/eliminate.hpp>

#include <Eigen/Cholesky>
#include <Eigen/QR>

#include <algorithm>
#include <limits>
#include <numeric>

namespace eliminate_test {

namespace {

using real_matrix = Eigen::Matrix<real, Eigen::Dynamic, Eigen::Dynamic>;

template <class T>
real_matrix to_real(const matrix<T>& m) {
    real_matrix r(m.height, m.width);
    for (index_t i = 0; i < m.height; ++i)
        for (index_t j = 0; j < m.width; ++j) r(i, j) = static_cast<real>(m(i, j));
    return r;
}

/// A positive definite matrix with eigenvalues over some decades, of which only the lower triangle
/// can be read.
template <class T>
matrix<T> random_covariance(index_t n, random_source& random, layout l = layout::rows) {
    real_matrix x(2 * n + 1, n);
    for (index_t j = 0; j < n; ++j) {
        const real size = std::pow(real(10), static_cast<real>(random.uniform(-1, 1)));
        for (index_t i = 0; i < x.rows(); ++i) x(i, j) = size * static_cast<real>(random.uniform());
    }
    for (index_t j = 1; j < n; ++j) x.col(j) += x.col(j - 1) * real(0.5);
    const real_matrix g = x.transpose() * x / static_cast<real>(x.rows());
    matrix<T> lower(n, n, l);
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j <= i; ++j) lower(i, j) = static_cast<T>(g(i, j));
    return lower;
}

real_matrix mirrored(real_matrix lower) {
    for (index_t i = 0; i < lower.rows(); ++i)
        for (index_t j = i + 1; j < lower.cols(); ++j) lower(i, j) = lower(j, i);
    return lower;
}

struct problem {
    real_matrix a, c, w; // G + r I, metric, weight
    index_t unit;

    template <class T>
    problem(const matrix<T>& g, const matrix<T>& metric, const matrix<T>& weight, index_t u,
            double ridge)
        : a(mirrored(to_real(g))), c(mirrored(to_real(metric))), w(to_real(weight)), unit(u) {
        if (c.size() == 0) c = real_matrix::Identity(w.rows(), w.rows());
        const real r = a.size() > 0 ? static_cast<real>(ridge) * a.diagonal().mean() : 0;
        a.diagonal().array() += r;
    }
    index_t units() const { return w.cols() / unit; }

    std::vector<index_t> inputs_of(const std::vector<bool>& gone, bool wanted) const {
        std::vector<index_t> inputs;
        for (index_t j = 0; j < w.cols(); ++j)
            if (gone[static_cast<std::size_t>(j / unit)] == wanted) inputs.push_back(j);
        return inputs;
    }
    /// Of the weights W + D that are 0 for the units that are gone and fitted for the rest.
    real loss(const std::vector<bool>& gone) const {
        const std::vector<index_t> out = inputs_of(gone, true), in = inputs_of(gone, false);
        real_matrix d = real_matrix::Zero(w.rows(), w.cols());
        for (const index_t j : out) d.col(j) = -w.col(j);
        if (!in.empty() && !out.empty()) {
            const real_matrix rest = a(in, in), cross = a(in, out);
            d(Eigen::indexing::all, in) =
                rest.ldlt().solve(cross * w(Eigen::indexing::all, out).transpose()).transpose();
        }
        return (c * d * a * d.transpose()).diagonal().sum() / 2;
    }
    std::vector<std::pair<index_t, real>> greedy() const {
        std::vector<bool> gone(static_cast<std::size_t>(units()), false);
        std::vector<std::pair<index_t, real>> steps;
        for (index_t k = 0; k < units(); ++k) {
            std::pair<index_t, real> best{-1, 0};
            for (index_t u = 0; u < units(); ++u) {
                if (gone[static_cast<std::size_t>(u)]) continue;
                gone[static_cast<std::size_t>(u)] = true;
                const real l = loss(gone);
                if (best.first < 0 || l < best.second) best = {u, l};
                gone[static_cast<std::size_t>(u)] = false;
            }
            gone[static_cast<std::size_t>(best.first)] = true;
            steps.push_back(best);
        }
        return steps;
    }
};

void check_curve(const pare::loss_curve& curve, const problem& p, double share) {
    REQUIRE(curve.units() == p.units());
    REQUIRE(curve.loss.size() == curve.order.size() + 1);
    CHECK(curve.loss[0] == 0);
    const auto expected = p.greedy();
    const real all = expected.empty() ? real(0) : expected.back().second;
    for (std::size_t k = 0; k < expected.size(); ++k) {
        CAPTURE(k);
        CHECK(curve.order[k] == expected[k].first);
        CHECK(distance(curve.loss[k + 1], expected[k].second) <= static_cast<real>(share) * all);
        CHECK(curve.loss[k + 1] >= curve.loss[k]);
    }
}

} // namespace

TEMPLATE_LIST_TEST_CASE(
    "elimination takes what brute force takes, at the loss that refitting finds", "", host_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const auto policy = TestType::policy();
    for (const layout l : {layout::rows, layout::columns})
        for (const index_t unit : {1, 3})
            for (const index_t units : {0, 1, 2, 9})
                for (const bool identity : {true, false}) {
                    CAPTURE(unit, units, identity);
                    const index_t outputs = 5;
                    const matrix<T> g = random_covariance<T>(units * unit, random, l);
                    const matrix<T> c =
                        identity ? matrix<T>(0, 0) : random_covariance<T>(outputs, random, l);
                    const matrix<T> w(outputs, units * unit, random, l);
                    const double ridge = identity ? 1e-2 : 0.3;
                    check_curve(pare::eliminate(policy, g.view(), c.view(), w.view(), unit, ridge),
                                problem(g, c, w, unit, ridge), 1e-9);
                }
}

TEMPLATE_LIST_TEST_CASE("elimination in blocks takes what it takes one by one", "", host_policies) {
    // More than a block of pending columns, a unit that does not divide it, and many outputs.
    random_source random;
    CAPTURE(random);
    for (const auto& [unit, units] : {std::pair<index_t, index_t>{1, 150}, {10, 21}}) {
        CAPTURE(unit, units);
        const matrix<double> g = random_covariance<double>(unit * units, random);
        const matrix<double> c = random_covariance<double>(70, random);
        const matrix<double> w(70, unit * units, random);
        const pare::loss_curve curve =
            pare::eliminate(TestType::policy(), g.view(), c.view(), w.view(), unit, 1e-2);
        // The loss of the units that are gone does not depend on the order in which they went.
        const problem p(g, c, w, unit, 1e-2);
        std::vector<bool> gone(static_cast<std::size_t>(units), false);
        const real all = p.loss(std::vector<bool>(gone.size(), true));
        for (std::size_t k = 0; k < gone.size(); ++k) {
            CAPTURE(k);
            REQUIRE_FALSE(gone[static_cast<std::size_t>(curve.order[k])]);
            gone[static_cast<std::size_t>(curve.order[k])] = true;
            if (k % 10 != 0 && k + 1 != gone.size()) continue;
            CHECK(distance(curve.loss[k + 1], p.loss(gone)) <= real(1e-9) * all);
            if (k > 60 || k + 1 == gone.size()) continue;
            // None of the others would have cost less.
            gone[static_cast<std::size_t>(curve.order[k])] = false;
            for (index_t u = 0; u < units; u += 1 + units / 20) {
                if (gone[static_cast<std::size_t>(u)]) continue;
                gone[static_cast<std::size_t>(u)] = true;
                CHECK(p.loss(gone) >= static_cast<real>(curve.loss[k + 1]) - real(1e-9) * all);
                gone[static_cast<std::size_t>(u)] = false;
            }
            gone[static_cast<std::size_t>(curve.order[k])] = true;
        }
    }
}

TEST_CASE("the loss of an elimination is half the error that least squares on the data leaves") {
    random_source random;
    CAPTURE(random);
    const index_t tokens = 60, inputs = 8, outputs = 3;
    real_matrix x(tokens, inputs);
    for (real& v : x.reshaped()) v = static_cast<real>(random.uniform());
    x.col(1) += x.col(0);
    const real_matrix centred = x.rowwise() - x.colwise().mean();
    const Eigen::MatrixXd g =
        (centred.transpose() * centred / static_cast<real>(tokens)).cast<double>();
    const Eigen::MatrixXd w =
        Eigen::MatrixXd::NullaryExpr(outputs, inputs, [&] { return random.uniform(); });
    const pare::loss_curve curve = pare::eliminate(pare::seq, g, Eigen::MatrixXd(), w, 1, 0);
    const real_matrix y = x * w.cast<real>().transpose();
    std::vector<index_t> left(static_cast<std::size_t>(inputs));
    std::iota(left.begin(), left.end(), index_t{0});
    for (std::size_t k = 0; k < left.size() + k; ++k) {
        real_matrix with_ones(tokens, static_cast<index_t>(left.size()) + 1);
        with_ones << x(Eigen::indexing::all, left), real_matrix::Ones(tokens, 1);
        const real_matrix fit = with_ones.colPivHouseholderQr().solve(y);
        const real error = (y - with_ones * fit).squaredNorm() / static_cast<real>(tokens);
        CHECK_THAT(curve.loss[k], WithinAbs(static_cast<double>(error / 2), 1e-12));
        left.erase(std::find(left.begin(), left.end(), curve.order[k]));
    }
}

TEST_CASE("greedy elimination is close to the best choice of units") {
    random_source random;
    CAPTURE(random);
    double worst = 1;
    for (int i = 0; i < 20; ++i) {
        const index_t units = 9, left = 4;
        const matrix<double> g = random_covariance<double>(units, random), c(0, 0);
        const matrix<double> w(4, units, random);
        const problem p(g, c, w, 1, 1e-2);
        const pare::loss_curve curve =
            pare::eliminate(pare::seq, g.view(), c.view(), w.view(), 1, 1e-2);
        std::vector<bool> gone(units, true);
        std::fill_n(gone.begin(), left, false);
        real best = std::numeric_limits<real>::max();
        do best = std::min(best, p.loss(gone));
        while (std::next_permutation(gone.begin(), gone.end()));
        const double ratio = curve.loss[units - left] / static_cast<double>(best);
        CHECK(ratio > 1 - 1e-9);
        worst = std::max(worst, ratio);
    }
    WARN("greedy against the best 4 of 9 units: at most " << worst << " times the loss");
    CHECK(worst < 2);
}

TEST_CASE("inputs that do not vary cost nothing; those that cannot be told apart are an error") {
    Eigen::MatrixXd g = Eigen::MatrixXd::Zero(3, 3);
    const Eigen::MatrixXd w = Eigen::MatrixXd::Ones(2, 3), none;
    const pare::loss_curve curve = pare::eliminate(pare::simd, g, none, w, 1);
    CHECK(curve.loss == std::vector<double>(4, 0.0));
    CHECK(std::is_permutation(curve.order.begin(), curve.order.end(),
                              std::vector<index_t>{0, 1, 2}.begin()));
    g.setOnes();
    CHECK_THROWS_AS(pare::eliminate(pare::simd, g, none, w, 1, 0), pare::value_error);
    CHECK_THROWS_WITH(pare::eliminate(pare::simd, g, none, w, 1, 0),
                      Catch::Contains("the covariance [3 x 3] with a ridge of 0"));
    // Two of the three are free, then.
    const std::vector<double> loss = pare::eliminate(pare::simd, g, none, w, 1, 1e-9).loss;
    CHECK(loss[2] < 1e-8);
    CHECK(loss[3] > 8.9); // 1/2 of 2 outputs, each 3 times what is common
}

TEST_CASE("elimination refuses what it cannot use, with the numbers") {
    const Eigen::MatrixXd g = Eigen::MatrixXd::Identity(4, 4), c = Eigen::MatrixXd::Identity(2, 2);
    const Eigen::MatrixXd w = Eigen::MatrixXd::Ones(2, 4);
    const auto refused = [](const auto& call, const char* sentence) {
        CHECK_THROWS_WITH(call(), Catch::Contains(sentence));
    };
    using pare::eliminate, pare::seq;
    refused([&] { eliminate(seq, c, c, w, 1); }, "the weight is 2 x 4, the covariance 2 x 2");
    refused([&] { eliminate(seq, g, g, w, 1); }, "the metric 4 x 4");
    refused([&] { eliminate(seq, g, c, w, 3); }, "a unit 3");
    refused([&] { eliminate(seq, g, c, w, 0); }, "a unit 0");
    refused([&] { eliminate(seq, g, c, w, 1, -1); }, "the ridge is -1");
    Eigen::MatrixXd bad = g;
    bad(3, 2) = not_a_number<double>();
    refused([&] { eliminate(seq, bad, c, w, 1); }, "covariance(3, 2) is nan");
    bad = -c;
    refused([&] { eliminate(seq, g, bad, w, 1); }, "the metric [2 x 2] is not positive");
    for (const bool beside : {false, true}) { // indefinite, with a diagonal that adds up to 0
        bad = Eigen::MatrixXd::Zero(2, 2);
        if (beside)
            bad(0, 1) = bad(1, 0) = 1;
        else
            bad.diagonal() << 1, -1;
        refused([&] { eliminate(seq, g, bad, w, 1); }, "the metric [2 x 2] is not positive");
        Eigen::MatrixXd of_inputs = Eigen::MatrixXd::Zero(4, 4);
        of_inputs.topLeftCorner(2, 2) = bad;
        refused([&] { eliminate(seq, of_inputs, c, w, 1); }, "is not positive definite");
    }
    bad = w;
    bad(1, 0) = infinite<double>();
    refused([&] { eliminate(seq, g, c, bad, 1); }, "weight(1, 0) is inf");
}

TEST_CASE("losses that add up are sorted, and masks keep what goes last") {
    const pare::loss_curve curve = pare::sorted_losses(std::vector<float>{4, 0, 2, 2});
    CHECK(curve.order == std::vector<index_t>{1, 3, 2, 0});
    CHECK(curve.loss == std::vector<double>{0, 0, 1, 2, 4});
    CHECK(curve.mask(0) == std::vector<std::uint8_t>{0, 0, 0, 0});
    CHECK(curve.mask(2) == std::vector<std::uint8_t>{1, 0, 1, 0});
    CHECK(curve.mask(4) == std::vector<std::uint8_t>{1, 1, 1, 1});
    CHECK_THROWS_AS(curve.mask(5), pare::shape_error);
    pare::loss_curve by_hand;
    by_hand.order = {1, 1, 3, 100};
    CHECK(by_hand.mask(3) == std::vector<std::uint8_t>{1, 0, 1, 1}); // what goes first is in order
    CHECK(sentence_of<pare::value_error>([&] { by_hand.mask(2); }) ==
          "pare::loss_curve: unit 1 is number 1 to go, and gone before");
    for (const index_t none : {index_t{4}, index_t{-1}}) {
        by_hand.order = {1, none, 3, 2};
        CHECK(sentence_of<pare::value_error>([&] { by_hand.mask(0); }) ==
              "pare::loss_curve: unit " + std::to_string(none) +
                  " is number 1 to go, there are 4 units");
    }
    CHECK_THROWS_AS(pare::sorted_losses(std::vector<float>{1, -1}), pare::value_error);
    CHECK_THROWS_AS(pare::sorted_losses(std::vector<float>{1, not_a_number<float>()}),
                    pare::value_error);
}

TEMPLATE_LIST_TEST_CASE("importances and matrices of half types", "", half_types) {
    using T = TestType;
    CHECK(pare::sorted_losses(halves_of<T>({4, 0, 2, 2})).loss ==
          std::vector<double>{0, 0, 1, 2, 4});
    CHECK(sentence_of<pare::value_error>([] {
              pare::sorted_losses(halves_of<T>({1, -0.5F}));
          }) == "pare::sorted_losses: the importance of unit 1 is -0.5");
    const auto g = halves_of<T>({2, 0, 0, 1}), w = halves_of<T>({1, 1});
    const auto curve = pare::eliminate(pare::seq, pare::view(g.data(), 2, 2),
                                       pare::view<const double, 2>(), pare::view(w.data(), 1, 2));
    CHECK(curve.order == std::vector<index_t>{1, 0});
}

} // namespace eliminate_test
