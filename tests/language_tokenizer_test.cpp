#include "language_vocabulary.hpp"
#include "support.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <stdexcept>

namespace language_tokenizer_test {

using ids = std::vector<std::int32_t>;

namespace {

using namespace vocabularies;

std::int32_t of(char c) {
    return first_byte + static_cast<unsigned char>(c);
}

enum merged : std::int32_t {
    space_t = first_merged,
    he,
    space_the,
    twelve,
    th,
    two_spaces,
    e_acute,
    the,
    two_lines,
    apostrophe_s,
    en,
    nd
};

/// A text cut as "smollm" has it, of characters that are known to be letters, digits or spaces.
std::vector<std::string> cut(const std::vector<std::string>& text,
                             const std::map<std::string, char>& kinds, bool single_digits) {
    std::vector<std::string> pieces;
    const auto kind = [&](std::size_t i) { return i < text.size() ? kinds.at(text[i]) : ' '; };
    for (std::size_t i = 0; i < text.size();) {
        std::string& piece = pieces.emplace_back();
        const auto take = [&] { piece += text[i++]; };
        if (kind(i) == ' ') {
            std::size_t end = i;
            while (end < text.size() && kind(end) == ' ') ++end;
            // Digits that stand alone cut the text before all else.
            const bool at_end = end == text.size() || (single_digits && kind(end) == '1');
            const bool joins = !at_end && text[end - 1] == " ";
            // The last space goes to what follows, where there are more before it; other
            // whitespace stays alone.
            if (at_end || end - i > 1) {
                while (i < (at_end ? end : end - 1)) take();
                continue;
            }
            take();
            if (!joins) continue;
        }
        const char same = kind(i);
        do take();
        while (i < text.size() && kind(i) == same && !(single_digits && same == '1'));
    }
    return pieces;
}

/// Byte pairs as they are defined: again and again the most urgent pair, the first of its kind.
ids slow(const language::vocabulary& v, const std::string& piece) {
    std::vector<std::string> symbols;
    for (const char c : piece) symbols.push_back(letter(static_cast<unsigned char>(c)));
    for (;;) {
        std::size_t best = v.merges.size(), where = 0;
        for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
            const auto found =
                std::find(v.merges.begin(), v.merges.end(), symbols[i] + ' ' + symbols[i + 1]);
            const auto rank = static_cast<std::size_t>(found - v.merges.begin());
            if (rank >= best) continue;
            best = rank;
            where = i;
        }
        if (best == v.merges.size()) break;
        symbols[where] += symbols[where + 1];
        symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    ids all;
    for (const std::string& s : symbols)
        all.push_back(static_cast<std::int32_t>(std::find(v.tokens.begin(), v.tokens.end(), s) -
                                                v.tokens.begin()));
    return all;
}

/// A vocabulary as Llama 2's, of some tokens.
constexpr std::int32_t first_scored_byte = 3;
language::vocabulary scored_words() {
    language::vocabulary v{"scored.gguf", {"<unk>", "<s>", "<u>"}, {2, 3, 4}};
    v.is_scored = v.space_before = true;
    v.scores.assign(3, 0);
    for (int b = 0; b < 256; ++b) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
        v.tokens.emplace_back(name);
        v.types.push_back(6);
        v.scores.push_back(0);
    }
    for (const auto& [token, score] : std::vector<std::pair<const char*, double>>{{"▁", -90},
                                                                                  {"a", -91},
                                                                                  {"b", -92},
                                                                                  {"c", -93},
                                                                                  {"▁a", -5},
                                                                                  {"bc", -2},
                                                                                  {"ab", -3},
                                                                                  {"▁ab", -4},
                                                                                  {"aa", -1},
                                                                                  {"▁▁", -6},
                                                                                  {"xy", -7},
                                                                                  {"<s", -8}}) {
        v.tokens.emplace_back(token);
        v.types.push_back(1);
        v.scores.push_back(score);
    }
    return v;
}

ids slow_by_scores(const language::vocabulary& v, std::vector<std::string> symbols) {
    const auto find = [&](const std::string& token) {
        for (std::size_t i = 0; i < v.tokens.size(); ++i)
            if (v.tokens[i] == token && v.types[i] == 1) return static_cast<index_t>(i);
        return index_t{-1};
    };
    for (;;) {
        double best = -1e9;
        std::size_t where = symbols.size();
        for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
            const index_t made = find(symbols[i] + symbols[i + 1]);
            if (made < 0 || v.scores[static_cast<std::size_t>(made)] <= best) continue;
            best = v.scores[static_cast<std::size_t>(made)];
            where = i;
        }
        if (where == symbols.size()) break;
        symbols[where] += symbols[where + 1];
        symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    ids all;
    for (const std::string& s : symbols)
        if (const index_t id = find(s); id >= 0)
            all.push_back(static_cast<std::int32_t>(id));
        else
            for (const char c : s) all.push_back(first_scored_byte + static_cast<unsigned char>(c));
    return all;
}

std::string error_of(const language::vocabulary& v) {
    try {
        const language::tokenizer made(v);
    } catch (const language::file_error& error) {
        return error.what();
    }
    return "no error";
}

template <class Work>
std::string argument_error_of(const Work& work) {
    try {
        work();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "no error";
}

char32_t random_character(random_source& random) {
    static constexpr char32_t ends[] = {0x80, 0x800, 0xd800, 0x10000, 0x110000};
    const index_t last = static_cast<index_t>(ends[random.integer(0, 4)]) - 1;
    const auto c = static_cast<char32_t>(random.integer(0, last));
    return c >= 0xd800 && c < 0xe000 ? U'\n' : c;
}

} // namespace

TEST_CASE("bytes are merged as the vocabulary says, piece by piece") {
    const language::tokenizer words(small());
    CHECK(words.size() == static_cast<std::size_t>(nd) + 1);
    CHECK(words.encode("") == ids{});
    CHECK(words.encode("x") == ids{of('x')});
    CHECK(words.encode("the") == ids{of('t'), he}); // "h e" is more urgent than "t h"
    CHECK(words.encode("th") == ids{th});
    CHECK(words.encode(" the") == ids{space_the});
    CHECK(words.encode("end") == ids{en, of('d')});
    CHECK(words.encode("\xc3\xa9") == ids{e_acute});
    CHECK(words.encode("\xc3\xa8") == ids{of('\xc3'), of('\xa8')});
    CHECK(words.encode(std::string("\0t", 2)) == ids{of('\0'), of('t')});
    // The last space before a word is the word's.
    CHECK(words.encode("   the") == ids{two_spaces, space_the});
    CHECK(words.encode("  \n") == ids{two_spaces, of('\n')});
    CHECK(words.encode("x\n\nx") == ids{of('x'), of('\n'), of('\n'), of('x')});
    CHECK(words.encode("x\n\n") == ids{of('x'), two_lines});
    CHECK(words.encode("it's") == ids{of('i'), of('t'), apostrophe_s});
    CHECK(words.encode("it'S") == ids{of('i'), of('t'), of('\''), of('S')});
}

TEST_CASE("digits stand alone in texts that are cut as smollm has it") {
    language::vocabulary v = small();
    CHECK(language::tokenizer(v).encode("a12") == ids{of('a'), of('1'), of('2')});
    CHECK(language::tokenizer(v).encode(" 12") == ids{of(' '), of('1'), of('2')});
    // Whitespace in front of a digit ends a text.
    CHECK(language::tokenizer(v).encode("\n\n1") == ids{two_lines, of('1')});
    v.pre = "gpt-2";
    CHECK(language::tokenizer(v).encode("a12") == ids{of('a'), twelve});
    CHECK(language::tokenizer(v).encode(" 12") == ids{of(' '), twelve});
    CHECK(language::tokenizer(v).encode("\n\n1") == ids{of('\n'), of('\n'), of('1')});
}

TEST_CASE("ids of random texts are those of a plain implementation") {
    random_source random;
    CAPTURE(random);
    // What letters, digits and whitespace are made of, and others.
    const std::map<std::string, char> kinds = {{"a", 'a'},
                                               {"b", 'a'},
                                               {"c", 'a'},
                                               {"\xc3\xa9", 'a'},
                                               {"\xe6\x97\xa5", 'a'},
                                               {"1", '1'},
                                               {"2", '1'},
                                               {"\xd9\xa3", '1'},
                                               {" ", ' '},
                                               {"\n", ' '},
                                               {"\t", ' '},
                                               {"\xe3\x80\x80", ' '},
                                               {"!", '!'},
                                               {"(", '!'},
                                               {"\xcc\x81", '!'},
                                               {"\xf0\x9f\x91\x8d", '!'}};
    std::vector<std::string> characters;
    for (const auto& [character, kind] : kinds) characters.push_back(character);
    for (int vocabularies = 0; vocabularies < 20; ++vocabularies) {
        std::vector<std::string> parts = {" "};
        for (const std::string& character : characters)
            for (const char byte : character) parts.emplace_back(1, byte);
        std::vector<std::pair<std::string, std::string>> merges;
        const auto any = [&](const auto& of_all) {
            return of_all[static_cast<std::size_t>(
                random.integer(0, static_cast<index_t>(of_all.size()) - 1))];
        };
        for (int i = 0; i < 60; ++i) {
            const std::pair<std::string, std::string> merge(any(parts), any(parts));
            if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
            merges.push_back(merge);
            parts.push_back(merge.first + merge.second);
        }
        language::vocabulary v = small(merges);
        for (const char* pre : {"smollm", "gpt-2"}) {
            v.pre = pre;
            CAPTURE(pre);
            const language::tokenizer words(v);
            for (int texts = 0; texts < 30; ++texts) {
                std::vector<std::string> text(static_cast<std::size_t>(random.integer(0, 40)));
                std::string whole;
                for (std::string& character : text) whole += character = any(characters);
                CAPTURE(whole);
                ids expected;
                for (const std::string& piece : cut(text, kinds, v.pre == "smollm"))
                    for (const std::int32_t id : slow(v, piece)) expected.push_back(id);
                CHECK(words.encode(whole) == expected);
            }
        }
    }
}

TEST_CASE("tokens with scores: the best pair of neighbours is merged, the first of its kind") {
    const language::tokenizer words(scored_words());
    const auto of_byte = [](char c) {
        return first_scored_byte + static_cast<std::int32_t>(static_cast<unsigned char>(c));
    };
    const auto id = [&](const std::string& token) { return words.id_of(token); };
    CHECK(words.encode("").empty());
    CHECK(words.encode("ab") == ids{id("▁ab")});
    // "bc" is better than "ab".
    CHECK(words.encode("abc") == ids{id("▁a"), id("bc")});
    // Of two that are as good the first.
    CHECK(words.encode("aaa") == ids{id("▁"), id("aa"), id("a")});
    CHECK(words.encode("  ab") == ids{id("▁▁"), id("▁ab")});
    CHECK(words.encode("▁ab") == ids{id("▁"), id("▁ab")});
    // Characters that are no tokens may become one together, and else are bytes.
    CHECK(words.encode("xy") == ids{id("▁"), id("xy")});
    CHECK(words.encode("x\n") == ids{id("▁"), of_byte('x'), of_byte('\n')});
    CHECK(words.encode("é") == ids{id("▁"), of_byte('\xc3'), of_byte('\xa9')});
    CHECK(words.encode(std::string("\0", 1)) == ids{id("▁"), of_byte('\0')});
    // What begins with a space has two of them, and no text goes on with one.
    CHECK(words.encode(" ab", false, true) == ids{id("▁ab")});
    CHECK(words.encode("ab", false, true) == ids{id("ab")});

    // Texts begin again behind tokens that stand for themselves.
    CHECK(words.encode("ab<u>ab") == ids{id("▁ab"), id("<u>"), id("▁ab")});
    CHECK(words.encode("<u>ab", false, true) == ids{id("<u>"), id("▁ab")});
    CHECK(words.encode("<s>ab", true) == ids{id("<s>"), id("▁ab")});
    CHECK(words.encode("<s><s>", true) == ids{id("<s>"), id("<s>")});
    // Without `control` it is text, though two tokens are its halves; a byte's name is, too.
    CHECK(words.encode("<s>") == ids{id("▁"), id("<s"), of_byte('>')});
    CHECK(words.encode("<0x0A>").size() == 7);

    CHECK(words.decode(words.encode("a  b\n<u>é")) == " a  b\n<u> é");
    CHECK(words.decode({of_byte('\xc3'), id("▁ab"), id("<s>"), id("<unk>")}) == "\xc3 ab");
    CHECK(words.decode({id("<s>"), id("<unk>")}, true) == "<s><unk>");

    language::vocabulary v = scored_words();
    v.space_before = false;
    CHECK(language::tokenizer(v).encode("ab<u>ab") == ids{id("ab"), id("<u>"), id("ab")});
    v.types[static_cast<std::size_t>(id("ab"))] = 5; // unused, which text may become, too
    const language::tokenizer with_unused(v);
    CHECK(with_unused.encode("ab") == ids{id("ab")});
    CHECK(with_unused.decode(with_unused.encode("ab")) == "ab");
}

TEST_CASE("ids by scores are those of a plain implementation") {
    random_source random;
    CAPTURE(random);
    const std::vector<std::string> letters = {"a", "b", "c", "é", "日", "▁", "x"};
    const auto any = [&](const auto& of_all) {
        return of_all[static_cast<std::size_t>(
            random.integer(0, static_cast<index_t>(of_all.size()) - 1))];
    };
    for (int vocabularies = 0; vocabularies < 30; ++vocabularies) {
        language::vocabulary v = scored_words();
        v.space_before = random.integer(0, 1) > 0;
        // Of few scores, so that many are the same, and some that are made of no tokens.
        for (int i = 0; i < 60; ++i) {
            std::string token;
            for (auto n = random.integer(1, 5); n > 0; --n) token += any(letters);
            if (std::find(v.tokens.begin(), v.tokens.end(), token) != v.tokens.end()) continue;
            v.tokens.push_back(token);
            v.types.push_back(1);
            v.scores.push_back(-static_cast<double>(random.integer(0, 5)));
        }
        const language::tokenizer words(v);
        for (int texts = 0; texts < 30; ++texts) {
            std::vector<std::string> symbols;
            if (v.space_before) symbols.emplace_back("▁");
            std::string text;
            for (auto n = random.integer(1, 40); n > 0; --n) {
                symbols.push_back(any(letters));
                text += symbols.back() == "▁" && random.integer(0, 1) > 0 ? " " : symbols.back();
            }
            CAPTURE(text);
            CHECK(words.encode(text) == slow_by_scores(v, symbols));
        }
    }
}

TEST_CASE("long texts take no time by scores either") {
    const language::tokenizer words(scored_words());
    const std::size_t n = 200000;
    CHECK(words.encode(std::string(n, 'a')).size() == n / 2 + 1);
    CHECK(words.encode(std::string(n, ' ')).size() == n / 2 + 1);
    CHECK(words.encode(std::string(n, 'q')).size() == n + 1);
    CHECK(argument_error_of([&] { words.encode(std::string((16u << 20) / 3, ' ')); }) ==
          "the tokenizer makes more than 16777216 bytes of a text");
}

TEST_CASE("a vocabulary with scores that does not fit together is refused in a sentence") {
    CHECK(error_of(scored_words()) == "no error");
    const auto error = [](const auto& change) {
        language::vocabulary v = scored_words();
        change(v);
        return error_of(v);
    };
    using language::vocabulary;
    const std::string count = std::to_string(scored_words().tokens.size());
    CHECK(error([](vocabulary& v) { v.scores.clear(); }) ==
          "scored.gguf: has " + count + " tokens, and scores of 0");
    CHECK(error([](vocabulary& v) { v.types[2] = 7; }) ==
          "scored.gguf: its token '<u>' has the type 7, not one from 1 to 6, as tokens of "
          "SentencePiece have");
    CHECK(error([](vocabulary& v) { v.types[2] = 6; }) ==
          "scored.gguf: its token '<u>' is that of a byte, which would be named as <0x0A> is");
    CHECK(error([](vocabulary& v) { v.tokens[first_scored_byte + 171] = "<0xab>"; }) ==
          "scored.gguf: its token '<0xab>' is that of a byte, which would be named as <0x0A> is");
    CHECK(error([](vocabulary& v) {
              v.tokens[first_scored_byte] = "z";
              v.types[first_scored_byte] = 1;
          }) ==
          "scored.gguf: has no token <0x00>; vocabularies of SentencePiece are read where each "
          "byte has one");
    CHECK(error([](vocabulary& v) { v.tokens.back() = "ab"; }).find("has the token 'ab' twice") !=
          std::string::npos);
    CHECK_THAT(error([](vocabulary& v) { v.tokens.back() = std::string(1025, 'a'); }),
               ContainsSubstring("has a token of 1025 bytes"));
}

TEST_CASE("tokens become the text that they were made of") {
    random_source random;
    CAPTURE(random);
    const language::tokenizer words(small());
    for (int texts = 0; texts < 300; ++texts) {
        std::string text;
        for (auto left = random.integer(0, 60); left > 0; --left)
            text += random.integer(0, 9) > 0   ? utf8(random_character(random))
                    : random.integer(0, 1) > 0 ? "<|end|>"
                                               : "<u>";
        CAPTURE(text);
        CHECK(words.decode(words.encode(text)) == text);
        CHECK(words.decode(words.encode(text, true), true) == text);
    }
    CHECK(words.decode({}).empty());
    // Parts of characters are kept as they are.
    CHECK(words.decode({of('\xf0'), of('x')}) == "\xf0x");
}

TEST_CASE("control tokens stand for themselves where that is asked for, user's always") {
    const language::tokenizer words(small());
    const std::string text = "x<|end|><u>";
    CHECK(words.encode(text) ==
          ids{of('x'), of('<'), of('|'), en, of('d'), of('|'), of('>'), user});
    CHECK(words.encode(text, true) == ids{of('x'), end_of_text, user});
    CHECK(words.decode(words.encode(text, true)) == "x<u>");
    CHECK(words.decode(words.encode(text, true), true) == text);
    // Nothing is taken of what is beside them, and it is cut as if it were alone.
    CHECK(words.encode("  <|end|> the", true) == ids{two_spaces, end_of_text, space_the});
    CHECK(words.encode("<|end|><|end|>", true) == ids{end_of_text, end_of_text});
    CHECK(words.encode("<|end|", true) == words.encode("<|end|"));

    // Of those that begin there the longest; an unknown token is one of them, an unused one none.
    language::vocabulary v = small();
    for (const char* token : {"<|end|>x", "<unk>", "<unused>"}) v.tokens.emplace_back(token);
    for (const std::uint64_t type : {3u, 2u, 5u}) v.types.push_back(type);
    const language::tokenizer more(v);
    const std::int32_t longer = more.id_of("<|end|>x");
    CHECK(more.encode("<|end|>x", true) == ids{longer});
    CHECK(more.encode("<unk>", true) == ids{longer + 1});
    CHECK(more.encode("<unused>", true) == words.encode("<unused>"));
    CHECK(more.decode({longer, longer + 1, longer + 2}).empty());
    CHECK(more.decode({longer, longer + 1, longer + 2}, true) == "<|end|>x<unk>");
}

TEST_CASE("a byte without a token becomes nothing, and a gap over which nothing is merged") {
    language::vocabulary v = small();
    const auto gone = std::find(v.tokens.begin(), v.tokens.end(), letter(4));
    v.tokens.erase(gone);
    v.types.pop_back();
    const language::tokenizer words(v);
    CHECK(words.encode("\x04").empty());
    CHECK(words.encode("h\x04"
                       "e") == ids{of('h') - 1, of('e') - 1});
    CHECK(words.encode("\x04he\x04\x04he\x04") == ids{he - 1, he - 1});
    CHECK(words.decode(words.encode("a\x04z")) == "az");
}

TEST_CASE("tokens have the ids that the vocabulary gives them") {
    const language::vocabulary v = small();
    const language::tokenizer words(v);
    for (std::size_t i = 0; i < v.tokens.size(); ++i)
        CHECK(words.id_of(v.tokens[i]) == static_cast<std::int32_t>(i));
    CHECK(argument_error_of([&] { words.id_of("<none>"); }) ==
          "the vocabulary has no token '<none>'");
    CHECK(argument_error_of([&] { words.id_of(""); }) == "the vocabulary has no token ''");
}

TEST_CASE("texts that are not UTF-8 and ids that are none are refused") {
    const language::tokenizer words(small());
    CHECK(argument_error_of([&] { words.encode("ab\xff"); }) ==
          "text is not valid UTF-8 at byte 2");
    CHECK(argument_error_of([&] { words.encode("\xed\xa0\x80", true); }) ==
          "text is not valid UTF-8 at byte 0");
    CHECK(argument_error_of([&] {
              words.decode({0, -1});
          }) == "there is no token -1, the vocabulary has 270");
    CHECK(argument_error_of([&] { words.decode({270}); }) ==
          "there is no token 270, the vocabulary has 270");
    CHECK(argument_error_of([&] { words.encode(std::string((16u << 20) + 1, 'a')); }) ==
          "the tokenizer makes more than 16777216 bytes of a text");
}

TEST_CASE("a vocabulary that does not fit together is refused in a sentence") {
    CHECK(error_of(small()) == "no error");
    const auto error = [](const auto& change) {
        language::vocabulary v = small();
        change(v);
        return error_of(v);
    };
    using language::vocabulary;
    CHECK(error([](vocabulary& v) { v.tokens.clear(); }) == "small.gguf: has no tokens");
    CHECK(error([](vocabulary& v) { v.types.pop_back(); }) ==
          "small.gguf: has 270 tokens, and types of 269");
    CHECK(error([](vocabulary& v) { v.types.clear(); }) ==
          "small.gguf: has 270 tokens, and types of 0");
    CHECK(error([](vocabulary& v) { v.tokens[7].clear(); }) == "small.gguf: its token 7 is empty");
    CHECK(error([](vocabulary& v) { v.tokens[0] = "<\xe4>"; }) ==
          "small.gguf: its token 0 is not UTF-8");
    for (const char* type : {"0", "6", "18446744073709551615"})
        CHECK(error([&](vocabulary& v) { v.types[1] = std::stoull(type); }) ==
              "small.gguf: its token '<u>' has the type " + std::string(type) +
                  ", not one from 1 to 5, as tokens of byte-level BPE have");
    CHECK(error([](vocabulary& v) { v.tokens[1] = "<|end|>"; }) ==
          "small.gguf: has the token '<|end|>' twice, with the ids 0 and 1");
    for (const char* token : {"a b", "\xe6\x97\xa5", "x\xc5\x84"})
        CHECK(error([&](vocabulary& v) { v.tokens.back() = token; }) ==
              "small.gguf: its token '" + std::string(token) +
                  "' has a character that is no byte's letter");
    CHECK(error([](vocabulary& v) { v.tokens.back() = "a\n"; }) ==
          "small.gguf: its token 'a\\x0a' has a character that is no byte's letter");
    CHECK(error([](vocabulary& v) { v.merges.emplace_back("n \xe4"); }) ==
          "small.gguf: its merge 12 is not UTF-8");
    CHECK(error([](vocabulary& v) {
              v.tokens.back() = std::string(1025, 'a');
              v.types.back() = 4;
          }) == "small.gguf: has a token of 1025 bytes, which begins with 'aaaaaaaaaaaaaaaaaaaa'; "
                "up to 1024 are read");
    CHECK(error([](vocabulary& v) { v.merges.emplace_back("h e"); }) ==
          "small.gguf: has the merge 'h e' twice");
    for (const char* merge : {"he", "", "h e n"})
        CHECK(error([&](vocabulary& v) { v.merges.emplace_back(merge); }) ==
              "small.gguf: has the merge \"" + std::string(merge) + "\", which is not two tokens");
    CHECK(error([](vocabulary& v) { v.merges.emplace_back("h x"); }) ==
          "small.gguf: merges or names the token 'hx', which is not in its vocabulary");
    CHECK_THAT(error([](vocabulary& v) { v.merges.emplace_back("hx e"); }),
               ContainsSubstring("which is not in its vocabulary"));
    for (const char* pre : {"tekken", ""})
        CHECK(error([&](vocabulary& v) { v.pre = pre; }) ==
              "small.gguf: tokenizer.ggml.pre is '" + std::string(pre) +
                  "', not gpt-2, smollm, llama-bpe or qwen2");
}

} // namespace language_tokenizer_test
