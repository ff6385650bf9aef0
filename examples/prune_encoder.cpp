// Prunes heads and filters of a BERT-type sentence encoder without retraining and without labels,
// writes the smaller model, loads it again, checks it, and reports.
#include "encoder/files/output.hpp"
#include "encoder/gpu/device.hpp"
#include "encoder/pruning/latency.hpp"
#include "encoder/pruning/prune.hpp"
#include "encoder/report/page.hpp"
#include "encoder/report/progress.hpp"
#include "encoder/report/report.hpp"
#include "encoder/task/evaluate.hpp"
#include "encoder/task/task.hpp"
#include "options.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <optional>

namespace {

namespace fs = std::filesystem;
using namespace encoder;

enum class budget_kind { macs, parameters, latency };

struct arguments {
    fs::path model, calibrate, evaluate, out, json, front, html;
    latency_options latency;
    std::optional<double> macs;
    std::string budget, batch = "32x128";
    // Of those:
    budget_kind kind = budget_kind::macs;
    double share = 0.5;
    encoder::tuning tuning = encoder::tuning::reconstruct;
    bool surgeon = true;                        // chooses, or Fisher information does
    fisher_source fisher = fisher_source::free; // or the source of the surgeon's gradients
    bool rearrange = false;
    std::optional<double> ridge; // of the kind of tuning
    std::size_t samples = 2048;
    std::uint64_t seed = 1;
    int threads = 0;
    device_kind device = device_kind::cpu;
    encoder::precision precision = encoder::precision::fp32;
};

/// Returns whether there is anything to do (not for --help).
bool parse(int argc, char** argv, arguments& a) {
    CLI::App app("Prunes attention heads and FFN filters of a BERT-type encoder, with or without a "
                 "classifier, to a share of its multiply-adds and writes the smaller model.");
    app.option_defaults()->always_capture_default();
    app.add_option("--model", a.model, "folder with config.json, model.safetensors and vocab.txt")
        ->check(path_text())
        ->required();
    app.add_option("--calibrate", a.calibrate,
                   "text, a document a line; with --fisher labels: score, text, text, by tabs; for "
                   "a classifier: text[, text], with --fisher labels behind a label")
        ->check(path_text())
        ->required();
    app.add_option("--macs", a.macs, "share of the multiply-adds to keep")
        ->check(real_number())
        ->default_str("0.5");
    app.add_option("--budget", a.budget,
                   "instead of --macs: macs=SHARE, params=SHARE (of heads and filters) or "
                   "latency=SHARE (of the time of a forward pass, measured here)");
    app.add_option("--latency-batch", a.batch, "sequences x tokens that latency is of");
    app.add_option("--latency-times", a.latency.times,
                   "file to keep times in, by machine and shape, so that they are measured once")
        ->check(path_text());
    app.add_flag("--latency-fit", a.latency.fitted,
                 "price widths by a constant and a price a unit, fitted to the times");
    app.add_option("--evaluate", a.evaluate,
                   "to measure quality on: score, text, text, by tabs; for a classifier: label, "
                   "text[, text]")
        ->check(path_text());
    app.add_option("--tune", a.tuning,
                   "refit what reads the kept units: scale (one factor a unit) or reconstruct (all "
                   "weights)")
        ->transform(CLI::Transformer(
            std::map<std::string, encoder::tuning>{{"scale", tuning::scale},
                                                   {"reconstruct", tuning::reconstruct},
                                                   {"none", tuning::none}}))
        ->default_str("reconstruct");
    app.add_option("--criterion", a.surgeon,
                   "what to remove: surgeon (what least squares can make up for) or fisher (what "
                   "changes the output least as it is)")
        ->transform(
            CLI::Transformer(std::map<std::string, bool>{{"surgeon", true}, {"fisher", false}}))
        ->default_str("surgeon");
    app.add_option("--fisher", a.fisher,
                   "gradients of: free (random functions of the outputs, no labels), labels, none "
                   "(forward passes only)")
        ->transform(
            CLI::Transformer(std::map<std::string, fisher_source>{{"free", fisher_source::free},
                                                                  {"labels", fisher_source::labels},
                                                                  {"none", fisher_source::none}}))
        ->default_str("free");
    app.add_flag("--rearrange", a.rearrange,
                 "exchange units within layers against the block Fisher matrix; with --criterion "
                 "fisher");
    app.add_option("--ridge", a.ridge, "of the tuning, relative to the inputs' mean variance")
        ->check(real_number())
        ->default_str("0.1 for reconstruct, 0.01 for scale");
    app.add_option("--samples", a.samples, "most documents (or pairs) of --calibrate that are used")
        ->check(natural_number());
    app.add_option("--seed", a.seed, "of the choice of samples and of the random projections")
        ->check(natural_number());
    app.add_option("--threads", a.threads, "0: as many as there are processors")
        ->check(whole_number());
    app.add_option("--device", a.device, "where the encoder runs: cpu, or cuda")
        ->transform(CLI::Transformer(std::map<std::string, device_kind>{
            {"cpu", device_kind::cpu}, {"cuda", device_kind::cuda}}))
        ->default_str("cpu");
    app.add_option("--precision", a.precision,
                   "of weights and activations there: fp32, or with --device cuda fp16 or bf16")
        ->transform(CLI::Transformer(std::map<std::string, encoder::precision>{
            {"fp32", precision::fp32}, {"fp16", precision::fp16}, {"bf16", precision::bf16}}))
        ->default_str("fp32");
    app.add_option("--out", a.out, "folder to write")
        ->check(path_text())
        ->default_str("MODEL-pruned, in this folder");
    app.add_option("--json", a.json, "file to write the report to")->check(path_text());
    app.add_option("--front", a.front,
                   "file to write the widths of all budgets to, with the loss that the criterion "
                   "expects")
        ->check(path_text());
    app.add_option("--html", a.html,
                   "file to draw on what is kept and what budgets cost; prunes to some more, to "
                   "measure them")
        ->check(path_text());
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() != 0) throw;
        app.exit(e); // --help
        return false;
    }
    return true;
}

