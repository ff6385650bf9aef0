// Models of every family, and their files as people have them: weights in several files, older names,
// folders by modules.json, and what is no model.
#include "catch.hpp"
#include "encoder_fixtures.hpp"
#include "encoder_outputs.hpp"
#include "encoder_program.hpp"

#include <sys/stat.h>

#include <array>
#include <set>

namespace encoder_family_test {

namespace fs = std::filesystem;
using namespace encoder;
using Eigen::Index;
using fixtures::error_of;
using fixtures::scratch_folder;
using nlohmann::json;
using programs::read_json;

namespace {

std::string error_of_loading(const fs::path& folder) {
    return error_of([&] { load_model(folder); });
}

void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

void copy_fixture(const std::string& fixture, const fs::path& to) {
    fs::create_directories(to.parent_path());
    fs::copy(fixtures::path(fixture), to, fs::copy_options::recursive);
}

std::vector<tensor> tensors_of(const fs::path& file) {
    const safetensors_file from(file);
    std::vector<tensor> all;
    for (const auto& [name, e] : from.entries())
        all.push_back({name, e.dtype, e.shape, {e.data, e.data + e.bytes}});
    return all;
}

std::set<std::string> names_of(const std::vector<tensor>& tensors) {
    std::set<std::string> names;
    for (const tensor& t : tensors) names.insert(t.name);
    return names;
}

const std::vector<std::string>& families() {
    static const std::vector<std::string> all = {"bert",        "distilbert", "roberta",
                                                 "xlm-roberta", "electra",    "mpnet"};
    return all;
}

/// What the reference found for a family.
struct reference {
    json all;
    batch texts;

