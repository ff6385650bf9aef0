// What each sublayer loses with its units, and how many units of each a budget leaves.
#pragma once

#include "../eliminate.hpp"
#include "../head_shapes.hpp"
#include "../project.hpp"
#include "../search.hpp"
#include "statistics.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// Heads of a sublayer, made of fewer numbers than the dense model's.
struct narrow_heads {
    head_shape shape; ///< heads kept, and of how many numbers
    /// Of those kept, one behind another; {} where numbers are as many as before.
    std::vector<head_maps> queries, values;

    bool narrower() const { return !queries.empty() || !values.empty(); }
};

/// How many units each sublayer keeps, and which.
struct prune_plan {
    std::vector<std::vector<std::uint8_t>> masks; ///< [sublayer][unit], 1 for those kept
    /// [sublayer] 1 where the model's `keep` makes units anew too, such as heads of fewer numbers: they
    /// give other values than the dense model's. {}: nowhere. Those of `heads` need not be said here.
    std::vector<std::uint8_t> changed;
    std::vector<narrow_heads> heads; ///< [sublayer] what they are made of; {}: as before
    std::vector<double> losses;      ///< of each sublayer, by the criterion
    double cost = 0, dense_cost = 0; ///< of the units kept, and of all
    double loss = 0, bound = 0;      ///< the sum; no choice within the budget loses less than bound
};

namespace detail {

template <class Policy>
using can_be_split = decltype(std::declval<const Policy&>().with(serial()));

/// f(policy, s) for all s, the largest first. Of a policy whose executor has threads, they take an s
/// each: units leave one by one, with little work for many threads in between.
template <class Policy, class F>
void one_a_thread(const Policy& policy, const std::vector<index_t>& largest_first, const F& f) {
    const auto count = static_cast<index_t>(largest_first.size());
    const auto at = [&](index_t i) { return largest_first[static_cast<std::size_t>(i)]; };
    if constexpr (has<can_be_split, Policy>::value)
        run_allocating(policy.executor(), count,
                       [&](index_t i, index_t) { f(policy.with(serial()), at(i)); });
    else
        for (index_t i = 0; i < count; ++i) f(policy, at(i));
}

/// What sublayer y's units are known by: about their means where a bias makes up for those.
template <class T>
row_major moments_of(const sublayer_statistics& seen, const sublayer<T>& y) {
    return y.bias.extent(0) > 0 ? seen.inputs.covariance() : seen.inputs.moment_xx();
}

/// The metric of the gradients at the sums, a mean; empty where there are none.
inline row_major metric_of(const sublayer_statistics& seen) {
    if (seen.metric.rows() == 0) return {};
    const view<const double, 2> sums = seen.metric.lower_sums();
    return Eigen::Map<const row_major>(sums.data_handle(), sums.extent(0), sums.extent(1)) /
           static_cast<double>(seen.metric.rows());
}

/// f(policy, s, sublayer s, its statistics) for all sublayers, one a thread. False if the callback
/// ended it.
template <class Policy, class Model, class F>
bool for_sublayers(const Policy& policy, Model& model,
                   const std::vector<sublayer_statistics>& statistics,
                   const prune_callback& callback, const F& f) {
    const auto count = static_cast<index_t>(statistics.size());
    if (count != model.sublayers())
        fail<shape_error>("prune", "statistics of ", count, " sublayers, the model has ",
                          model.sublayers());
    static_assert(Policy::on_host, "pare: elimination wants a policy of the host's");
    check_whole(policy);
    std::vector<decltype(described(model, 0))> all;
    std::vector<index_t> order(statistics.size());
    for (index_t s = 0; s < count; ++s) all.push_back(described(model, s));
    std::iota(order.begin(), order.end(), index_t{0});
    const auto width = [&](index_t s) { return all[static_cast<std::size_t>(s)].weight.extent(1); };
    std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
        return std::pair(width(b), a) < std::pair(width(a), b);
    });
    const auto saw_nothing = [](const sublayer_statistics& x) { return x.inputs.tokens() == 0; };
    const auto has_units = [](const auto& x) { return x.weight.extent(1) > 0; };
    if (std::all_of(statistics.begin(), statistics.end(), saw_nothing) &&
        std::any_of(all.begin(), all.end(), has_units))
        fail<value_error>("prune", "the statistics of ", count,
                          " sublayers are of no tokens: nothing says what they can do without");
    std::mutex one_at_a_time;
    index_t done = 0;
    bool ended = false;
    one_a_thread(policy, order, [&](const auto& own, index_t s) {
        {
            const std::lock_guard<std::mutex> now(one_at_a_time);
            ended = ended || !goes_on(callback, {prune_progress::elimination, done++, count});
            if (ended) return;
        }
        const auto at = static_cast<std::size_t>(s);
        f(own, at, all[at], statistics[at]);
    });
    return !ended;
}

} // namespace detail

