// The Dense module of a sentence encoder's folder: one layer on the pooled vector.
#pragma once

#include "model.hpp"

#include <vector>

namespace encoder::detail {

/// Reads the module in `folder` that stands behind the pooling of a model of this hidden size. Throws
/// file_error for another activation than tanh or none, for another place in the model, and for
/// weights that do not fit.
projection read_dense(const std::filesystem::path& folder, Eigen::Index hidden);

/// The module's weights, there or not, by their names in its folder: they go with a model as they are.
std::vector<std::filesystem::path> weights_of_dense(const std::filesystem::path& folder);

} // namespace encoder::detail
