// A model's folder, with or without a head or a Dense module: config.json, tokenizer_config.json,
// sentence_bert_config.json, modules.json, the pooling's and the module's config.json and
// model.safetensors.index.json, beside weights that fit, in one file or, with an index, in two. What is
// loaded runs, and is the same when it was written and loaded again.
#include "files.hpp"
#include "small_model.hpp"

#include "encoder/network/network.hpp"

namespace {

constexpr const char* names[] = {
    "config.json",           "tokenizer_config.json", "sentence_bert_config.json",   "modules.json",
    "1_Pooling/config.json", "2_Dense/config.json",   "model.safetensors.index.json"};

std::vector<tensor> small_weights() {
    model m = fuzz::small_model();
    std::vector<tensor> tensors;
    for (const weight& w : weights(m)) {
        std::vector<std::int64_t> shape = {w.rows};
        if (w.columns > 1) shape.push_back(w.columns);
        tensors.push_back(make_tensor(w.name, shape, w.data, data_type::f32));
    }
    for (const bool is_bias : {false, true}) // a pooler, which only some heads read
        tensors.push_back(
            make_tensor(is_bias ? "pooler.dense.bias" : "pooler.dense.weight",
                        is_bias ? std::vector<std::int64_t>{4} : std::vector<std::int64_t>{4, 4},
                        m.layers[0].attention_output.weight.data(), data_type::f32));
    return tensors;
}

matrix run(const model& m) {
    network net(m);
    batch b;
    b.append({2, 4, 3});
    b.append({2, 3});
    matrix outputs;
    net.forward(b, outputs);
    return outputs;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    const auto source = here / "model", target = here / "again";
    static const std::vector<tensor> all = small_weights();
    static const dense module{matrix::Random(3, 4), vector::Random(3)};
    static const bool once = [&] {
        std::filesystem::create_directories(source);
        const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
        write_safetensors(source / "a", {all.begin(), middle});
        write_safetensors(source / "b", {middle, all.end()});
        std::filesystem::create_directories(source / "2_Dense");
        write_safetensors(
            source / "2_Dense/model.safetensors",
            {make_tensor("linear.weight", {3, 4}, module.weight.data(), data_type::f32),
             make_tensor("linear.bias", {3}, module.bias.data(), data_type::f32)});
        return true;
    }();
    (void)once;
    const std::vector<std::string> texts =
        fuzz::split({reinterpret_cast<const char*>(data), size}, std::size(names));
    for (std::size_t i = 0; i < std::size(names); ++i)
        here.file((std::string("model/") + names[i]).c_str(), texts[i]);
    if (texts.back().empty())
        write_safetensors(source / "model.safetensors", all);
    else
        std::filesystem::remove(source / "model.safetensors");
    std::optional<model> m;
    if (fuzz::unusable([&] { m = load_model(source); })) return 0;
    EXPECT(m->config.max_tokens >= 2 && m->config.max_tokens <= m->config.positions);
    if (m->config.max_tokens < 3) return 0;
    const matrix outputs = run(*m);
    EXPECT(outputs.allFinite());
    save_model(*m, source, target);
    const model again = load_model(target);
    EXPECT(run(again) == outputs);
    EXPECT(again.parameters() == m->parameters());
    return 0;
}
