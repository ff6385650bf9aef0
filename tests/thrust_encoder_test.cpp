// Encoders on Thrust's systems and on memory that the host cannot read, or with PARE_TEST_CUDA on a
// GPU, against the one on the CPU.
#include "encoder_fixtures.hpp"
#include "thrust_engines.hpp"

#include "encoder/pruning/prune.hpp"

#include <map>

namespace thrust_encoder_test {

namespace {

matrix on_cpu(const model& m, const batch& b, std::vector<token_use>* use = nullptr) {
    matrix outputs;
    network(m).forward(b, outputs, use);
    return outputs;
}

/// The model's outputs, and how many tokens are left where, are the same everywhere.
void check_forward(const model& m, const batch& b, const network::masks& masks = {}) {
    network cpu(m);
    cpu.set_masks(masks);
    matrix expected;
    std::vector<token_use> expected_use;
    cpu.forward(b, expected, &expected_use);
    on_engines(m, [&](engine& net) {
        net.set_masks(masks);
        for (int round = 0; round < 2; ++round) { // memory is used again
            matrix outputs;
            std::vector<token_use> use;
            net.forward(b, outputs, &use);
            CHECK(distance(outputs, expected) < 5e-6);
            REQUIRE(use.size() == expected_use.size());
            for (std::size_t l = 0; l < use.size(); ++l) {
                CAPTURE(l);
                CHECK(use[l].attending == expected_use[l].attending);
                CHECK(use[l].pairs == expected_use[l].pairs);
                CHECK(use[l].kept == expected_use[l].kept);
                CHECK(use[l].guessed == expected_use[l].guessed);
            }
        }
    });
}

} // namespace

TEST_CASE("forward on Thrust is that on the CPU") {
    shape s;
    s.head_size = GENERATE(Index{8}, Index{5}, Index{32});
    s.f = GENERATE(activation::gelu, activation::gelu_tanh, activation::relu);
    s.pool = GENERATE(pooling::mean, pooling::cls, pooling::max);
    check_forward(make_model(s), make_batch(ragged));
}

TEST_CASE("layers without heads or filters on Thrust, and no layers or types") {
    shape s;
    s.heads = {0, 3, 0};
    s.filters = {12, 0, 0};
    model m = make_model(s);
    check_forward(m, make_batch(ragged));
    add_random_exits(m);
    m.tokens = {token_pruning::rule::share, {0.5, 0.5, 0.5}, 1, true};
    check_forward(m, make_batch(ragged));
    s = {};
    s.types = 0;
    s.heads = s.filters = {};
    check_forward(make_model(s), make_batch({3, 1, 40}));
    check_forward(make_model({}), batch());
}

TEST_CASE("narrow embeddings on Thrust, and positions from another one on") {
    shape s;
    s.narrow_embeddings = GENERATE(Index{10}, Index{16});
    s.first_position = 3;
    check_forward(make_model(s), make_batch(ragged));
}

TEST_CASE("types, a head, a long sequence and large scores on Thrust") {
    shape s;
    s.types = 3;
    s.positions = 300;
    s.distance_buckets = GENERATE(0, 32);
    model m = make_model(s);
    add_head(m);
    for (layer& y : m.layers) y.query.weight *= 3;
    batch b = make_batch({5, 300, 1, 70});
    for (std::size_t t = 0; t < b.ids.size(); ++t)
        b.ids[t] += static_cast<std::int32_t>(t % 3) * 50;
    check_forward(m, b);
}

TEST_CASE("masks on Thrust multiply") {
    const model m = make_model({});
    random_numbers random(5);
    network::masks masks;
    for (const layer& y : m.layers) {
        masks.heads.push_back(random.normal_vector(y.heads, 1, 0.5f));
        masks.filters.push_back(random.normal_vector(y.filters(), 1, 0.5f));
    }
    check_forward(m, make_batch(ragged), masks);
    masks.heads[1] = vector();
    masks.filters.clear();
    check_forward(m, make_batch(ragged), masks);
}

TEST_CASE("tokens leave on Thrust as on the CPU") {
    on_pruning_models([](const model& m) { check_forward(m, make_batch(ragged)); });
}

TEST_CASE("results on Thrust do not depend on the rest of the batch") {
    model m = make_model({});
    m.tokens = {token_pruning::rule::threshold, {0.8, 1, 1}, 1, true};
    const batch all = make_batch(ragged);
    on_engines(m, [&](engine& net) {
        matrix together, alone;
        net.forward(all, together);
        for (std::size_t s = 0; s + 1 < all.offsets.size(); ++s) {
            batch one;
            one.append({all.ids.begin() + all.offsets[s], all.ids.begin() + all.offsets[s + 1]});
            net.forward(one, alone);
            CHECK(distance(alone, together.row(static_cast<Index>(s))) < 1e-6);
        }
    });
}

namespace {

void check_half(precision in, double within) {
    for (const bool dropping : {false, true})
        for (const bool exits : {false, true}) {
            model m = make_model({});
            if (dropping) m.tokens = {token_pruning::rule::share, {0.8, 0.7, 0.6}, 1, true};
            if (exits) add_random_exits(m);
            // A token between those that stay and those that leave may change sides.
            const batch b = make_batch({64, 70, 1, 33});
            const matrix expected = on_cpu(m, b);
            on_engines(
                m,
                [&](engine& net) {
                    matrix outputs;
                    net.forward(b, outputs);
                    CHECK(distance(outputs, expected) < within);
                    CHECK(distance(outputs, expected) > 1e-6); // it is not float
                },
                in);
        }
}

} // namespace

TEST_CASE("weights and activations in half precision") {
    check_half(precision::fp16, 1e-2);
#ifdef PARE_TEST_CUDA
    check_half(precision::bf16, 8e-2);
#endif
}

namespace {

/// What pruning learns from a backward pass: [name of layer and kind] -> numbers.
std::map<std::string, matrix> gradients_of(engine& net, const batch& b) {
    const Index rows = net.model().is_per_token() ? b.tokens() : b.sequences();
    const matrix directions = random_numbers(7).normal(rows, net.outputs(), 1);
    const pruning_text text{{b}, {b.offsets}, [&](std::int64_t, const matrix&, matrix& gradient) {
                                gradient = directions;
                            }};
    const std::unique_ptr<pruner> prunes = net.make_pruner();
    std::map<std::string, matrix> found;
    using doubles = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto floats = [](pare::view<const double, 2> x) -> matrix {
        return Eigen::Map<const doubles>(x.data_handle(), x.extent(0), x.extent(1)).cast<float>();
    };
    const auto name = [](std::size_t s) {
        return std::to_string(s / 2) + (s % 2 ? " filters " : " heads ");
    };
    auto statistics = prunes->collect(text, {});
    for (std::size_t s = 0; s < statistics.size(); ++s) {
        pare::sublayer_statistics& of = statistics[s];
        const std::vector<float>& squares = of.squares.at(0);
        found[name(s) + "squares"] =
            Eigen::Map<const matrix>(squares.data(), 1, static_cast<Index>(squares.size()));
        found[name(s) + "metric"] = floats(of.metric.sums());
        found[name(s) + "covariance"] = of.inputs.covariance().cast<float>();
    }
    for (const bool centred : {false, true}) {
        auto fishers = prunes->collect_fisher(text, {pare::fisher_kind::block, centred, {}});
        for (std::size_t s = 0; s < fishers.size(); ++s)
            found[name(s) + (centred ? "centred" : "masks")] = floats(fishers[s].block_sums());
    }
    return found;
}

void check_gradients(const model& m, const batch& b, precision in, float within) {
    network cpu(m);
    const auto expected = gradients_of(cpu, b);
    on_engines(
        m,
        [&](engine& net) {
            for (const auto& [name, numbers] : gradients_of(net, b)) {
                CAPTURE(name);
                const matrix& other = expected.at(name);
                REQUIRE(numbers.rows() == other.rows());
                REQUIRE(numbers.cols() == other.cols());
                if (numbers.size() > 0)
                    CHECK((numbers - other).cwiseAbs().maxCoeff() <=
                          within * other.cwiseAbs().maxCoeff());
            }
        },
        in);
}

} // namespace

TEST_CASE("gradients of masks on Thrust are those on the CPU") {
    shape s;
    s.f = GENERATE(activation::gelu, activation::gelu_tanh, activation::relu);
    s.pool = GENERATE(pooling::mean, pooling::cls, pooling::max);
    if (GENERATE(false, true)) {
        s.heads = {2, 0, 3};
        s.filters = {0, 19, 16};
    }
    model m = make_model(s);
    check_gradients(m, make_batch({1, 2, 19, 33}), precision::fp32, 3e-5f);
}

TEST_CASE("gradients of masks of a head, of no sequences, and in half precision") {
    model m = make_model({});
    check_gradients(m, make_batch({70, 3, 33}), precision::fp16, 3e-2f);
#ifdef PARE_TEST_CUDA
    check_gradients(m, make_batch({70, 3, 33}), precision::bf16, 2e-1f);
#endif
    check_gradients(m, batch(), precision::fp32, 0);
    add_head(m);
    check_gradients(m, make_batch({70, 3, 33}), precision::fp32, 3e-5f);
}

TEST_CASE("heads on Thrust give what they give on the CPU, and so do gradients through them") {
    shape s;
    s.pool = GENERATE(pooling::mean, pooling::cls);
    model m = make_model(s);
    add_head(m, GENERATE(head::function::tanh, head::function::relu, head::function::gelu),
             GENERATE(Index{1}, Index{3}));
    check_forward(m, make_batch(ragged));
    check_gradients(m, make_batch({70, 3, 33}), precision::fp32, 3e-5f);
    m.head->before.reset();
    m.head->stock = nullptr;
    check_forward(m, make_batch(ragged));
}

TEST_CASE("heads on tokens on Thrust give what they give on the CPU; tokens do not leave there") {
    const auto of = GENERATE(head::subject::token, head::subject::span);
    model m = make_model({});
    add_head_on_tokens(m, of);
    check_forward(m, make_batch(ragged));
    check_gradients(m, make_batch({70, 3, 33}), precision::fp32, 3e-5f);
    m.tokens.numbers.assign(m.layers.size(), 0.5);
    on_engines(m, [](engine& net) {
        matrix found;
        CHECK_THROWS_AS(net.forward(make_batch({4}), found), std::invalid_argument);
    });
}

namespace {

calibration some_calibration(const model& m) {
    random_numbers random(21);
    calibration data;
    data.examples.kind = task_kind::distill;
    for (int i = 0; i < 40; ++i) {
        sequence s(static_cast<std::size_t>(3 + random.below(20)));
        for (auto& id : s) id = static_cast<std::int32_t>(random.below(m.config.vocabulary));
        data.examples.texts.push_back(s);
    }
    return data;
}

} // namespace

TEST_CASE("pruning on Thrust finds what it finds on the CPU") {
    shape s;
    s.heads = {3, 2};
    s.filters = {32, 16};
    const model m = make_model(s);
    const calibration data = some_calibration(m);
    network cpu(m);
    const kept_units kept{{{1, 0, 1}, {0, 1}},
                          {std::vector<std::uint8_t>(32, 1), std::vector<std::uint8_t>(16, 1)}};
    for (const fisher_source source : {fisher_source::free, fisher_source::none}) {
        const surgeon expected(cpu, data, source, 1);
        const criterion criterion_expected(cpu, data, source, true, 1);
        std::vector<std::string> notes;
        for (const tuning how : {tuning::reconstruct, tuning::scale}) {
            const model tuned =
                tune(cpu, kept, data.all(), how, default_ridge(how), notes, expected.weights());
            on_engines(m, [&](engine& net) {
                const surgeon found(net, data, source, 1);
                const criterion criterion_found(net, data, source, true, 1);
                const auto same = [](const std::vector<pare::loss_curve>& a,
                                     const std::vector<pare::loss_curve>& b) {
                    REQUIRE(a.size() == b.size());
                    for (std::size_t i = 0; i < a.size(); ++i)
                        for (std::size_t k = 0; k < a[i].loss.size(); ++k)
                            CHECK(std::abs(a[i].loss[k] - b[i].loss[k]) <=
                                  1e-3 * std::abs(b[i].loss.front()) + 1e-3 * b[i].loss.back());
                };
                same(found.losses().units, expected.losses().units);
                const auto same_ranks = [](const auto& a, const auto& b) { // [layer][curve]
                    REQUIRE(a.size() == b.size());
                    for (std::size_t l = 0; l < a.size(); ++l) {
                        REQUIRE(a[l].size() == b[l].size());
                        for (std::size_t h = 0; h < a[l].size(); ++h) {
                            const auto &x = a[l][h].loss, &y = b[l][h].loss;
                            REQUIRE(x.size() == y.size());
                            for (std::size_t k = 0; k < x.size(); ++k)
                                CHECK(std::abs(x[k] - y[k]) <= 1e-3 * y.back());
                        }
                    }
                };
                same_ranks(found.losses().queries, expected.losses().queries);
                same_ranks(found.losses().values, expected.losses().values);
                same(criterion_found.losses(), criterion_expected.losses());
                const model other =
                    tune(net, kept, data.all(), how, default_ridge(how), notes, found.weights());
                for (std::size_t l = 0; l < 2; ++l)
                    for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
                        const matrix& a = reader(other.layers[l], kind).weight;
                        const matrix& b = reader(tuned.layers[l], kind).weight;
                        CHECK((a - b).cwiseAbs().maxCoeff() < 1e-3f * b.cwiseAbs().maxCoeff());
                    }
            });
        }
        CHECK(notes.empty());
    }
}

