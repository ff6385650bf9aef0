// The parts of a sentence encoder's folder, as modules.json lists them.
#pragma once

#include "settings.hpp"

#include <optional>
#include <vector>

namespace encoder::detail {

/// Folders in that of the model; an empty path is the model's own.
struct modules {
    std::filesystem::path transformer;
    std::optional<std::filesystem::path> pooling; ///< config.json there says how to pool
    std::optional<std::filesystem::path> dense;   ///< a layer on what is pooled
    std::vector<std::filesystem::path> others;    ///< all but the transformer's
};

/// Without modules.json the transformer is in the folder itself and the pooling in 1_Pooling, if
/// that says anything. Throws file_error for a module that is none of Transformer, Pooling, Dense
/// and Normalize, for two of one kind or another order, and for a path that leads out of the folder.
modules read_modules(const std::filesystem::path& folder);

} // namespace encoder::detail
