// Heads of fewer numbers: their statistics, the choice, the model without them, and the program.
#include "encoder_program.hpp"
#include "encoder_random.hpp"

#include <encoder/network/network.hpp>
#include <encoder/pruning/latency.hpp>
#include <encoder/pruning/prune.hpp>
#include <encoder/pruning/verify.hpp>
#include <encoder/task/evaluate.hpp>

#include <algorithm>

namespace encoder_narrow_test {

using namespace encoder;
using Eigen::Index;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

model tiny_bert() {
    return load_model(fixtures::path("tiny_bert"));
}
calibration some_text(const model& m, random_source& random) {
    return {{task_kind::distill, random_texts(m, 60, 2, 20, random), {}, {}, {}}, {}};
}

double largest(const encoder::matrix& x) {
    return static_cast<double>(x.cwiseAbs().maxCoeff());
}

} // namespace

TEST_CASE("a backward pass shows queries, and gradients that sum up to the bias's") {
    random_source random;
    CAPTURE(random);
    model m = tiny_bert();
    const Index size = m.config.head_size;
    for (layer& y : m.layers) // of half of their numbers
        for (dense* d : {&y.query, &y.key}) {
            const Index rows = y.heads * size / 2;
            *d = {d->weight.topRows(rows).eval(), d->bias.head(rows).eval()};
        }
    network net(m);
    batch b;
    for (const sequence& text : random_texts(m, 5, 2, 20, random)) b.append(text);
    const encoder::matrix at_outputs = encoder::matrix::Random(b.sequences(), m.config.hidden);
    const auto loss = [&](const encoder::matrix&, encoder::matrix& gradient) {
        gradient = at_outputs;
    };
    gradients expected;
    expected.weights = zeros_like(m);
    net.learn(b, loss, {}, expected);
    std::size_t seen = 0;
    net.backward_units(b, loss, [&](const engine::unit_gradients& found) {
        if (found.kind == unit_kind::filter) return;
        ++seen;
        const layer& y = m.layers[found.layer];
        const heads_of_rows &q = found.queries, &g = found.at_queries;
        REQUIRE(q.tokens == b.tokens());
        REQUIRE(q.heads == y.heads);
        REQUIRE(q.size == size / 2);
        REQUIRE(g.size == q.size);
        const auto at = [](const heads_of_rows& x, Index t, Index h, Index i) {
            return static_cast<const float*>(x.data)[t * x.token_stride + h * x.head_stride + i];
        };
        for (Index h = 0; h < q.heads; ++h)
            for (Index i = 0; i < q.size; ++i) {
                double sum = 0;
                for (Index t = 0; t < q.tokens; ++t) sum += static_cast<double>(at(g, t, h, i));
                const float of_bias =
                    expected.weights.layers[found.layer].query.bias(h * q.size + i);
                CHECK(std::abs(sum - static_cast<double>(of_bias)) < 1e-5);
            }
        if (found.layer > 0) return;
        encoder::matrix x;
        net.embed(b, x);
        const encoder::matrix whole =
            (x * y.query.weight.transpose()).rowwise() + y.query.bias.transpose();
        for (Index t = 0; t < q.tokens; ++t)
            for (Index h = 0; h < q.heads; ++h)
                for (Index i = 0; i < q.size; ++i)
                    REQUIRE(std::abs(at(q, t, h, i) - whole(t, h * q.size + i)) < 1e-5f);
    });
    CHECK(seen == m.layers.size());
}

