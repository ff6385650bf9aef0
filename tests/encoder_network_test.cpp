// The encoder's network against a plain one in double precision, on small random models.
#include "catch.hpp"
#include "encoder_fixtures.hpp"
#include "encoder_models.hpp"

#include <cmath>

namespace encoder_network_test {

namespace {

using reference_matrix = Eigen::MatrixXd;

reference_matrix apply(const dense& d, const reference_matrix& x) {
    reference_matrix y = x * d.weight.cast<double>().transpose();
    y.rowwise() += d.bias.cast<double>().transpose();
    return y;
}

reference_matrix apply(const layer_norm& norm, const reference_matrix& x, double epsilon) {
    reference_matrix y = x;
    for (Index i = 0; i < x.rows(); ++i) {
        const double mean = x.row(i).mean(), variance = (x.row(i).array() - mean).square().mean();
        y.row(i) = (x.row(i).array() - mean) / std::sqrt(variance + epsilon) *
                       norm.weight.cast<double>().transpose().array() +
                   norm.bias.cast<double>().transpose().array();
    }
    return y;
}

double apply(activation f, double x) {
    switch (f) {
    case activation::gelu:
        return 0.5 * x * std::erfc(-x / std::sqrt(2.));
    case activation::gelu_tanh:
        return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
        return std::max(x, 0.);
    }
}

/// Masks in double precision, so that finite differences can be taken. Empty: all 1.
struct reference_masks {
    std::vector<Eigen::VectorXd> heads, filters;
};

// Token pruning is simulated: dropped tokens stay where they are, but are no keys and do not change
// any more.
reference_matrix reference_forward(const model& m, const batch& b,
                                   const reference_masks& masks = {},
                                   const token_pruning& pruning = {},
                                   std::vector<token_use>* use = nullptr) {
    const config& c = m.config;
    reference_matrix embeddings(b.sequences(), c.hidden);
    for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s) {
        const Index first = b.offsets[s], n = b.offsets[s + 1] - first;
        reference_matrix x(n, c.embedding_columns());
        for (Index t = 0; t < n; ++t) {
            const Index id = b.ids[static_cast<std::size_t>(first + t)];
            x.row(t) = (m.word_embeddings.row(id % c.vocabulary) +
                        m.position_embeddings.row(c.first_position + t))
                           .cast<double>();
            if (c.types > 0) x.row(t) += m.type_embeddings.row(id / c.vocabulary).cast<double>();
        }
        x = apply(m.embedding_norm, x, c.layer_norm_epsilon);
        if (c.narrow_embeddings > 0) x = apply(m.embedding_projection, x);
        Eigen::VectorXd alive = Eigen::VectorXd::Ones(n);
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            const layer& y = m.layers[l];
            const reference_matrix q = apply(y.query, x), k = apply(y.key, x),
                                   v = apply(y.value, x);
            reference_matrix context(n, v.cols());
            Eigen::RowVectorXd received = Eigen::RowVectorXd::Zero(n);
            const double left = alive.sum();
            if (use) (*use)[l].attending += static_cast<std::int64_t>(left);
            if (use) (*use)[l].pairs += static_cast<std::int64_t>(left * left);
            for (Index h = 0; h < y.heads; ++h) {
                const Index values = v.cols() / y.heads, narrow = q.cols() / y.heads;
                const auto columns = Eigen::seqN(h * values, values);
                reference_matrix p =
                    q.middleCols(h * narrow, narrow) * k.middleCols(h * narrow, narrow).transpose();
                p /= std::sqrt(static_cast<double>(narrow));
                for (Index i = 0; i < n; ++i)
                    for (Index j = 0; j < n; ++j) p(i, j) += distance_bias(y, h, i, j);
                p = p.array().exp();
                p = p * alive.asDiagonal();
                for (Index i = 0; i < n; ++i) p.row(i) /= p.row(i).sum();
                received += alive.transpose() * p / static_cast<double>(y.heads);
                context(Eigen::indexing::all, columns) = p * v(Eigen::indexing::all, columns);
                if (!masks.heads.empty())
                    context(Eigen::indexing::all, columns) *= masks.heads[l](h);
            }
            if (!pruning.numbers.empty() && y.heads > 0)
                for (Index t = 1; t < n; ++t) { // relative scores: mean 1 over those left
                    const bool per_query = pruning.scores == pare::score_scale::per_query;
                    const double score = per_query ? received(t) / left : received(t);
                    if (score < pruning.alpha * pruning.numbers[l]) alive(t) = 0;
                }
            if (use) (*use)[l].kept += static_cast<std::int64_t>(alive.sum());
            const reference_matrix frozen = x;
            x = apply(y.attention_norm, x + apply(y.attention_output, context),
                      c.layer_norm_epsilon);
            reference_matrix active = apply(y.intermediate, x).unaryExpr([&](double a) {
                return apply(c.activation, a);
            });
            if (!masks.filters.empty()) active = active * masks.filters[l].asDiagonal();
            x = apply(y.output_norm, x + apply(y.output, active), c.layer_norm_epsilon);
            for (Index t = 0; t < n; ++t)
                if (alive(t) == 0) x.row(t) = frozen.row(t);
        }
        Eigen::RowVectorXd e = x.row(0);
        if (c.pooling == pooling::max)
            for (Index t = 1; t < n; ++t)
                if (alive(t) > 0) e = e.cwiseMax(x.row(t));
        if (pruning.carried) alive.setOnes();
        if (c.pooling == pooling::mean) e = alive.transpose() * x / alive.sum();
        embeddings.row(static_cast<Index>(s)) = e / e.norm();
    }
    return embeddings;
}

