#include "dense_module.hpp"

#include "settings.hpp"
#include "weights.hpp"

namespace encoder::detail {

std::vector<std::filesystem::path> weights_of_dense(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> all = {weights_index};
    for (const std::filesystem::path& file : weight_files(folder))
        all.push_back(file.lexically_relative(folder));
    return all;
}

projection read_dense(const std::filesystem::path& folder, Eigen::Index hidden) {
    const settings given(folder / "config.json");
    projection p;
    const std::string function =
        given.text("activation_function", "torch.nn.modules.activation.Tanh");
    p.tanh = ends_with(function, ".Tanh");
    if (!p.tanh && !ends_with(function, ".Identity"))
        fail(given.file(), "activation_function is '", function,
             "', only torch.nn's Tanh and Identity are possible");
    for (const char* key : {"module_input_name", "module_output_name"})
        if (const std::string name = given.text(key, "sentence_embedding");
            name != "sentence_embedding")
            fail(given.file(), key, " is '", name, "', not sentence_embedding");
    if (const Eigen::Index in = given.size("in_features", 1 << 16); in != hidden)
        fail(given.file(), "in_features is ", in, ", the hidden size of the model ", hidden);
    const Eigen::Index out = given.size("out_features", 1 << 16);
    const stored_weights file(folder);
    const std::vector<float> weight = file.read("linear.weight", {out, hidden});
    p.layer.weight = Eigen::Map<const matrix>(weight.data(), out, hidden);
    p.layer.bias = vector::Zero(out);
    if (given.flag("bias", true)) {
        const std::vector<float> bias = file.read("linear.bias", {out});
        p.layer.bias = Eigen::Map<const vector>(bias.data(), out);
    }
    return p;
}

} // namespace encoder::detail
