#include "config.hpp"

#include <algorithm>
#include <limits>

namespace encoder {
namespace {

using detail::fail;
using detail::settings;
using Eigen::Index;
using nlohmann::json;

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
void check_modules(const std::filesystem::path& file) {
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

} // namespace

const char* name_of(token_pruning::rule by) {
    return find_name(rules, by);
}

const char* name_of(pare::score_scale scores) {
    return find_name(scales, scores);
}

namespace detail {

config read_config(const std::filesystem::path& folder, const settings& given) {
    check_modules(folder / "modules.json");
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

} // namespace detail
} // namespace encoder
