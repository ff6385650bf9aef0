// A whole small language model in a GGUF file: what is read, what is refused, and the program that
// streams texts through one.
#include "catch.hpp"
#include "encoder_program.hpp"
#include "language_gguf.hpp"
#include "support.hpp"

#include "language_model/model.hpp"
#include "language_model/network.hpp"

#include <functional>
#include <map>

namespace language_model_test {

namespace {

/// Two layers of two heads over one group; tokens are the letters a to h and a space.
struct small_model {
    std::map<std::string, std::string> keys;
    std::map<std::string, std::pair<std::vector<std::uint64_t>, std::vector<float>>> tensors;

    explicit small_model(random_source& random) {
        const auto number = [&](const std::string& name, std::uint32_t n) {
            keys[name] = gguf::key(name, 4, gguf::raw(n));
        };
        const auto real = [&](const std::string& name, float x) {
            keys[name] = gguf::key(name, 6, gguf::raw(x));
        };
        const auto word = [&](const std::string& name, const std::string& s) {
            keys[name] = gguf::key(name, 8, gguf::text(s));
        };
        word("general.architecture", "llama");
        number("llama.block_count", 2);
        number("llama.context_length", 50);
        number("llama.embedding_length", 8);
        number("llama.feed_forward_length", 6);
        number("llama.attention.head_count", 2);
        number("llama.attention.head_count_kv", 1);
        real("llama.attention.layer_norm_rms_epsilon", 1e-5f);
        word("tokenizer.ggml.model", "gpt2");
        word("tokenizer.ggml.pre", "gpt-2");
        std::string words, types;
        for (const char* w : {"a", "b", "c", "d", "e", "f", "g", "h", "\u0120"}) {
            words += gguf::text(w);
            types += gguf::raw<std::int32_t>(1);
        }
        keys["words"] = gguf::array("tokenizer.ggml.tokens", 8, 9, words);
        keys["types"] = gguf::array("tokenizer.ggml.token_type", 5, 9, types);
        keys["merges"] = gguf::array("tokenizer.ggml.merges", 8, 0, "");
        const auto tensor = [&](const std::string& name, std::vector<std::uint64_t> dimensions) {
            index_t n = 1;
            for (const auto d : dimensions) n *= static_cast<index_t>(d);
            tensors[name] = {std::move(dimensions), random.vector<float>(n)};
        };
        tensor("token_embd.weight", {8, 9});
        for (const std::string layer : {"blk.0.", "blk.1."}) {
            for (const std::string norm : {"attn_norm", "ffn_norm"})
                tensor(layer + norm + ".weight", {8});
            for (const std::string wide : {"attn_q", "attn_output"})
                tensor(layer + wide + ".weight", {8, 8});
            for (const std::string narrow : {"attn_k", "attn_v"})
                tensor(layer + narrow + ".weight", {8, 4});
            for (const std::string up : {"ffn_gate", "ffn_up"})
                tensor(layer + up + ".weight", {8, 6});
            tensor(layer + "ffn_down.weight", {6, 8});
        }
        tensor("output_norm.weight", {8});
    }