double distance(const matrix& a, const reference_matrix& b) {
    REQUIRE(a.rows() == b.rows());
    REQUIRE(a.cols() == b.cols());
    return a.size() > 0 ? (a.cast<double>() - b).cwiseAbs().maxCoeff() : 0.;
}

matrix forward(network& n, const batch& b) {
    matrix embeddings;
    n.forward(b, embeddings);
    return embeddings;
}

matrix forward(const model& m, const batch& b) {
    network n(m);
    return forward(n, b);
}

/// The gradient of <direction, embedding> with respect to each mask: [sequences x heads or filters]
/// a layer.
struct mask_gradients {
    std::vector<reference_matrix> heads, filters;
};

mask_gradients found_gradients(network& n, const batch& b, const matrix& directions) {
    const model& m = n.model();
    mask_gradients g;
    g.heads.resize(m.layers.size());
    g.filters.resize(m.layers.size());
    n.backward_units(
        b,
        [&](const matrix& embeddings, matrix& gradient) {
            REQUIRE(embeddings.rows() == b.sequences());
            gradient = directions;
        },
        [&](const engine::unit_gradients& at) {
            const auto all = [](const rows& r) {
                return Eigen::Map<const matrix>(static_cast<const float*>(r.data), r.count,
                                                r.columns);
            };
            const auto x = all(at.inputs), dy = all(at.at_inputs), dx = all(at.at_outputs);
            REQUIRE(x.rows() == b.tokens());
            REQUIRE(dy.rows() == b.tokens());
            REQUIRE(x.cols() == dy.cols());
            const bool is_head = at.kind == unit_kind::head;
            const dense& reads = reader(n.model().layers[at.layer], at.kind);
            REQUIRE(dx.rows() == b.tokens());
            CHECK((dx * reads.weight - dy).norm() <= 1e-5f * (dy.norm() + 1));
            const Index unit = unit_size(m.layers[at.layer], at.kind);
            reference_matrix& sums = (is_head ? g.heads : g.filters)[at.layer];
            sums = reference_matrix::Zero(b.sequences(), x.cols() / unit);
            for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s)
                for (Index t = b.offsets[s]; t < b.offsets[s + 1]; ++t)
                    for (Index c = 0; c < x.cols(); ++c)
                        sums(static_cast<Index>(s), c / unit) +=
                            static_cast<double>(x(t, c)) * static_cast<double>(dy(t, c));
        });
    return g;
}

mask_gradients reference_gradients(const model& m, const batch& b, const matrix& directions) {
    reference_masks masks;
    for (const layer& y : m.layers) {
        masks.heads.push_back(Eigen::VectorXd::Ones(y.heads));
        masks.filters.push_back(Eigen::VectorXd::Ones(y.filters()));
    }
    const auto losses = [&] {
        return reference_forward(m, b, masks)
            .cwiseProduct(directions.cast<double>())
            .rowwise()
            .sum()
            .eval();
    };
    const auto differences = [&](std::vector<Eigen::VectorXd>& values) {
        std::vector<reference_matrix> all;
        for (Eigen::VectorXd& mask : values) {
            reference_matrix g(b.sequences(), mask.size());
            for (Index i = 0; i < mask.size(); ++i) {
                const double h = 1e-4;
                mask(i) = 1 + h;
                const Eigen::VectorXd above = losses();
                mask(i) = 1 - h;
                g.col(i) = (above - losses()) / (2 * h);
                mask(i) = 1;
            }
            all.push_back(g);
        }
        return all;
    };
    return {differences(masks.heads), differences(masks.filters)};
}

