#include "config.hpp"

#include "heads.hpp"
#include "transformers_code.hpp"

#include <pare/distance_buckets.hpp>

#include <algorithm>
#include <limits>
#include <utility>

namespace encoder {
namespace {

using detail::fail;
using detail::settings;
using Eigen::Index;
using nlohmann::json;

activation read_activation(const settings& given, const char* key) {
    constexpr std::pair<const char*, activation> known[] = {
        {"gelu", activation::gelu},           {"gelu_python", activation::gelu},
        {"gelu_new", activation::gelu_tanh},  {"gelu_pytorch_tanh", activation::gelu_tanh},
        {"gelu_fast", activation::gelu_tanh}, {"relu", activation::relu}};
    const std::string name = given.text(key, "gelu");
    std::string expected;
    for (const auto& [text, value] : known) {
        if (name == text) return value;
        expected += (expected.empty() ? "" : ", ") + std::string(text);
    }
    fail(given.file(), key, " is '", name, "', not one of ", expected);
}

const char* name_of(activation a) {
    return a == activation::gelu ? "gelu" : a == activation::gelu_tanh ? "gelu_new" : "relu";
}

/// The pooling's config.json in its older form (a flag for each mode) or its newer one
/// (pooling_mode). Embeddings are scaled to length 1, so that any multiple of the mean is the mean.
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
    constexpr std::pair<const char*, pooling> known[] = {
        {"mean", pooling::mean},
        {"pooling_mode_mean_tokens", pooling::mean},
        {"mean_sqrt_len_tokens", pooling::mean},
        {"pooling_mode_mean_sqrt_len_tokens", pooling::mean},
        {"cls", pooling::cls},
        {"pooling_mode_cls_token", pooling::cls},
        {"max", pooling::max},
        {"pooling_mode_max_tokens", pooling::max}};
    for (const auto& [name, value] : known)
        if (modes == name) return value;
    fail(given.file(), "asks for pooling by '", modes,
         "', only the mean, the maximum or the cls token is possible");
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

settings read_sentence_settings(const std::filesystem::path& folder) {
    for (const char* name : {"bert", "roberta", "distilbert", "camembert", "xlm-roberta"})
        if (const auto file = folder / ("sentence_" + std::string(name) + "_config.json");
            is_file(file))
            return settings(file);
    return settings::if_exists(folder / "sentence_bert_config.json");
}

config read_config(const std::filesystem::path& folder, const modules& parts,
                   const settings& given) {
    config c;
    const std::string type = given.text("model_type", "");
    c.family = find_family(type);
    if (c.family == nullptr)
        fail(given.file(), "model_type is '", type, "', not one of ", known_model_types());
    if (const std::string positions = given.text("position_embedding_type", "absolute");
        positions != "absolute")
        fail(given.file(), "position_embedding_type is '", positions, "', not absolute");
    if (given.flag("is_decoder", false))
        fail(given.file(), "is_decoder is true, an encoder is wanted");

    const auto& keys = c.family->keys;
    c.hidden = given.size(keys.hidden, 1 << 16);
    const Index heads = given.size(keys.heads, c.hidden);
    if (c.hidden % heads != 0)
        fail(given.file(), keys.hidden, ' ', c.hidden, " is no multiple of ", keys.heads, ' ',
             heads);
    c.head_size = c.hidden / heads;
    c.vocabulary = given.size("vocab_size", 1 << 24);
    c.positions = given.size("max_position_embeddings", 1 << 20);
    if (c.family->positions_follow_padding)
        c.first_position = given.count("pad_token_id", 0, 1 << 20).value_or(1) + 1;
    if (keys.types != nullptr) c.types = given.size(keys.types, 1 << 10);
    constexpr Index most_ids = 1 << 30; // a token's and its type's are one id of 31 bits
    if (c.vocabulary * std::max<Index>(c.types, 1) > most_ids)
        fail(given.file(), "vocab_size ", c.vocabulary, " times ", c.types, " types is more than ",
             most_ids);
    if (keys.embedding != nullptr)
        if (const Index columns = given.size(keys.embedding, 1 << 16); columns != c.hidden)
            c.narrow_embeddings = columns;
    if (keys.distance_buckets != nullptr) {
        c.distance_buckets = given.count(keys.distance_buckets, 4, 1 << 10).value_or(32);
        // Half of those of each way have a bucket a distance.
        if (const Index most = 4 * pare::distance_buckets{}.max_distance;
            c.distance_buckets >= most)
            fail(given.file(), keys.distance_buckets, " is ", c.distance_buckets, ", fewer than ",
                 most, " are possible");
    }
    if (keys.epsilon != nullptr)
        c.layer_norm_epsilon =
            static_cast<float>(given.number(keys.epsilon, 1e-30, 1).value_or(1e-12));
    c.activation = read_activation(given, keys.activation);
    if (parts.pooling)
        c.pooling = read_pooling(settings(folder / *parts.pooling / "config.json"), c.hidden);

    const std::filesystem::path beside = folder / parts.transformer;
    const auto tokenizer = settings::if_exists(beside / "tokenizer_config.json");
    const auto sentence = read_sentence_settings(beside);
    constexpr double unlimited = 1e40; // some tokenizers say 1e30
    auto longest = sentence.number("max_seq_length", 2, unlimited);
    if (!longest) longest = tokenizer.number("model_max_length", 2, unlimited);
    if (c.longest() < 2)
        fail(given.file(), "max_position_embeddings is ", c.positions, ", [CLS] and [SEP] need ",
             c.first_position + 2);
    const auto positions = static_cast<double>(c.longest());
    c.max_tokens = static_cast<Index>(std::min(longest.value_or(positions), positions));
    return c;
}

additions read_additions(const settings& given, std::size_t layers, const config& c) {
    const settings pare = given.object("pare"), tokens = pare.object("tokens");
    additions a;
    a.kept = {pare.widths("heads", layers, c.hidden / c.head_size),
              pare.widths("queries", layers, c.head_size),
              pare.widths("values", layers, c.head_size),
              pare.widths("filters", layers, given.size(c.family->keys.filters, 1 << 20)),
              pare.count("classes", 1, 1 << 16).value_or(0)};
    for (std::size_t l = 0; l < layers; ++l)
        if (a.kept.heads[l] > 0 && (a.kept.queries[l] == 0 || a.kept.values[l] == 0))
            fail(given.file(), "pare.", a.kept.queries[l] == 0 ? "queries" : "values",
                 " holds 0 for layer ", l, ", which has ", a.kept.heads[l], " heads");
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
    const auto& keys = c.family->keys;
    j.emplace("model_type", c.family->model_types[0]);
    j[keys.hidden] = c.hidden;
    j[keys.heads] = heads; // those that give the head size; the layers may have fewer
    j[keys.layers] = m.layers.size();
    j[keys.filters] = filters;
    j["vocab_size"] = c.vocabulary;
    j["max_position_embeddings"] = c.positions;
    if (keys.types != nullptr) j[keys.types] = c.types;
    if (keys.embedding != nullptr) j[keys.embedding] = c.embedding_columns();
    if (keys.distance_buckets != nullptr) j[keys.distance_buckets] = c.distance_buckets;
    j[keys.activation] = name_of(c.activation);
    // 1e-12 as a float is another number when it is printed as a double.
    if (keys.epsilon != nullptr)
        if (const auto old = j.find(keys.epsilon);
            old == j.end() || !old->is_number() || old->get<float>() != c.layer_norm_epsilon)
            j[keys.epsilon] = c.layer_norm_epsilon;
    const auto all = [](const std::vector<Index>& list, Index n) {
        return std::count(list.begin(), list.end(), n) == static_cast<std::ptrdiff_t>(list.size());
    };
    describe_head(m, j);
    json pare;
    if (!all(w.heads, heads)) pare["heads"] = w.heads;
    const auto are_narrow = [&](const std::vector<Index>& numbers) {
        for (std::size_t l = 0; l < numbers.size(); ++l)
            if (w.heads[l] > 0 && numbers[l] != c.head_size) return true;
        return false;
    };
    if (are_narrow(w.queries)) pare["queries"] = w.queries;
    if (are_narrow(w.values)) pare["values"] = w.values;
    if (!all(w.filters, filters)) pare["filters"] = w.filters;
    if (m.head && !m.head->stock) pare["classes"] = w.outputs;
    if (!m.exits.empty()) pare["exits"] = true;
    if (!m.tokens.numbers.empty()) pare["tokens"] = describe_tokens(m);
    j.erase("pare");
    if (!pare.empty()) j["pare"] = std::move(pare);
    if (m.has_code) ask_for_code(j);
    return j;
}

} // namespace detail
} // namespace encoder
