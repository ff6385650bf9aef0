// Schedules of token pruning: what they promise on their own text.
#include "encoder_fixtures.hpp"
#include "encoder_random.hpp"
#include "support.hpp"

#include <encoder/training/tokens.hpp>

#include <algorithm>

namespace encoder_tokens_test {

using namespace encoder;
using rule = token_pruning::rule;

namespace {

std::vector<token_use> use_of(network& net, const std::vector<sequence>& text,
                              const token_pruning& p) {
    net.set_token_pruning(p);
    std::vector<token_use> use;
    encoder::matrix embeddings;
    for (const batch& b : make_batches(text, 100, 7)) net.forward(b, embeddings, &use);
    net.set_token_pruning({});
    return use;
}

} // namespace

TEST_CASE("a schedule keeps its budget on its own text, and no more is dropped than need be") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    network net(m);
    const std::vector<sequence> text = random_texts(m, 50, 1, 30, random);
    const double dense = dense_token_macs(m, text);
    CHECK(token_macs(m, use_of(net, text, {})) == dense);
    for (const rule by : {rule::threshold, rule::share, rule::count})
        for (const double share : {0.9, 0.7, 0.35}) {
            const token_pruning p = schedule_for(net, text, by, share);
            CHECK(p.by == by);
            const double used = token_macs(m, use_of(net, text, p)) / dense;
            CHECK(used <= share + 1e-9);
            CHECK(used > share - 0.2); // whole tokens of short sequences
        }
    CHECK_THROWS_AS(schedule_for(net, text, rule::threshold, 0.01), std::invalid_argument);
}

TEST_CASE("what a schedule says that layers had to do is what they do") {
    random_source random;
    CAPTURE(random);
    const model m = load_model(fixtures::path("tiny_bert"));
    network net(m);
    const std::vector<sequence> text = random_texts(m, 50, 1, 30, random);
    for (const rule by : {rule::threshold, rule::share, rule::count})
        for (const double most : {0.0, 0.5, 0.9}) {
            std::vector<token_use> said;
            const token_pruning p = schedule(net, text, by, most, said);
            const std::vector<token_use> done = use_of(net, text, p);
            REQUIRE(said.size() == done.size());
            for (std::size_t l = 0; l < done.size(); ++l) {
                CAPTURE(l, most);
                // Scores near a threshold may fall on its other side in another batch.
                CHECK(std::abs(said[l].kept - done[l].kept) <= 2);
                CHECK(std::abs(said[l].attending - done[l].attending) <= 2);
                if (most == 0) CHECK(done[0].attending - done[l].kept <= 2);
            }
        }
}

TEST_CASE("tokens leave in the layers in which forward drops them") {
    random_source random;
    CAPTURE(random);
    network net(load_model(fixtures::path("tiny_bert")));
    const std::size_t depth = net.model().layers.size();
    token_pruning by_threshold, by_share, by_count;
    by_threshold.numbers = {0.8, 0.9, 1};
    by_threshold.alpha = 1.1;
    by_share.by = rule::share;
    by_share.numbers = {1, 0.6, 0.5};
    by_count.by = rule::count;
    by_count.numbers = {20, 7, 1};
    for (const token_pruning& p : {token_pruning(), by_threshold, by_share, by_count}) {
        net.set_token_pruning(p);
        std::size_t leave = 0;
        for (const sequence& text : random_texts(net.model(), 50, 1, 30, random)) {
            const std::vector<std::size_t> layers = layers_of_leaving(net, text);
            REQUIRE(layers.size() == text.size());
            CHECK(layers[0] == depth);
            batch b;
            b.append(text);
            std::vector<token_use> use;
            encoder::matrix embeddings;
            net.forward(b, embeddings, &use);
            for (std::size_t l = 0; l < depth; ++l)
                CHECK(use[l].kept == std::count_if(layers.begin(), layers.end(),
                                                   [l](std::size_t at) { return at > l; }));
            leave += text.size() - static_cast<std::size_t>(use[depth - 1].kept);
        }
        CHECK((leave > 0) == !p.numbers.empty());
    }
}

} // namespace encoder_tokens_test
