// learn_thresholds as a user runs it: good input and bad.
#include "encoder_program.hpp"

#include <encoder/network/network.hpp>
#include <encoder/task/evaluate.hpp>

namespace encoder_thresholds_test {

using namespace encoder;
using programs::read, programs::write;
namespace fs = std::filesystem;

namespace {

const std::string quick = "--model model --epochs 1,1 --rate 1e-3 --batch 8 --threads 1 ";

std::vector<sequence> some_text(const model& m) {
    std::vector<sequence> text;
    for (std::int32_t i = 0; i < 12; ++i) {
        sequence s;
        for (std::int32_t t = 0; t <= 2 * i; ++t)
            s.push_back((7 * i + t * t) % static_cast<std::int32_t>(m.config.vocabulary));
        text.push_back(s);
    }
    return text;
}

} // namespace

TEST_CASE("learn_thresholds writes a model with thresholds, and a report") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    REQUIRE(
        p.run(
            quick +
            "--train text --evaluate pairs --stage soft,hard --target-macs 0.7 "
            "--baselines calibrated,hand-set,top-k,schedule --out out --json report --html page") ==
        0);
    CAPTURE(p.output, p.errors);
    CHECK(p.output.find("of the multiply-adds") != std::string::npos);
    const nlohmann::json report = nlohmann::json::parse(read(p.folder / "report"));
    for (const char* key :
         {"metric_dense", "metric_pruned", "macs_ratio", "tokens_kept", "seconds_dense",
          "seconds_pruned", "speedup", "soft_hard_gap", "thresholds", "curve", "baselines"})
        CHECK(report.contains(key));
    CHECK(report["baselines"].size() == 4);
    CHECK(report["tokens_kept"].size() == 3);
    CHECK(report["macs_ratio"].get<double>() < 0.95);
    CHECK(read(p.folder / "page").find("</html>") != std::string::npos);
    const model m = load_model(p.folder / "out");
    CHECK(m.tokens.numbers == report["thresholds"].get<std::vector<double>>());
    CHECK(m.exits.size() == m.layers.size());
    REQUIRE(m.curve.size() > 3);
    CHECK(m.curve[0].alpha == 0);
    CHECK(m.curve[0].macs_ratio == 1);
    CHECK(p.files() == std::vector<std::string>{"out", "page", "report"});

    // It runs as it is written, and with alpha 0 it is the dense model of the same weights.
    network net(m);
    const std::vector<sequence> text = some_text(m);
    std::vector<token_use> use;
    const encoder::matrix dropping = embed(net, text, "", &use);
    CHECK(use.back().kept < use.front().attending);
    token_pruning tokens = m.tokens;
    tokens.alpha = 0;
    net.set_token_pruning(tokens);
    const encoder::matrix alpha_0 = embed(net, text, "");
    net.set_token_pruning({});
    CHECK(alpha_0 == embed(net, text, ""));
    CHECK(alpha_0 != dropping);
}

TEST_CASE("learn_thresholds says of a metric that is undefined that it is, in table and page") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    write(p.folder / "alike", "1\tthe fox\tdogs\n1\tover\tthe dogs\n1\tquick\tfox\n");
    p.must_run(quick + "--train text --evaluate alike --out out --json report --html page");
    CHECK(programs::read_json(p.folder / "report")["metric_dense"].is_null());
    CHECK_THAT(p.output, ContainsSubstring("result                 undefined of undefined at"));
    CHECK_THAT(read(p.folder / "page"), ContainsSubstring("undefined instead of undefined"));
    for (const std::string& text : {p.output, read(p.folder / "page")})
        for (const char* number : {"nan", "inf"}) CHECK(text.find(number) == text.npos);
}

TEST_CASE("learn_thresholds learns to classify, pairs too, and similarity") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    const std::string three = "--model model --epochs 1,1,1 --batch 8 --threads 1 --out out ";
    REQUIRE(p.run(three + "--task classify --train classes --evaluate classes") == 0);
    model m = load_model(p.folder / "out");
    REQUIRE(m.head);
    CHECK(m.head->output.weight.rows() == 2);
    REQUIRE(p.run(three + "--task classify --train pair_classes --dev pair_classes "
                          "--scores per_query") == 0);
    CHECK(load_model(p.folder / "out").tokens.scores == pare::score_scale::per_query);
    // With its classifier, from what it gives; from labels, others can learn too.
    const std::string two = "--model out --epochs 1,1 --batch 8 --threads 1 --out again "
                            "--task classify --train pair_classes --stage soft,hard ";
    REQUIRE(p.run(two) == 0);
    REQUIRE(p.run("--model model --task classify --train classes --stage soft,hard --labels "
                  "--threads 1 --out again") == 0);
    REQUIRE(p.run(three + "--task similarity --train pairs --dropped gone") == 0);
    m = load_model(p.folder / "out");
    CHECK(!m.head);
    CHECK(m.exits.empty());
    CHECK(!m.tokens.carried);
    // What a classifier was learned on can be learned on again, and thresholds without training.
    REQUIRE(p.run("--model out --train text --stage calibrate --target-macs 0.8 --out again") == 0);
    // Thresholds that a model has are gone on with, times a factor that keeps to the budget.
    REQUIRE(p.run("--model again --train text --stage hard --epochs 1 --target-macs 0.8 --batch 8 "
                  "--out more") == 0);
    const std::vector<double> before = load_model(p.folder / "again").tokens.numbers,
                              after = load_model(p.folder / "more").tokens.numbers;
    REQUIRE(after.size() == before.size());
    for (std::size_t l = 1; l < before.size(); ++l)
        CHECK_THAT(after[l] * before[0], WithinRel(before[l] * after[0], 1e-6));
}

