// Learning on Thrust's systems and on memory that the host cannot read, or with PARE_TEST_CUDA on a
// GPU, against that on the CPU: gradients, steps of AdamW and whole runs.
#include "encoder_fixtures.hpp"
#include "thrust_engines.hpp"

#include "encoder/task/evaluate.hpp"
#include "encoder/training/train.hpp"

#include <cmath>
#include <limits>

namespace thrust_learning_test {

namespace {

/// What passes over batches find, all weights' gradients included.
struct learned {
    model weights;
    token_gradients tokens;
    matrix outputs; // of the last batch
};

learned gradients_of(engine& net, const std::vector<batch>& batches, const learning& how) {
    const std::unique_ptr<learner> learns = net.make_learner();
    learned found;
    for (const batch& b : batches) {
        const matrix directions = random_numbers(7).normal(b.sequences(), net.outputs(), 1);
        learns->learn(
            b,
            [&](const matrix& outputs, matrix& gradient) {
                found.outputs = outputs;
                gradient = directions;
            },
            how);
    }
    found.tokens = learns->found();
    // A step of no length whose first moments are the gradients.
    step_size none{0, 0};
    none.beta1 = 0;
    none.longest = std::numeric_limits<double>::infinity();
    std::vector<double> thresholds(net.tokens().numbers.size(), 1);
    learns->step(thresholds, none);
    CHECK(thresholds == std::vector<double>(thresholds.size(), 1));
    learns->update([&](moments& of) { found.weights = of.first; });
    for (const double t : learns->found().thresholds) CHECK(t == 0);
    return found;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double within) {
    REQUIRE(a.size() == b.size());
    double largest = 0;
    for (const double x : b) largest = std::max(largest, std::abs(x));
    for (std::size_t i = 0; i < a.size(); ++i) {
        CAPTURE(i, a[i], b[i]);
        CHECK(std::abs(a[i] - b[i]) <= within * largest);
    }
}

/// The weights of b differ from those of a by at most a share of the largest of each, and that much
/// of a hundredth of the largest of all. Gradients of keys' biases are 0 but for rounding: `stepped`
/// models, of which each weight has gone a way of the same length, are not compared there.
void check_close(model a, model b, double within, bool stepped = false) {
    const std::vector<weight> x = weights(a), y = weights(b);
    REQUIRE(x.size() == y.size());
    const auto map = [](const weight& w) {
        return Eigen::Map<const matrix>(w.data, w.rows, w.columns);
    };
    const auto largest = [&](const weight& w) {
        return w.size() > 0 ? static_cast<double>(map(w).cwiseAbs().maxCoeff()) : 0.0;
    };
    double most = 0;
    for (const weight& w : y) most = std::max(most, largest(w));
    for (std::size_t i = 0; i < x.size(); ++i) {
        CAPTURE(y[i].name);
        if (stepped && y[i].name.find("key.bias") != std::string::npos) continue;
        CHECK(distance(map(x[i]), map(y[i])) <= within * (largest(y[i]) + 0.01 * most));
    }
}

void check_gradients(const model& m, const std::vector<batch>& batches, const learning& how,
                     double within, precision in = precision::fp32) {
    network cpu(m);
    const learned expected = gradients_of(cpu, batches, how);
    on_engines(
        m,
        [&](engine& net) {
            const learned found = gradients_of(net, batches, how);
            CHECK(distance(found.outputs, expected.outputs) <= within);
            check_close(found.weights, expected.weights, within);
            check_close(found.tokens.thresholds, expected.tokens.thresholds, within);
            check_close(found.tokens.left, expected.tokens.left, within);
            check_close(found.tokens.left_by_threshold, expected.tokens.left_by_threshold, within);
        },
        in);
}

/// With types of tokens.
batch typed_batch(const std::vector<Index>& lengths) {
    batch b = make_batch(lengths);
    for (std::size_t t = 0; t < b.ids.size(); ++t)
        b.ids[t] += static_cast<std::int32_t>(t % 2) * 50;
    return b;
}

learning fading_out(double temperature) {
    learning how;
    how.temperature = temperature;
    how.lambda = 2;
    how.weights = {0.3, 0.9, 0.5};
    return how;
}

} // namespace

TEST_CASE("gradients of weights on Thrust are those on the CPU") {
    shape s;
    s.f = GENERATE(activation::gelu, activation::gelu_tanh, activation::relu);
    s.pool = s.f == activation::gelu        ? pooling::mean
             : s.f == activation::gelu_tanh ? pooling::cls
                                            : pooling::max;
    if (s.f == activation::relu) {
        s.narrow_embeddings = 10;
        s.first_position = 3;
        s.distance_buckets = 32;
        s.heads = {2, 0, 3};
        s.filters = {0, 19, 16};
    }
    model m = make_model(s);
    check_gradients(m, {typed_batch({1, 2, 19, 33})}, {}, 3e-5);
    add_head(m);
    check_gradients(m, {typed_batch({70, 3}), typed_batch({5})}, {}, 3e-5); // added up
    check_gradients(m, {batch()}, {}, 0);
}

TEST_CASE("gradients where tokens are dropped on Thrust are those on the CPU") {
    on_pruning_models([](const model& m) {
        check_gradients(m, {make_batch({1, 33, 64, 7})}, {}, 5e-5);
    });
}

TEST_CASE("gradients through soft masks on Thrust are those on the CPU") {
    for (const way w : ways)
        for (const pare::score_scale scale :
             {pare::score_scale::relative, pare::score_scale::per_query})
            for (const double temperature : {1., 0.1, 0.01}) {
                shape s;
                s.pool = w.pool;
                if (temperature == 1) s.heads = {2, 0, 3};
                model m = make_model(s);
                m.tokens = {token_pruning::rule::threshold, {0.7, 0.9, 1}, 0.9, w.carried, scale};
                const bool relative = scale == pare::score_scale::relative;
                if (!relative)
                    for (double& t : m.tokens.numbers) t /= 20;
                if (w.exits) add_random_exits(m);
                CAPTURE(w.carried, w.exits, relative, temperature);
                check_gradients(m, {make_batch({1, 33, 20, 7})},
                                fading_out(relative ? temperature : temperature / 20), 2e-4);
            }
}

TEST_CASE("gradients in half precision") {
    model m = make_model({});
    add_random_exits(m);
    check_gradients(m, {make_batch({70, 3, 33})}, {}, 4e-2, precision::fp16);
    m.tokens = {token_pruning::rule::share, {0.8, 0.7, 0.6}, 1, true};
    check_gradients(m, {make_batch({64, 1, 33})}, {}, 4e-2, precision::fp16);
    m.tokens = {token_pruning::rule::threshold, {0.7, 0.9, 1}, 1, true};
    check_gradients(m, {make_batch({64, 1, 33})}, fading_out(0.5), 4e-2, precision::fp16);
    add_head(m);
    check_gradients(m, {make_batch({64, 1, 33})}, fading_out(0.5), 4e-2, precision::fp16);
#ifdef PARE_TEST_CUDA
    check_gradients(m, {make_batch({64, 1, 33})}, fading_out(0.5), 3e-1, precision::bf16);
#endif
}

TEST_CASE("a learner on Thrust refuses what one on the CPU refuses") {
    const model m = make_model({});
    const auto loss = [](const matrix&, matrix&) {};
    const auto check = [&](engine& net) {
        const auto refused = [&](const learning& how, const std::string& part) {
            CHECK_THROWS_MATCHES(net.make_learner()->learn(make_batch({3}), loss, how),
                                 std::invalid_argument,
                                 Catch::Matchers::Message("encoder::network: " + part));
        };
        refused({-1, 0, {}}, "the temperature is -1.000000");
        refused({0, 0, {1, 1}}, "weights of 2 layers of 3");
        const auto wide = [](const matrix& outputs, matrix& gradient) {
            gradient = matrix::Zero(outputs.rows(), 1);
        };
        CHECK_THROWS_AS(net.make_learner()->learn(make_batch({3}), wide, {}),
                        std::invalid_argument);
        model narrow = m;
        narrow.layers[1].key.bias.resize(7);
        CHECK_THROWS_AS(net.update([&](model& changed) { changed = narrow; }),
                        std::invalid_argument);
    };
    on_engines(m, check);
}

namespace {

/// Some steps, tokens fading in the second half; returns the moments and the thresholds too.
learned learn_some(engine& net, moments* of = nullptr) {
    const std::unique_ptr<learner> learns = net.make_learner();
    learned found;
    std::vector<double> thresholds = {0.7, 0.001, 0.9};
    token_pruning p;
    p.numbers = thresholds;
    net.set_token_pruning(p);
    for (unsigned i = 0; i < 4; ++i) {
        const batch b = make_batch({20, 7, 1}, 100 + i);
        const matrix directions = random_numbers(i).normal(b.sequences(), net.outputs(), 1);
        learns->learn(
            b, [&](const matrix&, matrix& gradient) { gradient = directions; },
            i < 2 ? learning() : fading_out(0.3));
        step_size size{0.01, 0.02};
        size.longest = i == 0 ? 1e9 : 1;
        learns->step(thresholds, size);
        p.numbers = thresholds;
        net.set_token_pruning(p);
    }
    found.weights = net.model();
    found.tokens.thresholds = thresholds;
    if (of) learns->update([&](moments& m) { *of = m; });
    return found;
}

} // namespace

TEST_CASE("steps of AdamW on Thrust are those on the CPU") {
    model m = make_model({});
    add_head(m);
    add_random_exits(m);
    network cpu(m);
    moments expected_moments;
    const learned expected = learn_some(cpu, &expected_moments);
    CHECK(distance(expected.weights.layers[0].query.weight, m.layers[0].query.weight) > 1e-3);
    on_engines(m, [&](engine& net) {
        moments of;
        const learned found = learn_some(net, &of);
        check_close(found.weights, expected.weights, 1e-3, true);
        check_close(found.tokens.thresholds, expected.tokens.thresholds, 1e-3);
        CHECK(of.steps == 4);
        check_close(of.first, expected_moments.first, 1e-3);
        check_close(of.second, expected_moments.second, 1e-3);
        check_close(of.first_of_thresholds, expected_moments.first_of_thresholds, 1e-3);
        // Words without a gradient stay as they are.
        Index stayed = 0;
        for (Index i = 0; i < 50; ++i)
            if (expected.weights.word_embeddings.row(i) == m.word_embeddings.row(i)) {
                CHECK(found.weights.word_embeddings.row(i) == m.word_embeddings.row(i));
                ++stayed;
            }
        CHECK(stayed > 0);
        // What was learned is what runs, here and where it is taken.
        matrix outputs, again, on_cpu;
        const batch b = make_batch({30, 5});
        net.forward(b, outputs);
        const std::unique_ptr<engine> other = net.make(net.model());
        other->set_token_pruning(net.tokens());
        other->forward(b, again);
        CHECK(outputs == again);
        network copy(net.model());
        copy.set_token_pruning(net.tokens());
        copy.forward(b, on_cpu);
        CHECK(distance(outputs, on_cpu) < 1e-5);
    });
}

TEST_CASE("gradients that are not finite are refused on Thrust, and nothing changes") {
    const model m = make_model({});
    on_engines(m, [&](engine& net) {
        const std::unique_ptr<learner> learns = net.make_learner();
        learns->learn(make_batch({3}),
                      [](const matrix&, matrix& gradient) {
                          gradient.setConstant(std::numeric_limits<float>::quiet_NaN());
                      },
                      {});
        std::vector<double> none;
        CHECK_THROWS_AS(learns->step(none, {0.1, 0}), std::runtime_error);
        CHECK(net.model().word_embeddings == m.word_embeddings);
    });
}

namespace {

dataset some_texts(const model& m, std::size_t count) {
    random_numbers random(31);
    dataset data{task_kind::distill, {}, {}, {}, {}};
    for (std::size_t i = 0; i < count; ++i) {
        sequence s(static_cast<std::size_t>(3 + random.below(20)));
        for (auto& id : s) id = static_cast<std::int32_t>(random.below(m.config.vocabulary));
        data.texts.push_back(s);
    }
    network dense(m);
    data.teacher = embed(dense, data.texts, "");
    return data;
}

recipe soft_and_hard() {
    recipe how;
    how.stages = {{stage_kind::soft, 1, 5e-4}, {stage_kind::hard, 1, 5e-4}};
    how.target = 0.6;
    how.batch = 8;
    return how;
}

/// All weights, and the thresholds.
std::vector<double> everything(const engine& net) {
    model m = net.model();
    std::vector<double> all = net.tokens().numbers;
    for (const weight& w : weights(m)) all.insert(all.end(), w.data, w.data + w.size());
    return all;
}

double share_of(engine& net, const std::vector<sequence>& texts) {
    std::vector<token_use> use;
    matrix outputs;
    for (const batch& b : make_batches(texts, 500, any_number)) net.forward(b, outputs, &use);
    return token_macs(net.model(), use) / dense_token_macs(net.model(), texts);
}

double loss_of(engine& net, const dataset& data) {
    return 1 - mean_cosine(embed(net, data.texts, ""), data.teacher);
}

} // namespace

TEST_CASE("a run on Thrust learns what one on the CPU learns, the same in every run") {
    shape s;
    s.hidden = 16;
    s.heads = {2, 2};
    s.filters = {16, 16};
    const model m = make_model(s);
    const dataset data = some_texts(m, 32);
    const auto run = [&](engine& net) {
        token_pruning p;
        p.scores = pare::score_scale::relative;
        net.set_token_pruning(p);
        trainer t(net, data, soft_and_hard());
        while (!t.done()) t.epoch();
    };
    network cpu(m);
    run(cpu);
    const double expected = loss_of(cpu, data);
    const auto check = [&](engine& net, double within) {
        run(net);
        CHECK(net.model().exits.size() == 2);
        check_close(net.tokens().numbers, cpu.tokens().numbers, within);
        CHECK(std::abs(loss_of(net, data) - expected) < within * expected);
        CHECK(share_of(net, data.texts) < 0.61);
    };
    on_engines(m, [&](engine& net) {
        check(net, 0.05);
        const std::unique_ptr<engine> again = net.make(m);
        run(*again);
        CHECK(everything(net) == everything(*again));
    });
    on_engines(
        m, [&](engine& net) { check(net, 0.2); }, precision::fp16);
}

TEST_CASE("a checkpoint of the CPU's is gone on with on Thrust, and the other way round") {
    const model m = make_model({});
    const dataset data = some_texts(m, 16);
    const fixtures::scratch_folder folder;
    // Interrupted between the stages.
    const auto run = [&](engine& from, engine& to) {
        trainer first(from, data, soft_and_hard());
        first.epoch();
        first.save(folder / "checkpoint");
        trainer second(to, data, soft_and_hard());
        second.resume(folder / "checkpoint");
        while (!second.done()) second.epoch();
        return everything(to);
    };
    network cpu(m);
    trainer whole(cpu, data, soft_and_hard());
    while (!whole.done()) whole.epoch();
    const std::vector<double> expected = everything(cpu);
    on_engines(m, [&](engine& net) {
        network a(m), b(m);
        const std::unique_ptr<engine> x = net.make(m), y = net.make(m), z = net.make(m);
        check_close(run(a, *x), expected, 0.02);
        check_close(run(*y, b), expected, 0.02);
        // On Thrust alone, an interruption changes no bit.
        trainer not_interrupted(net, data, soft_and_hard());
        while (!not_interrupted.done()) not_interrupted.epoch();
        const std::unique_ptr<engine> other = net.make(m);
        CHECK(run(*z, *other) == everything(net));
    });
}

} // namespace thrust_learning_test
