// Rules by name, those that are learned from texts too.
#pragma once

#include "cache_plan.hpp"
#include "learned_scores.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace language {

/// What all rules go by.
struct rule_options {
    index_t pass;        ///< tokens of a pass, behind which keys leave
    index_t first, last; ///< keys that stay in any case; a window has no first ones

    /// Of the shortest text that a key can leave.
    index_t least_tokens() const { return first + last + 1; }
};

/// A rule for a text of some tokens.
using rule_maker = std::function<std::unique_ptr<eviction>(index_t tokens)>;

class rules {
  public:
    static const std::vector<std::string>& names();
    /// Whether the rule of this name has something to learn.
    static bool learns(const std::string& name);

    rules(const model& m, const rule_options& options) : m_(m), o_(options) {}
    rules(const rules&) = delete;
    rules& operator=(const rules&) = delete;

    /// What the rule of this name needs to know of texts, each of rule_options::least_tokens() or more, at
    /// least one.
    void learn(const std::string& name, const std::vector<std::vector<std::int32_t>>& texts);

    /// Makes rules of this name, which has learned what it needs to, for texts of which about a share
    /// stays. They live no longer than this object.
    rule_maker of_share(const std::string& name, double share) const;

  private:
    std::unique_ptr<eviction> of_settings(const std::string& name,
                                          const of_groups<std::size_t>& settings,
                                          index_t tokens) const;
    budget of_shares(const of_groups<double>& shares, index_t tokens) const;

    const model& m_;
    rule_options o_;
    learned_scores guesses_;
    std::map<std::string, std::vector<cache_losses>> losses_;
};

} // namespace language
