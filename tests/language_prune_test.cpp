// Language models with fewer heads and filters: the gradients that choose them, what is left, and the
// files that hold it.
#include "encoder_fixtures.hpp"
#include "encoder_program.hpp"
#include "support.hpp"

#include "language_model/network.hpp"
#include "language_model/prunable.hpp"
#include "language_model/texts.hpp"

#include <pare/policy/simd.hpp>

namespace language_prune_test {

using namespace language;
using ids = std::vector<std::int32_t>;

namespace {

const char* const families[] = {"llama", "llama2", "llama3", "qwen2", "qwen3"};

gguf_file file_of(const std::string& family) {
    return gguf_file(fixtures::path("decoders/" + family + ".gguf"));
}

prunable::calibration some_text(random_source& random, std::size_t batches, index_t sequences,
                                index_t length) {
    prunable::calibration text{{}, length};
    for (std::size_t b = 0; b < batches; ++b) {
        ids& batch = text.batches.emplace_back();
        for (index_t t = 0; t < sequences * length; ++t)
            batch.push_back(static_cast<std::int32_t>(random.integer(0, 319)));
    }
    return text;
}

/// The rows behind sublayers `first` and on.
language::matrix finish(prunable& p, index_t first, language::matrix x) {
    for (index_t s = first; s < p.sublayers(); ++s) {
        const auto units = p.units(s, x);
        p.add(s, units, x);
    }
    return norm(x, p.get().last, p.get().config.epsilon).out();
}

/// -log p of the classes that are drawn of the dense model's logits for batch 0.
double loss(const prunable& p, const language::matrix& rows, const language::matrix& drawn) {
    const Eigen::MatrixXd logits =
        rows.cast<double>() * p.get().to_logits().cast<double>().transpose();
    double sum = 0;
    for (index_t t = 0; t < logits.rows(); ++t) {
        index_t c = 0;
        drawn.row(t).minCoeff(&c); // the only gradient below 0
        const double most = logits.row(t).maxCoeff();
        sum += std::log((logits.row(t).array() - most).exp().sum()) + most - logits(t, c);
    }
    return sum;
}

language::matrix like(random_source& random, const pare::view<const float, 2>& x) {
    return language::matrix::NullaryExpr(x.extent(0), x.extent(1),
                                         [&] { return random.uniform<float>(-1, 1); });
}

std::vector<double> losses_of(const model& m, const ids& text) {
    cache all = make_cache(m, static_cast<index_t>(text.size()));
    return losses(m, forward(m, {text, 0}, all), {text.begin() + 1, text.end()});
}

double furthest(const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
    return most;
}

gguf_file written(const fixtures::scratch_folder& folder, const model& m, const gguf_file& from) {
    programs::write(folder / "m.gguf", to_gguf(m, from));
    return gguf_file(folder / "m.gguf");
}

/// All that stays of a family's small model at some share of its layers' multiply-adds.
prunable pruned_to(double share, const gguf_file& file, const prunable::calibration& text) {
    prunable dense(read_model(file), text, false);
    prunable pruned = dense;
    pare::prune_options options;
    options.share = share;
    pare::prune(pare::simd, dense, pruned, options);
    return pruned;
}

} // namespace

TEST_CASE("gradients of decoders are what losses change by") {
    random_source random;
    CAPTURE(random);
    for (const std::string family : families) {
        CAPTURE(family);
        const auto text = some_text(random, 1, 3, 5);
        prunable p(read_model(file_of(family)), text, false);
        language::matrix drawn = finish(p, 0, p.start(0)) * p.get().to_logits().transpose();
        pare::draw_class_gradients(drawn, 0, drawn);
        index_t seen = 0;
        p.backward(0, [&](index_t s, const auto& units, const auto& at_units, const auto& at_sum) {
            CAPTURE(s);
            ++seen;
            language::matrix before = p.start(0);
            for (index_t i = 0; i < s; ++i) {
                const auto of = p.units(i, before);
                p.add(i, of, before);
            }
            const language::matrix there = Eigen::Map<const language::matrix>(
                units.data_handle(), units.extent(0), units.extent(1));
            const auto check = [&](const auto& gradient, bool of_units) {
                const language::matrix way = like(random, gradient);
                const auto at = [&](float step) {
                    const language::matrix values =
                        of_units ? language::matrix(there + step * way) : there;
                    language::matrix x = before;
                    p.add(s, pare::as_input<2>(values), x);
                    if (!of_units) x += step * way;
                    return loss(p, finish(p, s + 1, x), drawn);
                };
                const float step = 5e-3f;
                const double slope = (at(step) - at(-step)) / (2.0 * static_cast<double>(step));
                const language::matrix g = Eigen::Map<const language::matrix>(
                    gradient.data_handle(), gradient.extent(0), gradient.extent(1));
                const double expected = g.cwiseProduct(way).cast<double>().sum();
                CHECK(std::abs(slope - expected) <
                      0.02 * static_cast<double>(g.norm()) * std::sqrt(3.0));
            };
            check(at_units, true);
            check(at_sum, false);
        });
        CHECK(seen == p.sublayers());
    }
}

TEST_CASE("passes without a cache are passes with one") {
    random_source random;
    CAPTURE(random);
    for (const std::string family : families) {
        const auto text = some_text(random, 1, 1, 9);
        prunable p(read_model(file_of(family)), text, false);
        const ids& tokens = text.batches[0];
        const auto found =
            losses(p.get(), finish(p, 0, p.start(0)), {tokens.begin() + 1, tokens.end()});
        CHECK(furthest(found, losses_of(p.get(), tokens)) < 1e-4);
    }
}

TEST_CASE("a model comes back from the file that it was written to") {
    random_source random;
    CAPTURE(random);
    const fixtures::scratch_folder folder;
    for (const std::string family : families) {
        CAPTURE(family);
        const gguf_file file = file_of(family);
        const model m = read_model(file);
        const gguf_file again = written(folder, m, file);
        const model halves = read_model(again);
        CHECK(to_gguf(halves, again) == to_gguf(m, file));
        CHECK(halves.words == m.words);
        for (std::size_t i = 0; i < m.layers.size(); ++i) {
            CHECK(halves.layers[i].query.weight.isApprox(m.layers[i].query.weight, 1e-3f));
            CHECK(halves.layers[i].query.bias == m.layers[i].query.bias);
            CHECK(halves.layers[i].key_norm == m.layers[i].key_norm);
        }
        for (const std::string& key : file.keys())
            if (key.find("tokenizer") == 0) CHECK(again.bytes(key) == file.bytes(key));
        CHECK(again.entries().size() == file.entries().size());
        const ids text = some_text(random, 1, 1, 20).batches[0];
        CHECK(furthest(losses_of(m, text), losses_of(halves, text)) < 0.1);
    }
}

TEST_CASE("pruned decoders are smaller, and the same where they are read again") {
    random_source random;
    CAPTURE(random);
    const fixtures::scratch_folder folder;
    for (const std::string family : families) {
        CAPTURE(family);
        const gguf_file file = file_of(family);
        const auto text = some_text(random, 4, 4, 16);
        const prunable whole = pruned_to(1, file, text);
        CHECK(whole.get().layers[0].query.weight.rows() ==
              whole.get().config.heads * whole.get().config.head_size);
        const prunable pruned = pruned_to(0.75, file, text);
        index_t groups = 0;
        for (const layer& l : pruned.get().layers) {
            groups += groups_of(l, pruned.get().config);
            CHECK(l.query.weight.rows() ==
                  l.key.weight.rows() * pruned.get().config.heads_of_group());
            CHECK(l.value.bias.size() == (l.query.bias.size() > 0 ? l.value.weight.rows() : 0));
        }
        CHECK(groups < 4);
        const gguf_file small = written(folder, pruned.get(), file);
        const model read = read_model(small);
        const ids some = some_text(random, 1, 1, 20).batches[0];
        CHECK(furthest(losses_of(pruned.get(), some), losses_of(read, some)) < 0.1);
    }
}

TEST_CASE("layers of a file may have widths of their own") {
    random_source random;
    const fixtures::scratch_folder folder;
    const gguf_file file = file_of("qwen2");
    const auto text = some_text(random, 1, 1, 8);
    prunable p(read_model(file), text, false);
    p.keep(2, {0, 1});
    std::vector<std::uint8_t> few(16);
    few[3] = few[5] = 1;
    p.keep(1, few);
    const gguf_file uneven = written(folder, p.get(), file);
    CHECK(uneven.text("general.architecture") == "deci");
    CHECK(uneven.numbers("deci.attention.head_count") == std::vector<std::uint64_t>{4, 2});
    CHECK(uneven.numbers("deci.attention.head_count_kv") == std::vector<std::uint64_t>{2, 1});
    CHECK(uneven.numbers("deci.feed_forward_length") == std::vector<std::uint64_t>{2, 16});
    const model m = read_model(uneven);
    CHECK(m.config.heads == 4);
    CHECK(m.config.filters == 16);
    const ids some = some_text(random, 1, 1, 20).batches[0];
    CHECK(furthest(losses_of(p.get(), some), losses_of(m, some)) < 0.1);

    // Their caches, beside those of layers with as many groups, of which some give nothing.
    prunable even(read_model(file), text, false);
    language::model equal = even.get();
    linear& reader = equal.layers[1].projection;
    reader.weight.leftCols(reader.weight.cols() / 2).setZero();
    for (index_t i = 0; i < 16; ++i)
        if (few[static_cast<std::size_t>(i)] == 0) equal.layers[0].down.weight.col(i).setZero();
    programs::sandbox box(PARE_EVICT_CACHE);
    programs::write(box.folder / "uneven.gguf", to_gguf(p.get(), file));
    programs::write(box.folder / "equal.gguf", to_gguf(equal, file));
    std::string texts;
    for (int i = 0; i < 3; ++i)
        texts += "The houses of " + std::to_string(i * i) + " weren't there; others have been.\n";
    programs::write(box.folder / "texts", texts);
    programs::write(box.folder / "others", texts + "and one more of these, which is longer\n");
    const auto rows = [&](const std::string& model, const std::string& rules) {
        box.must_run("--model " + model +
                     " --texts texts --calibrate others --pass 4 --first 1 "
                     "--last 3 --shares 0.5 --rules " +
                     rules);
        std::vector<std::string> found; // rule, share, keys left, perplexity, more
        std::istringstream lines(box.output);
        for (std::string line; std::getline(lines, line);) {
            if (line.find("| 0.5 |") == line.npos) continue;
            std::size_t end = 0;
            for (int i = 0; i < 6; ++i) end = line.find('|', end) + 1;
            found.push_back(line.substr(0, end));
        }
        return found;
    };
    const std::string known = "window,sinks,h2o,snap,planned ";
    const auto found = rows("uneven.gguf", known), expected = rows("equal.gguf", known);
    REQUIRE(found.size() == 5);
    for (std::size_t i = 0; i < 4; ++i) CHECK(found[i] == expected[i]);
    CHECK(rows("uneven.gguf", "ada,thresholds,learned").size() == 3);
}

TEST_CASE("a file says that it is of an architecture which has such widths") {
    random_source random;
    CAPTURE(random);
    const fixtures::scratch_folder folder;
    const std::vector<std::uint8_t> some(16, 1), second = {0, 1};
    std::vector<std::uint8_t> few = some;
    few[2] = 0;
    const auto text = some_text(random, 1, 1, 20);
    for (const std::string family : families) {
        CAPTURE(family);
        const gguf_file file = file_of(family);
        const prunable whole(read_model(file), text, false);
        const auto name = file.text("general.architecture");
        const auto after =
            [&](const std::vector<std::pair<index_t, std::vector<std::uint8_t>>>& kept) {
                prunable p = whole;
                for (const auto& [s, mask] : kept) p.keep(s, mask);
                const gguf_file small = written(folder, p.get(), file);
                const std::string now = small.text("general.architecture");
                // No key is left of another name, and none is lost.
                std::size_t keys = 0;
                for (const std::string& key : file.keys())
                    if (key.find(name + '.') == 0) {
                        ++keys;
                        CHECK(small.has(now + key.substr(name.size())));
                        CHECK((now == name || !small.has(key)));
                    }
                CHECK(keys > 5);
                const model m = read_model(small);
                CHECK(furthest(losses_of(p.get(), text.batches[0]), losses_of(m, text.batches[0])) <
                      0.1);
                // What is read again is written so again.
                CHECK(to_gguf(m, small) == programs::read(folder / "m.gguf"));
                return now;
            };
        const bool has_norms = family == "qwen3";
        CHECK(after({}) == name);
        CHECK(after({{1, few}, {3, few}}) == name);
        CHECK(after({{0, second}, {2, second}}) == (family == "qwen2" ? "llama" : name));
        CHECK(after({{2, second}}) == (has_norms ? name : "deci"));
        CHECK(after({{1, few}}) == (has_norms ? name : "deci"));
    }
}

TEST_CASE("filters stay in multiples of what is asked for") {
    random_source random;
    CAPTURE(random);
    const auto text = some_text(random, 2, 4, 16);
    for (const index_t multiple : {1, 3, 8, 16, 256}) {
        prunable dense(read_model(file_of("llama")), text, false, multiple);
        for (index_t s = 0; s < dense.sublayers(); ++s)
            CHECK(dense.describe(s).multiple == (s % 2 ? std::min<index_t>(multiple, 16) : 1));
    }
}

TEST_CASE("prune_decoder, as a user runs it") {
    programs::sandbox box(PARE_PRUNE_DECODER);
    std::filesystem::copy(fixtures::path("decoders/llama3.gguf"), box.folder / "m.gguf");
    std::string text;
    for (int i = 0; i < 60; ++i)
        text += "The houses of " + std::to_string(i * i) + " weren't there; others have been.\n";
    programs::write(box.folder / "text", text);
    programs::write(box.folder / "short", "a b\n");
    const std::string model = "--model m.gguf ", some = "--calibrate text --tokens 16 ";
    box.must_run(model + some + "--evaluate text --macs 0.65");
    for (const char* line : {"layers", "MACs a token", "parameters", "perplexity", "% more",
                             "written         m-pruned.gguf"})
        CHECK_THAT(box.output, ContainsSubstring(line));
    const auto small = read_model(gguf_file(box.folder / "m-pruned.gguf"));
    CHECK(groups_of(small.layers[0], small.config) == 1);
    CHECK(groups_of(small.layers[1], small.config) == 1);
    box.must_run("--model m-pruned.gguf " + some + "--widths uneven --macs 1 --out again.gguf");
    CHECK_THAT(box.output, !ContainsSubstring("perplexity"));

    box.must_run(model + some + "--widths uneven --multiple 5 --macs 0.8 --out fifths.gguf");
    for (const layer& l : read_model(gguf_file(box.folder / "fifths.gguf")).layers)
        CHECK(l.up.weight.rows() % 5 == 0);
    CHECK_THAT(box.errors, !ContainsSubstring("qwen3"));
    std::filesystem::copy(fixtures::path("decoders/qwen3.gguf"), box.folder / "q.gguf");
    box.must_run("--model q.gguf " + some + "--widths uneven");
    CHECK_THAT(box.errors, ContainsSubstring("llama.cpp reads no qwen3"));

    const auto refused = [&](const std::string& arguments) {
        CHECK(box.run(arguments) == 2);
        CHECK(box.output.empty());
        CHECK_FALSE(std::filesystem::exists(box.folder / "none.gguf"));
        return box.errors;
    };
    const std::string to = "--out none.gguf ";
    for (const char* share : {"0", "1.01", "-0.5", "nan"})
        CHECK_THAT(refused(model + some + to + "--macs " + share), ContainsSubstring("--macs"));
    CHECK_THAT(refused(model + some + "--macs 0.3 " + to),
               ContainsSubstring("a share of 0.3 allows"));
    CHECK_THAT(refused(model + "--calibrate text --tokens 65 " + to),
               ContainsSubstring("--tokens is 65; m.gguf was made for 64"));
    CHECK_THAT(refused(model + "--calibrate short --tokens 16 " + to),
               ContainsSubstring("short: has fewer than 16 tokens"));
    CHECK_THAT(refused(model + some + "--samples 0 " + to), ContainsSubstring("--samples is 0"));
    CHECK_THAT(refused(model + some + "--widths thin " + to), ContainsSubstring("thin"));
    CHECK_THAT(refused(model + some + "--multiple 0 " + to),
               ContainsSubstring("--multiple is 0; from 1 to 16777216"));
    CHECK_THAT(refused(model + some + "--out m.gguf"), ContainsSubstring("the model"));
    CHECK_THAT(refused(model + some + "--out text"), ContainsSubstring("text"));
    CHECK_THAT(refused("--model text " + some + to), ContainsSubstring("GGUF"));
    const gguf_file qwen = file_of("qwen2");
    language::model wild = read_model(qwen);
    wild.layers[0].value.bias.setConstant(3e38f); // a number, and its sums are none
    programs::write(box.folder / "wild.gguf", to_gguf(wild, qwen));
    CHECK_THAT(
        refused("--model wild.gguf --evaluate text " + some + to),
        ContainsSubstring("wild.gguf: what it predicts behind token 0 of text 1 of text is no "
                          "number"));
    CHECK_THAT(refused("--model wild.gguf " + some + to), ContainsSubstring("wild.gguf"));
    CHECK(programs::read(box.folder / "text") == text);
}

} // namespace language_prune_test
