// How many units to keep in each sublayer: the least loss within a budget of any cost.
#pragma once

#include "core/error.hpp"
#include "core/view.hpp"
#include "cost.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// A sublayer, or some that must be equally wide: what it loses and what it costs.
struct prunable {
    std::vector<double> loss; ///< loss[k] with k units removed, k = 0 .. units; loss_curve::loss
    cost_table cost;          ///< of units kept

    // What engines ask for. Units kept are a multiple of this,
    index_t multiple = 1;
    index_t at_least = 0; ///< and at least so many.

    index_t units() const { return cost.units(); }
};

/// Sublayers that must keep the same number of units, for engines with one width, as one. Multiples
/// and minimums are the first one's. Throws shape_error if they differ in units.
inline prunable tied(const std::vector<prunable>& sublayers) {
    if (sublayers.empty()) detail::fail<shape_error>("tied", "no sublayers");
    prunable all = sublayers.front();
    std::vector<double> cost(all.loss.size(), 0.0);
    std::fill(all.loss.begin(), all.loss.end(), 0.0);
    for (const prunable& s : sublayers) {
        if (s.units() != all.units() || s.loss.size() != cost.size())
            detail::fail<shape_error>("tied", "sublayers of ", all.units(), " and ", s.units(),
                                      " units");
        for (std::size_t k = 0; k < cost.size(); ++k) {
            cost[k] += s.cost(static_cast<index_t>(k));
            all.loss[k] += s.loss[k];
        }
    }
    all.cost = cost_table(std::move(cost));
    return all;
}

struct width_choice {
    bool feasible = false;     ///< false: nothing satisfies budget and constraints
    double cost = 0, loss = 0; ///< sums over sublayers; if infeasible, the least cost there is
    std::vector<index_t> kept; ///< units of each sublayer; empty if infeasible
};

/// The multiple-choice knapsack over sublayers' widths, solved once for all budgets up to one.
///
/// By dynamic programming over costs that are rounded down to a grid of gap * most / sublayers, of
/// which the solutions carry their exact costs: what best(b) returns keeps to b, and loses no more
/// than any choice that costs at most b - gap * most. Costs on the grid are solved exactly.
///
/// Complexity: sublayers / gap * widths of all sublayers together; memory: 4 bytes * sublayers^2 /
/// gap. Source: the pseudo-polynomial algorithm of Dudzinski and Walukiewicz (1987) for this
/// knapsack; the paper's search (arXiv:2204.09656, section 4.1) is the case of two linear costs.
class width_search {
  public:
    /// `most` is the largest budget that will be asked for, infinite for all. Throws value_error
    /// for losses that are not finite or not one more than the units, and for a budget that is not
    /// a number.
    explicit width_search(const std::vector<prunable>& sublayers,
                          double most = std::numeric_limits<double>::infinity(),
                          double gap = 1e-3) {
        if (detail::is_nan(most) || !(gap > 0 && gap <= 1))
            detail::fail<value_error>("width_search", "the largest budget is ", most, ", the gap ",
                                      gap);
        double dearest = 0;
        for (const prunable& s : sublayers) {
            options_.push_back(list_options(s, options_.size()));
            if (options_.back().empty()) {
                least_cost_ = std::numeric_limits<double>::infinity();
                return;
            }
            dearest += options_.back().back().cost;
            least_cost_ += options_.back().front().cost;
        }
        most_ = std::min(std::max(most, 0.0), dearest);
        step_ = gap * most_ / static_cast<double>(std::max<std::size_t>(1, sublayers.size()));
        if (!(step_ > 0)) step_ = 1; // all is free, or nothing may cost anything
        solve();
    }

    /// The least loss at a cost of at most `budget`; of equal losses, the lower cost. Throws
    /// value_error for a budget that is not a number.
    width_choice best(double budget) const {
        if (detail::is_nan(budget))
            detail::fail<value_error>("width_search", "the budget is ", budget);
        index_t found = -1;
        for (index_t q = 0; q < size(); ++q) {
            const state& s = states_[static_cast<std::size_t>(q)];
            if (!detail::is_finite(s.loss) || s.cost > budget) continue;
            if (found < 0 || better(s, states_[static_cast<std::size_t>(found)])) found = q;
        }
        if (found >= 0) return trace(found);
        if (least_cost_ <= budget) return cheapest(); // a better one shared its place on the grid
        width_choice none;
        none.cost = least_cost_;
        return none;
    }

    /// No choice at a cost of at most `budget`, up to the largest one, loses less than this.
    double bound(double budget) const {
        double least = std::numeric_limits<double>::infinity();
        for (index_t q = 0; q < size() && static_cast<double>(q) * step_ <= budget; ++q)
            least = std::min(least, states_[static_cast<std::size_t>(q)].loss);
        return least;
    }