TEST_CASE("a killed run goes on, and ends as if nothing had happened") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    const std::string run = "--model model --train text --evaluate pairs --batch 8 --threads 1 "
                            "--stage soft,hard --epochs 2.5,1.3 ";
    REQUIRE(p.run(run + "--out whole") == 0);
    // Killed at some moment, again and again, until it is through.
    int status = 128;
    p.program = "timeout";
    for (double seconds = 0.04; status != 0 && seconds < 60; seconds *= 1.1)
        status = p.run("-s KILL " + std::to_string(seconds) + " '" PARE_LEARN_THRESHOLDS "' " +
                       run + "--out parts");
    REQUIRE(status == 0);
    CHECK(read(p.folder / "whole" / "model.safetensors") ==
          read(p.folder / "parts" / "model.safetensors"));
}

TEST_CASE("learn_thresholds: bad input gives one sentence, status 2 and no output") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    write(p.folder / "one_class", "0\ta\n0\tb\n");
    write(p.folder / "bad", "x\ta\n");
    write(p.folder / "short", "a\n");
    const auto refused = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        const auto before = p.files();
        CHECK(p.run(arguments) == 2);
        CAPTURE(p.errors);
        CHECK(p.output.empty());
        CHECK(p.errors.find(sentence) != std::string::npos);
        CHECK(std::count(p.errors.begin(), p.errors.end(), '\n') == 1);
        CHECK(p.files() == before);
    };
    refused("--model model", "--train is required");
    refused(quick + "--train nothing", "nothing: cannot be read");
    refused("--model nothing --train text", "nothing");
    refused(quick + "--train text --target-macs 0", "--target-macs is 0, expected a share");
    for (const std::string task : {"--train text ", "--task classify --train classes --stage "
                                                    "finetune,soft "})
        refused(quick + task + "--target-macs 0.001",
                "a share of 0.001 of the multiply-adds is below what the first layers take; the "
                "smallest that is possible is 0.");
    refused(quick + "--train text --target-macs 0.5 --lambda 1", "so not both");
    refused(quick + "--train text --lambda 1 --baselines top-k", "--baselines have no lambda");
    refused(quick + "--train text --lambda -1", "--lambda is -1, expected a number from 0 to 1e6");
    refused(quick + "--train text --temperature nan",
            "--temperature is nan, expected a number from 1e-6 to 1e6");
    refused(quick + "--train text --stage soft", "--epochs has 2 numbers for 1 stages");
    for (const std::string option : {"lambda", "alpha", "temperature", "threshold-rate"})
        refused(quick + "--train text --" + option + " 1e300", "--" + option + " is 1e+300");
    refused("--model model --train text --rate 1e300", "--rate is 1e+300, expected numbers > 0");
    for (const std::string stage : {"", "-1", "3", "calibrate,1"})
        refused("--model model --train text --stage '" + stage + "'",
                "' is not one of calibrate, finetune, hard, soft");
    refused("--model model --train text --rate 1,0", "--rate is 0, expected numbers > 0");
    refused("--model model --train text --rate -1", "--rate is -1, expected numbers > 0");
    refused("--model model --train text --epochs 1,0", "--epochs is 0, expected numbers > 0");
    refused("--model model --train text --rate 1,1,1", "--rate has 3 numbers for 2 stages");
    refused(quick + "--train text --labels", "--labels: text to distill has none");
    refused(quick + "--train text --precision fp16", "on the CPU, an encoder runs in fp32 only");
#ifndef PARE_HAVE_CUDA
    refused(quick + "--train text --device cuda",
            "this program was built without CUDA (PARE_CUDA=ON)");
#endif
    refused("--model model --train text --stage hard", "there are no thresholds to go on with");
    refused("--model model --task classify --train classes --stage finetune,hard",
            "there are no thresholds to go on with");
    refused(quick + "--train text --stage finetune,soft", "finetune needs labels");
    refused(quick + "--task classify --train classes --stage soft,finetune",
            "finetune comes before what drops tokens");
    refused(quick + "--task classify --train classes --stage soft,hard",
            "model has no classifier for 2 classes to learn from");
    refused("--model model --train text --stage calibrate --baselines top-k",
            "--baselines learn as long as soft and hard do");
    refused(quick + "--train text --out model", "is the model itself");
    refused(quick + "--train text --json no/where", "does not exist or cannot be written");
    refused(quick + "--task classify --train bad --stage soft,hard --labels", "line 1");
    refused(quick + "--task classify --train text --stage soft,hard", "text");
    refused(quick + "--train short --stage soft,hard", "too few to hold some out");
}

} // namespace encoder_thresholds_test
