// What the JSON files of a model's folder say of it.
#pragma once

#include "model.hpp"
#include "modules.hpp"
#include "settings.hpp"

#include <vector>

namespace encoder::detail {

/// `given`: config.json of the transformer. Throws file_error for what cannot be read as one of the
/// families.
config read_config(const std::filesystem::path& folder, const modules& parts,
                   const settings& given);

/// sentence_bert_config.json; what sentence-transformers calls it in the folders of some families
/// counts before it.
settings read_sentence_settings(const std::filesystem::path& folder);

struct widths {
    // Of each layer; queries, values: numbers of a head's.
    std::vector<Eigen::Index> heads, queries, values, filters;
    Eigen::Index outputs = 0;       // of the head; 0: there is none
    bool one_distance_bias = false; // all layers share it
};

/// What config.json says under "pare": what others of the family have not.
struct additions {
    widths kept;
    token_pruning tokens;
    bool exits = false;
    std::vector<operating_point> curve;
};

additions read_additions(const settings& given, std::size_t layers, const config& c);

/// config.json of a model of these widths.
nlohmann::json describe(const model& m, const widths& w);

} // namespace encoder::detail
