#include "family.hpp"

#include "file.hpp"

#include <algorithm>

namespace encoder {
namespace {

constexpr decltype(family::keys) usual_keys = {
    "hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size",
    "hidden_act",  "type_vocab_size",     "layer_norm_eps",    nullptr,
    nullptr};

constexpr decltype(family::tensors) usual_tensors = {"embeddings.word_embeddings",
                                                     "embeddings.position_embeddings",
                                                     "embeddings.token_type_embeddings",
                                                     "embeddings.LayerNorm",
                                                     nullptr,
                                                     "encoder.layer.",
                                                     "attention.self.query",
                                                     "attention.self.key",
                                                     "attention.self.value",
                                                     "attention.output.dense",
                                                     "attention.output.LayerNorm",
                                                     "intermediate.dense",
                                                     "output.dense",
                                                     "output.LayerNorm",
                                                     nullptr};

} // namespace

constexpr family bert = {"BERT", {"bert"}, usual_keys, false, usual_tensors};

namespace {

constexpr family roberta = {
    "RoBERTa", {"roberta", "xlm-roberta", "camembert"}, usual_keys, true, usual_tensors};

constexpr family distilbert = {
    "DistilBERT",
    {"distilbert"},
    {"dim", "n_heads", "n_layers", "hidden_dim", "activation", nullptr, nullptr, nullptr, nullptr},
    false,
    {"embeddings.word_embeddings", "embeddings.position_embeddings", nullptr,
     "embeddings.LayerNorm", nullptr, "transformer.layer.", "attention.q_lin", "attention.k_lin",
     "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2",
     "output_layer_norm", nullptr}};

constexpr family make_electra() {
    family f = bert;
    f.name = "ELECTRA";
    f.model_types = {"electra"};
    f.keys.embedding = "embedding_size";
    f.tensors.embedding_projection = "embeddings_project";
    return f;
}
constexpr family electra = make_electra();

constexpr family make_mpnet() {
    family f = roberta;
    f.name = "MPNet";
    f.model_types = {"mpnet"};
    f.keys.types = nullptr;
    f.tensors.types = nullptr;
    f.tensors.query = "attention.attn.q";
    f.tensors.key = "attention.attn.k";
    f.tensors.value = "attention.attn.v";
    f.tensors.attention_output = "attention.attn.o";
    f.tensors.attention_norm = "attention.LayerNorm";
    f.keys.distance_buckets = "relative_attention_num_buckets";
    f.tensors.distance_bias = "encoder.relative_attention_bias";
    return f;
}
constexpr family mpnet = make_mpnet();

constexpr const family* families[] = {&bert, &roberta, &distilbert, &electra, &mpnet};

} // namespace

const family* find_family(std::string_view model_type) {
    for (const family* f : families)
        for (const char* type : f->model_types)
            if (type != nullptr && type == model_type) return f;
    return nullptr;
}

std::string known_model_types() {
    std::string all;
    for (const family* f : families)
        for (const char* type : f->model_types)
            if (type != nullptr) all += (all.empty() ? "" : ", ") + std::string(type);
    return all;
}

std::size_t prefix_length(std::string_view tensor, std::string_view own) {
    if (!detail::ends_with(tensor, own)) return tensor.npos;
    const std::size_t length = tensor.size() - own.size();
    return length == 0 || tensor[length - 1] == '.' ? length : tensor.npos;
}

std::string todays_name(std::string name) {
    for (const auto& [old, now] : {std::pair("LayerNorm.gamma", "LayerNorm.weight"),
                                   std::pair("LayerNorm.beta", "LayerNorm.bias")})
        if (prefix_length(name, old) != name.npos)
            name.replace(name.size() - std::string_view(old).size(), name.npos, now);
    return name;
}

bool is_of_encoder(const family& f, std::string_view name) {
    const auto& t = f.tensors;
    // A part of the encoder is what stands before the first dot: embeddings, encoder.
    const auto part = [](std::string_view of) { return of.substr(0, of.find('.')); };
    for (const char* one : {t.words, t.layers, t.embedding_projection})
        if (one != nullptr && part(one) == part(name)) return true;
    return false;
}

} // namespace encoder
