// Heads for classification and regression: what transformers makes of the same weights, what is
// refused, what is written, and the programs on them.
#include "encoder_fixtures.hpp"
#include "encoder_program.hpp"
#include "encoder_random.hpp"
#include "support.hpp"

#include <encoder/files/heads.hpp>
#include <encoder/network/network.hpp>
#include <encoder/pruning/prune.hpp>
#include <encoder/task/metrics.hpp>
#include <encoder/task/quality.hpp>

#include <cmath>

namespace encoder_heads_test {

using namespace encoder;
using Eigen::Index;
using nlohmann::json;
using programs::read, programs::write;
namespace fs = std::filesystem;

namespace {

constexpr Index hidden = 24; // of tiny_bert

/// Tensor `k` of the fixture.
dense formula(Index rows, int k) {
    dense d{encoder::matrix(rows, hidden), encoder::vector(rows)};
    const auto fill = [](float* to, Index n, int tensor) {
        for (Index j = 0; j < n; ++j) {
            const auto i = static_cast<double>(j);
            to[j] = static_cast<float>(0.4 * std::cos(5 * tensor + 0.7 * i + 0.001 * i * i));
        }
    };
    fill(d.weight.data(), d.weight.size(), k);
    fill(d.bias.data(), rows, k + 1);
    return d;
}

model with_head(int outputs, const char* model_type = "bert",
                head::subject of = head::subject::text) {
    model m = load_model(fixtures::path("tiny_bert"));
    const stock_head* const stock = find_stock_head(model_type, of);
    REQUIRE(stock != nullptr);
    m.others.clear();
    m.prefix = "bert.";
    m.config.pooling = pooling::cls;
    m.head = head{formula(outputs, of == head::subject::text ? 3 : 1), std::nullopt, stock->between,
                  stock, of};
    if (of == head::subject::text) m.head->before = formula(hidden, 1);
    m.json["architectures"] = {stock->architecture};
    return m;
}

json labels(std::initializer_list<const char*> names) {
    json all = json::object();
    for (const char* name : names) all[std::to_string(all.size())] = name;
    return all;
}

/// With names for the outputs, as a folder beside a program's text.
void save(model m, const json& more, const fs::path& to) {
    m.json.merge_patch(more);
    save_model(m, fixtures::path("tiny_bert"), to);
}

encoder::matrix outputs_of(const model& m, const std::vector<sequence>& texts) {
    network net(m);
    return embed(net, texts, "");
}

std::string error_of(const fs::path& folder) {
    return fixtures::error_of([&] { load_model(folder); });
}

std::vector<std::string> tensors_in(const fs::path& folder) {
    std::vector<std::string> names;
    const safetensors_file file(folder / "model.safetensors");
    for (const auto& [name, entry] : file.entries()) names.push_back(name);
    return names;
}

} // namespace

TEST_CASE("heads of all families say what transformers' say") {
    const json fixture = fixtures::json("heads.json");
    const std::vector<sequence> texts = fixture["sequences"];
    CHECK(fixture["heads"].size() == 18);
    for (const json& expected : fixture["heads"]) {
        const std::string type = expected["model_type"];
        const std::string architecture = expected["architecture"];
        CAPTURE(architecture);
        const auto asks_for = [&](const char* what) {
            return architecture.find(what) != architecture.npos;
        };
        const auto of = asks_for("ForToken")      ? head::subject::token
                        : asks_for("ForQuestion") ? head::subject::span
                                                  : head::subject::text;
        std::vector<std::vector<double>> logits;
        const auto add = [&](const json& row) { logits.push_back(row.get<std::vector<double>>()); };
        for (const json& of_text : expected["logits"])
            if (of == head::subject::text)
                add(of_text);
            else
                for (const json& of_token : of_text) add(of_token);
        const model m = with_head(static_cast<int>(logits[0].size()), type.c_str(), of);
        CHECK(m.head->stock->architecture == expected["architecture"]);
        std::vector<std::string> names;
        for (const std::string& layer :
             {of == head::subject::text ? detail::before_name(*m.head, "bert.") : "",
              detail::output_name(*m.head)})
            if (!layer.empty())
                for (const char* part : {".weight", ".bias"}) names.push_back(layer + part);
        CHECK(names == expected["tensors"].get<std::vector<std::string>>());
        batch b;
        for (const sequence& text : texts) b.append(text);
        encoder::matrix found;
        network(m).forward(b, found);
        REQUIRE(found.rows() == static_cast<Index>(logits.size()));
        for (std::size_t s = 0; s < logits.size(); ++s)
            for (std::size_t k = 0; k < logits[s].size(); ++k)
                CHECK_THAT(static_cast<double>(found(static_cast<Index>(s), static_cast<Index>(k))),
                           WithinAbs(logits[s][k], 1e-5));
    }
    CHECK(find_stock_head("camembert")->output == std::string("classifier.out_proj"));
    CHECK(find_stock_head("gpt2") == nullptr);
}

TEST_CASE("a model with a head is read, and written as it was") {
    const fixtures::scratch_folder folder;
    random_source random;
    const int outputs = GENERATE(1, 2, 3);
    CAPTURE(outputs);
    const model m = with_head(outputs);
    json more = {{"problem_type", outputs == 1 ? "regression" : "single_label_classification"}};
    if (outputs == 3) more["id2label"] = labels({"no", "maybe", "yes"});
    if (outputs == 1) more["id2label"] = labels({"relevance"});
    save(m, more, folder / "first");
    const model once = load_model(folder / "first");
    REQUIRE(once.head);
    CHECK(once.head->stock == m.head->stock);
    CHECK(once.head->is_score() == (outputs == 1));
    CHECK(once.config.pooling == pooling::cls);
    CHECK(once.others.empty());
    CHECK(task_of(once) == (outputs == 1 ? task_kind::regress : task_kind::classify));
    save_model(once, folder / "first", folder / "second");
    CHECK(read(folder / "first/config.json") == read(folder / "second/config.json"));
    CHECK(read(folder / "first/model.safetensors") == read(folder / "second/model.safetensors"));
    const json config = json::parse(read(folder / "second/config.json"));
    CHECK(config["architectures"] == json{"BertForSequenceClassification"});
    CHECK(config["problem_type"] == more["problem_type"]);
    CHECK(config.value("id2label", json()) == more.value("id2label", json()));
    CHECK_FALSE(config.contains("pare"));
    const std::vector<sequence> texts = random_texts(m, 9, 1, 30, random);
    const encoder::matrix found = outputs_of(m, texts);
    CHECK(outputs_of(once, texts) == found);
    CHECK(outputs_of(load_model(folder / "second"), texts) == found);
    CHECK(once.parameters() ==
          load_model(fixtures::path("tiny_bert")).parameters() + outputs * (hidden + 1));
}

TEST_CASE("a family's head is read and written beside its encoder") {
    const fixtures::scratch_folder folder;
    for (const std::string name :
         {"bert", "distilbert", "electra", "roberta", "xlm-roberta", "mpnet"}) {
        CAPTURE(name);
        const fs::path source = fixtures::path("families/" + name);
        model m = load_model(source);
        const stock_head* const stock = find_stock_head(m.json["model_type"].get<std::string>());
        REQUIRE(stock != nullptr);
        const Index d = m.config.hidden;
        m.others.clear();
        m.config.pooling = pooling::cls;
        m.head = head{{encoder::matrix::Random(3, d), encoder::vector::Random(3)},
                      dense{encoder::matrix::Random(d, d), encoder::vector::Random(d)},
                      stock->between,
                      stock};
        m.json["architectures"] = {stock->architecture};
        m.json["id2label"] = labels({"a", "b", "c"});
        save_model(m, source, folder / name);
        const model again = load_model(folder / name);
        REQUIRE(again.head);
        CHECK(again.head->stock == stock);
        CHECK(again.others.empty());
        const std::vector<sequence> texts = {{1, 2, 3, 4}, {5}};
        CHECK(outputs_of(again, texts) == outputs_of(m, texts));
        CHECK(json::parse(read(folder / name / "config.json"))["architectures"] ==
              json{stock->architecture});
    }
}

TEST_CASE("a family's heads on tokens are read and written beside its encoder") {
    const fixtures::scratch_folder folder;
    const auto of = GENERATE(head::subject::token, head::subject::span);
    for (const std::string name :
         {"bert", "distilbert", "electra", "roberta", "xlm-roberta", "mpnet"}) {
        CAPTURE(name);
        const fs::path source = fixtures::path("families/" + name);
        model m = load_model(source);
        const stock_head* const stock =
            find_stock_head(m.json["model_type"].get<std::string>(), of);
        REQUIRE(stock != nullptr);
        const Index outputs = of == head::subject::span ? 2 : 3;
        m.others.clear();
        m.config.pooling = pooling::cls;
        m.head = head{
            {encoder::matrix::Random(outputs, m.config.hidden), encoder::vector::Random(outputs)},
            std::nullopt,
            stock->between,
            stock,
            of};
        m.json["architectures"] = {stock->architecture};
        if (of == head::subject::token) m.json["id2label"] = labels({"O", "B-PER", "I-PER"});
        save_model(m, source, folder / name);
        const model once = load_model(folder / name);
        REQUIRE(once.head);
        CHECK(once.head->stock == stock);
        CHECK(once.is_per_token());
        CHECK(task_of(once) == (of == head::subject::span ? task_kind::answer : task_kind::tag));
        CHECK(once.others.empty());
        const std::string layer = of == head::subject::span ? "qa_outputs" : "classifier";
        const std::vector<std::string> names = tensors_in(folder / name);
        CHECK(std::count(names.begin(), names.end(), layer + ".weight") == 1);
        batch b;
        b.append({1, 2, 3, 4});
        b.append({5});
        encoder::matrix before, after;
        network(m).forward(b, before);
        network(once).forward(b, after);
        CHECK(before.rows() == 5);
        CHECK(before == after);
        save_model(once, folder / name, folder / "again");
        CHECK(read(folder / name / "config.json") == read(folder / "again/config.json"));
        fs::remove_all(folder / "again");
    }
}

TEST_CASE("labels and architectures follow the outputs that a model gets") {
    const fixtures::scratch_folder folder;
    save(with_head(2),
         {{"id2label", labels({"NO", "YES"})},
          {"label2id", {{"NO", 0}, {"YES", 1}}},
          {"problem_type", "single_label_classification"}},
         folder / "model");
    const auto written = [&](const model& m) {
        save_model(m, folder / "model", folder / "out");
        return json::parse(read(folder / "out/config.json"));
    };
    model m = load_model(folder / "model");
    add_outputs(m, 3, 1);
    json config = written(m);
    CHECK(config["id2label"] == labels({"LABEL_0", "LABEL_1", "LABEL_2"}));
    CHECK(config["label2id"] == json{{"LABEL_0", 0}, {"LABEL_1", 1}, {"LABEL_2", 2}});
    CHECK(config["architectures"] == json{"BertForSequenceClassification"});
    CHECK(load_model(folder / "out").head->before->weight == m.head->before->weight);
    add_outputs(m, 1, 1);
    config = written(m);
    CHECK(config["problem_type"] == "regression");
    CHECK(config["id2label"] == labels({"LABEL_0"}));
    CHECK(load_model(folder / "out").head->is_score());

    m.head.reset();
    config = written(m);
    CHECK(config["architectures"] == json{"BertModel"});
    for (const char* key : {"id2label", "label2id", "problem_type", "num_labels"})
        CHECK_FALSE(config.contains(key));
    CHECK_FALSE(load_model(folder / "out").head);
    // A head of ours.
    add_outputs(m, 2, 1);
    config = written(m);
    CHECK(config["architectures"] == json{"BertModel"});
    CHECK(config["pare"] == json{{"classes", 2}});
    CHECK_FALSE(load_model(folder / "out").head->before);
    add_outputs(m, 1, 1);
    CHECK(written(m)["pare"] == json{{"classes", 1}});
    CHECK(load_model(folder / "out").head->is_score());
}

TEST_CASE("heads that are not read are refused by name, and files that differ") {
    const fixtures::scratch_folder folder;
    const float zeros[3 * hidden] = {};
    const auto refused = [&](const json& more, const char* layer, const std::string& sentence,
                             const char* pooling = nullptr) {
        CAPTURE(more.dump(), layer);
        model m = with_head(2);
        if (layer != nullptr) {
            m.head.reset();
            m.others.push_back(
                make_tensor(layer + std::string(".weight"), {3, hidden}, zeros, data_type::f32));
            m.others.push_back(
                make_tensor("bert.pooler.dense.bias", {hidden}, zeros, data_type::f32));
        }
        fs::remove_all(folder / "model");
        save_model(m, fixtures::path("tiny_bert"), folder / "model");
        json config = json::parse(read(folder / "model/config.json"));
        config.merge_patch(more);
        write(folder / "model/config.json", config.dump());
        if (pooling != nullptr) {
            fs::create_directory(folder / "model/1_Pooling");
            write(folder / "model/1_Pooling/config.json", pooling);
        }
        const std::string error = error_of(folder / "model");
        CAPTURE(error);
        CHECK(error.find(sentence) != error.npos);
        CHECK(error.find(sentence == "no error" ? "no error" : "model/") != error.npos);
    };
    const auto asks = [](const char* architecture) {
        return json{{"architectures", {architecture}}};
    };
    refused(asks("BertForQuestionAnswering"), "qa_outputs",
            "asks for BertForQuestionAnswering, tensor 'qa_outputs.weight' has 3 rows, not 2");
    refused(asks("BertForTokenClassification"), "qa_outputs",
            "config.json: architectures asks for BertForTokenClassification, whose head (tensor "
            "'qa_outputs.weight') is not read");
    refused(asks("BertForMultipleChoice"), "classifier", "asks for BertForMultipleChoice");
    refused(asks("BertForNextSentencePrediction"), "cls.seq_relationship",
            "asks for BertForNextSentencePrediction");
    refused(asks("RobertaForSequenceClassification"), "classifier.out_proj",
            "asks for RobertaForSequenceClassification");
    refused({{"architectures", nullptr}}, "classifier",
            "config.json: has no architectures that says what tensor 'classifier.weight' is for");
    refused({{"architectures", nullptr}}, "qa_outputs", "'qa_outputs.weight'");
    refused({{"architectures", "BertModel"}}, "classifier",
            "is \"BertModel\", not a list of strings");
    // Encoders, beside what they were trained with.
    for (const char* plain : {"BertModel", "BertForMaskedLM", "BertForPreTraining"})
        refused(asks(plain), "cls.predictions.transform.dense", "no error");
    refused(asks("BertModel"), "classifier", "no error");
    refused({{"architectures", nullptr}}, "cls.predictions.transform.dense", "no error");

    refused({{"problem_type", "multi_label_classification"}}, nullptr,
            "problem_type is multi_label_classification, only single_label_classification and "
            "regression are possible");
    refused({{"problem_type", "regression"}}, nullptr,
            "problem_type is regression of 2 outputs, only one is possible");
    refused({{"id2label", labels({"a", "b", "c"})}}, nullptr,
            "tells of 3 labels, tensor 'classifier.weight' has 2 rows");
    refused({{"num_labels", 5}}, nullptr, "tells of 5 labels");
    refused({{"id2label", 5}}, nullptr, "id2label is 5, not an object");
    refused(json::object(), nullptr, "the pooling beside it for a sentence encoder",
            R"({"pooling_mode_mean_tokens": true})");
    refused(json::object(), nullptr, "no error");
    // Its tensors, all or in part.
    refused(asks("BertForSequenceClassification"), "pooler.other",
            "asks for BertForSequenceClassification, whose head");
    refused(asks("BertForSequenceClassification"), "classifier",
            "there is no tensor 'bert.pooler.dense.weight'");
    refused(asks("BertForSequenceClassification"), "classifier.other",
            "there is no tensor 'classifier.weight'");
}

TEST_CASE("metrics equal their definitions") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 200; ++round) {
        const index_t classes = random.integer(2, 4), n = random.integer(1, 12);
        std::vector<index_t> right, found;
        class_counts counts(classes);
        for (index_t i = 0; i < n; ++i) {
            right.push_back(random.integer(0, classes - 1));
            found.push_back(random.integer(0, round % 3 == 0 ? 0 : classes - 1));
            counts.add(right.back(), found.back());
        }
        CAPTURE(classes, right, found);
        double same = 0, covariance[3] = {}; // of both, of each with itself, over pairs of examples
        for (std::size_t i = 0; i < right.size(); ++i) same += right[i] == found[i];
        CHECK_THAT(accuracy(counts), WithinAbs(same / static_cast<double>(n), 1e-12));

        double f = 0, there = 0;
        for (index_t k = 0; k < classes; ++k) {
            double hits = 0, of_right = 0, of_found = 0;
            for (std::size_t i = 0; i < right.size(); ++i) {
                hits += right[i] == k && found[i] == k;
                of_right += right[i] == k;
                of_found += found[i] == k;
            }
            const double precision = of_found > 0 ? hits / of_found : 0,
                         recall = of_right > 0 ? hits / of_right : 0, both = precision + recall,
                         one = both > 0 ? 2 * precision * recall / both : 0;
            if (classes == 2 && k == 1) f = one;
            if (classes > 2 && of_found + of_right > 0) {
                f += one;
                there += 1;
            }
            // Covariances of indicators, summed up over classes.
            const double mr = of_right / static_cast<double>(n),
                         mf = of_found / static_cast<double>(n);
            for (std::size_t i = 0; i < right.size(); ++i) {
                const double r = (right[i] == k) - mr, g = (found[i] == k) - mf;
                covariance[0] += r * g;
                covariance[1] += r * r;
                covariance[2] += g * g;
            }
        }
        CHECK_THAT(f1(counts), WithinAbs(classes == 2 ? f : f / there, 1e-12));
        const double spread = covariance[1] * covariance[2];
        CHECK_THAT(matthews(counts),
                   WithinAbs(spread > 1e-9 ? covariance[0] / std::sqrt(spread) : 0, 1e-9));
    }
    // Of two classes, by hand: 3 of 4 and 1 of 2 right.
    class_counts two(2);
    for (const auto& [right, found] : {std::pair(0, 0), {0, 0}, {0, 0}, {0, 1}, {1, 0}, {1, 1}})
        two.add(right, found);
    CHECK_THAT(f1(two), WithinAbs(0.5, 1e-12));
    CHECK_THAT(matthews(two), WithinAbs((3 * 1 - 1 * 1) / 8., 1e-12));
    CHECK_THAT(spearman({1, 2, 2, 9}, {0, 1, 2, 3}), WithinAbs(4.5 / std::sqrt(4.5 * 5), 1e-12));
    CHECK_THAT(pearson({1, 2, 4}, {1, 3, 2}), WithinAbs(0.32732683535398854, 1e-12));
    CHECK(std::isnan(pearson({1, 1}, {0, 1})));
}

