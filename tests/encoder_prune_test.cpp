// The pruning pipeline on a small model, and prune_encoder as a user runs it: good input and bad.
#include "encoder_fixtures.hpp"
#include "encoder_program.hpp"
#include "encoder_random.hpp"
#include "support.hpp"

#include <encoder/pruning/verify.hpp>
#include <encoder/task/evaluate.hpp>
#include <encoder/training/tokens.hpp>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace encoder_prune_test {

namespace fs = std::filesystem;
using namespace encoder;
using programs::read, programs::write;

namespace {

/// Sentences, or with labels pairs of them or, for a classifier, sentences with classes.
calibration random_calibration(const model& m, random_source& random, bool labelled) {
    const task_kind kind = m.head || labelled ? task_of(m) : task_kind::distill;
    calibration data{{kind, random_texts(m, 60, 2, 20, random), {}, {}, {}}, {}};
    if (m.head && labelled)
        for (int i = 0; i < 60; ++i) data.examples.targets.push_back(i % 3);
    else if (labelled)
        for (int p = 0; p < 30; ++p) data.examples.targets.push_back(random.uniform(0, 1));
    return data;
}

/// With a classifier of three classes.
model classifying(model m) {
    m.head = head{{encoder::matrix::Random(3, m.config.hidden), encoder::vector::Random(3)}};
    return m;
}

} // namespace

TEST_CASE("a pruned model says what the dense one says under masks") {
    random_source random;
    CAPTURE(random);
    model m = load_model(fixtures::path("tiny_bert"));
    const bool classifies = GENERATE(false, true);
    CAPTURE(classifies);
    if (classifies) m = classifying(m);
    network net(m);
    for (const fisher_source source : {fisher_source::free, fisher_source::labels,
                                       fisher_source::none, fisher_source::magnitude})
        for (const tuning how : {tuning::none, tuning::scale, tuning::reconstruct})
            for (const double share : {0.85, 0.4, 0.1}) {
                CAPTURE(static_cast<int>(source), static_cast<int>(how), share);
                const calibration data =
                    random_calibration(m, random, source == fisher_source::labels);
                const unit_costs costs = unit_costs::multiply_adds(m.config, data.examples.texts);
                const criterion c(net, data, source, how == tuning::reconstruct, 1);
                kept_units kept = search(m, c.losses(), costs, share).kept;
                if (source != fisher_source::magnitude) rearrange(c, kept);
                std::vector<std::string> notes;
                const model small = tune(net, kept, data.examples.texts, how, 1e-2, notes);
                CHECK(notes.empty());
                CHECK(costs.of(small) <= share * costs.of(m));
                network pruned(small);
                const auto masked = with_masks(net, m, small, kept);
                const auto texts = random_texts(m, 10, 2, 20, random);
                CHECK((embed(pruned, texts, "") - embed(*masked, texts, "")).cwiseAbs().maxCoeff() <
                      1e-5);
            }
}

TEST_CASE("what prunes heads and filters keeps the classifier and the tokens to drop") {
    random_source random;
    CAPTURE(random);
    model m = classifying(load_model(fixtures::path("tiny_bert")));
    m.tokens = {token_pruning::rule::threshold, {0.5, 0.75, 1}, 2, false};
    m.curve = {{1, 0.5, 0.25}};
    m.exits = plain_exits(m);
    network net(m);
    const calibration data = random_calibration(m, random, false);
    const auto kept = search(m, criterion(net, data, fisher_source::magnitude, false, 1).losses(),
                             unit_costs::multiply_adds(m.config, data.examples.texts), 0.5)
                          .kept;
    std::vector<std::string> notes;
    for (const tuning how : {tuning::none, tuning::scale, tuning::reconstruct}) {
        const model small = tune(net, kept, data.examples.texts, how, 1e-2, notes);
        CHECK(small.curve.empty()); // that of the dense model
        for (const model& pruned : {small, expand(m, small, kept)}) {
            REQUIRE(pruned.head);
            CHECK(pruned.head->output.weight == m.head->output.weight);
            CHECK(pruned.head->output.bias == m.head->output.bias);
            CHECK(pruned.tokens.numbers == m.tokens.numbers);
            CHECK(pruned.tokens.alpha == 2);
            CHECK_FALSE(pruned.tokens.carried);
            const network fits(pruned); // or it throws: exits see the heads that are left
        }
    }
}