/// Largest difference relative to the largest gradient of its layer and kind.
double distance(const std::vector<reference_matrix>& a, const std::vector<reference_matrix>& b) {
    double worst = 0;
    REQUIRE(a.size() == b.size());
    for (std::size_t l = 0; l < a.size(); ++l) {
        REQUIRE(a[l].cols() == b[l].cols());
        if (a[l].size() > 0)
            worst =
                std::max(worst, (a[l] - b[l]).cwiseAbs().maxCoeff() / b[l].cwiseAbs().maxCoeff());
    }
    return worst;
}

dense select_rows(const dense& d, const std::vector<Index>& rows) {
    return {d.weight(rows, Eigen::indexing::all), d.bias(rows)};
}
dense select_columns(const dense& d, const std::vector<Index>& columns) {
    return {d.weight(Eigen::indexing::all, columns), d.bias};
}

} // namespace

TEST_CASE("forward equals the reference for every head size, activation and pooling") {
    shape s;
    s.head_size = GENERATE(Index{8}, Index{32}, Index{5});
    s.f = GENERATE(activation::gelu, activation::gelu_tanh, activation::relu);
    s.pool = GENERATE(pooling::mean, pooling::cls, pooling::max);
    const model m = make_model(s);
    const batch b = make_batch(ragged);
    // Logits of heads of 32 random numbers are large, and so is what rounding does to them.
    CHECK(distance(forward(m, b), reference_forward(m, b)) < (s.head_size == 32 ? 1e-5 : 2e-6));
}

TEST_CASE("layers without heads or filters pass their bias on") {
    shape s;
    s.heads = {0, 3, 0};
    s.filters = {12, 0, 0};
    const model m = make_model(s);
    const batch b = make_batch(ragged);
    CHECK(distance(forward(m, b), reference_forward(m, b)) < 2e-6);
}

TEST_CASE("models without layers or type embeddings") {
    shape s;
    s.types = 0;
    if (GENERATE(false, true)) s.heads = s.filters = {};
    const model m = make_model(s);
    const batch b = make_batch({3, 1, 40});
    CHECK(distance(forward(m, b), reference_forward(m, b)) < 2e-6);
}

TEST_CASE("narrow embeddings, and positions from another one on") {
    shape s;
    s.narrow_embeddings = 10;
    s.first_position = 3;
    const model m = make_model(s);
    const batch b = make_batch(ragged);
    CHECK(distance(forward(m, b), reference_forward(m, b)) < 2e-6);
    CHECK_THROWS_MATCHES(forward(m, make_batch({78})), std::invalid_argument,
                         Catch::Matchers::Message("encoder::network: sequence 0 has 78 tokens, "
                                                  "expected 1 to 77"));
}

TEST_CASE("biases of attention by distance") {
    shape s;
    s.heads = {3, 0, 2};
    s.distance_buckets = GENERATE(Index{4}, Index{32}, Index{50});
    s.positions = 200;
    const model m = make_model(s);
    const batch b = make_batch({1, 2, 17, 40, 200});
    CHECK(distance(forward(m, b), reference_forward(m, b)) < 2e-6);
    if (s.distance_buckets != 32) return;
    network n(m);
    const batch some = make_batch({1, 5, 30});
    const matrix directions = random_numbers(3).normal(some.sequences(), s.hidden, 1);
    const mask_gradients found = found_gradients(n, some, directions),
                         expected = reference_gradients(m, some, directions);
    CHECK(distance(found.heads, expected.heads) < 1e-4);
    CHECK(distance(found.filters, expected.filters) < 1e-4);
}

TEST_CASE("a token's type is in its id") {
    shape s;
    s.types = 3;
    const model m = make_model(s);
    batch b = make_batch(ragged);
    for (std::size_t t = 0; t < b.ids.size(); ++t)
        b.ids[t] += static_cast<std::int32_t>(t % 3) * 50;
    const matrix embeddings = forward(m, b);
    CHECK(distance(embeddings, reference_forward(m, b)) < 2e-6);
    for (auto& id : b.ids) id %= 50;
    CHECK((embeddings - forward(m, b)).cwiseAbs().maxCoeff() > 0.1f);
}

