// Quality against the share of multiply-adds kept, for the methods of the papers and ours: prints a
// table in Markdown. One run is one calibration text and one kind of Fisher information.
#include <encoder/evaluate.hpp>
#include <encoder/prune.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <optional>
#include <utility>

namespace {

using namespace encoder;

struct method {
    const char* name;
    fisher_source source;
    bool rearranged;
    encoder::tuning tuning;
    enum { by_fisher, by_surgeon, by_weighted_surgeon } chooses = by_fisher;
};

std::vector<method> methods(fisher_source fisher) {
    return {{"magnitude", fisher_source::magnitude, false, tuning::none},
            {"Fisher search", fisher, false, tuning::none},
            {"+ rearrange", fisher, true, tuning::none},
            {"+ rearrange + scale (the paper)", fisher, true, tuning::scale},
            {"Fisher search + reconstruct", fisher, false, tuning::reconstruct},
            {"no gradients + reconstruct", fisher_source::none, false, tuning::reconstruct},
            {"surgeon + reconstruct", fisher, false, tuning::reconstruct, method::by_surgeon},
            {"surgeon + reconstruct, tokens weighted", fisher, false, tuning::reconstruct,
             method::by_weighted_surgeon},
            {"surgeon without gradients + reconstruct", fisher_source::none, false,
             tuning::reconstruct, method::by_surgeon}};
}

// Mean and standard deviation over samples of calibration text, in points.
std::string cell(const std::vector<double>& values) {
    double mean = 0, square = 0;
    for (const double v : values) mean += v / static_cast<double>(values.size());
    for (const double v : values) square += (v - mean) * (v - mean);
    const auto n = static_cast<double>(values.size());
    return fmt::format("{:.2f} ± {:.2f}", 100 * mean,
                       n > 1 ? 100 * std::sqrt(square / (n - 1)) : 0.0);
}

void run(const std::string& model_folder, const std::string& text, const std::string& pairs,
         bool labels, std::size_t samples, int repeats, std::optional<double> ridge,
         const std::vector<double>& shares) {
    const std::filesystem::path folder = model_folder;
    const model m = load_model(folder);
    const auto max_tokens = static_cast<std::size_t>(m.config.max_tokens);
    const tokenizer words(folder / "vocab.txt", m.config.lower_case, m.config.vocabulary);
    const similarity_task task = make_task(words, read_pairs(pairs), max_tokens);
    network dense(m);
    const double dense_quality = correlate(task, embed(dense, task.sequences, "dense")).spearman;

    const fisher_source source = labels ? fisher_source::labels : fisher_source::free;
    const std::vector<method> all = methods(source);
    // [method][share][repeat]
    std::vector<std::vector<std::vector<double>>> quality(
        all.size(), std::vector<std::vector<double>>(shares.size()));
    for (int repeat = 0; repeat < repeats; ++repeat) {
        const auto seed = static_cast<std::uint64_t>(repeat) + 1;
        const calibration data = read_calibration(text, labels, samples, seed, words, max_tokens);
        const unit_costs costs = unit_costs::multiply_adds(m.config, data.sequences);
        std::map<std::pair<fisher_source, bool>, criterion> criteria;
        std::map<fisher_source, surgeon> surgeons;
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (all[i].source == fisher_source::magnitude && repeat > 0) continue; // needs no text
            const bool bias_refitted = all[i].tuning == tuning::reconstruct;
            const criterion* fisher = nullptr;
            const surgeon* cuts = nullptr;
            if (all[i].chooses == method::by_fisher)
                fisher = &criteria
                              .try_emplace({all[i].source, bias_refitted}, dense, data,
                                           all[i].source, bias_refitted, seed)
                              .first->second;
            else
                cuts = &surgeons.try_emplace(all[i].source, dense, data, all[i].source, seed)
                            .first->second;
            std::vector<std::vector<float>> weights;
            if (all[i].chooses == method::by_weighted_surgeon) weights = cuts->weights();
            for (std::size_t j = 0; j < shares.size(); ++j) {
                kept_units kept =
                    search(m, fisher ? fisher->losses() : cuts->losses(), costs, shares[j]);
                if (all[i].rearranged) rearrange(*fisher, kept);
                std::vector<std::string> notes;
                network pruned(tune(dense, kept, data.all(), all[i].tuning,
                                    ridge.value_or(default_ridge(all[i].tuning)), notes, weights));
                quality[i][j].push_back(
                    correlate(task, embed(pruned, task.sequences, "embed")).spearman);
                fmt::print(stderr, "sample {}, {}, {}: {:.2f}\n", repeat + 1, all[i].name,
                           shares[j], 100 * quality[i][j].back());
                for (const std::string& note : notes) fmt::print(stderr, "{}\n", note);
            }
        }
    }
    fmt::print("Spearman x 100, dense {:.2f}; {} {} of calibration, mean ± standard deviation over "
               "{} samples.\n\n",
               100 * dense_quality, samples, labels ? "labelled pairs" : "texts", repeats);
    fmt::print("| share of MACs kept | {} |\n|---|", fmt::join(shares, " | "));
    for (std::size_t j = 0; j < shares.size(); ++j) fmt::print("---|");
    fmt::print("\n");
    for (std::size_t i = 0; i < all.size(); ++i) {
        fmt::print("| {} |", all[i].name);
        for (const auto& values : quality[i]) fmt::print(" {} |", cell(values));
        fmt::print("\n");
    }
}

} // namespace

int main(int argc, char** argv) {
    std::string model, text, pairs;
    bool labels = false;
    std::size_t samples = 1000;
    int repeats = 3;
    std::optional<double> ridge;
    std::vector<double> shares = {0.9, 0.8, 0.7, 0.6, 0.5, 0.4};
    CLI::App app("Measures what pruning to several budgets costs in quality, by method.");
    app.add_option("--model", model, "folder of the encoder")->required();
    app.add_option("--calibrate", text, "a document a line, or pairs with --labels")->required();
    app.add_option("--evaluate", pairs, "score, text, text, by tabs")->required();
    app.add_flag("--labels", labels, "Fisher information from the labels of the calibration pairs");
    app.add_option("--samples", samples, "texts or pairs of a calibration sample");
    app.add_option("--repeats", repeats, "calibration samples");
    app.add_option("--ridge", ridge, "of the tuning")->default_str("as prune_encoder's");
    app.add_option("--macs", shares, "shares of the multiply-adds to keep")->delimiter(',');
    CLI11_PARSE(app, argc, argv);
    try {
        run(model, text, pairs, labels, samples, repeats, ridge, shares);
    } catch (const std::exception& e) {
        fmt::print(stderr, "quality: {}\n", e.what());
        return 2;
    }
    return 0;
}
