// Answers to questions: how they are measured, against the definition; which spans are the best,
// against all of them.
#include "encoder_fixtures.hpp"

#include <encoder/task/answers.hpp>

#include <algorithm>
#include <limits>
#include <random>

namespace encoder_answers_test {

using namespace encoder;

TEST_CASE("exact match and F1 of answers are SQuAD's") {
    int exact = 0, partly = 0;
    for (const nlohmann::json& c : fixtures::json("answers.json")) {
        const auto given = c["given"].get<std::string>();
        const auto right = c["right"].get<std::vector<std::string>>();
        INFO(c);
        CHECK(normalized_answer(given) == c["normalized"].get<std::string>());
        CHECK(exact_match(given, right) == c["exact"].get<double>());
        CHECK_THAT(word_f1(given, right), WithinAbs(c["f1"].get<double>(), 1e-12));
        exact += c["exact"].get<double>() > 0;
        partly += c["f1"].get<double>() > 0;
    }
    CHECK(exact > 50);
    CHECK(partly > exact);
}

TEST_CASE("the best answers are the best of all spans") {
    constexpr std::size_t tokens = 12;
    constexpr float gone = -std::numeric_limits<float>::infinity();
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<std::vector<float>> firsts, lasts;
    std::vector<answer_window> windows;
    for (int w = 0; w < 3; ++w) {
        auto& first = firsts.emplace_back(tokens);
        auto& last = lasts.emplace_back(tokens);
        for (std::size_t t = 0; t < tokens; ++t) {
            first[t] = normal(random);
            last[t] = normal(random);
        }
        first[5] = last[5] = gone;
        first[1] = last[2] = 100; // of the question
    }
    for (std::size_t w = 0; w < 3; ++w)
        windows.push_back({firsts[w].data(), lasts[w].data(), 3, tokens - 1});

    constexpr std::size_t longest = 4;
    std::vector<double> scores;
    for (std::size_t w = 0; w < 3; ++w)
        for (std::size_t i = 3; i < tokens - 1; ++i)
            for (std::size_t j = i; j < std::min(i + longest, tokens - 1); ++j)
                if (i != 5 && j != 5)
                    scores.push_back(static_cast<double>(firsts[w][i]) +
                                     static_cast<double>(lasts[w][j]));
    std::sort(scores.rbegin(), scores.rend());

    const std::vector<answer_span> best = best_answers(windows, {20, longest});
    REQUIRE(best.size() == 20);
    for (std::size_t k = 0; k < best.size(); ++k) {
        const answer_span& s = best[k];
        CHECK(s.score == scores[k]);
        CHECK(s.score == static_cast<double>(firsts[s.window][s.first]) +
                             static_cast<double>(lasts[s.window][s.last]));
    }
    // Of the best two tokens alone.
    for (const answer_span& s : best_answers(windows, {2, longest}))
        CHECK(std::count_if(firsts[s.window].begin() + 3, firsts[s.window].end() - 1,
                            [&](float x) { return x > firsts[s.window][s.first]; }) < 2);

    double least = std::numeric_limits<double>::infinity();
    for (std::size_t w = 0; w < 3; ++w)
        least =
            std::min(least, static_cast<double>(firsts[w][0]) + static_cast<double>(lasts[w][0]));
    CHECK(no_answer_score(windows) == least);
}

TEST_CASE("where all tokens were dropped there is no answer") {
    const std::vector<float> gone(4, -std::numeric_limits<float>::infinity());
    CHECK(best_answers({{gone.data(), gone.data(), 1, 4}}).empty());
    CHECK(best_answers({}).empty());
}

} // namespace encoder_answers_test