TEST_CASE("one long sequence, many short ones, and all widths of tails") {
    shape s;
    s.positions = 1300;
    s.head_size = GENERATE(Index{1}, Index{17}, Index{64});
    s.heads = {2};
    s.filters = {61};
    const model m = make_model(s);
    const batch b = make_batch({1300, 5, 700, 6, 6, 31, 129});
    CHECK(distance(forward(m, b), reference_forward(m, b)) < 3e-6);
}

TEST_CASE("large scores do not overflow") {
    model m = make_model({});
    for (layer& y : m.layers) y.query.weight *= 30;
    network n(m);
    CHECK(forward(n, make_batch(ragged)).allFinite());
}

TEST_CASE("activations far from zero stay exact") {
    for (const activation f : {activation::gelu, activation::gelu_tanh, activation::relu}) {
        shape s;
        s.f = f;
        model m = make_model(s);
        for (layer& y : m.layers) y.intermediate.weight *= 40;
        const batch b = make_batch(ragged);
        // Tolerance: the scores of 30 are rounded to 2e-6 before anything else.
        CHECK(distance(forward(m, b), reference_forward(m, b)) < 2e-5);
    }
}

TEST_CASE("half steps compose to forward") {
    const model m = make_model({});
    network n(m);
    const batch b = make_batch(ragged);
    matrix x, values, sum;
    n.embed(b, x);
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            kind == unit_kind::head ? n.attention(l, x, b, values) : n.activation(l, x, values);
            n.add_units(l, kind, values, x, sum);
            n.add_units(l, kind, values, x, x); // in place
            CHECK(x == sum);
            n.normalize(l, kind, sum, values);
            n.normalize(l, kind, x, x);
            CHECK(x == values);
        }
    matrix embeddings(b.sequences(), x.cols());
    for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s)
        embeddings.row(static_cast<Index>(s)) =
            x.middleRows(b.offsets[s], b.offsets[s + 1] - b.offsets[s])
                .colwise()
                .mean()
                .normalized();
    CHECK(distance(embeddings, forward(n, b).cast<double>()) < 1e-6);
}

TEST_CASE("masks multiply, and a mask of zeros equals removal") {
    const model m = make_model({});
    const batch b = make_batch(ragged);
    network n(m);

    SECTION("any values") {
        random_numbers random(5);
        network::masks masks;
        reference_masks same;
        for (const layer& y : m.layers) {
            masks.heads.push_back(random.normal_vector(y.heads, 1, 0.5f));
            masks.filters.push_back(random.normal_vector(y.filters(), 1, 0.5f));
            same.heads.push_back(masks.heads.back().cast<double>());
            same.filters.push_back(masks.filters.back().cast<double>());
        }
        n.set_masks(masks);
        CHECK(distance(forward(n, b), reference_forward(m, b, same)) < 2e-6);
        n.set_masks({});
        CHECK(distance(forward(n, b), reference_forward(m, b)) < 2e-6);
    }
    SECTION("zeros") {
        model small = m;
        network::masks masks;
        for (layer& y : small.layers) {
            vector heads = vector::Zero(y.heads), filters = vector::Zero(y.filters());
            const Index queries = y.queries(), values = y.values();
            std::vector<Index> kept_queries, kept_columns, kept_filters;
            for (Index h = 1; h < heads.size();
                 ++h) { // the first head goes: of layer 1, the only one
                heads(h) = 1;
                for (Index c = 0; c < queries; ++c) kept_queries.push_back(queries * h + c);
                for (Index c = 0; c < values; ++c) kept_columns.push_back(values * h + c);
            }
            for (Index f = 0; f < filters.size(); f += 2) {
                filters(f) = 1;
                kept_filters.push_back(f);
            }
            --y.heads;
            for (dense* d : {&y.query, &y.key}) *d = select_rows(*d, kept_queries);
            y.value = select_rows(y.value, kept_columns);
            y.attention_output = select_columns(y.attention_output, kept_columns);
            y.intermediate = select_rows(y.intermediate, kept_filters);
            y.output = select_columns(y.output, kept_filters);
            masks.heads.push_back(heads);
            masks.filters.push_back(filters);
        }
        n.set_masks(masks);
        CHECK(distance(forward(n, b), forward(small, b).cast<double>()) < 1e-6);
    }
}