TEST_CASE("all numbers change nothing, and fewer are as heads that vary in as few directions") {
    random_source random;
    CAPTURE(random);
    const model m = tiny_bert();
    network net(m);
    const calibration data = some_text(m, random);
    const surgeon cuts(net, data, fisher_source::free, 1);
    const auto texts = random_texts(m, 10, 2, 20, random);
    const Index size = m.config.head_size;
    for (Index rank = 1; rank <= size; ++rank) {
        const Index values = rank == size ? size : random.integer(1, size);
        CAPTURE(rank, values);
        kept_units kept;
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            const auto units = [&](std::size_t s) {
                const pare::loss_curve& of = cuts.losses().units[s];
                return of.mask(rank == size ? of.units() : random.integer(1, of.units()));
            };
            kept.heads.push_back(units(2 * l));
            kept.filters.push_back(units(2 * l + 1));
            kept.queries.push_back({rank, {}});
            for (std::size_t h = 0; h < kept.heads[l].size(); ++h)
                if (kept.heads[l][h]) kept.queries[l].heads.push_back(cuts.losses().queries[l][h]);
            const auto heads =
                static_cast<std::size_t>(std::count(kept.heads[l].begin(), kept.heads[l].end(), 1));
            kept.values.push_back({values, cuts.losses().values[l][heads].heads});
        }
        const model narrow = shrink(m, kept);
        for (const layer& y : narrow.layers) {
            CHECK(y.queries() == rank);
            CHECK(y.values() == values);
        }
        network small(narrow);
        const encoder::matrix found = embed(small, texts, "");
        if (rank == size) CHECK(largest(found - embed(net, texts, "")) < 1e-6);
        std::vector<std::string> notes;
        const model tuned =
            tune(net, kept, data.all(), tuning::reconstruct, 0.1, notes, cuts.weights());
        CHECK(notes.empty());
        network by_ranks(tuned);
        const auto masked = with_masks(net, m, tuned, kept);
        CHECK(largest(embed(by_ranks, texts, "") - embed(*masked, texts, "")) < 1e-4);
    }
}

TEST_CASE("exits guess of narrower values what they guess of ones that vary in as few directions") {
    random_source random;
    CAPTURE(random);
    model m = tiny_bert();
    m.tokens = {token_pruning::rule::count, {9, 6, 3}};
    for (const layer& y : m.layers)
        m.exits.push_back(
            {encoder::matrix::Random(m.config.hidden, m.config.hidden + y.value.weight.rows()),
             encoder::vector::Random(m.config.hidden)});
    network net(m);
    const surgeon cuts(net, some_text(m, random), fisher_source::free, 1);
    const auto texts = random_texts(m, 10, 2, 20, random);
    for (Index rank = 1; rank <= m.config.head_size; ++rank) {
        CAPTURE(rank);
        kept_units kept;
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            kept.heads.emplace_back(m.layers[l].heads, 1);
            kept.filters.emplace_back(m.layers[l].filters(), 1);
            kept.values.push_back({rank, cuts.losses().values[l].back().heads});
        }
        const model narrow = shrink(m, kept);
        CHECK(narrow.exits[1].weight.cols() == m.config.hidden + m.layers[1].heads * rank);
        network small(narrow), wide(expand(m, narrow, kept));
        const encoder::matrix found = embed(small, texts, "");
        CHECK(largest(found - embed(wide, texts, "")) < 1e-5);
        if (rank == m.config.head_size) CHECK(largest(found - embed(net, texts, "")) < 1e-5);
    }
}

