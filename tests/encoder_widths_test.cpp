// Widths that layers share, and what transformers loads: plain where layers are alike, else by the code
// that is written beside the weights.
#include "encoder_heads.hpp"
#include "encoder_program.hpp"
#include "encoder_random.hpp"

#include <encoder/network/network.hpp>
#include <encoder/pruning/prune.hpp>

#include <algorithm>
#include <tuple>

namespace encoder_widths_test {

using namespace encoder;
using Eigen::Index;
using nlohmann::json;
using programs::read, programs::read_json, programs::write;
namespace fs = std::filesystem;

namespace {

/// Whether a list holds one number again and again.
bool is_even(const json& list) {
    return std::count(list.begin(), list.end(), list[0]) == static_cast<long>(list.size());
}

std::string code() {
    return read(fixtures::path("../../examples/encoder/files/modeling_pare.py"));
}

/// With so many first heads and filters in each layer.
model cut(const model& m, const std::vector<index_t>& heads, const std::vector<index_t>& filters) {
    kept_units kept;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const auto first = [](Index of, index_t n) {
            std::vector<std::uint8_t> mask(static_cast<std::size_t>(of), 0);
            std::fill_n(mask.begin(), n, 1);
            return mask;
        };
        kept.heads.push_back(first(m.layers[l].heads, heads[l]));
        kept.filters.push_back(first(m.layers[l].filters(), filters[l]));
    }
    return shrink(m, kept);
}

dense random_dense(Index rows, Index columns, random_source& random) {
    const auto weight = random.vector<float>(rows * columns), bias = random.vector<float>(rows);
    return {Eigen::Map<const encoder::matrix>(weight.data(), rows, columns),
            Eigen::Map<const encoder::vector>(bias.data(), rows)};
}

} // namespace

TEST_CASE("shared widths are the best ones that fit the budget") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    const auto layers = static_cast<Index>(m.layers.size());
    const Index heads = m.heads()[0], filters = m.filters()[0], size = m.config.head_size;
    const unit_costs costs =
        unit_costs::multiply_adds(m.config, random_texts(m, 20, 3, 20, random));
    std::vector<pare::loss_curve> losses;
    for (std::size_t s = 0; s < 2 * m.layers.size(); ++s) {
        losses.push_back(pare::sorted_losses(s % 2 == 0 ? random.vector<double>(heads, 0, 9)
                                                        : random.vector<double>(filters, 0, 1)));
    }
    const auto loss_of = [&](Index h, Index f) {
        double sum = 0;
        for (std::size_t s = 0; s < losses.size(); ++s)
            sum += losses[s].loss[static_cast<std::size_t>(s % 2 == 0 ? heads - h : filters - f)];
        return sum;
    };
    const auto cost_of = [&](Index h, Index f) {
        return static_cast<double>(layers) * (costs.of_layers(m).heads(0, {h, size, size}) +
                                              costs.per_filter * static_cast<double>(f));
    };
    const layer_widths allowed = GENERATE(layer_widths::tied, layer_widths::equal);
    const Index fewest = allowed == layer_widths::equal ? heads : 1;
    const double least = cost_of(fewest, 1) / costs.of(m);
    for (const double share : {least + 0.001, 0.3, 0.5, 0.7, 0.9}) {
        if (share < least) continue;
        CAPTURE(share);
        const double budget = share * costs.of(m);
        double best = std::numeric_limits<double>::max(); // a little below the budget
        for (Index h = fewest; h <= heads; ++h)
            for (Index f = 1; f <= filters; ++f)
                if (cost_of(h, f) <= 0.999 * budget) best = std::min(best, loss_of(h, f));
        const found_units found = search(m, losses, costs, share, allowed);
        const model small = shrink(m, found.kept);
        CHECK(is_even(small.heads()));
        CHECK(is_even(small.filters()));
        CHECK(small.heads()[0] >= fewest);
        CHECK(small.filters()[0] >= 1);
        CHECK(costs.of(small) <= budget);
        CHECK(found.loss <= best * (1 + 1e-12));
        CHECK(found.bound <= found.loss);
        CHECK_THAT(found.loss, WithinRel(loss_of(small.heads()[0], small.filters()[0]), 1e-12));
        CHECK(found.loss >= search(m, losses, costs, share).bound);
    }
    CHECK_THROWS_WITH(
        search(m, losses, costs, least / 2, allowed),
        ContainsSubstring("is below the least of equal widths, " + std::to_string(least)));
    CHECK_THROWS_AS(check_budget(m, costs, least / 2, allowed, false), std::invalid_argument);
    check_budget(m, costs, least + 0.001, allowed, false);
    const auto uneven = cut(m, {1, 2, 2}, {9, 9, 9});
    CHECK_THROWS_WITH(check_budget(uneven, costs, 0.5, allowed, false),
                      ContainsSubstring("layers of 1 and 2 heads cannot be made equally wide"));
}