/// What --macs or --budget and --latency-batch say.
void read_budget(arguments& a) {
    const char* option = "--macs";
    if (a.macs) a.share = *a.macs;
    if (!a.budget.empty()) {
        option = "--budget";
        const auto equals = a.budget.find('=');
        const std::map<std::string, budget_kind> kinds = {{"macs", budget_kind::macs},
                                                          {"params", budget_kind::parameters},
                                                          {"latency", budget_kind::latency}};
        const auto kind = kinds.find(a.budget.substr(0, equals));
        const std::string share = equals == a.budget.npos ? "" : a.budget.substr(equals + 1);
        if (kind == kinds.end() || !read_number(share, a.share))
            throw std::invalid_argument(fmt::format(
                "--budget is '{}', expected macs=SHARE, params=SHARE or latency=SHARE", a.budget));
        a.kind = kind->second;
    }
    if (!(a.share > 0 && a.share <= 1))
        throw std::invalid_argument(
            fmt::format("{} is {}, expected a share in (0, 1]", option, a.share));
    const auto times = a.batch.find('x');
    if (times == a.batch.npos || !read_number(a.batch.substr(0, times), a.latency.sequences) ||
        !read_number(a.batch.substr(times + 1), a.latency.tokens) || a.latency.sequences < 1 ||
        a.latency.tokens < 1)
        throw std::invalid_argument(
            fmt::format("--latency-batch is '{}', expected SEQUENCESxTOKENS", a.batch));
}

/// Everything that can be known to be wrong before the work begins.
void check(arguments& a) {
    if (a.macs && !a.budget.empty())
        throw std::invalid_argument("--macs and --budget are both there, expected one");
    read_budget(a);
    if (a.ridge && !(*a.ridge >= 0 && std::isfinite(*a.ridge)))
        throw std::invalid_argument(fmt::format("--ridge is {}, expected a number >= 0", *a.ridge));
    if (a.rearrange && a.surgeon)
        throw std::invalid_argument("--rearrange goes with --criterion fisher");
    if (a.kind != budget_kind::latency && (a.latency.fitted || !a.latency.times.empty()))
        throw std::invalid_argument(
            "--latency-fit and --latency-times go with --budget latency=SHARE");
    if (a.samples == 0) throw std::invalid_argument("--samples is 0, expected at least 1");
    if (a.out.empty()) a.out = name_beside(a.model, "-pruned");
    std::vector<program_input> inputs = model_inputs(a.model);
    inputs.push_back({"the text to calibrate on", a.calibrate});
    inputs.push_back({"the text to evaluate on", a.evaluate});
    check_outputs(inputs, {{"--out", a.out, &written_model},
                           {"--json", a.json},
                           {"--front", a.front},
                           {"--latency-times", a.latency.times},
                           {"--html", a.html}});
}

