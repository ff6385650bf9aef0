// The structure flow over a model that is not ours: which heads and filters to keep within a budget,
// by statistics of calibration text; their removal; and new weights for what reads the kept ones.
//
// A model has sublayers, one after another along a residual stream: a matrix W, with a bias b or
// none, reads the values of units, heads or filters, and what it gives is added to the stream. What
// only the model knows it says by members, whatever its class:
//
//     index_t sublayers()                 how many there are, in the order in which they run
//     sublayer<T> describe(s)             sublayer s: W, b and what its units cost
//     index_t batches()                   of calibration text
//     stream start(batch)                 the stream that comes into sublayer 0: a type of the
//                                         model's own, which can be copied
//     view<T, 2> rows(stream&)            its rows [tokens x outputs of W], one behind another
//     view<const T, 2> units(s, stream&)  what W reads [tokens x inputs of W], until the next call
//     void add(s, units, stream&)         rows += units W' + b
//     void keep(s, mask)                  removes the units whose mask is 0, for good
//
// and may have
//
//     void normalize(s, stream&)          what is done to that sum before the next sublayer reads it
//     void backward(batch, visit)         a forward and a backward pass, which calls visit(s, units,
//                                         at_units, at_sum) once for each sublayer, in any order:
//                                         units as above, and the gradients at them and at the sum
//     offsets(batch)                      of the sequences in the batch's tokens, for collect_fisher
//     void changed(s)                     W and b have new numbers
//
// Activations, gradients and offsets are in the policy's memory, W and b in the host's. The loss of
// `backward` need not know targets: what makes its squared gradients the metric in which the model's
// outputs differ are, at logits, probabilities less a class that is drawn from them
// (draw_class_gradients), and at embeddings numbers that are drawn from a normal distribution.
#pragma once

#include "eliminate.hpp"
#include "fisher.hpp"
#include "least_squares.hpp"
#include "search.hpp"
#include "shrink.hpp"
#include "tune.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// A sublayer of a model, as it is now.
template <class T>
struct sublayer {
    view<T, 2> weight; ///< W [outputs x inputs]; the transposed view of one stored in x out
    view<T, 1> bias;   ///< b [outputs], or a view of nothing
    index_t unit = 1;  ///< inputs of one unit, side by side: head size, or 1 for filters
    cost_table cost;   ///< of units kept, in any measure that is the same in all sublayers
    index_t multiple = 1, at_least = 1; ///< of units kept
    /// Sublayers of one number >= 0 keep equally many units.
    index_t tied = -1;

    index_t units() const { return weight.extent(1) / unit; }
};

/// What calibration text says of one sublayer; mergeable.
struct sublayer_statistics {
    least_squares inputs; ///< of the units' values, each token by its weight
    gram<double> metric;  ///< of the gradients at the sums; no rows without a backward pass
    least_squares sums;   ///< of the sums, as outputs of no inputs; no rows with a backward pass
    /// [batch][token] the squared length of the gradient at the sum; empty where another process
    /// has the batch.
    std::vector<std::vector<float>> squares;

    /// Throws shape_error for a negative number.
    sublayer_statistics(index_t columns, index_t outputs)
        : inputs(columns, 0), metric(outputs), sums(0, outputs) {}

    /// Adds what another process has seen of the same sublayer. Throws shape_error.
    void merge(const sublayer_statistics& other) {
        inputs.merge(other.inputs);
        metric.merge(other.metric);
        sums.merge(other.sums);
        squares.resize(std::max(squares.size(), other.squares.size()));
        for (std::size_t b = 0; b < other.squares.size(); ++b)
            if (squares[b].empty()) squares[b] = other.squares[b];
    }
};

/// What a run is at, for a callback.
struct prune_progress {
    enum stage { statistics, elimination, refit } at;
    index_t done, all; ///< steps of the stage
};

/// Called before each step; a stage ends where it returns false.
using prune_callback = std::function<bool(const prune_progress&)>;

