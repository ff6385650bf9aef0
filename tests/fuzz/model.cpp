// A model's folder: config.json, tokenizer_config.json, sentence_bert_config.json, modules.json and
// 1_Pooling/config.json, beside weights that fit. What is loaded runs, and is the same when it was
// written and loaded again.
#include "files.hpp"
#include "small_model.hpp"

#include "encoder/network/network.hpp"

namespace {

constexpr const char* names[] = {"config.json", "tokenizer_config.json",
                                 "sentence_bert_config.json", "modules.json",
                                 "1_Pooling/config.json"};

void write_weights(const std::filesystem::path& file) {
    model m = fuzz::small_model();
    std::vector<tensor> tensors;
    for (const weight& w : weights(m)) {
        std::vector<std::int64_t> shape = {w.rows};
        if (w.columns > 1) shape.push_back(w.columns);
        tensors.push_back(make_tensor(w.name, shape, w.data, data_type::f32));
    }
    write_safetensors(file, tensors);
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
    static const bool once = [&] {
        std::filesystem::create_directories(source);
        write_weights(source / "model.safetensors");
        return true;
    }();
    (void)once;
    const std::vector<std::string> texts =
        fuzz::split({reinterpret_cast<const char*>(data), size}, std::size(names));
    for (std::size_t i = 0; i < std::size(names); ++i)
        here.file((std::string("model/") + names[i]).c_str(), texts[i]);
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
