// Streams texts through a language model whose cache of keys and values is kept to a share, by one
// rule after another, and prints what that costs.
#include "encoder/report/report.hpp"
#include "encoder/text/text.hpp"
#include "language_model/eviction.hpp"
#include "language_model/learned_scores.hpp"
#include "language_model/tokenizer.hpp"
#include "options.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>

namespace {

namespace fs = std::filesystem;
using namespace language;

struct arguments {
    fs::path model, texts, calibrate;
    std::vector<std::string> rules = {"window", "sinks", "h2o", "snap", "ada"};
    std::vector<double> shares = {0.5, 0.25, 0.125};
    std::size_t documents = 20, tokens = 1024, pass = 64, first = 4, last = 32;
    int threads = 0;
};

bool parse(int argc, char** argv, arguments& a) {
    encoder::options o("Streams texts through a language model whose cache is kept to a share of "
                       "the text, by one rule after another, and prints perplexities.");
    o.path("--model", a.model, "GGUF file of a Llama-type model")->required();
    o.path("--texts", a.texts, "text, a document a line")->required();
    o.path("--calibrate", a.calibrate,
           "other text, which the rule learned learns from; as many documents, as long");
    o.add_option("--rules", a.rules,
                 "which keys stay: window (the last), sinks (the first and the last), h2o (what "
                 "received most), snap (what the last queries attend to), ada (the same, of all "
                 "groups of a layer together), learned (by a guess from hidden states, and a "
                 "threshold for all layers)")
        ->delimiter(',');
    o.number("--shares", a.shares, "shares of a text's keys that stay")->delimiter(',');
    o.number("--documents", a.documents, "how many of the texts");
    o.number("--tokens", a.tokens, "of each, at most so many tokens");
    o.number("--pass", a.pass, "tokens of a pass, behind which keys leave");
    o.number("--first", a.first, "first keys that stay, but for the rule window");
    o.number("--last", a.last, "last keys that stay, and queries whose attention counts");
    o.number("--threads", a.threads, "threads to run on; 0: as many as there are processors");
    return o.read(argc, argv);
}

using ids = std::vector<std::int32_t>;

/// What all runs share.
struct setting {
    const arguments& a;
    const model& m;
    const learned_scores& learned; // empty where nothing asks for them
};

std::unique_ptr<eviction> make_rule(const std::string& name, const setting& of, index_t keys,
                                    double share) {
    const arguments& a = of.a;
    const budget b{keys, static_cast<index_t>(a.first), static_cast<index_t>(a.last)};
    const auto queries = static_cast<index_t>(a.last);
    if (name == "all") return keep_all();
    if (name == "window") return keep_window({keys, 0, keys});
    if (name == "sinks") return keep_window(b);
    if (name == "h2o") return keep_heavy(b);
    if (name == "snap") return keep_snap(b, queries);
    if (name == "ada") return keep_shared(b, queries);
    return keep_guessed(of.learned, static_cast<double>(of.learned.threshold(share)), b);
}

struct streamed {
    double loss = 0; // summed up over predicted tokens
    std::size_t predicted = 0;
    double bytes = 0, kept = 0; // most of the cache behind a pass; keys of all groups at the end
};

/// One document, whose cache has about a share of its keys behind each pass.
streamed stream(const setting& of, const ids& text, double share, const std::string& name) {
    const model& m = of.m;
    const auto pass = static_cast<index_t>(of.a.pass), length = static_cast<index_t>(text.size());
    const auto least = static_cast<index_t>(of.a.first + of.a.last) + 1;
    const auto keys =
        std::max(least, static_cast<index_t>(std::ceil(share * static_cast<double>(length))));
    const auto rule = make_rule(name, of, keys, share);
    cache c;
    // Rules with a budget of their own for each group may leave all of it to one.
    const bool uneven = name == "ada" || name == "learned";
    const index_t room = uneven ? length : std::min(length, keys + pass);
    for (std::size_t l = 0; l < m.layers.size(); ++l) c.emplace_back(m.config, room);
    streamed s;
    for (index_t at = 0; at < length; at += pass) {
        const index_t behind = std::min(length, at + pass);
        const auto begin = text.begin() + at, end = text.begin() + behind;
        double held = 0;
        const matrix rows = forward(m, {begin, end}, at, c, rule->scores(),
                                    [&](index_t layer, layer_cache& keys_of, const matrix& normed,
                                        const pare::view<const float, 2>& received) {
                                        rule->after(layer, keys_of, normed, received);
                                        for (const auto n : keys_of.lengths()) held += n;
                                    });
        s.bytes =
            std::max(s.bytes, held * static_cast<double>(2 * sizeof(float) * m.config.head_size()));
        const ids next(begin + 1, text.begin() + std::min(length, behind + 1));
        for (const double x : losses(m, rows, next)) s.loss += x;
        s.predicted += next.size();
        s.kept = held;
    }
    return s;
}

struct outcome {
    std::vector<double> losses; // means of documents
    double perplexity, seconds = 0, bytes = 0, kept = 0;
    std::size_t tokens = 0;
};

outcome run(const setting& of, const std::vector<ids>& texts, double share,
            const std::string& name) {
    outcome o{{}, 0};
    double sum = 0, predicted = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const ids& text : texts) {
        const streamed s = stream(of, text, share, name);
        o.losses.push_back(s.loss / static_cast<double>(s.predicted));
        sum += s.loss;
        predicted += static_cast<double>(s.predicted);
        o.bytes = std::max(o.bytes, s.bytes);
        o.kept += s.kept;
        o.tokens += text.size();
    }
    o.kept /= static_cast<double>(of.m.config.groups) * static_cast<double>(of.m.layers.size()) *
              static_cast<double>(o.tokens);
    o.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    o.perplexity = std::exp(sum / predicted);
    return o;
}

