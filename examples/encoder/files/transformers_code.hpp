// What transformers needs to load layers of unequal widths: a modelling file beside the weights.
#pragma once

#include "model.hpp"

namespace encoder::detail {

inline constexpr const char* code_file = "modeling_pare.py";
extern const char* const code; ///< what is in it: modeling_pare.py of this folder

/// Whether config.json has transformers load a model by that file.
bool asks_for_code(const nlohmann::json& config);
/// Makes it so, for the encoder alone and for what is under "architectures".
void ask_for_code(nlohmann::json& config);

} // namespace encoder::detail
