// Learns which tokens a BERT-type encoder can drop, layer by layer, for a task or for its
// embeddings as they are; writes the model with its thresholds, loads it again, checks it, and
// reports.
#include "encoder/files/heads.hpp"
#include "encoder/gpu/device.hpp"
#include "encoder/report/progress.hpp"
#include "encoder/report/report.hpp"
#include "encoder/training/baselines.hpp"
#include "options.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace {

namespace fs = std::filesystem;
using namespace encoder;
using rule = token_pruning::rule;

/// What becomes of a token that leaves.
enum class leaving {
    guessed, ///< counts in the mean as what it would have become, as far as an exit can tell
    carried, ///< counts in the mean as what it was
    gone
};

struct arguments {
    fs::path model, train, dev, evaluate, out, json, html;
    task_kind task = task_kind::distill;
    recipe how;
    std::vector<stage_kind> stages;
    std::vector<double> epochs;
    std::vector<double> rates;
    bool labels = false; // to learn which tokens can leave
    leaving dropped = leaving::guessed;
    pare::score_scale scores = pare::score_scale::relative;
    double alpha = 1;
    std::vector<std::string> baselines;
    place where;
};

/// Returns whether there is anything to do (not for --help).
bool parse(int argc, char** argv, arguments& a) {
    options o("Learns thresholds by which a BERT-type encoder drops tokens while it runs, and "
              "weights that suit them.");
    o.path("--model", a.model, "folder with config.json, model.safetensors and a tokenizer")
        ->required();
    o.word("--task", a.task,
           "what to keep: distill (the outputs as they are: embeddings, or a head's), classify, "
           "regress, tag, answer or similarity",
           {{"classify", task_kind::classify},
            {"regress", task_kind::regress},
            {"tag", task_kind::tag},
            {"answer", task_kind::answer},
            {"similarity", task_kind::similarity},
            {"distill", task_kind::distill}});
    o.path(
         "--train", a.train,
         "distill: text, a document a line, or for a head one or two texts, by tabs; classify: a "
         "label and one or two texts, by tabs; regress: a score and those; tag: a word and its tag "
         "a line, a blank one behind a sentence; answer: JSON as SQuAD has it, also to distill; "
         "similarity: a score and two texts")
        ->required();
    o.path("--dev", a.dev,
           "what to measure the curve on, as --train; to distill, with what the outputs should be: "
           "a score and two texts, or for a head as to classify, regress, tag or answer");
    o.path("--evaluate", a.evaluate, "what to measure the result on, as --dev");
    o.words("--stage", a.stages,
            "stages, by commas: calibrate (thresholds from a sample, without training), "
            "finetune, soft, hard",
            {{"calibrate", stage_kind::calibrate},
             {"finetune", stage_kind::finetune},
             {"soft", stage_kind::soft},
             {"hard", stage_kind::hard}})
        ->default_str("soft,hard to distill, else finetune,soft,hard");
    o.number("--epochs", a.epochs,
             "epochs of each stage but calibrate, by commas; 0.5 is half of one")
        ->delimiter(',')
        ->default_str("2 to finetune, 0.5 for soft, 1.5 for hard");
    o.number("--rate", a.rates,
             "learning rate of each stage but calibrate, by commas, or one of all; with 0, soft "
             "learns thresholds alone")
        ->delimiter(',')
        ->default_str("0 for soft; 1e-4 to finetune and with --labels, 2e-4 for a head, 5e-5 times "
                      "the root of the stage's steps up to 1e-3 for embeddings, all times 384 / "
                      "width for models wider than that");
    o.add_flag("--labels", a.labels,
               "soft and hard learn from labels too, not from what the dense model gives");
    o.number("--target-macs", a.how.target,
             "share of the dense multiply-adds to reach; finds lambda by itself")
        ->default_str("0.5 without --lambda");
    o.number("--lambda", a.how.lambda,
             "if above 0, a fixed price of all tokens in the loss, instead of --target-macs");
    o.number("--temperature", a.how.temperature, "temperature of the soft masks in the end");
    o.number("--alpha", a.alpha, "factor of all thresholds of the written model; 0 makes it dense");
    o.word("--dropped", a.dropped,
           "what a dropped token counts for in mean pooling and what its tag is made of: guessed "
           "(what it would have become), carried (what it was) or, in the mean, gone",
           {{"guessed", leaving::guessed}, {"carried", leaving::carried}, {"gone", leaving::gone}});
    o.word(
        "--scores", a.scores,
        "scale of scores and thresholds: relative (mean 1 at any length) or per_query (mean 1 / "
        "length)",
        {{"relative", pare::score_scale::relative}, {"per_query", pare::score_scale::per_query}});
    o.number("--threshold-rate", a.how.threshold_rate, "learning rate of thresholds");
    o.number("--batch", a.how.batch, "examples of a step");
    o.number("--seed", a.how.seed, "seed of the order of examples");
    o.words(
         "--baselines", a.baselines,
         "other rules to train for as long, by commas: calibrated, hand-set (thresholds), top-k, "
         "schedule (a fixed one)",
         baseline_names)
        ->default_str("none");
    o.where(a.where, "runs and learns", "gradients of weights, and what steps add up,");
    o.path("--out", a.out, "folder to write the model to")
        ->default_str("MODEL-tokens, in this folder");
    o.path("--json", a.json, "file to write the report to");
    o.path("--html", a.html, "file to draw on which tokens leave, and what that costs");
    return o.read(argc, argv);
}

