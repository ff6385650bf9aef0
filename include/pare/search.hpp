// How many units to keep in each sublayer: the least loss within a budget of any cost.
#pragma once

#include "core/error.hpp"
#include "core/view.hpp"
#include "cost.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
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
    const std::size_t widths = static_cast<std::size_t>(all.units()) + 1;
    std::vector<double> cost(widths, 0.0);
    all.loss.assign(widths, 0.0);
    for (const prunable& s : sublayers) {
        if (s.units() != all.units() || static_cast<index_t>(s.loss.size()) != s.units() + 1)
            detail::fail<shape_error>("tied", "sublayers of ", all.units(), " and ", s.units(),
                                      " units, the latter with ", s.loss.size(), " losses");
        for (std::size_t k = 0; k < cost.size(); ++k) {
            cost[k] += s.cost(static_cast<index_t>(k));
            all.loss[k] += s.loss[k];
        }
    }
    all.cost = cost_table(std::move(cost));
    return all;
}

/// How many units each sublayer keeps.
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
    /// for losses that are not finite or not one more than the units, for costs or losses whose sum
    /// is not finite, for a budget that is not a number, and for a gap that is not between 0 and 1
    /// or asks for more than 2^31 places on the grid.
    explicit width_search(const std::vector<prunable>& sublayers,
                          double most = std::numeric_limits<double>::max(), double gap = 1e-3) {
        if (detail::is_nan(most) || !detail::is_finite(gap) || gap <= 0 || gap > 1)
            detail::fail<value_error>("width_search", "the largest budget is ", most, ", the gap ",
                                      gap);
        const auto count = static_cast<double>(std::max<std::size_t>(1, sublayers.size()));
        if (count / gap > 2147483648.0)
            detail::fail<value_error>("width_search", "a gap of ", gap, " over ", sublayers.size(),
                                      " sublayers asks for ", count / gap, " places on the grid");
        double dearest = 0, worst = 0;
        for (const prunable& s : sublayers) {
            options_.push_back(list_options(s, options_.size()));
            if (options_.back().empty()) {
                possible_ = false;
                continue;
            }
            const option &cheap = options_.back().front(), &dear = options_.back().back();
            dearest += dear.cost;
            least_cost_ += cheap.cost;
            worst += std::max(std::abs(cheap.loss), std::abs(dear.loss));
        }
        if (!possible_) return;
        if (!detail::is_finite(dearest) || !detail::is_finite(worst))
            detail::fail<value_error>("width_search", "the sublayers' costs sum up to ", dearest,
                                      ", their losses to ", worst, "; scale them down");
        most_ = std::min(std::max(detail::nearest_finite(most), 0.0), dearest);
        step_ = std::max(gap * most_ / count, 1e-300); // whose inverse is finite too
        solve();
    }

    /// The least loss at a cost of at most `budget`; of equal losses, the lower cost. Throws
    /// value_error for a budget that is not a number.
    width_choice best(double budget) const {
        budget = finite_budget(budget);
        index_t found = -1;
        for (index_t q = 0; q < size(); ++q) {
            if (!reached(q) || cost_at(q) > budget) continue;
            if (found < 0 || better(q, found)) found = q;
        }
        if (found >= 0) return trace(found);
        // A better one may have shared the cheapest choice's place on the grid.
        if (possible_ && least_cost_ <= budget) return cheapest();
        width_choice none;
        none.cost = possible_ ? least_cost_ : detail::infinity<double>();
        return none;
    }

    /// No choice at a cost of at most `budget`, up to the largest one, loses less than this;
    /// infinite if there is none. Throws value_error for a budget that is not a number.
    double bound(double budget) const {
        const index_t last = last_place(finite_budget(budget));
        index_t found = -1;
        for (index_t q = 0; q < size() && q <= last; ++q)
            if (reached(q) && (found < 0 || loss_at(q) < loss_at(found))) found = q;
        return found < 0 ? detail::infinity<double>() : loss_at(found);
    }

    /// Every choice found than which none is both cheaper and better, by rising cost.
    std::vector<width_choice> front() const {
        std::vector<index_t> order;
        for (index_t q = 0; q < size(); ++q) {
            if (reached(q) && cost_at(q) <= most_) order.push_back(q);
        }
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
            return cost_at(a) != cost_at(b) ? cost_at(a) < cost_at(b) : loss_at(a) < loss_at(b);
        });
        std::vector<width_choice> choices;
        if (possible_ && least_cost_ <= most_) choices.push_back(cheapest());
        for (const index_t q : order)
            if (choices.empty() || loss_at(q) < choices.back().loss) choices.push_back(trace(q));
        return choices;
    }

  private:
    struct option {
        index_t kept;
        double cost, loss;
        index_t place = 0; // on the grid; calculated once, since flags may change a quotient
    };
    struct states { // by place on the grid, the best choice whose rounded costs sum up to it
        std::vector<double> loss, cost;

        explicit states(std::size_t places = 0)
            : loss(places, detail::infinity<double>()), cost(places, 0.0) {}
    };
    static double finite_budget(double budget) {
        if (detail::is_nan(budget))
            detail::fail<value_error>("width_search", "the budget is ", budget);
        return detail::nearest_finite(budget);
    }
    double loss_at(index_t q) const { return states_.loss[static_cast<std::size_t>(q)]; }
    double cost_at(index_t q) const { return states_.cost[static_cast<std::size_t>(q)]; }
    bool reached(index_t q) const { return detail::is_finite(loss_at(q)); }
    bool better(index_t a, index_t b) const {
        return loss_at(a) < loss_at(b) || (loss_at(a) == loss_at(b) && cost_at(a) < cost_at(b));
    }
    index_t size() const { return static_cast<index_t>(states_.loss.size()); }
    index_t place(double cost, double rounding = 0) const { // all that is beyond the grid is as far
        return static_cast<index_t>(std::min(detail::opaque(cost / step_) * (1 + rounding), 1e15));
    }

    /// The last place of choices that cost at most `budget`. Places are rounded down, but from
    /// quotients that were rounded, and a choice's cost is a sum that was.
    index_t last_place(double budget) const {
        const double rounding =
            static_cast<double>(options_.size() + 4) * std::numeric_limits<double>::epsilon();
        return budget < 0 ? -1 : place(budget, rounding);
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
                all.push_back({kept, s.cost(kept), loss, 0});
        }
        std::sort(all.begin(), all.end(), [](const option& a, const option& b) {
            return std::tie(a.cost, a.loss, a.kept) < std::tie(b.cost, b.loss, b.kept);
        });
        for (const option& o : all)
            if (some.empty() || o.loss < some.back().loss) some.push_back(o);
        return some;
    }

    void solve() {
        const auto places = static_cast<std::size_t>(last_place(most_)) + 1;
        states_ = states(places);
        states_.loss[0] = 0;
        for (std::vector<option>& options : options_) {
            struct step {
                std::size_t by, option;
            };
            std::vector<step> steps; // of options that share one, the last: it loses least
            for (std::size_t o = 0; o < options.size(); ++o) {
                options[o].place = place(options[o].cost);
                const auto by = static_cast<std::size_t>(options[o].place);
                if (!steps.empty() && steps.back().by == by) steps.pop_back();
                steps.push_back({by, o});
            }
            states next(places);
            std::vector<std::uint32_t> from(places, 0);
            constexpr std::size_t block = 1024; // places whose states stay in L1
            for (std::size_t first = 0; first < places; first += block)
                for (const step& s : steps)
                    take(states_, s.by, options[s.option], static_cast<std::uint32_t>(s.option),
                         std::max(first, s.by), std::min(places, first + block), next, from.data());
            states_ = std::move(next);
            from_.push_back(std::move(from));
        }
    }

    /// Goes from the states `by` places before to those at begin <= q < end, where it is better.
    static void take(const states& before, std::size_t by, const option& o, std::uint32_t index,
                     std::size_t begin, std::size_t end, states& next, std::uint32_t* from) {
        const double *const old_loss = before.loss.data(), *const old_cost = before.cost.data();
        double *const loss = next.loss.data(), *const cost = next.cost.data();
        for (std::size_t q = begin; q < end; ++q) {
            const double l = old_loss[q - by] + o.loss, c = old_cost[q - by] + o.cost;
            const bool wins = (l < loss[q]) | ((l == loss[q]) & (c < cost[q])); // no branch
            loss[q] = wins ? l : loss[q];
            cost[q] = wins ? c : cost[q];
            from[q] = wins ? index : from[q];
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
        width_choice c{true, cost_at(q), loss_at(q), std::vector<index_t>(options_.size())};
        for (std::size_t l = options_.size(); l-- > 0;) {
            const option& o = options_[l][from_[l][static_cast<std::size_t>(q)]];
            c.kept[l] = o.kept;
            q -= o.place;
        }
        return c;
    }

    std::vector<std::vector<option>> options_; // of each sublayer
    states states_;
    std::vector<std::vector<std::uint32_t>> from_; // the option that led there, of each sublayer
    bool possible_ = true;                         // some choice satisfies the constraints
    double most_ = 0, step_ = 1, least_cost_ = 0;
};

} // namespace PARE_ISA
} // namespace pare