TEST_CASE("gradients of logits without labels have the classes' Fisher information on average") {
    random_source random;
    CAPTURE(random);
    const model m = classifying(load_model(fixtures::path("tiny_bert")));
    network net(m);
    calibration one = random_calibration(m, random, false);
    one.examples.texts.resize(1);
    const auto energies = [&](fisher_source source, std::uint64_t seed) { // of each sublayer
        Eigen::VectorXd all(2 * static_cast<Eigen::Index>(m.layers.size()));
        const auto curves = criterion(net, one, source, false, seed).losses();
        for (std::size_t i = 0; i < curves.size(); ++i)
            all(static_cast<Eigen::Index>(i)) = curves[i].loss.back();
        return all;
    };
    Eigen::VectorXd found = Eigen::VectorXd::Zero(2 * static_cast<Eigen::Index>(m.layers.size())),
                    expected = found;
    constexpr int draws = 1000;
    for (int i = 0; i < draws; ++i)
        found += energies(fisher_source::free, static_cast<std::uint64_t>(i)) / draws;
    const encoder::matrix logits = embed(net, one.examples.texts, "");
    const Eigen::ArrayXd p = logits.row(0).cast<double>().array().exp();
    for (int label = 0; label < 3; ++label) {
        one.examples.targets = {static_cast<double>(label)};
        expected += p(label) / p.sum() * energies(fisher_source::labels, 0);
    }
    for (Eigen::Index i = 0; i < found.size(); ++i)
        CHECK_THAT(found(i), WithinRel(expected(i), 0.3));
}

TEST_CASE("the surgeon's curves are of all units, and what it keeps fits the budget") {
    random_source random;
    CAPTURE(random);
    model m = load_model(fixtures::path("tiny_bert"));
    const bool classifies = GENERATE(false, true);
    if (classifies) m = classifying(m);
    network net(m);
    for (const fisher_source source :
         {fisher_source::free, fisher_source::labels, fisher_source::none}) {
        CAPTURE(static_cast<int>(source), classifies);
        calibration data = random_calibration(m, random, source == fisher_source::labels);
        data.beside = {data.examples.texts.front()};
        const surgeon s(net, data, source, 1);
        REQUIRE(s.losses().units.size() == 2 * m.layers.size());
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            const auto& of_units = s.losses().units;
            CHECK(of_units[2 * l].units() == m.layers[l].heads);
            CHECK(of_units[2 * l + 1].units() == m.layers[l].filters());
            CHECK(of_units[2 * l].loss.back() > 0);
        }
        std::size_t tokens = 0;
        for (const sequence& text : data.all()) tokens += text.size();
        for (const pare::sublayer_statistics& of : s.weights()) {
            std::size_t seen = 0;
            for (const std::vector<float>& squares : of.squares) {
                seen += squares.size();
                for (const float x : squares) REQUIRE(x >= 0);
            }
            CHECK(seen == tokens);
        }
        CHECK(s.weights().empty() == (source == fisher_source::none));
        const unit_costs costs = unit_costs::multiply_adds(m.config, data.examples.texts);
        const found_units found = search(m, s.losses(), costs, 0.5);
        const kept_units& kept = found.kept;
        CHECK(found.bound <= found.loss);
        CHECK(found.bound > 0);
        std::vector<std::string> notes;
        const model small =
            tune(net, kept, data.all(), tuning::reconstruct, 1e-1, notes, s.weights());
        CHECK(notes.empty());
        CHECK(costs.of(small) <= 0.5 * costs.of(m));
        CHECK(costs.of(small) > 0.45 * costs.of(m));
    }
}

TEST_CASE("labels that the model meets tell the surgeon no less than the texts") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    network net(m);
    calibration data = random_calibration(m, random, true);
    data.beside = {data.examples.texts.front()};
    const encoder::matrix e = embed(net, data.examples.texts, "");
    for (std::size_t p = 0; p < data.examples.targets.size(); ++p) {
        const auto at = static_cast<Eigen::Index>(2 * p);
        data.examples.targets[p] = static_cast<double>(e.row(at).dot(e.row(at + 1)));
    }
    const surgeon labelled(net, data, fisher_source::labels, 1);
    data.examples.targets.clear();
    data.examples.kind = task_kind::distill;
    const surgeon free(net, data, fisher_source::free, 1);
    for (std::size_t s = 0; s < free.losses().units.size(); ++s) {
        CAPTURE(s);
        const std::vector<double>&found = labelled.losses().units[s].loss,
              &expected = free.losses().units[s].loss;
        REQUIRE(found.size() == expected.size());
        CHECK(expected.back() > 0);
        for (std::size_t i = 0; i < found.size(); ++i)
            CHECK_THAT(found[i], WithinAbs(expected[i], 1e-4 * expected.back()));
    }
}