    explicit reference(const std::string& name) : all(fixtures::json("families.json")[name]) {
        for (const json& ids : all["sequences"]) texts.append(ids.get<std::vector<std::int32_t>>());
    }
    matrix rows(const char* key) const {
        const std::vector<float> values = fixtures::floats(all[key].get<std::string>());
        const Index n = texts.sequences();
        return Eigen::Map<const matrix>(values.data(), n, static_cast<Index>(values.size()) / n);
    }
};

/// [sequences x layers * units] of heads, then of filters: the gradient of <direction, output>.
std::array<matrix, 2> mask_gradients(const model& m, const batch& b, const matrix& directions) {
    network net(m);
    std::array<matrix, 2> found;
    const auto layers = static_cast<Index>(m.layers.size());
    net.backward_units(
        b, [&](const matrix&, matrix& gradient) { gradient = directions; },
        [&](const engine::unit_gradients& at) {
            const Index unit = unit_size(m.layers[at.layer], at.kind);
            const Index units = at.inputs.columns / unit;
            const auto all = [](const rows& r) {
                return Eigen::Map<const matrix>(static_cast<const float*>(r.data), r.count,
                                                r.columns);
            };
            const matrix products = all(at.inputs).cwiseProduct(all(at.at_inputs));
            matrix& sums = found[at.kind == unit_kind::head ? 0 : 1];
            if (sums.size() == 0) sums = matrix::Zero(b.sequences(), layers * units);
            for (std::size_t s = 0; s + 1 < b.offsets.size(); ++s)
                for (Index u = 0; u < units; ++u)
                    sums(static_cast<Index>(s), static_cast<Index>(at.layer) * units + u) =
                        products
                            .block(b.offsets[s], u * unit, b.offsets[s + 1] - b.offsets[s], unit)
                            .sum();
        });
    return found;
}

/// A Transformer, and modules of these types in these folders.
std::string modules(std::vector<std::pair<std::string, std::string>> types_and_paths) {
    json all = json::array();
    for (const auto& [type, path] : types_and_paths)
        all.push_back({{"idx", all.size()},
                       {"type", "sentence_transformers.models." + type},
                       {"path", path}});
    return all.dump();
}

} // namespace

TEST_CASE("models of every family give the reference's embeddings and gradients of masks") {
    for (const std::string& name : families()) {
        CAPTURE(name);
        const reference expected(name);
        model m = load_model(fixtures::path("families/" + name));
        CHECK(m.json["model_type"] == name);
        for (const auto& [key, pool] :
             {std::pair("mean", pooling::mean), std::pair("cls", pooling::cls),
              std::pair("max", pooling::max)}) {
            CAPTURE(key);
            m.config.pooling = pool;
            CHECK(distance(run(m, expected.texts), expected.rows(key)) < 1e-5f);
        }
        m.config.pooling = pooling::mean;
        const auto [heads, filters] =
            mask_gradients(m, expected.texts, expected.rows("directions"));
        CHECK(distance(heads, expected.rows("heads")) < 1e-5f);
        CHECK(distance(filters, expected.rows("filters")) < 1e-5f);
    }
}

TEST_CASE("a family's models have as many positions as its texts can use") {
    CHECK(load_model(fixtures::path("families/bert")).config.max_tokens == 12);
    CHECK(load_model(fixtures::path("families/distilbert")).config.max_tokens == 12);
    CHECK(load_model(fixtures::path("families/roberta")).config.max_tokens == 12);
    CHECK(load_model(fixtures::path("families/xlm-roberta")).config.max_tokens == 12);
    const scratch_folder folder;
    copy_fixture("families/roberta", folder / "model");
    json config = read_json(folder / "model/config.json");
    config["max_position_embeddings"] = 3;
    write(folder / "model/config.json", config.dump());
    CHECK_THAT(
        error_of_loading(folder / "model"),
        ContainsSubstring("config.json: max_position_embeddings is 3, [CLS] and [SEP] need 4"));
}

TEST_CASE("a model is written as one of its family, and read again") {
    for (const std::string& name : families()) {
        CAPTURE(name);
        const scratch_folder folder;
        const fs::path source = folder / "source", out = folder / "out";
        copy_fixture("families/" + name, source);
        const reference expected(name);
        const model m = load_model(source);
        save_model(m, source, out);
        CHECK(read_json(out / "config.json") == m.json);

        std::set<std::string> before;
        for (const auto& entry : fs::directory_iterator(source))
            if (entry.path().extension() == ".safetensors")
                for (const std::string& tensor : names_of(tensors_of(entry.path())))
                    before.insert(todays_name(tensor));
        CHECK(names_of(tensors_of(out / "model.safetensors")) == before);
        CHECK(!fs::exists(out / "model.safetensors.index.json"));
        CHECK(bytes_of_weights(out) == fs::file_size(out / "model.safetensors"));
        const model again = load_model(out);
        CHECK(run(again, expected.texts) == run(m, expected.texts));
        CHECK(again.parameters() == m.parameters());

        // Uneven layers have the family's names too.
        model uneven = m;
        layer& l = uneven.layers[0];
        l.intermediate.weight = l.intermediate.weight.topRows(5).eval();
        l.intermediate.bias = l.intermediate.bias.head(5).eval();
        l.output.weight = l.output.weight.leftCols(5).eval();
        save_model(uneven, source, out);
        CHECK(read_json(out / "config.json")["pare"] == json{{"filters", {5, 12}}});
        CHECK(names_of(tensors_of(out / "model.safetensors")) == before);
        CHECK(run(load_model(out), expected.texts) == run(uneven, expected.texts));
    }
}

TEST_CASE("biases by distance are one tensor where all layers have all heads") {
    const scratch_folder folder;
    const fs::path source = folder / "source", out = folder / "out";
    copy_fixture("families/mpnet", source);
    const reference expected("mpnet");
    model m = load_model(source);
    const std::string all = "mpnet.encoder.relative_attention_bias.weight",
                      own = "attention.relative_attention_bias.weight";
    layer& l = m.layers[1]; // loses its first head
    const Index rest = m.config.hidden - m.config.head_size;
    --l.heads;
    for (dense* d : {&l.query, &l.key, &l.value})
        *d = {d->weight.bottomRows(rest).eval(), d->bias.tail(rest).eval()};
    l.attention_output.weight = l.attention_output.weight.rightCols(rest).eval();
    l.distance_bias = l.distance_bias.rightCols(1).eval();
    save_model(m, source, out);
    const auto names = names_of(tensors_of(out / "model.safetensors"));
    CHECK(names.count(all) == 0);
    CHECK(names.count("mpnet.encoder.layer.0." + own) == 1);
    CHECK(names.count("mpnet.encoder.layer.1." + own) == 1);
    const model again = load_model(out);
    CHECK(again.layers[1].distance_bias == l.distance_bias);
    CHECK(run(again, expected.texts) == run(m, expected.texts));
    CHECK(again.parameters() == m.parameters());
    save_model(again, out, folder / "again");
    CHECK(names_of(tensors_of(folder / "again/model.safetensors")) == names);

    const auto error_without = [&](const json& patch, const fs::path& of) {
        copy_fixture("families/mpnet", folder / "bad");
        fs::copy(of / "model.safetensors", folder / "bad/model.safetensors",
                 fs::copy_options::overwrite_existing);
        json config = read_json(of / "config.json");
        config.merge_patch(patch);
        write(folder / "bad/config.json", config.dump());
        const std::string error = error_of_loading(folder / "bad");
        fs::remove_all(folder / "bad");
        return error;
    };
    CHECK_THAT(error_without({{"pare", {{"heads", {2, 1}}}}}, source),
               ContainsSubstring("model.safetensors: tensor '" + all +
                                 "' is for all layers, which have unequal numbers of heads"));
    CHECK_THAT(error_without({{"relative_attention_num_buckets", 16}}, source),
               ContainsSubstring("tensor '" + all + "' has the shape [32, 2], not [16, 2]"));
    CHECK_THAT(error_without({{"relative_attention_num_buckets", 512}}, source),
               ContainsSubstring("config.json: relative_attention_num_buckets is 512, fewer than"));
    CHECK_THAT(error_without({{"relative_attention_num_buckets", 3}}, source),
               ContainsSubstring("config.json: relative_attention_num_buckets is 3"));
}

TEST_CASE("programs prune a model with biases by distance, and drop its tokens") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    model m = load_model(p.folder / "model");
    m.config.family = find_family("mpnet");
    m.config.types = 0;
    m.config.first_position = 2;
    m.config.distance_buckets = 32;
    m.type_embeddings.resize(0, m.config.hidden);
    const matrix biases = matrix::Random(32, m.layers[0].heads);
    for (layer& l : m.layers) l.distance_bias = biases;
    m.json = {{"model_type", "mpnet"}, {"pad_token_id", 1}};
    save_model(m, p.folder / "model", p.folder / "mpnet");
    REQUIRE(p.run("--model mpnet --calibrate text --macs 0.6 --out out --json r") == 0);
    CHECK(read_json(p.folder / "r")["difference_to_masked"].get<double>() < 1e-5);
    const model small = load_model(p.folder / "out");
    for (const layer& l : small.layers) CHECK(l.distance_bias.cols() == l.heads);
    p.program = PARE_LEARN_THRESHOLDS;
    CHECK(p.run("--model out --train text --target-macs 0.8 --out tokens") == 0);
    CHECK(load_model(p.folder / "tokens").layers[0].distance_bias == small.layers[0].distance_bias);
}

