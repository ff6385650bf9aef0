// Learning where tokens leave: what the trainer promises, on a small model.
#include "encoder_fixtures.hpp"
#include "encoder_random.hpp"
#include "support.hpp"

#include <encoder/files/file.hpp>
#include <encoder/files/heads.hpp>
#include <encoder/files/output.hpp>
#include <encoder/training/train.hpp>

#include <cmath>

namespace encoder_train_test {

using namespace encoder;

namespace {

/// The model that learns, and from what: to embed as it does with all tokens, or to tell random
/// classes apart.
struct work {
    encoder::model model;
    dataset data;

    work(task_kind kind, int texts, random_source& random)
        : model(load_model(fixtures::path("tiny_bert"))), data{kind, {}, {}, {}, {}} {
        data.texts = random_texts(model, texts, 8, 40, random);
        if (kind == task_kind::distill) {
            network dense(model);
            data.teacher = embed(dense, data.texts, "teacher");
            return;
        }
        constexpr index_t classes = 3;
        for (int i = 0; i < texts; ++i)
            data.targets.push_back(static_cast<double>(random.integer(0, classes - 1)));
        model.head =
            head{{encoder::matrix(classes, model.config.hidden), encoder::vector::Zero(classes)}};
        for (float& w : model.head->output.weight.reshaped()) w = random.uniform<float>(-0.2, 0.2);
    }
};

recipe soft_and_hard() {
    recipe how;
    how.stages = {{stage_kind::soft, 2, 5e-4}, {stage_kind::hard, 1, 5e-4}};
    how.target = 0.6;
    how.batch = 8;
    return how;
}

void run(network& net, const dataset& data, const recipe& how) {
    trainer learner(net, data, how);
    while (!learner.done()) learner.epoch();
}

double share_of(network& net, const std::vector<sequence>& texts) {
    std::vector<token_use> use;
    encoder::matrix outputs;
    for (const batch& b : make_batches(texts, 500, any_number)) net.forward(b, outputs, &use);
    return token_macs(net.model(), use) / dense_token_macs(net.model(), texts);
}

/// All weights, and the thresholds.
std::vector<double> everything(const network& net) {
    model m = net.model();
    std::vector<double> all = net.tokens().numbers;
    for (const weight& w : weights(m)) all.insert(all.end(), w.data, w.data + w.size());
    return all;
}

} // namespace

TEST_CASE("training reaches the share of multiply-adds that it is to reach") {
    random_source random;
    CAPTURE(random);
    for (const task_kind kind : {task_kind::distill, task_kind::classify})
        for (const bool exits : {true, false}) {
            const work w(kind, 64, random);
            network net(w.model);
            token_pruning p;
            p.scores = exits ? pare::score_scale::relative : pare::score_scale::per_query;
            net.set_token_pruning(p);
            recipe how = soft_and_hard();
            how.exits = exits;
            CAPTURE(kind, exits);
            run(net, w.data, how);
            CHECK(net.tokens().scores == p.scores);
            const double share = share_of(net, w.data.texts);
            CHECK(share < *how.target + 0.001); // scores near a threshold, in other batches
            CHECK(share > *how.target - 0.03);
            CHECK(net.model().exits.empty() != exits);
            for (const double t : net.tokens().numbers) CHECK(t >= 0);
        }
}

TEST_CASE(
    "a soft stage at rate 0 learns thresholds and leaves weights alone, in part of an epoch") {
    random_source random;
    CAPTURE(random);
    const work w(task_kind::distill, 200, random);
    network net(w.model);
    recipe how = soft_and_hard();
    how.exits = false;
    how.stages = {{stage_kind::soft, 0.6, 0}};
    run(net, w.data, how);
    model before = w.model, after = net.model();
    const std::vector<weight> x = weights(before), y = weights(after);
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        CAPTURE(x[i].name);
        CHECK(std::equal(x[i].data, x[i].data + x[i].size(), y[i].data));
    }
    REQUIRE(net.tokens().numbers.size() == w.model.layers.size());
    CHECK_THAT(share_of(net, w.data.texts), WithinAbs(0.6, 0.05));
}

TEST_CASE("the same seed gives the same weights, for any number of threads") {
    const auto learned = [](bool exits, std::uint64_t seed, int threads) {
        const fixtures::with_threads guard(threads);
        random_source random;
        const work w(task_kind::distill, 24, random);
        network net(w.model);
        recipe how = soft_and_hard();
        how.stages.clear();
        for (const stage_kind kind :
             {stage_kind::calibrate, stage_kind::finetune, stage_kind::soft, stage_kind::hard})
            how.stages.push_back({kind, 1, 5e-4});
        how.exits = exits;
        how.seed = seed;
        run(net, w.data, how);
        return everything(net);
    };
    for (const bool exits : {true, false}) {
        const std::vector<double> once = learned(exits, 1, 1);
        CHECK(same_bits(once, learned(exits, 1, 1)));
        CHECK(same_bits(once, learned(exits, 1, 2)));
        CHECK_FALSE(same_bits(once, learned(exits, 2, 1)));
    }
}

