// Files of labelled words and of questions, and windows over long texts.
#include "encoder_program.hpp"

#include <encoder/text/questions.hpp>
#include <encoder/text/text.hpp>

#include <stdexcept>

using namespace encoder;
using fixtures::scratch_folder;
using programs::write;
using words = std::vector<std::string>;

TEST_CASE("words and labels are read in CoNLL's columns") {
    const scratch_folder folder;
    const auto file = folder / "words";
    write(file, "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O  \r\n\n\n"
                "Zo\xc3\xab\tB-PER\n \t\nends O\n");
    const std::vector<labelled_sentence> read = read_labelled_words(file);
    REQUIRE(read.size() == 3);
    CHECK(read[0].words == words{"EU", "rejects"});
    CHECK(read[0].labels == words{"B-ORG", "O"});
    CHECK(read[1].words == words{"Zo\xc3\xab"});
    CHECK(read[1].labels == words{"B-PER"});
    CHECK(read[2].labels == words{"O"});

    const auto error = [&](const char* text) {
        write(file, text);
        return fixtures::error_of([&] { read_labelled_words(file); });
    };
    CHECK_THAT(error("EU B-ORG\nalone \n"), ContainsSubstring("line 2 has one column"));
    CHECK_THAT(error("-DOCSTART- O\n\n"), ContainsSubstring("holds no sentence"));
    CHECK_THAT(error("\xff O\n"), ContainsSubstring("line 1 is not UTF-8"));
}

TEST_CASE("questions are read as SQuAD 1.1 and 2.0 have them") {
    const scratch_folder folder;
    const auto file = folder / "questions.json";
    const std::string begin = R"({"version": "v2.0", "data": [{"title": "T", "paragraphs": [)"
                              "{\"context\": \"Zo\xc3\xab lives in Oslo.\", \"qas\": [",
                      end = "]}]}]}";
    const std::string where =
        R"({"id": "1", "question": "Where?", "answers": [)"
        R"({"text": "Oslo", "answer_start": 13},)"
        R"({"text": "in Oslo", "answer_start": 10}], "is_impossible": false})";
    write(file, begin + where + end);
    question_set read = read_questions(file);
    REQUIRE(read.questions.size() == 1);
    const question& q = read.questions[0];
    CHECK(q.id == "1");
    CHECK(q.text == "Where?");
    REQUIRE(q.answers.size() == 2);
    for (const right_answer& a : q.answers)
        CHECK(read.contexts[q.context].substr(a.begin, a.text.size()) == a.text);
    CHECK(q.answers[0].begin == 14); // a byte more than characters
    CHECK_FALSE(read.has_unanswerable());

    write(file, begin + where + R"(,{"id": "2", "question": "When?", "answers": [],
        "plausible_answers": [{"text": "lives", "answer_start": 4}], "is_impossible": true})" +
                    end);
    read = read_questions(file);
    REQUIRE(read.questions.size() == 2);
    CHECK(read.questions[1].answers.empty());
    CHECK(read.has_unanswerable());

    const auto error = [&](const std::string& text) {
        write(file, text);
        return fixtures::error_of([&] { read_questions(file); });
    };
    const auto answer = [&](const char* text, const char* at) {
        return error(begin + R"({"id": "7", "question": "?", "answers": [{"text": ")" + text +
                     R"(", "answer_start": )" + at + "}]}" + end);
    };
    CHECK_THAT(answer("Oslo", "12"),
               ContainsSubstring("the answer 'Oslo' to the question 7 is not at character 12"));
    CHECK_THAT(answer("Oslo", "99"), ContainsSubstring("answer_start is 99"));
    CHECK_THAT(error(begin + R"({"id": "7"})" + end), ContainsSubstring("qas[0].question"));
    CHECK_THAT(error(R"({"data": []})"), ContainsSubstring("holds no question"));
    CHECK_THAT(error("[]"), ContainsSubstring("not an object"));
}

TEST_CASE("windows cover a text and share what they should") {
    for (const std::size_t tokens : {0, 1, 9, 10, 11, 100})
        for (const std::size_t longest : {1, 3, 10, 200})
            for (const std::size_t shared : {0, 2, 128}) {
                const std::vector<window> all = make_windows(tokens, longest, shared);
                CHECK(all.front().begin == 0);
                CHECK(all.back().end == tokens);
                for (std::size_t w = 1; w < all.size(); ++w) {
                    CHECK(all[w].end > all[w - 1].end);
                    CHECK(all[w].end - all[w].begin <= longest);
                    CHECK(all[w - 1].end - all[w].begin == std::min(shared, longest - 1));
                }
            }
    CHECK_THROWS_AS(make_windows(3, 0), std::invalid_argument);
}