TEST_CASE("qualities are those of a model's task") {
    dataset data{task_kind::classify, std::vector<sequence>(4), {0, 1, 1, 1}, {}, {}};
    encoder::matrix outputs(4, 2);
    outputs << 2, 1, 0, 1, 1, 0, 5, 6;
    const auto names = [&] {
        std::string all;
        for (const quality& q : qualities(data, outputs)) all += std::string(q.name) + ' ';
        return all;
    };
    CHECK(names() == "Accuracy F1 Matthews ");
    CHECK(measure(data, outputs) == 0.75);
    CHECK_THAT(qualities(data, outputs)[1].value, WithinAbs(0.8, 1e-12));
    data.targets.clear();
    data.teacher = -outputs;
    CHECK(names() == "same class ");
    CHECK(measure(data, outputs) == 0);
    data.kind = task_kind::regress;
    CHECK(names() == "correlation ");
    CHECK_THAT(measure(data, outputs), WithinAbs(-1, 1e-12));
    data.targets = {3, 0, 2, 70};
    CHECK(names() == "Spearman Pearson ");
    CHECK_THAT(measure(data, outputs), WithinAbs(1, 1e-12));
    // Pairs that are held out keep what they are.
    dataset pairs{
        task_kind::similarity, {{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}}, {1, 0, 0.5, 0.2}, {}, {}};
    const dataset held = hold_out(pairs, 2);
    CHECK(held.targets == std::vector<double>{0, 0.2});
    CHECK(measured_texts(held) == std::vector<sequence>{{3}, {4}, {7}, {8}});
    encoder::matrix embeddings(4, 2);
    embeddings << 1, 0, 0.6f, 0.8f, 1, 0, 0.8f, 0.6f;
    CHECK_THAT(measure(held, embeddings), WithinAbs(1, 1e-12));
    embeddings.row(3) << 0, 1;
    CHECK_THAT(measure(held, embeddings), WithinAbs(-1, 1e-12));
    const model m = with_head(1);
    CHECK(likeness(m, {}, outputs, -outputs).name == std::string("correlation to dense"));
    CHECK_THAT(likeness(m, {}, outputs, -outputs).value, WithinAbs(-1, 1e-12));
}