TEST_CASE("mask gradients equal finite differences of the reference") {
    shape s;
    s.f = GENERATE(activation::gelu, activation::gelu_tanh);
    s.pool = GENERATE(pooling::mean, pooling::cls, pooling::max);
    s.head_size = GENERATE(Index{8}, Index{5});
    if (GENERATE(false, true)) {
        s.heads = {2, 0, 3};
        s.filters = {0, 19, 16};
    }
    const model m = make_model(s);
    const batch b = make_batch({1, 2, 19, 33});
    const matrix directions = random_numbers(7).normal(b.sequences(), s.hidden, 1);
    network n(m);
    const mask_gradients g = found_gradients(n, b, directions),
                         expected = reference_gradients(m, b, directions);
    CHECK(distance(g.heads, expected.heads) < 1e-5);
    CHECK(distance(g.filters, expected.filters) < 1e-5);
}

TEST_CASE("mask gradients through relu, away from its corner") {
    shape s;
    s.f = activation::relu;
    model m = make_model(s);
    // No input of an activation lies within a step of 0: all are far above it or far below.
    for (layer& y : m.layers)
        for (Index i = 0; i < y.filters(); ++i) y.intermediate.bias(i) = i % 2 == 0 ? 20.f : -20.f;
    const batch b = make_batch({1, 9, 20});
    const matrix directions = random_numbers(7).normal(b.sequences(), s.hidden, 1);
    network n(m);
    const mask_gradients g = found_gradients(n, b, directions),
                         expected = reference_gradients(m, b, directions);
    CHECK(distance(g.heads, expected.heads) < 3e-5);
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        CHECK((g.filters[l] - expected.filters[l]).cwiseAbs().maxCoeff() <
              3e-5 * expected.filters[l].cwiseAbs().maxCoeff());
}

/// Thresholds for three layers that some tokens of `ragged` miss: dropped tokens carried and gone,
/// scores relative and per query.
std::vector<token_pruning> some_rules() {
    using rule = token_pruning::rule;
    return {{rule::threshold, {0.7, 0.9, 1.1}, 1, true},
            {rule::threshold, {0.7, 0.9, 1.1}, 1, false},
            {rule::threshold, {0.04, 0.05, 0.07}, 1, true, pare::score_scale::per_query}};
}

TEST_CASE("dropped tokens are gone: the compacted run equals the masked simulation") {
    for (const pooling pool : {pooling::mean, pooling::cls, pooling::max})
        for (const token_pruning& p : some_rules()) {
            shape s;
            s.pool = pool;
            s.distance_buckets = pool == pooling::mean ? 32 : 0;
            const model m = make_model(s);
            const batch b = make_batch(ragged);
            network n(m);
            n.set_token_pruning(p);
            std::vector<token_use> use, expected_use(3);
            matrix embeddings;
            n.forward(b, embeddings, &use);
            const auto expected = reference_forward(m, b, {}, p, &expected_use);
            CHECK(distance(embeddings, expected) < 1e-5);
            for (std::size_t l = 0; l < 3; ++l) {
                CAPTURE(l);
                CHECK(use[l].attending == expected_use[l].attending);
                CHECK(use[l].pairs == expected_use[l].pairs);
                CHECK(use[l].kept == expected_use[l].kept);
                CHECK(use[l].kept < use[l].attending);
            }
        }
}

TEST_CASE("alpha 0 is the dense model, bit for bit; every threshold leaves the first token") {
    const model m = make_model({});
    const batch b = make_batch(ragged);
    network n(m);
    const matrix dense = forward(n, b);
    n.set_token_pruning({token_pruning::rule::threshold, {1, 1, 1}, 0, true});
    CHECK(forward(n, b) == dense);
    n.set_token_pruning({token_pruning::rule::threshold, {1e9, 1e9, 1e9}, 1, false});
    std::vector<token_use> use;
    matrix embeddings;
    n.forward(b, embeddings, &use);
    for (const token_use& u : use) CHECK(u.kept == b.sequences());
    CHECK(embeddings.allFinite());
    n.set_token_pruning({});
    CHECK(forward(n, b) == dense);
}

