// How much of a cache each group of heads needs: what its outputs lose at each of some settings of a
// rule, measured on texts, and the settings of all groups that lose least together.
#pragma once

#include "eviction.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace language {

/// Of one setting, for each group of each layer; zeros for those that a layer does not have.
struct cache_losses {
    /// Keys left at the end of a text, as a share of it; the mean over texts.
    of_groups<double> shares;
    /// |What attention adds to the residual stream less what it adds with all keys|^2 / |the
    /// stream|^2, where all that is before it has all keys; the mean over tokens.
    of_groups<double> losses;
};

/// A rule for a text of some tokens, with a setting for each group of each layer.
using rule_of_settings = std::function<std::unique_ptr<eviction>(
    const of_groups<std::size_t>& settings, index_t tokens)>;

/// Reads texts in passes with all keys, and beside these with those that the rule leaves where all
/// groups have the same setting. Each setting takes as long as the attention of the texts, and a
/// projection of its outputs.
std::vector<cache_losses> measure_losses(const model& m,
                                         const std::vector<std::vector<std::int32_t>>& texts,
                                         index_t pass, std::size_t settings,
                                         const rule_of_settings& rule);

/// The setting of each group, such that the mean share is at most this, or as little as there is, and
/// the sum of losses least.
of_groups<std::size_t> plan_settings(const std::vector<cache_losses>& of, double share);

} // namespace language
