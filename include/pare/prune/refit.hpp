// The removal of a plan's units, and new weights for what reads the others.
#pragma once

#include "../gather.hpp"
#include "../shrink.hpp"
#include "../tune.hpp"
#include "plan.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What refitting a sublayer gave.
struct refit_report {
    index_t kept = 0, units = 0;
    tune_result fit;
    double ridge = 0, seconds = 0;
};

/// How refit fits.
struct refit_options {
    /// Shares of the mean variance; of several, each sublayer takes the one that loses least on every
    /// fifth batch when it is fitted on the others, if there are so many.
    std::vector<double> ridges = {1e-1, 1e-2, 1e-3};
    bool scales =
        false; ///< one for each unit kept (pare::scale), instead of new weights and biases
    prune_callback callback = {};
};

namespace detail {

struct squared_difference {
    template <class V>
    constexpr V operator()(const V& a, const V& b) const {
        return (a - b) * (a - b);
    }
};

/// All numbers of rows that lie one behind another.
template <class T>
view<T, 1> flat(const view<T, 2>& x) {
    const bool rows = x.extent(1) <= 1 || x.stride(1) == 1;
    if (!rows || (x.extent(0) > 1 && x.stride(0) != x.extent(1)))
        fail<shape_error>("prune", "rows of the stream have strides ", x.stride(0), " and ",
                          x.stride(1), ", expected ", x.extent(1), " and 1");
    return {x.data_handle(), {x.size()}, {1}};
}

/// Weights of a sublayer's tokens, in the order of the text; of those behind the statistics' 1.
class weights_of_tokens {
  public:
    explicit weights_of_tokens(const sublayer_statistics& statistics) {
        if (statistics.batches != static_cast<index_t>(statistics.squares.size()))
            fail<value_error>("prune", "statistics of ", statistics.batches, " of ",
                              statistics.squares.size(),
                              " batches: merge those of all parts before refitting");
        for (const auto& squares : statistics.squares)
            weights_.insert(weights_.end(), squares.begin(), squares.end());
        const double typical = mean_of(weights_);
        if (!(typical > 0)) weights_.clear();
        for (float& w : weights_) w = token_weight(w, typical);
    }
    weights_of_tokens() = default;

    /// Of the next tokens; none if all weigh the same.
    std::vector<float> next(index_t count) {
        if (weights_.empty()) return {};
        std::vector<float> some(static_cast<std::size_t>(count), 1.0f);
        for (float& w : some)
            if (at_ < weights_.size()) w = weights_[at_++];
        return some;
    }