TEST_CASE("a network drops the tokens that its model drops, unless it is told otherwise") {
    const token_pruning p{token_pruning::rule::threshold, {0.7, 0.9, 1.1}, 1, false};
    model m = make_model({});
    const batch b = make_batch(ragged);
    network told(m);
    const matrix dense = forward(told, b);
    told.set_token_pruning(p);
    m.tokens = p;
    network net(m);
    CHECK(forward(net, b) == forward(told, b));
    net.set_token_pruning({});
    CHECK(forward(net, b) == dense);
}

TEST_CASE("shares and counts keep as many tokens as they say") {
    const model m = make_model({});
    const batch b = make_batch(ragged);
    network n(m);
    for (const auto& [by, numbers] :
         {std::pair(token_pruning::rule::share, std::vector<double>{0.5, 1, 0.25}),
          std::pair(token_pruning::rule::count, std::vector<double>{30, 30, 5})}) {
        n.set_token_pruning({by, numbers});
        std::vector<token_use> use;
        matrix embeddings;
        n.forward(b, embeddings, &use);
        CHECK(embeddings.allFinite());
        std::vector<Index> lengths = ragged;
        for (std::size_t l = 0; l < 3; ++l) {
            std::int64_t kept = 0;
            for (Index& length : lengths) {
                const auto had = static_cast<double>(length);
                length = std::max<Index>(1, std::llround(by == token_pruning::rule::share
                                                             ? numbers[l] * had
                                                             : std::min(numbers[l], had)));
                kept += length;
            }
            CHECK(use[l].kept == kept);
        }
    }
}

TEST_CASE("which tokens are dropped does not depend on the batch") {
    const model m = make_model({});
    const batch all = make_batch(ragged);
    network n(m);
    n.set_token_pruning({token_pruning::rule::threshold, {0.8, 1, 1}, 1, true});
    const matrix together = forward(n, all);
    for (std::size_t s = 0; s < ragged.size(); ++s) {
        batch one;
        one.append({all.ids.begin() + all.offsets[s], all.ids.begin() + all.offsets[s + 1]});
        CHECK((forward(n, one) - together.row(static_cast<Index>(s))).cwiseAbs().maxCoeff() <
              1e-6f);
    }
}

TEST_CASE("results do not depend on the number of threads") {
    const model m = make_model({});
    std::vector<Index> lengths;
    for (Index i = 0; i < 40; ++i)
        lengths.push_back(1 + i * 31 % 70); // enough rows for large blocks
    const batch b = make_batch(lengths);
    const matrix directions = random_numbers(7).normal(b.sequences(), 24, 1);
    network n(m);
    matrix embeddings;
    mask_gradients first;
    for (const int threads : {1, 2, 5}) {
        const fixtures::with_threads guard(threads);
        const matrix e = forward(n, b);
        const mask_gradients g = found_gradients(n, b, directions);
        if (threads == 1) {
            embeddings = e;
            first = g;
        }
        CHECK(distance(e, embeddings.cast<double>()) < 1e-6);
        CHECK(distance(g.heads, first.heads) < 1e-5);
        CHECK(distance(g.filters, first.filters) < 1e-5);
    }
    CHECK(distance(embeddings, reference_forward(m, b)) < 2e-6);
}

TEST_CASE("a sequence's results do not depend on the rest of the batch") {
    network n(make_model({}));
    const batch all = make_batch(ragged);
    const matrix together = forward(n, all);
    for (std::size_t s = 0; s + 1 < all.offsets.size(); ++s) {
        batch one;
        one.append({all.ids.begin() + all.offsets[s], all.ids.begin() + all.offsets[s + 1]});
        CHECK(distance(forward(n, one), together.row(static_cast<Index>(s)).cast<double>()) < 1e-6);
    }
}

TEST_CASE("replaced layers take part in forward and backward") {
    model m = make_model({});
    const batch b = make_batch({3, 30});
    const matrix directions = random_numbers(7).normal(b.sequences(), 24, 1);
    network n(m);
    found_gradients(n, b, directions); // packs what must be packed again
    const model other = make_model({}, 9);
    n.replace(1, unit_kind::head, m.layers[1].attention_output = other.layers[1].attention_output);
    n.replace(2, unit_kind::filter, m.layers[2].output = other.layers[2].output);
    CHECK(n.model().layers[2].output.weight == m.layers[2].output.weight);
    CHECK(distance(forward(n, b), reference_forward(m, b)) < 2e-6);
    const mask_gradients g = found_gradients(n, b, directions),
                         expected = reference_gradients(m, b, directions);
    CHECK(distance(g.heads, expected.heads) < 1e-5);
    CHECK(distance(g.filters, expected.filters) < 1e-5);
}