/// How many units each sublayer keeps, and which.
struct prune_plan {
    std::vector<std::vector<std::uint8_t>> masks; ///< [sublayer][unit], 1 for those kept
    std::vector<double> losses;                   ///< of each sublayer, by the criterion
    double cost = 0, dense_cost = 0;              ///< of the units kept, and of all
    double loss = 0, bound = 0; ///< the sum; no choice within the budget loses less than bound
};

/// What refitting a sublayer gave.
struct refit_report {
    tune_result fit;
    double ridge = 0, seconds = 0;
};

namespace detail {

template <class Model>
using stream_of = std::decay_t<decltype(std::declval<Model&>().start(index_t{}))>;
template <class Model>
using number_of =
    typename decltype(std::declval<Model&>().rows(std::declval<stream_of<Model>&>()))::value_type;

struct ignore {
    template <class... Views>
    void operator()(index_t, const Views&...) const {}
};
template <class Model>
using can_normalize =
    decltype(std::declval<Model&>().normalize(index_t{}, std::declval<stream_of<Model>&>()));
template <class Model>
using can_run_backwards = decltype(std::declval<Model&>().backward(index_t{}, ignore{}));
template <class Model>
using is_told = decltype(std::declval<Model&>().changed(index_t{}));

template <class Model>
void normalize(Model& model, index_t s, stream_of<Model>& x) {
    if constexpr (has<can_normalize, Model>::value) model.normalize(s, x);
}

/// describe(s), checked.
template <class Model>
auto described(Model& model, index_t s) {
    const auto y = model.describe(s);
    const index_t outputs = y.weight.extent(0), inputs = y.weight.extent(1);
    const index_t biases = y.bias.extent(0);
    if (y.unit < 1 || inputs % y.unit != 0 || (biases != 0 && biases != outputs) ||
        y.cost.units() != inputs / y.unit)
        fail<shape_error>("prune", "sublayer ", s, " has a weight of ", outputs, " x ", inputs,
                          ", units of ", y.unit, ", ", biases, " biases and costs of ",
                          y.cost.units(), " units");
    return y;
}
template <class X>
void check_extents(const char* what, index_t s, const X& x, index_t rows, index_t columns) {
    if (x.extent(0) != rows || x.extent(1) != columns)
        fail<shape_error>("prune", what, " of sublayer ", s, " are ", x.extent(0), " x ",
                          x.extent(1), ", expected ", rows, " x ", columns);
}

template <class T>
view<T, 2> transposed(const view<T, 2>& x) {
    return {x.data_handle(), {x.extent(1), x.extent(0)}, {x.stride(1), x.stride(0)}};
}
/// All numbers of rows that lie one behind another.
template <class T>
view<T, 1> flat(const view<T, 2>& x) {
    const bool rows = x.extent(1) <= 1 || x.stride(1) == 1;
    if (!rows || (x.extent(0) > 1 && x.stride(0) != x.extent(1)))
        fail<shape_error>("prune", "rows of the stream have strides ", x.stride(0), " and ",
                          x.stride(1), ", expected ", x.extent(1), " and 1");
    return {x.data_handle(), {x.size()}, {1}};
}

struct squared_difference {
    template <class V>
    constexpr V operator()(const V& a, const V& b) const {
        return (a - b) * (a - b);
    }
};

template <class T>
double mean_of(const std::vector<T>& numbers) {
    double sum = 0;
    for (const T x : numbers) sum += static_cast<double>(x);
    return sum / static_cast<double>(std::max<std::size_t>(1, numbers.size()));
}
/// What tokens weigh: as their squared gradients over what is typical, and a little for all.
inline std::vector<float> token_weights(const std::vector<float>& squares, double typical) {
    constexpr double for_all = 0.05;
    std::vector<float> weights(squares.size());
    for (std::size_t t = 0; t < weights.size(); ++t)
        weights[t] = static_cast<float>(for_all + (1 - for_all) * static_cast<double>(squares[t]) /
                                                      std::max(typical, 1e-30));
    return weights;
}

/// Adds rows to statistics, each by its weight, or 1 where there are no weights.
template <class Policy, class X, class Y>
void add_weighted(const Policy& policy, const X& x, const Y& y, const std::vector<float>& weights,
                  least_squares& statistics) {
    if (weights.empty()) return statistics.add(policy, x, y);
    if constexpr (Policy::on_host) {
        statistics.add(policy, x, y, weights);
    } else {
        const auto count = static_cast<index_t>(weights.size());
        const auto memory = policy.template temporary<float>(count);
        policy.copy_from_host(weights.data(), count, memory.data());
        statistics.add(policy, x, y, view<const float, 1>(memory.data(), count));
    }
}

inline bool goes_on(const prune_callback& callback, const prune_progress& at) {
    return !callback || callback(at);
}

} // namespace detail

