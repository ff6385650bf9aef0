// Removes heads and filters of a language model, refits the weights around them, and writes a smaller
// file.
#include "encoder/files/output.hpp"
#include "encoder/report/progress.hpp"
#include "encoder/report/report.hpp"
#include "language_model/network.hpp"
#include "language_model/prunable.hpp"
#include "language_model/texts.hpp"
#include "options.hpp"

#include <pare/policy/simd.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>

namespace {

namespace fs = std::filesystem;
using namespace language;
using ids = std::vector<std::int32_t>;

struct arguments {
    fs::path model, calibrate, evaluate, out;
    double macs = 0.8;
    bool equal = true;
    std::size_t multiple = prunable::block, samples = 128, tokens = 256, documents = 40;
    int threads = 0;
};

bool parse(int argc, char** argv, arguments& a) {
    encoder::options o("Removes heads and filters of a language model, refits the weights around "
                       "them, and writes a smaller GGUF file.");
    o.path("--model", a.model, "GGUF file of a Llama-type model")->required();
    o.path("--calibrate", a.calibrate, "text to prune by, a document a line")->required();
    o.path("--evaluate", a.evaluate, "other text, whose perplexity is measured, a document a line");
    o.number("--macs", a.macs, "share of the layers' multiply-adds to keep");
    o.word("--widths", a.equal,
           "what layers keep: equal (all as many heads and filters) or uneven (each its own; "
           "llama.cpp reads that, but not of Qwen 3)",
           std::map<std::string, bool>{{"equal", true}, {"uneven", false}});
    o.number(
        "--multiple", a.multiple,
        "each layer keeps a multiple of so many filters: 32, or 256 for types that are quantised "
        "in blocks of 256 numbers, as Q4_K is; else llama.cpp takes larger types for the matrices "
        "behind them");
    o.number("--samples", a.samples, "most pieces of the text to prune by");
    o.number("--tokens", a.tokens, "of each piece, and at most of each text that is measured");
    o.number("--documents", a.documents, "most texts that are measured");
    o.number("--threads", a.threads, "threads to run on; 0: as many as there are processors");
    o.path("--out", a.out, "file to write the model to")
        ->default_str("MODEL-pruned.gguf, in this folder");
    if (!o.read(argc, argv)) return false;
    if (a.out.empty()) a.out = a.model.stem().string() + "-pruned.gguf";
    return true;
}

void check(const arguments& a) {
    if (!(a.macs > 0 && a.macs <= 1))
        throw std::invalid_argument(
            fmt::format("--macs is {}; it is a share, from above 0 to 1", a.macs));
    if (a.multiple < 1 || a.multiple > 1 << 24)
        throw std::invalid_argument(
            fmt::format("--multiple is {}; from 1 to {}", a.multiple, 1 << 24));
    if (a.samples < 1 || a.tokens < 2 || a.documents < 1)
        throw std::invalid_argument(
            fmt::format("--samples is {}, --tokens {} and --documents {}; at least 1, 2 and 1",
                        a.samples, a.tokens, a.documents));
}

/// The documents one behind another, in pieces of a.tokens, as many as there are up to a.samples, and
/// some in a batch.
prunable::calibration read_calibration(const arguments& a, const gguf_file& file,
                                       const tokenizer& words, const ids& begin) {
    constexpr std::size_t at_once = 512; // tokens, whose layers are kept for the way back
    prunable::calibration found{{}, static_cast<index_t>(a.tokens)};
    const std::size_t wanted = a.samples * a.tokens;
    ids all;
    for_texts(a.calibrate, words, begin, [&](const std::string&, const ids& text) {
        all.insert(all.end(), text.begin(), text.end());
        return all.size() < wanted;
    });
    all.resize(std::min(all.size(), wanted) / a.tokens * a.tokens);
    if (all.empty())
        throw encoder::file_error(
            fmt::format("{}: has fewer than {} tokens of {}, which --tokens wants of a piece",
                        a.calibrate.string(), a.tokens, file.path().string()));
    const std::size_t batch = std::max(at_once / a.tokens, std::size_t{1}) * a.tokens;
    for (std::size_t at = 0; at < all.size(); at += batch)
        found.batches.emplace_back(
            all.begin() + static_cast<std::ptrdiff_t>(at),
            all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), at + batch)));
    return found;
}