TEST_CASE("an empty batch is fine") {
    network n(make_model({}));
    const batch none;
    matrix x, context;
    CHECK(forward(n, none).rows() == 0);
    n.embed(none, x);
    n.attention(0, x, none, context);
    n.add_units(0, unit_kind::head, context, x, x);
    CHECK(x.rows() == 0);
    std::size_t visits = 0;
    n.backward_units(
        none, [](const matrix&, matrix&) {}, [&](const engine::unit_gradients&) { ++visits; });
    CHECK(visits == 6);
}

TEST_CASE("what cannot be used is refused with numbers") {
    const model m = make_model({});
    network n(m);
    matrix x;
    const auto with = [](const std::string& part) {
        return Catch::Matchers::Message("encoder::network: " + part);
    };

    CHECK_THROWS_MATCHES(n.set_token_pruning({token_pruning::rule::share, {1, 1}}),
                         std::invalid_argument, with("token pruning for 2 layers of 3"));
    CHECK_THROWS_MATCHES(n.set_token_pruning({token_pruning::rule::threshold, {1, -1, 1}}),
                         std::invalid_argument, with("a number of token pruning is -1.000000"));
    CHECK_THROWS_MATCHES(
        n.set_token_pruning({token_pruning::rule::threshold, {1, 1, 1}, std::nan("")}),
        std::invalid_argument, with("alpha is nan"));

    batch b = make_batch({3, 4});
    b.ids[5] = 100;
    CHECK_THROWS_MATCHES(n.forward(b, x), std::invalid_argument,
                         with("token 5 has id 100, expected 0 to 99"));
    b.ids[5] = -1;
    CHECK_THROWS_MATCHES(n.embed(b, x), std::invalid_argument,
                         with("token 5 has id -1, expected 0 to 99"));
    shape typeless;
    typeless.types = 0;
    b.ids[5] = 50;
    CHECK_THROWS_MATCHES(network(make_model(typeless)).embed(b, x), std::invalid_argument,
                         with("token 5 has id 50, expected 0 to 49"));
    b = make_batch({3, 81});
    CHECK_THROWS_MATCHES(n.forward(b, x), std::invalid_argument,
                         with("sequence 1 has 81 tokens, expected 1 to 80"));
    b = make_batch({3, 0, 2});
    CHECK_THROWS_MATCHES(n.forward(b, x), std::invalid_argument,
                         with("sequence 1 has 0 tokens, expected 1 to 80"));
    b = make_batch({3});
    b.ids.push_back(1);
    CHECK_THROWS_MATCHES(n.forward(b, x), std::invalid_argument,
                         with("offsets do not run from 0 to the number of ids, 4"));

    b = make_batch({3});
    x = matrix::Zero(3, 24);
    matrix out;
    CHECK_THROWS_MATCHES(n.attention(3, x, b, out), std::invalid_argument, with("layer 3 of 3"));
    CHECK_THROWS_MATCHES(n.add_units(1, unit_kind::head, matrix::Zero(3, 24), x, x),
                         std::invalid_argument, with("context is 3 x 24, expected 3 x 3"));
    CHECK_THROWS_MATCHES(n.replace(0, unit_kind::filter, m.layers[1].output), std::invalid_argument,
                         with("output weight is 24 x 33, expected 24 x 20"));
    CHECK_THROWS_MATCHES(n.set_masks({{vector::Ones(3)}, {}}), std::invalid_argument,
                         with("head masks for 1 layers of 3"));
    CHECK_THROWS_MATCHES(n.set_masks({{vector::Ones(3), vector::Ones(2), vector::Ones(2)}, {}}),
                         std::invalid_argument,
                         with("layer 1: head mask has 2 values, expected 1"));

    model broken = m;
    broken.layers[2].key.bias.resize(7);
    CHECK_THROWS_MATCHES(network(broken), std::invalid_argument,
                         with("layer 2: key bias has 7 values, expected 8"));
    broken = m;
    broken.head = head{{matrix::Zero(0, 24), vector::Zero(0)}};
    CHECK_THROWS_MATCHES(network(broken), std::invalid_argument, with("a head without outputs"));
    broken.head = head{{matrix::Zero(4, 23), vector::Zero(4)}};
    CHECK_THROWS_MATCHES(network(broken), std::invalid_argument,
                         with("head output weight is 4 x 23, expected 4 x 24"));
    broken.head = head{{matrix::Zero(4, 24), vector::Zero(3)}};
    CHECK_THROWS_MATCHES(network(broken), std::invalid_argument,
                         with("head output bias has 3 values, expected 4"));
    broken.head =
        head{{matrix::Zero(4, 24), vector::Zero(4)}, dense{matrix::Zero(23, 24), vector::Zero(23)}};
    CHECK_THROWS_MATCHES(network(broken), std::invalid_argument,
                         with("head weight is 23 x 24, expected 24 x 24"));
    broken = m;
    broken.tokens.numbers = {1, 1};
    CHECK_THROWS_MATCHES(network(broken), std::invalid_argument,
                         with("token pruning for 2 layers of 3"));
}

