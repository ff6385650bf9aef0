// Families of encoders: what config.json and the weights are called in each.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace encoder {

/// Everything that sets a family apart. To read another one, add its entry in family.cpp, and its
/// fixture in tests/fixtures/make_family_fixtures.py.
struct family {
    const char* name;                       ///< "DistilBERT"
    std::array<const char*, 4> model_types; ///< in config.json; null behind the last

    /// Keys of config.json; null where a family has none. Of positions, words and the padding's id
    /// they are the same in all.
    struct {
        const char *hidden, *heads, *layers, *filters, *activation, *types, *epsilon;
        const char* embedding; ///< columns of the embeddings, which may be fewer than `hidden`
        const char* distance_buckets; ///< of distances that share a bias of attention
    } keys;
    /// A text's first position is the one behind the padding's id.
    bool positions_follow_padding;

    /// Names of the tensors, without their ends .weight and .bias; null where a family has none.
    struct {
        const char *words, *positions, *types, *embedding_norm, *embedding_projection;
        const char* layers; ///< a layer's number follows, and a dot
        const char *query, *key, *value, *attention_output, *attention_norm;
        const char *intermediate, *output, *output_norm;
        const char* distance_bias; ///< of attention, a number a bucket and head, for all layers
    } tensors;
};

extern const family bert;

/// The family that a model_type belongs to, or null.
const family* find_family(std::string_view model_type);
/// "bert, camembert, ...": all that are read.
std::string known_model_types();

/// What precedes a family's own name at the end of a tensor's; npos if that is no end of it.
/// "bert.embeddings.word_embeddings.weight" has 5 characters before BERT's words.
std::size_t prefix_length(std::string_view tensor, std::string_view own);
/// What a tensor is called today: the gamma and beta of a LayerNorm are its weight and bias.
std::string todays_name(std::string name);
/// Whether the encoder itself is to know a tensor of this name, without prefix.
bool is_of_encoder(const family& f, std::string_view name);

} // namespace encoder