void refuse(const char* option, double value, const char* expected) {
    throw std::invalid_argument(fmt::format("{} is {}, expected {}", option, value, expected));
}

/// A step of Adam's moves every weight by about the rate, so that what a sum of products moves by grows
/// with the width: twice as wide, half the rate (arXiv:2203.03466). First steps, of which Adam knows
/// only signs, do harm that few more cannot mend. By how far embeddings of other texts end up from the
/// dense model's, all-MiniLM-L6-v2 learns best by 2e-4 in 12 steps on news (BBC), where all-mpnet-base-v2,
/// twice as wide, learns better by 1e-4 than by 2.5e-4; by 2e-4 in 20 on sentences (STS benchmark), by
/// 1e-3 in 190.
double default_rate(const stage& s, double steps, bool labels, bool of_head, Eigen::Index width) {
    const double at_384 = s.kind == stage_kind::soft                 ? 0
                          : s.kind == stage_kind::finetune || labels ? 1e-4
                          : of_head                                  ? 2e-4
                                    : std::min(1e-3, 5e-5 * std::sqrt(steps));
    return at_384 * std::min(1., 384 / static_cast<double>(width));
}

/// The recipe's stages, from the options' lists.
void set_stages(arguments& a) {
    const bool from_text = a.task == task_kind::distill;
    if (a.labels && from_text) throw std::invalid_argument("--labels: text to distill has none");
    if (a.stages.empty()) {
        a.stages = {stage_kind::soft, stage_kind::hard};
        if (!from_text) a.stages.insert(a.stages.begin(), stage_kind::finetune);
    }
    const auto learned = static_cast<std::size_t>(std::count_if(
        a.stages.begin(), a.stages.end(), [](stage_kind s) { return s != stage_kind::calibrate; }));
    if (a.rates.size() == 1) a.rates.assign(learned, a.rates[0]);
    for (const auto& [option, given] :
         {std::pair("--epochs", a.epochs.size()), std::pair("--rate", a.rates.size())})
        if (given != 0 && given != learned)
            throw std::invalid_argument(
                fmt::format("{} has {} numbers for {} stages that learn", option, given, learned));
    for (const double epochs : a.epochs)
        if (!(epochs > 0 && epochs <= 10000)) refuse("--epochs", epochs, "numbers > 0 up to 10000");
    if (!std::is_sorted(a.stages.begin(), a.stages.end(), [](stage_kind x, stage_kind y) {
            return x == stage_kind::finetune && y != stage_kind::finetune;
        }))
        throw std::invalid_argument("--stage finetune comes before what drops tokens");
    std::size_t i = 0;
    for (const stage_kind kind : a.stages) {
        stage s{kind, 1, 0};
        if (kind != stage_kind::calibrate) {
            if (kind == stage_kind::finetune && from_text)
                throw std::invalid_argument("--stage finetune needs labels; text has none");
            // Thresholds learn alone, and soon; weights, with the tokens gone, what will run.
            const double long_enough = kind == stage_kind::soft   ? 0.5
                                       : kind == stage_kind::hard ? 1.5
                                                                  : 2;
            s.epochs = a.epochs.empty() ? long_enough : a.epochs[i];
            if (!a.rates.empty()) s.rate = a.rates[i];
            if (!(s.rate >= 0 && s.rate <= 1) ||
                (s.rate == 0 && kind != stage_kind::soft && !a.rates.empty()))
                refuse("--rate", s.rate, "numbers > 0 up to 1, or 0 for soft");
            ++i;
        }
        a.how.stages.push_back(s);
    }
    const auto drops = [](stage_kind s) { return s == stage_kind::soft || s == stage_kind::hard; };
    if (!a.baselines.empty() && std::none_of(a.stages.begin(), a.stages.end(), drops))
        throw std::invalid_argument("--baselines learn as long as soft and hard do: none is there");
}

