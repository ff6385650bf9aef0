// Sentence encoders with a Dense module behind their pooling.
#include "catch.hpp"
#include "encoder_fixtures.hpp"
#include "encoder_outputs.hpp"
#include "encoder_program.hpp"

#include "encoder/network/outputs.hpp"

namespace encoder_dense_test {

namespace fs = std::filesystem;
using namespace encoder;
using Eigen::Index;
using fixtures::error_of;
using fixtures::scratch_folder;
using nlohmann::json;
using programs::write;

namespace {

/// Puts a Dense module on a model's pooled mean.
void add_dense(const fs::path& folder, const projection& p, const json& patch = {}) {
    const auto rows = p.layer.weight.rows(), columns = p.layer.weight.cols();
    const bool biased = p.layer.bias.squaredNorm() > 0;
    json config = {{"in_features", columns},
                   {"out_features", rows},
                   {"bias", biased},
                   {"activation_function", p.tanh ? "torch.nn.modules.activation.Tanh"
                                                  : "torch.nn.modules.linear.Identity"}};
    if (!patch.is_null()) config.merge_patch(patch);
    for (const char* part : {"1_Pooling", "2_Dense"}) fs::create_directories(folder / part);
    write(folder / "2_Dense/config.json", config.dump());
    std::vector<tensor> tensors = {
        make_tensor("linear.weight", {rows, columns}, p.layer.weight.data(), data_type::f32)};
    if (biased)
        tensors.push_back(make_tensor("linear.bias", {rows}, p.layer.bias.data(), data_type::f32));
    write_safetensors(folder / "2_Dense/model.safetensors", tensors);
    write(folder / "1_Pooling/config.json", R"({"pooling_mode_mean_tokens": true})");
    write(folder / "modules.json", R"([
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])");
}

/// What embeddings are of these pooled rows, in double.
Eigen::MatrixXd embeddings(const projection& p, const Eigen::MatrixXd& pooled) {
    Eigen::MatrixXd y = pooled * p.layer.weight.cast<double>().transpose();
    y.rowwise() += p.layer.bias.cast<double>().transpose();
    if (p.tanh) y = y.array().tanh().matrix().eval();
    return y.rowwise().normalized();
}

} // namespace

TEST_CASE("embeddings are of what a Dense module makes of the pooled vector") {
    const scratch_folder folder;
    const fs::path source = folder / "source", out = folder / "out";
    fs::copy(fixtures::path("tiny_bert"), source, fs::copy_options::recursive);
    const model plain = load_model(source);
    const Index d = plain.config.hidden;
    batch texts;
    texts.append({2, 40, 50, 3});
    texts.append({2, 7, 3});
    model pools = plain; // a head that gives the pooled rows
    pools.head = head{{matrix::Identity(d, d), vector::Zero(d)}};
    const matrix pooled = run(pools, texts);
    for (const bool tanh : {true, false})
        for (const bool biased : {true, false}) {
            CAPTURE(tanh, biased);
            const projection p{
                {matrix::Random(5, d), biased ? vector(vector::Random(5)) : vector::Zero(5)}, tanh};
            add_dense(source, p);
            const model m = load_model(source);
            CHECK(m.parameters() == plain.parameters() + 5 * d + 5);
            CHECK(network(m).outputs() == 5);
            const matrix outputs = run(m, texts);
            CHECK(distance(outputs, embeddings(p, pooled.cast<double>()).cast<float>()) < 1e-5f);
            save_model(m, source, out);
            const model again = load_model(out);
            CHECK(run(again, texts) == outputs);
            save_model(again, out, folder / "again");
            CHECK(run(load_model(folder / "again"), texts) == outputs);

            const matrix at = matrix::Random(2, 5);
            const matrix found = outputs_backward(m, pooled, outputs, at).at_pooled;
            matrix expected(2, d);
            constexpr double step = 1e-5;
            for (Index i = 0; i < expected.size(); ++i) {
                Eigen::MatrixXd more = pooled.cast<double>(), less = more;
                more(i / d, i % d) += step;
                less(i / d, i % d) -= step;
                const Eigen::MatrixXd difference = embeddings(p, more) - embeddings(p, less);
                expected(i / d, i % d) = static_cast<float>(
                    difference.cwiseProduct(at.cast<double>()).sum() / (2 * step));
            }
            CHECK(distance(found, expected) < 1e-5f);
            // With a head, it is the head's outputs that count.
            model with_head = m;
            with_head.head = pools.head;
            CHECK(network(with_head).outputs() == d);
            CHECK(run(with_head, texts) == pooled);
        }

    const projection p{{matrix::Random(5, d), vector::Random(5)}};
    const auto refused = [&](const json& patch, const std::string& sentence) {
        CAPTURE(patch);
        add_dense(source, p, patch);
        CHECK_THAT(error_of([&] { load_model(source); }), ContainsSubstring("2_Dense/" + sentence));
    };
    refused({{"activation_function", "torch.nn.modules.activation.ReLU"}},
            "config.json: activation_function is 'torch.nn.modules.activation.ReLU', only");
    refused({{"in_features", d + 1}}, "config.json: in_features is " + std::to_string(d + 1) +
                                          ", the hidden size of the model " + std::to_string(d));
    refused({{"out_features", 6}}, "model.safetensors: tensor 'linear.weight' has the shape");
    refused({{"module_input_name", "token_embeddings"}},
            "config.json: module_input_name is 'token_embeddings', not sentence_embedding");
    add_dense(source, p);
    fs::rename(source / "2_Dense/model.safetensors", source / "2_Dense/pytorch_model.bin");
    CHECK_THAT(error_of([&] { load_model(source); }),
               ContainsSubstring("2_Dense/pytorch_model.bin: has the "
                                 "weights in a format that is not read"));
}

TEST_CASE("programs prune a model with a Dense module, and drop its tokens") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const Index d = load_model(p.folder / "model").config.hidden;
    add_dense(p.folder / "model", {{matrix::Random(5, d), vector::Random(5)}});
    REQUIRE(p.run("--model model --calibrate text --macs 0.6 --out out --json r") == 0);
    CHECK(json::parse(programs::read(p.folder / "r"))["difference_to_masked"].get<double>() < 1e-5);
    p.program = PARE_LEARN_THRESHOLDS;
    REQUIRE(p.run("--model out --train text --target-macs 0.8 --out tokens") == 0);
    const model before = load_model(p.folder / "model"), after = load_model(p.folder / "tokens");
    REQUIRE(after.projection);
    CHECK(after.projection->layer.weight == before.projection->layer.weight);
    CHECK(after.projection->layer.bias == before.projection->layer.bias);
}

} // namespace encoder_dense_test
