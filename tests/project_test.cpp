// Ranks inside heads against data, search by brute force and refitting from the start, in long double.
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention.hpp>
#include <pare/project.hpp>

#include <Eigen/Cholesky>
#include <Eigen/QR>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace project_test {

namespace {

using real_matrix = Eigen::Matrix<real, Eigen::Dynamic, Eigen::Dynamic>;
using real_vector = Eigen::Matrix<real, Eigen::Dynamic, 1>;
using Eigen::MatrixXd;

real_matrix random_rows(index_t rows, index_t columns, random_source& random) {
    real_matrix x(rows, columns);
    for (real& v : x.reshaped()) v = static_cast<real>(random.uniform());
    for (index_t j = 1; j < columns; ++j) x.col(j) += x.col(j - 1) * real(0.7);
    return x;
}
real_matrix moments(const real_matrix& x) {
    return x.transpose() * x / static_cast<real>(x.rows());
}
MatrixXd lower_only(const real_matrix& m) {
    MatrixXd lower = m.cast<double>();
    lower.triangularView<Eigen::StrictlyUpper>().fill(not_a_number<double>());
    return lower;
}
real_matrix map_of(const pare::head_maps& maps, index_t rank) {
    return maps.up.leftCols(rank).cast<real>() * maps.down.topRows(rank).cast<real>();
}
/// Half the mean of (g' (P x - x))^2 over all pairs of an x and a g.
real loss_of(const real_matrix& p, const real_matrix& x, const real_matrix& g) {
    const real_matrix change = g * (p - real_matrix::Identity(p.rows(), p.cols())) * x.transpose();
    return change.squaredNorm() / static_cast<real>(change.size()) / 2;
}

} // namespace

TEST_CASE("losses of ranks are those of the data, and no map of the rank loses less") {
    random_source random;
    CAPTURE(random);
    for (const index_t size : {1, 2, 5}) {
        const real_matrix x = random_rows(30, size, random), g = random_rows(40, size, random);
        const pare::projection found =
            pare::project(lower_only(moments(x)), lower_only(moments(g)));
        REQUIRE(found.loss.size() == static_cast<std::size_t>(size) + 1);
        CHECK(found.loss[0] == 0);
        const real all = loss_of(real_matrix::Zero(size, size), x, g);
        CHECK((map_of(found, size) - real_matrix::Identity(size, size)).norm() < 1e-9);
        for (index_t rank = 0; rank <= size; ++rank) {
            CAPTURE(size, rank);
            const auto loss = static_cast<real>(found.loss[static_cast<std::size_t>(size - rank)]);
            CHECK(distance(loss, loss_of(map_of(found, rank), x, g)) <= real(1e-9) * all);
            if (rank < size) CHECK(loss <= static_cast<real>(found.loss.back()));
            // The best up for a random down, and next to the one found.
            for (int i = 0; i < 200 && rank > 0 && rank < size; ++i) {
                real_matrix down = real_matrix::NullaryExpr(
                    rank, size, [&] { return static_cast<real>(random.uniform()); });
                if (i % 2)
                    down = found.down.topRows(rank).cast<real>() + down * real(1e-3) * real(i);
                const real_matrix s = moments(x), of_down = down * s * down.transpose();
                const real_matrix up = of_down.ldlt().solve(down * s).transpose();
                CHECK(loss_of(up * down, x, g) >= loss * (1 - real(1e-9)));
            }
        }
    }
}

TEST_CASE("a rank of two numbers is the best of all directions") {
    random_source random;
    CAPTURE(random);
    const real_matrix x = random_rows(20, 2, random), g = random_rows(20, 2, random);
    const pare::projection found = pare::project(lower_only(moments(x)), lower_only(moments(g)));
    // P = up down, of all directions of both; what is between them is linear.
    real least = std::numeric_limits<real>::max();
    const real_matrix s = moments(x), m = moments(g);
    constexpr int steps = 720;
    for (int i = 0; i < steps; ++i)
        for (int j = 0; j < steps; ++j) {
            const auto unit = [](int k) {
                const real angle = real(3.14159265358979323846L) * real(k) / steps;
                return real_vector{{std::cos(angle), std::sin(angle)}};
            };
            const real_vector up = unit(i), down = unit(j);
            const real along = up.dot(m * up) * down.dot(s * down);
            const real with = up.dot(m * s * down);
            least = std::min(least, ((m * s).trace() - with * with / along) / 2);
        }
    CHECK(static_cast<real>(found.loss[1]) <= least * (1 + real(1e-9)));
    CHECK(static_cast<real>(found.loss[1]) >= least * real(0.999));
}

