// Where tokens stand in texts: by the reference, and what holds everywhere.
#include "encoder_tokenizers.hpp"

#include "encoder/text/origins.hpp"
#include "encoder/text/tokenizer.hpp"
#include "encoder/text/unicode.hpp"

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace encoder {
static bool operator==(const text_range& a, const text_range& b) {
    return a.begin == b.begin && a.end == b.end;
}
} // namespace encoder

namespace encoder_places_test {

using namespace tokenizers;
using encoder::text_range;
using fixtures::scratch_folder;
using nlohmann::json;
using places = std::vector<text_range>;

namespace {

void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

/// A kind of tokenizer with other parts.
encoder::tokenizer make(const std::string& name, const json& patch) {
    const json of = kind(name);
    json all = of["tokenizer"];
    all.update(patch);
    const scratch_folder folder;
    write(folder / "tokenizer.json", all.dump());
    return {folder.path(), config_of(of)};
}

bool contains(const text_range& a, const text_range& b) {
    return a.begin <= b.begin && b.end <= a.end;
}

/// The clusters of characters in which a range lies.
text_range clusters_of(const std::string& text, const text_range& r) {
    text_range all = r;
    encoder::detail::for_graphemes(text, [&](std::size_t begin, std::size_t end) {
        if (begin < r.end && r.begin < end)
            all = {std::min(all.begin, begin), std::max(all.end, end)};
    });
    return all;
}

std::string part(const std::string& text, const text_range& r) {
    return text.substr(r.begin, r.end - r.begin);
}

/// What holds of all texts with all tokenizers: places are in order, of whole characters, and no
/// whitespace is at their ends.
bool are_sound(const std::string& text, const places& all) {
    using namespace encoder::detail;
    text_range before{0, 0};
    for (const text_range& r : all) {
        if (r.begin > r.end || r.end > text.size()) return false;
        if (r.begin < before.begin || r.end < before.end) return false;
        if (!begins_character(text, r.begin) || !begins_character(text, r.end)) return false;
        if (without_spaces_after(part(text, r), 0) != 0) return false;
        if (without_spaces_before(text, r.end, r.begin) != r.end) return false;
        before = r;
    }
    return true;
}

/// Why a place is another one than the reference's, or nothing where it may not be.
std::string reason(const std::string& text, const std::string& word, const text_range& ours,
                   const text_range& reference) {
    const std::string whole = part(text, ours);
    if ((word == "\xe2\x96\x81" || word == "\xc4\xa0") && whole.empty() &&
        ours.begin <= reference.begin)
        return "stands for nothing";
    if ((whole == "``" || whole == "''") && contains(ours, reference)) return "replaced as a whole";
    if (contains(ours, reference) && contains(clusters_of(text, reference), ours))
        return "changed as a whole";
    if (word.rfind("<0x", 0) == 0 &&
        (contains(reference, ours) || contains(clusters_of(text, reference), ours)))
        return "a byte of a character, of which the reference has several";
    return "";
}

} // namespace

TEST_CASE("tokens stand where the reference says, but for what it has no better place for") {
    const json all = fixtures::json("places.json");
    const std::vector<std::string> texts = all["texts"];
    for (const json& c : all["cases"]) {
        const std::string name = c["kind"];
        CAPTURE(name, c["patch"].dump());
        const encoder::tokenizer words = make(name, c["patch"]);
        const std::vector<ids> expected = unpack(c["places"]);
        REQUIRE(expected.size() == texts.size());
        std::size_t same = 0, other = 0, compared = 0;
        for (std::size_t t = 0; t < texts.size(); ++t) {
            const std::string& text = texts[t];
            CAPTURE(text);
            places found;
            const ids tokens = words.tokens_of(text, found);
            REQUIRE(found.size() == tokens.size());
            CHECK(are_sound(text, found));
            if (expected[t].empty()) continue;
            ++compared;
            REQUIRE(found.size() == expected[t].size());
            text_range reference{0, 0};
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                const auto packed = static_cast<std::size_t>(expected[t][i]);
                reference.begin += packed / 92;
                reference.end = reference.begin + packed % 92;
                const bool is_same = found[i] == reference;
                is_same ? ++same : ++other;
                CAPTURE(i, words.word(tokens[i]), part(text, found[i]), part(text, reference));
                if (!is_same) CHECK(reason(text, words.word(tokens[i]), found[i], reference) != "");
            }
        }
        CHECK(compared > 140);
        CHECK(same > 0);
        if (name.rfind("word_piece", 0) == 0) CHECK(other == 0);
    }
}

