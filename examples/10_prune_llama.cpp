// The same for a decoder of the Llama type, whose query heads share heads of keys and values, whose
// filters have gates and whose matrices have no biases; once with widths of each layer's own, once
// with equal ones, as some engines want them.
//
//     10_prune_llama STEPS TEXT...
#include "decoder/program.hpp"
#include "decoder/prunable.hpp"
#include "llama/llama.hpp"

#include <pare/policy/simd.hpp>

namespace {

// What pare::prune asks of a model, with decoder/prunable.hpp.
struct prunable_llama : decoder::prunable<llama::model> {
    bool equal = false; // widths of all layers

    // [example]
    // A unit of attention is a head of keys and values with the query heads that share it.
    pare::index_t inputs_of_unit(pare::index_t s) const {
        return s % 2 ? 1 : m.config.group() * m.config.head_size();
    }
    pare::sublayer<float> describe(pare::index_t s) {
        const pare::index_t unit = inputs_of_unit(s), hidden = m.config.hidden;
        const auto lengths =
            pare::moments_of_lengths(std::vector{m.config.length}, decoder::causal);
        const double head =
            pare::head_macs(lengths, hidden, m.config.head_size(), m.config.group());
        const double filter = pare::filter_macs(lengths, hidden, /*matrices=*/3);
        const auto costs = pare::cost_table::linear(reader(s).cols() / unit, s % 2 ? filter : head);
        // No bias; all attention of one width, and all FFNs, if they are to be equal.
        return {pare::as_view<2>(reader(s)), {}, unit, costs, 1, 1, equal ? s % 2 : -1};
    }
    // [example]
    void keep(pare::index_t s, const std::vector<std::uint8_t>& mask) {
        const auto remove_rows = [&](llama::matrix& x, pare::index_t unit) {
            x = llama::matrix(x(pare::kept_positions(mask, unit), Eigen::all));
        };
        const auto columns = pare::kept_positions(mask, inputs_of_unit(s));
        reader(s) = llama::matrix(reader(s)(Eigen::all, columns));
        if (s % 2) {
            for (llama::matrix* x : {&layer(s).gate, &layer(s).up}) remove_rows(*x, 1);
        } else {
            remove_rows(layer(s).query, inputs_of_unit(s));
            for (llama::matrix* x : {&layer(s).key, &layer(s).value})
                remove_rows(*x, m.config.head_size());
        }
    }
};

} // namespace

int main(int argc, char** argv) try {
    llama::model trained = llama::make_model({}, 1);
    const int steps = decoder::read_steps(argc, argv);
    const decoder::texts text = decoder::read_texts(argc, argv, trained.config.length);
    decoder::train(trained, text.learned, steps, 1);
    const decoder::losses before = decoder::report("dense", trained, text);

    // Of all budgets, the statistics and what they say of units are the same.
    prunable_llama dense{{trained, text.calibration, {}}};
    const auto statistics = pare::collect(pare::simd, dense);
    const auto curves = pare::elimination_curves(pare::simd, dense, *statistics);
    double after = 0;
    for (const bool equal : {false, true})
        for (const double share : {0.5, 0.3}) {
            dense.equal = equal;
            prunable_llama pruned = dense;
            const pare::prune_plan plan = pare::plan(dense, *curves, share);
            pare::refit(pare::simd, dense, pruned, plan, *statistics);
            char what[40];
            std::snprintf(what, sizeof what, "%.2f of the MACs%s", plan.cost / plan.dense_cost,
                          equal ? ", equal widths" : "");
            const double loss = decoder::mean(decoder::report(what, pruned.m, text, &before));
            if (share == 0.5) after = std::max(after, loss);
            std::printf("    heads of keys and values, filters:");
            for (const llama::layer& l : pruned.m.layers)
                std::printf("  %td %td", l.key.rows() / trained.config.head_size(), l.up.rows());
            std::printf("\n");
        }
    return after < decoder::mean(before) + 0.1 ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
}