TEST_CASE("a small model on Thrust gives PyTorch's embeddings") {
    const auto expected = fixtures::json("tiny_bert.json");
    const model m = load_model(fixtures::path("tiny_bert"));
    batch b;
    for (const auto& ids : expected["sequences"]) b.append(ids.get<std::vector<std::int32_t>>());
    const auto& rows = expected["embeddings_gelu"];
    on_engines(m, [&](engine& net) {
        matrix outputs;
        net.forward(b, outputs);
        for (Index i = 0; i < outputs.rows(); ++i)
            for (Index j = 0; j < outputs.cols(); ++j)
                CHECK(std::abs(outputs(i, j) -
                               rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]
                                   .get<float>()) < 1e-5f);
    });
}

TEST_CASE("every family on Thrust gives the reference's embeddings and gradients of masks") {
    const auto all = fixtures::json("families.json");
    for (const auto& [name, expected] : all.items()) {
        CAPTURE(name);
        model m = load_model(fixtures::path("families/" + name));
        batch b;
        for (const auto& ids : expected["sequences"])
            b.append(ids.get<std::vector<std::int32_t>>());
        for (const auto& [key, pool] :
             {std::pair("mean", pooling::mean), std::pair("cls", pooling::cls),
              std::pair("max", pooling::max)}) {
            CAPTURE(key);
            m.config.pooling = pool;
            const std::vector<float> values = fixtures::floats(expected[key].get<std::string>());
            const matrix rows =
                Eigen::Map<const matrix>(values.data(), b.sequences(), m.config.hidden);
            on_engines(m, [&](engine& net) {
                matrix outputs;
                net.forward(b, outputs);
                CHECK(distance(outputs, rows) < 1e-5);
            });
        }
        check_gradients(m, b, precision::fp32, 1e-4f);
    }
}