TEST_CASE("gradients at queries say what other logits do to the loss of an attention head") {
    random_source random;
    CAPTURE(random);
    const index_t n = 7, size = 4;
    const real_matrix q = random_rows(n, size, random), v = random_rows(n, size, random);
    const real_matrix k = random_rows(n, size, random), at_context = random_rows(n, size, random);
    const auto loss = [&](const real_matrix& queries, const real_matrix& keys) {
        real_matrix p = (queries * keys.transpose()).array().exp();
        p.array().colwise() /= p.rowwise().sum().array().eval();
        return (p * v).cwiseProduct(at_context).sum();
    };
    real_matrix g(n, size); // at queries, by differences
    constexpr real step = 1e-6L;
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < size; ++j) {
            real_matrix more = q, less = q;
            more(i, j) += step;
            less(i, j) -= step;
            g(i, j) = (loss(more, k) - loss(less, k)) / (2 * step);
        }
    const pare::projection found = pare::project(lower_only(moments(q)), lower_only(moments(g)));
    const real_matrix off = map_of(found, 2) - real_matrix::Identity(size, size);
    const auto along = [&](real t) { return loss(q, k + t * k * off); }; // q' (I + t (P - I)) k
    const real slope = (along(step) - along(-step)) / (2 * step);
    CHECK(distance(slope, (q * off.transpose()).cwiseProduct(g).sum()) < 1e-9);
    // What is constant over keys, a bias of theirs, changes nothing.
    const real_matrix moved = k.rowwise() + random_rows(1, size, random).row(0);
    CHECK(distance(loss(q, k), loss(q, moved)) < 1e-12);
    CHECK(distance(loss(q, k * map_of(found, size)), loss(q, k)) < 1e-9);
}

TEST_CASE("directions without moments or gradients cost nothing") {
    random_source random;
    CAPTURE(random);
    real_matrix x = random_rows(30, 4, random);
    const real_matrix g = random_rows(30, 4, random), turn = random_rows(4, 4, random);
    x.rightCols(2).setZero();
    x = (x * turn).eval(); // of rank 2
    const pare::projection found = pare::project(lower_only(moments(x)), lower_only(moments(g)));
    const real all = loss_of(real_matrix::Zero(4, 4), x, g);
    CHECK(distance(found.loss[2], 0) <= real(1e-9) * all);
    CHECK(distance(found.loss[4], all) <= real(1e-9) * all);
    CHECK(loss_of(map_of(found, 2), x, g) <= real(1e-9) * all);
    CHECK((x * (map_of(found, 2).transpose() - real_matrix::Identity(4, 4))).norm() < 1e-5);

    const MatrixXd zero = MatrixXd::Zero(3, 3), one = MatrixXd::Identity(3, 3);
    for (const auto& [s, m] : {std::pair{zero, one}, {one, zero}, {zero, zero}}) {
        const pare::projection none = pare::project(s, m);
        CHECK(none.loss == std::vector<double>(4, 0.0));
        CHECK((map_of(none, 3) - real_matrix::Identity(3, 3)).norm() < 1e-9);
        CHECK((map_of(none, 2) * map_of(none, 2) - map_of(none, 2)).norm() < 1e-9);
    }
    CHECK(pare::project(MatrixXd(), MatrixXd()).loss == std::vector<double>{0});
}