TEST_CASE("the search over heads, their numbers and filters is the best within the budget") {
    random_source random;
    CAPTURE(random);
    model m = tiny_bert();
    m.layers.resize(1);
    const layer& y = m.layers[0];
    const Index size = m.config.head_size, heads = y.heads, filters = y.filters();
    const Index multiple = number_multiple(size);
    REQUIRE(multiple == 2);
    sublayer_losses losses;
    losses.units = {pare::sorted_losses(random.vector<double>(heads, 0, 9)),
                    pare::sorted_losses(random.vector<double>(filters, 0, 1))};
    losses.queries.resize(1);
    for (Index h = 0; h < heads; ++h) {
        pare::projection of;
        for (Index k = 0; k <= size; ++k)
            of.loss.push_back(k == 0 ? 0 : of.loss.back() + random.uniform(0, 1));
        losses.queries[0].push_back(of);
    }
    losses.values.resize(1);
    for (Index h = 0; h <= heads; ++h) {
        pare::rank_curve of;
        of.loss = {losses.units[0].loss[static_cast<std::size_t>(heads - h)]};
        for (Index k = 1; k <= size; ++k) of.loss.push_back(of.loss.back() + random.uniform(0, 1));
        of.heads.resize(static_cast<std::size_t>(h));
        losses.values[0].push_back(of);
    }
    const unit_costs costs =
        unit_costs::multiply_adds(m.config, random_texts(m, 20, 3, 20, random));
    const auto loss_of = [&](Index h, Index q, Index v, Index f) {
        const auto mask = losses.units[0].mask(h);
        double sum = losses.values[0][static_cast<std::size_t>(h)]
                         .loss[static_cast<std::size_t>(h > 0 ? size - v : 0)] +
                     losses.units[1].loss[static_cast<std::size_t>(filters - f)];
        for (Index i = 0; i < heads; ++i)
            if (mask[static_cast<std::size_t>(i)])
                sum += losses.queries[0][static_cast<std::size_t>(i)]
                           .loss[static_cast<std::size_t>(size - q)];
        return sum;
    };
    for (const double share : {0.2, 0.4, 0.6, 0.8}) {
        CAPTURE(share);
        const double budget = share * costs.of(m);
        double best = std::numeric_limits<double>::max(); // a little below the budget
        for (Index h = 0; h <= heads; ++h)
            for (Index q = multiple; q <= size; q += multiple)
                for (Index v = multiple; v <= size; v += multiple)
                    for (Index f = 0; f <= filters; ++f)
                        if (costs.of_layers(m).heads(0, {h, q, v}) +
                                costs.per_filter * static_cast<double>(f) <=
                            0.999 * budget)
                            best = std::min(best, loss_of(h, q, v, f));
        const found_units found = search(m, losses, costs, share);
        CHECK(found.loss <= best * (1 + 1e-12));
        CHECK(found.bound <= found.loss);
        const auto& mask = found.kept.heads[0];
        const Index kept = std::count(mask.begin(), mask.end(), 1);
        CHECK_THAT(found.loss,
                   WithinRel(loss_of(kept, found.kept.queries[0].rank, found.kept.values[0].rank,
                                     std::count(found.kept.filters[0].begin(),
                                                found.kept.filters[0].end(), 1)),
                             1e-12));
    }
}

TEST_CASE("time is a sum over heads by their numbers, also where there are no filters") {
    model m = tiny_bert();
    const Index size = m.config.head_size, hidden = m.config.hidden;
    for (layer& y : m.layers) {
        y.intermediate = {encoder::matrix(0, hidden), encoder::vector(0)};
        y.output.weight.resize(hidden, 0);
    }
    m.layers[1].query = {m.layers[1].query.weight.topRows(3).eval(),
                         m.layers[1].query.bias.head(3)};
    m.layers[1].key = {m.layers[1].key.weight.topRows(3).eval(), m.layers[1].key.bias.head(3)};
    network net(m);
    REQUIRE(m.queries() == std::vector<Index>{size, 1, size});
    latency times(net, {2, 8, false, {}});
    const sublayer_costs costs = times.of_layers();
    CHECK(costs.filters(0)(0) == 0);
    const auto of = [&](Index h, Index q, Index v) { return costs.heads(0, {h, q, v}); };
    for (Index q = 1; q <= size; ++q)
        for (Index v = 2; v <= size; ++v) {
            CHECK(of(0, q, v) == 0);
            for (Index h = 1; h <= 3; ++h) CHECK(of(h, q, v) >= 0);
        }
    for (Index h = 1; h <= 3; ++h) { // on straight lines before they are timed
        const double q = (5 * of(h, 1, size) + 2 * of(h, size, size)) / 7,
                     v = (2 * of(h, size, 2) + of(h, size, size)) / 3;
        CHECK_THAT(of(h, 3, size), WithinRel(q, 1e-9));
        CHECK_THAT(of(h, size, 4), WithinRel(v, 1e-9));
        CHECK_THAT(of(h, 3, 4), WithinAbs(std::max(0., q + v - of(h, size, size)),
                                          1e-9 * of(h, size, size) + 1e-12));
    }
    CHECK(times.measure({{{2, 3, 4}, 0}}));
    CHECK_FALSE(times.measure({{{2, 3, 4}, 0}}));
}