TEST_CASE("reconstruction brings the pruned model closer to the dense one") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    network net(m);
    const calibration data = random_calibration(m, random, false);
    const criterion c(net, data, fisher_source::free, true, 1);
    const auto kept =
        search(m, c.losses(), unit_costs::multiply_adds(m.config, data.examples.texts), 0.5).kept;
    std::vector<std::string> notes;
    const auto cosine = [&](tuning how) {
        network pruned(tune(net, kept, data.examples.texts, how, 1e-2, notes));
        return mean_cosine(embed(net, data.examples.texts, ""),
                           embed(pruned, data.examples.texts, ""));
    };
    CHECK(cosine(tuning::reconstruct) > cosine(tuning::none));
}

TEST_CASE(
    "text of other kinds is calibrated on beside the user's, and does not change what costs") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    std::string others;
    for (int i = 0; i < 30; ++i) others += "lazy dogs over the quick fox and\n";
    programs::write(p.folder / "others", others);
    const model m = load_model(p.folder / "model");
    const tokenizer words(p.folder / "model", m.config);
    const auto calibrate = [&](std::size_t samples, const fs::path& generic) {
        return read_calibration(p.folder / "text", false, samples, 1, words, m, generic);
    };
    for (const std::size_t samples : {5, 25, 1000}) {
        const calibration alone = calibrate(samples, {});
        const calibration both = calibrate(samples, p.folder / "others");
        CHECK(both.examples.texts == alone.examples.texts);
        REQUIRE(both.beside.size() == alone.beside.size() + std::min<std::size_t>(samples, 30));
        CHECK(std::equal(alone.beside.begin(), alone.beside.end(), both.beside.begin()));
        CHECK(both.all().size() == both.examples.texts.size() + both.beside.size());
    }
    const calibration labelled =
        read_calibration(p.folder / "pairs", true, 9, 1, words, m, p.folder / "others");
    CHECK(labelled.examples.targets.size() == 9);
    CHECK(labelled.beside.back() == calibrate(9, p.folder / "others").beside.back());
    const std::string run = "--model model --calibrate text --json r.json --macs 0.5 --out ";
    p.must_run(run + "alone");
    const double macs = programs::read_json(p.folder / "r.json")["macs_ratio"];
    p.must_run(run + "both --generic others");
    CHECK(std::abs(programs::read_json(p.folder / "r.json")["macs_ratio"].get<double>() - macs) <
          0.05);
    CHECK(programs::read(p.folder / "alone/model.safetensors") !=
          programs::read(p.folder / "both/model.safetensors"));
}

#ifdef _OPENMP
TEST_CASE("pruning does not depend on the number of threads") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    const calibration data = random_calibration(m, random, false);
    const bool surgical = GENERATE(true, false);
    CAPTURE(surgical);
    const auto weights = [&](int threads) {
        omp_set_num_threads(threads);
        network net(m);
        std::vector<std::string> notes;
        const unit_costs costs = unit_costs::multiply_adds(m.config, data.examples.texts);
        if (surgical) {
            const surgeon s(net, data, fisher_source::free, 1);
            return tune(net, search(m, s.losses(), costs, 0.5).kept, data.examples.texts,
                        tuning::reconstruct, 1e-2, notes, s.weights());
        }
        const criterion c(net, data, fisher_source::free, true, 1);
        return tune(net, search(m, c.losses(), costs, 0.5).kept, data.examples.texts,
                    tuning::reconstruct, 1e-2, notes);
    };
    const int before = omp_get_max_threads();
    const model one = weights(1);
    for (const int threads : {2, 5}) {
        const model many = weights(threads);
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            REQUIRE(many.layers[l].output.weight.size() == one.layers[l].output.weight.size());
            CHECK((many.layers[l].output.weight - one.layers[l].output.weight).cwiseAbs().sum() <
                  1e-3);
        }
    }
    omp_set_num_threads(before);
}
#endif

