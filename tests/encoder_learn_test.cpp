// Gradients of weights and thresholds: against finite differences of a plain model in double, and
// against PyTorch's.
#include "catch.hpp"
#include "encoder_distance_bias.hpp"
#include "encoder_fixtures.hpp"
#include "support.hpp"

#include "encoder/files/heads.hpp"
#include "encoder/network/network.hpp"
#include "encoder/task/loss.hpp"

#include <cmath>
#include <map>
#include <optional>

namespace encoder_learn_test {

using namespace encoder;
using Eigen::Index;
using plain = Eigen::MatrixXd;

namespace {

/// With 0 for the answers that are impossible.
plain finite(const plain& x) {
    return x.unaryExpr([](double v) { return std::isinf(v) && v < 0 ? 0. : v; });
}

/// A model's weights by name, and what else its output depends on.
struct reference {
    encoder::model shape;
    std::map<std::string, plain> weights;
    std::vector<double> thresholds; // none: all tokens stay
    bool carried = true, per_query = false;
    double temperature = 0;
    std::vector<double> price;

    explicit reference(const encoder::model& m) : shape(m) {
        for (const weight& w : encoder::weights(shape))
            weights[w.name] =
                Eigen::Map<const encoder::matrix>(w.data, w.rows, w.columns).cast<double>();
        thresholds = m.tokens.numbers;
        carried = m.tokens.carried;
        per_query = m.tokens.scores == pare::score_scale::per_query;
    }

    plain dense(const std::string& name, const plain& x) const {
        return (x * weights.at(name + ".weight").transpose()).rowwise() +
               weights.at(name + ".bias").col(0).transpose();
    }
    plain norm(const std::string& name, const plain& x) const {
        plain y = x.colwise() - x.rowwise().mean();
        const Eigen::VectorXd deviation = (y.array().square().rowwise().mean() +
                                           static_cast<double>(shape.config.layer_norm_epsilon))
                                              .sqrt();
        y = deviation.cwiseInverse().asDiagonal() * y *
            weights.at(name + ".weight").col(0).asDiagonal();
        return y.rowwise() + weights.at(name + ".bias").col(0).transpose();
    }

    bool on_tokens() const { return shape.is_per_token(); }
    bool on_spans() const { return on_tokens() && shape.head->of == head::subject::span; }

