// Writes what the fuzz targets begin with, a folder for each, from the tests' fixtures and what the
// encoder itself writes: seeds FIXTURES OUT.
#include "../language_gguf.hpp"
#include "small_run.hpp"
#include "timed.hpp"

#include "encoder/files/heads.hpp"
#include "encoder/files/output.hpp"

#include <pare/policy/seq.hpp>
#include <pare/prune/statistics_file.hpp>

#include <iostream>
#include <sstream>

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

class seeds {
  public:
    seeds(fs::path fixtures, fs::path out) : fixtures_(std::move(fixtures)), out_(std::move(out)) {}

    std::string text(const fs::path& fixture) const {
        return encoder::detail::read_text(fixtures_ / fixture);
    }
    void add(const std::string& target, const std::string& content) {
        fs::create_directories(out_ / target);
        encoder::write_file(out_ / target / std::to_string(count_++), {content});
    }

  private:
    fs::path fixtures_, out_;
    int count_ = 0;
};

std::string line(std::string text) {
    for (char& c : text)
        if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    return text;
}

/// As fuzz/tokenizer.cpp takes them: 0 (vocab.txt), 1 (tokenizer.json) or 2 (vocab.json).
std::string tokenizer_input(char kind, std::size_t rows, const std::string& file,
                            const std::string& beside, const std::string& first,
                            const std::string& second) {
    const std::string numbers = {kind, 1, 16, static_cast<char>((rows - 1) & 0xff),
                                 static_cast<char>((rows - 1) >> 8)};
    return numbers + file + '\xff' + beside + '\xff' + first + '\xff' + second;
}

/// Tokenizers of each kind with little of their vocabularies.
void add_tokenizers(seeds& to) {
    const json texts = json::parse(to.text("tokenizers/texts.json"))["texts"];
    for (const char* name :
         {"word_piece", "word_piece_cased", "word_piece_accents", "byte_level", "byte_level_split",
          "byte_level_prefix", "characters", "bytes_behind", "unigram", "unigram_bytes"}) {
        const json kind = json::parse(to.text(std::string("tokenizers/") + name + ".json"));
        json tokenizer = kind["tokenizer"];
        json &model = tokenizer["model"], few = json::object();
        constexpr std::size_t most = 60;
        if (model["vocab"].is_array()) {
            model["vocab"].erase(model["vocab"].begin() + most, model["vocab"].end());
        } else {
            for (const auto& [word, id] : model["vocab"].items())
                if (id.get<std::size_t>() < most) few[word] = id;
            model["vocab"] = few;
            if (model.contains("merges")) model["merges"] = json::array();
        }
        const std::string first = texts[20], second = texts[21], rows = kind["rows"].dump();
        to.add("tokenizer", tokenizer_input(1, std::stoul(rows), tokenizer.dump(),
                                            R"({"do_lower_case": true})", first, second));
    }
    to.add("tokenizer",
           tokenizer_input(2, 9, R"({"<s>":0,"</s>":1,"<unk>":2,"a":3,"b":4,"ab":5,"<mask>":6})",
                           "#version\na b", "abba <mask>", "ab"));
}

void add_texts(seeds& to) {
    const std::string vocabulary = to.text("tiny_bert/vocab.txt");
    const json fixture = json::parse(to.text("minilm_tokens.json"));
    std::string documents;
    for (const json& c : fixture["cases"]) {
        const std::string text = c["text"];
        to.add("tokenizer", tokenizer_input(0, 120, vocabulary, "", text.substr(0, 200), ""));
        documents += line(text).substr(0, 50) + '\n';
    }
    to.add("text", documents);
    std::string scored, labelled;
    for (const json& c : fixture["pairs"]) {
        const std::string first = c["first"], second = c["second"];
        to.add("tokenizer", tokenizer_input(0, 120, vocabulary, R"({"do_lower_case": false})",
                                            first.substr(0, 100), second.substr(0, 100)));
        const std::string columns =
            '\t' + line(first).substr(0, 50) + '\t' + line(second).substr(0, 50);
        scored += "2.5" + columns + '\n';
        labelled += "1" + columns + '\n';
    }
    to.add("text", scored);
    to.add("text", labelled);
}

void add_tensors(seeds& to, const fuzz::folder& here) {
    for (const auto type :
         {encoder::data_type::f32, encoder::data_type::f16, encoder::data_type::bf16}) {
        const float values[] = {0, -1.5f, 1e-6f, 3.25f, 1, 2};
        encoder::write_safetensors(here / "tensors",
                                   {encoder::make_tensor("a", {2, 3}, values, type),
                                    encoder::make_tensor("b.weight", {4}, values, type),
                                    {"ids", "I64", {1}, std::vector<std::byte>(8)}},
                                   {{"format", "pt"}});
        to.add("safetensors", encoder::detail::read_text(here / "tensors"));
    }
}

void add_gguf(seeds& to) {
    gguf::file f = gguf::small_file();
    to.add("gguf", f.content());
    f.version = 2;
    f.keys.erase(f.keys.begin() + 1, f.keys.end());
    to.add("gguf", f.content());
    f.tensors.clear();
    to.add("gguf", f.begin());
}

