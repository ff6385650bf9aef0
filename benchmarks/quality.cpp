// Quality against the share of multiply-adds kept, for the methods of the papers and ours: prints a
// table in Markdown. One run is one calibration text and one kind of Fisher information.
#include <encoder/network/network.hpp>
#include <encoder/pruning/latency.hpp>
#include <encoder/pruning/prune.hpp>
#include <encoder/task/evaluate.hpp>
#include <encoder/task/quality.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <pare/core/executor.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <utility>

namespace {

using namespace encoder;

enum class numbers { none, queries, all }; ///< that heads may have fewer of

struct method {
    std::string key; ///< in --methods
    const char* title;
    fisher_source source;
    bool by_surgeon, rearranged;
    encoder::tuning tuning;
    bool weighted = false; ///< tokens, when refitting
    bool by_time = false;  ///< shares are of the time, not of multiply-adds
    layer_widths allowed = layer_widths::uneven;
    numbers narrow = numbers::none;
};

/// Those named, or all whose shares are of multiply-adds and whose widths are their own.
std::vector<method> choose_methods(fisher_source fisher, const std::vector<std::string>& keys) {
    std::vector<method> all = {
        {"magnitude", "magnitude", fisher_source::magnitude, false, false, tuning::none},
        {"search", "Fisher search", fisher, false, false, tuning::none},
        {"rearrange", "+ rearrange", fisher, false, true, tuning::none},
        {"paper", "+ rearrange + scale (the paper)", fisher, false, true, tuning::scale},
        {"fisher", "Fisher search + reconstruct", fisher, false, false, tuning::reconstruct},
        {"forward", "no gradients + reconstruct", fisher_source::none, false, false,
         tuning::reconstruct},
        {"surgeon", "surgeon + reconstruct, tokens weighted", fisher, true, false,
         tuning::reconstruct, true},
        {"narrow_queries", "narrow queries and keys, surgeon + reconstruct, tokens weighted",
         fisher, true, false, tuning::reconstruct, true, false, layer_widths::uneven,
         numbers::queries},
        {"narrow", "narrow heads, surgeon + reconstruct, tokens weighted (ours)", fisher, true,
         false, tuning::reconstruct, true, false, layer_widths::uneven, numbers::all},
        {"unweighted", "surgeon + reconstruct, tokens alike", fisher, true, false,
         tuning::reconstruct},
        {"rearranged", "surgeon + rearrange + reconstruct, tokens weighted", fisher, true, true,
         tuning::reconstruct, true},
        {"timed", "surgeon with shares of time + reconstruct, tokens weighted", fisher, true, false,
         tuning::reconstruct, true, true},
        {"narrow_timed", "narrow heads, surgeon with shares of time + reconstruct, tokens weighted",
         fisher, true, false, tuning::reconstruct, true, true, layer_widths::uneven, numbers::all},
        {"tied", "surgeon, as many heads in all layers, and as many filters", fisher, true, false,
         tuning::reconstruct, true, false, layer_widths::tied},
        {"equal", "surgeon, all heads, and as many filters in all layers", fisher, true, false,
         tuning::reconstruct, true, false, layer_widths::equal},
        {"identity", "surgeon without gradients + reconstruct", fisher_source::none, true, false,
         tuning::reconstruct}};
    if (keys.empty()) {
        all.erase(std::remove_if(all.begin(), all.end(),
                                 [](const method& m) {
                                     return m.by_time || m.allowed != layer_widths::uneven;
                                 }),
                  all.end());
        return all;
    }
    std::vector<method> chosen;
    for (const std::string& key : keys) {
        const auto at =
            std::find_if(all.begin(), all.end(), [&](const method& m) { return m.key == key; });
        if (at == all.end()) throw std::invalid_argument("no method is named '" + key + "'");
        chosen.push_back(*at);
    }
    return chosen;
}

// Mean and standard deviation over samples of calibration text.
std::string cell(const std::vector<double>& values, double unit, int digits) {
    if (values.empty()) return "not possible";
    double mean = 0, square = 0;
    for (const double v : values) mean += v / static_cast<double>(values.size());
    for (const double v : values) square += (v - mean) * (v - mean);
    const auto n = static_cast<double>(values.size());
    return fmt::format("{:.{}f} ± {:.{}f}", mean / unit, digits,
                       n > 1 ? std::sqrt(square / (n - 1)) / unit : 0.0, digits);
}

// What the pruned models' mean gains on the dense one, and two standard errors of that over examples
// that are drawn anew, the same for all.
std::string interval(const dataset& task, const matrix& dense, const std::vector<matrix>& pruned) {
    if (pruned.empty()) return "not possible";
    if (task.is_per_token()) return "not drawn";
    constexpr std::size_t draws = 100;
    const std::size_t examples = task.pairs ? task.pairs->pairs.size() : task.targets.size();
    std::vector<double> gains(draws + 1); // the first of all examples as they are
    pare::openmp{}.run(draws + 1, [&](std::ptrdiff_t draw, std::ptrdiff_t) {
        std::mt19937_64 random(static_cast<std::uint64_t>(draw));
        std::uniform_int_distribution<std::size_t> any(0, examples - 1);
        dataset some = task;
        std::vector<Eigen::Index> rows;
        for (std::size_t i = 0; i < examples; ++i) {
            const std::size_t e = draw == 0 ? i : any(random);
            if (task.pairs) {
                some.pairs->pairs[i] = task.pairs->pairs[e];
                some.pairs->scores[i] = task.pairs->scores[e];
            } else {
                some.targets[i] = task.targets[e];
                rows.push_back(static_cast<Eigen::Index>(e));
            }
        }
        const auto of = [&](const matrix& outputs) {
            return 100 * measure(some, task.pairs ? outputs
                                                  : matrix(outputs(rows, Eigen::indexing::all)));
        };
        double& gain = gains[static_cast<std::size_t>(draw)];
        for (const matrix& outputs : pruned)
            gain += of(outputs) / static_cast<double>(pruned.size());
        gain -= of(dense);
    });
    double mean = 0, square = 0;
    for (std::size_t i = 1; i <= draws; ++i) mean += gains[i] / draws;
    for (std::size_t i = 1; i <= draws; ++i) square += (gains[i] - mean) * (gains[i] - mean);
    return fmt::format("{:.2f} ± {:.2f}", gains[0], 2 * std::sqrt(square / (draws - 1)));
}

struct arguments {
    std::filesystem::path model, calibrate, generic, evaluate;
    bool labels = false;
    std::size_t samples = 1000;
    int repeats = 3;
    std::optional<double> ridge;
    std::vector<double> shares = {0.9, 0.8, 0.7, 0.6, 0.5, 0.4};
    std::vector<std::string> methods;
    std::int64_t sequences = 0, tokens = 0; ///< of batches whose time is measured, or none
};

void run(const arguments& a) {
    const model m = load_model(a.model);
    const tokenizer words(a.model, m.config);
    const dataset task = read_dataset(task_of(m), a.evaluate, words, m);
    network dense(m);
    const matrix by_dense = embed(dense, measured_texts(task), "dense");
    const quality of_dense = qualities(task, by_dense)[0];

    const std::vector<double>& shares = a.shares;
    const std::vector<method> all =
        choose_methods(a.labels ? fisher_source::labels : fisher_source::free, a.methods);
    // [method][share][repeat]
    std::vector<std::vector<std::vector<double>>> quality(
        all.size(), std::vector<std::vector<double>>(shares.size()));
    auto time = quality;
    std::vector<std::vector<std::vector<matrix>>> outputs(
        all.size(), std::vector<std::vector<matrix>>(shares.size()));
    std::optional<latency> times;
    if (a.tokens == 0 &&
        std::any_of(all.begin(), all.end(), [](const method& x) { return x.by_time; }))
        throw std::invalid_argument("the method 'timed' needs --latency-batch");
    if (a.tokens > 0) times.emplace(dense, latency_options{a.sequences, a.tokens, false, {}});
    for (int repeat = 0; repeat < a.repeats; ++repeat) {
        const auto seed = static_cast<std::uint64_t>(repeat) + 1;
        const calibration data =
            read_calibration(a.calibrate, a.labels, a.samples, seed, words, m, a.generic);
        const unit_costs costs = unit_costs::multiply_adds(m.config, data.examples.texts);
        std::map<std::pair<fisher_source, bool>, criterion> criteria;
        std::map<fisher_source, surgeon> surgeons;
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (all[i].source == fisher_source::magnitude && repeat > 0) continue; // needs no text
            const bool bias_refitted = all[i].tuning == tuning::reconstruct;
            const criterion* fisher = nullptr;
            const surgeon* cuts = nullptr;
            if (!all[i].by_surgeon || all[i].rearranged)
                fisher = &criteria
                              .try_emplace({all[i].source, bias_refitted}, dense, data,
                                           all[i].source, bias_refitted, seed)
                              .first->second;
            if (all[i].by_surgeon)
                cuts = &surgeons.try_emplace(all[i].source, dense, data, all[i].source, seed)
                            .first->second;
            std::vector<pare::sublayer_statistics> weights;
            if (all[i].weighted) weights = cuts->weights();
            sublayer_losses losses = cuts ? cuts->losses() : sublayer_losses(fisher->losses());
            if (all[i].narrow == numbers::none) losses.queries.clear();
            if (all[i].narrow == numbers::queries)
                for (auto& of_layer : losses.values) of_layer.clear();
            for (std::size_t j = 0; j < shares.size(); ++j) {
                kept_units kept;
                try {
                    kept = (all[i].by_time
                                ? search(m, losses, times.value(), shares[j], all[i].allowed)
                                : search(m, losses, costs, shares[j], all[i].allowed))
                               .kept;
                } catch (const std::invalid_argument&) {
                    continue; // not even the least of these widths fits
                }
                if (all[i].rearranged) rearrange(*fisher, kept);
                std::vector<std::string> notes;
                network pruned(tune(dense, kept, data.all(), all[i].tuning,
                                    a.ridge.value_or(default_ridge(all[i].tuning)), notes,
                                    weights));
                outputs[i][j].push_back(embed(pruned, measured_texts(task), "embed"));
                quality[i][j].push_back(measure(task, outputs[i][j].back()));
                if (times) time[i][j].push_back(times->share_of(pruned.model()));
                fmt::print(stderr, "sample {}, {}, {}: {:.2f}\n", repeat + 1, all[i].title,
                           shares[j], 100 * quality[i][j].back());
                for (const std::string& note : notes) fmt::print(stderr, "{}\n", note);
            }
        }
    }
    fmt::print("{} x 100, dense {:.2f}; {} {} of calibration, mean ± standard deviation over "
               "{} samples.\n\n",
               of_dense.name, 100 * of_dense.value, a.samples,
               a.labels ? "labelled examples" : "texts", a.repeats);
    const auto print = [&](const auto& values, const auto& cell_of) {
        fmt::print("| share kept | {} |\n|---|", fmt::join(shares, " | "));
        for (std::size_t j = 0; j < shares.size(); ++j) fmt::print("---|");
        fmt::print("\n");
        for (std::size_t i = 0; i < all.size(); ++i) {
            fmt::print("| {} |", all[i].title);
            for (const auto& some : values[i]) fmt::print(" {} |", cell_of(some));
            fmt::print("\n");
        }
    };
    print(quality, [](const std::vector<double>& of) { return cell(of, 0.01, 2); });
    if (times) {
        fmt::print("\nTheir time by the dense model's, in batches of {} x {} tokens.\n\n",
                   a.sequences, a.tokens);
        print(time, [](const std::vector<double>& of) { return cell(of, 1, 3); });
    }
    fmt::print("\nThe mean less dense, ± two standard errors over the evaluation's examples (100 "
               "draws).\n\n");
    print(outputs, [&](const std::vector<matrix>& of) { return interval(task, by_dense, of); });
}

} // namespace