TEST_CASE("a projection refuses what it cannot use, with the numbers") {
    const MatrixXd one = MatrixXd::Identity(3, 3);
    const auto refused = [](const MatrixXd& s, const MatrixXd& m, const char* sentence) {
        CHECK_THROWS_WITH(pare::project(s, m), Catch::Contains(sentence));
    };
    refused(one, MatrixXd::Identity(2, 2), "the moments are 3 x 3, the metric 2 x 2");
    refused(MatrixXd::Zero(3, 2), one, "the moments are 3 x 2");
    refused(-one, one, "moments [3 x 3] is not positive semidefinite");
    refused(one, -one, "metric [3 x 3] is not positive semidefinite");
    MatrixXd bad = one;
    bad(2, 1) = not_a_number<double>();
    refused(bad, one, "moments(2, 1) is nan");
    refused(one, bad, "metric(2, 1) is nan");
}

namespace {

/// A layer's heads as data: inputs of its output matrix, gradients at what that gives.
struct heads_data {
    real_matrix x, g, w;
    index_t size;
    real ridge;

    heads_data(index_t heads, index_t of_size, index_t outputs, real r, random_source& random)
        : x(random_rows(90, heads * of_size, random)), g(random_rows(60, outputs, random)),
          w(random_rows(outputs, heads * of_size, random)), size(of_size), ridge(r) {
        for (index_t j = 0; j < x.cols(); ++j) x.col(j) *= std::exp(real(j % 3) - 1);
        x.rowwise() -= x.colwise().mean().eval();
    }
    index_t heads() const { return w.cols() / size; }
    real_matrix covariance() const { return moments(x); }
    real_matrix damped() const {
        real_matrix a = covariance();
        a.diagonal().array() += ridge * a.diagonal().mean();
        return a;
    }
    /// Of weights W + D whose heads read down x alone, fitted.
    real loss(const std::vector<real_matrix>& downs) const {
        index_t columns = 0;
        for (const real_matrix& down : downs) columns += down.rows();
        real_matrix all = real_matrix::Zero(columns, w.cols());
        index_t row = 0;
        for (std::size_t b = 0; b < downs.size(); ++b) {
            all.block(row, static_cast<index_t>(b) * size, downs[b].rows(), size) = downs[b];
            row += downs[b].rows();
        }
        const real_matrix a = damped();
        real_matrix d = -w;
        if (columns > 0)
            d +=
                (all * a * all.transpose()).ldlt().solve(all * a * w.transpose()).transpose() * all;
        return (moments(g) * d * a * d.transpose()).trace() / 2;
    }
    template <class Policy>
    pare::rank_curve ranks(const Policy& policy, const std::vector<std::uint8_t>& kept = {},
                           index_t step = 1) const {
        return pare::eliminate_ranks(policy, lower_only(covariance()), lower_only(moments(g)),
                                     w.cast<double>().eval(), size, kept,
                                     static_cast<double>(ridge), step);
    }
};

} // namespace

TEMPLATE_LIST_TEST_CASE("ranks of heads lose what refitting finds that they lose", "",
                        host_policies) {
    random_source random;
    CAPTURE(random);
    for (const auto& [heads, size] :
         {std::pair<index_t, index_t>{1, 1}, {1, 4}, {5, 1}, {3, 4}, {2, 19}}) {
        const heads_data data(heads, size, 5, 1e-2L, random);
        const real all = data.loss(
            std::vector<real_matrix>(static_cast<std::size_t>(heads), real_matrix(0, size)));
        std::vector<std::uint8_t> mask(static_cast<std::size_t>(heads), 1);
        for (const bool fewer : {false, true}) {
            const index_t step = random.integer(1, size);
            CAPTURE(heads, size, fewer, step);
            if (fewer) mask[0] = 0;
            const pare::rank_curve found =
                data.ranks(TestType::policy(), fewer ? mask : std::vector<std::uint8_t>{}, step);
            REQUIRE(found.loss.size() == static_cast<std::size_t>(size) + 1);
            REQUIRE(static_cast<index_t>(found.heads.size()) == heads - fewer);
            CHECK(fewer == (found.loss[0] > 0));
            for (index_t rank = 0; rank <= size; ++rank) {
                CAPTURE(rank);
                std::vector<real_matrix> downs;
                if (fewer) downs.emplace_back(0, size);
                for (const pare::head_maps& maps : found.heads)
                    downs.push_back(maps.down.topRows(rank).template cast<real>());
                const double loss = found.loss[static_cast<std::size_t>(size - rank)];
                CHECK(distance(loss, data.loss(downs)) <= real(1e-9) * all);
                CHECK(loss >= found.loss[0]);
            }
            for (const pare::head_maps& maps : found.heads)
                CHECK((map_of(maps, size) - real_matrix::Identity(size, size)).norm() < 1e-9);
        }
    }
}