TEST_CASE("gradients of a score without labels are those of a slope of 1 on average") {
    random_source random;
    CAPTURE(random);
    const model m = with_head(1);
    network net(m);
    calibration one{{task_kind::regress, random_texts(m, 1, 5, 20, random), {}, {}, {}}, {}};
    const auto energies = [&](fisher_source source, std::uint64_t seed) {
        Eigen::VectorXd all(2 * static_cast<Index>(m.layers.size()));
        const auto curves = criterion(net, one, source, false, seed).losses();
        for (std::size_t i = 0; i < curves.size(); ++i)
            all(static_cast<Index>(i)) = curves[i].loss.back();
        return all;
    };
    Eigen::VectorXd found = Eigen::VectorXd::Zero(2 * static_cast<Index>(m.layers.size()));
    constexpr int draws = 1000;
    for (int i = 0; i < draws; ++i)
        found += energies(fisher_source::free, static_cast<std::uint64_t>(i)) / draws;
    // The squared error's slope is 2 (score - target).
    one.examples.targets = {static_cast<double>(embed(net, one.examples.texts, "")(0, 0)) - 0.5};
    const Eigen::VectorXd expected = energies(fisher_source::labels, 0);
    for (Index i = 0; i < found.size(); ++i) CHECK_THAT(found(i), WithinRel(expected(i), 0.3));
}

