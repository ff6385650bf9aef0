// Models as ONNX graphs: what ONNX Runtime makes of them, where it is installed, beside the network.
#include "catch.hpp"
#include "encoder_fixtures.hpp"
#include "encoder_models.hpp"
#include "encoder_program.hpp"

#include <encoder/export/onnx.hpp>
#include <encoder/files/heads.hpp>
#include <encoder/network/network.hpp>

namespace encoder_onnx_test {

using nlohmann::json;

#ifdef PARE_HAVE_ONNX

namespace {

/// Texts of several lengths, all types of tokens in them, and what the network gives for them.
void write_case(const fixtures::scratch_folder& folder, const std::string& name, const model& m,
                const std::string& bytes) {
    std::mt19937 engine(3);
    const auto below = [&](Index n) {
        return std::uniform_int_distribution<std::int32_t>(0, static_cast<std::int32_t>(n) -
                                                                  1)(engine);
    };
    const auto words = static_cast<std::int32_t>(m.config.vocabulary);
    json texts = json::array(), types = json::array();
    batch b;
    for (const Index length : {Index{7}, Index{1}, m.config.longest(), Index{12}}) {
        sequence ids, of_types, both;
        for (Index t = 0; t < length; ++t) {
            ids.push_back(below(words));
            of_types.push_back(m.config.types > 1 ? below(m.config.types) : 0);
            both.push_back(ids.back() + words * of_types.back());
        }
        texts.push_back(ids);
        types.push_back(of_types);
        b.append(both);
    }
    network net(m);
    net.set_token_pruning({});
    matrix outputs;
    net.forward(b, outputs);
    json rows = json::array();
    for (Index r = 0; r < outputs.rows(); ++r)
        rows.push_back(std::vector<float>(&outputs(r, 0), &outputs(r, 0) + outputs.cols()));
    programs::write(folder / (name + ".onnx"), bytes);
    programs::write(
        folder / (name + ".json"),
        json{{"texts", texts}, {"types", m.config.types > 1 ? types : json()}, {"outputs", rows}}
            .dump());
}

} // namespace

TEST_CASE("ONNX Runtime finds in an exported model what the network does") {
    const fixtures::scratch_folder folder;
    const auto add = [&](const std::string& name, const model& m) {
        write_case(folder, name, m, to_onnx(m));
    };
    shape s; // of uneven layers
    for (const auto& [name, pool] :
         {std::pair("mean", pooling::mean), std::pair("cls", pooling::cls),
          std::pair("max", pooling::max)}) {
        s.pool = pool;
        add(name, make_model(s));
    }
    s = {};
    s.f = activation::relu;
    s.heads = {0, 2, 0}; // layers of which biases alone are left
    s.filters = {5, 0, 0};
    add("nothing_left", make_model(s));
    s = {};
    s.f = activation::gelu_tanh;
    s.narrow_embeddings = 10;
    add("narrow", make_model(s));
    s = {};
    s.first_position = 2;
    s.types = 1;
    add("one_type", make_model(s));
    s.types = 0;
    s.distance_buckets = 32;
    s.positions = 300; // beyond the last bucket
    model m = make_model(s);
    add("distances", m);
    s.heads = {2, 2, 1};
    m = make_model(s);
    m.layers[1].distance_bias = m.layers[0].distance_bias;
    add("shared_distances", m);

    m = make_model({});
    random_numbers random(5);
    const auto layer_of = [&](Index outputs) {
        return dense{random.normal(outputs, m.config.hidden, 0.3f),
                     random.normal_vector(outputs, 0, 0.1f)};
    };
    for (const bool tanh : {false, true}) {
        m.projection = projection{layer_of(9), tanh};
        add(tanh ? "dense_module_tanh" : "dense_module", m);
    }
    m.projection.reset();
    m.config.pooling = pooling::cls;
    for (const char* type : {"bert", "distilbert", "electra"}) { // tanh, ReLU, GELU
        const stock_head* const stock = find_stock_head(type);
        m.head = head{layer_of(3), layer_of(m.config.hidden), stock->between, stock};
        add(std::string("head_of_") + type, m);
    }
    m.head = head{layer_of(1)};
    add("score", m);
    for (const auto of : {head::subject::token, head::subject::span}) {
        const stock_head* const stock = find_stock_head("bert", of);
        m.head = head{layer_of(2), std::nullopt, stock->between, stock, of};
        add(stock->architecture, m);
    }

    CHECK(programs::run_python("onnx/check_onnx.py", folder.path()));
}

TEST_CASE("families that transformers wrote are exported") {
    const fixtures::scratch_folder folder;
    for (const char* name : {"bert", "distilbert", "roberta", "xlm-roberta", "electra", "mpnet"}) {
        const model m = load_model(fixtures::path("families") / name);
        write_case(folder, name, m, to_onnx(m));
    }
    CHECK(programs::run_python("onnx/check_onnx.py", folder.path()));
}

TEST_CASE("prune_encoder exports what it prunes, and a model as it is") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    REQUIRE(p.run("--model model --calibrate text --macs 0.6 --export onnx --out small/") == 0);
    const std::string pruned = programs::read(p.folder / "small.onnx");
    CHECK(p.files() == std::vector<std::string>{"small", "small.onnx"});
    REQUIRE(p.run("--model small --export onnx --out again") == 0);
    CHECK(programs::read(p.folder / "again.onnx") == pruned);
    CHECK(p.output == "again.onnx: the model in small as an ONNX graph\n");
    REQUIRE(p.run("--model small --export onnx") == 0);
    CHECK(p.files() == std::vector<std::string>{"again.onnx", "small", "small.onnx"});

    const fixtures::scratch_folder folder;
    write_case(folder, "pruned", load_model(p.folder / "small"), pruned);
    CHECK(programs::run_python("onnx/check_onnx.py", folder.path()));

    // The graph's name is one that nobody wrote: what has it stays, unless it is such a graph.
    const std::string again = "--model small --export onnx --out again";
    REQUIRE(p.run(again) == 0);
    std::string changed = pruned;
    changed[pruned.size() / 2] ^= 1;
    for (const std::string& content : {std::string("dear"), std::string(), changed}) {
        programs::write(p.folder / "again.onnx", content);
        CHECK(p.run(again) == 2);
        CHECK(p.errors.find("again.onnx: exists and is not an ONNX graph") != std::string::npos);
        CHECK(p.run("--model model --calibrate text --export onnx --out again") == 2);
        CHECK_FALSE(programs::fs::exists(p.folder / "again"));
        CHECK(programs::read(p.folder / "again.onnx") == content);
    }
    programs::fs::remove(p.folder / "again.onnx");
    programs::fs::create_symlink("text", p.folder / "again.onnx");
    CHECK(p.run(again) == 2);
    for (const char* none : {".", "..", "/", "./"}) {
        CHECK(p.run(std::string("--model small --export onnx --out ") + none) == 2);
        CHECK(p.errors.find("has no name that --export could") != std::string::npos);
    }

    for (const char* option : {"--macs 0.3", "--samples 5", "--widths tied", "--tune none"})
        CHECK(p.run(std::string("--model small --export onnx --out wrong ") + option) == 2);
    CHECK(p.run("--model small --out wrong") == 2);
    CHECK_FALSE(programs::fs::exists(p.folder / "wrong.onnx"));
}

#else

TEST_CASE("a build without ONNX says so before it works") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    CHECK(p.run("--model model --calibrate text --export onnx --out small") == 2);
    CHECK(p.errors.find("install libonnx-dev libprotobuf-dev") != std::string::npos);
    CHECK(p.files().empty());
}

#endif

} // namespace encoder_onnx_test
