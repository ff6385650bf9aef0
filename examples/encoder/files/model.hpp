// A BERT-type sentence encoder in memory, and its Hugging Face folder on disk.
#pragma once

#include "family.hpp"
#include "output.hpp"
#include "safetensors.hpp"

#include <Eigen/Core>
#include <nlohmann/json.hpp>
#include <pare/importance.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace encoder {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::VectorXf;

/// y = weight * x + bias; weight is [out x in] as in the checkpoint.
struct dense {
    matrix weight;
    vector bias;
};

struct layer_norm {
    vector weight, bias;
};

/// One post-LayerNorm transformer layer. Layers may differ in heads and filters; a layer may have
/// none of either, and then its matrices have a side of length 0 and only the bias acts. Heads may have
/// queries, and keys as long, and values of other numbers than the config's head size: logits are divided
/// by the root of those of a query.
struct layer {
    Eigen::Index heads = 0;
    dense query, key;       // [heads * queries x hidden]
    dense value;            // [heads * values x hidden]
    dense attention_output; // [hidden x heads * values]
    layer_norm attention_norm;
    dense intermediate; // [filters x hidden]
    dense output;       // [hidden x filters]
    layer_norm output_norm;
    /// Of families that bias attention by distance [buckets x heads]. In transformers' models all
    /// layers share one, which is not trained here.
    matrix distance_bias;

    Eigen::Index filters() const { return intermediate.weight.rows(); }
    /// Numbers of a head's query, and of its key; 0 without heads.
    Eigen::Index queries() const { return heads > 0 ? query.weight.rows() / heads : 0; }
    /// Of its value, and of its part of the context.
    Eigen::Index values() const { return heads > 0 ? value.weight.rows() / heads : 0; }
};

enum class activation { gelu, gelu_tanh, relu };
enum class pooling { mean, cls, max };

struct stock_head; // heads.hpp

/// What a model that classifies or scores puts on its vectors: the output layer, behind one more
/// layer and an activation if there is `before`. Of a text, one output is a score (regression, a
/// reranker's relevance), more are the logits of classes.
struct head {
    enum class function { tanh, relu, gelu };
    enum class subject {
        text,  ///< on the pooled vector: a row of outputs a sequence
        token, ///< on each token's, for labels: a row a token, in the batch's order
        span   ///< the same, of two outputs: logits of an answer's first and last token
    };

    dense output;                               ///< [outputs x hidden]
    std::optional<dense> before = std::nullopt; ///< [hidden x hidden]
    function between = function::tanh;          ///< behind `before`
    const stock_head* stock = nullptr; ///< what transformers calls it and its tensors; null: ours
    subject of = subject::text;

    bool is_score() const { return of == subject::text && output.weight.rows() == 1; }
};

/// A Dense module of sentence-transformers: embeddings are made of what it makes of the pooled vector.
/// It is not trained here.
struct projection {
    dense layer; ///< [columns x hidden]
    bool tanh = true;
};

struct config {
    const encoder::family* family = &bert;
    Eigen::Index hidden = 0, head_size = 0, vocabulary = 0, positions = 0, types = 0;
    Eigen::Index first_position = 0;    ///< row of the position embeddings that a text begins with
    Eigen::Index narrow_embeddings = 0; ///< columns of those that are projected to `hidden`, or 0
    Eigen::Index distance_buckets = 0;  ///< of distances that share a bias of attention, or 0
    Eigen::Index max_tokens =
        0; ///< longest sequence with [CLS] and [SEP]; longer ones are truncated
    float layer_norm_epsilon = 1e-12f;
    encoder::activation activation = encoder::activation::gelu;
    encoder::pooling pooling = encoder::pooling::mean;

    Eigen::Index embedding_columns() const {
        return narrow_embeddings > 0 ? narrow_embeddings : hidden;
    }
    Eigen::Index longest() const { return positions - first_position; } ///< that has positions
};

/// Tokens that get little attention in a layer leave the network there: neither the layer's FFN nor
/// what follows sees them. The first token of a sequence always stays.
struct token_pruning {
    enum class rule {
        threshold, ///< whose score is below the layer's number leaves
        share,     ///< the layer's share of the tokens that it sees stay, those with most attention
        count      ///< so many stay
    };
    rule by = rule::threshold;
    std::vector<double> numbers; ///< a layer each; none: nothing is dropped
    double alpha = 1;            ///< multiplies thresholds; 0 drops nothing
    /// Whether a dropped token takes part in the mean that is the embedding: by its last state, or
    /// what the model's exits make of it. In a maximum it never does: states of several layers are
    /// of several sizes, and the maximum would be that of the largest.
    bool carried = true;
    /// relative (mean 1, so that thresholds hold at any length) or per_query (mean 1 / length, as
    /// in arXiv:2107.00910).
    pare::score_scale scores = pare::score_scale::relative;
};

/// As config.json has them.
const char* name_of(token_pruning::rule by);
const char* name_of(pare::score_scale scores);

