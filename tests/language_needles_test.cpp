// Sentences that are hidden in a text and asked for behind it.
#include "encoder_fixtures.hpp"
#include "language_vocabulary.hpp"
#include "support.hpp"

#include "language_model/needles.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace language_needles_test {

using namespace language;

TEST_CASE("needles are stated between the sentences of a text, at equal distances") {
    const tokenizer words(vocabularies::small());
    std::string text;
    for (int i = 0; i < 60; ++i) text += " It was the day number " + std::to_string(i) + ".";
    std::mt19937_64 random(3);
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{7}}) {
        const std::vector<needle> needles = make_needles(count, random);
        REQUIRE(needles.size() == count);
        const auto ids = hide_needles(words, text, needles, 900);
        CHECK(ids.size() <= 900);
        CHECK(ids.size() > 800);
        std::string rest = words.decode(ids);
        const auto length = static_cast<double>(rest.size());
        for (std::size_t i = 0; i < count; ++i) {
            CHECK(needles[i].sentence == needles[i].question + needles[i].answer + ".");
            const std::size_t at = rest.find(needles[i].sentence);
            REQUIRE(at != std::string::npos);
            CHECK((at == 0 || rest[at - 1] == '.'));
            CHECK(needles[i].sentence[0] == ' ');
            // Its tokens are there as they are alone.
            const auto alone = words.encode(needles[i].sentence);
            CHECK(std::search(ids.begin(), ids.end(), alone.begin(), alone.end()) != ids.end());
            const double expected = (static_cast<double>(i) + 0.5) / static_cast<double>(count);
            CHECK(std::abs(static_cast<double>(at) / length - expected) < 0.1);
        }
        for (const needle& n : needles) rest.erase(rest.find(n.sentence), n.sentence.size());
        CHECK(text.compare(0, rest.size(), rest) == 0);
    }
    // In a text of one sentence, and in none.
    const std::vector<needle> two = make_needles(2, random);
    CHECK(words.decode(hide_needles(words, "All is well.", two, 900)) ==
          "All is well." + two[0].sentence + two[1].sentence);
    CHECK(words.decode(hide_needles(words, "", two, 900)) == two[0].sentence + two[1].sentence);
    CHECK(words.decode(hide_needles(words, "All  is well.  ", two, 900)) ==
          "All  is well." + two[0].sentence + two[1].sentence);
    // Words of a sentence that does not fit as a whole.
    const std::string cut = words.decode(hide_needles(words, "One. Two three four.", {}, 9));
    CHECK(cut == "One. Two");
    CHECK_THROWS_AS(hide_needles(words, "One.", two, 20), std::invalid_argument);
    // As many as there are questions.
    std::set<std::string> questions;
    for (const needle& n : make_needles(most_needles, random)) questions.insert(n.question);
    CHECK(questions.size() == most_needles);
    CHECK_THROWS_AS(make_needles(most_needles + 1, random), std::invalid_argument);
}

TEST_CASE(
    "needles are asked for by the tokens that state them, where texts begin with a space too") {
    const tokenizer words(read_vocabulary(gguf_file(fixtures::path("decoders/llama2.gguf"))));
    std::string text = "It was a day.";
    for (int i = 0; i < 60; ++i) text += " It was the day number " + std::to_string(i) + ".";
    std::mt19937_64 random(3);
    const std::vector<needle> needles = make_needles(7, random);
    const auto ids = hide_needles(words, text, needles, 900);
    CHECK(ids.size() <= 901);
    CHECK(ids.size() > 800);
    for (const needle& n : needles) {
        auto stated = words.encode(n.question, false, true);
        for (const std::int32_t id : words.encode(n.answer, false, true)) stated.push_back(id);
        CHECK(std::search(ids.begin(), ids.end(), stated.begin(), stated.end()) != ids.end());
    }
}

} // namespace language_needles_test