TEST_CASE("correlations of known values, ties included") {
    similarity_task task;
    encoder::matrix e(4, 2); // cosines with the first row: 1, 0.8, 0, 0.8
    e << 1, 0, 0.8f, 0.6f, 0, 1, 0.8f, -0.6f;
    task.pairs = {{0, 0}, {0, 1}, {0, 2}, {0, 3}};
    task.scores = {4, 3, 1, 2};
    // Ranks 4, 2.5, 1, 2.5 against 4, 3, 1, 2.
    CHECK_THAT(correlate(task, e).spearman, WithinAbs(4.5 / std::sqrt(4.5 * 5.0), 1e-6));
    task.scores = {10, 8, 0, 8}; // linear in the cosines
    CHECK_THAT(correlate(task, e).pearson, WithinAbs(1, 1e-6));
    CHECK_THAT(correlate(task, e).spearman, WithinAbs(1, 1e-6));
}

TEST_CASE("prune_encoder writes a smaller model that loads again, and a report") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    for (const std::string how :
         {"--calibrate text", "--calibrate text --tune scale --criterion fisher --rearrange",
          "--calibrate text --fisher none", "--calibrate text --threads 1 --tune none --samples 7",
          "--calibrate pairs --fisher labels",
          "--calibrate pairs --fisher labels --criterion fisher"}) {
        CAPTURE(how);
        p.must_run("--model model --evaluate pairs --macs 0.5 --out small --json r.json " + how);
        CHECK(p.errors.empty());
        const auto report = nlohmann::json::parse(read(p.folder / "r.json"));
        for (const char* key :
             {"macs_ratio",         "params_dense",        "params_pruned",   "bytes_dense",
              "bytes_pruned",       "spearman_dense",      "spearman_pruned", "pearson_dense",
              "pearson_pruned",     "cosine_to_dense",     "seconds_fisher",  "seconds_search",
              "seconds_rearrange",  "seconds_tune",        "seconds_total",   "peak_rss_mb",
              "tokens_per_s_dense", "tokens_per_s_pruned", "speedup",         "threads",
              "heads_kept",         "queries_kept",        "values_kept",     "filters_kept",
              "loss_expected",      "loss_bound"}) {
            CAPTURE(key);
            CHECK(report.contains(key));
        }
        CHECK(report["macs_ratio"] <= 0.5);
        CHECK(report["bytes_pruned"] < report["bytes_dense"]);
        const model small = load_model(p.folder / "small");
        for (std::size_t l = 0; l < small.layers.size(); ++l) {
            CHECK(report["heads_kept"][l] == small.layers[l].heads);
            CHECK(report["queries_kept"][l] == small.layers[l].queries());
            CHECK(report["values_kept"][l] == small.layers[l].values());
            CHECK(report["filters_kept"][l] == small.layers[l].filters());
        }
        CHECK(p.files() == std::vector<std::string>{"r.json", "small"});
    }
    SECTION("a pruned model can be pruned again, and the whole budget keeps all") {
        REQUIRE(p.run("--model small --calibrate text --macs 0.7 --out smaller") == 0);
        REQUIRE(p.run("--model small --calibrate text --macs 1 --out same --json s.json") == 0);
        CHECK(nlohmann::json::parse(read(p.folder / "s.json"))["macs_ratio"] == 1.0);
    }
}

TEST_CASE("prune_encoder says of a metric that is undefined that it is, in table and page") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    write(p.folder / "alike", "1\tthe fox\tdogs\n1\tover\tthe dogs\n1\tquick\tfox\n");
    p.must_run("--model model --calibrate text --evaluate alike --macs 0.5 --out small --json "
               "report --html page");
    CHECK(programs::read_json(p.folder / "report")["spearman_dense"].is_null());
    CHECK_THAT(p.output, ContainsSubstring("Spearman x 100             undefined     undefined "
                                           "undefined\n"));
    CHECK_THAT(read(p.folder / "page"), ContainsSubstring("<dd>undefined</dd>"));
    for (const std::string& text : {p.output, read(p.folder / "page")})
        for (const char* number : {"nan", "inf"}) CHECK(text.find(number) == text.npos);
}