namespace {

/// [[a, b, ...], ...] as a matrix.
reference_matrix as_matrix(const nlohmann::json& rows) {
    const auto count = static_cast<Index>(rows.size());
    reference_matrix m(count, count > 0 ? static_cast<Index>(rows[0].size()) : 0);
    for (Index i = 0; i < m.rows(); ++i)
        for (Index j = 0; j < m.cols(); ++j)
            m(i, j) = rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)].get<double>();
    return m;
}

/// [sequences x layers x units] as a matrix [sequences x units] for each layer.
std::vector<reference_matrix> by_layer(const nlohmann::json& gradients, std::size_t layers) {
    std::vector<reference_matrix> all;
    for (std::size_t l = 0; l < layers; ++l) {
        nlohmann::json rows;
        for (const auto& sequence : gradients) rows.push_back(sequence[l]);
        all.push_back(as_matrix(rows));
    }
    return all;
}

} // namespace

TEST_CASE("embeddings and mask gradients of a small model equal PyTorch's") {
    const auto expected = fixtures::json("tiny_bert.json");
    const model m = load_model(fixtures::path("tiny_bert"));
    batch b;
    for (const auto& ids : expected["sequences"]) b.append(ids.get<std::vector<std::int32_t>>());

    const auto embeddings = [&](activation f, pooling pool) {
        model changed = m;
        changed.config.activation = f;
        changed.config.pooling = pool;
        return forward(changed, b);
    };
    const auto distance_to = [&](const char* name, const matrix& x) {
        return distance(x, as_matrix(expected[name]));
    };
    CHECK(distance_to("embeddings_gelu", embeddings(activation::gelu, pooling::mean)) < 1e-5);
    CHECK(distance_to("embeddings_gelu_new", embeddings(activation::gelu_tanh, pooling::mean)) <
          1e-5);
    CHECK(distance_to("embeddings_relu", embeddings(activation::relu, pooling::mean)) < 1e-5);
    CHECK(distance_to("embeddings_cls", embeddings(activation::gelu, pooling::cls)) < 1e-5);

    network n(m);
    const mask_gradients g =
        found_gradients(n, b, as_matrix(expected["loss_gradients"]).cast<float>());
    CHECK(distance(g.heads, by_layer(expected["head_gradients"], m.layers.size())) < 1e-5);
    CHECK(distance(g.filters, by_layer(expected["filter_gradients"], m.layers.size())) < 1e-5);
}

TEST_CASE("embeddings of MiniLM equal PyTorch's", "[model]") {
    const auto folder = fixtures::model_folder();
    if (!folder) return;
    const auto texts = fixtures::json("minilm_tokens.json")["cases"];
    const auto expected = fixtures::json("minilm_embeddings.json")["embeddings"];
    batch b;
    for (const auto& text : texts) b.append(text["ids"].get<std::vector<std::int32_t>>());
    const matrix embeddings = forward(load_model(*folder), b);
    REQUIRE(expected.size() == texts.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto values = fixtures::floats(expected[i].get<std::string>());
        REQUIRE(static_cast<Index>(values.size()) == embeddings.cols());
        const Eigen::Map<const Eigen::RowVectorXf> row(values.data(), embeddings.cols());
        CHECK((embeddings.row(static_cast<Index>(i)) - row).cwiseAbs().maxCoeff() < 1e-5f);
    }
}

} // namespace encoder_network_test