/// Everything that can be known to be wrong before the work begins, and what is left to default.
void check(arguments& a) {
    recipe& how = a.how;
    if (how.target && !(*how.target > 0 && *how.target <= 1))
        refuse("--target-macs", *how.target, "a share in (0, 1]");
    for (const auto& [option, value] :
         {std::pair("--lambda", how.lambda), std::pair("--alpha", a.alpha)})
        if (!(value >= 0 && value <= 1e6)) refuse(option, value, "a number from 0 to 1e6");
    if (!(how.temperature >= 1e-6 && how.temperature <= 1e6))
        refuse("--temperature", how.temperature, "a number from 1e-6 to 1e6");
    if (!(how.threshold_rate > 0 && how.threshold_rate <= 1e3))
        refuse("--threshold-rate", how.threshold_rate, "a number > 0 up to 1000");
    if (how.batch < 1 || how.batch > 1 << 20)
        refuse("--batch", static_cast<double>(how.batch), "a number from 1 to 1048576");
    if (how.target && how.lambda > 0)
        throw std::invalid_argument("--target-macs finds lambda by itself, so not both");
    if (!how.target && how.lambda == 0) how.target = 0.5;
    if (!how.target && !a.baselines.empty())
        throw std::invalid_argument("--baselines have no lambda, only --target-macs");
    set_stages(a);
    how.exits = a.dropped == leaving::guessed;
    if (a.out.empty()) a.out = name_beside(a.model, "-tokens");
    std::vector<program_input> inputs = model_inputs(a.model);
    inputs.push_back({"the text to learn from", a.train});
    inputs.push_back({"the text of --dev", a.dev});
    inputs.push_back({"the text of --evaluate", a.evaluate});
    check_outputs(inputs, {{"--out", a.out, &written_model},
                           {"--out", checkpoints::folder_of(a.out), &checkpoints::kind},
                           {"--json", a.json},
                           {"--html", a.html}});
}

/// Gives the model a head of so many outputs to learn from labels, unless it has one; to go by what
/// it gives itself, it must have one.
void fit_head(model& m, const arguments& a, int outputs, bool labels) {
    const bool classifies = m.head && !m.head->is_score();
    const Eigen::Index has = m.head ? m.head->output.weight.rows() : 0;
    if (has == outputs || (!labels && outputs > 1 && classifies && has > outputs)) return;
    if (!labels)
        throw std::invalid_argument(fmt::format(
            "{} has no {} to learn from; fine-tune it, or learn from --labels", a.model.string(),
            outputs > 1 ? fmt::format("classifier for {} classes", outputs)
                        : "head of one output"));
    add_outputs(m, outputs, a.how.seed);
}

