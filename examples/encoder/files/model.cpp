#include "model.hpp"

#include "config.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

namespace encoder {
namespace {

using detail::fail;
using detail::settings;
using detail::widths;
using Eigen::Index;
using nlohmann::json;
using std::filesystem::path;
namespace fs = std::filesystem;

constexpr const char* weights_file = "model.safetensors";
/// Under which its metadata lists the files of a folder that is written here.
constexpr const char* manifest = "pare";

widths widths_of(const model& m) {
    return {m.heads(), m.filters(), m.classifier ? m.classifier->weight.rows() : 0};
}

std::string layer_name(std::size_t l) {
    return "encoder.layer." + std::to_string(l) + '.';
}

/// visit(name, matrix or vector, shape) for each weight of `m`; the shapes are those that the
/// config and `w` ask for, whatever the matrices are now.
template <class Model, class Visit>
void for_each_weight(Model& m, const widths& w, const Visit& visit) {
    using shape = std::vector<std::int64_t>;
    const config& c = m.config;
    const auto visit_dense = [&](const std::string& name, auto& d, Index out, Index in) {
        visit(name + ".weight", d.weight, shape{out, in});
        visit(name + ".bias", d.bias, shape{out});
    };
    const auto visit_norm = [&](const std::string& name, auto& n) {
        visit(name + ".weight", n.weight, shape{c.hidden});
        visit(name + ".bias", n.bias, shape{c.hidden});
    };
    const std::string embeddings = m.prefix + "embeddings.";
    visit(embeddings + "word_embeddings.weight", m.word_embeddings, shape{c.vocabulary, c.hidden});
    visit(embeddings + "position_embeddings.weight", m.position_embeddings,
          shape{c.positions, c.hidden});
    visit(embeddings + "token_type_embeddings.weight", m.type_embeddings, shape{c.types, c.hidden});
    visit_norm(embeddings + "LayerNorm", m.embedding_norm);
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        auto& l = m.layers[i];
        const std::string name = m.prefix + layer_name(i);
        const Index inner = w.heads[i] * c.head_size;
        visit_dense(name + "attention.self.query", l.query, inner, c.hidden);
        visit_dense(name + "attention.self.key", l.key, inner, c.hidden);
        visit_dense(name + "attention.self.value", l.value, inner, c.hidden);
        visit_dense(name + "attention.output.dense", l.attention_output, c.hidden, inner);
        visit_norm(name + "attention.output.LayerNorm", l.attention_norm);
        visit_dense(name + "intermediate.dense", l.intermediate, w.filters[i], c.hidden);
        visit_dense(name + "output.dense", l.output, c.hidden, w.filters[i]);
        visit_norm(name + "output.LayerNorm", l.output_norm);
    }
    if (m.classifier) visit_dense("classifier", *m.classifier, w.classes, c.hidden);
    for (std::size_t i = 0; i < m.exits.size(); ++i)
        visit_dense("exits." + std::to_string(i), m.exits[i], c.hidden,
                    c.hidden + w.heads[i] * c.head_size);
}

Index columns(const std::vector<std::int64_t>& shape) {
    return shape.size() == 2 ? shape[1] : 1;
}

/// What those who load the folder need besides the weights; not every model has every one.
constexpr const char* companions[] = {"vocab.txt",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "sentence_bert_config.json",
                                      "config_sentence_transformers.json",
                                      "modules.json",
                                      "1_Pooling",
                                      "2_Normalize"};

/// Copies what is in a file, or in the files of a folder, without their permissions.
void copy_all(const path& from, const path& to) {
    if (!fs::is_directory(from)) return write_file(to, {detail::read_text(from)});
    fs::create_directory(to);
    for (const fs::directory_entry& entry : fs::directory_iterator(from))
        copy_all(entry.path(), to / entry.path().filename());
}

/// What is in a folder, by names relative to it; of links and others that are not written here, the
/// names are changed.
std::set<std::string> files_in(const path& folder) {
    std::set<std::string> names;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
        const fs::file_type type = entry.symlink_status().type();
        const bool plain = type == fs::file_type::regular || type == fs::file_type::directory;
        names.insert(entry.path().lexically_relative(folder).string() + (plain ? "" : "//"));
    }
    return names;
}

} // namespace

std::vector<Index> model::heads() const {
    std::vector<Index> all;
    for (const layer& l : layers) all.push_back(l.heads(config.head_size));
    return all;
}

std::vector<Index> model::filters() const {
    std::vector<Index> all;
    for (const layer& l : layers) all.push_back(l.filters());
    return all;
}

std::int64_t model::parameters() const {
    std::int64_t sum = 0;
    for_each_weight(*this, widths_of(*this),
                    [&](const auto&, const auto& weight, const auto&) { sum += weight.size(); });
    for (const tensor& t : others)
        sum +=
            std::accumulate(t.shape.begin(), t.shape.end(), std::int64_t{1}, std::multiplies<>());
    return sum;
}

std::vector<weight> weights(model& m) {
    std::vector<weight> all;
    for_each_weight(m, widths_of(m), [&](const std::string& name, auto& w, const auto&) {
        all.push_back({name, w.data(), w.rows(), w.cols()});
    });
    return all;
}

model zeros_like(const model& m) {
    model zeros = m;
    zeros.others.clear();
    for (const weight& w : weights(zeros)) std::fill_n(w.data, w.size(), 0.f);
    return zeros;
}