TEST_CASE("older names are those of today, and a tensor under both is refused") {
    const scratch_folder folder;
    copy_fixture("families/bert", folder / "old");
    const fs::path weights = folder / "old/model.safetensors";
    auto tensors = tensors_of(weights);
    CHECK(names_of(tensors).count("bert.embeddings.LayerNorm.gamma") == 1);
    const auto texts = reference("bert").texts;
    const matrix expected = run(load_model(folder / "old"), texts);
    for (tensor& t : tensors) t.name = todays_name(t.name);
    CHECK(names_of(tensors).count("bert.embeddings.LayerNorm.weight") == 1);
    CHECK(names_of(tensors).count("cls.predictions.transform.LayerNorm.bias") == 1);
    write_safetensors(weights, tensors);
    CHECK(run(load_model(folder / "old"), texts) == expected);

    tensors.push_back(tensors.front());
    tensors.back().name = "bert.embeddings.LayerNorm.beta";
    write_safetensors(weights, tensors);
    CHECK_THAT(error_of_loading(folder / "old"),
               ContainsSubstring("model.safetensors: holds the tensors "
                                 "'bert.embeddings.LayerNorm.beta' and "
                                 "'bert.embeddings.LayerNorm.bias', which are the same one"));
}

TEST_CASE("an encoder is found under any prefix, if it is the only one") {
    const scratch_folder folder;
    copy_fixture("families/distilbert", folder / "model");
    const fs::path weights = folder / "model/model.safetensors";
    const auto bare = tensors_of(weights);
    auto tensors = bare;
    for (tensor& t : tensors) t.name = "model.encoder." + t.name;
    write_safetensors(weights, tensors);
    CHECK(load_model(folder / "model").prefix == "model.encoder.");
    tensors.insert(tensors.end(), bare.begin(), bare.end());
    write_safetensors(weights, tensors);
    CHECK_THAT(error_of_loading(folder / "model"),
               ContainsSubstring("model.safetensors: holds two encoders, '' and 'model.encoder.'"));
    tensors = bare;
    for (tensor& t : tensors) t.name = "x" + t.name;
    write_safetensors(weights, tensors);
    CHECK_THAT(error_of_loading(folder / "model"),
               ContainsSubstring("model.safetensors: there is no tensor "
                                 "'embeddings.word_embeddings.weight', under no prefix"));
}