/// Passes over the calibration text: one forward and one backward pass, or, of a model without
/// `backward`, forward passes alone. None if the callback ended it. Keep what it gives for other
/// budgets.
///
/// share  this process's part of the batches, every nth; merge what all parts find, in any order.
///        Tokens weigh by their squared gradients over those of batch 0, which every part runs
///
/// Throws shape_error for members that give other shapes than they should, and value_error for a
/// share that there is not and for numbers that are not finite. Memory: 8 bytes * (inputs^2 + outputs^2) a sublayer, and 4 bytes *
/// tokens; of activations, what the model holds of a batch.
template <class Policy, class Model>
std::optional<std::vector<sublayer_statistics>> collect(const Policy& policy, Model& model,
                                                        part share = {0, 1},
                                                        const prune_callback& callback = {}) {
    using T = detail::number_of<Model>;
    share.check();
    std::vector<sublayer_statistics> all;
    const index_t sublayers = model.sublayers(), batches = model.batches();
    for (index_t s = 0; s < sublayers; ++s) {
        const auto y = detail::described(model, s);
        all.emplace_back(y.weight.extent(1), y.weight.extent(0));
        all.back().squares.resize(static_cast<std::size_t>(batches));
    }
    std::vector<double> typical(all.size(), 0.0);
    // As many rows without columns.
    const auto none = [](const auto& x) {
        return view<const T, 2>(x.data_handle(), {x.extent(0), 0}, {0, 1});
    };
    const auto add_backward = [&](auto& backwards, index_t b, bool counts) {
        backwards.backward(b, [&](index_t s, const auto& units, const auto&, const auto& at_sum) {
            const auto at = static_cast<std::size_t>(s);
            sublayer_statistics& to = all[at];
            detail::check_extents("units", s, units, units.extent(0), to.inputs.inputs());
            detail::check_extents("gradients", s, at_sum, units.extent(0), to.sums.outputs());
            const auto gradients = as_input<2>(policy, at_sum);
            const std::vector<double> squares =
                detail::column_sums(policy, ops::square{}, detail::transposed<const T>(gradients));
            if (b == 0) typical[at] = detail::mean_of(squares);
            if (!counts) return;
            std::vector<float>& kept = to.squares[static_cast<std::size_t>(b)];
            kept.assign(squares.begin(), squares.end());
            to.metric.add(policy, at_sum);
            detail::add_weighted(policy, units, none(units),
                                 detail::token_weights(kept, typical[at]), to.inputs);
        });
    };
    const auto add_forward = [&](index_t b) {
        auto x = model.start(b);
        for (index_t s = 0; s < sublayers; ++s) {
            sublayer_statistics& to = all[static_cast<std::size_t>(s)];
            const view<const T, 2> units = model.units(s, x);
            detail::check_extents("units", s, units, model.rows(x).extent(0), to.inputs.inputs());
            to.inputs.add(policy, units, none(units));
            model.add(s, units, x);
            const view<const T, 2> sums = model.rows(x);
            detail::check_extents("sums", s, sums, units.extent(0), to.sums.outputs());
            to.sums.add(policy, none(sums), sums);
            detail::normalize(model, s, x);
        }
    };
    for (index_t b = 0; b < batches; ++b) {
        const bool counts = b % share.nth == share.ith;
        if (!counts && b > 0) continue;
        if (!detail::goes_on(callback, {prune_progress::statistics, b, batches}))
            return std::nullopt;
        if constexpr (detail::has<detail::can_run_backwards, Model>::value)
            add_backward(model, b, counts);
        else if (counts)
            add_forward(b);
    }
    return all;
}

