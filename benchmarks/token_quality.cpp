// Quality and speed against the share of multiply-adds when tokens are dropped without training, by
// what decides: prints a table in Markdown.
#include <encoder/task/evaluate.hpp>
#include <encoder/training/tokens.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace {

using namespace encoder;

void run(const std::filesystem::path& folder, const std::string& text, const std::string& pairs,
         std::size_t samples, const std::vector<double>& shares) {
    const model m = load_model(folder);
    const auto max_tokens = static_cast<std::size_t>(m.config.max_tokens);
    const tokenizer words(folder, m.config);
    const similarity_task task = make_task(words, read_pairs(pairs), max_tokens);
    std::vector<std::string> documents = read_documents(text);
    documents.resize(std::min(documents.size(), samples));
    const std::vector<sequence> sample = tokenize(words, documents, max_tokens);

    network dense(m), plain(m), guessing(m);
    fit_exits(guessing, sample);
    const double quality = correlate(task, embed(dense, task.sequences, "dense")).spearman;
    fmt::print("Spearman x 100, dense {:.2f}; schedules from {} texts.\n\n", 100 * quality,
               sample.size());
    fmt::print("| tokens kept by | dropped tokens in the mean | share of MACs | Spearman | speedup "
               "| of 1 / "
               "share |\n|---|---|---|---|---|---|\n");
    using rule = token_pruning::rule;
    for (const auto& [name, by] :
         {std::pair("threshold", rule::threshold), std::pair("share (top k)", rule::share),
          std::pair("count (fixed schedule)", rule::count)})
        for (const double share : shares) {
            token_pruning found;
            try {
                found = schedule_for(dense, sample, by, share);
            } catch (const std::invalid_argument&) { // drops as much as it can, and is above
                fmt::print("| {} | | {} cannot be reached | | | |\n", name, share);
                continue;
            }
            for (const auto& [dropped, net] :
                 {std::pair("guessed", &guessing), std::pair("as they were", &plain),
                  std::pair("gone", &plain)}) {
                network& pruned = *net;
                found.carried = dropped != std::string("gone");
                pruned.set_token_pruning(found);
                std::vector<token_use> use;
                const matrix embeddings = embed(pruned, task.sequences, "pruned", &use);
                const double of_macs = token_macs(m, use) / dense_token_macs(m, task.sequences);
                const double gain = compare_speed(dense, pruned, task.sequences).speedup;
                fmt::print("| {} | {} | {:.3f} | {:.2f} | {:.2f} | {:.2f} |\n", name, dropped,
                           of_macs, 100 * correlate(task, embeddings).spearman, gain,
                           gain * of_macs);
                std::fflush(stdout);
            }
        }
}

} // namespace

int main(int argc, char** argv) {
    std::string model, text, pairs;
    std::size_t samples = 1000;
    std::vector<double> shares = {0.8, 0.67, 0.5, 0.4};
    CLI::App app("Measures what dropping tokens costs in quality and gains in time.");
    app.add_option("--model", model, "folder of the encoder")->required();
    app.add_option("--calibrate", text, "a document a line")->required();
    app.add_option("--evaluate", pairs, "score, text, text, by tabs")->required();
    app.add_option("--samples", samples, "most documents of --calibrate that are used");
    app.add_option("--macs", shares, "shares of the multiply-adds to keep")->delimiter(',');
    CLI11_PARSE(app, argc, argv);
    try {
        run(model, text, pairs, samples, shares);
    } catch (const std::exception& e) {
        fmt::print(stderr, "token_quality: {}\n", e.what());
        return 2;
    }
    return 0;
}