TEST_CASE("a network on Thrust refuses what one on the CPU refuses") {
    const model m = make_model({});
    on_engines(m, [&](engine& net) {
        matrix x;
        const auto with = [](const std::string& part) {
            return Catch::Matchers::Message("encoder::network: " + part);
        };
        CHECK_THROWS_MATCHES(net.forward(make_batch({3, 81}), x), std::invalid_argument,
                             with("sequence 1 has 81 tokens, expected 1 to 80"));
        CHECK_THROWS_MATCHES(net.set_token_pruning({token_pruning::rule::share, {1, 1}}),
                             std::invalid_argument, with("token pruning for 2 layers of 3"));
        CHECK_THROWS_MATCHES(
            net.set_masks({{vector::Ones(3), vector::Ones(2), vector::Ones(2)}, {}}),
            std::invalid_argument, with("layer 1: head mask has 2 values, expected 1"));
        CHECK_THROWS_MATCHES(net.replace(3, unit_kind::head, {}), std::invalid_argument,
                             with("layer 3 of 3"));
        CHECK_THROWS_MATCHES(net.replace(0, unit_kind::filter, m.layers[1].output),
                             std::invalid_argument,
                             with("output weight is 24 x 33, expected 24 x 20"));
        model broken = m;
        broken.layers[2].key.bias.resize(7);
        CHECK_THROWS_MATCHES(net.make(broken), std::invalid_argument,
                             with("layer 2: key bias has 7 values, expected 8"));
    });
}

} // namespace thrust_encoder_test