/// The paper's statistics instead: the Fisher information of the masks of units, a sample being a
/// sequence. Needs `backward` and `offsets`. Turn them into curves by sorted_losses of their
/// diagonals, and improve a plan's masks by pare::rearrange of their blocks.
template <class Policy, class Model>
std::optional<std::vector<fisher<>>> collect_fisher(const Policy& policy, Model& model,
                                                    fisher_kind kind = fisher_kind::diagonal,
                                                    const prune_callback& callback = {}) {
    using T = detail::number_of<Model>;
    std::vector<fisher<>> all;
    std::vector<index_t> unit;
    for (index_t s = 0; s < model.sublayers(); ++s) {
        const auto y = detail::described(model, s);
        all.emplace_back(y.units(), kind);
        unit.push_back(y.unit);
    }
    workspace scratch;
    const index_t batches = model.batches();
    for (index_t b = 0; b < batches; ++b) {
        if (!detail::goes_on(callback, {prune_progress::statistics, b, batches}))
            return std::nullopt;
        const auto& offsets = model.offsets(b);
        const index_t samples = as_input<1>(offsets).extent(0) - 1;
        model.backward(b, [&](index_t s, const auto& units, const auto& at_units, const auto&) {
            const auto at = static_cast<std::size_t>(s);
            fisher<>& to = all[at];
            const auto memory = policy.template temporary<T>(scratch, samples * to.units());
            const view<T, 2> gradients(memory.data(), samples, to.units());
            pare::mask_gradients(policy, units, at_units, offsets, unit[at], gradients);
            to.add(policy, gradients);
        });
    }
    return all;
}

/// The order in which least squares can do without each sublayer's units, in the metric of the
/// gradients; without those, of what it loses of the stream's variance. `policy` is one of the
/// host's. Less than all, if the callback ended it. Throws as pare::eliminate does.
template <class Policy, class Model>
std::vector<loss_curve> elimination_curves(const Policy& policy, Model& model,
                                           const std::vector<sublayer_statistics>& statistics,
                                           const prune_callback& callback = {}) {
    using square = detail::row_major;
    std::vector<loss_curve> curves;
    const auto count = static_cast<index_t>(statistics.size());
    if (count != model.sublayers())
        detail::fail<shape_error>("prune", "statistics of ", count, " sublayers, the model has ",
                                  model.sublayers());
    for (index_t s = 0; s < count; ++s) {
        if (!detail::goes_on(callback, {prune_progress::elimination, s, count})) break;
        const auto y = detail::described(model, s);
        const sublayer_statistics& seen = statistics[static_cast<std::size_t>(s)];
        const view<const double, 2> sums = seen.metric.lower();
        square metric;
        if (seen.metric.rows() > 0)
            metric = Eigen::Map<const square>(sums.data_handle(), sums.extent(0), sums.extent(1)) /
                     static_cast<double>(seen.metric.rows());
        const bool biased = y.bias.extent(0) > 0;
        curves.push_back(eliminate(policy,
                                   biased ? seen.inputs.covariance() : seen.inputs.moment_xx(),
                                   metric, y.weight, y.unit));
        const double variance = seen.sums.variance_y();
        if (seen.metric.rows() == 0 && variance > 0)
            for (double& loss : curves.back().loss) loss /= variance;
    }
    return curves;
}

