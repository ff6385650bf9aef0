// A decoder of one's own, pruned: a small GPT-2 is trained on the texts that are named and then
// loses half of what its heads and filters compute, and 70 %, by four criteria.
//
//     09_prune_gpt STEPS TEXT...
#include "decoder/program.hpp"
#include "gpt/prunable.hpp"

#include <pare/policy/simd.hpp>

namespace {

double prune(gpt::prunable& dense, gpt::prunable& pruned, double share) {
    // [example]
    pruned = dense; // gets smaller; the dense one runs beside it
    pare::prune_options options;
    options.share = share; // of the multiply-adds that describe() counts
    pare::prune_report report = pare::prune(pare::simd, dense, pruned, options);
    std::fputs(pare::to_string(report).c_str(), stdout);
    // [example]
    return report.plan.cost / report.plan.dense_cost;
}

/// Squared weights of what reads each unit: who has no text may believe in them.
std::vector<pare::loss_curve> magnitudes(gpt::prunable& m) {
    std::vector<pare::loss_curve> curves;
    for (pare::index_t s = 0; s < m.sublayers(); ++s) {
        const pare::sublayer<float> y = m.describe(s);
        std::vector<double> squares(static_cast<std::size_t>(y.units()));
        for (pare::index_t c = 0; c < y.weight.extent(1); ++c)
            squares[static_cast<std::size_t>(c / y.unit)] +=
                static_cast<double>(m.reader(s).weight.col(c).squaredNorm());
        curves.push_back(pare::sorted_losses(squares));
    }
    return curves;
}

} // namespace

int main(int argc, char** argv) try {
    gpt::model trained = gpt::make_model({}, 1);
    const int steps = decoder::read_steps(argc, argv);
    const decoder::texts text = decoder::read_texts(argc, argv, trained.config.length);
    decoder::train(trained, text.learned, steps, 1);
    const decoder::losses before = decoder::report("dense", trained, text);

    gpt::prunable dense{{trained, text.calibration, {}}}, pruned;
    const double share = prune(dense, pruned, 0.5);
    char what[60];
    std::snprintf(what, sizeof what, "%.2f of the multiply-adds", share);
    const decoder::losses after = decoder::report(what, pruned.m, text, &before);

    // By stages: what a pass found serves for all budgets, and other curves can take its place.
    const auto statistics = pare::collect(pare::simd, dense);
    const auto fishers = pare::collect_fisher(pare::simd, dense);
    std::vector<pare::loss_curve> fisher;
    for (const auto& of_masks : *fishers)
        fisher.push_back(pare::sorted_losses(of_masks.diagonal()));
    const std::pair<const char*, std::vector<pare::loss_curve>> criteria[] = {
        {"surgeon", *pare::elimination_curves(pare::simd, dense, *statistics)},
        {"surgeon without gradients",
         *pare::elimination_curves(pare::simd, dense, *pare::collect_forward(pare::simd, dense))},
        {"Fisher information", fisher},
        {"magnitude", magnitudes(dense)}};
    for (const double budget : {0.5, 0.3})
        for (const auto& [name, curves] : criteria) {
            pruned = dense;
            pare::refit(pare::simd, dense, pruned, pare::plan(dense, curves, budget), *statistics);
            std::snprintf(what, sizeof what, "%.2f by %s", budget, name);
            decoder::report(what, pruned.m, text, &before);
        }
    return decoder::mean(after) < decoder::mean(before) + 0.1 ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
}