model load_model(const path& folder) {
    const settings given(folder / "config.json");
    model m;
    m.config = detail::read_config(folder, given);
    m.json = given.all();
    m.layers.resize(static_cast<std::size_t>(given.size("num_hidden_layers", 1 << 10)));
    detail::additions more = detail::read_additions(given, m.layers.size(), m.config);
    m.tokens = std::move(more.tokens);
    m.curve = std::move(more.curve);
    if (more.kept.classes > 0) m.classifier.emplace();
    if (more.exits) m.exits.resize(m.layers.size());

    const safetensors_file file(folder / weights_file);
    const auto has = [&](const std::string& name) { return file.entries().count(name) > 0; };
    m.prefix = has("bert.embeddings.word_embeddings.weight") ? "bert." : "";
    std::size_t layers = 0;
    while (has(m.prefix + layer_name(layers) + "output.dense.weight")) ++layers;
    if (layers != m.layers.size())
        fail(file.path(), "holds ", layers, " layers, num_hidden_layers in config.json is ",
             m.layers.size());

    std::set<std::string> used;
    std::set<data_type> types;
    for_each_weight(m, more.kept, [&](const std::string& name, auto& weight, const auto& shape) {
        const std::vector<float> values = file.read(name, shape);
        using type = std::decay_t<decltype(weight)>;
        weight = Eigen::Map<const type>(values.data(), shape[0], columns(shape));
        types.insert(data_type_of(file.entries().at(name).dtype));
        used.insert(name);
    });
    if (types.size() == 1) m.stored_as = *types.begin(); // else f32, which holds every one

    const auto is_ours = [&](const std::string& name) {
        return name.rfind(m.prefix + "embeddings.", 0) == 0 ||
               name.rfind(m.prefix + "encoder.", 0) == 0;
    };
    const std::set<std::string> buffers = {m.prefix + "embeddings.position_ids",
                                           m.prefix + "embeddings.token_type_ids"};
    for (const auto& [name, entry] : file.entries()) {
        if (used.count(name)) continue;
        if (is_ours(name) && !buffers.count(name))
            fail(file.path(), "tensor '", name, "' has no place in a BERT of ", layers, " layers");
        if (data_type_of(entry.dtype) != data_type::other)
            file.read(name, entry.shape); // checks it
        m.others.push_back(
            {name, entry.dtype, entry.shape, {entry.data, entry.data + entry.bytes}});
    }
    return m;
}

void write_model(const model& m, const path& source, const output& out) try {
    const path &named = out.name(), &folder = out.path();
    if (!fs::is_directory(source)) fail(source, "there is no such folder");
    if (m.layers.empty() || m.config.head_size < 1 || m.config.hidden % m.config.head_size != 0)
        fail(named, "a model of ", m.layers.size(), " layers, hidden size ", m.config.hidden,
             " and head size ", m.config.head_size, " cannot be written");

    const widths w = widths_of(m);
    const std::string config = describe(m, w).dump(2) + '\n';
    // What load_model would refuse is not written.
    const path config_file = named / "config.json";
    detail::read_additions(settings(config_file, detail::parse_json(config_file, config)),
                           m.layers.size(), m.config);
    std::vector<tensor> tensors;
    for_each_weight(m, w, [&](const std::string& name, const auto& weight, const auto& shape) {
        if (weight.rows() != shape[0] || weight.cols() != columns(shape))
            fail(named, "tensor '", name, "' is ", weight.rows(), " x ", weight.cols(),
                 ", the other ones need ", shape[0], " x ", columns(shape));
        tensors.push_back(make_tensor(name, shape, weight.data(), m.stored_as));
    });
    tensors.insert(tensors.end(), m.others.begin(), m.others.end());

    for (const char* name : companions)
        if (fs::exists(source / name)) copy_all(source / name, folder / name);
    write_file(folder / "config.json", {config});
    std::set<std::string> files = files_in(folder);
    files.insert(weights_file);
    write_safetensors(folder / weights_file, tensors,
                      {{"format", "pt"}, {manifest, json(files).dump()}});
} catch (const fs::filesystem_error& error) {
    fail(out.name(), "cannot be written: ", error.code().message());
}

void save_model(const model& m, const path& source, const path& folder) {
    if (holds(resolved(folder), fs::weakly_canonical(source)))
        fail(folder, "is or holds the source ", source.string(), ", which is not to be replaced");
    output out(folder, written_model);
    write_model(m, source, out);
    put_in_place({&out});
}

const output::kind written_model = {
    "a model that was written here with nothing added", true, [](const path& folder) {
        try {
            const auto said = safetensors_metadata(folder / weights_file);
            return json(files_in(folder)).dump() == said.at(manifest);
        } catch (const std::exception&) {
            return false;
        }
    }};

std::vector<program_input> model_inputs(const path& folder) {
    std::vector<program_input> all = {{"the model", folder}};
    const auto add = [&](const path& file) { all.push_back({"a file of the model", file}); };
    add(folder / "config.json");
    add(folder / weights_file);
    for (const char* name : companions) {
        add(folder / name);
        std::error_code error;
        for (fs::directory_iterator at(folder / name, error), end; at != end; at.increment(error))
            add(at->path());
    }
    return all;
}

} // namespace encoder
