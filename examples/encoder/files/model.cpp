#include "model.hpp"

#include "config.hpp"
#include "dense_module.hpp"
#include "fingerprint.hpp"
#include "heads.hpp"
#include "transformers_code.hpp"
#include "weights.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

namespace encoder {
namespace {

using detail::fail;
using detail::settings;
using detail::stored_weights;
using detail::weights_file;
using detail::widths;
using Eigen::Index;
using nlohmann::json;
using std::filesystem::path;
namespace fs = std::filesystem;

/// Under which its metadata tells what is in a folder that is written here.
constexpr const char* manifest = "pare";
/// Of a layer, where not all have all heads.
constexpr const char* own_distance_bias = "attention.relative_attention_bias";

bool shares_distance_bias(const model& m) {
    return std::all_of(m.layers.begin(), m.layers.end(), [&](const layer& l) {
        return l.distance_bias.cols() == m.config.hidden / m.config.head_size &&
               l.distance_bias == m.layers[0].distance_bias;
    });
}

widths widths_of(const model& m) {
    return {m.heads(),
            m.queries(),
            m.values(),
            m.filters(),
            m.head ? m.head->output.weight.rows() : 0,
            shares_distance_bias(m)};
}

/// visit(name, matrix or vector, shape) for each weight of `m`; the shapes are those that the
/// config and `w` ask for, whatever the matrices are now.
template <class Model, class Visit>
void for_each_weight(Model& m, const widths& w, const Visit& visit) {
    using shape = std::vector<std::int64_t>;
    const config& c = m.config;
    const auto& of = c.family->tensors;
    const Index narrow = c.embedding_columns();
    const auto visit_dense = [&](const std::string& name, auto& d, Index out, Index in) {
        visit(name + ".weight", d.weight, shape{out, in});
        visit(name + ".bias", d.bias, shape{out});
    };
    const auto visit_norm = [&](const std::string& name, auto& n, Index size) {
        visit(name + ".weight", n.weight, shape{size});
        visit(name + ".bias", n.bias, shape{size});
    };
    const auto visit_table = [&](const char* name, auto& table, Index rows) {
        visit(m.prefix + name + ".weight", table, shape{rows, narrow});
    };
    visit_table(of.words, m.word_embeddings, c.vocabulary);
    visit_table(of.positions, m.position_embeddings, c.positions);
    if (of.types != nullptr) visit_table(of.types, m.type_embeddings, c.types);
    visit_norm(m.prefix + of.embedding_norm, m.embedding_norm, narrow);
    if (c.narrow_embeddings > 0)
        visit_dense(m.prefix + of.embedding_projection, m.embedding_projection, c.hidden, narrow);
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        auto& l = m.layers[i];
        const std::string name = m.prefix + of.layers + std::to_string(i) + '.';
        const Index queries = w.heads[i] * w.queries[i], values = w.heads[i] * w.values[i];
        visit_dense(name + of.query, l.query, queries, c.hidden);
        visit_dense(name + of.key, l.key, queries, c.hidden);
        visit_dense(name + of.value, l.value, values, c.hidden);
        visit_dense(name + of.attention_output, l.attention_output, c.hidden, values);
        visit_norm(name + of.attention_norm, l.attention_norm, c.hidden);
        visit_dense(name + of.intermediate, l.intermediate, w.filters[i], c.hidden);
        visit_dense(name + of.output, l.output, c.hidden, w.filters[i]);
        visit_norm(name + of.output_norm, l.output_norm, c.hidden);
        if (c.distance_buckets > 0 && (i == 0 || !w.one_distance_bias))
            visit((w.one_distance_bias ? m.prefix + of.distance_bias : name + own_distance_bias) +
                      ".weight",
                  l.distance_bias, shape{c.distance_buckets, w.heads[i]});
    }
    if (m.head) {
        if (m.head->before)
            visit_dense(detail::before_name(*m.head, m.prefix), *m.head->before, c.hidden,
                        c.hidden);
        visit_dense(detail::output_name(*m.head), m.head->output, w.outputs, c.hidden);
    }
    for (std::size_t i = 0; i < m.exits.size(); ++i)
        visit_dense("exits." + std::to_string(i), m.exits[i], c.hidden,
                    c.hidden + w.heads[i] * w.values[i]);
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
                                      "vocab.json",
                                      "merges.txt",
                                      "sentencepiece.bpe.model",
                                      "spiece.model",
                                      "sentence_bert_config.json",
                                      "sentence_roberta_config.json",
                                      "sentence_distilbert_config.json",
                                      "sentence_camembert_config.json",
                                      "sentence_xlm-roberta_config.json",
                                      "config_sentence_transformers.json",
                                      "modules.json"};

/// Names of files in a model's folder that are copied to models made from it, there or not.
std::vector<path> files_to_copy(const path& folder) {
    const detail::modules parts = detail::read_modules(folder);
    std::vector<path> all;
    for (const char* name : companions) {
        all.push_back(parts.transformer / name);
        if (!parts.transformer.empty()) all.emplace_back(name);
    }
    if (!parts.transformer.empty()) all.emplace_back("config.json"); // of sentence-transformers
    for (const path& module : parts.others) all.push_back(module / "config.json");
    if (parts.dense)
        for (const path& file : detail::weights_of_dense(folder / *parts.dense))
            all.push_back(*parts.dense / file);
    return all;
}

/// Without their permissions; folders that hold nothing else are made too.
void copy_files(const path& from, const path& to) {
    for (const path& module : detail::read_modules(from).others)
        if (fs::is_directory(from / module)) make_folders(to, module);
    for (const path& name : files_to_copy(from))
        if (detail::is_file(from / name)) {
            make_folders(to, name.parent_path());
            write_file(to / name, {detail::read_text(from / name)});
        }
}

/// What cannot be read, or Git LFS has not fetched, is found now, not when it is copied; and what is
/// there and is no file, before a reader takes it for one that is not there.
void check_files_to_copy(const path& folder) {
    std::error_code missing;
    for (const path& name : files_to_copy(folder))
        if (fs::exists(folder / name, missing)) detail::check_can_be_read(folder / name);
}

/// What precedes the family's names in a file: of the words, which every encoder has.
std::string find_prefix(const stored_weights& file, const family& f) {
    const std::string words = std::string(f.tensors.words) + ".weight";
    std::optional<std::string> found;
    for (const auto& [name, where] : file.files()) {
        const std::size_t length = prefix_length(name, words);
        if (length == name.npos) continue;
        if (found)
            fail(file.path(), "holds two encoders, '", *found, "' and '", name.substr(0, length),
                 "': which one is wanted is not known");
        found = name.substr(0, length);
    }
    if (!found) fail(file.path(), "there is no tensor '", words, "', under no prefix");
    return *found;
}

/// What is in a folder, by names relative to it, with fingerprints: that of the weights is given,
/// whether they are there or not. Nothing that is written here is a link.
std::string contents_of(const path& folder, const path& weights, fingerprint of_weights) {
    const std::string weights_name = weights.lexically_normal().string();
    json all = {{weights_name, of_weights.value}};
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
        const std::string name = entry.path().lexically_relative(folder).string();
        const fs::file_type type = entry.symlink_status().type();
        if (type == fs::file_type::directory) {
            all[name] = "folder";
        } else if (type != fs::file_type::regular) {
            all[name] = "link";
        } else if (name != weights_name) {
            fingerprint of_file;
            of_file.add(detail::read_text(entry.path()));
            all[name] = of_file.value;
        }
    }
    return all.dump();
}

} // namespace