/// Which units to keep with at most `share` of what all of them cost, for the least sum of losses.
/// Throws value_error if no widths within the constraints cost so little.
template <class Model>
prune_plan plan(Model& model, const std::vector<loss_curve>& curves, double share) {
    const index_t count = model.sublayers();
    if (static_cast<index_t>(curves.size()) != count)
        detail::fail<shape_error>("prune", curves.size(), " curves, the model has ", count,
                                  " sublayers");
    prune_plan found;
    std::vector<std::vector<prunable>> groups; // sublayers that are equally wide
    std::vector<std::size_t> group_of;
    std::vector<std::pair<index_t, std::size_t>> ties;
    for (index_t s = 0; s < count; ++s) {
        const auto y = detail::described(model, s);
        const loss_curve& curve = curves[static_cast<std::size_t>(s)];
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
        groups[group_of.back()].push_back({curve.loss, y.cost, y.multiple, y.at_least});
        found.dense_cost += y.cost(y.units());
    }
    std::vector<prunable> choices;
    for (const auto& group : groups) choices.push_back(tied(group));
    const double budget = share * found.dense_cost;
    const width_search search(choices, budget);
    const width_choice best = search.best(budget);
    if (!best.feasible)
        detail::fail<value_error>("prune", "a share of ", share, " allows ", budget,
                                  ", the least that sublayers can cost is ", best.cost);
    for (index_t s = 0; s < count; ++s) {
        const loss_curve& curve = curves[static_cast<std::size_t>(s)];
        const index_t kept = best.kept[group_of[static_cast<std::size_t>(s)]];
        found.masks.push_back(curve.mask(kept));
        found.losses.push_back(curve.loss[static_cast<std::size_t>(curve.units() - kept)]);
    }
    found.cost = best.cost;
    found.loss = best.loss;
    found.bound = search.bound(budget);
    return found;
}

namespace detail {

/// The ridge that loses least on held-out rows, `fit` and `held` being the statistics of the others
/// and of those: one factorisation each.
template <class Policy, class W, class B>
double best_ridge(const Policy& policy, const least_squares& fit, const least_squares& held,
                  const W& weight, const B& bias, const std::vector<double>& ridges) {
    if (ridges.size() == 1 || held.tokens() == 0 || fit.tokens() == 0) return ridges.front();
    double best = ridges.front(), least = -1;
    for (const double ridge : ridges) {
        tuned_layer layer("prune", fit, weight, bias, ridge);
        if (!layer.reconstruct(policy, fit, ridge)) continue;
        const double error = layer.error(held);
        if (least >= 0 && error >= least) continue;
        least = error;
        best = ridge;
    }
    return best;
}

/// What is left of `dense`'s units of the sublayer, on the same stream, against what `pruned` has.
template <class Policy, class Model>
void check_removal(const Policy& policy, Model& dense, Model& pruned, index_t s,
                   const std::vector<std::uint8_t>& mask, stream_of<Model>& x) {
    using T = number_of<Model>;
    const auto was = described(dense, s), is = described(pruned, s);
    const std::vector<index_t> columns = kept_positions(mask, was.unit);
    const auto kept = static_cast<index_t>(columns.size());
    if (is.weight.extent(0) != was.weight.extent(0) || is.weight.extent(1) != kept)
        fail<value_error>("prune", "keep(", s, ") was to leave a weight of ", was.weight.extent(0),
                          " x ", kept, " and left ", is.weight.extent(0), " x ",
                          is.weight.extent(1));
    const auto found = as_input<2>(policy, pruned.units(s, x));
    check_extents("kept units", s, found, dense.rows(x).extent(0), kept);
    if (found.size() == 0) return;
    workspace of_expected, of_columns;
    const auto memory = policy.template temporary<T>(of_expected, found.size());
    const auto positions = policy.template temporary<index_t>(of_columns, kept);
    copy_to_policy(policy, columns, positions.data());
    const view<T, 2> expected(memory.data(), found.extent(0), kept);
    const auto units = as_input<2>(policy, dense.units(s, x));
    policy.gather_columns(view<const T, 2>(units), positions.data(), expected);
    const auto sum = [](const std::vector<double>& parts) {
        return std::accumulate(parts.begin(), parts.end(), 0.0);
    };
    const double off = sum(column_sums(policy, squared_difference{}, view<const T, 2>(found),
                                       view<const T, 2>(expected)));
    const double all = sum(column_sums(policy, ops::square{}, view<const T, 2>(expected)));
    if (!(off <= 1e-4 * all))
        fail<value_error>("prune", "what keep(", s,
                          ") left gives other values than the same units "
                          "of the dense model: a squared difference of ",
                          off, " of ", all);
}

} // namespace detail

