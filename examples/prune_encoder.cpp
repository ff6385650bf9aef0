// Prunes heads and filters of a BERT-type sentence encoder without retraining and without labels,
// writes the smaller model, loads it again, checks it, and reports.
#include "encoder/export/onnx.hpp"
#include "encoder/pruning/results.hpp"
#include "encoder/pruning/verify.hpp"
#include "encoder/report/progress.hpp"
#include "encoder/report/report.hpp"
#include "options.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace {

namespace fs = std::filesystem;
using namespace encoder;

struct arguments {
    fs::path model, calibrate, generic, evaluate, out, json, front, html;
    latency_options latency;
    std::optional<double> macs;
    std::string budget, batch = "32x128";
    // Of those:
    budget_kind kind = budget_kind::macs;
    double share = 0.5;
    encoder::tuning tuning = encoder::tuning::reconstruct;
    bool surgeon = true;                        // chooses, or Fisher information does
    fisher_source fisher = fisher_source::free; // or the source of the surgeon's gradients
    layer_widths widths = layer_widths::uneven;
    bool whole_heads = false, rearrange = false, onnx = false;
    std::optional<double> ridge; // of the kind of tuning
    bool code = false;           // is written beside the model
    std::size_t samples = 2048;
    std::uint64_t seed = 1;
    place where;
};

