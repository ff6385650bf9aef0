// Streams texts through a language model whose cache of keys and values is kept to a share, by one
// rule after another, and prints what that costs.
#include "encoder/files/output.hpp"
#include "encoder/report/page.hpp"
#include "encoder/report/report.hpp"
#include "encoder/text/text.hpp"
#include "language_model/needles.hpp"
#include "language_model/rules.hpp"
#include "language_model/texts.hpp"
#include "options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <system_error>

namespace {

namespace fs = std::filesystem;
using namespace language;
using ids = std::vector<std::int32_t>;

struct arguments {
    fs::path model, texts, calibrate, html;
    std::vector<std::string> rules = {"window", "sinks", "h2o", "snap", "ada"};
    std::vector<double> shares = {0.5, 0.25, 0.125};
    std::size_t documents = 20, tokens = 1024, pass = 64, first = 4, last = 32, needles = 0;
    int threads = 0;
};

bool parse(int argc, char** argv, arguments& a) {
    encoder::options o("Streams texts through a language model whose cache is kept to a share of "
                       "the text, by one rule after another, and prints perplexities.");
    o.path("--model", a.model, "GGUF file of a Llama-type model")->required();
    o.path("--texts", a.texts, "text, a document a line")->required();
    o.path("--calibrate", a.calibrate,
           "other text, which the rules planned, thresholds and learned learn from; as many "
           "documents, as long");
    o.words("--rules", a.rules,
            "which keys stay: window (the last), sinks (the first and the last), h2o (what "
            "received most), snap (what the last queries attend to), ada (the same, of all "
            "groups of a layer together), planned (what received most on average, of each "
            "group as much as it needs), thresholds (the same by thresholds on that), learned "
            "(by thresholds on a guess from hidden states)",
            rules::names())
        ->default_str(fmt::format("{}", fmt::join(a.rules, ",")));
    o.number("--shares", a.shares, "shares of a text's keys that stay")
        ->delimiter(',')
        ->default_str(fmt::format("{}", fmt::join(a.shares, ",")));
    o.number("--documents", a.documents, "most texts that are read");
    o.number("--tokens", a.tokens, "of each, at most so many tokens");
    o.number("--pass", a.pass, "tokens of a pass, behind which keys leave");
    o.number("--first", a.first, "first keys that stay, but for the rule window");
    o.number("--last", a.last, "last keys that stay, and queries whose attention counts");
    o.number("--needles", a.needles,
             "sentences that state a number, hidden in each text and asked for behind it");
    o.path("--html", a.html, "file to draw perplexities on, and which keys are left of a text");
    o.number("--threads", a.threads, "threads to run on; 0: as many as there are processors");
    return o.read(argc, argv);
}

/// What all runs share.
struct setting {
    const arguments& a;
    const model& m;
    const tokenizer& words;
    const rules& known;
    std::vector<document> documents;
    std::vector<std::vector<needle>> needles; // of each, if any are asked for
    std::vector<ids> haystacks;
};

struct outcome {
    std::string rule;
    double share = 1;
    std::vector<double> losses; // means of documents
    double perplexity = 0, seconds = 0;
    double bytes = 0, kept = 0; // most of the cache behind a pass; keys left at the end, a share
    std::size_t tokens = 0;
    std::vector<double> found; // needles, a share of each document's
    /// Of the first document behind some passes, the share of groups that have a token.
    std::vector<std::vector<double>> left;
};

constexpr index_t most_cells = 128; // of a picture, each way

/// Of some neighbouring tokens together.
std::vector<double> shares_left(const cache& c, index_t tokens, index_t length) {
    const index_t together = (length + most_cells - 1) / most_cells;
    std::vector<double> left(static_cast<std::size_t>((tokens + together - 1) / together));
    double groups = 0;
    for (const layer_cache& of : c)
        for (index_t g = 0; g < of.sequences(); ++g, ++groups)
            for (index_t j = 0; j < of.length(g); ++j)
                ++left[static_cast<std::size_t>(of.places(g)[j] / together)];
    for (std::size_t i = 0; i < left.size(); ++i) {
        const index_t first = static_cast<index_t>(i) * together;
        left[i] /= groups * static_cast<double>(std::min(together, tokens - first));
    }
    return left;
}

double keys_held(const cache& c) {
    double held = 0;
    for (const layer_cache& of : c)
        held += std::accumulate(of.lengths().begin(), of.lengths().end(), 0.0);
    return held;
}

/// What is predicted of each document, how fast, and what is left of it.
void predict(const setting& of, const rule_maker& rule_for, outcome& o) {
    using clock = std::chrono::steady_clock;
    const model& m = of.m;
    const auto pass = static_cast<index_t>(of.a.pass);
    const double key_bytes = 2.0 * sizeof(float) * static_cast<double>(m.config.head_size);
    prediction found(of.a.model, of.a.texts);
    for (const document& d : of.documents) {
        const ids& text = d.tokens;
        const auto length = static_cast<index_t>(text.size());
        const auto rule = rule_for(length);
        std::vector<double> of_text;
        // Of so many passes one is drawn, and the last one.
        const index_t passes = (length + pass - 1) / pass,
                      each = (passes + most_cells - 1) / most_cells;
        const bool drawn = !of.a.html.empty() && &d == &of.documents.front();
        const auto start = clock::now();
        const cache c = read_text(
            m, text, pass, *rule,
            [&](const cache& now, index_t begin, index_t end, const matrix& rows) {
                const ids next(text.begin() + begin + 1, text.begin() + std::min(end + 1, length));
                const std::vector<double> here = losses(m, rows, next);
                of_text.insert(of_text.end(), here.begin(), here.end());
                o.bytes = std::max(o.bytes, keys_held(now) * key_bytes);
                if (drawn && (end == length || begin / pass % each == 0))
                    o.left.push_back(shares_left(now, end, length));
            });
        o.seconds += std::chrono::duration<double>(clock::now() - start).count();
        o.kept += keys_held(c);
        found.add(of_text);
        o.tokens += text.size();
    }
    index_t groups = 0;
    for (const layer& l : m.layers) groups += groups_of(l, m.config);
    o.kept /= static_cast<double>(groups) * static_cast<double>(o.tokens);
    o.losses = found.losses();
    o.perplexity = found.perplexity();
}

/// Which needles the model can name behind each text that has some.
void find_needles(const setting& of, const rule_maker& rule_for, outcome& o) {
    for (std::size_t i = 0; i < of.haystacks.size(); ++i) {
        const ids& text = of.haystacks[i];
        const auto length = static_cast<index_t>(text.size());
        const cache c = read_text(of.m, text, static_cast<index_t>(of.a.pass), *rule_for(length));
        const std::size_t found = count_found(of.m, of.words, c, length, of.needles[i]);
        o.found.push_back(static_cast<double>(found) / static_cast<double>(of.a.needles));
    }
}

outcome run(const setting& of, const std::string& name, double share) {
    const rule_maker rule_for =
        name == "all" ? [](index_t) { return keep_all(); } : of.known.of_share(name, share);
    outcome o;
    o.rule = name;
    o.share = share;
    predict(of, rule_for, o);
    find_needles(of, rule_for, o);
    return o;
}

std::string row_of(const outcome& o, const outcome& whole) {
    std::string row = fmt::format("| {} | {:g} | {:.3f} | {:.2f} | {} |", o.rule, o.share, o.kept,
                                  o.perplexity, rise_of(o.losses, whole.losses));
    if (!o.found.empty()) {
        const auto [found, spread] = mean_of(o.found);
        row += fmt::format(" {} |", with_error(100 * found, 100 * spread));
    }
    return row + fmt::format(" {:.0f} | {:.1f} |\n", static_cast<double>(o.tokens) / o.seconds,
                             o.bytes / 1e6);
}

template <class T>
void check_each_once(const char* option, std::vector<T> all) {
    std::sort(all.begin(), all.end());
    if (const auto twice = std::adjacent_find(all.begin(), all.end()); twice != all.end())
        throw std::invalid_argument(fmt::format("{} has {} twice", option, *twice));
}

void check(const arguments& a) {
    for (const double share : a.shares)
        if (!(share > 0 && share <= 1))
            throw std::invalid_argument(
                fmt::format("--shares: {} is no share, from above 0 to 1", share));
    constexpr std::size_t most = 1 << 24;
    if (a.pass < 1 || a.tokens < 2 || a.documents < 1)
        throw std::invalid_argument(
            fmt::format("--pass is {}, --documents {} and --tokens {}; at least 1, 1 and 2", a.pass,
                        a.documents, a.tokens));
    for (const auto& [name, number] :
         {std::pair("--pass", a.pass), {"--first", a.first}, {"--last", a.last}})
        if (number > most)
            throw std::invalid_argument(fmt::format("{} is {}; {} at most", name, number, most));
    if (a.needles > most_needles)
        throw std::invalid_argument(
            fmt::format("--needles is {}; {} at most", a.needles, most_needles));
    check_each_once("--rules", a.rules);
    check_each_once("--shares", a.shares);
    for (const std::string& rule : a.rules)
        if (rules::learns(rule) && a.calibrate.empty())
            throw std::invalid_argument("--rules " + rule + " needs --calibrate");
    if (!a.calibrate.empty() && std::none_of(a.rules.begin(), a.rules.end(), rules::learns))
        throw std::invalid_argument(fmt::format("--calibrate is for rules that learn, as planned, "
                                                "thresholds and learned; --rules {} do not",
                                                fmt::join(a.rules, ",")));
}

encoder::page to_page(const setting& of, const std::vector<outcome>& outcomes) {
    const outcome& whole = outcomes.front();
    encoder::page p;
    p.title = "A cache of keys and values, made smaller";
    p.summary = fmt::format("What {} predicts with a share of the keys of what it has read.",
                            of.a.model.filename().string());
    p.facts = {{"texts", std::to_string(of.documents.size())},
               {"tokens", std::to_string(whole.tokens)},
               {"perplexity with all keys", fmt::format("{:.2f}", whole.perplexity)},
               {"cache with all keys", fmt::format("{:.1f} MB", whole.bytes / 1e6)}};
    encoder::page::plot plot;
    plot.title = "Perplexity";
    plot.about = "Of all texts, by the share of keys that are left at their ends; lower is better.";
    plot.cost = "keys left";
    plot.metric = "perplexity";
    plot.whole = whole.perplexity;
    plot.whole_name = "all keys";
    encoder::page::heat_maps left;
    left.title = "What is left of a text";
    left.about = fmt::format(
        "Of the first text, with a share of {:g}: each row is what is left behind a pass of {} "
        "tokens, the first at the top, each column a place in the text; the stronger its colour, "
        "the more groups of heads have its keys and values.",
        of.a.shares.back(), of.a.pass);
    for (const outcome& o : outcomes) {
        if (o.rule == "all") continue;
        if (plot.curves.empty() || plot.curves.back().name != o.rule)
            plot.curves.push_back({o.rule, {}});
        plot.curves.back().points.push_back({o.kept, o.perplexity});
        if (o.share == of.a.shares.back()) left.maps.push_back({o.rule, o.left});
    }
    p.plots.push_back(plot);
    p.heat.push_back(left);
    return p;
}

/// Into a copy of each document.
void hide_all_needles(setting& of, const ids& begin, std::size_t longest) {
    std::mt19937_64 random(1);
    for (const document& d : of.documents) {
        of.needles.push_back(make_needles(of.a.needles, random));
        of.haystacks.push_back(behind(
            begin, hide_needles(of.words, d.text, of.needles.back(), longest - begin.size())));
    }
}

/// What there is to read, what all keys give, and a table of rules.
void print(const setting& of, const std::vector<outcome>& outcomes) {
    const outcome& whole = outcomes.front();
    const auto texts = [](std::size_t n, std::size_t tokens) {
        return fmt::format("{} text{} of {} tokens{}", n, n == 1 ? "" : "s", tokens,
                           n == 1 ? "" : " in all");
    };
    fmt::print("{}; perplexity {:.2f} with all keys, {:.0f} tokens/s, cache {:.1f} MB.\n",
               texts(whole.losses.size(), whole.tokens), whole.perplexity,
               static_cast<double>(whole.tokens) / whole.seconds, whole.bytes / 1e6);
    const bool asked = !of.haystacks.empty();
    if (asked) {
        std::size_t tokens = 0;
        for (const ids& text : of.haystacks) tokens += text.size();
        fmt::print("{} needles in {}; {:.1f} % are found with all keys.\n",
                   of.a.needles * of.haystacks.size(), texts(of.haystacks.size(), tokens),
                   100 * mean_of(whole.found).first);
    }
    fmt::print("\n| rule | share | keys left | perplexity | more than with all keys, % |{} "
               "tokens/s | cache, MB |\n|---|---|---|---|---|{}---|---|\n",
               asked ? " needles found, % |" : "", asked ? "---|" : "");
    for (const outcome& o : outcomes)
        if (&o != &whole) fmt::print("{}", row_of(o, whole));
}

void work(const arguments& a) {
    encoder::set_threads(a.threads);
    check(a);
    encoder::check_outputs({{"the model", a.model},
                            {"the text of --texts", a.texts},
                            {"the text of --calibrate", a.calibrate}},
                           {{"--html", a.html}});
    encoder::output html(a.html);
    const gguf_file file(a.model);
    const shape config = read_shape(file);
    const tokenizer words = read_tokenizer(file, config);
    const ids begin = beginning_of(file, words);
    const std::size_t longest = std::min(a.tokens, static_cast<std::size_t>(config.length));
    std::vector<document> documents =
        read_documents(a.texts, words, begin, a.documents, 2, longest);
    std::vector<ids> other; // to learn from
    if (std::error_code none; fs::equivalent(a.texts, a.calibrate, none))
        encoder::say(
            "--calibrate is --texts itself: rules that learn are measured on what they have "
            "learned from");
    const rule_options options{static_cast<index_t>(a.pass), static_cast<index_t>(a.first),
                               static_cast<index_t>(a.last)};
    const auto shortest = static_cast<std::size_t>(std::max<index_t>(2, options.least_tokens()));
    if (!a.calibrate.empty())
        for (document& d :
             read_documents(a.calibrate, words, begin, a.documents, shortest, longest))
            other.push_back(std::move(d.tokens));

    const model m = read_model(file);
    rules known(m, options);
    setting of{a, m, words, known, std::move(documents), {}, {}};
    if (a.needles > 0) hide_all_needles(of, begin, longest);
    std::vector<outcome> outcomes = {run(of, "all", 1)};
    for (const std::string& rule : a.rules) {
        if (!rules::learns(rule)) continue;
        const auto start = std::chrono::steady_clock::now();
        known.learn(rule, other);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        encoder::say(fmt::format("{} has learned in {:.0f} s", rule, seconds.count()));
    }

    for (const std::string& rule : a.rules)
        for (const double share : a.shares) {
            outcomes.push_back(run(of, rule, share));
            encoder::say(fmt::format("{} at {:g}: perplexity {:.2f}", rule, share,
                                     outcomes.back().perplexity));
        }
    if (html) html.write(to_html(to_page(of, outcomes)));
    encoder::put_in_place({&html});
    print(of, outcomes);
}

} // namespace

int main(int argc, char** argv) {
    return encoder::exit_status("evict_cache", [&] {
        arguments a;
        if (parse(argc, argv, a)) work(a);
    });
}