TEST_CASE("prune_encoder prunes a stock classifier by what its head says") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const json more = {{"id2label", labels({"NEGATIVE", "POSITIVE"})}};
    const model m = with_head(2);
    save(m, more, p.folder / "stock");
    for (const std::string how :
         {"--calibrate text", "--calibrate text --evaluate classes --criterion fisher --rearrange",
          "--calibrate classes --fisher labels", "--calibrate text --fisher none --tune scale",
          "--calibrate pair_classes --fisher labels --evaluate pair_classes --html page.html"}) {
        CAPTURE(how);
        p.must_run("--model stock --macs 0.5 --threads 1 --out small --json r.json " + how);
        const json report = json::parse(read(p.folder / "r.json"));
        for (const char* name : {"accuracy", "f1", "matthews"})
            CHECK(report.contains(std::string(name) + "_dense") ==
                  (how.find("--evaluate") < how.size()));
        CHECK(report["same_class_as_dense"] > 0.5);
        const model small = load_model(p.folder / "small");
        REQUIRE(small.head);
        CHECK(small.head->output.weight == m.head->output.weight);
        CHECK(small.head->before->weight == m.head->before->weight);
        CHECK(small.json["architectures"] == json{"BertForSequenceClassification"});
        CHECK(small.json["id2label"] == more["id2label"]);
        CHECK(small.parameters() < m.parameters());
        CHECK(tensors_in(p.folder / "small") == tensors_in(p.folder / "stock"));
    }
    CHECK(p.run("--model stock --calibrate pairs --fisher labels --out none") == 2);
    CHECK(p.errors.find("pairs: has the label 5, the model 2 classes") != p.errors.npos);
}