TEST_CASE("prune_encoder keeps widths that layers share") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string files = "--model model --calibrate text --out small --json r.json ";
    const auto prune = [&](const std::string& how) {
        CAPTURE(how);
        p.must_run(files + how);
        return read_json(p.folder / "r.json");
    };
    const json dense = read_json(p.folder / "model/config.json");
    for (const std::string how : {"--macs 0.5 --front f.json", "--budget params=0.6",
                                  "--macs 0.6 --html p.html", "--macs 0.5 --criterion fisher"}) {
        const json tied = prune(how + " --widths tied");
        CHECK(is_even(tied["heads_kept"]));
        CHECK(is_even(tied["filters_kept"]));
    }
    // What so small a model's layers take of its time is chance.
    const std::string timed = "--budget latency=0.95 --latency-batch 2x8 --widths tied";
    if (p.run(files + timed) == 0)
        CHECK(is_even(read_json(p.folder / "r.json")["heads_kept"]));
    else
        CHECK_THAT(p.errors, ContainsSubstring("below what remains with the least of equal"));
    for (const json& point : read_json(p.folder / "f.json")) {
        CHECK(point["heads"].size() == dense["num_hidden_layers"]);
        CHECK(is_even(point["heads"]));
        CHECK(is_even(point["filters"]));
    }
    const json equal = prune("--macs 0.7 --widths equal");
    CHECK(equal["heads_kept"][0] == dense["num_attention_heads"]);
    CHECK(is_even(equal["heads_kept"]));
    CHECK(is_even(equal["filters_kept"]));
    const json written = read_json(p.folder / "small/config.json");
    CHECK_FALSE(written.contains("pare"));
    CHECK(written["intermediate_size"] == equal["filters_kept"][0]);

    fs::remove_all(p.folder / "small");
    const auto fails = [&](const std::string& arguments, const std::string& sentence) {
        CAPTURE(arguments);
        CHECK(p.run(arguments) == 2);
        CHECK_THAT(p.errors, ContainsSubstring(sentence));
        CHECK(p.output.empty());
        CHECK_FALSE(fs::exists(p.folder / "small"));
    };
    fails(files + "--widths some", "--widths");
    fails(files + "--macs 0.1 --widths equal", "below the least of equal widths, 0.");
    fails(files + "--budget latency=0.01 --latency-batch 2x8 --widths equal",
          "below what remains with the least of equal widths, ");
    const model m = load_model(p.folder / "model");
    save_model(cut(m, {1, 2, 2}, {9, 9, 9}), p.folder / "model", p.folder / "uneven");
    fails("--model uneven --calibrate text --out small --widths tied",
          "layers of 1 and 2 heads cannot be made equally wide");
}

TEST_CASE("code for transformers is written where it is asked for, and stays with the model") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string plain = "--model model --calibrate text --macs 0.5 --out plain";
    REQUIRE(p.run(plain) == 0);
    CHECK_FALSE(fs::exists(p.folder / "plain/modeling_pare.py"));
    for (int again = 0; again < 2; ++again) // what was written here is replaced
        REQUIRE(p.run("--model model --calibrate text --macs 0.5 --out small "
                      "--transformers-code") == 0);
    CHECK(read(p.folder / "small/modeling_pare.py") == code());
    json config = read_json(p.folder / "small/config.json");
    const json map = {{"AutoModel", "modeling_pare.PareBertModel"}};
    CHECK(config["auto_map"] == map);
    config.erase("auto_map");
    CHECK(config == read_json(p.folder / "plain/config.json"));

    REQUIRE(p.run("--model small --calibrate text --macs 0.8 --out smaller") == 0);
    p.program = PARE_LEARN_THRESHOLDS;
    REQUIRE(p.run("--model smaller --train text --stage calibrate --target-macs 0.8 --out drop") ==
            0);
    CHECK(read(p.folder / "drop/modeling_pare.py") == code());
    CHECK(read_json(p.folder / "drop/config.json")["auto_map"] == map);
}