/// Returns whether there is anything to do (not for --help).
bool parse(int argc, char** argv, arguments& a) {
    options o("Prunes attention heads and FFN filters of a BERT-type encoder, with or without a "
              "head, to a share of its multiply-adds and writes the smaller model.");
    o.path("--model", a.model, "folder with config.json, model.safetensors and a tokenizer")
        ->required();
    o.path(
        "--calibrate", a.calibrate,
        "text, a document a line; for a model with a head one or two texts a line, by tabs, or for "
        "answers JSON as SQuAD has it; with --fisher labels, as --evaluate; may be left out to "
        "--export a model as it is");
    o.path(
        "--generic", a.generic,
        "text of all kinds, as --calibrate without labels: as many samples of it are calibrated on "
        "beside, where --calibrate is of one kind and the model is to be good at others too");
    o.number("--macs", a.macs, "share of the multiply-adds to keep")->default_str("0.5");
    o.add_option(
        "--budget", a.budget,
        "instead of --macs: macs=SHARE, params=SHARE (of heads and filters) or latency=SHARE "
        "(of the time of a forward pass, measured here)");
    o.add_option("--latency-batch", a.batch, "batches that are timed: sequences x tokens");
    o.path("--latency-times", a.latency.times,
           "file to keep times in, by machine and shape, so that they are measured once");
    o.add_flag("--latency-fit", a.latency.fitted,
               "price widths by a constant and a price a unit, fitted to the times");
    o.path("--evaluate", a.evaluate,
           "what to measure quality on, by tabs: a score and two texts, or for a model with a head "
           "a label (of one output, a score) and one or two texts; for a head on tokens a word and "
           "its tag, a blank line behind a sentence, or for answers JSON as SQuAD has it");
    o.word(
        "--tune", a.tuning,
        "what to refit behind the kept units: reconstruct (all weights and the bias), scale "
        "(one factor a unit) or none",
        {{"scale", tuning::scale}, {"reconstruct", tuning::reconstruct}, {"none", tuning::none}});
    o.word("--criterion", a.surgeon,
           "what to remove: surgeon (what a refit can best make up for) or fisher (the published "
           "criterion: what changes the output least as it is)",
           {{"surgeon", true}, {"fisher", false}});
    o.word("--fisher", a.fisher,
           "where gradients come from: free (random functions of the outputs), labels (for "
           "--criterion fisher; the surgeon takes free ones of the same texts), or none (forward "
           "passes only)",
           {{"free", fisher_source::free},
            {"labels", fisher_source::labels},
            {"none", fisher_source::none}});
    o.word("--widths", a.widths,
           "what layers keep: uneven (each its own), tied (as many heads in all, and as many "
           "filters) or equal (all heads, and as many filters in all, which transformers loads)",
           {{"uneven", layer_widths::uneven},
            {"tied", layer_widths::tied},
            {"equal", layer_widths::equal}});
    o.add_flag("--whole-heads", a.whole_heads,
               "keep heads as they are or not at all; else their queries and keys, and their "
               "values, may be made of fewer numbers, where there are gradients to choose them by");
    o.add_flag(
        "--rearrange", a.rearrange,
        "exchange units within layers against the block Fisher matrix; with --criterion fisher");
    o.number("--ridge", a.ridge, "ridge of the refit, relative to the mean variance of its inputs")
        ->default_str("0.1 for reconstruct, 1 for scale");
    o.number("--samples", a.samples, "most documents or pairs of --calibrate to use");
    o.number("--seed", a.seed, "seed of the choice of samples and of the random functions");
    o.where(a.where, "runs", "sums");
    o.path("--out", a.out, "folder to write the model to")
        ->default_str("MODEL-pruned, in this folder");
    o.add_flag("--transformers-code", a.code,
               "write modeling_pare.py there too, by which transformers loads layers of unequal "
               "widths, with trust_remote_code");
    o.word("--export", a.onnx,
           "none, or onnx: also write the model as an ONNX graph, to the name of --out and .onnx",
           {{"none", false}, {"onnx", true}});
    o.path("--json", a.json, "file to write the report to");
    o.path("--front", a.front,
           "file to write the widths of all budgets to, with the loss that the criterion expects");
    o.path("--html", a.html,
           "file to draw on what is kept and what budgets cost; prunes to some more budgets, to "
           "measure them");
    return o.read(argc, argv);
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

/// Whether heads may be made narrower than they are, where widths allow it.
bool narrows_heads(const arguments& a) {
    return a.surgeon && a.fisher != fisher_source::none && !a.whole_heads;
}

/// Empty if none is asked for.
fs::path onnx_file(const arguments& a) {
    if (!a.onnx) return {};
    fs::path file = a.out.has_filename() ? a.out : a.out.parent_path();
    for (const char* none : {"", ".", ".."})
        if (file.filename() == none)
            throw std::invalid_argument(fmt::format(
                "--out {} has no name that --export could add .onnx to", a.out.string()));
    return file += ".onnx";
}

/// Of a run that only exports. Options that say how to prune are not passed over.
void check_export(arguments& a) {
    if (!a.onnx) throw std::invalid_argument("--calibrate is required");
    const arguments none;
    if (a.macs || !a.budget.empty() || a.batch != none.batch || !a.evaluate.empty() ||
        !a.generic.empty() || !a.json.empty() || !a.front.empty() || !a.html.empty() ||
        !a.latency.times.empty() || a.latency.fitted || a.tuning != none.tuning ||
        a.surgeon != none.surgeon || a.fisher != none.fisher || a.widths != none.widths ||
        a.whole_heads || a.rearrange || a.ridge || a.code || a.samples != none.samples ||
        a.seed != none.seed)
        throw std::invalid_argument("--calibrate is required to prune; without it, --export goes "
                                    "with --model and --out alone");
    if (a.out.empty()) a.out = name_beside(a.model, "");
    check_outputs(model_inputs(a.model), {{"--export", onnx_file(a), &written_graph}});
}

/// Everything that can be known to be wrong before the work begins.
void check(arguments& a) {
    if (a.onnx) check_can_export();
    if (a.calibrate.empty()) {
        check_export(a);
        return;
    }
    if (a.macs && !a.budget.empty())
        throw std::invalid_argument("--macs and --budget are both there, expected one");
    read_budget(a);
    if (a.ridge && !(*a.ridge >= 0 && std::isfinite(*a.ridge)))
        throw std::invalid_argument(fmt::format("--ridge is {}, expected a number >= 0", *a.ridge));
    if (a.ridge && a.tuning == tuning::none)
        throw std::invalid_argument("--ridge goes with --tune reconstruct or scale");
    if (a.rearrange && a.surgeon)
        throw std::invalid_argument("--rearrange goes with --criterion fisher");
    if (a.kind != budget_kind::latency &&
        (a.latency.fitted || !a.latency.times.empty() || a.batch != arguments().batch))
        throw std::invalid_argument("--latency-batch, --latency-fit and --latency-times go with "
                                    "--budget latency=SHARE");
    if (!a.generic.empty() && a.fisher == fisher_source::labels && !a.surgeon)
        throw std::invalid_argument(
            "--generic has no labels, which --criterion fisher with --fisher labels needs");
    if (a.samples == 0) throw std::invalid_argument("--samples is 0, expected at least 1");
    if (a.out.empty()) a.out = name_beside(a.model, "-pruned");
    std::vector<program_input> inputs = model_inputs(a.model);
    inputs.push_back({"the text to calibrate on", a.calibrate});
    inputs.push_back({"the text of all kinds", a.generic});
    inputs.push_back({"the text to evaluate on", a.evaluate});
    check_outputs(inputs, {{"--out", a.out, &written_model},
                           {"--export", onnx_file(a), &written_graph},
                           {"--json", a.json},
                           {"--front", a.front},
                           {"--latency-times", a.latency.times},
                           {"--html", a.html}});
}

/// What speed is measured with: enough to keep the device busy.
std::int64_t texts_a_batch(const arguments& a) {
    return a.where.device == device_kind::cuda ? 256 : 32;
}

void export_to(output& file, const model& m) {
    if (!m.tokens.numbers.empty())
        say(fmt::format("{}: the graph drops no tokens, as the model does", file.name().string()));
    file.write(to_onnx(m));
    put_in_place({&file});
}

/// One run: what it reads, what the stages find, and what is measured of it.
class pruning {
  public:
    explicit pruning(const arguments& a)
        : a_(a), made_(make_engine(load_model(a.model), a.where.device, a.where.precision)),
          dense_(*made_), original_(dense_.model()), words_(a.model, original_.config),
          data_(read_calibration(a.calibrate, a.fisher == fisher_source::labels, a.samples, a.seed,
                                 words_, original_, a.generic)),
          costs_(unit_costs::multiply_adds(original_.config, data_.examples.texts)) {
        // Tokens that the model drops are kept here: which ones leave depends on the heads there
        // are.
        dense_.set_token_pruning({});
        check_budget(original_, unit_prices(a.kind, original_.config, costs_),
                     a.kind == budget_kind::latency ? 1 : a.share, a.widths, narrows_heads(a));
        if (a.evaluate.empty()) return;
        task_ = read_dataset(task_of(original_), a.evaluate, words_, original_);
        check_classes(*task_, a.evaluate, original_);
    }

    void run() {
        prune();
        // What is written and loaded again must say what the dense model says with masks over its
        // units.
        if (a_.code) small_.has_code = true;
        write_model(small_, a_.model, out_);
        r_.bytes_pruned = bytes_of_weights(out_.path());
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
        // The model first, so that a report always has its model; and it is there whatever becomes of
        // the graph.
        put_in_place({&out_, &json_, &front_, &html_});
        if (onnx_) write_graph(pruned->model());
        print(r_, a_.out);
        if (prices_->times) prices_->times->save();
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
                    return sublayer_losses(importance
                                               .emplace(dense_, data_, a_.fisher,
                                                        a_.tuning == tuning::reconstruct, a_.seed)
                                               .losses());
                const surgeon cuts(dense_, data_, a_.fisher, a_.seed);
                weights_ = cuts.weights();
                return cuts.losses();
            });
            if (!narrows_heads(a_)) losses_.queries.clear();
            found_units found = timed("search", [&] {
                return prices_.emplace(original_, dense_, a_.kind, a_.latency, costs_, a_.widths)
                    .search(losses_, a_.share);
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
        const std::unique_ptr<engine> masked = with_masks(dense_, original_, small_, kept_);
        by_dense_ = embed(dense_, texts(), "embed, dense");
        by_pruned_ = embed(pruned, texts(), "embed, pruned");
        const auto difference = [](const matrix& x, const matrix& y) {
            return static_cast<double>((x - y).cwiseAbs().maxCoeff());
        };
        r_.difference = difference(by_pruned_, embed(*masked, texts(), "embed, masked"));
        if (task_)
            r_.difference = std::max(
                r_.difference, difference(embed(pruned, data_.examples.texts, "verify, pruned"),
                                          embed(*masked, data_.examples.texts, "verify, masked")));
        if (const double most = tolerance(original_.stored_as, a_.where.precision, by_dense_);
            !(r_.difference <= most))
            throw std::runtime_error(
                fmt::format("the written model differs from the masked one by {:.2e} in an output, "
                            "more than {:.0e}",
                            r_.difference, most));
    }

    void measure(engine& pruned) {
        r_.macs_dense = costs_.of(original_);
        r_.macs_ratio = costs_.of(small_) / r_.macs_dense;
        r_.alike = likeness(original_, texts(), by_dense_, by_pruned_);
        if (task_) {
            r_.quality_dense = qualities(*task_, by_dense_);
            r_.quality_pruned = qualities(*task_, by_pruned_);
        }
        r_.texts_a_batch = texts_a_batch(a_);
        r_.speed = compare_speed(dense_, pruned, data_.examples.texts, r_.texts_a_batch);
        if (prices_->times) {
            r_.latency = {a_.share, prices_->times->share_of(small_)};
            if (a_.latency.fitted)
                r_.fits = {{"heads", prices_->times->fit(unit_kind::head)},
                           {"filters", prices_->times->fit(unit_kind::filter)}};
        }
        r_.parameters_dense = original_.parameters();
        r_.parameters_pruned = small_.parameters();
        r_.bytes_dense = bytes_of_weights(a_.model);
        r_.heads_dense = original_.heads();
        r_.heads = small_.heads();
        r_.queries_dense = original_.queries();
        r_.queries = small_.queries();
        r_.values_dense = original_.values();
        r_.values = small_.values();
        r_.filters_dense = original_.filters();
        r_.filters = small_.filters();
        r_.threads = threads();
        r_.texts = data_.examples.texts.size();
        r_.seconds["whole"] = whole_.seconds();
    }

    void draw(const std::vector<pricing::choice>& front) {
        const auto quality_of = [&](const matrix& outputs) {
            return task_ ? 100 * encoder::measure(*task_, outputs)
                         : likeness(original_, texts(), by_dense_, outputs).value;
        };
        std::vector<measured_budget> points = {
            {a_.share, quality_of(by_pruned_), r_.speed.tokens_per_second_pruned}};
        for (const double share : {0.8, 0.65, 0.5, 0.35}) {
            const double least = front.empty() ? 0 : front[0].share; // with room for times to vary
            if (std::abs(share - a_.share) < 0.05 || share < least + 0.1) continue;
            std::vector<std::string> notes;
            const std::unique_ptr<engine> other =
                dense_.make(refit(prices_->search(losses_, share).kept, notes));
            other->set_token_pruning({});
            points.push_back({share, quality_of(embed(*other, texts(), "embed, another budget")),
                              compare_speed(dense_, *other, data_.examples.texts, r_.texts_a_batch)
                                  .tokens_per_second_pruned});
        }
        html_.write(to_html(to_page(r_, a_.kind, front, points)));
    }

    void write_graph(const model& m) try {
        export_to(onnx_, m);
    } catch (const std::exception& error) {
        throw std::runtime_error(
            fmt::format("{}; the pruned model is in {}", error.what(), a_.out.string()));
    }

    const progress whole_{"", 1}; // a clock
    const arguments& a_;
    output out_{a_.out, written_model}, onnx_{onnx_file(a_), written_graph}, json_{a_.json},
        front_{a_.front}, html_{a_.html};
    const std::unique_ptr<engine> made_;
    engine& dense_;
    const model& original_;
    const tokenizer words_;
    const calibration data_;
    const unit_costs costs_;
    std::optional<dataset> task_;

    sublayer_losses losses_;
    std::vector<pare::sublayer_statistics> weights_; // of tokens
    std::optional<pricing> prices_;
    kept_units kept_;
    model small_;
    matrix by_dense_, by_pruned_; // what they give for texts()
    pruning_results r_{};
};

/// The model as it is.
void export_model(const arguments& a) {
    output file(onnx_file(a), written_graph);
    export_to(file, load_model(a.model));
    fmt::print("{}: the model in {} as an ONNX graph\n", file.name().string(), a.model.string());
}

} // namespace

int main(int argc, char** argv) {
    return exit_status("prune_encoder", [&] {
        arguments a;
        if (!parse(argc, argv, a)) return;
        check(a);
        set_threads(a.where.threads);
        a.calibrate.empty() ? export_model(a) : pruning(a).run();
    });
}