  private:
    std::vector<float> weights_;
    std::size_t at_ = 0;
};

/// Fits the sublayer by statistics, or says why not.
template <class Policy, class T>
tune_result fit_sublayer(const Policy& policy, const least_squares& statistics,
                         const sublayer<T>& y, bool scales, double ridge) {
    if (!scales) return reconstruct(policy, statistics, y.weight, y.bias, ridge);
    std::vector<double> of_units(static_cast<std::size_t>(y.units()));
    return scale(policy, statistics, y.unit, y.weight, y.bias, of_units, ridge);
}

/// The ridge that loses least on held-out rows, `fit` and `held` being the statistics of the others
/// and of those: one factorisation each.
template <class Policy, class T>
double best_ridge(const Policy& policy, const least_squares& fit, const least_squares& held,
                  const sublayer<T>& y, const refit_options& options) {
    const std::vector<double>& ridges = options.ridges;
    if (ridges.size() == 1 || held.tokens() == 0 || fit.tokens() == 0) return ridges.front();
    double best = ridges.front(), least = -1;
    for (const double ridge : ridges) {
        tuned_layer layer("prune", fit, y.weight, y.bias, ridge);
        Eigen::VectorXd of_units(y.units());
        if (!(options.scales ? layer.scale(policy, fit, y.unit, ridge, of_units)
                             : layer.reconstruct(policy, fit, ridge)))
            continue;
        const double error = layer.error(held);
        if (least >= 0 && error >= least) continue;
        least = error;
        best = ridge;
    }
    return best;
}

/// What is left of `dense`'s units of the sublayer, on the same stream, against what `pruned` has:
/// of some rows, since what is wrong with units is wrong in all. Of units that were made anew, the
/// extents.
template <class Policy, class Model>
void check_removal(const Policy& policy, Model& dense, Model& pruned, index_t s,
                   const std::vector<std::uint8_t>& mask, index_t unit, bool changed,
                   stream_of<Model>& x) {
    using T = number_of<Model>;
    const auto y = described(pruned, s);
    const std::vector<index_t> columns = kept_positions(mask, unit);
    const auto kept = static_cast<index_t>(columns.size());
    const index_t tokens = dense.rows(x).extent(0), outputs = dense.rows(x).extent(1);
    if (y.weight.extent(0) != outputs || y.weight.extent(1) != kept || (kept > 0 && y.unit != unit))
        fail<value_error>("prune", "sublayer ", s, " was to be left a weight of ", outputs, " x ",
                          kept, " with units of ", unit, " and has ", y.weight.extent(0), " x ",
                          y.weight.extent(1), " with units of ", y.unit);
    const auto found = as_input<2>(policy, pruned.units(s, x));
    check_extents("kept units", s, found, tokens, kept);
    const index_t some = std::min<index_t>(tokens, 256);
    const auto first_rows = [&](view<const T, 2> of) {
        return view<const T, 2>(of.data_handle(), {some, of.extent(1)},
                                {of.stride(0), of.stride(1)});
    };
    if (some * kept == 0 || changed) return;
    workspace of_expected, of_columns;
    const auto memory = policy.template temporary<T>(of_expected, some * kept);
    const auto positions = policy.template temporary<index_t>(of_columns, kept);
    copy_to_policy(policy, columns, positions.data());
    const view<T, 2> expected(memory.data(), some, kept);
    const auto units = as_input<2>(policy, dense.units(s, x));
    check_extents("units", s, units, tokens, static_cast<index_t>(mask.size()) * y.unit);
    policy.gather_columns(first_rows(units), positions.data(), expected);
    const auto sum = [](const std::vector<double>& parts) {
        return std::accumulate(parts.begin(), parts.end(), 0.0);
    };
    const double off = sum(
        column_sums(policy, squared_difference{}, first_rows(found), view<const T, 2>(expected)));
    const double all = sum(column_sums(policy, ops::square{}, view<const T, 2>(expected)));
    if (!(off <= 1e-4 * all))
        fail<value_error>("prune", "what keep(", s,
                          ") left gives other values than the same units "
                          "of the dense model: a squared difference of ",
                          off, " of ", all);
}

} // namespace detail