TEST_CASE("a batch that is learned in parts has the gradients of the whole") {
    struct with_little_room : network {
        using network::network;
        std::int64_t backward_tokens() const override { return 60; } // two texts or three
    };
    const fixtures::scratch_folder folder;
    // Of one step: Adam's first moments, which are gradients, and what is left of tokens.
    const auto found = [&](network&& net, const dataset& data, const recipe& how) {
        token_pruning p;
        p.numbers.assign(net.model().layers.size(), 0.95);
        net.set_token_pruning(p);
        trainer t(net, data, how);
        t.epoch();
        t.save(folder / "checkpoint");
        std::vector<float> all;
        const safetensors_file tensors(folder / "checkpoint/weights.safetensors");
        for (const auto& [name, entry] : tensors.entries())
            if (name.rfind("first moments/", 0) == 0)
                for (const float x : tensors.read(name, entry.shape)) all.push_back(x);
        const auto state =
            nlohmann::json::parse(detail::read_text(folder / "checkpoint/state.json"));
        for (const char* key : {"first", "left"})
            for (const float x : state[key]) all.push_back(x);
        return Eigen::Map<const encoder::vector>(all.data(), static_cast<Eigen::Index>(all.size()))
            .eval();
    };
    random_source random;
    CAPTURE(random);
    for (const task_kind kind :
         {task_kind::distill, task_kind::classify, task_kind::tag, task_kind::similarity})
        for (const stage_kind stage : {stage_kind::finetune, stage_kind::soft, stage_kind::hard}) {
            CAPTURE(kind, stage);
            work w(kind, 24, random);
            if (kind == task_kind::distill) // of others, or there is nothing to learn at first
                w.data.teacher = w.data.teacher.colwise().reverse().eval();
            if (kind == task_kind::tag) { // of which texts have few or many
                w.model.head->of = head::subject::token;
                w.model.head->stock = find_stock_head("bert", head::subject::token);
                w.data.targets.clear();
                for (std::size_t text = 0; text < w.data.size(); ++text)
                    for (std::size_t t = 0; t < w.data.rows(text); ++t)
                        w.data.targets.push_back(
                            text % 3 == 0 && t > 2 ? dataset::no_tag : static_cast<double>(t % 3));
            }
            if (kind == task_kind::similarity) { // of two texts each
                w.model.head.reset();
                w.data.targets.resize(12);
            }
            recipe how = soft_and_hard();
            how.batch = 24;
            how.lambda = 0.1; // a mean over all texts, too
            how.target.reset();
            how.stages = {{stage, 1, 5e-4}};
            const encoder::vector whole = found(network(w.model), w.data, how),
                                  parts = found(with_little_room(w.model), w.data, how);
            REQUIRE(whole.size() == parts.size());
            CHECK(whole.norm() > 1e-3f);
            CHECK((whole - parts).norm() < 1e-4f * whole.norm());
        }
}

TEST_CASE("scaled thresholds keep to the share, and drop no more than need be") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    const std::vector<sequence> texts = random_texts(m, 100, 8, 40, random);
    network net(m);
    token_pruning p;
    p.numbers = {0.3, 0.5, 0.6};
    for (const double share : {0.9, 0.7, 0.5}) {
        CAPTURE(share);
        net.set_token_pruning(p);
        const double reached = scale_thresholds(net, texts, share);
        CHECK(reached <= share);
        CHECK(reached > share - 0.01);
        CHECK_THAT(share_of(net, texts), WithinAbs(reached, 1e-3));
        const std::vector<double>& scaled = net.tokens().numbers;
        for (std::size_t l = 0; l < p.numbers.size(); ++l)
            CHECK_THAT(scaled[l] / scaled[0], WithinRel(p.numbers[l] / p.numbers[0], 1e-12));
    }
    net.set_token_pruning(p);
    CHECK_THROWS_AS(scale_thresholds(net, texts, 0.01), std::invalid_argument);
}

