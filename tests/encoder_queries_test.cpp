// Heads whose queries and keys have fewer numbers than their values: their statistics, the choice, the
// model without them, and the program.
#include "encoder_program.hpp"
#include "encoder_random.hpp"

#include <encoder/network/network.hpp>
#include <encoder/pruning/latency.hpp>
#include <encoder/pruning/prune.hpp>
#include <encoder/pruning/verify.hpp>
#include <encoder/task/evaluate.hpp>

#include <algorithm>

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
            const Index rows = y.heads(size) * size / 2;
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
        REQUIRE(q.heads == y.heads(size));
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

TEST_CASE("all numbers change nothing, and fewer are as queries that vary in as few directions") {
    random_source random;
    CAPTURE(random);
    const model m = tiny_bert();
    network net(m);
    const calibration data = some_text(m, random);
    const surgeon cuts(net, data, fisher_source::free, 1);
    const auto texts = random_texts(m, 10, 2, 20, random);
    const Index size = m.config.head_size;
    for (Index rank = 1; rank <= size; ++rank) {
        CAPTURE(rank);
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
        }
        const model narrow = shrink(m, kept);
        for (const layer& y : narrow.layers) CHECK(y.queries(size) == rank);
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

TEST_CASE("the search over heads, their numbers and filters is the best within the budget") {
    random_source random;
    CAPTURE(random);
    model m = tiny_bert();
    m.layers.resize(1);
    const layer& y = m.layers[0];
    const Index size = m.config.head_size, heads = y.heads(size), filters = y.filters();
    const Index multiple = query_multiple(size);
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
    const unit_costs costs =
        unit_costs::multiply_adds(m.config, random_texts(m, 20, 3, 20, random));
    const auto loss_of = [&](Index h, Index q, Index f) {
        const auto mask = losses.units[0].mask(h);
        double sum = losses.units[0].loss[static_cast<std::size_t>(heads - h)] +
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
                for (Index f = 0; f <= filters; ++f)
                    if (costs.of_layers(m).heads(0, h, q) +
                            costs.per_filter * static_cast<double>(f) <=
                        0.999 * budget)
                        best = std::min(best, loss_of(h, q, f));
        const found_units found = search(m, losses, costs, share);
        CHECK(found.loss <= best * (1 + 1e-12));
        CHECK(found.bound <= found.loss);
        const auto& mask = found.kept.heads[0];
        const Index kept = std::count(mask.begin(), mask.end(), 1);
        CHECK_THAT(found.loss, WithinRel(loss_of(kept, found.kept.queries[0].rank,
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
    for (Index q = 1; q <= size; ++q) {
        CHECK(costs.heads(0, 0, q) == 0);
        for (Index h = 1; h <= 3; ++h) CHECK(costs.heads(0, h, q) >= 0);
    }
    for (Index h = 1; h <= 3; ++h) // on a straight line before they are timed
        CHECK_THAT(costs.heads(0, h, 3),
                   WithinRel((5 * costs.heads(0, h, 1) + 2 * costs.heads(0, h, size)) / 7, 1e-9));
    CHECK(times.measure({{2, 3, 0}}));
    CHECK_FALSE(times.measure({{2, 3, 0}}));
}

TEST_CASE("squared weights of heads with narrow queries are those that there are") {
    model m = tiny_bert();
    const Index size = m.config.head_size;
    for (layer& y : m.layers)
        for (dense* d : {&y.query, &y.key}) {
            const Index rows = y.heads(size) * 3;
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
        const Index multiple = query_multiple(size);
        REQUIRE(multiple >= 1);
        REQUIRE(size % multiple == 0);
        REQUIRE(multiple <= std::max<Index>(1, size / 4));
    }
    CHECK(query_multiple(32) == 8);
    CHECK(query_multiple(64) == 8);
    CHECK(query_multiple(12) == 3);
}

TEST_CASE("prune_encoder makes narrow heads where that is best, and keeps them whole if told to") {
    programs::sandbox p(PARE_PRUNE_ENCODER);
    const std::string run = "--model model --calibrate text --macs 0.3 --out small --json r.json ";
    const auto queries = [&] {
        return programs::read_json(p.folder / "r.json")["queries_kept"].get<std::vector<Index>>();
    };
    const std::vector<Index> whole(3, load_model(p.folder / "model").config.head_size);
    p.must_run(run);
    CHECK(queries() != whole);
    const json config = programs::read_json(p.folder / "small/config.json");
    CHECK(config["pare"]["queries"] == queries());
    CHECK(load_model(p.folder / "small").queries() == queries());
    SECTION("and prunes them again, and tokens behind that") {
        p.must_run("--model small --calibrate text --macs 0.7 --out smaller");
        p.must_run("--model small --calibrate text --budget latency=0.8 --latency-batch 2x8 "
                   "--out smaller");
        p.program = PARE_LEARN_THRESHOLDS;
        p.must_run(
            "--model small --train text --stage soft --epochs 1 --target-macs 0.8 --out dropping");
        CHECK(load_model(p.folder / "dropping").queries() ==
              load_model(p.folder / "small").queries());
    }
    SECTION("of a size that layers share") {
        p.must_run(run + "--widths tied");
        const std::vector<Index> found = queries();
        CHECK(std::count(found.begin(), found.end(), found[0]) == 3);
    }
    SECTION("or not at all") {
        for (const char* how : {"--whole-heads", "--fisher none", "--criterion fisher"}) {
            CAPTURE(how);
            p.must_run(run + how);
            CHECK(queries() == whole);
        }
        CHECK(p.run(run + "--export onnx --whole-heads --macs 2") == 2);
    }
}