/// Removes the plan's units from `pruned`, which is a copy of `dense`, sublayer by sublayer, makes heads
/// of as many numbers as the plan says, and fits W and b of what stays anew: the pruned network's stream
/// follows the dense one's, which runs beside it on the same text.
///
/// statistics  of `collect`, for what tokens weigh, or {}: all the same. Its text may have come in
///             other batches, and have ended earlier: tokens behind it weigh 1
///
/// None if the callback ended it: then `pruned` is of no use. A sublayer that cannot be fitted keeps
/// its weights, and its report says why. Throws shape_error, and value_error for a `keep` that leaves
/// other units than it should or a `narrow` that leaves other numbers of them, which the first batch
/// shows, and for statistics of which parts are missing. Memory: the streams of all batches, twice, and
/// the statistics of one sublayer; of activations, one sublayer's of one batch.
template <class Policy, class Model>
std::optional<std::vector<refit_report>>
refit(const Policy& policy, Model& dense, Model& pruned, const prune_plan& chosen,
      const std::vector<sublayer_statistics>& statistics = {}, const refit_options& options = {}) {
    using T = detail::number_of<Model>;
    using stream = detail::stream_of<Model>;
    const index_t sublayers = dense.sublayers(), batches = dense.batches();
    if (static_cast<index_t>(chosen.masks.size()) != sublayers || options.ridges.empty() ||
        (!chosen.changed.empty() && chosen.changed.size() != chosen.masks.size()) ||
        (!chosen.heads.empty() && chosen.heads.size() != chosen.masks.size()) ||
        (!statistics.empty() && static_cast<index_t>(statistics.size()) != sublayers))
        detail::fail<shape_error>("prune", "a plan of ", chosen.masks.size(), " sublayers and ",
                                  statistics.size(), " statistics, the model has ", sublayers, "; ",
                                  options.ridges.size(), " ridges");
    std::vector<stream> in_dense, in_pruned;
    for (index_t b = 0; b < batches; ++b) {
        in_dense.push_back(dense.start(b));
        in_pruned.push_back(in_dense.back());
    }
    std::vector<refit_report> reports;
    workspace scratch;
    for (index_t s = 0; s < sublayers; ++s) {
        const auto begin = std::chrono::steady_clock::now();
        const auto at = static_cast<std::size_t>(s);
        const std::vector<std::uint8_t>& mask = chosen.masks[at];
        const bool narrower = !chosen.heads.empty() && chosen.heads[at].narrower();
        const auto check = [&](index_t unit, bool changed) {
            if (batches > 0)
                detail::check_removal(policy, dense, pruned, s, mask, unit, changed,
                                      in_pruned.front());
        };
        const bool changed = !chosen.changed.empty() && chosen.changed[at];
        const index_t unit = detail::described(dense, s).unit;
        pruned.keep(s, mask);
        if (!narrower) {
            check(changed ? detail::described(pruned, s).unit : unit, changed);
        } else if constexpr (detail::has<detail::can_narrow, Model>::value) {
            check(unit, false);
            pruned.narrow(s, chosen.heads[at]);
            check(chosen.heads[at].values.empty() ? unit : chosen.heads[at].shape.values, true);
        } else {
            detail::fail<value_error>("prune", "the plan makes heads of sublayer ", s,
                                      " of fewer numbers; the model has no `narrow`");
        }
        const auto y = detail::described(pruned, s);
        const index_t inputs = y.weight.extent(1), outputs = y.weight.extent(0);
        const bool holds_out = options.ridges.size() > 1 && batches >= 5;
        least_squares fit(inputs, outputs);
        least_squares held(holds_out ? inputs : 0, holds_out ? outputs : 0);
        auto weights = statistics.empty() ? detail::weights_of_tokens()
                                          : detail::weights_of_tokens(statistics[at]);
        for (index_t b = 0; b < batches; ++b) {
            if (!detail::goes_on(options.callback,
                                 {prune_progress::refit, s * batches + b, sublayers * batches}))
                return std::nullopt;
            const auto of_batch = static_cast<std::size_t>(b);
            stream &x = in_dense[of_batch], &kept_x = in_pruned[of_batch];
            dense.add(s, dense.units(s, x), x);
            const view<const T, 2> sums = dense.rows(x), residual = pruned.rows(kept_x);
            detail::check_extents("sums", s, sums, residual.extent(0), outputs);
            const auto memory = policy.template temporary<T>(scratch, sums.size());
            const view<T, 2> target(memory.data(), sums.extent(0), outputs);
            policy.transform(ops::difference{}, detail::flat(target), detail::flat(sums),
                             detail::flat(residual));
            detail::add_weighted(policy, pruned.units(s, kept_x), view<const T, 2>(target),
                                 weights.next(sums.extent(0)),
                                 holds_out && b % 5 == 4 ? held : fit);
            detail::normalize(dense, s, x);
        }
        refit_report report;
        report.kept = y.units();
        report.units = static_cast<index_t>(mask.size());
        report.ridge = detail::best_ridge(policy, fit, held, y, options);
        if (holds_out) fit.merge(held);
        report.fit = detail::fit_sublayer(policy, fit, y, options.scales, report.ridge);
        detail::tell(pruned, s);
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

} // namespace PARE_ISA
} // namespace pare
