#include "encoder_program.hpp"
#include "encoder_tokenizers.hpp"

#include "encoder/files/model.hpp"
#include "encoder/text/added_tokens.hpp"
#include "encoder/text/pattern.hpp"
#include "encoder/text/tokenizer.hpp"
#include "encoder/text/unicode.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <utf8proc.h>

namespace encoder_tokenizer_test {

namespace fs = std::filesystem;
using fixtures::scratch_folder;
using nlohmann::json;
using programs::write;
using tokenizers::config_of;
using tokenizers::ids;
using tokenizers::kind;
using tokenizers::unpack;

namespace {

constexpr const char* kinds[] = {
    "word_piece",        "word_piece_cased", "word_piece_accents", "byte_level", "byte_level_split",
    "byte_level_prefix", "characters",       "bytes_behind",       "unigram",    "unigram_bytes"};

std::vector<std::string> texts() {
    return fixtures::json("tokenizers/texts.json")["texts"];
}

constexpr std::size_t any_number = 1 << 20;

std::string error_of(const fs::path& folder, const encoder::config& c) {
    return fixtures::error_of([&] { encoder::tokenizer(folder, c); });
}

/// The small BERT's vocabulary, line by line.
std::vector<std::string> tiny_words() {
    std::vector<std::string> words;
    std::ifstream in(fixtures::path("tiny_bert/vocab.txt"));
    for (std::string word; std::getline(in, word);) words.push_back(word);
    return words;
}

std::string lines(const std::vector<std::string>& words) {
    std::string all;
    for (const std::string& word : words) all += word + '\n';
    return all;
}

encoder::config of_rows(Eigen::Index rows) {
    encoder::config c;
    c.vocabulary = rows;
    c.positions = c.max_tokens = 64;
    c.types = 2;
    return c;
}

} // namespace

TEST_CASE("ids of every kind of tokenizer are the reference's") {
    const std::vector<std::string> all = texts();
    REQUIRE(all.size() == 1000);
    for (const char* name : kinds) {
        CAPTURE(name);
        const json of = kind(name);
        const scratch_folder folder;
        write(folder / "tokenizer.json", of["tokenizer"].dump());
        const encoder::tokenizer words(folder.path(), config_of(of));
        const std::vector<ids> expected = unpack(of["ids"]);
        REQUIRE(expected.size() == all.size());
        for (std::size_t i = 0; i < all.size(); ++i) {
            CAPTURE(all[i]);
            CHECK(words.encode(all[i], any_number) == expected[i]);
        }
        for (const json& pair : of["pairs"]) {
            CAPTURE(pair.dump());
            CHECK(words.encode(all.at(pair[0]), all.at(pair[1]), pair[2]) == unpack(pair[3]).at(0));
        }
        for (const json& cut : of["cut"]) {
            CAPTURE(cut.dump());
            CHECK(words.encode(all.at(cut[0]), cut[1]) == unpack(cut[2]).at(0));
        }
    }
}

TEST_CASE("vocabularies without tokenizer.json are read as the fast tokenizers read them") {
    const std::vector<std::string> all = texts();
    const auto check = [&](const scratch_folder& folder, const json& of) {
        const encoder::tokenizer words(folder.path(), config_of(of));
        const std::vector<ids> expected = unpack(of["ids"]);
        for (std::size_t i = 0; i < all.size(); ++i) {
            CAPTURE(all[i]);
            CHECK(words.encode(all[i], any_number) == expected[i]);
        }
        for (const json& pair : of["pairs"])
            CHECK(words.encode(all.at(pair[0]), all.at(pair[1]), pair[2]) == unpack(pair[3]).at(0));
    };
    {
        const json of = kind("word_piece");
        const scratch_folder folder;
        std::vector<std::string> words(of["tokenizer"]["model"]["vocab"].size());
        for (const auto& [word, id] : of["tokenizer"]["model"]["vocab"].items())
            words.at(id.get<std::size_t>()) = word;
        write(folder / "vocab.txt", lines(words));
        write(folder / "tokenizer_config.json", R"({"tokenizer_class": "BertTokenizerFast"})");
        check(folder, of);
    }
    const json of = kind("byte_level");
    const scratch_folder folder;
    write(folder / "vocab.json", of["tokenizer"]["model"]["vocab"].dump());
    std::string merges = "#version: 0.2\n";
    for (const json& merge : of["tokenizer"]["model"]["merges"])
        merges += merge[0].get<std::string>() + ' ' + merge[1].get<std::string>() + "\r\n";
    write(folder / "merges.txt", merges);
    check(folder, of);

    fs::remove(folder / "merges.txt");
    CHECK_THAT(error_of(folder.path(), config_of(of)),
               ContainsSubstring("merges.txt: there is no such file"));
    write(folder / "merges.txt", "a b c\n");
    CHECK_THAT(error_of(folder.path(), config_of(of)),
               ContainsSubstring("merges.txt: has the merge \"a b c\", which is not two tokens"));
    write(folder / "merges.txt", "a \xe4\n");
    CHECK_THAT(error_of(folder.path(), config_of(of)),
               ContainsSubstring("merges.txt: is not UTF-8 behind 0 merges"));
    write(folder / "merges.txt", "a \xe4\xb8\xad\n");
    CHECK_THAT(error_of(folder.path(), config_of(of)),
               ContainsSubstring("is not in its vocabulary"));
}

TEST_CASE("the files and the vocabulary say whether there is upper case") {
    const scratch_folder folder;
    std::vector<std::string> words = tiny_words();
    const auto ids_of = [&](const std::string& text) {
        return encoder::tokenizer(folder.path(), of_rows(120)).encode(text, 64);
    };
    write(folder / "vocab.txt", lines(words));
    const ids lower = ids_of("the");
    REQUIRE(lower.size() == 3);
    CHECK(ids_of("THE") == lower);
    CHECK(ids_of("th\xc3\xa9") == lower);
    write(folder / "tokenizer_config.json", R"({"do_lower_case": true, "strip_accents": false})");
    CHECK(ids_of("THE") == lower);
    CHECK(ids_of("th\xc3\xa9") == ids{2, 1, 3});
    write(folder / "tokenizer_config.json", R"({"do_lower_case": false})");
    CHECK(ids_of("THE") == ids{2, 1, 3});
    write(folder / "sentence_bert_config.json", R"({"do_lower_case": true})");
    CHECK(ids_of("THE") == lower);
    fs::remove(folder / "sentence_bert_config.json");
    fs::remove(folder / "tokenizer_config.json");

    std::replace(words.begin(), words.end(), std::string("the"), std::string("The"));
    write(folder / "vocab.txt", lines(words));
    CHECK(ids_of("The") == lower);
    CHECK(ids_of("the").size() == 5); // in letters
    write(folder / "tokenizer_config.json", R"({"do_lower_case": true})");
    CHECK(ids_of("The").size() == 5);
    write(folder / "tokenizer_config.json", R"({"do_lower_case": 1})");
    CHECK_THAT(error_of(folder.path(), of_rows(120)),
               ContainsSubstring("tokenizer_config.json: do_lower_case is 1"));
}

TEST_CASE("a word that stands twice has its last id, and a byte order mark is part of a word") {
    const scratch_folder folder;
    std::vector<std::string> words = tiny_words();
    words.at(119) = "the";
    write(folder / "vocab.txt", lines(words));
    CHECK(encoder::tokenizer(folder.path(), of_rows(120)).encode("the", 9) == ids{2, 119, 3});
    words.at(119) = "x";
    write(folder / "vocab.txt", "\xEF\xBB\xBF" + lines(words));
    const encoder::tokenizer marked(folder.path(), of_rows(120));
    CHECK(marked.word(0) == "\xEF\xBB\xBF[PAD]");
    CHECK(marked.encode("THE", 9) ==
          encoder::tokenizer(fixtures::path("tiny_bert"), of_rows(120)).encode("the", 9));
}

TEST_CASE("every token has a row of the embeddings, and rows may be spare") {
    const scratch_folder folder;
    write(folder / "vocab.txt", lines(tiny_words()));
    const encoder::tokenizer spare(folder.path(), of_rows(128));
    CHECK(spare.encode("a", "a", 9) == ids{2, 21, 3, 21 + 128, 3 + 128});
    CHECK(spare.word(21 + 128) == "a");
    CHECK_THAT(error_of(folder.path(), of_rows(118)),
               ContainsSubstring("vocab.txt: has 120 tokens, vocab_size in config.json is 118"));
    write(folder / "added_tokens.json", R"({"<new>": 120})");
    CHECK(encoder::tokenizer(folder.path(), of_rows(121)).encode("a<new>", 9) ==
          ids{2, 21, 120, 3});
    CHECK_THAT(error_of(folder.path(), of_rows(120)),
               ContainsSubstring("added_tokens.json: the added token '<new>' has the id 120"));
    fs::remove(folder / "added_tokens.json");
    write(folder / "tokenizer_config.json",
          R"({"added_tokens_decoder": {"120": {"content": " new", "rstrip": true}}})");
    CHECK(encoder::tokenizer(folder.path(), of_rows(121)).encode("a new  a", 9) ==
          ids{2, 21, 120, 21, 3});
    CHECK_THAT(error_of(folder.path(), of_rows(120)),
               ContainsSubstring("tokenizer_config.json: the added token ' new' has the id 120"));

    const json of = kind("word_piece");
    fs::remove(folder / "tokenizer_config.json");
    write(folder / "tokenizer.json", of["tokenizer"].dump());
    encoder::config c = config_of(of);
    --c.vocabulary;
    CHECK_THAT(error_of(folder.path(), c), ContainsSubstring("tokenizer.json: has the token") &&
                                               ContainsSubstring("needs a row"));
    json added = of["tokenizer"];
    added["added_tokens"].push_back({{"content", "more"}, {"id", of["rows"]}});
    write(folder / "tokenizer.json", added.dump());
    CHECK_THAT(error_of(folder.path(), config_of(of)),
               ContainsSubstring("tokenizer.json: the added token 'more'") &&
                   ContainsSubstring("needs a row"));
}

TEST_CASE("a tokenizer that is not known is refused by name") {
    const scratch_folder folder;
    const auto error_with = [&](const char* file, const std::string& text) {
        write(folder / file, text);
        const std::string error = error_of(folder.path(), of_rows(120));
        fs::remove(folder / file);
        return error;
    };
    CHECK_THAT(error_with("x", ""), ContainsSubstring("has no tokenizer"));
    for (const char* name : {"sentencepiece.bpe.model", "spiece.model", "tokenizer.model"})
        CHECK_THAT(error_with(name, "x"), ContainsSubstring(name) &&
                                              ContainsSubstring("is a SentencePiece model") &&
                                              ContainsSubstring("which writes tokenizer.json"));
    write(folder / "vocab.txt", lines(tiny_words()));
    const auto error_of_config = [&](const json& j) {
        return error_with("tokenizer_config.json", j.dump());
    };
    CHECK(error_of_config({{"tokenizer_class", "BertTokenizer"}}) == "no error");
    CHECK_THAT(
        error_of_config({{"tokenizer_class", "BertJapaneseTokenizer"}}),
        ContainsSubstring("tokenizer_config.json: tokenizer_class is BertJapaneseTokenizer"));
    CHECK_THAT(error_of_config({{"tokenizer_class", "FunnyTokenizerFast"}}),
               ContainsSubstring("tokenizer_class is FunnyTokenizer") &&
                   ContainsSubstring("which writes tokenizer.json"));
    CHECK_THAT(error_of_config({{"word_tokenizer_type", "mecab"}}),
               ContainsSubstring("word_tokenizer_type is mecab"));
    CHECK_THAT(error_of_config({{"truncation_side", "left"}}),
               ContainsSubstring("truncation_side is left"));

    programs::sandbox p(PARE_PRUNE_ENCODER);
    write(p.folder / "model/tokenizer_config.json",
          R"({"tokenizer_class": "BertJapaneseTokenizer"})");
    CHECK(p.run("--model model --calibrate text --macs 0.5 --out out") == 2);
    CHECK_THAT(p.errors, ContainsSubstring("model/tokenizer_config.json: tokenizer_class is"));
    CHECK(!fs::exists(p.folder / "out"));
}

TEST_CASE("a part of tokenizer.json that is not known is refused by name") {
    const json word_piece = kind("word_piece"), byte_level = kind("byte_level"),
               unigram = kind("unigram");
    const scratch_folder folder;
    const auto error = [&](const json& of, const char* place, const json& value) {
        json changed = of["tokenizer"];
        changed[json::json_pointer(place)] = value;
        write(folder / "tokenizer.json", changed.dump());
        return error_of(folder.path(), config_of(of));
    };
    const struct {
        const json* of;
        const char* place;
        json value;
        const char* sentence;
    } cases[] = {
        {&word_piece,
         "/truncation",
         {{"direction", "Left"}, {"max_length", 512}},
         "truncation.direction is Left, only Right is possible"},
        {&word_piece, "/truncation", {{"direction", "Right"}, {"max_length", 512}}, "no error"},
        {&word_piece, "/normalizer/type", "Odd", "has the normalizer 'Odd', not"},
        {&word_piece, "/pre_tokenizer/type", "UnicodeScripts",
         "has the pre_tokenizer 'UnicodeScripts', not"},
        {&word_piece, "/model/type", "WordLevel", "has the model 'WordLevel', not"},
        {&word_piece, "/post_processor", nullptr, "its post_processor is null"},
        {&word_piece, "/post_processor/type", "Odd", "has the post_processor 'Odd', not"},
        {&word_piece, "/post_processor/single", json::array(), "does not have each text once"},
        {&word_piece,
         "/post_processor/special_tokens/[CLS]/ids",
         {1 << 20},
         "its post_processor gives [CLS] the id 1048576"},
        {&word_piece, "/post_processor/pair/4/SpecialToken/type_id", 2,
         "has a tokenizer with the token type 2, the model has 2 types"},
        {&word_piece, "/model", nullptr, "has no model"},
        {&word_piece, "/model/vocab", {1}, "model.vocab is not an object"},
        {&word_piece, "/model/vocab/a", -1, "gives the token 'a' the id -1"},
        {&word_piece, "/model/unk_token", "none", "lacks the token none"},
        {&word_piece, "/added_tokens/0/id", 1, "the added token '[PAD]' has the id 1"},
        {&word_piece, "/added_tokens/0/content", std::string(1025, 'a'),
         "has a token of 1025 bytes, which begins with 'aaaaaaaaaaaaaaaaaaaa'; up to 1024"},
        {&unigram, "/model/vocab/3", {std::string(1025, 'a'), -1.0}, "has a token of 1025 bytes"},
        {&byte_level, "/model/dropout", 0.1, "model.dropout is above 0"},
        {&byte_level, "/model/merges/0", {"a"}, "which is not two tokens"},
        {&byte_level, "/model/merges/0", "a nothing", "which is not in its vocabulary"},
        {&unigram, "/model/vocab/3", 1, "model.vocab holds 1, not a token and its score"},
        {&unigram, "/model/unk_id", 1 << 20, "unk_id is 1048576"},
        {&unigram, "/pre_tokenizer/prepend_scheme", "odd", "has the prepend_scheme 'odd'"},
        {&unigram, "/normalizer/normalizers/0/precompiled_charsmap", "AA!A",
         "precompiled_charsmap is not base64 at byte 2"},
        {&unigram, "/normalizer/normalizers/0/precompiled_charsmap", "AAEA",
         "precompiled_charsmap has 3 bytes"},
        {&unigram, "/normalizer/normalizers/0/precompiled_charsmap",
         "/////wAAAAA=", "its trie alone is said to have 4294967295"},
        {&unigram, "/normalizer/normalizers/1/pattern/Regex", "a(",
         "has the regular expression 'a(', which is not understood"},
        {&unigram, "/normalizer/normalizers/1/pattern/Regex", "[a-z&&[^b]]",
         "has the regular expression '[a-z&&[^b]]' with classes in classes"},
        {&unigram, "/normalizer/normalizers/1/pattern/Regex", std::string(20000, 'a'),
         "has a regular expression of 20000 bytes"},
    };
    for (const auto& c : cases) {
        CAPTURE(c.place, c.sentence);
        CHECK_THAT(error(*c.of, c.place, c.value), ContainsSubstring(c.sentence));
    }
    // Where both files speak of the same, they must say the same.
    write(folder / "tokenizer_config.json", R"({"do_lower_case": false})");
    CHECK_THAT(
        error(word_piece, "/version", "1.0"),
        ContainsSubstring("tokenizer_config.json: do_lower_case is false, in tokenizer.json it is "
                          "true"));
    write(folder / "tokenizer_config.json", R"({"do_lower_case": true, "strip_accents": null})");
    CHECK(error(word_piece, "/version", "1.0") == "no error");

    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += "{\"normalizers\":[";
    write(folder / "tokenizer.json", deep);
    CHECK_THAT(error_of(folder.path(), of_rows(120)), ContainsSubstring("nested deeper than 64"));
}

TEST_CASE("a tokenizer.json that says nothing of pairs treats them as BERT does") {
    const json of = kind("word_piece");
    json changed = of["tokenizer"];
    changed["post_processor"]["pair"] = json::array();
    changed["post_processor"]["special_tokens"] = json::object();
    const scratch_folder folder;
    write(folder / "tokenizer.json", of["tokenizer"].dump());
    const encoder::tokenizer whole(folder.path(), config_of(of));
    write(folder / "tokenizer.json", changed.dump());
    const encoder::tokenizer derived(folder.path(), config_of(of));
    CHECK(derived.encode("a fox", "the dog", 20) == whole.encode("a fox", "the dog", 20));
    CHECK_THROWS_AS(whole.encode("a", 1), std::invalid_argument);
    CHECK_THROWS_AS(whole.encode("a", "b", 2), std::invalid_argument);
}

TEST_CASE("normal forms are utf8proc's") {
    using encoder::detail::form;
    const std::pair<form, utf8proc_uint8_t* (*)(const utf8proc_uint8_t*)> forms[] = {
        {form::nfc, utf8proc_NFC},
        {form::nfd, utf8proc_NFD},
        {form::nfkc, utf8proc_NFKC},
        {form::nfkd, utf8proc_NFKD}};
    std::mt19937 random(7);
    const char32_t first[] = {0x20,   0xc0,   0x300,  0x591,  0x900,  0x1100,
                              0x1e00, 0xac00, 0xf900, 0xfb00, 0x1d15e};
    for (int round = 0; round < 20000; ++round) {
        std::u32string text;
        for (std::size_t i = 0; i < 1 + random() % 8; ++i)
            text += first[random() % std::size(first)] + static_cast<char32_t>(random() % 96);
        if (round < 0x1100) text += U"\xfdfa"; // of 18 characters
        const std::string bytes = encoder::detail::encode(text);
        CAPTURE(bytes);
        for (const auto& [ours, theirs] : forms) {
            const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> expected(
                theirs(reinterpret_cast<const utf8proc_uint8_t*>(bytes.c_str())), &std::free);
            CHECK(encoder::detail::normal_form(bytes, ours) ==
                  reinterpret_cast<const char*>(expected.get()));
        }
    }
}

TEST_CASE("regular expressions match what the reference's do") {
    using encoder::detail::pattern;
    // What tokenizers 0.23 says of them.
    const std::string superscript = "\xc2\xb2", circled = "\xe2\x92\xb6", yen = "\xc2\xa5",
                      stop = "\xe3\x80\x82", han = "\xe6\xbc\xa2", accent = "\xcc\x81",
                      numeral = "\xe2\x85\xa0", feminine = "\xc2\xaa", vowel = "\xe0\xa5\x80";
    struct expected {
        const char* expression;
        std::vector<std::string> matches, others;
    };
    const expected cases[] = {
        {"\\w", {superscript, circled, accent, numeral}, {yen, stop}},
        {"[^\\w]", {superscript, yen, stop}, {circled, accent, numeral}},
        {"[[:punct:]]", {yen, stop, "$"}, {superscript, han}},
        {"[[:alpha:]]", {vowel, circled, numeral}, {superscript, yen, "1"}},
        {"[[:alnum:]]", {vowel, circled, "1"}, {superscript, yen}},
        {"[[:upper:]]", {numeral, circled}, {feminine}},
        {"[[:lower:]]", {feminine}, {numeral, yen}},
        {"[[:word:]]", {accent, circled}, {superscript, yen}},
        {"\\p{Han}", {han}, {stop, yen}},
        {"\\p{^Han}", {stop, yen}, {han}},
        {"[^\\P{Han}]", {han}, {stop}},
        {"x\\b", {'x' + yen, 'x' + stop}, {'x' + superscript, 'x' + circled, 'x' + accent}},
        {"x\\B", {'x' + superscript, 'x' + circled, 'x' + accent}, {'x' + yen, 'x' + stop}},
    };
    for (const expected& c : cases) {
        const pattern p("tokenizer.json", c.expression);
        const auto check = [&](const std::string& text, bool is_match) {
            CAPTURE(c.expression, text);
            CHECK(p.spans(text).at(0).is_match == is_match);
        };
        for (const std::string& text : c.matches) check(text, true);
        for (const std::string& text : c.others) check(text, false);
    }
    CHECK_THAT(fixtures::error_of([] { pattern("tokenizer.json", "[[:^punct:]]"); }),
               ContainsSubstring("which is not possible here"));
}

TEST_CASE("whitespace behind an added token may be another one") {
    using encoder::detail::added_token, encoder::detail::added_tokens;
    const auto find = [](const std::string& text, bool strips_left) {
        added_token first{"a", 1}, second{"\n", 2};
        first.rstrip = true;
        second.lstrip = strips_left;
        std::vector<std::int32_t> found;
        for (const auto& s : added_tokens({first, second}).find(text)) found.push_back(s.id);
        return found;
    };
    constexpr std::int32_t none = added_tokens::none;
    CHECK(find("a \nb", false) == std::vector<std::int32_t>{1, 2, none});
    CHECK(find("a \n\n b", false) == std::vector<std::int32_t>{1, 2, 2, none});
    CHECK(find("a \nb", true) == std::vector<std::int32_t>{1, none});
}

TEST_CASE("what a tokenizer.json asks for takes bounded time") {
    const json of = kind("unigram");
    const scratch_folder folder;
    const auto with = [&](const char* place, const json& value) {
        json changed = of["tokenizer"];
        changed[json::json_pointer(place)] = value;
        write(folder / "tokenizer.json", changed.dump());
        return encoder::tokenizer(folder.path(), config_of(of));
    };
    const encoder::tokenizer slow = with("/normalizer/normalizers/1/pattern/Regex", "^(a+)+$");
    CHECK(slow.encode("aaa", 9).size() > 2);
    CHECK_THROWS_WITH(
        slow.encode(std::string(100, 'a') + "!", 9),
        (folder / "tokenizer.json").string() +
            ": has the regular expression '^(a+)+$', which takes too long for the text '" +
            std::string(80, 'a') + "'...");
    const encoder::tokenizer empty = with("/normalizer/normalizers/1/pattern/Regex", "x*");
    CHECK(empty.encode("a\xc3\xa9 b", 9).size() > 2);

    const json grow = {
        {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'a')}};
    CHECK_THROWS_AS(with("/normalizer/normalizers", {grow, grow, grow, grow}).encode("aaa", 9),
                    std::invalid_argument);
    json longer = of["tokenizer"];
    longer["normalizer"] = grow;
    longer["added_tokens"].push_back({{"id", 10},
                                      {"content", "aab"},
                                      {"special", false},
                                      {"single_word", false},
                                      {"lstrip", false},
                                      {"rstrip", false},
                                      {"normalized", true}});
    write(folder / "tokenizer.json", longer.dump());
    CHECK_THAT(fixtures::error_of([&] { encoder::tokenizer(folder.path(), config_of(of)); }),
               ContainsSubstring("has a token of 2001 bytes"));
    for (const char* form : {"NFC", "NFD", "NFKC", "NFKD"}) {
        std::string marks = "a"; // which are to be ordered
        for (int i = 0; i < 400000; ++i) marks += i < 200000 ? "\xcc\x81" : "\xcc\x96";
        CHECK(with("/normalizer", {{"type", form}}).encode(marks, 9).size() > 2);
    }
    const json doubles = {{"type", "ByteLevel"}, {"use_regex", false}};
    const encoder::tokenizer twice =
        with("/pre_tokenizer",
             {{"type", "Sequence"}, {"pretokenizers", std::vector<json>(40, doubles)}});
    CHECK_THROWS_AS(twice.encode("\xc3\xa9", 9), std::invalid_argument);

    std::mt19937 random(5);
    const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::vector<std::string> all = texts();
    for (int i = 0; i < 200; ++i) { // tries of rubbish
        std::string map = "AAEA";   // 256 bytes and something
        while (map.size() < 600) map += digits[random() % (i % 2 == 0 ? 64 : 8)];
        map[4] = map[5] = 'A';
        const encoder::tokenizer odd = with("/normalizer/normalizers/0/precompiled_charsmap", map);
        for (std::size_t t = 0; t < all.size(); t += 97) odd.encode(all[t], 64);
    }
    const std::string long_word(1 << 20, 'a');
    for (const char* name : kinds) {
        CAPTURE(name);
        const json each = kind(name);
        write(folder / "tokenizer.json", each["tokenizer"].dump());
        CHECK(encoder::tokenizer(folder.path(), config_of(each)).encode(long_word, 64).size() > 2);
    }
}

} // namespace encoder_tokenizer_test