/// Whether the task is one of the model's outputs.
void check_task(const model& m, const arguments& a) {
    const task_kind of_model = task_of(m);
    const bool on_tokens = m.is_per_token();
    if (on_tokens && a.where.device == device_kind::cuda)
        throw std::invalid_argument(fmt::format(
            "{} has a head on tokens, whose tokens leave on the CPU alone; drop --device",
            a.model.string()));
    if (a.task == task_kind::similarity && m.head && m.head->stock)
        throw std::invalid_argument(
            fmt::format("--task similarity is of embeddings, {} has a head; its outputs are what "
                        "--task {} or distill keep",
                        a.model.string(), on_tokens ? name_of(of_model) : "classify, regress"));
    if (a.task == of_model || a.task == task_kind::distill) {
        if (of_model == task_kind::tag && a.dropped == leaving::gone)
            throw std::invalid_argument("--dropped gone is of means; every token has a tag");
    } else if (on_tokens) {
        throw std::invalid_argument(
            fmt::format("--task {} is of texts, {} has a head on tokens; --task {} or distill keep "
                        "its outputs",
                        name_of(a.task), a.model.string(), name_of(of_model)));
    } else if (a.task == task_kind::tag || a.task == task_kind::answer) {
        throw std::invalid_argument(fmt::format(
            "--task {}: {} has no head on tokens, {}", name_of(a.task), a.model.string(),
            a.task == task_kind::tag ? "...ForTokenClassification" : "...ForQuestionAnswering"));
    }
}