/// Removes the plan's units from `pruned`, which is a copy of `dense`, sublayer by sublayer, and fits
/// W and b of those that stay anew: the pruned network's stream follows the dense one's, which runs
/// beside it on the same text.
///
/// statistics  of `collect`, for what tokens weigh, or {}: all the same
/// ridges      shares of the mean variance; of several, each sublayer takes the one that loses least
///             on every fifth batch when it is fitted on the others, if there are so many
///
/// Fewer reports than sublayers, if the callback ended it: then `pruned` is of no use. A sublayer
/// that cannot be fitted keeps its weights, and its report says why. Throws shape_error, and
/// value_error for a `keep` that leaves other units than it should, which the first batch shows.
/// Memory: the streams of all batches, twice, and the statistics of one sublayer; of activations,
/// one sublayer's of one batch.
template <class Policy, class Model>
std::vector<refit_report>
refit(const Policy& policy, Model& dense, Model& pruned, const prune_plan& chosen,
      const std::vector<sublayer_statistics>& statistics = {},
      const std::vector<double>& ridges = {1e-1}, const prune_callback& callback = {}) {
    using T = detail::number_of<Model>;
    using stream = detail::stream_of<Model>;
    const index_t sublayers = dense.sublayers(), batches = dense.batches();
    if (static_cast<index_t>(chosen.masks.size()) != sublayers || ridges.empty() ||
        (!statistics.empty() && static_cast<index_t>(statistics.size()) != sublayers))
        detail::fail<shape_error>("prune", "a plan of ", chosen.masks.size(), " sublayers and ",
                                  statistics.size(), " statistics, the model has ", sublayers, "; ",
                                  ridges.size(), " ridges");
    std::vector<stream> in_dense, in_pruned;
    for (index_t b = 0; b < batches; ++b) {
        in_dense.push_back(dense.start(b));
        in_pruned.push_back(in_dense.back());
    }
    std::vector<refit_report> reports;
    workspace scratch;
    for (index_t s = 0; s < sublayers; ++s) {
        if (!detail::goes_on(callback, {prune_progress::refit, s, sublayers})) break;
        const auto begin = std::chrono::steady_clock::now();
        const auto at = static_cast<std::size_t>(s);
        pruned.keep(s, chosen.masks[at]);
        if (batches > 0)
            detail::check_removal(policy, dense, pruned, s, chosen.masks[at], in_pruned.front());
        const auto y = detail::described(pruned, s);
        const index_t inputs = y.weight.extent(1), outputs = y.weight.extent(0);
        least_squares fit(inputs, outputs), held(inputs, outputs);
        double typical = 0;
        if (!statistics.empty()) {
            double sum = 0, tokens = 0;
            for (const auto& squares : statistics[at].squares) {
                sum += std::accumulate(squares.begin(), squares.end(), 0.0);
                tokens += static_cast<double>(squares.size());
            }
            typical = tokens > 0 ? sum / tokens : 0;
        }
        for (index_t b = 0; b < batches; ++b) {
            const auto of_batch = static_cast<std::size_t>(b);
            stream &x = in_dense[of_batch], &kept_x = in_pruned[of_batch];
            dense.add(s, dense.units(s, x), x);
            const auto sums = as_input<2>(policy, dense.rows(x));
            const auto residual = as_input<2>(policy, pruned.rows(kept_x));
            detail::check_extents("sums", s, sums, residual.extent(0), outputs);
            const auto memory = policy.template temporary<T>(scratch, sums.size());
            const view<T, 2> target(memory.data(), sums.extent(0), outputs);
            policy.transform(ops::difference{}, detail::flat(target), detail::flat<const T>(sums),
                             detail::flat<const T>(residual));
            std::vector<float> weights;
            if (typical > 0 && of_batch < statistics[at].squares.size())
                weights = detail::token_weights(statistics[at].squares[of_batch], typical);
            const bool held_out = ridges.size() > 1 && batches >= 5 && b % 5 == 4;
            detail::add_weighted(policy, pruned.units(s, kept_x), view<const T, 2>(target), weights,
                                 held_out ? held : fit);
            detail::normalize(dense, s, x);
        }
        refit_report report;
        report.ridge = detail::best_ridge(policy, fit, held, y.weight, y.bias, ridges);
        fit.merge(held);
        report.fit = reconstruct(policy, fit, y.weight, y.bias, report.ridge);
        if constexpr (detail::has<detail::is_told, Model>::value) pruned.changed(s);
        for (stream& x : in_pruned) {
            pruned.add(s, pruned.units(s, x), x);
            detail::normalize(pruned, s, x);
        }
        report.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        reports.push_back(std::move(report));
    }
    return reports;
}

