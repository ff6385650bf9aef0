// Schedules of token pruning: what they promise on their own text.
#include "encoder_fixtures.hpp"
#include "support.hpp"

#include <encoder/tokens.hpp>

using namespace encoder;
using rule = token_pruning::rule;

namespace {

std::vector<sequence> random_text(const model& m, random_source& random) {
    std::vector<sequence> all;
    for (int i = 0; i < 50; ++i) {
        sequence s;
        for (index_t n = random.integer(1, 30); n > 0; --n)
            s.push_back(static_cast<std::int32_t>(random.integer(0, m.config.vocabulary - 1)));
        all.push_back(std::move(s));
    }
    return all;
}

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
    const std::vector<sequence> text = random_text(m, random);
    const double dense = dense_token_macs(m, text);
    CHECK(token_macs(m, use_of(net, text, {})) == dense);
    for (const rule by : {rule::threshold, rule::share, rule::count})
        for (const double share : {0.9, 0.7}) {
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
    const std::vector<sequence> text = random_text(m, random);
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
                if (most == 0) CHECK(done[l].kept == done[0].attending);
            }
        }
}