TEST_CASE("prune_encoder keeps the tokens to drop, and compares models without dropping them") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    model m = load_model(p.folder / "model");
    m.tokens = {token_pruning::rule::threshold, {0.8, 0.9, 1}};
    m.curve = {{1, 0.5, 0.25}};
    save_model(m, p.folder / "model", p.folder / "dropping");
    REQUIRE(p.run("--model dropping --calibrate text --macs 0.5 --out small --json d.json") == 0);
    REQUIRE(p.run("--model model --calibrate text --macs 0.5 --out plain --json r.json") == 0);
    const model small = load_model(p.folder / "small");
    CHECK(small.tokens.numbers == m.tokens.numbers);
    CHECK(small.curve.empty());
    const auto report = [&](const char* name) {
        return nlohmann::json::parse(read(p.folder / name));
    };
    CHECK_THAT(report("d.json")["cosine_to_dense"].get<double>(),
               WithinAbs(report("r.json")["cosine_to_dense"].get<double>(), 1e-6));
}

TEST_CASE("prune_encoder prunes classifiers of texts and of pairs") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    model m = load_model(p.folder / "model");
    m.head = head{{encoder::matrix::Random(2, 24), encoder::vector::Random(2)}};
    save_model(m, p.folder / "model", p.folder / "classifier");
    std::string plain;
    const std::string labelled = read(p.folder / "pair_classes");
    for (std::size_t at = 0; at < labelled.size(); at = labelled.find('\n', at) + 1)
        plain += labelled.substr(at + 2, labelled.find('\n', at) - at - 1);
    write(p.folder / "plain", plain);
    for (const std::string how :
         {"--calibrate text --evaluate classes", "--calibrate text --fisher none",
          "--calibrate classes --fisher labels", "--calibrate plain --evaluate pair_classes",
          "--calibrate plain --criterion fisher --rearrange --html page.html",
          "--calibrate pair_classes --fisher labels --evaluate pair_classes --html page.html"}) {
        CAPTURE(how);
        p.must_run("--model classifier --macs 0.5 --out small --json r.json " + how);
        const auto report = nlohmann::json::parse(read(p.folder / "r.json"));
        CHECK(report.contains("accuracy_dense") == (how.find("--evaluate") < how.size()));
        CHECK(report["same_class_as_dense"] > 0);
        CHECK(load_model(p.folder / "small").head->output.weight == m.head->output.weight);
    }
    const auto fails = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        CHECK(p.run("--model classifier --out none " + arguments) == 2);
        CHECK_THAT(p.errors, ContainsSubstring(sentence));
        CHECK_FALSE(fs::exists(p.folder / "none"));
    };
    fails("--calibrate pair_classes", "pair_classes: line 1 does not have one or two columns");
    fails("--calibrate text --fisher labels", "text: line 1 does not have two or three columns");
    write(p.folder / "three", "0\ta\n1\tb\n2\tc\n");
    fails("--calibrate three --fisher labels", "three: has the label 2, the model 2 classes");
    fails("--calibrate text --evaluate three", "three: has the label 2, the model 2 classes");
    write(p.folder / "alike", "1\ta\n1\tb\n");
    fails("--calibrate alike --fisher labels", "alike: all labels are the same");
}