/// gradients[t, :] = softmax(logits[t, :]) less 1 at a class that is drawn from it: what a loss without
/// targets has for a gradient, whose squares are the Fisher information of the classes.
///
/// logits, gradients  [tokens x classes], in the host's memory; may be the same
/// seed               what is drawn for a token depends on it and on t alone
///
/// Throws shape_error. NaN goes through.
template <class Logits, class Gradients>
void draw_class_gradients(const Logits& logits, std::uint64_t seed, Gradients&& gradients) {
    const auto x = as_input<2>(logits);
    const auto g = as_view<2>(gradients);
    using T = typename decltype(g)::value_type;
    const index_t classes = x.extent(1);
    if (g.extent(0) != x.extent(0) || g.extent(1) != classes)
        detail::fail<shape_error>("draw_class_gradients", "logits are ", x.extent(0), " x ",
                                  classes, ", gradients ", g.extent(0), " x ", g.extent(1));
    std::vector<double> p(static_cast<std::size_t>(classes));
    for (index_t t = 0; t < x.extent(0) && classes > 0; ++t) {
        double most = static_cast<double>(x(t, 0)), sum = 0;
        for (index_t c = 1; c < classes; ++c) most = std::max(most, static_cast<double>(x(t, c)));
        for (index_t c = 0; c < classes; ++c)
            sum += p[static_cast<std::size_t>(c)] = std::exp(static_cast<double>(x(t, c)) - most);
        // splitmix64 of the token's number: 53 bits of it are a number in [0, 1).
        std::uint64_t bits = seed + (static_cast<std::uint64_t>(t) + 1) * 0x9e3779b97f4a7c15u;
        bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
        bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
        double left = static_cast<double>((bits ^ (bits >> 31)) >> 11) * 0x1p-53 * sum;
        index_t drawn = 0;
        while (drawn < classes - 1 && left >= p[static_cast<std::size_t>(drawn)])
            left -= p[static_cast<std::size_t>(drawn++)];
        for (index_t c = 0; c < classes; ++c)
            g(t, c) = static_cast<T>(p[static_cast<std::size_t>(c)] / sum - (c == drawn ? 1 : 0));
    }
}

struct prune_options {
    double share = 0.5;                              ///< of what all units cost, at most
    std::vector<double> ridges = {1e-1, 1e-2, 1e-3}; ///< see refit
    prune_callback callback = {};
};

struct prune_report {
    bool finished = false; ///< or ended by the callback: then the pruned model is of no use
    prune_plan plan;
    std::vector<refit_report> refits;
};

/// The whole flow: collect, elimination_curves, plan, refit. `pruned` is a copy of `dense`, and gets
/// smaller; `dense` stays as it is. `host` is a policy of the host's, for elimination, where
/// `policy` is not. Throws what those do.
template <class Policy, class Host, class Model>
prune_report prune(const Policy& policy, const Host& host, Model& dense, Model& pruned,
                   const prune_options& options = {}) {
    prune_report report;
    const auto statistics = collect(policy, dense, {0, 1}, options.callback);
    if (!statistics) return report;
    const auto curves = elimination_curves(host, dense, *statistics, options.callback);
    if (curves.size() < statistics->size()) return report;
    report.plan = plan(dense, curves, options.share);
    report.refits =
        refit(policy, dense, pruned, report.plan, *statistics, options.ridges, options.callback);
    report.finished = report.refits.size() == statistics->size();
    return report;
}
template <class Policy, class Model>
prune_report prune(const Policy& policy, Model& dense, Model& pruned,
                   const prune_options& options = {}) {
    return prune(policy, policy, dense, pruned, options);
}

} // namespace PARE_ISA
} // namespace pare
