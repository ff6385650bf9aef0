// Words with tags: their tokens, how well they are found, and the programs on a model that tags words.
#include "encoder_heads.hpp"
#include "encoder_program.hpp"
#include "encoder_random.hpp"

#include <encoder/network/network.hpp>
#include <encoder/task/quality.hpp>

namespace encoder_tags_test {

using namespace encoder;
using nlohmann::json;
using programs::read_json, programs::write;
namespace fs = std::filesystem;
using words = std::vector<std::string>;

namespace {

const words tags = {"O", "B-ANIMAL", "I-ANIMAL", "B-SPEED"};

model tagger() {
    model m = with_head_on_tokens(load_model(fixtures::path("tiny_bert")), head::subject::token, 4);
    for (std::size_t i = 0; i < tags.size(); ++i) m.json["id2label"][std::to_string(i)] = tags[i];
    return m;
}

/// Sentences of few words, of which each has its tag.
std::string tagged_text(int sentences) {
    const std::vector<std::pair<std::string, std::string>> all = {
        {"the", "O"},         {"brown", "B-ANIMAL"}, {"fox", "I-ANIMAL"},
        {"quick", "B-SPEED"}, {"jumps", "O"},        {"lazy", "B-SPEED"}};
    std::string text = "-DOCSTART- -X- O\n\n";
    for (int s = 0; s < sentences; ++s) {
        for (int w = 0; w <= s % 7; ++w) {
            const auto& [word, tag] = all[static_cast<std::size_t>(s * 5 + w * w + w) % all.size()];
            text += word + " X " + tag + "\n";
        }
        text += "\n";
    }
    return text;
}

} // namespace

TEST_CASE("a sentence's words become the tokens of the text, in parts that fit") {
    const model m = tagger();
    const tokenizer cut(fixtures::path("tiny_bert"), m.config);
    // Words of one token and of several, and one of none.
    const words sentence = {"the", "quick", "zap", "\x01", "foxes", "!"};
    const auto whole = tokenize_sentence(cut, sentence, 64);
    REQUIRE(whole.size() == 1);
    CHECK(whole[0].ids == cut.encode("the quick zap foxes !", 64));
    words of_firsts, first_words;
    for (const auto& [word, token] : whole[0].words) {
        first_words.push_back(sentence[word]);
        of_firsts.push_back(cut.word(whole[0].ids[token]));
    }
    CHECK(first_words == words{"the", "quick", "zap", "foxes", "!"});
    CHECK(of_firsts == words{"the", "quick", "z", "fox", "!"});

    for (std::size_t most = 3; most < 16; ++most) {
        CAPTURE(most);
        const auto parts = tokenize_sentence(cut, sentence, most);
        words found, expected;
        std::vector<std::size_t> of_words;
        for (const sentence_part& p : parts) {
            CHECK(p.ids.size() <= most);
            CHECK(p.ids.front() == whole[0].ids.front());
            CHECK(p.ids.back() == whole[0].ids.back());
            for (const auto& [word, token] : p.words) {
                of_words.push_back(word);
                found.push_back(cut.word(p.ids[token]));
            }
        }
        CHECK(of_words == std::vector<std::size_t>{0, 1, 2, 4, 5});
        CHECK(found == of_firsts);
    }
    CHECK(tokenize_sentence(cut, {"\x01"}, 8)[0].ids == cut.encode("", 8));
    CHECK_THROWS_WITH(tokenize_sentence(cut, sentence, 2),
                      "max_tokens is 2, the tokens around a sentence alone are 2");
}

TEST_CASE("tags are read, held out and measured by sentences") {
    const fixtures::scratch_folder folder;
    model m = tagger();
    const tokenizer cut(fixtures::path("tiny_bert"), m.config);
    write(folder / "tagged", tagged_text(30));
    dataset data = read_dataset(task_kind::tag, folder / "tagged", cut, m);
    CHECK(data.tags == tags);
    CHECK(data.parts.size() == 31);
    CHECK(data.targets.size() == data.first_rows().back());
    // A network that is always right, and one that misses each entity of two words.
    const auto logits = [&](const dataset& of, double wrong) {
        encoder::matrix x = encoder::matrix::Zero(static_cast<Eigen::Index>(of.targets.size()), 4);
        for (std::size_t i = 0; i < of.targets.size(); ++i) {
            double right = of.targets[i];
            if (right == wrong) right = 0;
            if (right >= 0) x(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(right)) = 1;
        }
        return x;
    };
    const auto perfect = qualities(data, logits(data, -1));
    CHECK(perfect[0].name == std::string("Entity F1"));
    for (const quality& q : perfect) CHECK(q.value == 1);
    CHECK(measure(data, logits(data, 2)) < 1);
    CHECK(likeness(m, data.texts, logits(data, -1), logits(data, 2)).value < 1);
    // A model of short texts reads sentences in parts, of which entities are counted together.
    m.config.max_tokens = 4;
    const dataset in_parts = read_dataset(task_kind::tag, folder / "tagged", cut, m);
    CHECK(in_parts.texts.size() > data.texts.size());
    CHECK(in_parts.parts.size() == 31);
    CHECK(measure(in_parts, logits(in_parts, 2)) == measure(data, logits(data, 2)));

    const dataset all = data, held = hold_out(data, 10);
    CHECK(held.parts.size() == 4);
    CHECK(data.parts.size() == 28);
    CHECK(held.texts[0] == all.texts[9]);
    const std::vector<std::size_t> rows = all.first_rows();
    CHECK(std::equal(held.targets.begin(),
                     held.targets.begin() + static_cast<std::ptrdiff_t>(held.texts[0].size()),
                     all.targets.begin() + static_cast<std::ptrdiff_t>(rows[9])));
    CHECK(measure(held, logits(held, -1)) == 1);

    // Classes that are no entities.
    data.tags = {"NOUN", "INTJ", "ADJ", "X"};
    CHECK(qualities(data, logits(data, -1))[0].name == std::string("Accuracy"));

    write(folder / "wrong", "the O\nfox B-PLANT\n");
    CHECK_THAT(
        fixtures::error_of([&] { read_dataset(task_kind::tag, folder / "wrong", cut, tagger()); }),
        ContainsSubstring("line 2 has the tag 'B-PLANT', which is none of the model's 4 "
                          "(id2label in config.json): O, B-ANIMAL"));
}

TEST_CASE("prune_encoder prunes a model that tags words") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const model m = tagger();
    save_model(m, fixtures::path("tiny_bert"), p.folder / "tagger");
    write(p.folder / "tagged", tagged_text(40));
    for (const std::string how :
         {"--calibrate text", "--calibrate text --evaluate tagged --criterion fisher --rearrange",
          "--calibrate tagged --fisher labels --evaluate tagged --html page.html",
          "--calibrate text --fisher none"}) {
        CAPTURE(how);
        p.must_run("--model tagger --macs 0.5 --threads 1 --out small --json r.json " + how);
        const json report = read_json(p.folder / "r.json");
        for (const char* name : {"entity_f1", "precision", "recall", "accuracy"})
            CHECK(report.contains(std::string(name) + "_dense") ==
                  (how.find("--evaluate") < how.size()));
        CHECK(report["same_tag_as_dense"] > 0.5);
        const model small = load_model(p.folder / "small");
        REQUIRE(small.is_per_token());
        CHECK(small.head->output.weight == m.head->output.weight);
        CHECK(small.json["architectures"] == json{"BertForTokenClassification"});
        CHECK(small.json["id2label"] == m.json["id2label"]);
    }
    CHECK(p.run("--model tagger --calibrate text --fisher labels --out none") == 2);
    CHECK_THAT(p.errors, ContainsSubstring("text: line 1 has"));
    CHECK_FALSE(fs::exists(p.folder / "none"));
}