/// The mean difference of documents' losses, and two standard errors.
std::pair<double, double> difference(const outcome& o, const outcome& all) {
    std::vector<double> d(o.losses.size());
    std::transform(o.losses.begin(), o.losses.end(), all.losses.begin(), d.begin(), std::minus<>());
    const auto n = static_cast<double>(d.size());
    const double mean = std::accumulate(d.begin(), d.end(), 0.0) / n;
    double square = 0;
    for (const double x : d) square += (x - mean) * (x - mean);
    return {mean, n > 1 ? 2 * std::sqrt(square / (n - 1) / n) : 0};
}

void work(const arguments& a) {
    encoder::set_threads(a.threads);
    for (const double share : a.shares)
        if (!(share > 0 && share <= 1))
            throw std::invalid_argument(
                fmt::format("--shares: {} is no share, from above 0 to 1", share));
    constexpr std::size_t most = 1 << 24;
    if (a.pass < 1 || a.tokens < 2 || a.documents < 1)
        throw std::invalid_argument("--pass, --documents and --tokens are at least 1, 1 and 2");
    for (const auto& [name, number] :
         {std::pair("--pass", a.pass), {"--first", a.first}, {"--last", a.last}})
        if (number > most)
            throw std::invalid_argument(fmt::format("{} is {}; {} at most", name, number, most));
    bool learns = false;
    for (const std::string& rule : a.rules) {
        const std::vector<std::string> known = {"window", "sinks", "h2o", "snap", "ada", "learned"};
        if (std::find(known.begin(), known.end(), rule) == known.end())
            throw std::invalid_argument("--rules: there is no rule '" + rule +
                                        "'; window, sinks, h2o, snap, ada and learned are there");
        learns = learns || rule == "learned";
    }
    if (learns && a.calibrate.empty())
        throw std::invalid_argument("--rules learned needs --calibrate");
    const gguf_file file(a.model);
    const model m = read_model(file);
    const tokenizer words(read_vocabulary(file));
    if (words.size() > static_cast<std::size_t>(m.config.vocabulary))
        throw encoder::file_error(fmt::format("{}: it names {} tokens, of which {} have embeddings",
                                              a.model.string(), words.size(), m.config.vocabulary));
    const bool begins = file.flag("tokenizer.ggml.add_bos_token", false);
    std::int32_t first_token = 0;
    if (begins) first_token = static_cast<std::int32_t>(file.number("tokenizer.ggml.bos_token_id"));
    const auto read = [&](const fs::path& from) {
        std::vector<ids> texts;
        for (const std::string& line : encoder::read_documents(from)) {
            ids text = words.encode(line);
            if (begins) text.insert(text.begin(), first_token);
            text.resize(
                std::min({text.size(), a.tokens, static_cast<std::size_t>(m.config.length)}));
            if (text.size() > 1) texts.push_back(std::move(text));
            if (texts.size() == a.documents) break;
        }
        if (texts.empty()) throw std::invalid_argument(from.string() + ": no text has two tokens");
        return texts;
    };
    const std::vector<ids> texts = read(a.texts);
    learned_scores learned;
    if (learns) learned = learn_scores(m, read(a.calibrate), static_cast<index_t>(a.last));
    const setting of{a, m, learned};
    const outcome all = run(of, texts, 1, "all");
    fmt::print("{} texts of {} tokens in all; perplexity {:.2f} with all keys, {:.0f} tokens/s, "
               "cache {:.1f} MB.\n\n",
               texts.size(), all.tokens, all.perplexity,
               static_cast<double>(all.tokens) / all.seconds, all.bytes / 1e6);
    fmt::print("| rule | share | keys left | perplexity | more than with all keys, % | tokens/s | "
               "cache, MB |\n|---|---|---|---|---|---|---|\n");
    for (const std::string& rule : a.rules)
        for (const double share : a.shares) {
            const outcome o = run(of, texts, share, rule);
            const auto [mean, error] = difference(o, all);
            fmt::print("| {} | {:g} | {:.3f} | {:.2f} | {:.1f} ± {:.1f} | {:.0f} | {:.1f} |\n",
                       rule, share, o.kept, o.perplexity, 100 * std::expm1(mean),
                       100 * std::exp(mean) * error, static_cast<double>(o.tokens) / o.seconds,
                       o.bytes / 1e6);
            std::fflush(stdout);
        }
}

} // namespace

int main(int argc, char** argv) {
    return encoder::exit_status("evict_cache", [&] {
        arguments a;
        if (parse(argc, argv, a)) work(a);
    });
}