std::vector<Index> model::heads() const {
    std::vector<Index> all;
    for (const layer& l : layers) all.push_back(l.heads);
    return all;
}

std::vector<Index> model::queries() const {
    std::vector<Index> all;
    for (const layer& l : layers) all.push_back(l.queries());
    return all;
}

std::vector<Index> model::values() const {
    std::vector<Index> all;
    for (const layer& l : layers) all.push_back(l.values());
    return all;
}

std::vector<Index> model::filters() const {
    std::vector<Index> all;
    for (const layer& l : layers) all.push_back(l.filters());
    return all;
}

Index model::outputs() const {
    return head         ? head->output.weight.rows()
           : projection ? projection->layer.weight.rows()
                        : config.hidden;
}

std::int64_t model::parameters() const {
    std::int64_t sum = 0;
    for_each_weight(*this, widths_of(*this),
                    [&](const auto&, const auto& weight, const auto&) { sum += weight.size(); });
    if (projection) sum += projection->layer.weight.size() + projection->layer.bias.size();
    for (const tensor& t : others)
        sum +=
            std::accumulate(t.shape.begin(), t.shape.end(), std::int64_t{1}, std::multiplies<>());
    return sum;
}

std::vector<weight> weights(model& m) {
    std::vector<weight> all;
    for_each_weight(m, widths_of(m), [&](const std::string& name, auto& w, const auto&) {
        const auto is_it = [&](const layer& l) { return w.data() == l.distance_bias.data(); };
        if (w.size() == 0 || std::none_of(m.layers.begin(), m.layers.end(), is_it))
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

path transformer_folder(const path& folder) {
    return folder / detail::read_modules(folder).transformer;
}

std::uintmax_t bytes_of_weights(const path& folder) {
    std::uintmax_t bytes = 0;
    std::error_code missing;
    for (const path& file : detail::weight_files(transformer_folder(folder)))
        if (detail::is_file(file)) bytes += fs::file_size(file, missing);
    return bytes;
}

model load_model(const path& folder) {
    check_files_to_copy(folder);
    const detail::modules parts = detail::read_modules(folder);
    const settings given(folder / parts.transformer / "config.json");
    model m;
    m.config = detail::read_config(folder, parts, given);
    m.json = given.all();
    m.has_code = detail::asks_for_code(m.json);
    const family& f = *m.config.family;
    m.layers.resize(static_cast<std::size_t>(given.size(f.keys.layers, 1 << 10)));
    detail::additions more = detail::read_additions(given, m.layers.size(), m.config);
    for (std::size_t l = 0; l < m.layers.size(); ++l) m.layers[l].heads = more.kept.heads[l];
    m.tokens = std::move(more.tokens);
    m.curve = std::move(more.curve);
    if (more.kept.outputs > 0) m.head.emplace();
    if (more.exits) m.exits.resize(m.layers.size());
    if (parts.dense) m.projection = detail::read_dense(folder / *parts.dense, m.config.hidden);

    const stored_weights file(folder / parts.transformer);
    m.prefix = find_prefix(file, f);
    std::map<std::string, std::string> old_names; // by those of today
    for (const auto& [name, where] : file.files())
        if (const auto [at, is_new] = old_names.emplace(todays_name(name), name); !is_new)
            fail(file.path(), "holds the tensors '", at->second, "' and '", name,
                 "', which are the same one");
    const auto stored = [&](const std::string& name) {
        const auto found = old_names.find(name);
        return found == old_names.end() ? name : found->second;
    };
    std::size_t layers = 0;
    while (file.has(m.prefix + f.tensors.layers + std::to_string(layers) + '.' + f.tensors.output +
                    ".weight"))
        ++layers;
    if (layers != m.layers.size())
        fail(file.path(), "holds ", layers, " layers, ", f.keys.layers, " in config.json is ",
             m.layers.size());

    detail::tensor_shapes shapes;
    for (const auto& [name, old_name] : old_names) shapes[name] = file.at(old_name).shape;
    if (auto found =
            m.head ? std::nullopt : detail::find_head(given, shapes, parts.pooling.has_value())) {
        m.head = std::move(found->empty);
        more.kept.outputs = found->outputs;
        m.config.pooling = pooling::cls;
    }

    more.kept.one_distance_bias = f.tensors.distance_bias != nullptr &&
                                  file.has(m.prefix + f.tensors.distance_bias + ".weight");
    if (const std::vector<Index>& heads = more.kept.heads;
        more.kept.one_distance_bias &&
        std::adjacent_find(heads.begin(), heads.end(), std::not_equal_to<>()) != heads.end())
        fail(file.path(), "tensor '", m.prefix, f.tensors.distance_bias,
             ".weight' is for all layers, which have unequal numbers of heads by config.json");
    std::set<std::string> used;
    std::set<data_type> types;
    for_each_weight(m, more.kept, [&](const std::string& name, auto& weight, const auto& shape) {
        const std::vector<float> values = file.read(stored(name), shape);
        using type = std::decay_t<decltype(weight)>;
        weight = Eigen::Map<const type>(values.data(), shape[0], columns(shape));
        types.insert(data_type_of(file.at(stored(name)).dtype));
        used.insert(name);
    });
    if (more.kept.one_distance_bias) // of the first layer
        for (layer& l : m.layers) l.distance_bias = m.layers[0].distance_bias;
    if (types.size() == 1) m.stored_as = *types.begin(); // else f32, which holds every one

    const std::set<std::string> buffers = {m.prefix + "embeddings.position_ids",
                                           m.prefix + "embeddings.token_type_ids"};
    for (const auto& [name, old_name] : old_names) {
        if (used.count(name)) continue;
        if (name.compare(0, m.prefix.size(), m.prefix) == 0 &&
            is_of_encoder(f, std::string_view(name).substr(m.prefix.size())) &&
            !buffers.count(name))
            fail(file.path(), "tensor '", old_name, "' has no place in ", layers, " layers of ",
                 f.name);
        const safetensors_file::entry& entry = file.at(old_name);
        if (data_type_of(entry.dtype) != data_type::other)
            file.read(old_name, entry.shape); // checks it
        m.others.push_back(
            {name, entry.dtype, entry.shape, {entry.data, entry.data + entry.bytes}});
    }
    detail::check_others(given, m);
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

    copy_files(source, folder);
    const path part = detail::read_modules(source).transformer;
    make_folders(folder, part);
    write_file(folder / part / "config.json", {config});
    if (m.has_code) write_file(folder / part / detail::code_file, {detail::code});
    fingerprint of_weights;
    for (const tensor& t : tensors) of_weights.add(t.bytes.data(), t.bytes.size());
    write_safetensors(
        folder / part / weights_file, tensors,
        {{"format", "pt"}, {manifest, contents_of(folder, part / weights_file, of_weights)}});
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
    "a model that was written here and is as it was", true, [](const path& folder) {
        try {
            const path weights = transformer_folder(folder) / weights_file;
            return contents_of(folder, weights.lexically_relative(folder),
                               safetensors_fingerprint(weights)) ==
                   safetensors_metadata(weights).at(manifest);
        } catch (const std::exception&) {
            return false;
        }
    }};

std::vector<program_input> model_inputs(const path& folder) {
    std::vector<program_input> all = {{"the model", folder}};
    const auto add = [&](const path& file) { all.push_back({"a file of the model", file}); };
    const path part = detail::read_modules(folder).transformer;
    add(folder / part / "config.json");
    add(folder / part / detail::weights_index);
    for (const path& file : detail::weight_files(folder / part)) add(file);
    for (const path& name : files_to_copy(folder)) add(folder / name);
    return all;
}

} // namespace encoder
