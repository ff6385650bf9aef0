// A decoder of one's own, pruned: a small GPT-2 is trained on the texts that are named and then
// loses half, and 70 %, of what its heads and filters compute.
//
//     09_prune_gpt STEPS TEXT...
#include "gpt/gpt.hpp"

#include <pare/policy/simd.hpp>
#include <pare/prune.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace {

// What pare::prune asks of a model.
struct prunable_gpt {
    gpt::model m;
    std::vector<gpt::tokens> text; // batches of calibration text
    gpt::matrix values;            // of the units that were asked for last

    using stream = gpt::matrix;
    pare::index_t sublayers() const { return 2 * m.config.layers; }
    gpt::layer& layer(pare::index_t s) { return m.layers[static_cast<std::size_t>(s / 2)]; }
    gpt::linear& reader(pare::index_t s) { return s % 2 ? layer(s).down : layer(s).projection; }
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
    pare::index_t batches() const { return static_cast<pare::index_t>(text.size()); }
    stream start(pare::index_t b) const { return gpt::embed(m, text[static_cast<std::size_t>(b)]); }
    pare::view<float, 2> rows(stream& x) const { return pare::as_view<2>(x); }
    pare::view<const float, 2> units(pare::index_t s, const stream& x) {
        values = s % 2 ? gpt::activate(layer(s), x) : gpt::attend(m, layer(s), x);
        return pare::as_input<2>(values);
    }
    void add(pare::index_t s, pare::view<const float, 2>, stream& x) {
        gpt::add(reader(s), values, x);
    }
    template <class Visit>
    void backward(pare::index_t b, const Visit& visit) {
        const auto draw = [&](gpt::matrix x) {
            pare::draw_class_gradients(x, static_cast<std::uint64_t>(b), x);
            return x;
        };
        const auto show = [&](gpt::index l, gpt::sublayer which, const gpt::matrix& units,
                              const gpt::matrix& at_units, const gpt::matrix& at_sum) {
            visit(2 * l + (which == gpt::sublayer::filters), pare::as_input<2>(units),
                  pare::as_input<2>(at_units), pare::as_input<2>(at_sum));
        };
        gpt::backward(m, text[static_cast<std::size_t>(b)], draw, nullptr, show);
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
    // [example
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
    // example]
    return report;
}

gpt::tokens part(const gpt::tokens& text, std::size_t first, std::size_t count) {
    const auto begin = text.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: 09_prune_gpt STEPS TEXT...\n");
        return 2;
    }
    gpt::tokens text;
    for (int i = 2; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        for (std::istreambuf_iterator<char> c(file), end; c != end; ++c)
            text.push_back(static_cast<std::uint8_t>(*c & 127));
    }
    gpt::model trained = gpt::make_model({}, 1);
    const auto length = static_cast<std::size_t>(trained.config.length);
    const std::size_t learned = text.size() / 10 * 9;
    const std::size_t held =
        std::min<std::size_t>(100, (text.size() - learned) / length - 1) * length;
    if (text.size() < 1000 * length) {
        std::fprintf(stderr, "%zu bytes of text, %zu are needed\n", text.size(), 1000 * length);
        return 2;
    }
    gpt::train(trained, part(text, 0, learned), std::atoi(argv[1]), 1);
    const gpt::tokens ids = part(text, learned, held), next = part(text, learned + 1, held);
    const auto report = [&](const char* what, const gpt::model& m) {
        const auto begin = std::chrono::steady_clock::now();
        const double loss = gpt::loss(m, ids, next);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        std::printf("%-18s loss %.4f, %.0f tokens/s\n", what, loss,
                    static_cast<double>(held) / seconds.count());
        return loss;
    };
    const double before = report("dense", trained);

    prunable_gpt dense{trained, {}, {}};
    for (std::size_t i = 0; i < 10; ++i)
        dense.text.push_back(part(text, i * (learned / 10), 8 * length));
    double after = before;
    for (const double share : {0.5, 0.3}) {
        prunable_gpt pruned;
        const pare::prune_report found = prune(dense, pruned, share);
        char what[40];
        std::snprintf(what, sizeof what, "%.2f of the MACs",
                      found.plan.cost / found.plan.dense_cost);
        const double loss = report(what, pruned.m);
        if (share == 0.5) after = loss;
    }
    return after < before + 0.1 ? 0 : 1;
}
