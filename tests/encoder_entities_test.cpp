// Entities of labels and their F1: against seqeval.
#include "encoder_fixtures.hpp"

#include <encoder/task/entities.hpp>

#include <stdexcept>

namespace encoder_entities_test {

using namespace encoder;
using sentence = std::vector<std::string>;

TEST_CASE("entities and their F1 are seqeval's") {
    std::size_t entities = 0;
    for (const nlohmann::json& c : fixtures::json("entities.json")) {
        entity_counts counts;
        for (std::size_t s = 0; s < c["there"].size(); ++s) {
            const auto there = c["there"][s].get<sentence>();
            std::vector<entity> expected;
            for (const auto& e : c["entities"][s]) // its last word is in it
                expected.push_back({e[0], e[1].get<std::size_t>(), e[2].get<std::size_t>() + 1});
            CHECK(entities_of(there) == expected);
            entities += expected.size();
            counts.add(there, c["found"][s].get<sentence>());
        }
        CHECK(counts.precision() == Approx(c["precision"].get<double>()));
        CHECK(counts.recall() == Approx(c["recall"].get<double>()));
        CHECK(counts.f1() == Approx(c["f1"].get<double>()));
    }
    CHECK(entities > 100);
}

TEST_CASE("labels without entities count nothing, and lists must be as long") {
    entity_counts counts;
    counts.add({"O", "", "X"}, {"O", "O", "O"});
    CHECK(counts.f1() == 0);
    CHECK(counts.precision() == 0);
    CHECK_THROWS_AS(counts.add({"O"}, {}), std::invalid_argument);
}

} // namespace encoder_entities_test
