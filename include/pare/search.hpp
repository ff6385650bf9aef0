// Which heads and filters to keep: the masks of least loss within a budget.
#pragma once

#include "core/error.hpp"
#include "core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// A mask a layer: 1 = kept, 0 = pruned.
using masks = std::vector<std::vector<std::uint8_t>>;

/// Units of one kind (all heads, or all filters), layer by layer, with what they are worth and
/// cost.
struct prunable_units {
    /// importance[l][u] >= 0: the loss is 1/2 of the sum over pruned units. Diagonal Fisher, for
    /// example.
    std::vector<std::vector<double>> importance;
    /// Cost of one unit, the same in every layer, > 0; see head_macs and filter_macs.
    double cost = 1;

    /// What engines ask for. Units kept in a layer are a multiple of this,
    index_t multiple = 1;
    /// at least so many,
    index_t at_least = 0;
    /// and the same in all layers, for engines with one width.
    bool equal = false;
};

struct search_result {
    bool feasible =
        false;       ///< false: no masks satisfy budget and constraints; then the masks are empty
    double cost = 0; ///< of the units kept, <= budget; if infeasible, the least cost there is
    double loss = 0; ///< 1/2 of the importance pruned
    masks heads, filters;
};

namespace detail {

/// Every number of units that the constraints allow, with the least importance that it can prune.
/// choices[i] keeps the first i of `order`'s blocks, forced ones included.
class unit_choices {
  public:
    explicit unit_choices(const prunable_units& units) : units_(units) {
        for (std::size_t l = 0; l < units.importance.size(); ++l) {
            const auto& importance = units.importance[l];
            for (std::size_t u = 0; u < importance.size(); ++u)
                if (!is_finite(importance[u]) || importance[u] < 0)
                    fail<value_error>("search", "the importance of unit ", u, " in layer ", l,
                                      " is ", importance[u]);
            std::vector<index_t> rank(importance.size());
            std::iota(rank.begin(), rank.end(), index_t{0});
            std::stable_sort(rank.begin(), rank.end(), [&](index_t a, index_t b) {
                return importance[static_cast<std::size_t>(a)] >
                       importance[static_cast<std::size_t>(b)];
            });
            ranks_.push_back(std::move(rank));
        }
        if (!is_finite(units.cost) || units.cost <= 0 || units.multiple < 1 || units.at_least < 0)
            fail<value_error>("search", "cost ", units.cost, ", multiple ", units.multiple,
                              ", at least ", units.at_least);
        units.equal ? list_equal() : list_free();
        // Summed from the least important block, so that it counts beside huge ones.
        for (std::size_t i = pruned_.size(); i-- > 1;) pruned_[i - 1] += pruned_[i];
    }

    /// Number of choices, 0 if the constraints cannot be met; choices ascend in units kept.
    index_t size() const { return static_cast<index_t>(kept_.size()); }
    /// Importance pruned, less that of units which no choice keeps.
    double pruned_importance(index_t i) const { return pruned_[static_cast<std::size_t>(i)]; }
    double cost(index_t i) const {
        return units_.cost * static_cast<double>(kept_[static_cast<std::size_t>(i)]);
    }

    masks make_masks(index_t choice) const {
        std::vector<index_t> kept(ranks_.size(), forced_);
        for (index_t i = 0; i < choice; ++i)
            for (std::size_t l = 0; l < kept.size(); ++l)
                if (units_.equal || order_[static_cast<std::size_t>(i)] == l)
                    kept[l] += units_.multiple;
        masks result;
        for (std::size_t l = 0; l < kept.size(); ++l) {
            std::vector<std::uint8_t> mask(ranks_[l].size(), 0);
            for (index_t k = 0; k < kept[l]; ++k)
                mask[static_cast<std::size_t>(ranks_[l][static_cast<std::size_t>(k)])] = 1;
            result.push_back(std::move(mask));
        }
        return result;
    }

  private:
    // Importance of the `multiple` units of layer l that follow its best `kept`.
    double block_importance(std::size_t l, index_t kept) const {
        double sum = 0;
        for (index_t k = kept; k < kept + units_.multiple; ++k)
            sum +=
                units_.importance[l]
                                 [static_cast<std::size_t>(ranks_[l][static_cast<std::size_t>(k)])];
        return sum;
    }
    index_t units_in(std::size_t l) const { return static_cast<index_t>(ranks_[l].size()); }
    index_t fewest_units() const {
        index_t fewest = ranks_.empty() ? 0 : std::numeric_limits<index_t>::max();
        for (std::size_t l = 0; l < ranks_.size(); ++l) fewest = std::min(fewest, units_in(l));
        return fewest;
    }
    bool force() {
        forced_ = (units_.at_least + units_.multiple - 1) / units_.multiple * units_.multiple;
        if (!ranks_.empty() && forced_ > fewest_units()) return false;
        kept_.push_back(forced_ * static_cast<index_t>(ranks_.size()));
        pruned_.push_back(0);
        return true;
    }

