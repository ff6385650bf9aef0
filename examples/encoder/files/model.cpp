#include "model.hpp"

#include "file.hpp"
#include "settings.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

namespace encoder {
namespace {

using detail::fail;
using detail::settings;
using Eigen::Index;
using nlohmann::json;
using std::filesystem::path;
namespace fs = std::filesystem;

constexpr const char* weights_file = "model.safetensors";
/// Under which its metadata lists the files of a folder that is written here.
constexpr const char* manifest = "pare";

activation read_activation(const settings& given) {
    const std::string name = given.text("hidden_act", "gelu");
    if (name == "gelu") return activation::gelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return activation::gelu_tanh;
    if (name == "relu") return activation::relu;
    fail(given.file(), "hidden_act is '", name, "', not gelu, gelu_new, gelu_pytorch_tanh or relu");
}

const char* name_of(activation a) {
    return a == activation::gelu ? "gelu" : a == activation::gelu_tanh ? "gelu_new" : "relu";
}

/// 1_Pooling/config.json in its older form (a flag for each mode) or its newer one (pooling_mode).
pooling read_pooling(const settings& given, Index hidden) {
    if (given.all().empty()) return pooling::mean;
    for (const char* key : {"word_embedding_dimension", "embedding_dimension"})
        if (const auto width = given.number(key, 1, 1e9);
            width && *width != static_cast<double>(hidden))
            fail(given.file(), key, " is ", *width, ", hidden_size in config.json is ", hidden);

    std::string modes = given.text("pooling_mode", "");
    if (modes.empty())
        for (const auto& [key, value] : given.all().items())
            if (key.rfind("pooling_mode_", 0) == 0 && given.flag(key.c_str(), false))
                modes += (modes.empty() ? "" : " and ") + key;
    if (modes == "mean" || modes == "pooling_mode_mean_tokens") return pooling::mean;
    if (modes == "cls" || modes == "pooling_mode_cls_token") return pooling::cls;
    fail(given.file(), "asks for pooling by '", modes,
         "', only the mean or the cls token is possible");
}

/// A sentence encoder may have further modules, which would be left out without a word.
void check_modules(const path& file) {
    if (!detail::is_file(file)) return;
    for (const json& part :
         detail::parse_json(file, detail::read_text(file), json::value_t::array)) {
        const auto found = part.find("type");
        const std::string type =
            found != part.end() && found->is_string() ? found->get<std::string>() : "";
        const std::string kind = type.substr(type.rfind('.') + 1);
        if (kind != "Transformer" && kind != "Pooling" && kind != "Normalize")
            fail(file, "holds a module of type '", type,
                 "', only Transformer, Pooling and Normalize are possible");
    }
}

config read_config(const path& folder, const settings& given) {
    if (const std::string type = given.text("model_type", ""); type != "bert")
        fail(given.file(), "model_type is '", type, "', not bert");
    if (const std::string type = given.text("position_embedding_type", "absolute");
        type != "absolute")
        fail(given.file(), "position_embedding_type is '", type, "', not absolute");
    if (given.flag("is_decoder", false))
        fail(given.file(), "is_decoder is true, an encoder is wanted");

    config c;
    c.hidden = given.size("hidden_size", 1 << 16);
    const Index heads = given.size("num_attention_heads", c.hidden);
    if (c.hidden % heads != 0)
        fail(given.file(), "hidden_size ", c.hidden, " is no multiple of num_attention_heads ",
             heads);
    c.head_size = c.hidden / heads;
    c.vocabulary = given.size("vocab_size", 1 << 24);
    c.positions = given.size("max_position_embeddings", 1 << 20);
    c.types = given.size("type_vocab_size", 1 << 10);
    c.layer_norm_epsilon =
        static_cast<float>(given.number("layer_norm_eps", 1e-30, 1).value_or(1e-12));
    c.activation = read_activation(given);
    c.pooling = read_pooling(settings::if_exists(folder / "1_Pooling" / "config.json"), c.hidden);

    const auto tokenizer = settings::if_exists(folder / "tokenizer_config.json");
    const auto sentence = settings::if_exists(folder / "sentence_bert_config.json");
    c.lower_case = tokenizer.flag("do_lower_case", true);
    if (tokenizer.flag("strip_accents", c.lower_case) != c.lower_case)
        fail(tokenizer.file(), "strip_accents differs from do_lower_case, which is not possible");
    if (!tokenizer.flag("tokenize_chinese_chars", true))
        fail(tokenizer.file(), "tokenize_chinese_chars is false, only true is possible");
    if (sentence.flag("do_lower_case", false) && !c.lower_case)
        fail(sentence.file(), "do_lower_case is true, the tokenizer's is false");

    constexpr double unlimited = 1e40; // some tokenizers say 1e30
    auto longest = sentence.number("max_seq_length", 2, unlimited);
    if (!longest) longest = tokenizer.number("model_max_length", 2, unlimited);
    const auto positions = static_cast<double>(c.positions);
    c.max_tokens = static_cast<Index>(std::min(longest.value_or(positions), positions));
    if (c.max_tokens < 2)
        fail(given.file(), "max_position_embeddings is 1, [CLS] and [SEP] need 2");
    return c;
}

struct widths {
    std::vector<Index> heads, filters; // of each layer
    Index classes = 0;                 // 0: there is no classifier
};

widths widths_of(const model& m) {
    return {m.heads(), m.filters(), m.classifier ? m.classifier->weight.rows() : 0};
}

/// What config.json says under "pare": what a BERT has not.
struct additions {
    widths kept;
    token_pruning tokens;
    bool exits = false;
    std::vector<operating_point> curve;
};

/// Values and what config.json calls them.
template <class Value>
struct named {
    Value value;
    const char* name;
};
constexpr named<token_pruning::rule> rules[] = {{token_pruning::rule::threshold, "threshold"},
                                                {token_pruning::rule::share, "share"},
                                                {token_pruning::rule::count, "count"}};
constexpr named<pare::score_scale> scales[] = {{pare::score_scale::relative, "relative"},
                                               {pare::score_scale::per_query, "per_query"}};

template <class Value, std::size_t N>
const char* find_name(const named<Value> (&all)[N], Value value) {
    return std::find_if(std::begin(all), std::end(all),
                        [&](const auto& x) { return x.value == value; })
        ->name;
}

/// What `key` says, which is one of their names.
template <class Value, std::size_t N>
Value value_of(const named<Value> (&all)[N], const settings& given, const char* key,
               const char* otherwise) {
    const std::string name = given.text(key, otherwise);
    std::string expected;
    for (const named<Value>& x : all) {
        if (name == x.name) return x.value;
        expected += (expected.empty() ? "" : ", ") + std::string(x.name);
    }
    fail(given.file(), "pare.tokens.", key, " is '", name, "', not one of ", expected);
}

additions read_additions(const settings& given, std::size_t layers, const config& c) {
    const settings pare = given.object("pare"), tokens = pare.object("tokens");
    additions a;
    a.kept = {pare.widths("heads", layers, c.hidden / c.head_size),
              pare.widths("filters", layers, given.size("intermediate_size", 1 << 20)),
              pare.count("classes", 2, 1 << 16).value_or(0)};
    a.exits = pare.flag("exits", false);
    if (tokens.all().empty()) return a;

    constexpr double largest = settings::largest;
    a.tokens = {value_of(rules, tokens, "by", ""), tokens.numbers("numbers", layers),
                tokens.number("alpha", 0, largest).value_or(1), tokens.flag("carried", true),
                value_of(scales, tokens, "scores", "relative")};
    for (const settings& point : tokens.objects("curve"))
        a.curve.push_back({point.needed("alpha", point.number("alpha", 0, largest)),
                           point.needed("macs_ratio", point.number("macs_ratio", 0, largest)),
                           point.number("metric", -largest, largest)
                               .value_or(std::numeric_limits<double>::quiet_NaN())});
    return a;
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

json describe_tokens(const model& m) {
    json curve = json::array();
    for (const operating_point& p : m.curve) // a NaN is written as null
        curve.push_back({{"alpha", p.alpha}, {"macs_ratio", p.macs_ratio}, {"metric", p.metric}});
    const token_pruning& t = m.tokens;
    return {{"by", find_name(rules, t.by)},
            {"numbers", t.numbers},
            {"alpha", t.alpha},
            {"carried", t.carried},
            {"scores", find_name(scales, t.scores)},
            {"curve", std::move(curve)}};
}

json describe(const model& m, const widths& w) {
    const config& c = m.config;
    const Index heads = c.hidden / c.head_size;
    const Index filters = std::max<Index>(1, *std::max_element(w.filters.begin(), w.filters.end()));
    json j = m.json;
    j["model_type"] = "bert";
    j["hidden_size"] = c.hidden;
    j["num_attention_heads"] = heads; // those that give the head size; the layers may have fewer
    j["num_hidden_layers"] = m.layers.size();
    j["intermediate_size"] = filters;
    j["vocab_size"] = c.vocabulary;
    j["max_position_embeddings"] = c.positions;
    j["type_vocab_size"] = c.types;
    j["hidden_act"] = name_of(c.activation);
    // 1e-12 as a float is another number when it is printed as a double.
    if (const auto old = j.find("layer_norm_eps");
        old == j.end() || !old->is_number() || old->get<float>() != c.layer_norm_epsilon)
        j["layer_norm_eps"] = c.layer_norm_epsilon;
    const auto all = [](const std::vector<Index>& list, Index n) {
        return std::count(list.begin(), list.end(), n) == static_cast<std::ptrdiff_t>(list.size());
    };
    json pare;
    if (!all(w.heads, heads)) pare["heads"] = w.heads;
    if (!all(w.filters, filters)) pare["filters"] = w.filters;
    if (m.classifier) pare["classes"] = w.classes;
    if (!m.exits.empty()) pare["exits"] = true;
    if (!m.tokens.numbers.empty()) pare["tokens"] = describe_tokens(m);
    j.erase("pare");
    if (!pare.empty()) j["pare"] = std::move(pare);
    return j;
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

const char* name_of(token_pruning::rule by) {
    return find_name(rules, by);
}

const char* name_of(pare::score_scale scores) {
    return find_name(scales, scores);
}

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
    check_modules(folder / "modules.json");
    model m;
    m.config = read_config(folder, given);
    m.json = given.all();
    m.layers.resize(static_cast<std::size_t>(given.size("num_hidden_layers", 1 << 10)));
    additions more = read_additions(given, m.layers.size(), m.config);
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
    read_additions(settings(config_file, detail::parse_json(config_file, config)), m.layers.size(),
                   m.config);
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