/// What speed is measured with: enough to keep the device busy.
std::int64_t texts_a_batch(const arguments& a) {
    return a.device == device_kind::cuda ? 256 : 32;
}

/// Largest difference of two outputs that rounding explains, for weights stored as `type` and used
/// in that precision: embeddings of length 1, or logits.
double tolerance(data_type type, precision used, const matrix& outputs) {
    double unit = 1e-4;
    if (type == data_type::f16 || used == precision::fp16) unit = 5e-3;
    if (type == data_type::bf16 || used == precision::bf16) unit = 4e-2;
    return unit * std::max(1., static_cast<double>(outputs.cwiseAbs().maxCoeff()));
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

engine::masks factors(const kept_units& kept) {
    engine::masks all;
    const auto convert = [](const std::vector<std::vector<std::uint8_t>>& some,
                            std::vector<vector>& out) {
        for (const auto& mask : some) {
            out.emplace_back(static_cast<Eigen::Index>(mask.size()));
            std::copy(mask.begin(), mask.end(), out.back().begin());
        }
    };
    convert(kept.heads, all.heads);
    convert(kept.filters, all.filters);
    return all;
}

struct quality {
    const char* name;
    double value;
};
/// Of a network's outputs for a task's texts, the first one to be drawn.
std::vector<quality> qualities(const dataset& task, const matrix& outputs) {
    if (!task.pairs) return {{"Accuracy", measure(task, outputs)}};
    const correlations found = correlate(*task.pairs, outputs);
    return {{"Spearman", found.spearman}, {"Pearson", found.pearson}};
}

/// How alike a network's outputs are to the dense one's.
quality likeness(const model& m, const matrix& dense, const matrix& pruned) {
    return m.classifier ? quality{"same class as dense", same_class(dense, pruned)}
                        : quality{"cosine to dense", mean_cosine(dense, pruned)};
}

/// As a key in the report: small letters and no spaces.
std::string key_of(std::string name) {
    for (char& c : name)
        c = c == ' ' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name;
}

/// What the run has found out, for the report and the table.
struct results {
    double macs_dense, macs_ratio;
    std::int64_t parameters_dense, parameters_pruned;
    std::uintmax_t bytes_dense, bytes_pruned;
    std::vector<Eigen::Index> heads_dense, heads, filters_dense, filters;
    std::vector<quality> quality_dense, quality_pruned;
    quality alike;
    double difference;
    double loss_expected, loss_bound; // by the criterion
    struct promise {
        double promised, achieved;
    };
    std::optional<promise> latency; // by the dense model's
    std::map<const char*, pare::hinge_cost> fits;
    encoder::speed speed;
    std::map<std::string, double> seconds;
    int threads;
    std::size_t texts;
    std::vector<std::string> notes;
};

nlohmann::ordered_json to_json(const results& r) {
    nlohmann::ordered_json report;
    report["macs_ratio"] = r.macs_ratio;
    report["params_dense"] = r.parameters_dense;
    report["params_pruned"] = r.parameters_pruned;
    report["bytes_dense"] = r.bytes_dense;
    report["bytes_pruned"] = r.bytes_pruned;
    for (std::size_t i = 0; i < r.quality_dense.size(); ++i) {
        const std::string name = key_of(r.quality_dense[i].name);
        report[name + "_dense"] = number(r.quality_dense[i].value);
        report[name + "_pruned"] = number(r.quality_pruned[i].value);
    }
    report[key_of(r.alike.name)] = number(r.alike.value);
    report["difference_to_masked"] = r.difference;
    report["loss_expected"] = r.loss_expected;
    report["loss_bound"] = r.loss_bound;
    for (const char* stage : {"fisher", "search", "rearrange", "tune", "total"})
        report[std::string("seconds_") + stage] = r.seconds.at(stage);
    report["peak_rss_mb"] = peak_memory_mb();
    report["tokens_per_s_dense"] = r.speed.tokens_per_second_dense;
    report["tokens_per_s_pruned"] = r.speed.tokens_per_second_pruned;
    report["speedup"] = r.speed.speedup;
    if (r.latency) {
        report["latency_promised"] = r.latency->promised;
        report["latency_achieved"] = r.latency->achieved;
    }
    for (const auto& [units, fit] : r.fits)
        report[std::string("latency_") + units] = {{"constant", fit.constant},
                                                   {"each", fit.each},
                                                   {"knee", fit.knee},
                                                   {"error", fit.error}};
    report["threads"] = r.threads;
    report["heads_kept"] = r.heads;
    report["filters_kept"] = r.filters;
    report["untuned"] = r.notes;
    return report;
}

void print(const results& r, const fs::path& out) {
    fmt::print("\nlayer  heads kept                        filters kept\n");
    for (std::size_t l = 0; l < r.heads.size(); ++l)
        fmt::print("{:>5}  {} {:>3} of {:<4}  {} {:>5} of {}\n", l,
                   bar_of(r.heads[l], r.heads_dense[l]), r.heads[l], r.heads_dense[l],
                   bar_of(r.filters[l], r.filters_dense[l]), r.filters[l], r.filters_dense[l]);
    fmt::print("\n{:<22}{:>14}{:>14}{:>10}\n", "", "dense", "pruned", "ratio");
    const auto row = [](const char* name, double before, double after, int digits) {
        fmt::print("{:<22}{:>14.{}f}{:>14.{}f}{:>10.3f}\n", name, before, digits, after, digits,
                   after / before);
    };
    row("MACs a text, millions", r.macs_dense / 1e6, r.macs_ratio * r.macs_dense / 1e6, 1);
    row("parameters", static_cast<double>(r.parameters_dense),
        static_cast<double>(r.parameters_pruned), 0);
    row("bytes", static_cast<double>(r.bytes_dense), static_cast<double>(r.bytes_pruned), 0);
    for (std::size_t i = 0; i < r.quality_dense.size(); ++i)
        row((std::string(r.quality_dense[i].name) + " x 100").c_str(),
            100 * r.quality_dense[i].value, 100 * r.quality_pruned[i].value, 2);
    row("tokens/s", r.speed.tokens_per_second_dense, r.speed.tokens_per_second_pruned, 0);
    fmt::print("\n{:<23}{:.4f}\n", r.alike.name, r.alike.value);
    fmt::print("expected loss          {:.4g}; no choice in the budget loses less than {:.4g}\n",
               r.loss_expected, r.loss_bound);
    fmt::print("speedup                {:.3f}, of {:.3f} that the MACs allow\n", r.speed.speedup,
               1 / r.macs_ratio);
    if (r.latency)
        fmt::print("latency                {:.3f} of the dense model's, promised {:.3f}: {:.3f} of "
                   "the promise\n",
                   r.latency->achieved, r.latency->promised,
                   r.latency->achieved / r.latency->promised);
    for (const auto& [units, fit] : r.fits)
        fmt::print(
            "latency of {:<12}{:.4f} of the dense model's, and {:.5f} for each beyond {}; off "
            "by up to {:.4f}\n",
            units, fit.constant, fit.each, fit.knee, fit.error);
    fmt::print("agrees with masked     within {:.1e} in every output\n", r.difference);
    fmt::print(
        "seconds of pruning     {:.1f} = criterion {:.1f} + search {:.1f} + rearrange {:.1f} + "
        "tune {:.1f}; "
        "with checks {:.1f}\n",
        r.seconds.at("total"), r.seconds.at("fisher"), r.seconds.at("search"),
        r.seconds.at("rearrange"), r.seconds.at("tune"), r.seconds.at("whole"));
    fmt::print("peak memory            {:.0f} MB\ncalibration            {} texts\n",
               peak_memory_mb(), r.texts);
    for (const std::string& note : r.notes) fmt::print("note: {}\n", note);
    fmt::print("written                {}\n", out.string());
}

/// What the budget is a share of.
class pricing {
  public:
    /// Of latency, times a few widths.
    pricing(const model& m, const engine& dense, const arguments& a, const unit_costs& macs)
        : model_(m),
          counts_(a.kind == budget_kind::parameters ? unit_costs::parameters(m.config) : macs) {
        if (a.kind == budget_kind::latency) times.emplace(dense, a.latency);
    }

    found_units search(const std::vector<pare::loss_curve>& losses, double share) {
        return times ? encoder::search(model_, losses, *times, share)
                     : encoder::search(model_, losses, counts_, share);
    }

    struct choice {
        double share, loss; ///< as the criterion expects it
        std::vector<pare::index_t> kept;
    };
    /// The least loss for every share.
    std::vector<choice> front(const std::vector<pare::loss_curve>& losses) const {
        const auto cost = [&](std::size_t l, unit_kind kind) {
            return times ? times->table(l, kind) : counts_.table(model_, l, kind);
        };
        const double rest = times ? times->rest() : 0,
                     whole = times ? times->dense() : counts_.of(model_);
        std::vector<choice> choices;
        for (const pare::width_choice& c :
             pare::width_search(prunables(model_, losses, cost)).front())
            choices.push_back({(c.cost + rest) / whole, c.loss, c.kept});
        return choices;
    }

    std::optional<latency> times;

  private:
    const model& model_;
    unit_costs counts_;
};

nlohmann::ordered_json to_json(const std::vector<pricing::choice>& front) {
    nlohmann::ordered_json points = nlohmann::json::array();
    for (const pricing::choice& c : front) {
        nlohmann::ordered_json point;
        point["share"] = c.share;
        point["loss"] = c.loss;
        for (std::size_t i = 0; i < c.kept.size(); ++i)
            point[i % 2 == 0 ? "heads" : "filters"].push_back(c.kept[i]);
        points.push_back(std::move(point));
    }
    return points;
}

/// A model of another budget, pruned to be measured.
struct measured {
    double share, quality, tokens_per_second;
};

page to_page(const results& r, const arguments& a, const std::vector<pricing::choice>& front,
             const std::vector<measured>& points) {
    const std::map<budget_kind, const char*> costs = {
        {budget_kind::macs, "multiply-adds"},
        {budget_kind::parameters, "parameters of heads and filters"},
        {budget_kind::latency, "time"}};
    const std::string cost = costs.at(a.kind);
    const bool measures = !r.quality_dense.empty();
    const std::string metric = measures ? r.quality_dense[0].name : r.alike.name;
    page p;
    p.title = "Heads and filters that are gone";
    p.summary = fmt::format("{:.1f} % of the multiply-adds, {:.2f} times as fast",
                            100 * r.macs_ratio, r.speed.speedup);
    if (measures)
        p.facts = {{metric + ", dense", fmt::format("{:.2f}", 100 * r.quality_dense[0].value)},
                   {metric + ", pruned", fmt::format("{:.2f}", 100 * r.quality_pruned[0].value)}};
    p.facts.push_back({r.alike.name, fmt::format("{:.4f}", r.alike.value)});
    p.facts.push_back({"speedup", fmt::format("{:.2f}", r.speed.speedup)});
    p.facts.push_back({"share of parameters",
                       fmt::format("{:.3f}", static_cast<double>(r.parameters_pruned) /
                                                 static_cast<double>(r.parameters_dense))});
    const auto shares = [](const std::vector<Eigen::Index>& kept,
                           const std::vector<Eigen::Index>& of) {
        std::vector<double> all;
        for (std::size_t l = 0; l < kept.size(); ++l)
            all.push_back(static_cast<double>(kept[l]) /
                          static_cast<double>(std::max<Eigen::Index>(1, of[l])));
        return all;
    };
    p.charts = {{"Heads kept, layer by layer", "Share of the dense layer's attention heads.",
                 "heads are kept", shares(r.heads, r.heads_dense)},
                {"Filters kept, layer by layer", "Share of the dense layer's FFN filters.",
                 "filters are kept", shares(r.filters, r.filters_dense)}};
    const auto plot = [&](const char* title, const std::string& about, const std::string& of,
                          double whole) {
        page::plot q;
        q.title = title;
        q.about = about;
        q.cost = cost;
        q.metric = of;
        q.whole = whole;
        q.whole_name = "dense";
        return q;
    };
    page::plot quality =
        plot("Quality and cost", "Measured on models pruned to some budgets, this one among them.",
             metric, measures ? 100 * r.quality_dense[0].value : 1);
    page::plot speed =
        plot("Speed and cost",
             fmt::format("Of the same models, in batches of {} texts.", texts_a_batch(a)),
             "tokens/s", r.speed.tokens_per_second_dense);
    page::plot expected =
        plot("What the criterion expects",
             "The least loss that the search finds for each budget, of all heads and filters gone.",
             "share of the loss", NAN);
    quality.curves = {{"pruned", {}}};
    speed.curves = {{"pruned", {}}};
    expected.curves = {{"expected", {}}};
    for (const measured& at : points) {
        quality.curves[0].points.push_back({at.share, at.quality});
        speed.curves[0].points.push_back({at.share, at.tokens_per_second});
    }
    double last = -1;
    for (const pricing::choice& c : front)
        if (c.share > last + 0.02) {
            expected.curves[0].points.push_back({c.share, c.loss / front.front().loss});
            last = c.share;
        }
    p.plots = {quality, speed, expected};
    return p;
}

/// One run: what it reads, what the stages find, and what is measured of it.
class pruning {
  public:
    explicit pruning(const arguments& a)
        : a_(a), original_(load_model(a.model)),
          words_(a.model / "vocab.txt", original_.config.lower_case, original_.config.vocabulary),
          data_(read_calibration(a.calibrate, a.fisher == fisher_source::labels, a.samples, a.seed,
                                 words_, original_)),
          costs_(unit_costs::multiply_adds(original_.config, data_.examples.texts)),
          made_(make_engine(original_, a.device, a.precision)), dense_(*made_) {
        // Tokens that the model drops are kept here: which ones leave depends on the heads there
        // are.
        dense_.set_token_pruning({});
        if (a.evaluate.empty()) return;
        task_ = read_dataset(original_.classifier ? task_kind::classify : task_kind::similarity,
                             a.evaluate, words_, original_.config);
        check_classes(*task_, a.evaluate, original_);
    }

    void run() {
        prune();
        // What is written and loaded again must say what the dense model says with masks over its
        // units.
        write_model(small_, a_.model, out_);
        r_.bytes_pruned = fs::file_size(out_.path() / "model.safetensors");
        const std::unique_ptr<engine> pruned = dense_.make(load_model(out_.path()));
        pruned->set_token_pruning({});
        verify(*pruned);
        measure(*pruned);
        if (json_) json_.write(to_text(to_json(r_)));
        if (front_ || html_) {
            const std::vector<pricing::choice> front = prices_->front(losses_);
            if (front_) front_.write(to_text(to_json(front)));
            if (html_) draw(front);
        }
        if (prices_->times) prices_->times->save();
        // The model first, so that a report always has its model.
        put_in_place({&out_, &json_, &front_, &html_});
        print(r_, a_.out);
    }

  private:
    /// What is measured on: the task's texts, or those of the calibration.
    const std::vector<sequence>& texts() const {
        return task_ ? measured_texts(*task_) : data_.examples.texts;
    }

    /// What work() returns, its seconds noted.
    template <class Work>
    auto timed(const char* stage, const Work& work) {
        const progress clock("", 1);
        auto result = work();
        r_.seconds[stage] = clock.seconds();
        return result;
    }

    void prune() {
        small_ = timed("total", [&] {
            std::optional<criterion> importance;
            losses_ = timed("fisher", [&] {
                if (!a_.surgeon)
                    return importance
                        .emplace(dense_, data_, a_.fisher, a_.tuning == tuning::reconstruct,
                                 a_.seed)
                        .losses();
                const surgeon cuts(dense_, data_, a_.fisher, a_.seed);
                weights_ = cuts.weights();
                return cuts.losses();
            });
            found_units found = timed("search", [&] {
                return prices_.emplace(original_, dense_, a_, costs_).search(losses_, a_.share);
            });
            r_.loss_expected = found.loss;
            r_.loss_bound = found.bound;
            kept_ = std::move(found.kept);
            timed("rearrange", [&] { return a_.rearrange ? rearrange(*importance, kept_) : 0; });
            return timed("tune", [&] { return refit(kept_, r_.notes); });
        });
    }

    model refit(const kept_units& kept, std::vector<std::string>& notes) {
        return tune(dense_, kept, data_.all(), a_.tuning,
                    a_.ridge.value_or(default_ridge(a_.tuning)), notes, weights_);
    }

    void verify(engine& pruned) {
        const std::unique_ptr<engine> wide = dense_.make(expand(original_, small_, kept_));
        engine& masked = *wide;
        masked.set_masks(factors(kept_));
        masked.set_token_pruning({});
        by_dense_ = embed(dense_, texts(), "embed, dense");
        by_pruned_ = embed(pruned, texts(), "embed, pruned");
        const auto difference = [](const matrix& x, const matrix& y) {
            return static_cast<double>((x - y).cwiseAbs().maxCoeff());
        };
        r_.difference = difference(by_pruned_, embed(masked, texts(), "embed, masked"));
        if (task_)
            r_.difference = std::max(
                r_.difference, difference(embed(pruned, data_.examples.texts, "verify, pruned"),
                                          embed(masked, data_.examples.texts, "verify, masked")));
        if (const double most = tolerance(original_.stored_as, a_.precision, by_dense_);
            !(r_.difference <= most))
            throw std::runtime_error(
                fmt::format("the written model differs from the masked one by {:.2e} in an output, "
                            "more than {:.0e}",
                            r_.difference, most));
    }

    void measure(engine& pruned) {
        r_.macs_dense = costs_.of(original_);
        r_.macs_ratio = costs_.of(small_) / r_.macs_dense;
        r_.alike = likeness(original_, by_dense_, by_pruned_);
        if (task_) {
            r_.quality_dense = qualities(*task_, by_dense_);
            r_.quality_pruned = qualities(*task_, by_pruned_);
        }
        r_.speed = compare_speed(dense_, pruned, data_.examples.texts, texts_a_batch(a_));
        if (prices_->times) {
            r_.latency = {a_.share, prices_->times->share_of(small_)};
            if (a_.latency.fitted)
                r_.fits = {{"heads", prices_->times->fit(unit_kind::head)},
                           {"filters", prices_->times->fit(unit_kind::filter)}};
        }
        r_.parameters_dense = original_.parameters();
        r_.parameters_pruned = small_.parameters();
        r_.bytes_dense = fs::file_size(a_.model / "model.safetensors");
        r_.heads_dense = count(original_, unit_kind::head);
        r_.heads = count(small_, unit_kind::head);
        r_.filters_dense = count(original_, unit_kind::filter);
        r_.filters = count(small_, unit_kind::filter);
        r_.threads = threads();
        r_.texts = data_.examples.texts.size();
        r_.seconds["whole"] = whole_.seconds();
    }

    void draw(const std::vector<pricing::choice>& front) {
        const auto quality_of = [&](const matrix& outputs) {
            return task_ ? 100 * encoder::measure(*task_, outputs)
                         : likeness(original_, by_dense_, outputs).value;
        };
        std::vector<measured> points = {
            {a_.share, quality_of(by_pruned_), r_.speed.tokens_per_second_pruned}};
        for (const double share : {0.8, 0.65, 0.5, 0.35}) {
            const double least = front.empty() ? 0 : front[0].share; // with room for times to vary
            if (std::abs(share - a_.share) < 0.05 || share < least + 0.1) continue;
            std::vector<std::string> notes;
            const std::unique_ptr<engine> made =
                dense_.make(refit(prices_->search(losses_, share).kept, notes));
            engine& other = *made;
            other.set_token_pruning({});
            points.push_back({share, quality_of(embed(other, texts(), "embed, another budget")),
                              compare_speed(dense_, other, data_.examples.texts, texts_a_batch(a_))
                                  .tokens_per_second_pruned});
        }
        html_.write(to_html(to_page(r_, a_, front, points)));
    }

    const progress whole_{"", 1}; // a clock
    const arguments& a_;
    output out_{a_.out, written_model}, json_{a_.json}, front_{a_.front}, html_{a_.html};
    const model original_;
    const tokenizer words_;
    const calibration data_;
    const unit_costs costs_;
    std::optional<dataset> task_;
    const std::unique_ptr<engine> made_;
    engine& dense_;

    std::vector<pare::loss_curve> losses_;
    std::vector<pare::sublayer_statistics> weights_; // of tokens
    std::optional<pricing> prices_;
    kept_units kept_;
    model small_;
    matrix by_dense_, by_pruned_; // what they give for texts()
    results r_;
};

} // namespace

int main(int argc, char** argv) {
    return exit_status("prune_encoder", [&] {
        arguments a;
        if (!parse(argc, argv, a)) return;
        check(a);
        set_threads(a.threads);
        pruning(a).run();
    });
}
