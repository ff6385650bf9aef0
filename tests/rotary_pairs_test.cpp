// Pairs of rotary heads against data and refitting in long double, for every choice of pairs.
#include "policies.hpp"
#include "support.hpp"
#include <pare/rotary_pairs.hpp>

#include <Eigen/QR>

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace rotary_pairs_test {

namespace {

using real_matrix = Eigen::Matrix<real, Eigen::Dynamic, Eigen::Dynamic>;
using real_vector = Eigen::Matrix<real, Eigen::Dynamic, 1>;
using pare::rotary_layout;

/// Queries of the heads that share one of keys, and gradients at them.
struct rotary_data {
    std::vector<real_matrix> q, g;
    index_t size;
    rotary_layout layout;

    rotary_data(index_t heads, index_t of_size, rotary_layout l, random_source& random)
        : size(of_size), layout(l) {
        for (index_t h = 0; h < heads; ++h)
            for (auto* rows : {&q, &g}) {
                real_matrix x(9, size);
                for (real& v : x.reshaped()) v = static_cast<real>(random.uniform());
                for (index_t j = 1; j < size; ++j) x.col(j) += x.col(j - 1);
                rows->push_back(x);
            }
    }
    /// a I + b J on a pair.
    real_matrix basis(index_t pair, bool turned) const {
        const auto [x, y] = pare::rotary_pair(layout, size, pair);
        real_matrix m = real_matrix::Zero(size, size);
        m(turned ? y : x, x) = 1;
        m(turned ? x : y, y) = turned ? -1 : 1;
        return m;
    }
    /// Half the mean over all pairs of a query and a gradient of (g' (P - I) q)^2, summed over heads.
    real loss(const std::vector<real_matrix>& maps) const {
        real sum = 0;
        for (std::size_t h = 0; h < q.size(); ++h) {
            const real_matrix off = maps[h] - real_matrix::Identity(size, size);
            sum += (g[h] * off * q[h].transpose()).squaredNorm() / real(2 * 9 * 9);
        }
        return sum;
    }
    /// With the best a and b for the pairs kept.
    real best_loss(const std::vector<std::uint8_t>& kept) const {
        std::vector<real_matrix> maps;
        for (std::size_t h = 0; h < q.size(); ++h) {
            std::vector<real_matrix> bases;
            for (index_t p = 0; p < size / 2; ++p)
                for (const bool turned : {false, true})
                    if (kept[static_cast<std::size_t>(p)]) bases.push_back(basis(p, turned));
            real_matrix map = real_matrix::Zero(size, size), columns(81, bases.size());
            for (std::size_t i = 0; i < bases.size(); ++i)
                columns.col(static_cast<index_t>(i)) =
                    (g[h] * bases[i] * q[h].transpose()).reshaped();
            const real_vector whole = (g[h] * q[h].transpose()).reshaped();
            if (!bases.empty()) {
                const real_vector by = columns.colPivHouseholderQr().solve(whole);
                for (std::size_t i = 0; i < bases.size(); ++i)
                    map += by(static_cast<index_t>(i)) * bases[i];
            }
            maps.push_back(map);
        }
        return loss(maps);
    }
    std::vector<double> moments(const std::vector<real_matrix>& of) const {
        std::vector<double> all;
        for (const real_matrix& x : of)
            for (index_t i = 0; i < size; ++i)
                for (index_t j = 0; j < size; ++j)
                    all.push_back(j > i ? not_a_number<double>()
                                        : static_cast<double>(x.col(i).dot(x.col(j)) / 9));
        return all;
    }
    template <class Policy>
    pare::rotary_pairs pairs(const Policy& policy, double ridge = 1e-12) const {
        const std::vector<double> s = moments(q), m = moments(g);
        const auto heads = static_cast<index_t>(q.size());
        return pare::eliminate_pairs(policy, pare::view(s.data(), heads, size, size),
                                     pare::view(m.data(), heads, size, size), layout, ridge);
    }
    /// What the factors of a mask make of queries.
    std::vector<real_matrix> maps(const pare::rotary_pairs& found,
                                  const std::vector<std::uint8_t>& kept) const {
        const auto factors = found.factors(kept);
        std::vector<real_matrix> all;
        for (std::size_t h = 0; h < q.size(); ++h) {
            real_matrix map = real_matrix::Zero(size, size);
            index_t row = 0;
            for (index_t p = 0; p < size / 2; ++p) {
                if (!kept[static_cast<std::size_t>(p)]) continue;
                for (const bool turned : {false, true})
                    map += static_cast<real>(factors(row, static_cast<index_t>(2 * h) + turned)) *
                           basis(p, turned);
                ++row;
            }
            all.push_back(map);
        }
        return all;
    }
};

} // namespace

TEMPLATE_LIST_TEST_CASE("pairs go in the order of what refitting loses, at that loss", "",
                        host_policies) {
    random_source random;
    CAPTURE(random);
    for (const rotary_layout layout : {rotary_layout::halves, rotary_layout::adjacent})
        for (const index_t heads : {1, 3})
            for (const index_t size : {2, 8}) {
                CAPTURE(heads, size);
                const rotary_data data(heads, size, layout, random);
                const pare::rotary_pairs found = data.pairs(TestType::policy());
                REQUIRE(found.curve.units() == size / 2);
                const real all = data.best_loss(found.curve.mask(0));
                for (index_t kept = size / 2; kept >= 0; --kept) {
                    CAPTURE(kept);
                    const std::vector<std::uint8_t> mask = found.curve.mask(kept);
                    const double loss = found.curve.loss[static_cast<std::size_t>(size / 2 - kept)];
                    CHECK(distance(loss, data.best_loss(mask)) <= real(1e-8) * all);
                    CHECK(distance(loss, data.loss(data.maps(found, mask))) <= real(1e-8) * all);
                    // None of the others would have cost less.
                    for (std::size_t p = 0; p < mask.size() && kept < size / 2; ++p) {
                        std::vector<std::uint8_t> other = found.curve.mask(kept + 1);
                        if (!other[p]) continue;
                        other[p] = 0;
                        CHECK(data.best_loss(other) >= static_cast<real>(loss) - real(1e-8) * all);
                    }
                }
                const std::vector<std::uint8_t> every(static_cast<std::size_t>(size / 2), 1);
                for (const real_matrix& map : data.maps(found, every))
                    CHECK((map - real_matrix::Identity(size, size)).norm() == 0);
            }
}

TEST_CASE("maps of pairs may stand before the rotations by positions") {
    random_source random;
    CAPTURE(random);
    for (const rotary_layout layout : {rotary_layout::halves, rotary_layout::adjacent}) {
        const rotary_data data(1, 6, layout, random);
        const pare::rotary_pairs found = data.pairs(pare::seq);
        const real_matrix map = data.maps(found, found.curve.mask(2))[0];
        real_matrix rotation = real_matrix::Zero(6, 6);
        for (index_t p = 0; p < 3; ++p) {
            const real angle = random.uniform<real>(0, 6);
            rotation +=
                std::cos(angle) * data.basis(p, false) + std::sin(angle) * data.basis(p, true);
        }
        CHECK((map * rotation - rotation * map).norm() < 1e-12);
    }
}

TEST_CASE("pairs without gradients cost nothing; what cannot be used is refused") {
    const std::vector<double> zero(16, 0.0);
    std::vector<double> one(16, 0.0);
    for (std::size_t i = 0; i < 4; ++i) one[5 * i] = 1;
    const auto head = [](const std::vector<double>& x, index_t size = 4) {
        return pare::view(x.data(), index_t{1}, size, size);
    };
    const auto run = [&](const auto& s, const auto& m) {
        return pare::eliminate_pairs(pare::simd, s, m, rotary_layout::halves);
    };
    const pare::rotary_pairs free = run(head(one), head(zero));
    CHECK(free.curve.loss == std::vector<double>(3, 0.0));
    CHECK(free.factors({0, 1}).size() == 2);
    CHECK(run(head(one, 0), head(one, 0)).curve.units() == 0);
    const auto refused = [](const auto& call, const char* sentence) {
        CHECK_THROWS_WITH(call(), Catch::Contains(sentence));
    };
    refused([&] { run(head(one, 3), head(one, 3)); }, "the moments are 1 x 3 x 3");
    refused([&] { run(head(one), head(one, 2)); }, "the metrics 1 x 2 x 2");
    refused([&] { free.factors({1}); }, "a mask of 1 pairs, there are 2");
    std::vector<double> bad = one;
    bad[9] = not_a_number<double>();
    refused([&] { run(head(bad), head(one)); }, "moments(2, 1) is nan");
    bad[9] = 0;
    bad[0] = -1;
    refused([&] { run(head(one), head(bad)); }, "metric [4 x 4] is not positive semidefinite");
}

} // namespace rotary_pairs_test