TEST_CASE("prune_encoder: bad input gives one sentence, status 2 and no output") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string good = "--model model --calibrate text --out small --json r.json ";
    const auto fails = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        const int status = p.run(arguments);
        CAPTURE(p.errors, p.output);
        CHECK(status == 2);
        CHECK_THAT(p.errors, ContainsSubstring(sentence));
        CHECK(std::count(p.errors.begin(), p.errors.end(), '\n') == 1);
        CHECK(p.output.empty());
        for (const char* output : {"small", "r.json", ".small.pare", ".r.json.pare"})
            CHECK_FALSE(fs::exists(p.folder / output));
    };
    SECTION("arguments") {
        fails("", "--model");
        fails(good + "--what", "--what");
        for (const char* share : {"0", "-1", "1.5", "nan"})
            fails(good + "--macs " + share, "--macs");
        fails(good + "--macs 1e-9", "a budget of 1e-09 of heads and filters keeps nothing");
        fails(good + "--macs half", "--macs");
        fails(good + "--macs 0.5 --threads 01025", "1025"); // to the base of 10
        fails(good + "--macs 0.5 --budget macs=0.5", "expected one");
        for (const char* budget : {"time=1", "macs", "macs=", "macs=x"})
            fails(good + "--budget " + budget,
                  "expected macs=SHARE, params=SHARE or latency=SHARE");
        fails(good + "--budget params=2", "--budget is 2, expected a share in (0, 1]");
        fails(good + "--precision fp16", "on the CPU, an encoder runs in fp32 only");
#ifndef PARE_HAVE_CUDA
        fails(good + "--device cuda", "this program was built without CUDA (PARE_CUDA=ON)");
#endif
        fails(good + "--budget latency=0.5 --latency-batch 12", "expected SEQUENCESxTOKENS");
        fails(good + "--budget latency=0.5 --latency-batch 1x9999", "batches of 1 x 9999 tokens");
        fails(good + "--budget latency=0.5 --latency-batch 999999999x2", "1048576 in all");
        fails(good + "--latency-fit", "go with --budget latency=SHARE");
        fails(good + "--latency-times t", "go with --budget latency=SHARE");
        fails(good + "--latency-batch 1x8", "go with --budget latency=SHARE");
        fails(good + "--tune none --ridge 1", "--ridge goes with --tune reconstruct or scale");
        fails(good + "--samples 0", "--samples");
        fails(good + "--ridge -1", "--ridge");
        for (const std::string word : {"all", "", "1", "-1", "None"})
            fails(good + "--tune '" + word + "'",
                  "--tune: '" + word + "' is not one of none, reconstruct, scale");
        fails(good + "--criterion true", "'true' is not one of fisher, surgeon");
        fails(good + "--export 1", "'1' is not one of none, onnx");
        fails(good + "--rearrange", "--rearrange goes with --criterion fisher");
        fails("--model model --calibrate pairs --fisher labels --criterion fisher --generic text "
              "--out small",
              "--generic has no labels");
        fails(good + "--generic nothing", "nothing");
        fails("--model model --calibrate text --out no/such/small", "no/such");
        fails("--model model --calibrate text --out small --json no/such/r.json", "no/such");
        fails("--model nothing --calibrate text --out small", "nothing");
        fails("--model model --calibrate text --out model", "model");
    }
    SECTION("text") {
        fails("--model model --calibrate nothing --out small", "nothing");
        fails("--model model --calibrate model --out small", "model");
        write(p.folder / "text", "");
        fails(good, "text: holds no document");
        write(p.folder / "text", " \n\n\t\n");
        fails(good, "text: holds no document");
        write(p.folder / "text", "fine\nnot \xff fine\n");
        fails(good, "text: line 2 is not UTF-8 at byte 5");
    }
    SECTION("pairs") {
        const std::string evaluate = good + "--evaluate pairs";
        write(p.folder / "pairs", "1\tone\ttwo\n2\tone two\n");
        fails(evaluate, "pairs: line 2");
        write(p.folder / "pairs", "1\tone\ttwo\tthree\n");
        fails(evaluate, "pairs: line 1");
        write(p.folder / "pairs", "much\tone\ttwo\n");
        fails(evaluate, "'much'");
        write(p.folder / "pairs", "nan\tone\ttwo\n");
        fails(evaluate, "'nan'");
        write(p.folder / "pairs", "");
        fails(evaluate, "pairs: holds no pair");
        write(p.folder / "pairs", "1\ta\tb\n1\tc\td\n");
        fails("--model model --calibrate pairs --fisher labels --out small",
              "all scores are the same");
    }
    SECTION("model") {
        const fs::path weights = p.folder / "model" / "model.safetensors";
        const std::string bytes = read(weights);
        write(weights, bytes.substr(0, bytes.size() / 2));
        fails(good, "model.safetensors");
        std::string nan = bytes;
        for (std::size_t i = 0; i < 4; ++i) nan[nan.size() - 4 + i] = '\xff';
        write(weights, nan);
        fails(good, "model.safetensors");
        fs::remove(weights);
        fails(good, "model.safetensors");
        write(weights, bytes);
        write(p.folder / "model" / "config.json", "{");
        fails(good, "config.json");
        fs::remove(p.folder / "model" / "vocab.txt");
        fails(good, "model");
    }
}