int main(int argc, char** argv) {
    arguments a;
    std::vector<std::int64_t> batch;
    CLI::App app("Measures what pruning to several budgets costs in quality, by method.");
    app.add_option("--model", a.model, "folder of the encoder, with or without a head")->required();
    app.add_option("--calibrate", a.calibrate, "as prune_encoder's")->required();
    app.add_option("--generic", a.generic, "as prune_encoder's");
    app.add_option("--evaluate", a.evaluate, "as prune_encoder's")->required();
    app.add_flag("--labels", a.labels, "gradients of the labels of the calibration examples");
    app.add_option("--samples", a.samples, "examples of a calibration sample");
    app.add_option("--repeats", a.repeats, "calibration samples");
    app.add_option("--ridge", a.ridge, "of the tuning")->default_str("as prune_encoder's");
    app.add_option("--macs", a.shares, "shares of the multiply-adds to keep")->delimiter(',');
    app.add_option(
           "--methods", a.methods,
           "of magnitude, search, rearrange, paper, fisher, forward, surgeon, unweighted, "
           "rearranged, timed (whose shares are of time), tied, equal (prune_encoder's --widths) "
           "and identity; or all but timed, tied and equal")
        ->delimiter(',');
    app.add_option("--latency-batch", batch, "sequences and tokens of batches to time, by a comma")
        ->delimiter(',')
        ->expected(2);
    CLI11_PARSE(app, argc, argv);
    if (!batch.empty()) {
        a.sequences = batch[0];
        a.tokens = batch[1];
    }
    try {
        run(a);
    } catch (const std::exception& e) {
        fmt::print(stderr, "quality: {}\n", e.what());
        return 2;
    }
    return 0;
}
