#include "rules.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <stdexcept>

namespace language {
namespace {

/// Of a group's keys, what planned rules choose from.
constexpr double shares[] = {0,      1. / 32, 1. / 16, 3. / 32, 1. / 8, 3. / 16,
                             1. / 4, 3. / 8,  1. / 2,  3. / 4,  1};

/// What the average query gives a key that stays; from what only the first and the last keys reach to
/// what all do.
constexpr float thresholds[] = {1,       1e-1f, 3e-2f, 1e-2f, 6e-3f, 4e-3f, 2.5e-3f,
                                1.6e-3f, 1e-3f, 6e-4f, 4e-4f, 2e-4f, 1e-4f, 0};

template <class T, std::size_t N>
of_groups<T> pick(const T (&from)[N], const of_groups<std::size_t>& settings) {
    return settings.unaryExpr([&](std::size_t i) { return from[i]; });
}

} // namespace

const std::vector<std::string>& rules::names() {
    static const std::vector<std::string> all = {"window", "sinks",   "h2o",        "snap",
                                                 "ada",    "planned", "thresholds", "learned"};
    return all;
}

bool rules::learns(const std::string& name) {
    return name == "planned" || name == "thresholds" || name == "learned";
}

void rules::learn(const std::string& name, const std::vector<std::vector<std::int32_t>>& texts) {
    if (name == "learned") guesses_ = learn_scores(m_, texts, o_.last);
    std::vector<cache_losses> measured = measure_losses(
        m_, texts, o_.pass, name == "thresholds" ? std::size(thresholds) : std::size(shares),
        [&](const of_groups<std::size_t>& settings, index_t tokens) {
            return of_settings(name, settings, tokens);
        });
    for (const cache_losses& of : measured)
        if (!of.losses.allFinite())
            throw std::domain_error("the rule " + name +
                                    " cannot learn from a model whose sums are no numbers with a "
                                    "part of the keys: its weights are too large");
    losses_[name] = std::move(measured);
}

budget rules::of_shares(const of_groups<double>& of, index_t tokens) const {
    return {of.unaryExpr([&](double share) {
                const double keys = std::ceil(share * static_cast<double>(tokens));
                return std::min(tokens, std::max(o_.least_tokens(), static_cast<index_t>(keys)));
            }),
            o_.first, o_.last};
}

std::unique_ptr<eviction> rules::of_settings(const std::string& name,
                                             const of_groups<std::size_t>& settings,
                                             index_t tokens) const {
    if (name == "planned") return keep_attended(of_shares(pick(shares, settings), tokens));
    if (name == "thresholds") return keep_thresholds(pick(thresholds, settings), o_.first, o_.last);
    of_groups<float> limits = of_groups<float>::Zero(settings.rows(), settings.cols());
    for (index_t l = 0; l < limits.rows(); ++l)
        for (index_t g = 0; g < groups_of(m_.layers[static_cast<std::size_t>(l)], m_.config); ++g)
            limits(l, g) = guesses_.threshold(l, g, shares[settings(l, g)]);
    return keep_guessed(guesses_, limits, o_.first, o_.last);
}

rule_maker rules::of_share(const std::string& name, double share) const {
    if (const auto found = losses_.find(name); found != losses_.end())
        return [this, name, settings = plan_settings(found->second, share)](index_t tokens) {
            return of_settings(name, settings, tokens);
        };
    if (learns(name) || std::find(names().begin(), names().end(), name) == names().end())
        throw std::invalid_argument("there is no rule '" + name +
                                    "' that has learned what it needs");
    return [this, name, share](index_t tokens) {
        const auto layers = static_cast<index_t>(m_.layers.size());
        const budget even =
            of_shares(of_groups<double>::Constant(layers, m_.config.groups, share), tokens);
        return name == "window"  ? keep_window({even.keys, 0, o_.last})
               : name == "sinks" ? keep_window(even)
               : name == "h2o"   ? keep_heavy(even)
               : name == "snap"  ? keep_snap(even, o_.last)
                                 : keep_shared(even, o_.last); // ada
    };
}

} // namespace language