TEST_CASE("prune_encoder keeps to budgets of parameters and of time") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    REQUIRE(p.run("--model model --calibrate text --budget params=0.6 --json r.json --out small "
                  "--evaluate pairs --front front.json --html page.html") == 0);
    CHECK(read(p.folder / "page.html").find("Filters kept, layer by layer") != std::string::npos);
    const auto front = nlohmann::json::parse(read(p.folder / "front.json"));
    REQUIRE(front.size() > 10);
    CHECK(front[0]["share"] == 0);
    CHECK(front.back()["share"] == 1);
    CHECK(front.back()["loss"] == 0);
    for (std::size_t i = 0; i < front.size(); ++i) {
        CHECK(front[i]["heads"].size() == 3);
        CHECK(front[i]["filters"].size() == 3);
        if (i == 0) continue;
        CHECK(front[i]["share"] > front[i - 1]["share"]);
        CHECK(front[i]["loss"] < front[i - 1]["loss"]);
    }
    const model dense = load_model(p.folder / "model"), small = load_model(p.folder / "small");
    const unit_costs counts = unit_costs::parameters(dense.config);
    CHECK(counts.of(small) <= 0.6 * counts.of(dense));
    CHECK(counts.of(small) > 0.5 * counts.of(dense));
    // How well a promise of time is kept is measured on models that are worth it.
    REQUIRE(p.run("--model model --calibrate text --budget latency=0.9 --latency-batch 4x16 "
                  "--json r.json --out small") == 0);
    const auto report = nlohmann::json::parse(read(p.folder / "r.json"));
    CHECK(report["latency_promised"] == 0.9);
    CHECK(report["latency_achieved"] > 0);
    CHECK(p.output.find("of the dense model's, promised 0.900") != std::string::npos);
}

TEST_CASE("prune_encoder keeps times in a file, and fits them") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string timed = "--model model --calibrate text --budget latency=0.9 --out small "
                              "--json r.json --latency-times times.json --latency-batch ";
    const auto times = [&] { return nlohmann::json::parse(read(p.folder / "times.json")); };
    REQUIRE(p.run(timed + "4x16") == 0);
    const auto first = times();
    REQUIRE(first.size() == 1);
    REQUIRE(first.front().size() == 1);
    REQUIRE(p.run(timed + "2x8 --latency-fit") == 0);
    const auto report = nlohmann::json::parse(read(p.folder / "r.json"));
    for (const char* units : {"latency_heads", "latency_filters"})
        for (const char* number : {"constant", "each", "knee", "error"})
            CHECK(report[units][number] >= 0);
    CHECK(p.output.find("latency of filters") != std::string::npos);
    REQUIRE(times().front().size() == 2);
    REQUIRE(p.run(timed + "4x16") == 0); // reads what is there, and adds to it
    const std::string key = first.front().items().begin().key();
    const auto before = first.front()[key], after = times().front()[key];
    CHECK(after["dense"] == before["dense"]);
    for (const auto& [queries, by_values] : before["heads"].items())
        for (const auto& [values, of] : by_values.items()) // others may have been chosen now
            for (const auto& [heads, time] : of.items())
                CHECK(after["heads"][queries][values][heads] == time);
    for (const auto& [filters, time] : before["filters"].items())
        CHECK(after["filters"][filters] == time);

    const auto fails = [&](const nlohmann::json& content, const std::string& sentence) {
        write(p.folder / "times.json",
              content.is_string() ? content.get<std::string>() : content.dump());
        const std::string kept = read(p.folder / "times.json");
        CAPTURE(kept);
        fs::remove_all(p.folder / "small");
        CHECK(p.run(timed + "4x16") == 2);
        CHECK_THAT(p.errors, ContainsSubstring(sentence));
        CHECK(read(p.folder / "times.json") == kept);
        CHECK_FALSE(fs::exists(p.folder / "small"));
    };
    const std::string here = first.items().begin().key();
    const auto with = [&](const char* field, const nlohmann::json& value) {
        nlohmann::json all = first;
        all[here][key][field] = value;
        return all;
    };
    fails("[1", "times.json: not valid JSON");
    fails("[1]", "times.json: holds a JSON array");
    fails({{here, 1}}, "is not an object");
    fails({{"name", "theirs"}}, "'name' is not an object of times by shape; name another file");
    fails({{"scripts", {{"test", "theirs"}}}}, "the times of 'test' lack 'dense'; name another");
    fails({{"theirs", nlohmann::json::object()}}, "'theirs' is not an object of times");
    fails({{here, {{key, 1}}}}, "lack 'dense'");
    fails(with("dense", -1), "dense is -1, not a time");
    fails(with("heads", 1), "heads is not an object");
    const std::string size = std::to_string(load_model(p.folder / "model").config.head_size);
    const std::string name = "heads of " + size, both = name + " and " + size;
    fails(with("heads", {{size, {{size, {{"0", 0}}}}}}), both + " does not hold the widths 0 and");
    fails(with("heads", {{size, {{size, {{"0", 0}, {"99999", 1}}}}}}),
          both + " holds the width '99999'");
    fails(with("heads", {{"99999", {{size, {{"0", 0}}}}}}), "heads holds the width '99999'");
    fails(with("heads", {{size, {{"99999", {{"0", 0}}}}}}), name + " holds the width '99999'");
    fails(with("heads", {{size, 1}}), name + " is not an object");
    fails(with("heads", {{size, {{size, 1}}}}), both + " is not an object");
    fails(with("filters", {{"-1", 0}}), "filters holds the width '-1'");
    fails(with("filters", {{"0", "x"}}), "filters 0 is \"x\", not a time");
}