TEST_CASE("learn_thresholds drops tokens of a model that tags words, and teaches it") {
    programs::sandbox p(PARE_LEARN_THRESHOLDS);
    const model m = tagger();
    save_model(m, fixtures::path("tiny_bert"), p.folder / "tagger");
    write(p.folder / "tagged", tagged_text(60));
    const std::string quick =
        " --model tagger --batch 8 --threads 1 --target-macs 0.7 --out out --json r.json ";
    for (const std::string how :
         {"--train text --epochs 1,1", "--train text --dev tagged --epochs 1,1 --html page.html",
          "--task tag --train tagged --rate 0.01 --epochs 30,1,5",
          "--task tag --train tagged --stage soft,hard --labels --epochs 1,1",
          "--task tag --train tagged --stage calibrate --dropped carried",
          "--train text --stage calibrate"}) {
        CAPTURE(how);
        p.must_run(how + quick);
        const json report = read_json(p.folder / "r.json");
        CHECK(report["macs_ratio"] < 0.85);
        const model found = load_model(p.folder / "out");
        REQUIRE(found.is_per_token());
        CHECK(found.tokens.numbers.size() == 3);
        CHECK(found.exits.empty() == (how.find("carried") < how.size()));
        CHECK(found.json["id2label"] == m.json["id2label"]);
        if (how.find("30,1,5") < how.size()) { // a word's tag is the word's
            CHECK(report["metric_dense"] > 0.95);
            CHECK(report["metric_pruned"] > 0.9);
        }
    }
    const auto fails = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        CHECK(p.run("--threads 1 --out none --train tagged " + arguments) == 2);
        CHECK_THAT(p.errors, ContainsSubstring(sentence));
        CHECK_FALSE(fs::exists(p.folder / "none"));
    };
    fails("--model tagger --task classify", "--task tag or distill keep its outputs");
    fails("--model tagger --task similarity", "has a head; its outputs are what --task tag or");
    fails("--model tagger --task tag --dropped gone", "every token has a tag");
    fails("--model model --task tag", "model has no head on tokens, ...ForTokenClassification");
}

TEST_CASE("prune_encoder measures tags and answers as transformers and seqeval would") {
    const fixtures::scratch_folder folder;
    write(folder / "program", PARE_PRUNE_ENCODER);
    CHECK(programs::run_python("check_tasks.py", folder.path()));
}

} // namespace encoder_tags_test