    /// Every choice found than which none is both cheaper and better, by rising cost.
    std::vector<width_choice> front() const {
        std::vector<index_t> order;
        for (index_t q = 0; q < size(); ++q) {
            const state& s = states_[static_cast<std::size_t>(q)];
            if (detail::is_finite(s.loss) && s.cost <= most_) order.push_back(q);
        }
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
            const state &x = states_[static_cast<std::size_t>(a)],
                        &y = states_[static_cast<std::size_t>(b)];
            return x.cost != y.cost ? x.cost < y.cost : x.loss < y.loss;
        });
        std::vector<width_choice> choices;
        double least = std::numeric_limits<double>::infinity();
        if (least_cost_ <= most_) {
            choices.push_back(cheapest());
            least = choices[0].loss;
        }
        for (const index_t q : order) {
            const double loss = states_[static_cast<std::size_t>(q)].loss;
            if (!(loss < least)) continue;
            least = loss;
            choices.push_back(trace(q));
        }
        return choices;
    }

  private:
    struct option {
        index_t kept;
        double cost, loss;
    };
    struct state { // the best of those whose rounded costs sum up to a place on the grid
        double loss = std::numeric_limits<double>::infinity(), cost = 0;
    };
    static bool better(const state& a, const state& b) {
        return a.loss < b.loss || (a.loss == b.loss && a.cost < b.cost);
    }
    index_t size() const { return static_cast<index_t>(states_.size()); }
    index_t place(double cost) const { // all that is beyond the grid is as far
        return static_cast<index_t>(std::min(cost / step_, 1e15));
    }

    /// Widths that are allowed and not both dearer and worse than another, by rising cost.
    static std::vector<option> list_options(const prunable& s, std::size_t at) {
        if (static_cast<index_t>(s.loss.size()) != s.units() + 1 || s.multiple < 1)
            detail::fail<value_error>("width_search", "sublayer ", at, " has ", s.loss.size(),
                                      " losses for ", s.units(), " units, in multiples of ",
                                      s.multiple);
        std::vector<option> all, some;
        for (index_t kept = 0; kept <= s.units(); ++kept) {
            const double loss = s.loss[static_cast<std::size_t>(s.units() - kept)];
            if (!detail::is_finite(loss))
                detail::fail<value_error>("width_search", "the loss of sublayer ", at, " with ",
                                          kept, " units is ", loss);
            if (kept % s.multiple == 0 && kept >= s.at_least)
                all.push_back({kept, s.cost(kept), loss});
        }
        std::stable_sort(all.begin(), all.end(), [](const option& a, const option& b) {
            return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss;
        });
        for (const option& o : all)
            if (some.empty() || o.loss < some.back().loss) some.push_back(o);
        return some;
    }

    void solve() {
        const auto places = static_cast<std::size_t>(place(most_)) + 1;
        states_.assign(places, {});
        states_[0].loss = 0;
        for (const std::vector<option>& options : options_) {
            std::vector<state> next(places);
            std::vector<std::uint32_t> from(places, 0);
            for (std::size_t o = 0; o < options.size(); ++o) {
                const auto by = static_cast<std::size_t>(place(options[o].cost));
                for (std::size_t q = by; q < places; ++q) {
                    const state& before = states_[q - by];
                    const state with{before.loss + options[o].loss, before.cost + options[o].cost};
                    if (better(with, next[q])) {
                        next[q] = with;
                        from[q] = static_cast<std::uint32_t>(o);
                    }
                }
            }
            states_ = std::move(next);
            from_.push_back(std::move(from));
        }
    }

    width_choice cheapest() const {
        width_choice c{true, 0, 0, {}};
        for (const std::vector<option>& options : options_) {
            c.cost += options.front().cost;
            c.loss += options.front().loss;
            c.kept.push_back(options.front().kept);
        }
        return c;
    }

    width_choice trace(index_t q) const {
        const state& s = states_[static_cast<std::size_t>(q)];
        width_choice c{true, s.cost, s.loss, std::vector<index_t>(options_.size())};
        for (std::size_t l = options_.size(); l-- > 0;) {
            const option& o = options_[l][from_[l][static_cast<std::size_t>(q)]];
            c.kept[l] = o.kept;
            q -= place(o.cost);
        }
        return c;
    }

    std::vector<std::vector<option>> options_;     // of each sublayer
    std::vector<state> states_;                    // by place on the grid
    std::vector<std::vector<std::uint32_t>> from_; // the option that led there, of each sublayer
    double most_ = 0, step_ = 1, least_cost_ = 0;
};

} // namespace PARE_ISA
} // namespace pare