TEST_CASE("rows of the embeddings beyond the vocabulary are kept") {
    const scratch_folder folder;
    copy_fixture("tiny_bert", folder / "model");
    const fs::path weights = folder / "model/model.safetensors";
    auto tensors = tensors_of(weights);
    for (tensor& t : tensors)
        if (t.name == "embeddings.word_embeddings.weight") {
            t.bytes.resize(static_cast<std::size_t>(128 * t.shape[1]) * sizeof(float));
            t.shape[0] = 128;
        }
    write_safetensors(weights, tensors);
    json config = read_json(folder / "model/config.json");
    config["vocab_size"] = 128;
    write(folder / "model/config.json", config.dump());
    const model m = load_model(folder / "model");
    CHECK(m.word_embeddings.rows() == 128);
    save_model(m, folder / "model", folder / "out");
    CHECK(load_model(folder / "out").word_embeddings == m.word_embeddings);
}

TEST_CASE("weights in several files are where the index names them") {
    const scratch_folder folder;
    const fs::path model_folder = folder / "model",
                   index = model_folder / "model.safetensors.index.json";
    copy_fixture("families/roberta", model_folder);
    const json good = read_json(index);
    const std::string first = "model-00001-of-00002.safetensors",
                      second = "model-00002-of-00002.safetensors",
                      words = "roberta.embeddings.word_embeddings.weight";
    const auto error_with = [&](const json& patch) {
        json changed = good;
        changed.merge_patch(patch);
        write(index, changed.dump());
        return error_of_loading(model_folder);
    };
    const auto of_words = [&](const json& file) { return json{{"weight_map", {{words, file}}}}; };
    CHECK(error_with(json::object()) == "no error");
    CHECK(bytes_of_weights(model_folder) ==
          fs::file_size(model_folder / first) + fs::file_size(model_folder / second));
    std::set<fs::path> inputs;
    for (const program_input& input : model_inputs(model_folder)) inputs.insert(input.path);
    for (const fs::path& file : {index, model_folder / first, model_folder / second})
        CHECK(inputs.count(file) == 1);
    CHECK_THAT(error_with(of_words(second)),
               ContainsSubstring("index.json: names '" + second + "' as the file of the tensor '" +
                                 words + "', which is not in it"));
    CHECK_THAT(error_with(of_words("model-00003-of-00003.safetensors")),
               ContainsSubstring("index.json: names the file 'model-00003-of-00003.safetensors', "
                                 "which is not there"));
    for (const std::string& out :
         std::vector<std::string>{"../model/" + first, (model_folder / first).string(),
                                  "x/../../model/" + first, std::string()})
        CHECK_THAT(error_with(of_words(out)),
                   ContainsSubstring("index.json: names the file \"" + out +
                                     "\", which is not in its folder"));
    CHECK_THAT(error_with(of_words(7)), ContainsSubstring("names 7 as the file of '" + words));
    CHECK_THAT(error_with(of_words(nullptr)),
               ContainsSubstring(first + ": holds the tensor '" + words +
                                 "', which is not there by model.safetensors.index.json"));
    CHECK_THAT(error_with({{"weight_map", 3}}),
               ContainsSubstring("index.json: weight_map is 3, not an object"));
    CHECK_THAT(error_with({{"weight_map", nullptr}}),
               ContainsSubstring("index.json: names no tensors under weight_map"));
    CHECK(error_with(json::object()) == "no error");
    fs::remove(model_folder / second);
    CHECK_THAT(error_of_loading(model_folder),
               ContainsSubstring("names the file '" + second + "', which is not there"));
    // One file with all of them counts first.
    copy_fixture("families/xlm-roberta/model.safetensors", model_folder / "model.safetensors");
    CHECK_THAT(
        error_of_loading(model_folder),
        ContainsSubstring("model.safetensors: tensor 'embeddings.position_embeddings.weight' "
                          "has the shape [16, 8], not [14, 8]"));
}