    // Blocks of one layer are worth less and less, and all cost the same: taking the most valuable
    // block next gives the best masks for every number of blocks.
    void list_free() {
        if (!force()) return;
        struct block {
            double importance;
            std::size_t layer;
        };
        std::vector<block> blocks;
        for (std::size_t l = 0; l < ranks_.size(); ++l)
            for (index_t k = forced_; k + units_.multiple <= units_in(l); k += units_.multiple)
                blocks.push_back({block_importance(l, k), l});
        std::stable_sort(blocks.begin(), blocks.end(), [](const block& a, const block& b) {
            return a.importance > b.importance;
        });
        for (const block& b : blocks) {
            order_.push_back(b.layer);
            add_choice(units_.multiple, b.importance);
        }
    }

    void list_equal() {
        if (!force()) return;
        for (index_t k = forced_; k + units_.multiple <= fewest_units(); k += units_.multiple) {
            double importance = 0;
            for (std::size_t l = 0; l < ranks_.size(); ++l) importance += block_importance(l, k);
            add_choice(units_.multiple * static_cast<index_t>(ranks_.size()), importance);
        }
    }
    // The choice that keeps `more` units than the last one, which prunes them.
    void add_choice(index_t more, double importance) {
        kept_.push_back(kept_.back() + more);
        pruned_.back() = importance;
        pruned_.push_back(0);
    }

    const prunable_units& units_;
    std::vector<std::vector<index_t>> ranks_; // of each layer, most important first
    std::vector<std::size_t> order_;          // layer of each block after the forced ones
    std::vector<index_t> kept_;
    std::vector<double> pruned_;
    index_t forced_ = 0;
};

} // namespace detail

/// The heads and filters to keep so that their cost is at most `budget` (in the unit of the costs)
/// and the importance pruned is least; exact. Any layer may end with no heads or no filters unless
/// `at_least` says otherwise. Ties go to the earlier layer and unit, and to the lower cost.
///
/// Throws value_error for importances that are negative or not finite, and for a budget that is not
/// a number. A budget that cannot be met is an answer: feasible == false. Complexity: O(n log n) in
/// the number of units. Source: arXiv:2204.09656, section 4.1; that code also tries heads alone
/// over budget, which this does not.
inline search_result search(const prunable_units& heads, const prunable_units& filters,
                            double budget) {
    if (!detail::is_finite(budget)) detail::fail<value_error>("search", "the budget is ", budget);
    const detail::unit_choices h(heads), f(filters);
    search_result result;
    if (h.size() == 0 || f.size() == 0) {
        result.cost = std::numeric_limits<double>::infinity();
        return result;
    }
    index_t best_h = -1, best_f = -1, j = f.size() - 1, cheapest = j;
    double best = 0, best_cost = 0;
    for (index_t i = 0; i < h.size(); ++i) {
        while (j >= 0 && h.cost(i) + f.cost(j) > budget)
            --j; // more heads leave room for fewer filters
        if (j < 0) break;
        if (f.pruned_importance(cheapest) != f.pruned_importance(j)) cheapest = j;
        while (cheapest > 0 && f.pruned_importance(cheapest - 1) == f.pruned_importance(j))
            --cheapest; // filters of no importance are not kept
        const double pruned = h.pruned_importance(i) + f.pruned_importance(cheapest);
        const double cost = h.cost(i) + f.cost(cheapest);
        if (best_h < 0 || pruned < best || (pruned == best && cost < best_cost)) {
            best_h = i;
            best_f = cheapest;
            best = pruned;
            best_cost = cost;
        }
    }
    if (best_h < 0) {
        result.cost = h.cost(0) + f.cost(0);
        return result;
    }
    result.feasible = true;
    result.cost = h.cost(best_h) + f.cost(best_f);
    result.heads = h.make_masks(best_h);
    result.filters = f.make_masks(best_f);
    const auto pruned = [](const masks& mask, const prunable_units& units) {
        double sum = 0;
        for (std::size_t l = 0; l < mask.size(); ++l)
            for (std::size_t u = 0; u < mask[l].size(); ++u)
                if (!mask[l][u]) sum += units.importance[l][u];
        return sum;
    };
    result.loss = (pruned(result.heads, heads) + pruned(result.filters, filters)) / 2;
    return result;
}

} // namespace PARE_ISA
} // namespace pare
