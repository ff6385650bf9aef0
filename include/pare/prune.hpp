// The structure flow over a model that is not ours: which heads and filters to keep within a budget,
// by statistics of calibration text; their removal; and new weights for what reads the kept ones.
// prune/model.hpp says what a model is asked for.
#pragma once

#include "class_gradients.hpp"
#include "prune/plan.hpp"
#include "prune/refit.hpp"
#include "prune/statistics.hpp"
#include "rearrange.hpp"

#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What says which units to keep.
enum class prune_criterion {
    surgeon, ///< what least squares can make up for, weighed by gradients if the model has them
    forward, ///< the same without them, though the model has them: sooner, and mostly worse
    fisher ///< the paper's: the masks' Fisher information, rearranged. Needs backward() and offsets()
};

/// What pare::prune is asked for.
struct prune_options {
    double share = 0.5; ///< of what all units cost, at most
    prune_criterion criterion = prune_criterion::surgeon;
    std::vector<double> ridges = {1e-1, 1e-2, 1e-3}; ///< see refit_options
    prune_callback callback = {};
};

/// What pare::prune has done.
struct prune_report {
    bool finished = false; ///< or ended by the callback: then the pruned model is of no use
    prune_plan plan;
    std::vector<refit_report> refits;
};

/// The report as lines for a terminal, a sublayer each.
inline std::string to_string(const prune_report& report) {
    std::string text =
        "sublayer        kept   loss expected   error before    after    ridge  seconds\n";
    char line[120];
    for (std::size_t s = 0; s < report.refits.size(); ++s) {
        const refit_report& r = report.refits[s];
        const double percent = r.fit.variance > 0 ? 100 / r.fit.variance : 0;
        std::snprintf(line, sizeof line,
                      "%8zu %5td of %-5td %12.3g %11.2f %% %6.2f %% %8.0e %8.2f\n", s, r.kept,
                      r.units, report.plan.losses[s], percent * r.fit.error_before,
                      percent * r.fit.error_after, r.ridge, r.seconds);
        text += line;
        if (!r.fit) text += "         not fitted: " + r.fit.failure + "\n";
        if (report.plan.heads.empty()) continue;
        const narrow_heads& heads = report.plan.heads[s];
        if (!heads.narrower()) continue;
        std::snprintf(line, sizeof line, "         queries of %td numbers, values of %td\n",
                      heads.shape.queries, heads.shape.values);
        text += line;
    }
    std::snprintf(line, sizeof line,
                  "cost %.4g of %.4g, loss %.4g, no choice of this cost below %.4g\n",
                  report.plan.cost, report.plan.dense_cost, report.plan.loss, report.plan.bound);
    return text + line;
}

/// The whole flow: collect, elimination_curves and number_curves (or collect_fisher and, behind the plan,
/// rearrange), plan, refit. `pruned` is a copy of `dense`, and gets smaller; `dense` stays as it is.
/// `host` is a policy of the host's, for elimination, where `policy` is not. Throws what those do.
template <class Policy, class Host, class Model>
prune_report prune(const Policy& policy, const Host& host, Model& dense, Model& pruned,
                   const prune_options& options = {}) {
    prune_report report;
    auto statistics = options.criterion == prune_criterion::forward
                          ? collect_forward(policy, dense, {0, 1}, options.callback)
                          : collect(policy, dense, {0, 1}, options.callback);
    if (!statistics) return report;
    if (options.criterion != prune_criterion::fisher) {
        const auto curves = elimination_curves(host, dense, *statistics, options.callback);
        if (!curves) return report;
        const auto numbers = number_curves(host, dense, *statistics, *curves, options.callback);
        if (!numbers) return report;
        report.plan = plan(dense, *curves, options.share, *numbers);
    } else if constexpr (detail::has<detail::has_samples, Model>::value) {
        auto fishers = collect_fisher(policy, dense, {fisher_kind::block, true, options.callback});
        if (!fishers) return report;
        std::vector<loss_curve> curves;
        for (const fisher<>& f : *fishers) curves.push_back(sorted_losses(f.diagonal()));
        report.plan = plan(dense, curves, options.share);
        for (std::size_t s = 0; s < fishers->size(); ++s)
            rearrange(host, (*fishers)[s].block_sums(), report.plan.masks[s]);
    } else {
        detail::fail<value_error>("prune",
                                  "Fisher information needs a model with `backward` and `offsets`");
    }
    for (sublayer_statistics& of : *statistics) of.drop_sums();
    auto refits = refit(policy, dense, pruned, report.plan, *statistics,
                        {options.ridges, false, options.callback});
    if (!refits) return report;
    report.refits = std::move(*refits);
    report.finished = true;
    return report;
}
template <class Policy, class Model>
prune_report prune(const Policy& policy, Model& dense, Model& pruned,
                   const prune_options& options = {}) {
    return prune(policy, policy, dense, pruned, options);
}

} // namespace PARE_ISA
} // namespace pare
