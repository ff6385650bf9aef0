// Heads of transformers' models for classification and regression, of texts and of tokens, by family:
// how their tensors are called, and what config.json says of them.
#pragma once

#include "model.hpp"
#include "settings.hpp"

#include <map>

namespace encoder {

/// What a family puts on its last layer's first token: a dense layer, an activation, the output
/// layer. On each of its tokens: the output layer alone.
struct stock_head {
    const char* model_type;      ///< in config.json
    const char* architecture;    ///< with the head,
    const char* plain;           ///< and without
    bool is_pooler;              ///< `before` is a part of the encoder, behind its prefix
    const char *before, *output; ///< `before` is null if there is none
    head::function between = head::function::tanh;
    head::subject of = head::subject::text;
};

/// The one of a family; null if that has none here.
const stock_head* find_stock_head(const std::string& model_type,
                                  head::subject of = head::subject::text);

/// The names of a head's outputs: id2label's in config.json, or LABEL_0 and so on.
std::vector<std::string> label_names(const model& m);

/// An output layer of small random weights: of the head that the model has, or of one of ours.
void add_outputs(model& m, int outputs, std::uint64_t seed);

namespace detail {

/// Names of a head's layers, without ".weight" and ".bias"; `prefix` is the encoder's.
std::string before_name(const head& h, const std::string& prefix);
std::string output_name(const head& h);

struct expected_head {
    head empty; // without weights
    Eigen::Index outputs;
};
/// Of all that a model's files hold, by name.
using tensor_shapes = std::map<std::string, std::vector<std::int64_t>>;
/// The head that config.json asks for and that there are tensors of; `pools`: modules beside the model
/// make embeddings of its states. Throws file_error where these differ, and for outputs that are
/// neither classes, one score nor an answer's two ends.
std::optional<expected_head> find_head(const settings& given, const tensor_shapes& tensors,
                                       bool pools);

/// Throws file_error if config.json asks for another head than the model's, and the model has more
/// tensors than the encoder's; or says nothing, and they are a head's.
void check_others(const settings& given, const model& m);

/// Makes what config.json says of heads and labels fit the model.
void describe_head(const model& m, nlohmann::json& config);

} // namespace detail
} // namespace encoder