    std::string content() const {
        gguf::file f;
        for (const auto& [name, key] : keys) f.keys.push_back(key);
        for (const auto& [name, t] : tensors) {
            std::string bytes;
            for (const float x : t.second) bytes += gguf::raw(x);
            f.add(name, t.first, 0, bytes);
        }
        return f.content();
    }
    void write(const std::filesystem::path& path) const { programs::write(path, content()); }
};

} // namespace

TEST_CASE("a model is read as it stands in its file") {
    random_source random;
    CAPTURE(random);
    const fixtures::scratch_folder folder;
    small_model small(random);
    small.write(folder / "m.gguf");
    const auto m = language::read_model(language::gguf_file(folder / "m.gguf"));
    CHECK(m.config.vocabulary == 9);
    CHECK(m.config.head_size == 4);
    CHECK(m.turns == std::vector<double>{1, 0.01});
    REQUIRE(m.layers.size() == 2);
    const auto same = [&](const auto& read, const std::string& name) {
        const auto& [dimensions, values] = small.tensors.at(name);
        return read.cols() == static_cast<index_t>(dimensions[0]) &&
               std::equal(values.begin(), values.end(), read.data(), read.data() + read.size());
    };
    CHECK(same(m.words, "token_embd.weight"));
    CHECK(same(m.layers[1].value.weight, "blk.1.attn_v.weight"));
    CHECK(m.layers[1].value.bias.size() == 0);
    CHECK(same(m.layers[0].down.weight, "blk.0.ffn_down.weight"));
    CHECK(same(m.last, "output_norm.weight"));
    CHECK(&m.to_logits() == &m.words);
    small.tensors["output.weight"] = {{8, 9}, random.vector<float>(72)};
    small.write(folder / "m.gguf");
    small.tensors["blk.1.attn_output.bias"] = {{8}, random.vector<float>(8)};
    small.tensors["rope_freqs.weight"] = {{2}, {1, 5}};
    small.keys["factor"] = gguf::key("llama.rope.scaling.factor", 6, gguf::raw(2.0f));
    small.write(folder / "m.gguf");
    const auto more = language::read_model(language::gguf_file(folder / "m.gguf"));
    CHECK(same(more.to_logits(), "output.weight"));
    CHECK(same(more.layers[1].projection.bias, "blk.1.attn_output.bias"));
    CHECK(more.turns == std::vector<double>{0.5, 0.001});
}

TEST_CASE("what a model of this kind does not have is refused") {
    const fixtures::scratch_folder folder;
    const auto sentence = [&](const std::function<void(small_model&)>& change) {
        random_source random;
        small_model m(random);
        change(m);
        m.write(folder / "m.gguf");
        return sentence_of<encoder::file_error>(
            [&] { language::read_model(language::gguf_file(folder / "m.gguf")); });
    };
    const auto number = [](const std::string& name, std::uint32_t n) {
        return [=](small_model& m) { m.keys[name] = gguf::key(name, 4, gguf::raw(n)); };
    };
    CHECK_THAT(
        sentence([](small_model& m) {
            m.keys["general.architecture"] =
                gguf::key("general.architecture", 8, gguf::text("gemma"));
        }),
        ContainsSubstring("its architecture is gemma; llama, deci, qwen2 and qwen3 are read"));
    CHECK_THAT(sentence(number("llama.block_count", 0)), ContainsSubstring("is 0; from 1 to"));
    CHECK_THAT(sentence(number("llama.attention.head_count", 3)),
               ContainsSubstring("8 columns do not divide into 3 heads"));
    CHECK_THAT(sentence(number("llama.attention.head_count", 8)),
               ContainsSubstring("its heads have 1 columns, not pairs"));
    CHECK_THAT(sentence(number("llama.attention.value_length", 6)),
               ContainsSubstring("value_length is 6; only 4"));
    CHECK_THAT(sentence(number("llama.attention.key_length", 6)),
               ContainsSubstring("blk.0.attn_q.weight' has the shape [8, 8], not [12, 8]"));
    CHECK_THAT(sentence(number("llama.attention.head_count_kv", 3)),
               ContainsSubstring("2 heads do not divide into 3 groups"));
    CHECK_THAT(sentence(number("llama.rope.dimension_count", 2)),
               ContainsSubstring("is 2; only 4, the columns of a head, is read"));
    CHECK_THAT(sentence(number("llama.expert_count", 8)), ContainsSubstring("8 experts"));
    CHECK_THAT(sentence(number("split.count", 2)), ContainsSubstring("one of 2 parts of a model"));
    CHECK_THAT(sentence(number("llama.block_count", 3)),
               ContainsSubstring("blk.2.attn_norm.weight"));
    const auto real = [](const std::string& name, float x) {
        return [=](small_model& m) { m.keys[name] = gguf::key(name, 6, gguf::raw(x)); };
    };
    CHECK_THAT(sentence(real("llama.rope.scaling.attn_factor", 4)),
               ContainsSubstring("attn_factor is 4; only 1 is read"));
    CHECK_THAT(sentence(real("llama.rope.scaling.factor", 0)),
               ContainsSubstring("factor is 0, and should be more than 0"));
    for (const char* type : {"yarn", "longrope", ""})
        CHECK_THAT(sentence([&](small_model& m) {
                       m.keys["type"] = gguf::key("llama.rope.scaling.type", 8, gguf::text(type));
                   }),
                   ContainsSubstring("positions are scaled (" + std::string(type) + "), which is"));
    for (const float factor : {0.0f, -1.0f})
        CHECK_THAT(sentence([&](small_model& m) {
                       m.tensors["rope_freqs.weight"] = {{2}, {1, factor}};
                   }),
                   ContainsSubstring("rope_freqs.weight holds"));
    CHECK_THAT(sentence([](small_model& m) {
                   m.tensors["rope_freqs.weight"] = {{3}, {1, 1, 1}};
               }),
               ContainsSubstring("has the shape [3], not [2]"));
    for (const std::string name : {"llama.rope.scale_linear", "llama.logit_scale"})
        CHECK_THAT(sentence(real(name, 2)),
                   ContainsSubstring("has the key " + name + ", whose meaning is not known"));
    CHECK_THAT(sentence([](small_model& m) {
                   m.keys["general.architecture"] = gguf::key(
                       "general.architecture", 8, gguf::text(std::string("a\n\0\x1b", 4)));
               }),
               ContainsSubstring("its architecture is a\\x0a\\x00\\x1b; llama, "));
    CHECK_THAT(sentence([](small_model& m) {
                   m.tensors["blk.0.ffn_up.scale"] = {{1}, {1}};
               }),
               ContainsSubstring("has a tensor blk.0.ffn_up.scale, which"));
    CHECK_THAT(sentence([](small_model& m) {
                   m.tensors["blk.0.attn_q_norm.weight"] = {{4}, std::vector<float>(4)};
               }),
               ContainsSubstring("has a tensor blk.0.attn_q_norm.weight, which"));
    CHECK_THAT(sentence([](small_model& m) { m.tensors.erase("token_embd.weight"); }),
               ContainsSubstring("has no matrix token_embd.weight"));
    CHECK_THAT(sentence([](small_model& m) {
                   m.tensors["token_embd.weight"] = {{8, 0}, {}};
               }),
               ContainsSubstring("has no matrix token_embd.weight"));
    CHECK_THAT(sentence([](small_model& m) {
                   m.tensors["output_norm.weight"].second[3] = not_a_number<float>();
               }),
               ContainsSubstring("output_norm.weight"));
}

TEST_CASE("what a pass cannot use, it says in numbers") {
    random_source random;
    const fixtures::scratch_folder folder;
    small_model(random).write(folder / "m.gguf");
    const auto m = language::read_model(language::gguf_file(folder / "m.gguf"));
    const auto sentence = [&](const std::vector<std::int32_t>& ids, index_t room,
                              std::size_t layers) {
        language::cache c(layers, make_cache(m, room).front());
        return sentence_of<std::invalid_argument>([&] { language::forward(m, {ids, 0}, c); });
    };
    CHECK(sentence({}, 9, 2) == "a pass of no tokens");
    CHECK(sentence({1, 9}, 9, 2) == "token 9 is none of 9");
    CHECK(sentence({-1}, 9, 2) == "token -1 is none of 9");
    CHECK(sentence({1}, 9, 1) == "a cache of 1 layers for 2");
    CHECK(sentence({1, 2, 3}, 2, 2) == "3 keys behind 0 in room for 2");
    CHECK(sentence_of<std::invalid_argument>([&] {
              language::losses(m, language::matrix::Zero(1, 8), {1, 2});
          }) == "2 next tokens behind 1 rows");
}

TEST_CASE("evict_cache, as a user runs it") {
    random_source random;
    programs::sandbox box(PARE_EVICT_CACHE);
    small_model small(random);
    small.write(box.folder / "m.gguf");
    std::string texts;
    for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 20 + 5 * i; ++j)
            texts += std::string(1, static_cast<char>('a' + (i * j + j * j) % 8)) + " ";
        texts += "\n";
    }
    programs::write(box.folder / "texts", texts);
    box.must_run("--model m.gguf --texts texts --calibrate texts --pass 8 --first 2 --last 4 "
                 "--rules window,sinks,h2o,snap,ada,planned,thresholds,learned --shares 0.5,0.3 "
                 "--needles 2 --html page.html");
    CHECK_THAT(box.errors, ContainsSubstring("--calibrate is --texts itself"));
    CHECK_THAT(box.output, ContainsSubstring("6 texts of "));
    CHECK_THAT(box.output, ContainsSubstring("12 needles in 6 texts of "));
    const std::string page = programs::read(box.folder / "page.html");
    for (const std::string rule :
         {"window", "sinks", "h2o", "snap", "ada", "planned", "thresholds", "learned"}) {
        CHECK_THAT(page, ContainsSubstring("<figcaption>" + rule + "</figcaption>"));
        for (const std::string share : {"0.5", "0.3"})
            CHECK_THAT(box.output, ContainsSubstring("| " + rule + " | " + share + " | "));
    }
    CHECK(box.output.find("nan") == std::string::npos);
    box.must_run("--model m.gguf --texts texts --first 0 --last 0 --shares 0.02");
    box.must_run("--model m.gguf --texts texts --pass 1 --documents 1 --shares 1");

    const auto refused = [&](const std::string& arguments) {
        CHECK(box.run("--model m.gguf " + arguments) == 2);
        CHECK(box.output.empty());
        return box.errors;
    };
    for (const std::string rule : {"newest", "", "0"})
        CHECK_THAT(refused("--texts texts --rules '" + rule + "'"),
                   ContainsSubstring("--rules: '" + rule + "' is not one of ada, h2o, learned"));
    CHECK_THAT(refused("--texts texts --rules learned"), ContainsSubstring("needs --calibrate"));
    CHECK_THAT(refused("--texts texts --rules h2o,planned"), ContainsSubstring("planned needs"));
    CHECK_THAT(refused("--texts texts --calibrate texts --rules window,h2o"),
               ContainsSubstring("--rules window,h2o do not"));
    CHECK_THAT(refused("--texts texts --html texts"), ContainsSubstring("texts"));
    CHECK_THAT(refused("--texts texts --needles 129"), ContainsSubstring("128 at most"));
    CHECK_THAT(refused("--texts texts --tokens 20 --needles 5"),
               ContainsSubstring("more than 20 tokens"));
    CHECK_THAT(refused("--texts texts --calibrate texts --rules h2o,planned --last 900"),
               ContainsSubstring("texts: no text has 905 tokens or more"));
    CHECK_THAT(refused("--texts texts --html /dev/full"),
               ContainsSubstring("/dev/full: cannot be written"));
    CHECK_THAT(refused("--texts texts --shares 0"), ContainsSubstring("0 is no share"));
    CHECK_THAT(refused("--texts texts --pass 0"), ContainsSubstring("at least 1"));
    CHECK_THAT(refused("--texts texts --first 18446744073709551615"),
               ContainsSubstring("16777216 at most"));
    programs::write(box.folder / "bad", "a b\na \xff b\n");
    CHECK_THAT(refused("--texts bad"), ContainsSubstring("bad: line 2 is not UTF-8 at byte 3"));
    CHECK_THAT(refused("--texts texts --rules h2o,sinks,h2o"), ContainsSubstring("has h2o twice"));
    CHECK_THAT(refused("--texts texts --shares 0.5,0.5"), ContainsSubstring("has 0.5 twice"));
    const auto keys = small.keys;
    small.keys["tokenizer.ggml.add_bos_token"] =
        gguf::key("tokenizer.ggml.add_bos_token", 7, std::string("\1", 1));
    small.keys["tokenizer.ggml.bos_token_id"] =
        gguf::key("tokenizer.ggml.bos_token_id", 10, gguf::raw(std::uint64_t{1} << 32));
    small.write(box.folder / "m.gguf");
    CHECK_THAT(refused("--texts texts"),
               ContainsSubstring("bos_token_id is 4294967296, and there"));
    small.keys = keys;
    // Weights that are numbers, and make none.
    const auto tensors = small.tensors;
    for (float& x : small.tensors["blk.0.attn_output.weight"].second) x = 3e38F;
    small.write(box.folder / "m.gguf");
    CHECK_THAT(refused("--texts texts --rules planned --calibrate texts --last 900"),
               ContainsSubstring("905 tokens")); // and not what the run would say
    for (const std::string rules : {"window", "h2o", "window,planned --calibrate texts"})
        CHECK_THAT(
            refused("--texts texts --rules " + rules),
            ContainsSubstring("m.gguf: what it predicts behind token 0 of text 1 of texts is "
                              "no number"));
    small.tensors = tensors;
    small.write(box.folder / "m.gguf");
    std::string line;
    while (line.size() < 17 << 20) line += "a b c ";
    programs::write(box.folder / "long", texts + line + "\n");
    box.must_run("--model m.gguf --texts long --rules sinks --shares 0.5");
    CHECK_THAT(box.errors, ContainsSubstring("long: line 7 is longer than 4194304 bytes"));
    CHECK_THAT(box.output, ContainsSubstring("7 texts of "));
    programs::write(box.folder / "empty", "\n");
    CHECK_THAT(refused("--texts empty"), ContainsSubstring("empty"));
    small.tensors["token_embd.weight"] = {{8, 5}, random.vector<float>(40)};
    small.write(box.folder / "m.gguf");
    CHECK_THAT(refused("--texts texts"),
               ContainsSubstring("it names 9 tokens, of which 5 have embeddings"));
}

} // namespace language_model_test