void run(arguments& a) {
    const progress whole("", 1); // a clock
    output out(a.out, written_model), json(a.json), html(a.html);
    const checkpoints kept(a.out);
    model original = load_model(a.model);
    const tokenizer words(a.model, original.config);
    const token_pruning given = std::exchange(original.tokens, {});
    original.exits.clear();
    original.curve.clear();

    check_task(original, a);
    if (a.task == task_kind::similarity) original.head.reset();
    // The outputs of a model with a head are distilled as they are classified or scored.
    const bool distills = a.task == task_kind::distill;
    const task_kind measured_as = distills ? task_of(original) : a.task,
                    learned_as = distills && !original.head ? a.task : measured_as;
    const bool of_head = learned_as != task_kind::similarity && learned_as != task_kind::distill;
    auto [without, with] = split(a.how);
    const bool goes_on = without.stages.empty() && !given.numbers.empty() &&
                         given.by == rule::threshold && given.scores == a.scores;
    if (!with.stages.empty() && with.stages[0].kind == stage_kind::hard && !goes_on)
        throw std::invalid_argument(
            "--stage hard: there are no thresholds to go on with; begin with soft or calibrate");
    selection all;
    all.labels = !distills;
    dataset train = read_dataset(learned_as, a.train, words, original, all);
    std::optional<dataset> dev, evaluate;
    if (!a.dev.empty()) dev = read_dataset(measured_as, a.dev, words, original);
    if (!a.evaluate.empty()) evaluate = read_dataset(measured_as, a.evaluate, words, original);
    if (!evaluate) evaluate = dev ? dev : hold_out(train, 10);
    if (!dev) dev = evaluate;
    if (a.rates.empty())
        for (recipe* part : {&without, &with})
            for (stage& s : part->stages) {
                const double batches =
                    static_cast<double>(train.size()) / static_cast<double>(a.how.batch);
                s.rate = default_rate(s, std::max(1., s.epochs * batches), a.labels, of_head,
                                      original.config.hidden);
            }
    const bool labels = a.labels || !without.stages.empty(); // something is learned from them
    if (a.task == task_kind::classify || a.task == task_kind::regress)
        fit_head(original, a,
                 a.task == task_kind::regress
                     ? 1
                     : std::max({train.classes(), dev->classes(), evaluate->classes(), 2}),
                 labels);
    else if (distills)
        for (const auto& [data, file] :
             {std::pair(&*dev, &a.dev), std::pair(&*evaluate, &a.evaluate)})
            if (!file->empty()) check_classes(*data, *file, original);

    const bool exact = original.stored_as == data_type::f32; // what is written
    const std::unique_ptr<engine> made =
        make_engine(std::move(original), a.where.device, a.where.precision);
    engine& dense = *made;
    if (!with.stages.empty()) check_target(dense, train, with);
    if (!without.stages.empty()) {
        trainer first(dense, train, without);
        kept.run(first, "finetune", "fine-tuning");
    }
    if (!a.labels && !with.stages.empty()) train.teacher = embed(dense, train.texts, "teacher");
    for (dataset* data : {&*dev, &*evaluate})
        if (data->targets.empty()) data->teacher = embed(dense, data->texts, "teacher");
    const std::unique_ptr<engine> learns = dense.make(dense.model());
    engine& net = *learns;
    token_pruning p;
    p.carried = a.dropped != leaving::gone;
    p.scores = a.scores;
    net.set_token_pruning(p);
    const token_pruning none = p;
    if (goes_on) {
        for (const double t : given.numbers) p.numbers.push_back(given.alpha * t);
        net.set_token_pruning(p);
    }
    learning_results r{};
    if (!with.stages.empty()) {
        trainer second(net, train, with);
        kept.run(second, "learned", "thresholds");
        r.gap = second.soft_hard_gap();
    }
    r.baselines = train_baselines(a.baselines, dense, train, *evaluate, with, none, kept);

    // The curve, and the result at the alpha asked for.
    p = net.tokens();
    r.thresholds = p.numbers;
    matrix outputs;
    if (!p.numbers.empty())
        for (const double alpha : {0., 0.5, 0.7, 0.8, 0.9, 1., 1.1, 1.25, 1.5, 2.}) {
            p.alpha = alpha;
            net.set_token_pruning(p);
            const measured at = measure_at(net, *dev, outputs);
            r.curve.push_back({alpha, at.macs_ratio, at.metric});
        }
    p.alpha = a.alpha;
    net.set_token_pruning(p);

    // What is written and loaded again must say what was measured.
    {
        model result = net.model();
        result.tokens = p;
        result.curve = r.curve;
        write_model(result, a.model, out);
    }
    const std::unique_ptr<engine> loaded = dense.make(load_model(out.path()));
    engine& written = *loaded;
    const std::vector<sequence>& texts = measured_texts(*evaluate);
    r.metric_dense = measure(*evaluate, embed(dense, texts, "measure, dense"));
    r.pruned = measure_at(written, *evaluate, outputs);
    if (exact)
        if (const matrix learned = embed(net, texts, "verify"); learned != outputs)
            throw std::runtime_error(fmt::format("the written model's outputs differ by {:.2e}",
                                                 (learned - outputs).cwiseAbs().maxCoeff()));
    r.at_32 = compare_speed(dense, written, texts);
    r.at_1 = compare_speed(dense, written, texts, 1);
    for (const sequence& s : texts) r.tokens += s.size();
    r.seconds = whole.seconds();

    const std::string metric = qualities(*evaluate, outputs)[0].name;
    if (json) json.write(to_text(to_json(r)));
    if (html) html.write(to_html(to_page(r, written.model(), texts, words, metric)));
    put_in_place({&out, &json, &html}); // the model first, so that a report always has its model
    kept.remove();
    print(r, metric, a.out);
}

} // namespace

int main(int argc, char** argv) {
    return exit_status("learn_thresholds", [&] {
        arguments a;
        if (!parse(argc, argv, a)) return;
        check(a);
        set_threads(a.where.threads);
        run(a);
    });
}
