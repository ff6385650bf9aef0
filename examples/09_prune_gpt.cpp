// A decoder of one's own, pruned: a small GPT-2 is trained on the texts that are named and then
// loses half, and 70 %, of what its heads and filters compute.
//
//     09_prune_gpt STEPS TEXT...
#include "decoder/program.hpp"
#include "decoder/prunable.hpp"
#include "gpt/gpt.hpp"

#include <pare/policy/simd.hpp>

namespace {

// What pare::prune asks of a model, with decoder/prunable.hpp.
struct prunable_gpt : decoder::prunable<gpt::model> {
    pare::sublayer<float> describe(pare::index_t s) {
        gpt::linear& w = reader(s);
        const auto n = static_cast<double>(m.config.length);
        const pare::length_moments lengths{n, n * n / 2}; // causal
        const pare::index_t unit = s % 2 ? 1 : m.config.head_size();
        const double each = s % 2 ? pare::filter_macs(lengths, m.config.hidden)
                                  : pare::head_macs(lengths, m.config.hidden, unit);
        return {pare::as_view<2>(w.weight), pare::as_view<1>(w.bias), unit,
                pare::cost_table::linear(w.weight.cols() / unit, each)};
    }
    void keep(pare::index_t s, const std::vector<std::uint8_t>& mask) {
        gpt::linear& maker = s % 2 ? layer(s).up : layer(s).qkv;
        const pare::index_t unit = s % 2 ? 1 : m.config.head_size();
        const auto rows = pare::kept_positions(mask, unit, s % 2 ? 1 : 3);
        const auto columns = pare::kept_positions(mask, unit);
        maker.weight = gpt::matrix(maker.weight(rows, Eigen::all));
        maker.bias = gpt::vector(maker.bias(rows));
        reader(s).weight = gpt::matrix(reader(s).weight(Eigen::all, columns));
    }
};

pare::prune_report prune(prunable_gpt& dense, prunable_gpt& pruned, double share) {
    // [example]
    pruned = dense; // gets smaller; the dense one runs beside it
    pare::prune_options options;
    options.share = share; // of the multiply-adds that describe() counts
    pare::prune_report report = pare::prune(pare::simd, dense, pruned, options);
    for (std::size_t s = 0; s < report.refits.size(); ++s) {
        const pare::tune_result& fit = report.refits[s].fit;
        std::printf("sublayer %zu: loses %.2g, %.1f %% of its output's variance before refitting, "
                    "%.1f %% after\n",
                    s, report.plan.losses[s], 100 * fit.error_before / fit.variance,
                    100 * fit.error_after / fit.variance);
    }
    // [example]
    return report;
}

} // namespace

int main(int argc, char** argv) try {
    gpt::model trained = gpt::make_model({}, 1);
    const decoder::texts text = decoder::read_texts(argc, argv, trained.config.length);
    decoder::train(trained, text.learned, std::atoi(argv[1]), 1);
    const double before = decoder::report("dense", trained, text);

    prunable_gpt dense{{trained, text.calibration, {}}};
    double after = before;
    for (const double share : {0.5, 0.3}) {
        prunable_gpt pruned;
        const pare::prune_report found = prune(dense, pruned, share);
        char what[40];
        std::snprintf(what, sizeof what, "%.2f of the MACs",
                      found.plan.cost / found.plan.dense_cost);
        const double loss = decoder::report(what, pruned.m, text);
        if (share == 0.5) after = loss;
    }
    return after < before + 0.1 ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
}