/// Configurations as fuzz/model.cpp takes them, for its weights.
void add_models(seeds& to, const fuzz::folder& here) {
    fs::create_directories(here / "source");
    encoder::model m = fuzz::small_model();
    m.json = json::parse(to.text("tiny_bert/config.json"));
    const auto add = [&] {
        encoder::save_model(m, here / "source", here / "model");
        const std::string config = encoder::detail::read_text(here / "model/config.json");
        to.add("model", config);
        to.add("model",
               config + '\xff' + R"({"do_lower_case": true, "model_max_length": 512})" + '\xff' +
                   R"({"max_seq_length": 6, "do_lower_case": false})" + '\xff' +
                   R"([{"type": "Transformer", "path": ""},)"
                   R"( {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},)"
                   R"( {"type": "Normalize", "path": "2_Normalize"}])" +
                   '\xff' + R"({"word_embedding_dimension": 4, "pooling_mode_cls_token": true})");
        // fuzz/model.cpp has the first half of the weights in a file, the rest in another one.
        json index;
        const std::vector<encoder::weight> all = encoder::weights(m);
        for (std::size_t i = 0; i < all.size(); ++i)
            index["weight_map"][all[i].name] = i < all.size() / 2 ? "a" : "b";
        to.add("model", config + std::string(6, '\xff') + index.dump());
        for (const char* function : {"Tanh", "Identity"})
            to.add("model", config + std::string(3, '\xff') +
                                R"([{"type": "models.Transformer", "path": ""},)"
                                R"( {"type": "models.Pooling", "path": "1_Pooling"},)"
                                R"( {"type": "models.Dense", "path": "2_Dense"}])" +
                                '\xff' + R"({"pooling_mode_mean_tokens": true})" + '\xff' +
                                R"({"in_features": 4, "out_features": 3, "bias": true, )"
                                R"("activation_function": "torch.nn.modules.activation.)" +
                                function + R"("})");
    };
    add();
    m.tokens.by = encoder::token_pruning::rule::share;
    m.config.activation = encoder::activation::relu;
    m.exits.clear();
    add();
    m.tokens.by = encoder::token_pruning::rule::count;
    m.tokens.numbers = {3, 2};
    m.tokens.scores = pare::score_scale::per_query;
    m.tokens.carried = false;
    m.head->stock = encoder::find_stock_head("bert");
    m.head->before = encoder::dense{encoder::matrix::Random(4, 4), encoder::vector::Random(4)};
    m.json["architectures"] = {m.head->stock->architecture};
    add();
    m.json["architectures"] = {m.head->stock->plain};
    m.head.reset();
    add();
    m.tokens = {};
    add();
    m.config.family = encoder::find_family("roberta");
    m.json.update({{"model_type", "roberta"}, {"pad_token_id", 1}});
    add();
}

void add_command_lines(seeds& to) {
    to.add("prune_encoder",
           "--model\nm\n--calibrate\nt\n--budget\nlatency=0.5\n--latency-batch\n32x128\n"
           "--latency-times\nt\n--latency-fit\n--criterion\nfisher\n--fisher\nlabels\n"
           "--rearrange\n--tune\nscale\n--ridge\n0.1");
    to.add("prune_encoder",
           "--model\nm\n--calibrate\nt\n--macs\n0.5\n--samples\n9\n--seed\n7\n--threads\n2\n"
           "--device\ncpu\n--precision\nfp16\n--out\no\n--json\nj\n--front\nf\n--html\nh");
    to.add("learn_thresholds",
           "--model\nm\n--train\nt\n--task\nclassify\n--dev\nd\n--stage\nfinetune,soft,hard\n"
           "--epochs\n2,0.5,1.5\n--rate\n1e-4,0,1e-3\n--labels\n--target-macs\n0.5\n"
           "--dropped\ncarried\n--scores\nper_query\n--alpha\n0.9\n--batch\n8\n--seed\n3");
    to.add("learn_thresholds",
           "--model\nm\n--train\nt\n--task\ndistill\n--stage\ncalibrate,hard\n--lambda\n0.1\n"
           "--temperature\n0.01\n--threshold-rate\n0.02\n--out\no\n--json\nj\n--html\nh");
}

/// Targets that take numbers begin with the fixture's weights.
void add_numbers(seeds& to, const std::vector<std::string>& targets) {
    const std::string weights = to.text("tiny_bert/model.safetensors");
    for (const std::string& target : targets)
        for (std::size_t at = weights.size() / 2, n = 0; n < 16 && at < weights.size();
             at += 997, ++n)
            to.add(target, weights.substr(at, 32 << n % 4));
}

/// Without checksums.
void add_statistics(seeds& to) {
    std::vector<pare::sublayer_statistics> some;
    for (const pare::index_t columns : {3, 0, 2}) {
        pare::sublayer_statistics& s = some.emplace_back(columns, 2);
        const std::vector<float> numbers = {1, 2, 3, -1, 0, 4, 5, 9, 2};
        const pare::view<const float, 2> x(numbers.data(), 3, columns), y(numbers.data(), 3, 2),
            none(numbers.data(), 3, 0);
        s.inputs.add(pare::seq, x, none);
        s.metric.add(pare::seq, y);
        s.sums.add(pare::seq, none, y);
        s.squares = {{1, 2}, {}, {3}};
        std::ostringstream file;
        pare::save(file, some);
        to.add("statistics", file.str().substr(0, file.str().size() - 8));
    }
}

} // namespace

int main(int, char** argv) try {
    const fuzz::folder here;
    seeds to(argv[1], argv[2]);
    add_texts(to);
    add_tokenizers(to);
    add_tensors(to, here);
    add_gguf(to);
    add_models(to, here);
    add_command_lines(to);
    add_numbers(to, {"attention", "importance", "rows", "search", "selection"});

    add_statistics(to);

    const fuzz::small_run run;
    to.add("checkpoint", run.state());
    to.add("checkpoint", run.state() + '\xff' + run.weights());

    const fuzz::timed dense(fuzz::small_model());
    encoder::latency(dense, fuzz::options(here / "times")).save();
    to.add("latency", encoder::detail::read_text(here / "times"));
} catch (const std::exception& e) {
    std::cerr << "seeds: " << e.what() << '\n';
    return 1;
}