TEST_CASE("what Git LFS has not fetched is named for what it is") {
    const std::string pointer = "version https://git-lfs.github.com/spec/v1\n"
                                "oid sha256:0000000000000000000000000000000000000000000000000000000"
                                "000000000\nsize 90868376\n";
    const auto sentence = [](const std::string& file) {
        return file + ": is a Git LFS pointer, not the file that it stands for; run `git lfs pull` "
                      "in its folder";
    };
    for (const std::string& file :
         std::vector<std::string>{"model.safetensors", "config.json", "vocab.txt", "tokenizer.json",
                                  "modules.json", "1_Pooling/config.json"}) {
        const scratch_folder folder;
        copy_fixture("tiny_bert", folder / "model");
        write(folder / "model" / file, pointer);
        CHECK_THAT(error_of_loading(folder / "model"), ContainsSubstring(sentence(file)));
    }
    const scratch_folder folder;
    copy_fixture("families/roberta", folder / "model");
    const std::string shard = "model-00002-of-00002.safetensors";
    write(folder / "model" / shard, pointer);
    CHECK_THAT(error_of_loading(folder / "model"), ContainsSubstring(sentence(shard)));
}

TEST_CASE("a pipe or a device among a model's files is refused, not waited for") {
    for (const std::string& file : std::vector<std::string>{
             "model.safetensors", "config.json", "vocab.txt", "tokenizer.json",
             "tokenizer_config.json", "sentence_bert_config.json", "modules.json", "vocab.json",
             "merges.txt", "1_Pooling/config.json"}) {
        CAPTURE(file);
        const scratch_folder folder;
        copy_fixture("tiny_bert", folder / "model");
        const fs::path at = folder / "model" / file;
        fs::create_directories(at.parent_path());
        fs::remove(at);
        REQUIRE(::mkfifo(at.c_str(), 0600) == 0);
        const std::string sentence = file + ": is not a regular file; put one in its place";
        CHECK_THAT(error_of_loading(folder / "model"), ContainsSubstring(sentence));
        fs::remove(at);
        fs::create_symlink("/dev/zero", at);
        CHECK_THAT(error_of_loading(folder / "model"), ContainsSubstring(sentence));
    }
}

TEST_CASE("weights in another format are named, with what to do") {
    for (const std::string& file :
         std::vector<std::string>{"pytorch_model.bin", "pytorch_model.bin.index.json",
                                  "tf_model.h5", "flax_model.msgpack", "model.onnx"}) {
        const scratch_folder folder;
        copy_fixture("tiny_bert", folder / "model");
        write(folder / "model" / file, "x");
        CHECK(error_of_loading(folder / "model") == "no error"); // there are others beside it
        fs::remove(folder / "model/model.safetensors");
        CHECK_THAT(error_of_loading(folder / "model"),
                   ContainsSubstring(file + ": has the weights in a format that is not read; write "
                                            "them as model.safetensors, which transformers' "));
    }
}