/// The order in which least squares can do without each sublayer's units, in the metric of the
/// gradients; without those, of what it loses of the stream's variance. `policy` is one of the
/// host's: sublayers run on its threads, one each. None if the callback ended it. Throws as
/// pare::eliminate does, and value_error for statistics of no tokens at all. Memory: of each sublayer
/// that runs, once more its statistics.
template <class Policy, class Model>
std::optional<std::vector<loss_curve>>
elimination_curves(const Policy& policy, Model& model,
                   const std::vector<sublayer_statistics>& statistics,
                   const prune_callback& callback = {}) {
    std::vector<loss_curve> curves(statistics.size());
    if (!detail::for_sublayers(
            policy, model, statistics, callback,
            [&](const auto& own, std::size_t s, const auto& y, const sublayer_statistics& seen) {
                loss_curve& curve = curves[s];
                curve = eliminate(own, detail::moments_of(seen, y), detail::metric_of(seen),
                                  y.weight, y.unit);
                const double variance = seen.sums.variance_y();
                if (seen.metric.rows() == 0 && variance > 0)
                    for (double& loss : curve.loss) loss /= variance;
            }))
        return std::nullopt;
    return curves;
}

/// What heads' values lose at each rank, [sublayer][heads kept] as of pare::rank_curves, beside what
/// `curves` of elimination_curves say that whole heads lose; none of sublayers without queries in their
/// statistics. The rest as for elimination_curves.
template <class Policy, class Model>
std::optional<std::vector<std::vector<rank_curve>>>
value_curves(const Policy& policy, Model& model, const std::vector<sublayer_statistics>& statistics,
             const std::vector<loss_curve>& curves, index_t step = 1,
             const prune_callback& callback = {}) {
    if (curves.size() != statistics.size())
        detail::fail<shape_error>("prune", curves.size(), " curves, statistics of ",
                                  statistics.size(), " sublayers");
    std::vector<std::vector<rank_curve>> found(statistics.size());
    if (!detail::for_sublayers(
            policy, model, statistics, callback,
            [&](const auto& own, std::size_t s, const auto& y, const sublayer_statistics& seen) {
                if (seen.queries.heads() == 0) return;
                found[s] = rank_curves(own, detail::moments_of(seen, y), detail::metric_of(seen),
                                       y.weight, y.unit, curves[s], 1e-2, step);
            }))
        return std::nullopt;
    return found;
}

/// What heads lose that are made of fewer numbers; [sublayer], empty where they cannot be.
struct number_losses {
    std::vector<std::vector<projection>> queries; ///< [head] of query_statistics
    std::vector<std::vector<rank_curve>> values;  ///< [heads kept] of value_curves
};

/// What a model with `narrow` loses with fewer numbers, of sublayers whose describe says what that costs
/// and whose queries the backward pass has shown; else nothing. The rest as for value_curves and
/// query_statistics::projections.
template <class Policy, class Model>
std::optional<number_losses>
number_curves(const Policy& policy, Model& model, std::vector<sublayer_statistics>& statistics,
              const std::vector<loss_curve>& curves, const prune_callback& callback = {}) {
    number_losses found;
    if constexpr (detail::has<detail::can_narrow, Model>::value) {
        if (static_cast<index_t>(statistics.size()) != model.sublayers())
            detail::fail<shape_error>("prune", "statistics of ", statistics.size(),
                                      " sublayers, the model has ", model.sublayers());
        std::vector<std::uint8_t> narrows;
        index_t step = 0;
        for (std::size_t s = 0; s < statistics.size(); ++s) {
            const number_costs costs = detail::described(model, static_cast<index_t>(s)).numbers;
            narrows.push_back(costs && statistics[s].queries.heads() > 0);
            if (narrows.back()) step = std::gcd(step, costs.value_multiple);
        }
        if (step == 0) return found;
        auto values = value_curves(policy, model, statistics, curves, step, callback);
        if (!values) return std::nullopt;
        found.values = std::move(*values);
        for (std::size_t s = 0; s < narrows.size(); ++s) {
            if (!narrows[s]) found.values[s].clear();
            found.queries.push_back(narrows[s] ? statistics[s].queries.projections()
                                               : std::vector<projection>());
        }
    }
    return found;
}

namespace detail {

/// What a sublayer can be: numbers of units, or shapes of heads.
struct sublayer_choices {
    prunable all;       ///< of which a search keeps `i`:
    head_shapes shapes; ///< shapes[i], or empty: i units

