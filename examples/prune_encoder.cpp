// Prunes heads and filters of a BERT-type sentence encoder without retraining and without labels,
// writes the smaller model, loads it again, checks it, and reports.
#include "encoder/evaluate.hpp"
#include "encoder/progress.hpp"
#include "encoder/prune.hpp"

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#ifdef _OPENMP
#include <omp.h>
#endif
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>

namespace {

namespace fs = std::filesystem;
using namespace encoder;

struct arguments {
    fs::path model, calibrate, evaluate, out, json;
    double macs = 0.5;
    encoder::tuning tuning = encoder::tuning::reconstruct;
    fisher_source fisher = fisher_source::free;
    bool rearrange = false;
    double ridge = 1e-2;
    std::size_t samples = 2048;
    std::uint64_t seed = 1;
    int threads = 0;
};

/// Returns an exit status where the program ends here (--help, bad arguments).
std::optional<int> parse(int argc, char** argv, arguments& a) {
    CLI::App app(
        "Prunes attention heads and FFN filters of a BERT-type sentence encoder to a share of its "
        "multiply-adds and writes the smaller model.");
    app.option_defaults()->always_capture_default();
    app.add_option("--model", a.model, "folder with config.json, model.safetensors and vocab.txt")
        ->required();
    app.add_option("--calibrate", a.calibrate,
                   "text, a document a line; with --fisher labels: score, text 1, text 2, by tabs")
        ->required();
    app.add_option("--macs", a.macs, "share of the multiply-adds to keep");
    app.add_option("--evaluate", a.evaluate,
                   "pairs to measure quality on: score, text 1, text 2, by tabs");
    app.add_option("--tune", a.tuning,
                   "refit what reads the kept units: scale (one factor a unit) or reconstruct (all "
                   "weights)")
        ->transform(CLI::Transformer(
            std::map<std::string, encoder::tuning>{{"scale", tuning::scale},
                                                   {"reconstruct", tuning::reconstruct},
                                                   {"none", tuning::none}}))
        ->default_str("reconstruct");
    app.add_option(
           "--fisher", a.fisher,
           "importance from: free (random projections of the embedding, no labels), labels, none "
           "(forward passes only)")
        ->transform(
            CLI::Transformer(std::map<std::string, fisher_source>{{"free", fisher_source::free},
                                                                  {"labels", fisher_source::labels},
                                                                  {"none", fisher_source::none}}))
        ->default_str("free");
    app.add_flag("--rearrange", a.rearrange,
                 "exchange units within layers against the block Fisher matrix");
    app.add_option("--ridge", a.ridge, "of the tuning, relative to the inputs' mean variance");
    app.add_option("--samples", a.samples,
                   "most documents (or pairs) of --calibrate that are used");
    app.add_option("--seed", a.seed, "of the choice of samples and of the random projections");
    app.add_option("--threads", a.threads, "0: as many as there are processors");
    app.add_option("--out", a.out, "folder to write")->default_str("MODEL-pruned, in this folder");
    app.add_option("--json", a.json, "file to write the report to");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) return app.exit(e); // --help
        fmt::print(stderr, "prune_encoder: {}\n", e.what());
        return 2;
    }
    return std::nullopt;
}

/// Everything that can be known to be wrong before the work begins.
void check(arguments& a) {
    if (!(a.macs > 0 && a.macs <= 1))
        throw std::invalid_argument(
            fmt::format("--macs is {}, expected a share in (0, 1]", a.macs));
    if (!(a.ridge >= 0 && std::isfinite(a.ridge)))
        throw std::invalid_argument(fmt::format("--ridge is {}, expected a number >= 0", a.ridge));
    if (a.samples == 0) throw std::invalid_argument("--samples is 0, expected at least 1");
    if (a.threads < 0)
        throw std::invalid_argument(fmt::format("--threads is {}, expected >= 0", a.threads));
    if (a.out.empty()) {
        fs::path name = fs::absolute(a.model).lexically_normal();
        if (!name.has_filename()) name = name.parent_path();
        a.out = name.filename().string() + "-pruned";
    }
    for (const auto& [option, path] : {std::pair("--out", a.out), std::pair("--json", a.json)}) {
        if (path.empty()) continue;
        const fs::path parent = fs::absolute(path).lexically_normal().parent_path();
        if (!fs::is_directory(parent) || access(parent.c_str(), W_OK) != 0)
            throw file_error(fmt::format("{} {}: the folder {} does not exist or cannot be written",
                                         option, path.string(), parent.string()));
    }
    if (!a.json.empty() && fs::is_directory(a.json))
        throw file_error(fmt::format("--json {}: is a folder", a.json.string()));
}

double peak_memory_mb() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// Largest difference of an embedding's coordinate that rounding explains, for weights stored as
/// `type`.
double tolerance(data_type type) {
    return type == data_type::f16 ? 5e-3 : type == data_type::bf16 ? 4e-2 : 1e-4;
}