TEST_CASE("modules.json says where the parts of a sentence encoder are") {
    const std::string max = R"({"pooling_mode_max_tokens": true})",
                      cls = R"({"pooling_mode_cls_token": true})";
    const scratch_folder folder;
    const fs::path one = folder / "one", two = folder / "two", out = folder / "out";
    copy_fixture("tiny_bert", one);
    write(one / "1_Pooling/config.json", cls);
    write(one / "9_Any/config.json", max);
    CHECK(load_model(one).config.pooling == pooling::cls);
    write(one / "modules.json", modules({{"Transformer", ""}, {"Pooling", "9_Any"}}));
    CHECK(load_model(one).config.pooling == pooling::max);
    CHECK(transformer_folder(one) == one / "");
    write(one / "modules.json", modules({{"Transformer", ""}}));
    CHECK(load_model(one).config.pooling == pooling::mean);

    // The old layout, and what is written from it.
    copy_fixture("tiny_bert", two / "0_Transformer");
    write(two / "0_Transformer/sentence_distilbert_config.json", R"({"max_seq_length": 20})");
    write(two / "config.json", R"({"__version__": "0.3.8"})");
    write(two / "1_Pooling/config.json", max);
    write(two / "modules.json", modules({{"Transformer", "0_Transformer"},
                                         {"Pooling", "1_Pooling"},
                                         {"Normalize", "2_Normalize"}}));
    const model m = load_model(two);
    CHECK(transformer_folder(two) == two / "0_Transformer");
    CHECK(m.config.pooling == pooling::max);
    CHECK(m.config.max_tokens == 20);
    for (int round = 0; round < 2; ++round) { // the second one replaces the first
        save_model(m, two, out);
        std::set<std::string> files;
        for (const auto& entry : fs::recursive_directory_iterator(out))
            if (entry.is_regular_file())
                files.insert(entry.path().lexically_relative(out).string());
        CHECK(files == std::set<std::string>{"0_Transformer/config.json",
                                             "0_Transformer/model.safetensors",
                                             "0_Transformer/sentence_distilbert_config.json",
                                             "0_Transformer/vocab.txt", "1_Pooling/config.json",
                                             "config.json", "modules.json"});
        CHECK(read_json(out / "config.json") == json{{"__version__", "0.3.8"}});
        batch b;
        b.append({2, 40, 3});
        CHECK(run(load_model(out), b) == run(m, b));
    }
    write(out / "0_Transformer/mine", "");
    CHECK_THAT(error_of([&] { save_model(m, two, out); }),
               ContainsSubstring("out: exists and is not a model"));
}

TEST_CASE("modules that are not understood are refused by name") {
    const scratch_folder folder;
    copy_fixture("tiny_bert", folder / "model");
    const auto error_with = [&](const std::string& content) {
        write(folder / "model/modules.json", content);
        return error_of_loading(folder / "model");
    };
    const auto refused = [&](const std::string& content, const std::string& sentence) {
        CAPTURE(content);
        CHECK_THAT(error_with(content), ContainsSubstring("modules.json: " + sentence));
    };
    const std::string models = "sentence_transformers.models.";
    refused(modules({{"Transformer", ""}, {"LSTM", "2_LSTM"}}),
            "holds a module of type '" + models +
                "LSTM', only Transformer, Pooling, Dense and Normalize");
    for (const auto& parts : std::vector<std::vector<std::string>>{
             {"Dense"}, {"Pooling", "Normalize", "Dense"}, {"Pooling", "Dense", "Dense"}}) {
        std::vector<std::pair<std::string, std::string>> all = {{"Transformer", ""}};
        for (const std::string& part : parts) all.emplace_back(part, part);
        refused(modules(all), "holds a module of type '" + models + "Dense' in a place where none");
    }
    refused("[3]", "holds 3, not a module");
    refused("[{}]", "holds a module of type ''");
    refused(R"([{"type": 3}])", "type is 3, not a string");
    refused("{}", "holds a JSON object, not an array");
    refused("[]", "holds no module of type Transformer");
    refused(modules({{"Pooling", "1_Pooling"}, {"Transformer", ""}}),
            "holds a module of type '" + models + "Pooling' in a place where none is possible");
    refused(modules({{"Transformer", ""}, {"Normalize", "2"}, {"Pooling", "1"}}),
            "holds a module of type '" + models + "Pooling' in a place where none is possible");
    refused(modules({{"Transformer", ""}, {"Transformer", ""}}),
            "holds a module of type '" + models + "Transformer' in a place");
    refused(modules({{"Transformer", ""}, {"Pooling", "a"}, {"Pooling", "b"}}),
            "holds a module of type '" + models + "Pooling' in a place");
    for (const std::string& out : std::vector<std::string>{"..", "../model", "a/../../b", "/tmp"})
        refused(modules({{"Transformer", out}}),
                "names the folder \"" + out + "\", which is not in the model's");
    refused(R"([{"type": "Transformer", "path": "a\u0000b"}])",
            R"(names the folder "a\u0000b", which is not)");
    CHECK_THAT(error_with(modules({{"Transformer", "none"}})),
               ContainsSubstring("none/config.json: there is no such file"));
    CHECK_THAT(error_with(modules({{"Transformer", ""}, {"Pooling", "none"}})),
               ContainsSubstring("none/config.json: there is no such file"));
}

