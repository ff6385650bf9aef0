#include "heads.hpp"

#include <algorithm>
#include <random>

namespace encoder {
namespace {

using detail::ends_with;
using detail::fail;
using detail::settings;
using Eigen::Index;
using nlohmann::json;

constexpr Index most_outputs = 1 << 16;

constexpr stock_head of_tokens(const char* model_type, const char* architecture,
                               const char* plain) {
    return {model_type,           architecture,        plain, false, nullptr, "classifier",
            head::function::tanh, head::subject::token};
}
constexpr stock_head of_spans(const char* model_type, const char* architecture, const char* plain) {
    return {model_type,           architecture,       plain, false, nullptr, "qa_outputs",
            head::function::tanh, head::subject::span};
}

constexpr stock_head stock_heads[] = {
    {"bert", "BertForSequenceClassification", "BertModel", true, "pooler.dense", "classifier",
     head::function::tanh},
    {"roberta", "RobertaForSequenceClassification", "RobertaModel", false, "classifier.dense",
     "classifier.out_proj", head::function::tanh},
    {"xlm-roberta", "XLMRobertaForSequenceClassification", "XLMRobertaModel", false,
     "classifier.dense", "classifier.out_proj", head::function::tanh},
    {"camembert", "CamembertForSequenceClassification", "CamembertModel", false, "classifier.dense",
     "classifier.out_proj", head::function::tanh},
    {"mpnet", "MPNetForSequenceClassification", "MPNetModel", false, "classifier.dense",
     "classifier.out_proj", head::function::tanh},
    {"electra", "ElectraForSequenceClassification", "ElectraModel", false, "classifier.dense",
     "classifier.out_proj", head::function::gelu},
    {"distilbert", "DistilBertForSequenceClassification", "DistilBertModel", false,
     "pre_classifier", "classifier", head::function::relu},
    of_tokens("bert", "BertForTokenClassification", "BertModel"),
    of_tokens("roberta", "RobertaForTokenClassification", "RobertaModel"),
    of_tokens("xlm-roberta", "XLMRobertaForTokenClassification", "XLMRobertaModel"),
    of_tokens("camembert", "CamembertForTokenClassification", "CamembertModel"),
    of_tokens("mpnet", "MPNetForTokenClassification", "MPNetModel"),
    of_tokens("electra", "ElectraForTokenClassification", "ElectraModel"),
    of_tokens("distilbert", "DistilBertForTokenClassification", "DistilBertModel"),
    of_spans("bert", "BertForQuestionAnswering", "BertModel"),
    of_spans("roberta", "RobertaForQuestionAnswering", "RobertaModel"),
    of_spans("xlm-roberta", "XLMRobertaForQuestionAnswering", "XLMRobertaModel"),
    of_spans("camembert", "CamembertForQuestionAnswering", "CamembertModel"),
    of_spans("mpnet", "MPNetForQuestionAnswering", "MPNetModel"),
    of_spans("electra", "ElectraForQuestionAnswering", "ElectraModel"),
    of_spans("distilbert", "DistilBertForQuestionAnswering", "DistilBertModel"),
};

bool begins_with(const std::string& text, const std::string& with) {
    return text.compare(0, with.size(), with) == 0;
}

/// An encoder alone, or one beside what it was trained with.
bool is_plain(const std::string& architecture) {
    return ends_with(architecture, "Model") || ends_with(architecture, "ForMaskedLM") ||
           ends_with(architecture, "ForPreTraining");
}

/// How many labels config.json tells of; transformers takes 2 where it says nothing.
Index labels_of(const settings& given) {
    const settings names = given.object("id2label");
    if (!names.all().empty()) return static_cast<Index>(names.all().size());
    return given.count("num_labels", 1, most_outputs).value_or(2);
}

/// The one of a family's that has an architecture; null if none has.
const stock_head* find_by_architecture(const std::string& model_type, const std::string& name) {
    const auto found =
        std::find_if(std::begin(stock_heads), std::end(stock_heads), [&](const stock_head& h) {
            return h.model_type == model_type && h.architecture == name;
        });
    return found == std::end(stock_heads) ? nullptr : found;
}

} // namespace

const stock_head* find_stock_head(const std::string& model_type, head::subject of) {
    const auto found =
        std::find_if(std::begin(stock_heads), std::end(stock_heads),
                     [&](const stock_head& h) { return h.model_type == model_type && h.of == of; });
    return found == std::end(stock_heads) ? nullptr : found;
}

std::vector<std::string> label_names(const model& m) {
    const settings names = settings("config.json", m.json).object("id2label");
    std::vector<std::string> all;
    for (Index i = 0; m.head && i < m.head->output.weight.rows(); ++i) {
        const std::string number = std::to_string(i);
        all.push_back(names.text(number.c_str(), ("LABEL_" + number).c_str()));
    }
    return all;
}

void add_outputs(model& m, int outputs, std::uint64_t seed) {
    if (!m.head) {
        m.head.emplace();
        m.others.erase(
            std::remove_if(m.others.begin(), m.others.end(),
                           [](const tensor& t) { return t.name.rfind("classifier.", 0) == 0; }),
            m.others.end());
    }
    std::mt19937_64 random(seed);
    matrix& weight = m.head->output.weight;
    weight.resize(outputs, m.config.hidden);
    for (float& w : weight.reshaped<Eigen::RowMajor>())
        w = 0.04f * (static_cast<float>(random() >> 40) * 0x1p-24f - 0.5f);
    m.head->output.bias = vector::Zero(outputs);
}

namespace detail {

std::string before_name(const head& h, const std::string& prefix) {
    return (h.stock->is_pooler ? prefix : "") + h.stock->before;
}

std::string output_name(const head& h) {
    return h.stock ? h.stock->output : "classifier";
}

std::optional<expected_head> find_head(const settings& given, const tensor_shapes& tensors,
                                       bool pools) {
    const stock_head* stock = nullptr;
    for (const std::string& name : given.texts("architectures"))
        if (!stock) stock = find_by_architecture(given.text("model_type", ""), name);
    if (!stock) return std::nullopt;
    const std::string layer = std::string(stock->output) + '.', weight = layer + "weight";
    const auto next = tensors.lower_bound(layer);
    if (next == tensors.end() || !begins_with(next->first, layer)) return std::nullopt;

    if (pools)
        fail(given.file(), "architectures asks for ", stock->architecture,
             ", the pooling beside it for a sentence encoder; remove what does not count");
    const auto found = tensors.find(weight);
    if (found == tensors.end())
        fail(given.file(), "architectures asks for ", stock->architecture, ", there is no tensor '",
             weight, "'");
    const std::vector<std::int64_t>& shape = found->second;
    if (shape.size() != 2 || shape[0] < 1 || shape[0] > most_outputs)
        fail(given.file(), "architectures asks for ", stock->architecture, ", tensor '", weight,
             "' is not a matrix of 1 to ", most_outputs, " rows");
    expected_head expected{{{}, std::nullopt, stock->between, stock, stock->of}, shape[0]};
    if (stock->before) expected.empty.before = dense{};
    if (stock->of == head::subject::span) {
        if (shape[0] != 2)
            fail(given.file(), "architectures asks for ", stock->architecture, ", tensor '", weight,
                 "' has ", shape[0], " rows, not 2: an answer's first and last token");
        return expected;
    }
    const bool says_labels =
        !given.object("id2label").all().empty() || given.count("num_labels", 1, most_outputs);
    if (const Index labels = labels_of(given); says_labels && labels != shape[0])
        fail(given.file(), "tells of ", labels, " labels, tensor '", weight, "' has ", shape[0],
             " rows");
    if (stock->of == head::subject::token) return expected;
    const std::string problem = given.text("problem_type", "");
    if (problem == "multi_label_classification")
        fail(given.file(), "problem_type is multi_label_classification, only "
                           "single_label_classification and regression are possible");
    if (problem == "regression" && shape[0] > 1)
        fail(given.file(), "problem_type is regression of ", shape[0],
             " outputs, only one is possible");
    return expected;
}

void check_others(const settings& given, const model& m) {
    if (m.head && !m.head->stock) return; // "pare" says what counts
    const auto first = [&](const auto& is) {
        const auto found = std::find_if(m.others.begin(), m.others.end(), is);
        return found == m.others.end() ? std::string() : found->name;
    };
    const std::vector<std::string> asked = given.texts("architectures");
    if (asked.empty()) {
        const std::string of_head = first([](const tensor& t) {
            return begins_with(t.name, "classifier.") || begins_with(t.name, "pre_classifier.") ||
                   begins_with(t.name, "qa_outputs.");
        });
        if (!of_head.empty())
            fail(given.file(), "has no architectures that says what tensor '", of_head,
                 "' is for; add it, for example \"architectures\": "
                 "[\"BertForSequenceClassification\"], or remove the tensor");
    }
    const std::string more = first([&](const tensor& t) {
        return !begins_with(t.name, m.prefix + "pooler.") &&
               !begins_with(t.name, m.prefix + "embeddings.");
    });
    for (const std::string& name : asked)
        if (!more.empty() && !is_plain(name) && !(m.head && name == m.head->stock->architecture))
            fail(given.file(), "architectures asks for ", name, ", whose head (tensor '", more,
                 "') is not read; to prune its encoder alone, save that as a plain model");
}

void describe_head(const model& m, json& config) {
    const settings given({}, config);
    const std::string model_type = given.text("model_type", "");
    const bool is_stock = m.head && m.head->stock;
    bool changed = false;
    if (!is_stock && config.contains("architectures"))
        for (json& name : config["architectures"])
            if (const stock_head* const was =
                    name.is_string() ? find_by_architecture(model_type, name) : nullptr) {
                name = was->plain;
                changed = true;
            }
    if (!is_stock && !changed) return;
    if (!m.head) {
        for (const char* key : {"id2label", "label2id", "num_labels", "problem_type"})
            config.erase(key);
        return;
    }
    if (m.head->of == head::subject::span) return; // its outputs are no labels
    const Index outputs = m.head->output.weight.rows();
    if (m.head->of == head::subject::text && given.all().contains("problem_type") &&
        !config["problem_type"].is_null())
        config["problem_type"] = m.head->is_score() ? "regression" : "single_label_classification";
    if (labels_of(given) == outputs) return;
    config.erase("num_labels"); // that of the names is meant
    config["id2label"] = config["label2id"] = json::object();
    for (Index i = 0; i < outputs; ++i) {
        const std::string name = "LABEL_" + std::to_string(i);
        config["id2label"][std::to_string(i)] = name;
        config["label2id"][name] = i;
    }
}

} // namespace detail
} // namespace encoder
