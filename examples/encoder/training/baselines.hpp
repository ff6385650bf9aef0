// Other rules for which tokens stay, to compare with.
#pragma once

#include "checkpoint.hpp"
#include "results.hpp"

namespace encoder {

/// Trains these rules, with as many epochs as the recipe has to get used to them, and measures them.
/// All else about tokens is as in `as`; the recipe has a target.
std::vector<baseline> train_baselines(const std::vector<std::string>& names, const engine& dense,
                                      const dataset& train, const dataset& evaluate, recipe how,
                                      const token_pruning& as, const checkpoints& kept);

} // namespace encoder