TEST_CASE("squared weights of heads with narrow queries are those that there are") {
    model m = tiny_bert();
    for (layer& y : m.layers)
        for (dense* d : {&y.query, &y.key}) {
            const Index rows = y.heads * 3;
            *d = {d->weight.topRows(rows).eval(), d->bias.head(rows).eval()};
        }
    network net(m);
    const auto losses = criterion(net, {}, fisher_source::magnitude, false, 1).losses();
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        double all = 0;
        const layer& y = m.layers[l];
        for (const dense* d : {&y.query, &y.key, &y.value, &y.attention_output})
            all += static_cast<double>(d->weight.squaredNorm());
        CHECK_THAT(losses[2 * l].loss.back(), WithinRel(all / 2, 1e-5)); // as of Fisher information
    }
}

TEST_CASE("multiples of numbers of a query divide them") {
    for (Index size = 1; size <= 256; ++size) {
        const Index multiple = number_multiple(size);
        REQUIRE(multiple >= 1);
        REQUIRE(size % multiple == 0);
        REQUIRE(multiple <= std::max<Index>(1, size / 4));
    }
    CHECK(number_multiple(32) == 8);
    CHECK(number_multiple(64) == 8);
    CHECK(number_multiple(12) == 3);
}

TEST_CASE("prune_encoder makes narrow heads where that is best, and keeps them whole if told to") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string run = "--model model --calibrate text --macs 0.3 --out small --json r.json ";
    const auto kept = [&](const std::string& what) {
        return programs::read_json(p.folder / "r.json")[what + "_kept"].get<std::vector<Index>>();
    };
    const Index size = load_model(p.folder / "model").config.head_size;
    /// Whether the heads that there are have all numbers.
    const auto are_whole = [&](const std::string& what) {
        const std::vector<Index> numbers = kept(what), heads = kept("heads");
        for (std::size_t l = 0; l < heads.size(); ++l)
            if (heads[l] > 0 && numbers[l] != size) return false;
        return true;
    };
    p.must_run(run);
    const json config = programs::read_json(p.folder / "small/config.json");
    for (const char* what : {"queries", "values"}) {
        CAPTURE(what);
        CHECK_FALSE(are_whole(what));
        CHECK(config["pare"][what] == kept(what));
    }
    CHECK(load_model(p.folder / "small").queries() == kept("queries"));
    CHECK(load_model(p.folder / "small").values() == kept("values"));
    SECTION("and prunes them again, and tokens behind that") {
        p.must_run("--model small --calibrate text --macs 0.7 --out smaller");
        p.must_run("--model small --calibrate text --budget latency=0.8 --latency-batch 2x8 "
                   "--out smaller");
        p.program = PARE_LEARN_THRESHOLDS;
        p.must_run(
            "--model small --train text --stage soft --epochs 1 --target-macs 0.8 --out dropping");
        CHECK(load_model(p.folder / "dropping").queries() ==
              load_model(p.folder / "small").queries());
        CHECK(load_model(p.folder / "dropping").values() ==
              load_model(p.folder / "small").values());
    }
    SECTION("of a size that layers share") {
        p.must_run(run + "--widths tied");
        for (const char* what : {"queries", "values"}) {
            const std::vector<Index> found = kept(what);
            CHECK(std::count(found.begin(), found.end(), found[0]) == 3);
        }
    }
    SECTION("or not at all") {
        for (const char* how : {"--whole-heads", "--fisher none", "--criterion fisher"}) {
            CAPTURE(how);
            p.must_run(run + how);
            CHECK(are_whole("queries"));
            CHECK(are_whole("values"));
        }
        CHECK(p.run(run + "--export onnx --whole-heads --macs 2") == 2);
    }
}

} // namespace encoder_narrow_test