TEST_CASE("the first direction that each head loses is its cheapest of all directions") {
    random_source random;
    CAPTURE(random);
    const heads_data data(3, 2, 4, 1e-2L, random);
    const pare::rank_curve found = data.ranks(pare::seq);
    const real_matrix everything = real_matrix::Identity(2, 2);
    for (std::size_t b = 0; b < 3; ++b) {
        std::vector<real_matrix> downs(3, everything);
        downs[b] = found.heads[b].down.topRows(1).cast<real>();
        const real own = data.loss(downs);
        for (int i = 0; i < 360; ++i) {
            const real angle = real(3.14159265358979323846L) * real(i) / 360;
            downs[b] = real_matrix{{std::cos(angle), std::sin(angle)}};
            CHECK(data.loss(downs) >= own * (1 - real(1e-9)));
        }
    }
}

TEST_CASE("one head's ranks are those of its projection, and all of them what elimination finds") {
    random_source random;
    CAPTURE(random);
    const heads_data one(1, 5, 4, 0, random);
    const pare::rank_curve found = one.ranks(pare::seq);
    const pare::projection alone = pare::project(
        lower_only(one.covariance()), lower_only(one.w.transpose() * moments(one.g) * one.w));
    for (std::size_t k = 0; k <= 5; ++k) {
        CHECK_THAT(found.loss[k], WithinRel(alone.loss[k], 1e-8) || WithinAbs(0, 1e-12));
        const index_t rank = 5 - static_cast<index_t>(k);
        // Four outputs need four numbers; of the fifth any direction will do.
        if (rank < 5)
            CHECK((one.w * (map_of(found.heads[0], rank) - map_of(alone, rank))).norm() < 1e-5);
    }
    const heads_data more(4, 3, 4, 1e-2L, random);
    const pare::loss_curve heads =
        pare::eliminate(pare::seq, lower_only(more.covariance()), lower_only(moments(more.g)),
                        more.w.cast<double>().eval(), 3, 1e-2);
    for (index_t kept = 0; kept <= 4; ++kept) {
        const pare::rank_curve ranks = more.ranks(pare::simd, heads.mask(kept));
        CHECK_THAT(ranks.loss.front(),
                   WithinRel(heads.loss[static_cast<std::size_t>(4 - kept)], 1e-9));
        CHECK_THAT(ranks.loss.back(), WithinRel(heads.loss.back(), 1e-9));
    }
}

TEST_CASE("ranks for each number of heads are those of the heads that are left") {
    random_source random;
    CAPTURE(random);
    const heads_data data(4, 6, 5, 1e-2L, random);
    const index_t step = random.integer(1, 6);
    CAPTURE(step);
    pare::loss_curve order;
    order.order = {2, 0, 3, 1}; // any
    order.loss = {0, 1, 2, 3, 4};
    const auto found =
        pare::rank_curves(pare::simd, lower_only(data.covariance()), lower_only(moments(data.g)),
                          data.w.cast<double>().eval(), 6, order, 1e-2, step);
    REQUIRE(found.size() == 5);
    for (index_t kept = 0; kept <= 4; ++kept) {
        CAPTURE(kept);
        const pare::rank_curve &one = found[static_cast<std::size_t>(kept)],
                               expected = data.ranks(pare::simd, order.mask(kept), step);
        for (std::size_t k = 0; k <= 6; ++k)
            CHECK_THAT(one.loss[k], WithinRel(expected.loss[k], 1e-9));
        REQUIRE(one.heads.size() == static_cast<std::size_t>(kept));
        for (std::size_t h = 0; h < one.heads.size(); ++h)
            CHECK((map_of(one.heads[h], 3) - map_of(expected.heads[h], 3)).norm() < 1e-6);
    }
}

