// AdamW: against PyTorch's, and what it promises besides.
#include "encoder_fixtures.hpp"
#include "support.hpp"

#include <encoder/network/optimizer.hpp>

#include <cmath>

namespace encoder_optimizer_test {

using namespace encoder;
using Eigen::Index;

namespace {

/// A model of a few weights, all 0: embeddings and a head.
model small_model(Index vocabulary) {
    model m;
    m.config.hidden = 4;
    m.config.head_size = 2;
    m.config.vocabulary = vocabulary;
    m.config.positions = 3;
    m.config.types = 2;
    m.word_embeddings = encoder::matrix::Zero(vocabulary, 4);
    m.position_embeddings = encoder::matrix::Zero(3, 4);
    m.type_embeddings = encoder::matrix::Zero(2, 4);
    m.embedding_norm = {encoder::vector::Zero(4), encoder::vector::Zero(4)};
    m.head = head{{encoder::matrix::Zero(3, 4), encoder::vector::Zero(3)}};
    return m;
}

void fill(model& m, random_source& random) {
    for (const weight& w : weights(m))
        std::generate_n(w.data, w.size(), [&] { return random.uniform<float>(); });
}

void copy_to(const weight& to, const nlohmann::json& from) {
    const std::vector<float> values = fixtures::floats(from);
    REQUIRE(static_cast<Index>(values.size()) == to.size());
    std::copy(values.begin(), values.end(), to.data);
}

double largest_difference(const float* actual, const std::vector<float>& expected) {
    double largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
        largest = std::max(largest, std::abs(static_cast<double>(actual[i] - expected[i])));
    return largest;
}

std::vector<float> all_weights(model m) {
    std::vector<float> all;
    for (const weight& w : weights(m)) all.insert(all.end(), w.data, w.data + w.size());
    return all;
}

} // namespace

TEST_CASE("AdamW's steps equal PyTorch's") {
    const nlohmann::json fixture = fixtures::json("adamw.json");
    const auto& parameters = fixture["parameters"];
    model m = small_model(5);
    for (const weight& w : weights(m)) copy_to(w, parameters[w.name]["start"]);
    const std::vector<float> start = fixtures::floats(parameters["thresholds"]["start"]);
    std::vector<double> thresholds(start.begin(), start.end());
    REQUIRE(parameters.size() == weights(m).size() + 1);

    adamw optimizer(m);
    gradients found{{}, zeros_like(m)};
    for (std::size_t i = 0; i < fixture["rates"].size(); ++i) {
        CAPTURE(i);
        for (const weight& g : weights(found.weights))
            copy_to(g, parameters[g.name]["gradients"][i]);
        const std::vector<float> slopes =
            fixtures::floats(parameters["thresholds"]["gradients"][i]);
        found.thresholds.assign(slopes.begin(), slopes.end());
        step_size size{fixture["rates"][i], fixture["threshold_rate"]};
        size.decay = fixture["decay"];
        size.longest = fixture["longest"];
        optimizer.step(m, thresholds, found, size);

        for (const weight& w : weights(m)) {
            CAPTURE(w.name);
            // A step is about the rate; 1e-6 is what PyTorch adds to the gradients' length.
            CHECK(largest_difference(w.data, fixtures::floats(parameters[w.name]["after"][i])) <
                  1e-6);
        }
        const std::vector<float> expected = fixtures::floats(parameters["thresholds"]["after"][i]);
        for (std::size_t l = 0; l < expected.size(); ++l)
            CHECK_THAT(thresholds[l], WithinAbs(static_cast<double>(expected[l]), 1e-6));
        for (const float g : all_weights(found.weights)) REQUIRE(g == 0);
        for (const double g : found.thresholds) CHECK(g == 0);
    }
    CHECK(thresholds[1] == 0); // and not below
}

TEST_CASE("words without a gradient stay as they are, their moments too") {
    random_source random;
    CAPTURE(random);
    model m = small_model(6);
    fill(m, random);
    adamw optimizer(m);
    gradients found{{}, zeros_like(m)};
    std::vector<double> none;
    for (const Index absent : {2, 5, 2}) {
        fill(found.weights, random);
        found.weights.word_embeddings.row(absent).setZero();
        const auto row = [&](const model& of) {
            return std::vector<float>(of.word_embeddings.row(absent).begin(),
                                      of.word_embeddings.row(absent).end());
        };
        const auto rows = [&] {
            return std::vector{row(m), row(optimizer.state.first), row(optimizer.state.second)};
        };
        const encoder::matrix before = m.word_embeddings;
        const auto rows_before = rows();
        optimizer.step(m, none, found, {0.01, 0});
        CHECK(rows() == rows_before);
        for (Index i = 0; i < before.rows(); ++i)
            CHECK((m.word_embeddings.row(i) != before.row(i)) == (i != absent));
    }
}

TEST_CASE("AdamW's steps are the same for any number of threads") {
    const auto run = [](int threads) {
        const fixtures::with_threads guard(threads);
        random_source random;
        model m = small_model(20000); // more than one thread's part
        fill(m, random);
        adamw optimizer(m);
        gradients found{{}, zeros_like(m)};
        std::vector<double> thresholds = {1, 1};
        for (int i = 0; i < 3; ++i) {
            fill(found.weights, random);
            found.thresholds = {random.uniform(), random.uniform()};
            optimizer.step(m, thresholds, found, {0.01, 0.01});
        }
        std::vector<float> all = all_weights(m);
        all.insert(all.end(), thresholds.begin(), thresholds.end());
        return all;
    };
    CHECK(same_bits(run(1), run(2)));
}

} // namespace encoder_optimizer_test