TEST_CASE("programs take a model from several files and from the folder that modules.json names") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const fs::path plain = p.folder / "model", part = p.folder / "old/0_Transformer";
    fs::create_directories(p.folder / "old");
    fs::rename(plain, part);
    const std::string asked = " --calibrate text --macs 0.6 --out out --json r";
    write(p.folder / "old/modules.json", modules({{"Transformer", "0_Transformer"}}));
    const auto tensors = tensors_of(part / "model.safetensors");
    const auto middle = tensors.begin() + 20;
    write_safetensors(part / "a", {tensors.begin(), middle});
    write_safetensors(part / "b", {middle, tensors.end()});
    fs::remove(part / "model.safetensors");
    json index;
    for (const tensor& t : tensors) index["weight_map"][t.name] = "b";
    for (auto t = tensors.begin(); t != middle; ++t) index["weight_map"][t->name] = "a";
    write(part / "model.safetensors.index.json", index.dump());

    CHECK(p.run("--model old" + asked) == 0);
    CHECK(p.errors.empty());
    CHECK(fs::is_regular_file(p.folder / "out/0_Transformer/model.safetensors"));
    CHECK(read_json(p.folder / "r")["bytes_dense"] ==
          fs::file_size(part / "a") + fs::file_size(part / "b"));
    CHECK(p.run("--model out" + asked) == 2); // the source
    CHECK(p.run("--model out --calibrate text --macs 0.6 --out again") == 0);
    CHECK(p.run("--model old --calibrate text --macs 0.6 --out again --json old/0_Transformer/a") ==
          2);
    CHECK_THAT(p.errors, ContainsSubstring("a file of the model itself"));

    p.program = PARE_LEARN_THRESHOLDS;
    CHECK(p.run("--model old --train text --stage calibrate --target-macs 0.8 --out out") == 0);
    fs::remove_all(p.folder / "out");
    fs::remove_all(p.folder / "again");
    fs::remove(p.folder / "r");

    // What is refused leaves nothing behind.
    const std::string pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    const std::vector<std::pair<fs::path, std::string>> bad = {
        {part / "b", pointer},
        {part / "vocab.txt", pointer},
        {part / "config.json", R"({"model_type": "albert"})"},
        {p.folder / "old/modules.json",
         modules({{"Transformer", "0_Transformer"}, {"Dense", "1"}})}};
    for (const auto& [file, content] : bad) {
        const std::string before = programs::read(file);
        write(file, content);
        for (const auto& [program, more] :
             {std::pair(PARE_PRUNE_ENCODER, asked),
              std::pair(
                  PARE_LEARN_THRESHOLDS,
                  std::string(
                      " --train text --stage calibrate --target-macs 0.8 --out out --json r"))}) {
            p.program = program;
            CHECK(p.run("--model old" + more) == 2);
            CHECK(p.output.empty());
            CHECK_THAT(p.errors, ContainsSubstring(
                                     "old/" + file.lexically_relative(p.folder / "old").string()));
            CHECK(std::count(p.errors.begin(), p.errors.end(), '\n') == 1);
            CHECK(p.files() == std::vector<std::string>{"old"});
        }
        write(file, before);
    }
}

} // namespace encoder_family_test