    /// Outputs [sequences or, of a head on tokens, tokens x ...]; `left` gets, by layer, the mean share of tokens left.
    plain forward(const batch& b, std::vector<double>& left) const {
        const config& c = shape.config;
        left.assign(shape.layers.size(), 0);
        plain out;
        for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s) {
            const Index first = b.offsets[s], n = b.offsets[s + 1] - first;
            plain x(n, c.embedding_columns());
            for (Index t = 0; t < n; ++t) {
                const Index id = b.ids[static_cast<std::size_t>(first + t)];
                x.row(t) =
                    weights.at("embeddings.word_embeddings.weight").row(id % c.vocabulary) +
                    weights.at("embeddings.position_embeddings.weight").row(c.first_position + t) +
                    weights.at("embeddings.token_type_embeddings.weight").row(id / c.vocabulary);
            }
            x = norm("embeddings.LayerNorm", x);
            if (c.narrow_embeddings > 0) x = dense("embeddings_project", x);
            Eigen::VectorXd carry = Eigen::VectorXd::Ones(n);
            plain gone = plain::Zero(n, c.hidden); // of each token
            for (std::size_t l = 0; l < shape.layers.size(); ++l) {
                const std::string name = "encoder.layer." + std::to_string(l) + ".";
                const plain q = dense(name + "attention.self.query", x),
                            k = dense(name + "attention.self.key", x),
                            v = dense(name + "attention.self.value", x);
                const Index heads = shape.layers[l].heads, d = heads > 0 ? v.cols() / heads : 0;
                const Index narrow = heads > 0 ? q.cols() / heads : 0;
                plain context(n, v.cols());
                Eigen::VectorXd scores = Eigen::VectorXd::Zero(n);
                for (Index h = 0; h < heads; ++h) {
                    plain p = q.middleCols(h * narrow, narrow) *
                              k.middleCols(h * narrow, narrow).transpose() /
                              std::sqrt(static_cast<double>(narrow));
                    for (Index i = 0; i < n; ++i)
                        for (Index j = 0; j < n; ++j)
                            p(i, j) += distance_bias(shape.layers[l], h, i, j);
                    p = p.array().exp();
                    p = p * carry.asDiagonal();
                    p.array().colwise() /= p.rowwise().sum().eval().array();
                    context.middleCols(h * d, d) = p * v.middleCols(h * d, d);
                    scores += p.transpose() * carry / static_cast<double>(heads);
                }
                if (per_query) scores /= carry.sum();
                const Eigen::VectorXd came = carry;
                for (Index t = 1; t < n && !thresholds.empty() && heads > 0; ++t)
                    if (b.pins.empty() || !b.pins[static_cast<std::size_t>(first + t)])
                        carry(t) *=
                            temperature > 0
                                ? 1 / (1 + std::exp((thresholds[l] - scores(t)) / temperature))
                                : (scores(t) >= thresholds[l] ? 1. : 0.);
                plain y = norm(name + "attention.output.LayerNorm",
                               x + dense(name + "attention.output.dense", context));
                const plain active = dense(name + "intermediate.dense", y).unaryExpr([&](double a) {
                    if (c.activation == activation::gelu_tanh)
                        return 0.5 * a *
                               (1 + std::tanh(std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
                    return 0.5 * a * std::erfc(-a / std::sqrt(2.));
                });
                y = norm(name + "output.LayerNorm", y + dense(name + "output.dense", active));
                plain exit = x;
                if (!shape.exits.empty()) {
                    plain both(n, c.hidden + context.cols());
                    both << x, context;
                    exit = dense("exits." + std::to_string(l), both);
                }
                gone += (came - carry).asDiagonal() * exit;
                x = y;
                left[l] += carry.mean() / static_cast<double>(b.sequences());
            }
            const bool mean = c.pooling == pooling::mean;
            if (on_tokens()) {
                plain e = on_spans() ? x : plain(carry.asDiagonal() * x + gone);
                e = dense(on_spans() ? "qa_outputs" : "classifier", e);
                if (on_spans()) e.array().colwise() += carry.array().log();
                if (s == 0) out.resize(b.tokens(), e.cols());
                out.middleRows(first, n) = e;
                continue;
            }
            Eigen::RowVectorXd e = x.row(0);
            if (c.pooling == pooling::max)
                for (Index t = 1; t < n; ++t)
                    e = e.cwiseMax(
                        (x.row(t).array() + std::log(std::max(carry(t), 1e-20))).matrix());
            if (mean && carried)
                e = (carry.transpose() * x + gone.colwise().sum()) / static_cast<double>(n);
            else if (mean)
                e = carry.transpose() * x / carry.sum();
            if (shape.head) {
                using function = encoder::head::function;
                if (shape.head->before) {
                    const function f = shape.head->between;
                    e = dense("pooler.dense", e).unaryExpr([f](double v) {
                        return f == function::tanh   ? std::tanh(v)
                               : f == function::relu ? std::max(0., v)
                                                     : v / 2 * std::erfc(-v / std::sqrt(2));
                    });
                }
                e = dense("classifier", e);
            } else
                e /= e.norm();
            if (s == 0) out.resize(b.sequences(), e.cols());
            out.row(static_cast<Index>(s)) = e;
        }
        return out;
    }
    double loss(const batch& b, const encoder::matrix& directions) const {
        std::vector<double> left;
        double sum = finite(forward(b, left)).cwiseProduct(directions.cast<double>()).sum();
        for (std::size_t l = 0; l < price.size(); ++l) sum += price[l] * left[l];
        return sum;
    }
};

batch random_batch(const model& m, const std::vector<Index>& lengths, random_source& random) {
    batch b;
    for (const Index n : lengths) {
        std::vector<std::int32_t> ids;
        for (Index t = 0; t < n; ++t)
            ids.push_back(static_cast<std::int32_t>(
                random.integer(0, m.config.vocabulary * m.config.types - 1)));
        b.append(ids);
    }
    return b;
}

encoder::matrix random_matrix(Index rows, Index columns, random_source& random) {
    encoder::matrix x(rows, columns);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(random.uniform(-1, 1));
    return x;
}

/// The fixture with lively attention, so that scores differ.
model lively_model(random_source& random) {
    model m = load_model(fixtures::path("tiny_bert"));
    for (layer& y : m.layers)
        for (dense* d : {&y.query, &y.key}) d->weight *= 3;
    (void)random;
    return m;
}

/// Of a layer with rows so long that a library cuts sums over them into pieces.
model wide_model(random_source& random) {
    model m = lively_model(random);
    const Index d = m.config.hidden = 400, filters = 500, columns = 2 * m.config.head_size;
    m.layers.resize(1);
    layer& y = m.layers[0];
    y.heads = 2;
    for (dense* part : {&y.query, &y.key, &y.value}) part->weight.resize(columns, d);
    for (dense* part : {&y.query, &y.key, &y.value}) part->bias.resize(columns);
    y.attention_output = {encoder::matrix(d, columns), encoder::vector(d)};
    y.intermediate = {encoder::matrix(filters, d), encoder::vector(filters)};
    y.output = {encoder::matrix(d, filters), encoder::vector(d)};
    for (encoder::matrix* table : {&m.word_embeddings, &m.position_embeddings, &m.type_embeddings})
        table->resize(table->rows(), d);
    for (layer_norm* n : {&m.embedding_norm, &y.attention_norm, &y.output_norm})
        *n = {encoder::vector(d), encoder::vector(d)};
    for (const weight& w : weights(m))
        for (Index i = 0; i < w.size(); ++i)
            w.data[i] = static_cast<float>(random.uniform(-0.2, 0.2));
    return m;
}

void add_exits(model& m, random_source& random) {
    for (const layer& y : m.layers) {
        const Index inputs = m.config.hidden + y.query.weight.rows();
        m.exits.push_back({random_matrix(m.config.hidden, inputs, random) * 0.3f,
                           random_matrix(m.config.hidden, 1, random).col(0)});
    }
}

void add_distance_bias(model& m, random_source& random) {
    m.config.distance_buckets = 32;
    for (layer& y : m.layers) y.distance_bias = random_matrix(32, y.heads, random);
}

struct step {
    gradients found;
    encoder::matrix outputs;
};
step learn(network& net, const batch& b, const encoder::matrix& directions, const learning& how) {
    step s{{{}, zeros_like(net.model())}, {}};
    net.learn(
        b,
        [&](const encoder::matrix& outputs, encoder::matrix& gradient) {
            s.outputs = outputs;
            gradient = directions;
        },
        how, s.found);
    return s;
}

void check_same_bits(step a, step b) {
    CHECK(a.outputs == b.outputs);
    CHECK(a.found.thresholds == b.found.thresholds);
    const std::vector<weight> mine = weights(a.found.weights), theirs = weights(b.found.weights);
    for (std::size_t w = 0; w < mine.size(); ++w) {
        CAPTURE(mine[w].name);
        CHECK(std::equal(mine[w].data, mine[w].data + mine[w].size(), theirs[w].data));
    }
}

/// Every weight in a random direction, and thresholds one by one.
void check_gradients(const model& m, const batch& b, const learning& how, random_source& random) {
    network net(m);
    const Index columns = m.head ? m.head->output.bias.size() : m.config.hidden;
    const encoder::matrix directions =
        random_matrix(m.is_per_token() ? b.tokens() : b.sequences(), columns, random);
    step s = learn(net, b, directions, how);

    reference r(m);
    r.temperature = how.temperature;
    r.price = how.weights;
    for (double& p : r.price) p *= how.lambda;
    std::vector<double> left;
    const plain outputs = s.outputs.cast<double>(), expected_outputs = r.forward(b, left);
    CHECK(outputs.array().isInf().cwiseEqual(expected_outputs.array().isInf()).all());
    CHECK((finite(outputs) - finite(expected_outputs)).cwiseAbs().maxCoeff() < 1e-5);
    for (std::size_t l = 0; l < left.size(); ++l) CHECK(std::abs(s.found.left[l] - left[l]) < 1e-5);

    double largest = 0;
    for (const weight& g : weights(s.found.weights))
        for (Index i = 0; i < g.size(); ++i)
            largest = std::max(largest, static_cast<double>(std::abs(g.data[i])));
    const auto slope = [&](const auto& change) {
        const double h = 1e-5;
        change(h);
        const double above = r.loss(b, directions);
        change(-2 * h);
        const double below = r.loss(b, directions);
        change(h);
        return (above - below) / (2 * h);
    };
    for (const weight& g : weights(s.found.weights)) {
        CAPTURE(g.name);
        const plain direction = random_matrix(g.rows, g.columns, random).cast<double>();
        const double expected = slope([&](double h) { r.weights[g.name] += h * direction; });
        const double actual = Eigen::Map<const encoder::matrix>(g.data, g.rows, g.columns)
                                  .cast<double>()
                                  .cwiseProduct(direction)
                                  .sum();
        CHECK(std::abs(actual - expected) <
              1e-4 * (std::abs(expected) + largest * std::sqrt(static_cast<double>(g.size()))));
    }
    for (std::size_t l = 0; l < r.thresholds.size(); ++l) {
        CAPTURE(l);
        const double expected = slope([&](double h) { r.thresholds[l] += h; });
        const double actual = how.temperature > 0 ? s.found.thresholds[l] : 0;
        CHECK(std::abs(actual - expected) < 1e-4 * (std::abs(expected) + largest));
    }
}

constexpr Index middle = 17;
const std::vector<Index> ragged = {1, 2, 7, middle, 24, 31};

/// Relative scores of a layer lie around 1: thresholds that some of the tokens miss.
std::vector<double> some_thresholds(const model& m, random_source& random) {
    std::vector<double> t;
    for (std::size_t l = 0; l < m.layers.size(); ++l) t.push_back(random.uniform(0.5, 0.9));
    return t;
}

/// One for each pooling, with dropped tokens guessed and gone.
std::vector<model> models_that_drop(random_source& random) {
    std::vector<model> all;
    for (const pooling p : {pooling::mean, pooling::cls, pooling::max})
        for (const bool carried : {true, false}) {
            model m = lively_model(random);
            m.config.pooling = p;
            m.tokens.numbers = some_thresholds(m, random);
            m.tokens.carried = carried;
            if (carried) add_exits(m, random);
            if (!carried) add_distance_bias(m, random);
            all.push_back(std::move(m));
        }
    return all;
}

/// Thresholds that are the same ones for a sequence of the middle length.
void score_per_query(model& m) {
    m.tokens.scores = pare::score_scale::per_query;
    for (double& t : m.tokens.numbers) t /= middle;
}

dense read_dense(const nlohmann::json& from) {
    const std::vector<float> weight = fixtures::floats(from["weight"]),
                             bias = fixtures::floats(from["bias"]);
    const auto rows = static_cast<Index>(bias.size());
    return {Eigen::Map<const encoder::matrix>(weight.data(), rows,
                                              static_cast<Index>(weight.size()) / rows),
            Eigen::Map<const encoder::vector>(bias.data(), rows)};
}

Eigen::VectorXd read_vector(const nlohmann::json& from) {
    const std::vector<float> values = fixtures::floats(from);
    return Eigen::Map<const encoder::vector>(values.data(), static_cast<Index>(values.size()))
        .cast<double>();
}

/// What the fixture holds of a gradient: a vector as it is, a matrix times cosines from either
/// side.
Eigen::VectorXd projected(const weight& g) {
    const plain all = Eigen::Map<const encoder::matrix>(g.data, g.rows, g.columns).cast<double>();
    if (g.columns == 1) return all;
    const auto cosines = [](Index n) {
        return Eigen::VectorXd::LinSpaced(n, 0, static_cast<double>(n - 1)).array().cos().matrix();
    };
    Eigen::VectorXd both(g.rows + g.columns);
    both << all * cosines(g.columns), all.transpose() * cosines(g.rows);
    return both;
}

} // namespace

TEST_CASE("gradients of all weights equal finite differences") {
    random_source random;
    CAPTURE(random);
    for (const pooling p : {pooling::mean, pooling::cls, pooling::max}) {
        model m = lively_model(random);
        m.config.pooling = p;
        check_gradients(m, random_batch(m, ragged, random), {}, random);
    }
}

TEST_CASE("gradients of narrow embeddings, and of positions from another one on") {
    random_source random;
    CAPTURE(random);
    for (const char* name : {"families/electra", "families/roberta"}) {
        CAPTURE(name);
        model m = load_model(fixtures::path(name));
        m.prefix = "";
        check_gradients(m, random_batch(m, {1, 7, 12}, random), {}, random);
    }
}

TEST_CASE("gradients through soft masks, thresholds included, equal finite differences") {
    random_source random;
    CAPTURE(random);
    for (model& m : models_that_drop(random)) {
        learning how;
        how.temperature = 0.2;
        how.lambda = 2;
        for (std::size_t l = 0; l < m.layers.size(); ++l)
            how.weights.push_back(random.uniform(0, 1));
        check_gradients(m, random_batch(m, ragged, random), how, random);
        score_per_query(m);
        how.temperature /= middle;
        check_gradients(m, random_batch(m, ragged, random), how, random);
    }
}

TEST_CASE("gradients do not depend on where memory lies") {
    random_source random;
    CAPTURE(random);
    model m = lively_model(random);
    for (layer& y : m.layers) { // of so many heads that sums over them could be in another order
        const Index columns = 5 * y.query.weight.rows();
        for (dense* d : {&y.query, &y.key, &y.value})
            *d = {random_matrix(columns, m.config.hidden, random),
                  random_matrix(columns, 1, random).col(0)};
        y.attention_output.weight = random_matrix(m.config.hidden, columns, random);
    }
    m.tokens.numbers = some_thresholds(m, random);
    add_exits(m, random);
    network net(m);
    const batch b = random_batch(m, ragged, random);
    const encoder::matrix directions = random_matrix(b.sequences(), m.config.hidden, random);
    learning how;
    how.temperature = 0.2;
    const step first = learn(net, b, directions, how);
    std::vector<std::vector<char>> others; // between which the next ones find their places
    for (int i = 0; i < 8; ++i) {
        for (int k = 0; k < 200; ++k)
            others.emplace_back(static_cast<std::size_t>(random.integer(16, 2000)));
        for (std::size_t k = 0; k < others.size(); k += 2) std::vector<char>().swap(others[k]);
        check_same_bits(learn(net, b, directions, how), first);
    }
}

TEST_CASE("gradients do not depend on the number of threads") {
    random_source random;
    CAPTURE(random);
    model m = wide_model(random);
    const bool classifies = GENERATE(true, false);
    const double temperature = GENERATE(0., 0.2);
    CAPTURE(classifies, temperature);
    if (classifies)
        m.head = head{{random_matrix(3, m.config.hidden, random), encoder::vector::Zero(3)}};
    m.tokens.numbers = some_thresholds(m, random);
    add_exits(m, random);
    network net(m);
    const batch b = random_batch(m, std::vector<Index>(37, 5), random);
    const encoder::matrix directions =
        random_matrix(b.sequences(), classifies ? 3 : m.config.hidden, random);
    learning how;
    how.temperature = temperature;
    std::optional<step> first;
    for (const int threads : {1, 2, 5}) {
        CAPTURE(threads);
        const fixtures::with_threads guard(threads);
        const step s = learn(net, b, directions, how);
        if (first) check_same_bits(s, *first);
        if (!first) first = s;
    }
}

TEST_CASE("gradients through heads of two layers equal finite differences") {
    random_source random;
    CAPTURE(random);
    const auto between = GENERATE(head::function::tanh, head::function::relu, head::function::gelu);
    const int outputs = GENERATE(1, 3);
    CAPTURE(static_cast<int>(between), outputs);
    model m = lively_model(random);
    m.config.pooling = GENERATE(pooling::cls, pooling::mean);
    const Index d = m.config.hidden;
    const auto some = [&](Index rows) {
        return dense{random_matrix(rows, d, random) * 0.3f, random_matrix(rows, 1, random).col(0)};
    };
    m.head = head{some(outputs), some(d), between, find_stock_head("bert")};
    check_gradients(m, random_batch(m, ragged, random), {}, random);
    m.tokens.numbers = some_thresholds(m, random);
    check_gradients(m, random_batch(m, ragged, random), {}, random);
}

TEST_CASE("gradients through heads on tokens equal finite differences") {
    random_source random;
    CAPTURE(random);
    const auto of = GENERATE(head::subject::token, head::subject::span);
    const bool exits = GENERATE(false, true), pins = GENERATE(false, true);
    const bool soft = GENERATE(false, true);
    CAPTURE(static_cast<int>(of), exits, pins, soft);
    model m = lively_model(random);
    const Index d = m.config.hidden, outputs = of == head::subject::span ? 2 : 3;
    const stock_head* const stock = find_stock_head("bert", of);
    m.head =
        head{{random_matrix(outputs, d, random) * 0.3f, random_matrix(outputs, 1, random).col(0)},
             std::nullopt,
             stock->between,
             stock,
             of};
    m.config.pooling = pooling::cls;
    batch b = random_batch(m, ragged, random);
    if (pins)
        for (std::int64_t t = 0; t < b.tokens(); ++t) b.pins.push_back(random.integer(0, 3) == 0);
    learning how;
    if (!soft && !exits) check_gradients(m, b, how, random);
    if (exits) add_exits(m, random);
    m.tokens.numbers = some_thresholds(m, random);
    if (soft) {
        how.temperature = 0.3;
        how.lambda = 0.7;
        how.weights.assign(m.layers.size(), 0.5);
    }
    check_gradients(m, b, how, random);
    if (soft) return;
    for (const auto by : {token_pruning::rule::share, token_pruning::rule::count}) {
        m.tokens.by = by;
        m.tokens.numbers.assign(m.layers.size(), by == token_pruning::rule::share ? 0.6 : 4.);
        network net(m);
        encoder::matrix found;
        std::vector<token_use> use;
        net.forward(b, found, &use);
        CHECK(found.rows() == b.tokens());
        std::int64_t stay = 0; // in the last layer, at least
        for (std::int64_t t = 0; t < b.tokens(); ++t) {
            const bool first = std::count(b.offsets.begin(), b.offsets.end(), t) > 0;
            const bool never_leaves = first || (pins && b.pins[static_cast<std::size_t>(t)]);
            stay += never_leaves;
            if (of == head::subject::token || never_leaves)
                CHECK(found.row(t).array().isFinite().all());
        }
        CHECK(use.back().kept >= stay);
        CHECK(use.back().kept < b.tokens());
        if (of == head::subject::span)
            CHECK(found.col(0).array().isFinite().count() == use.back().kept);
    }
}

TEST_CASE("gradients where tokens are gone equal finite differences") {
    random_source random;
    CAPTURE(random);
    for (model& m : models_that_drop(random)) {
        check_gradients(m, random_batch(m, ragged, random), {}, random);
        score_per_query(m);
        check_gradients(m, random_batch(m, ragged, random), {}, random);
    }
}

TEST_CASE("gradients of a small model equal PyTorch's") {
    const nlohmann::json fixture = fixtures::json("tiny_bert_training.json");
    batch b;
    for (const auto& ids : fixture["sequences"]) b.append(ids);
    const std::vector<float> numbers = fixtures::floats(fixture["directions"]);
    const Eigen::VectorXd price = read_vector(fixture["price"]);

    for (const auto& expected : fixture["cases"]) {
        const std::string name = expected["name"];
        model m = load_model(fixtures::path("tiny_bert"));
        dataset classes{task_kind::classify, {}, {}, {}, {}};
        if (name == "classify") {
            m.head = head{read_dense(fixture["classifier"])};
            classes.targets = fixture["labels"].get<std::vector<double>>();
        } else {
            for (const float t : fixtures::floats(expected["thresholds"]))
                m.tokens.numbers.push_back(static_cast<double>(t));
            m.tokens.carried = expected["carried"];
            if (expected["exits"])
                for (const auto& exit : fixture["exits"]) m.exits.push_back(read_dense(exit));
        }
        CAPTURE(name, m.tokens.carried, m.exits.size());
        learning how;
        if (name == "soft") {
            how.temperature = fixture["temperature"];
            how.lambda = 1;
            how.weights.assign(price.begin(), price.end());
        }

        network net(m);
        gradients found{{}, zeros_like(m)};
        double loss = 0;
        encoder::matrix outputs;
        net.learn(
            b,
            [&](const encoder::matrix& given, encoder::matrix& gradient) {
                outputs = given;
                if (name == "classify") { // the fixture's loss is a sum
                    const auto n = static_cast<float>(b.sequences());
                    loss = static_cast<double>(n) *
                           encoder::loss(classes, {0, 1, 2, 3, 4}, given, gradient);
                    gradient *= n;
                } else {
                    gradient = Eigen::Map<const encoder::matrix>(numbers.data(), given.rows(),
                                                                 given.cols());
                    loss = given.cast<double>().cwiseProduct(gradient.cast<double>()).sum();
                }
            },
            how, found);
        const Eigen::Map<const Eigen::VectorXd> left(found.left.data(), price.size());
        if (name == "soft") loss += left.dot(price);

        const auto error = [](const auto& actual, const nlohmann::json& of) {
            return (actual - read_vector(of)).cwiseAbs().maxCoeff();
        };
        CHECK(std::abs(loss - expected["loss"].get<double>()) < 1e-5);
        CHECK(error(outputs.reshaped<Eigen::RowMajor>().cast<double>(), expected["outputs"]) <
              1e-5);
        CHECK(error(left, expected["left"]) < 1e-6);

        const auto& of = expected["gradients"];
        std::size_t checked = 0;
        // Gradients of a key's bias are 0, and what is found there is rounding.
        constexpr double relative = 1e-5, absolute = 2e-6;
        for (const weight& g : weights(found.weights)) {
            CAPTURE(g.name);
            const double largest = read_vector(of.at(g.name)).cwiseAbs().maxCoeff();
            CHECK(error(projected(g), of.at(g.name)) < relative * largest + absolute);
            ++checked;
        }
        if (name == "soft") {
            const Eigen::Map<const Eigen::VectorXd> thresholds(found.thresholds.data(),
                                                               price.size());
            CHECK(error(thresholds, of["thresholds"]) < 1e-5); // sums of differences over T
            ++checked;
        }
        CHECK(checked == of.size());
    }
}

} // namespace encoder_learn_test