/// Throws where no widths cost so little, whatever statistics will say of them.
void check_share(prunable& dense, double share) {
    std::vector<pare::loss_curve> any;
    for (pare::index_t s = 0; s < dense.sublayers(); ++s) {
        const auto units = static_cast<std::size_t>(dense.describe(s).units());
        any.push_back(pare::sorted_losses(std::vector<double>(units, 1.0)));
    }
    pare::plan(dense, any, share);
}

pare::prune_report prune(const arguments& a, prunable& dense, prunable& pruned) {
    encoder::prune_stages line;
    pare::prune_options options;
    options.share = a.macs;
    options.callback = std::ref(line);
    try {
        return pare::prune(pare::simd, dense, pruned, options);
    } catch (const pare::value_error& error) { // numbers that its weights make
        throw encoder::file_error(
            fmt::format("{} on {}: {}", a.model.string(), a.calibrate.string(), error.what()));
    }
}

/// How well, and how fast, a model reads texts.
struct quality {
    prediction of;
    double tokens = 0, seconds = 0;

    void read(const model& m, const document& d) {
        const auto start = std::chrono::steady_clock::now();
        cache all = make_cache(m, static_cast<index_t>(d.tokens.size()));
        of.add(losses(m, forward(m, {d.tokens, 0}, all), {d.tokens.begin() + 1, d.tokens.end()}));
        tokens += static_cast<double>(d.tokens.size());
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    double speed() const { return tokens / seconds; }
};

double parameters(const model& m) {
    double sum = static_cast<double>(m.words.size() + m.head.size() + m.last.size());
    const auto add = [&](const linear& x) {
        sum += static_cast<double>(x.weight.size() + x.bias.size());
    };
    for (const layer& l : m.layers) {
        for (const linear* x : {&l.query, &l.key, &l.value, &l.projection, &l.gate, &l.up, &l.down})
            add(*x);
        for (const vector* x : {&l.before_attention, &l.query_norm, &l.key_norm, &l.before_filters})
            sum += static_cast<double>(x->size());
    }
    return sum;
}

/// Layers that keep as much as those before them are one line.
void print_layers(const model& dense, const model& pruned) {
    fmt::print("{:<8} {:>24} {:>14} {:>14}\n", "layers", "heads of keys and values", "query heads",
               "filters");
    const shape& c = pruned.config;
    const auto widths = [&](std::size_t i) {
        const layer& l = pruned.layers[i];
        return std::pair(groups_of(l, c), l.up.weight.rows());
    };
    for (std::size_t begin = 0, end = 0; begin < pruned.layers.size(); begin = end) {
        while (end < pruned.layers.size() && widths(end) == widths(begin)) ++end;
        const auto [groups, filters] = widths(begin);
        const layer& was = dense.layers[begin];
        const std::string name =
            end - begin == 1 ? fmt::format("{}", begin) : fmt::format("{}-{}", begin, end - 1);
        const index_t before = groups_of(was, c), heads = c.heads_of_group();
        const auto of = [](index_t kept, index_t all) {
            return fmt::format("{} of {}", kept, all);
        };
        fmt::print("{:<8} {:>24} {:>14} {:>14}\n", name, of(groups, before),
                   of(groups * heads, before * heads), of(filters, was.up.weight.rows()));
    }
}

void row(const char* name, const std::string& dense, const std::string& pruned,
         const std::string& more) {
    fmt::print("{:<24} {:>10} {:>10}   {}\n", name, dense, pruned, more);
}

void work(const arguments& a) {
    encoder::set_threads(a.threads);
    check(a);
    encoder::check_outputs({{"the model", a.model},
                            {"the text of --calibrate", a.calibrate},
                            {"the text of --evaluate", a.evaluate}},
                           {{"--out", a.out}});
    encoder::output out(a.out);
    const gguf_file file(a.model);
    const shape config = read_shape(file);
    if (a.tokens > static_cast<std::size_t>(config.length))
        throw std::invalid_argument(fmt::format("--tokens is {}; {} was made for {} at most",
                                                a.tokens, a.model.string(), config.length));
    if (!a.equal && file.text("general.architecture") == "qwen3")
        encoder::say("llama.cpp reads no qwen3 whose layers differ in width; it needs --widths "
                     "equal");
    const tokenizer words = read_tokenizer(file, config);
    const ids begin = beginning_of(file, words);
    const prunable::calibration text = read_calibration(a, file, words, begin);
    std::vector<document> measured;
    if (!a.evaluate.empty())
        measured = read_documents(a.evaluate, words, begin, a.documents, 2, a.tokens);

    prunable dense(read_model(file), text, a.equal, static_cast<pare::index_t>(a.multiple));
    check_share(dense, a.macs);
    // What it cannot read ends here, and not behind the pruning.
    quality first{{a.model, a.evaluate}}, before = first, after{{a.out, a.evaluate}};
    for (const document& d : measured) first.read(dense.get(), d);
    const auto start = std::chrono::steady_clock::now();
    prunable pruned = dense;
    const pare::prune_report report = prune(a, dense, pruned);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    for (std::size_t s = 0; s < report.refits.size(); ++s)
        if (!report.refits[s].fit)
            encoder::say(fmt::format("{} of layer {} is not refitted: {}",
                                     s % 2 ? "the FFN" : "attention", s / 2,
                                     report.refits[s].fit.failure));
    for (const document& d : measured) { // in turns: what else the machine does, both feel
        before.read(dense.get(), d);
        after.read(pruned.get(), d);
    }
    out.write(to_gguf(pruned.get(), file));
    encoder::put_in_place({&out});

    print_layers(dense.get(), pruned.get());
    fmt::print("\n");
    row("", "dense", "pruned", "ratio");
    const auto ratio = [](double x, double y) { return fmt::format("{:.3f}", y / x); };
    const auto millions = [](double x) { return fmt::format("{:.1f}", x / 1e6); };
    const pare::prune_plan& plan = report.plan;
    const auto per_token = [&](double macs) { return macs / static_cast<double>(a.tokens); };
    row("MACs a token, millions", millions(per_token(plan.dense_cost)),
        millions(per_token(plan.cost)), ratio(plan.dense_cost, plan.cost));
    const double of_dense = parameters(dense.get()), of_pruned = parameters(pruned.get());
    row("parameters, millions", millions(of_dense), millions(of_pruned),
        ratio(of_dense, of_pruned));
    if (!measured.empty()) {
        row("perplexity", fmt::format("{:.2f}", before.of.perplexity()),
            fmt::format("{:.2f}", after.of.perplexity()),
            rise_of(after.of.losses(), before.of.losses()) + " % more");
        row("tokens/s", fmt::format("{:.0f}", before.speed()), fmt::format("{:.0f}", after.speed()),
            ratio(before.speed(), after.speed()));
    }
    fmt::print("\nexpected loss   {:.4g}; no choice in the budget loses less than {:.4g}\n"
               "seconds         {:.1f}\npeak memory     {:.0f} MB\n"
               "calibration     {} tokens in pieces of {}\n",
               plan.loss, plan.bound, seconds.count(), encoder::peak_memory_mb(),
               std::accumulate(text.batches.begin(), text.batches.end(), std::size_t{0},
                               [](std::size_t n, const ids& b) { return n + b.size(); }),
               a.tokens);
    if (!measured.empty())
        fmt::print("measured on     {} texts, perplexity in all and what it rises by, their mean\n",
                   measured.size());
    fmt::print("written         {}\n", a.out.string());
}

} // namespace

int main(int argc, char** argv) {
    return encoder::exit_status("prune_decoder", [&] {
        arguments a;
        if (parse(argc, argv, a)) work(a);
    });
}