TEST_CASE("prune_encoder prunes a cross-encoder by its scores of pairs") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const model m = with_head(1);
    save(m, {{"id2label", labels({"LABEL_0"})}}, p.folder / "reranker");
    std::string plain, scored; // pairs without scores, and texts alone with some
    for (int i = 0; i < 40; ++i) {
        plain += "fox " + std::string(1, static_cast<char>('a' + i % 26)) + "\tlazy dogs\n";
        scored += std::to_string(0.25 * (i % 5)) + "\tthe fox " +
                  std::string(1, static_cast<char>('a' + i % 26)) + "\n";
    }
    write(p.folder / "plain", plain);
    write(p.folder / "scored", scored);
    for (const std::string how :
         {"--calibrate plain", "--calibrate pairs --fisher labels --evaluate pairs",
          "--calibrate plain --evaluate pairs --html page.html",
          "--calibrate scored --fisher labels",
          "--calibrate text --evaluate scored --criterion fisher"}) {
        CAPTURE(how);
        p.must_run("--model reranker --macs 0.5 --threads 1 --out small --json r.json " + how);
        const json report = json::parse(read(p.folder / "r.json"));
        CHECK(report.contains("spearman_dense") == (how.find("--evaluate") < how.size()));
        CHECK(report.contains("pearson_pruned") == (how.find("--evaluate") < how.size()));
        CHECK(report["correlation_to_dense"] > 0);
        CHECK(load_model(p.folder / "small").head->is_score());
        CHECK(json::parse(read(p.folder / "small/config.json"))["id2label"] == labels({"LABEL_0"}));
    }
    const auto fails = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        CHECK(p.run("--model reranker --threads 1 --out none " + arguments) == 2);
        CAPTURE(p.errors);
        CHECK(p.errors.find(sentence) != p.errors.npos);
        CHECK(std::count(p.errors.begin(), p.errors.end(), '\n') == 1);
        CHECK_FALSE(fs::exists(p.folder / "none"));
    };
    fails("--calibrate pairs", "pairs: line 1 does not have one or two columns");
    fails("--calibrate text --fisher labels",
          "text: line 1 does not have two or three columns (score");
    fails("--calibrate plain --evaluate plain", "plain: line 1 has the score 'fox a'");
    write(p.folder / "alike", "1\ta\n1\tb\n");
    fails("--calibrate alike --fisher labels", "alike: all scores are the same");
}