TEST_CASE("prune_encoder refuses a share of the time below what it cannot prune") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string timed = "--model model --calibrate text --out small --json r.json "
                              "--latency-times times.json --latency-batch 2x8 --budget latency=";
    REQUIRE(p.run(timed + "0.9") == 0);
    auto times = nlohmann::json::parse(read(p.folder / "times.json"));
    auto& here = times.front().front();
    here["dense"] = 1;
    const std::string size = std::to_string(load_model(p.folder / "model").config.head_size);
    here["heads"] = {{size, {{size, {{"0", 0}, {"3", 0.1}}}}}};
    here["filters"] = {{"0", 0}, {"40", 0.2}};
    write(p.folder / "times.json", times.dump());
    fs::remove_all(p.folder / "small");
    CHECK(p.run(timed + "0.09") == 2); // of 1 - 3 * 0.3
    CHECK_THAT(p.errors, ContainsSubstring("below what remains without heads and filters, 0.1"));
    CHECK_FALSE(fs::exists(p.folder / "small"));
}

TEST_CASE("prune_encoder replaces an older output only by a complete one") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    REQUIRE(p.run("--model model --calibrate text --out small") == 0);
    const std::string before = read(p.folder / "small" / "model.safetensors");
    CHECK(p.run("--model model --calibrate nothing --out small") == 2);
    CHECK(read(p.folder / "small" / "model.safetensors") == before);
    REQUIRE(p.run("--model model --calibrate text --macs 0.3 --out small") == 0);
    CHECK(read(p.folder / "small" / "model.safetensors").size() < before.size());
    fs::create_directory(p.folder / "precious");
    write(p.folder / "precious" / "diary", "dear");
    CHECK(p.run("--model model --calibrate text --out precious") == 2);
    CHECK(read(p.folder / "precious" / "diary") == "dear");
}

TEST_CASE("units whose inputs are constant are pruned") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const model plain = load_model(p.folder / "model");
    const auto prunes = [&](const model& m, const std::string& how) {
        CAPTURE(how);
        fs::remove_all(p.folder / "constant");
        save_model(m, p.folder / "model", p.folder / "constant");
        const int status =
            p.run("--threads 1 --model constant --calibrate text --out small " + how);
        INFO(p.errors);
        CHECK(status == 0);
    };
    for (const std::string how :
         {"--ridge 0", "--fisher none --tune scale", "--criterion fisher"}) {
        for (const float noise : {0.f, 1e-8f}) {
            CAPTURE(noise);
            model m = plain; // but for rounding
            m.layers[0].value.weight *= noise;
            m.layers[1].intermediate.weight *= noise;
            prunes(m, how);
        }
        model m = plain;
        m.layers[1].value.weight.setZero();
        m.layers[1].value.bias.setConstant(1e4f);
        prunes(m, how);
        m = plain; // filters that are never active, to the last digits
        for (layer& l : m.layers) l.intermediate.bias.setConstant(-50);
        prunes(m, how);
        m = plain; // every position alike
        m.position_embeddings.setZero();
        m.word_embeddings.rowwise() = m.word_embeddings.row(7).eval();
        prunes(m, how);
    }
}

} // namespace encoder_prune_test