TEST_CASE("ranks of heads whose inputs do not vary cost nothing; others are refused") {
    const MatrixXd zero = MatrixXd::Zero(4, 4), one = MatrixXd::Identity(4, 4), none;
    const MatrixXd w = MatrixXd::Ones(2, 4);
    const pare::rank_curve still = pare::eliminate_ranks(pare::seq, zero, none, w, 2);
    CHECK(still.loss == std::vector<double>(3, 0.0));
    CHECK(still.heads.size() == 2);
    const pare::rank_curve unread =
        pare::eliminate_ranks(pare::seq, one, none, MatrixXd::Zero(2, 4).eval(), 2);
    CHECK(unread.loss == std::vector<double>(3, 0.0));
    CHECK(pare::eliminate_ranks(pare::seq, none, none, MatrixXd(2, 0), 2).heads.empty());

    const auto refused = [](const auto& call, const char* sentence) {
        CHECK_THROWS_WITH(call(), Catch::Contains(sentence));
    };
    using pare::eliminate_ranks, pare::seq;
    refused([&] { eliminate_ranks(seq, one, none, w, 3); }, "a unit 3");
    refused([&] { eliminate_ranks(seq, one, one, w, 2); }, "the metric 4 x 4");
    refused([&] { eliminate_ranks(seq, one, none, w, 2, std::vector<std::uint8_t>(3)); },
            "a mask of 3 heads, there are 2");
    refused([&] { eliminate_ranks(seq, one, none, w, 2, std::vector<std::uint8_t>(), -1); },
            "the ridge is -1");
    refused([&] { eliminate_ranks(seq, one, none, w, 2, std::vector<std::uint8_t>(), 1, 3); },
            "a step of 3, a unit 2");
    refused([&] { eliminate_ranks(seq, one, none, w, 0); }, "a unit 0");
    refused([&] { pare::rank_curves(seq, one, none, w, 2, pare::sorted_losses(std::vector{1.0})); },
            "a curve of 1 heads, there are 2");
    const auto ordered = [&](std::vector<index_t> order) {
        pare::loss_curve curve;
        curve.order = std::move(order);
        pare::rank_curves(seq, one, none, w, 2, curve);
    };
    refused(
        [&] {
            ordered({0, 2});
        },
        "pare::rank_curves: unit 2 is number 1 to go, there are 2 units");
    refused([&] { ordered({-1, 0}); }, "unit -1 is number 0 to go, there are 2 units");
    refused([&] { ordered({1, 1}); }, "unit 1 is number 1 to go, and gone before");
    refused([&] { eliminate_ranks(seq, (-one).eval(), none, w, 2); }, "is not positive definite");
    MatrixXd bad = one;
    bad(3, 2) = not_a_number<double>();
    refused([&] { eliminate_ranks(seq, bad, none, w, 2); }, "covariance(3, 2) is nan");
}

namespace {

using float_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// A layer's attention: its matrices, out x in, and biases of one column.
struct attention_layer {
    index_t heads;
    float_matrix q, k, v, o, q_bias, k_bias, v_bias;