TEST_CASE("learn_thresholds keeps a stock head, and learns from it or from labels") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    const json more = {{"id2label", labels({"NEGATIVE", "POSITIVE"})}};
    const model m = with_head(2), score = with_head(1);
    save(m, more, p.folder / "stock");
    save(score, json::object(), p.folder / "reranker");
    const std::string quick = " --batch 8 --threads 1 --target-macs 0.7 --out out --json r.json ";
    const auto runs = [&](const std::string& arguments) {
        CAPTURE(arguments);
        p.must_run(arguments + quick);
        return load_model(p.folder / "out");
    };
    for (const std::string how : {"--train text", "--train text --dev classes",
                                  "--task classify --train classes --stage soft,hard",
                                  "--task classify --train classes --stage soft,hard --labels",
                                  "--task classify --train pair_classes"}) {
        const std::string epochs = how.find("--stage") < how.size() || how.find("text") < how.size()
                                       ? " --epochs 1,1"
                                       : " --epochs 1,1,1";
        const model found = runs("--model stock " + how + epochs);
        REQUIRE(found.head);
        CHECK(found.head->stock == m.head->stock);
        CHECK(found.head->output.weight.rows() == 2);
        CHECK(found.json["architectures"] == json{"BertForSequenceClassification"});
        CHECK(found.json["id2label"] == more["id2label"]);
        CHECK(found.tokens.numbers.size() == 3);
        CHECK(found.exits.empty()); // what leaves is not in the first token
    }
    // Thresholds alone leave the weights as they are.
    CHECK(runs("--model stock --train text --stage calibrate").head->output.weight ==
          m.head->output.weight);
    // Other classes than it has.
    write(p.folder / "three", read(p.folder / "classes") + "2\tlazy\n2\tdogs\n");
    const model three = runs("--model stock --task classify --train three --evaluate three "
                             "--epochs 1,1,1");
    CHECK(three.head->output.weight.rows() == 3);
    CHECK(three.head->before);
    CHECK(three.json["id2label"] == labels({"LABEL_0", "LABEL_1", "LABEL_2"}));

    for (const std::string how :
         {"--train text --epochs 1,1", "--train text --dev pairs --epochs 1,1",
          "--task regress --train pairs --evaluate pairs --epochs 1,1,1",
          "--task regress --train pairs --stage soft,hard --epochs 1,1"}) {
        const model found = runs("--model reranker " + how);
        REQUIRE(found.head);
        CHECK(found.head->is_score());
        CHECK(found.head->before);
        CHECK(found.json["architectures"] == json{"BertForSequenceClassification"});
    }
    // A model without a head gets one of ours.
    CHECK(
        runs("--model model --task regress --train pairs --epochs 1,1,1").json["pare"]["classes"] ==
        1);

    const auto fails = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        fs::remove_all(p.folder / "out");
        CHECK(p.run(arguments + " --out out") == 2);
        CAPTURE(p.errors);
        CHECK(p.errors.find(sentence) != p.errors.npos);
        CHECK_FALSE(fs::exists(p.folder / "out"));
    };
    fails("--model stock --task similarity --train pairs",
          "--task similarity is of embeddings, stock has a head");
    fails("--model stock --task classify --train three --stage soft,hard",
          "stock has no classifier for 3 classes to learn from");
    fails("--model stock --task regress --train pairs --stage soft,hard",
          "stock has no head of one output to learn from");
    fails("--model stock --train text --dev three", "three: has the label 2, the model 2 classes");
}

} // namespace encoder_heads_test