TEST_CASE("a target that is too small is refused before training, by the smallest one there is") {
    random_source random;
    CAPTURE(random);
    const work w(task_kind::distill, 64, random);
    for (const bool exits : {true, false}) {
        CAPTURE(exits);
        network net(w.model);
        recipe how = soft_and_hard();
        how.exits = exits;
        CHECK_NOTHROW(check_target(net, w.data, how));
        how.target = 0.001;
        const auto check = [&] { check_target(net, w.data, how); };
        const std::string sentence = sentence_of<std::invalid_argument>(check);
        CHECK_THAT(sentence,
                   ContainsSubstring("a share of 0.001 of the multiply-adds is below what the "
                                     "first layers take; the smallest that is possible is 0."));
        const double least = std::stod(sentence.substr(sentence.rfind(' ')));
        how.target = least;
        CHECK_NOTHROW(check());
        how.target = least - 0.001;
        CHECK_THROWS_AS(check(), std::invalid_argument);
        if (exits) net.update([](model& m) { m.exits = plain_exits(m); });
        token_pruning p;
        p.numbers = {0.3, 0.5, 0.6};
        net.set_token_pruning(p);
        CHECK(scale_thresholds(net, trainer::sample(w.data, how.seed), least) <= least);
    }
}

TEST_CASE("a damaged checkpoint is refused by name, and a run goes on from a right one") {
    random_source random;
    CAPTURE(random);
    const work given(task_kind::distill, 16, random);
    const fixtures::scratch_folder folder;
    const auto checkpoint = folder / "checkpoint", state = checkpoint / "state.json";
    network net(given.model);
    trainer first(net, given.data, soft_and_hard());
    first.epoch();
    first.save(checkpoint);
    const nlohmann::json saved = detail::parse_json(state, detail::read_text(state));

    const auto resume = [&] {
        network other(given.model);
        trainer(other, given.data, soft_and_hard()).resume(checkpoint);
    };
    struct damage {
        const char *patch, *sentence;
    };
    for (const auto& [patch, sentence] : std::initializer_list<damage>{
             {R"({"stage": -1})", "stage is -1, not a whole number from 0 to 2"},
             {R"({"stage": 1e300})", "stage is 1e+300, not a whole number from 0 to 2"},
             {R"({"stage": 3})", "stage is 3, not a whole number from 0 to 2"},
             {R"({"epoch": 2})", "epoch is 2, not a whole number from 0 to 1"},
             {R"({"epoch": -2000000000})", "not a whole number from 0 to 1"},
             {R"({"stage": 2})", "epoch is 1, not a whole number from 0 to 0"},
             {R"({"steps": -1})", "steps is -1, not a whole number from 0 to "},
             {R"({"steps": null})", "has no steps"},
             {R"({"lambda": "1"})", "lambda is \"1\", not a number"},
             {R"({"gap": []})", "gap is [], not a number"},
             {R"({"left": [1]})", "left has 1 entries, the model has 3 layers"},
             {R"({"left": [1, 1, 1, 1]})", "left has 4 entries, the model has 3 layers"},
             {R"({"left": [1, -1, 1]})", "left holds -1, not a number from 0 to "},
             {R"({"left": 1})", "left is not a list"},
             {R"({"left": null})", "has no left"},
             {R"({"numbers": [1, 2]})", "numbers has 2 entries, the model has 3 layers"},
             {R"({"first": [1, 2]})", "first has 2 entries, the model has 3 layers"},
             {R"({"second": [1, -2, 3]})", "second holds -2, not a number from 0 to "},
             {R"({"exits": 1})", "exits is 1, not true or false"},
             {R"({"exits": false})", "tensors, the run has "},
             {R"({"arguments": {"seed": 7}})", "is of a run whose seed is 7, not 1"},
             {R"({"arguments": {"seed": null}})", "is of a run whose seed is null, not 1"},
             {R"({"arguments": null})", "is of a run whose "},
         }) {
        CAPTURE(patch);
        nlohmann::json damaged = saved;
        damaged.merge_patch(nlohmann::json::parse(patch));
        write_file(state, {damaged.dump()});
        CHECK_THAT(sentence_of<file_error>(resume), ContainsSubstring(sentence));
    }
    write_file(state, {saved.dump()});
    CHECK_NOTHROW(resume());

    const safetensors_file file(checkpoint / "weights.safetensors");
    std::vector<tensor> tensors;
    for (const auto& [name, entry] : file.entries())
        tensors.push_back({name, entry.dtype, entry.shape, {entry.data, entry.data + entry.bytes}});
    for (tensor& t : tensors)
        if (t.name.rfind("second moments/", 0) == 0) t.bytes[3] = std::byte{0xbf}; // about -1
    write_safetensors(file.path(), tensors);
    CHECK_THAT(sentence_of<file_error>(resume), ContainsSubstring("holds a negative number"));
}

} // namespace encoder_train_test