    attention_layer(index_t of_heads, index_t size, index_t hidden, random_source& random)
        : heads(of_heads) {
        for (float_matrix* w : {&q, &k, &v}) *w = some(heads * size, hidden, random);
        for (float_matrix* b : {&q_bias, &k_bias, &v_bias}) *b = some(heads * size, 1, random);
        o = some(hidden, heads * size, random);
    }
    static float_matrix some(index_t rows, index_t columns, random_source& random) {
        return float_matrix::NullaryExpr(rows, columns, [&] { return random.uniform<float>(); });
    }
    template <class Policy>
    float_matrix run(const Policy& policy, const float_matrix& x, double scale = 0) const {
        const std::vector<int> offsets = {0, 5, static_cast<int>(x.rows())};
        const auto rows = [&](const float_matrix& w, const float_matrix& b) {
            return float_matrix((x * w.transpose()).rowwise() + b.col(0).transpose());
        };
        const auto view_of = [&](const float_matrix& m) {
            return pare::view<const float, 3>(m.data(), m.rows(), heads, m.cols() / heads);
        };
        const float_matrix queries = rows(q, q_bias), keys = rows(k, k_bias),
                           values = rows(v, v_bias);
        float_matrix context(x.rows(), values.cols());
        pare::attention_options<float> options;
        options.scale = scale;
        pare::attention(
            policy, view_of(queries), view_of(keys), view_of(values), offsets,
            pare::view<float, 3>(context.data(), x.rows(), heads, values.cols() / heads), options);
        return context * o.transpose();
    }
};

} // namespace

TEMPLATE_LIST_TEST_CASE("attention of narrow heads gives what maps of their rank give", "",
                        host_policies) {
    random_source random;
    CAPTURE(random);
    const index_t heads = 2, size = 6, hidden = 7, tokens = 12;
    const attention_layer dense(heads, size, hidden, random);
    const float_matrix x = attention_layer::some(tokens, hidden, random);
    std::vector<pare::projection> logits, values;
    for (index_t h = 0; h < heads; ++h)
        for (auto* to : {&logits, &values})
            to->push_back(pare::project(lower_only(moments(random_rows(20, size, random))),
                                        lower_only(moments(random_rows(20, size, random)))));
    const float_matrix expected = dense.run(TestType::policy(), x);
    for (const auto& [of_query, of_value] :
         {std::pair<index_t, index_t>{size, size}, {2, 3}, {5, 1}, {1, 6}}) {
        CAPTURE(of_query, of_value);
        attention_layer narrow = dense, mapped = dense;
        const auto apply = [&](const auto& maps, pare::head_map which, index_t rank,
                               float_matrix& w, double factor = 1) {
            float_matrix out(heads * rank, w.cols());
            pare::narrow_rows(maps, which, rank, w, out, factor);
            w = out;
        };
        const double factor = pare::rank_factor(of_query, size);
        using pare::head_map;
        for (float_matrix* w : {&narrow.q, &narrow.q_bias})
            apply(logits, head_map::down, of_query, *w, factor);
        for (float_matrix* w : {&narrow.k, &narrow.k_bias})
            apply(logits, head_map::up, of_query, *w, factor);
        for (float_matrix* w : {&narrow.v, &narrow.v_bias})
            apply(values, head_map::down, of_value, *w);
        float_matrix read = narrow.o.transpose();
        apply(values, head_map::up, of_value, read);
        narrow.o = read.transpose();
        // The same without being smaller.
        for (index_t h = 0; h < heads; ++h) {
            const auto head = static_cast<std::size_t>(h);
            const auto rows = [&](float_matrix& w, const real_matrix& by) {
                w.middleRows(h * size, size) =
                    by.cast<float>() * w.middleRows(h * size, size).eval();
            };
            rows(mapped.q, map_of(logits[head], of_query));
            rows(mapped.q_bias, map_of(logits[head], of_query));
            rows(mapped.v, map_of(values[head], of_value));
            rows(mapped.v_bias, map_of(values[head], of_value));
        }
        const float_matrix found = narrow.run(TestType::policy(), x);
        const float_matrix wanted = mapped.run(TestType::policy(), x);
        CHECK((found - wanted).norm() <= 1e-5f * expected.norm());
        if (of_query == size && of_value == size)
            CHECK((found - expected).norm() <= 1e-6f * expected.norm());
    }
    float_matrix out(3, hidden);
    CHECK_THROWS_WITH(
        pare::narrow_rows(values, pare::head_map::down, 2, dense.v, out),
        Catch::Contains("2 heads of 6 numbers made of 2, the weight is 12 x 7, out 3 x 7"));
}

} // namespace project_test