std::vector<Eigen::Index> count(const model& m, unit_kind kind) {
    std::vector<Eigen::Index> counts;
    for (const layer& l : m.layers)
        counts.push_back(kind == unit_kind::head ? l.heads(m.config.head_size) : l.filters());
    return counts;
}

std::string bar_of(Eigen::Index kept, Eigen::Index of) {
    constexpr Eigen::Index width = 20;
    std::string bar;
    for (Eigen::Index i = 0; i < width; ++i) bar += i * of < kept * width ? '#' : '.';
    return bar;
}

/// NaN (a correlation of constants, say) has no JSON number.
nlohmann::json number(double x) {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
}

void write_json(const fs::path& path, const nlohmann::ordered_json& report) {
    const fs::path temporary = path.string() + ".part";
    std::ofstream out(temporary);
    out << report.dump(2) << '\n';
    out.close();
    std::error_code error;
    if (out) fs::rename(temporary, path, error);
    if (!out || error) {
        fs::remove(temporary, error);
        throw file_error(path.string() + ": cannot be written");
    }
}

void run(const arguments& a) {
    const progress whole("", 1); // a clock
    const model original = load_model(a.model);
    const auto max_tokens = static_cast<std::size_t>(original.config.max_tokens);
    const tokenizer words(a.model / "vocab.txt", original.config.lower_case,
                          original.config.vocabulary);
    const calibration data = read_calibration(a.calibrate, a.fisher == fisher_source::labels,
                                              a.samples, a.seed, words, max_tokens);
    std::optional<similarity_task> task;
    if (!a.evaluate.empty()) task = make_task(words, read_pairs(a.evaluate), max_tokens);

    network dense(original);
    const macs costs(original.config, data.sequences);
    const double macs_dense = costs.of(original);
    std::map<std::string, double> seconds;
    const auto timed = [&](const char* stage, auto work) {
        const progress clock("", 1);
        work();
        seconds[stage] = clock.seconds();
    };
    const progress pruning("", 1);
    std::optional<criterion> importance;
    pare::search_result masks;
    model pruned_model;
    std::vector<std::string> notes;
    timed("fisher", [&] {
        importance.emplace(dense, data, a.fisher, a.tuning == tuning::reconstruct, a.seed);
    });
    timed("search", [&] { masks = search(original, *importance, costs, a.macs); });
    timed("rearrange", [&] {
        if (a.rearrange) rearrange(*importance, masks);
    });
    importance.reset();
    timed("tune",
          [&] { pruned_model = tune(dense, masks, data.sequences, a.tuning, a.ridge, notes); });
    seconds["total"] = pruning.seconds();
    const double macs_ratio = costs.of(pruned_model) / macs_dense;

    // The written model must say what the dense one says with masks over the pruned units.
    const fs::path candidate = a.out.string() + ".unverified";
    save_model(pruned_model, a.model, candidate);
    const auto discard = [&] {
        std::error_code ignored;
        fs::remove_all(candidate, ignored);
    };
    try {
        network pruned(load_model(candidate));
        network masked(expand(original, pruned_model, masks));
        network::masks factors;
        for (const auto* from : {&masks.heads, &masks.filters})
            for (const auto& mask : *from)
                (from == &masks.heads ? factors.heads : factors.filters)
                    .push_back(Eigen::Map<const Eigen::Matrix<std::uint8_t, Eigen::Dynamic, 1>>(
                                   mask.data(), static_cast<Eigen::Index>(mask.size()))
                                   .cast<float>());
        masked.set_masks(std::move(factors));
        const std::vector<sequence>& texts = task ? task->sequences : data.sequences;
        const matrix by_dense = embed(dense, texts, "embed, dense");
        const matrix by_pruned = embed(pruned, texts, "embed, pruned");
        double difference =
            (by_pruned - embed(masked, texts, "embed, masked")).cwiseAbs().maxCoeff();
        if (task)
            difference =
                std::max<double>(difference, (embed(pruned, data.sequences, "verify, pruned") -
                                              embed(masked, data.sequences, "verify, masked"))
                                                 .cwiseAbs()
                                                 .maxCoeff());
        if (!(difference <= tolerance(original.stored_as)))
            throw std::runtime_error(
                fmt::format("the written model differs from the masked one by {:.2e} in "
                            "an embedding, more than {:.0e}",
                            difference, tolerance(original.stored_as)));
        const speed s = compare_speed(dense, pruned, data.sequences);
        correlations q_dense{NAN, NAN}, q_pruned{NAN, NAN};
        if (task) {
            q_dense = correlate(*task, by_dense);
            q_pruned = correlate(*task, by_pruned);
        }
        const double cosine = mean_cosine(by_dense, by_pruned);
        const auto bytes_dense = fs::file_size(a.model / "model.safetensors");
        const auto bytes_pruned = fs::file_size(candidate / "model.safetensors");
        int threads = 1;
#ifdef _OPENMP
        threads = omp_get_max_threads();
#endif
        const auto heads = count(pruned_model, unit_kind::head);
        const auto filters = count(pruned_model, unit_kind::filter);

        nlohmann::ordered_json report;
        report["macs_ratio"] = macs_ratio;
        report["params_dense"] = original.parameters();
        report["params_pruned"] = pruned_model.parameters();
        report["bytes_dense"] = bytes_dense;
        report["bytes_pruned"] = bytes_pruned;
        report["spearman_dense"] = number(q_dense.spearman);
        report["spearman_pruned"] = number(q_pruned.spearman);
        report["pearson_dense"] = number(q_dense.pearson);
        report["pearson_pruned"] = number(q_pruned.pearson);
        report["cosine_to_dense"] = number(cosine);
        report["difference_to_masked"] = difference;
        for (const char* stage : {"fisher", "search", "rearrange", "tune", "total"})
            report[std::string("seconds_") + stage] = seconds[stage];
        report["peak_rss_mb"] = peak_memory_mb();
        report["tokens_per_s_dense"] = s.tokens_per_second_dense;
        report["tokens_per_s_pruned"] = s.tokens_per_second_pruned;
        report["speedup"] = s.speedup;
        report["threads"] = threads;
        report["heads_kept"] = heads;
        report["filters_kept"] = filters;
        report["untuned"] = notes;

        // Last, and the model before the report, so that a report always has its model.
        save_model(pruned_model, a.model, a.out);
        discard();
        if (!a.json.empty()) write_json(a.json, report);

        const auto heads_dense = count(original, unit_kind::head);
        const auto filters_dense = count(original, unit_kind::filter);
        fmt::print("\nlayer  heads kept                        filters kept\n");
        for (std::size_t l = 0; l < heads.size(); ++l)
            fmt::print("{:>5}  {} {:>3} of {:<4}  {} {:>5} of {}\n", l,
                       bar_of(heads[l], heads_dense[l]), heads[l], heads_dense[l],
                       bar_of(filters[l], filters_dense[l]), filters[l], filters_dense[l]);
        fmt::print("\n{:<22}{:>14}{:>14}{:>10}\n", "", "dense", "pruned", "ratio");
        const auto row = [](const char* name, double before, double after, int digits) {
            fmt::print("{:<22}{:>14.{}f}{:>14.{}f}{:>10.3f}\n", name, before, digits, after, digits,
                       after / before);
        };
        const auto n_texts = static_cast<double>(data.sequences.size());
        row("MACs a text, millions", macs_dense / 1e6, macs_ratio * macs_dense / 1e6, 1);
        row("parameters", static_cast<double>(original.parameters()),
            static_cast<double>(pruned_model.parameters()), 0);
        row("bytes", static_cast<double>(bytes_dense), static_cast<double>(bytes_pruned), 0);
        if (task) {
            row("Spearman x 100", 100 * q_dense.spearman, 100 * q_pruned.spearman, 2);
            row("Pearson x 100", 100 * q_dense.pearson, 100 * q_pruned.pearson, 2);
        }
        row("tokens/s", s.tokens_per_second_dense, s.tokens_per_second_pruned, 0);
        fmt::print("\ncosine to dense        {:.4f}\nspeedup                {:.3f}, of {:.3f} that "
                   "the MACs allow\n",
                   cosine, s.speedup, 1 / macs_ratio);
        fmt::print("agrees with masked     within {:.1e} in every embedding\n", difference);
        fmt::print("seconds of pruning     {:.1f} = fisher {:.1f} + search {:.1f} + rearrange "
                   "{:.1f} + tune "
                   "{:.1f}; with checks {:.1f}\n",
                   seconds["total"], seconds["fisher"], seconds["search"], seconds["rearrange"],
                   seconds["tune"], whole.seconds());
        fmt::print("peak memory            {:.0f} MB\ncalibration            {:.0f} texts\n",
                   peak_memory_mb(), n_texts);
        for (const std::string& note : notes) fmt::print("note: {}\n", note);
        fmt::print("written                {}\n", a.out.string());
    } catch (...) {
        discard();
        throw;
    }
}

} // namespace

int main(int argc, char** argv) {
    arguments a;
    if (const auto status = parse(argc, argv, a)) return *status;
    try {
        check(a);
#ifdef _OPENMP
        if (a.threads > 0) omp_set_num_threads(a.threads);
#endif
        run(a);
    } catch (const std::exception& e) {
        fmt::print(stderr, "prune_encoder: {}\n", e.what());
        return 2;
    }
    return 0;
}