    index_t units(index_t i) const {
        return shapes.shapes.empty() ? i : shapes.shapes[static_cast<std::size_t>(i)].heads;
    }
    double loss(index_t i) const { return all.loss[static_cast<std::size_t>(all.units() - i)]; }
};

/// Of sublayer s, y.
template <class T>
sublayer_choices choices_of(const sublayer<T>& y, const loss_curve& curve,
                            const number_losses& numbers, std::size_t s) {
    const std::vector<projection> no_queries;
    const std::vector<rank_curve> no_values;
    const auto& queries = numbers.queries.empty() ? no_queries : numbers.queries[s];
    const auto& values = numbers.values.empty() ? no_values : numbers.values[s];
    if (!y.numbers || (queries.empty() && values.empty()))
        return {{curve.loss, y.cost, y.multiple, y.at_least}, {}};
    const head_shape whole{y.units(), y.numbers.queries, y.unit};
    const double expected = y.cost(y.units()), found = y.numbers.cost(whole);
    if (!(std::abs(found - expected) <= 1e-6 * std::abs(expected)))
        fail<value_error>("prune", "all heads of a sublayer cost ", expected,
                          " by their number and ", found, " by their shape");
    const head_shapes every = shapes_of_heads(
        curve, queries, values, whole, {1, y.numbers.query_multiple, y.numbers.value_multiple});
    head_shapes some;
    for (std::size_t i = 0; i < every.shapes.size(); ++i) {
        const index_t heads = every.shapes[i].heads;
        if (heads < y.at_least || (y.multiple > 1 && heads % y.multiple != 0)) continue;
        some.shapes.push_back(every.shapes[i]);
        some.losses.push_back(every.losses[i]);
    }
    return {some.choices(y.numbers.cost), some};
}

/// The maps of the heads that the mask keeps.
inline std::vector<head_maps> maps_of(const std::vector<projection>& all,
                                      const std::vector<std::uint8_t>& mask) {
    std::vector<head_maps> kept;
    for (std::size_t h = 0; h < mask.size(); ++h)
        if (mask[h]) kept.push_back(all[h]);
    return kept;
}

} // namespace detail

/// Which units to keep, and of how many numbers heads, with at most `share` of what all of them cost,
/// for the least sum of losses. Without `numbers` heads stay whole. Throws value_error if no widths
/// within the constraints cost so little, and shape_error for losses of another model.
template <class Model>
prune_plan plan(Model& model, const std::vector<loss_curve>& curves, double share,
                const number_losses& numbers = {}) {
    const index_t count = model.sublayers();
    const auto fits = [&](const auto& all) {
        return all.empty() || static_cast<index_t>(all.size()) == count;
    };
    if (static_cast<index_t>(curves.size()) != count || !fits(numbers.queries) ||
        !fits(numbers.values))
        detail::fail<shape_error>("prune", curves.size(), " curves, ", numbers.queries.size(),
                                  " of queries and ", numbers.values.size(),
                                  " of values, the model has ", count, " sublayers");
    prune_plan found;
    std::vector<detail::sublayer_choices> choices;
    std::vector<std::vector<prunable>> groups; // sublayers that are equally wide
    std::vector<std::size_t> group_of;
    std::vector<std::pair<index_t, std::size_t>> ties;
    for (index_t s = 0; s < count; ++s) {
        const auto y = detail::described(model, s);
        const auto at = static_cast<std::size_t>(s);
        const loss_curve& curve = curves[at];
        if (curve.units() != y.units())
            detail::fail<shape_error>("prune", "a curve of ", curve.units(), " units, sublayer ", s,
                                      " has ", y.units());
        const auto same = std::find_if(ties.begin(), ties.end(), [&](const auto& tie) {
            return y.tied >= 0 && tie.first == y.tied;
        });
        group_of.push_back(same != ties.end() ? same->second : groups.size());
        if (same == ties.end()) {
            if (y.tied >= 0) ties.emplace_back(y.tied, groups.size());
            groups.emplace_back();
        }
        choices.push_back(detail::choices_of(y, curve, numbers, at));
        groups[group_of.back()].push_back(choices.back().all);
        found.dense_cost += y.cost(y.units());
    }
    std::vector<prunable> all;
    for (const auto& group : groups) all.push_back(tied(group));
    const double budget = share * found.dense_cost;
    const width_search search(all, budget);
    const width_choice best = search.best(budget);
    if (!best.feasible)
        detail::fail<value_error>("prune", "a share of ", share, " allows ", budget,
                                  ", the least that sublayers can cost is ", best.cost);
    for (index_t s = 0; s < count; ++s) {
        const auto at = static_cast<std::size_t>(s);
        const detail::sublayer_choices& of = choices[at];
        const index_t chosen = best.kept[group_of[at]];
        found.masks.push_back(curves[at].mask(of.units(chosen)));
        found.losses.push_back(of.loss(chosen));
        if (numbers.queries.empty() && numbers.values.empty()) continue;
        narrow_heads heads;
        if (!of.shapes.shapes.empty()) {
            const head_shape& whole = of.shapes.shapes.back();
            heads.shape = of.shapes.shapes[static_cast<std::size_t>(chosen)];
            const auto kept = static_cast<std::size_t>(heads.shape.heads);
            if (kept > 0 && heads.shape.queries < whole.queries)
                heads.queries = detail::maps_of(numbers.queries[at], found.masks.back());
            if (kept > 0 && heads.shape.values < whole.values)
                heads.values = numbers.values[at][kept].heads;
        }
        found.heads.push_back(std::move(heads));
    }
    found.cost = best.cost;
    found.loss = best.loss;
    found.bound = search.bound(budget);
    return found;
}

} // namespace PARE_ISA
} // namespace pare