TEST_CASE("asking for places changes no id, and they are in order and whole characters") {
    const std::vector<std::string> texts = fixtures::json("tokenizers/texts.json")["texts"];
    for (const char* name :
         {"word_piece", "word_piece_cased", "word_piece_accents", "byte_level", "byte_level_split",
          "byte_level_prefix", "characters", "bytes_behind", "unigram", "unigram_bytes"}) {
        CAPTURE(name);
        const encoder::tokenizer words = make(name, json::object());
        for (const std::string& text : texts) {
            CAPTURE(text);
            places found(3);
            REQUIRE(words.tokens_of(text, found) == words.tokens_of(text));
            REQUIRE(found.size() == words.tokens_of(text).size());
            CHECK(are_sound(text, found));
        }
    }
}

TEST_CASE("tokens of all bytes leave no character out") {
    const encoder::tokenizer words = make("byte_level", json::object());
    const std::vector<std::string> texts = fixtures::json("tokenizers/texts.json")["texts"];
    for (const std::string& text : texts) {
        CAPTURE(text);
        places found;
        words.tokens_of(text, found);
        std::string left = text;
        for (const text_range& r : found)
            left.replace(r.begin, r.end - r.begin, r.end - r.begin, ' ');
        CHECK(encoder::detail::without_spaces_after(left, 0) == left.size());
    }
}

TEST_CASE("a text is in lower case before everything where its folder says so") {
    const json of = kind("word_piece_cased");
    const scratch_folder folder;
    write(folder / "tokenizer.json", of["tokenizer"].dump());
    write(folder / "sentence_bert_config.json", R"({"do_lower_case": true})");
    const encoder::tokenizer words(folder.path(), config_of(of));
    places lower, upper;
    const std::string text = "the fox, a dog";
    const ids expected = words.tokens_of(text, lower);
    CHECK(words.tokens_of("The FOX, A dog", upper) == expected);
    CHECK(upper == lower);
    // A character that becomes two, and one that is another at a word's end.
    const std::string odd = "\xc4\xb0 a\xce\xa3";
    words.tokens_of(odd, upper);
    CHECK(are_sound(odd, upper));
    CHECK(part(odd, upper.front()) == "\xc4\xb0");
    CHECK(part(odd, upper.back()) == "\xce\xa3");
}

TEST_CASE("a change is followed as far down as the parts change alone as they do together") {
    using encoder::detail::origins;
    std::string text = "ab  cd";
    origins from(text);
    // Characters that become more, and none.
    const auto odd = [](std::string& t) {
        std::string changed;
        for (const char c : t) changed += c == 'a' ? "AAA" : c == ' ' ? "" : std::string(1, c);
        t = changed;
    };
    encoder::detail::change_traced(odd, text, from);
    REQUIRE(text == "AAAbcd");
    CHECK(from.of(0, 1) == text_range{0, 1});
    CHECK(from.of(2, 4) == text_range{0, 2});
    CHECK(from.of(3, 5) == text_range{1, 5});
    // A word that is not changed part by part.
    encoder::detail::change_traced([](std::string& t) { std::reverse(t.begin(), t.end()); }, text,
                                   from);
    REQUIRE(text == "dcbAAA");
    CHECK(from.of(0, 1) == text_range{0, 6});
    // Words change places.
    std::string words = "ab cd";
    origins of_words(words);
    CHECK_THROWS_AS(encoder::detail::change_traced(
                        [](std::string& t) { std::reverse(t.begin(), t.end()); }, words, of_words),
                    std::invalid_argument);
    // Nobody asks.
    origins unasked;
    words = "a";
    encoder::detail::change_traced(odd, words, unasked);
    CHECK(words == "AAA");
    CHECK(unasked.empty());
}

} // namespace encoder_places_test