/// What a model gives and costs where its thresholds are multiplied by alpha.
struct operating_point {
    double alpha, macs_ratio;
    double metric; ///< NaN: none was measured
};

struct model {
    encoder::config config;
    matrix word_embeddings, position_embeddings, type_embeddings; // [rows x embedding_columns()]
    layer_norm embedding_norm;
    dense embedding_projection; ///< of narrow embeddings: [hidden x embedding_columns()]
    std::vector<layer> layers;
    /// Of a model for classification, regression, labels of tokens or answers; with none, outputs
    /// are embeddings.
    std::optional<encoder::head> head;
    std::optional<encoder::projection> projection; ///< of embeddings; a head does without it

    token_pruning tokens; ///< tokens that forward passes drop
    /// What a token dropped in layer l would have become, guessed from its input to the layer and
    /// its heads' outputs there: [hidden x hidden + heads * values] for each layer. With none, a
    /// dropped token counts in the mean as what it was.
    std::vector<dense> exits;
    std::vector<operating_point> curve; ///< of `tokens`, as measured when it was learned

    data_type stored_as = data_type::f32; ///< type of the weights on disk, kept when written again
    std::string prefix;                   ///< of the tensor names: "", "bert." or another
    std::vector<tensor>
        others; ///< tensors that the encoder does not use (pooler, ...), written back unchanged
    nlohmann::json json;   ///< config.json as read
    bool has_code = false; ///< whether code for transformers is beside the weights

    /// Columns of the outputs.
    Eigen::Index outputs() const;
    /// Of each layer.
    std::vector<Eigen::Index> heads() const;
    std::vector<Eigen::Index> queries() const; ///< numbers of a head's query
    std::vector<Eigen::Index> values() const;
    std::vector<Eigen::Index> filters() const;
    /// Whether outputs are a row a token, not a row a sequence.
    bool is_per_token() const { return head && head->of != head::subject::text; }
    /// Whether tokens that left may take part in outputs: in a mean, and as the rows of labels.
    bool counts_what_left() const {
        return is_per_token() ? head->of == head::subject::token : config.pooling == pooling::mean;
    }
    /// Parameters of everything that is written, `others` included.
    std::int64_t parameters() const;
};

/// One of a model's weights that learn: its numbers, row after row, and its name in the file.
struct weight {
    std::string name;
    float* data;
    Eigen::Index rows, columns; ///< a vector has one column

    Eigen::Index size() const { return rows * columns; }
};
/// All that learn, in an order that is the same for all models of the same shape.
std::vector<weight> weights(model& m);

/// A model of the same shape whose weights are 0, to add up gradients in.
model zeros_like(const model& m);

/// Where config.json, the weights and the tokenizer of a model are: its folder, or the one in it
/// that modules.json names. Throws file_error.
std::filesystem::path transformer_folder(const std::filesystem::path& folder);

/// Of the files that hold a model's weights. Throws file_error.
std::uintmax_t bytes_of_weights(const std::filesystem::path& folder);

/// Reads config.json, model.safetensors (or what model.safetensors.index.json names) and, where they
/// exist, sentence_bert_config.json, tokenizer_config.json, modules.json, the pooling's config.json
/// and a Dense module's folder. Every tensor is checked against the config and for NaN and infinity before anything
/// is returned. The gamma and beta of older files become the weight and bias that they are called
/// today.
/// Throws file_error with a sentence that names the file and what is wrong with it.
model load_model(const std::filesystem::path& folder);

/// Writes `m` as a folder of the same kind and family, all weights in one file, with the tokenizer's
/// files and the modules copied from `source`. A head of transformers' is written as it is there, with
/// labels in config.json for its outputs. Biases by distance are one tensor, as there, or where heads
/// are gone a tensor a layer. What sets the model apart from others of its family is in
/// config.json's "pare", and load_model reads it again:
///     "heads", "filters"  of uneven layers, a number a layer
///     "queries", "values" where those of heads, and their keys, are narrower than the head size: a
///                         number a layer, 0 without heads
///     "classes"           outputs of a head of ours, one dense layer on the pooled vector, which is
///                         in classifier.weight and classifier.bias; 1: a score
///     "exits"             true if exits.0.weight, exits.0.bias and so on are there
///     "tokens"            {"by": "threshold", "share" or "count", "numbers": [...], "alpha",
///                         "carried", "scores": "relative" or "per_query",
///                         "curve": [{"alpha", "macs_ratio", "metric" or null}, ...]}
/// With has_code there is modeling_pare.py, which config.json names under "auto_map": by it
/// transformers loads uneven layers too.
/// Throws file_error.
void write_model(const model& m, const std::filesystem::path& source, const output& out);
/// The same, and puts it in place.
void save_model(const model& m, const std::filesystem::path& source,
                const std::filesystem::path& folder);

/// A folder that write_model() wrote, as its model.safetensors says, and that has no more in it.
extern const output::kind written_model;

/// A model's folder, and its files that are read or copied to models made from it, there or not.
std::vector<program_input> model_inputs(const std::filesystem::path& folder);

} // namespace encoder