TEST_CASE("transformers gives the outputs of models of all families, uneven ones by their code") {
    random_source random;
    CAPTURE(random);
    const fixtures::scratch_folder folder;
    json models = json::array();
    const auto add = [&](const model& m, const fs::path& source, const std::string& kind) {
        const std::string name = std::to_string(models.size());
        save_model(m, source, folder / name);
        network net(m);
        std::vector<sequence> texts = random_texts(m, 5, 1, 11, random);
        for (sequence& text : texts)
            for (auto& id : text) id = std::max(id, 4); // others may be padding, which has no place
        const encoder::matrix found = embed(net, texts, "");
        json rows = json::array();
        for (const auto& row : found.rowwise())
            rows.push_back(std::vector<float>(row.begin(), row.end()));
        models.push_back({{"folder", name},
                          {"class", kind},
                          {"needs_code", m.has_code},
                          {"has_others", !m.others.empty()},
                          {"sequences", texts},
                          {"outputs", rows}});
    };
    for (const auto& [name, prefix] :
         {std::pair("bert", "bert."), std::pair("distilbert", "distilbert."),
          std::pair("roberta", "roberta."), std::pair("xlm-roberta", "roberta."),
          std::pair("electra", "electra."), std::pair("mpnet", "mpnet.")}) {
        const fs::path source = fixtures::path(std::string("families/") + name);
        const model whole = load_model(source);
        const Index hidden = whole.config.hidden;
        model headed = whole;
        const stock_head* const stock = find_stock_head(name);
        headed.others.clear();
        headed.prefix = prefix;
        headed.config.pooling = pooling::cls;
        headed.head = head{random_dense(3, hidden, random), random_dense(hidden, hidden, random),
                           stock->between, stock};
        headed.json["architectures"] = {stock->architecture};
        add(cut(whole, {2, 2}, {5, 5}), source, "AutoModel"); // as --widths equal has it
        add(cut(headed, {2, 2}, {7, 7}), source, "AutoModelForSequenceClassification");
        for (const auto& [of, outputs, kind] :
             {std::tuple(head::subject::token, 4, "AutoModelForTokenClassification"),
              std::tuple(head::subject::span, 2, "AutoModelForQuestionAnswering")}) {
            model on_tokens = with_head_on_tokens(whole, of, outputs);
            on_tokens.prefix = prefix;
            add(cut(on_tokens, {2, 2}, {5, 5}), source, kind);
            on_tokens = cut(on_tokens, {1, 0}, {3, 9});
            on_tokens.has_code = true;
            add(on_tokens, source, kind);
        }
        for (const auto& [heads, filters] :
             {std::pair(std::vector<index_t>{1, 2}, std::vector<index_t>{12, 3}),
              std::pair(std::vector<index_t>{0, 1}, std::vector<index_t>{4, 0}),
              std::pair(std::vector<index_t>{1, 1}, std::vector<index_t>{6, 6})}) {
            model uneven = cut(whole, heads, filters);
            uneven.has_code = true;
            add(uneven, source, "AutoModel");
            for (layer& y : uneven.layers) { // of as many numbers as heads
                const Index n = y.heads;
                for (dense* d : {&y.query, &y.key}) *d = random_dense(n * n, hidden, random);
            }
            add(uneven, source, "AutoModel");
            for (layer& y : uneven.layers) { // and of values, one more
                const Index columns = y.heads * (y.heads + 1);
                y.value = random_dense(columns, hidden, random);
                y.attention_output = random_dense(hidden, columns, random);
            }
            add(uneven, source, "AutoModel");
            uneven = cut(headed, heads, filters);
            uneven.has_code = true;
            add(uneven, source, "AutoModelForSequenceClassification");
        }
    }
    write(folder / "models.json", models.dump());
    CHECK(programs::run_python("check_transformers.py", folder.path()));
}

} // namespace encoder_widths_test
