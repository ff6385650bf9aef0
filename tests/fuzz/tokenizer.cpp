// A tokenizer's files and the texts that it cuts into tokens: vocab.txt or tokenizer.json with
// tokenizer_config.json, or vocab.json with merges.txt; a text, and a second one.
#include "files.hpp"

#include "encoder/text/tokenizer.hpp"
#include "encoder/text/unicode.hpp"

#include <algorithm>

namespace {

using ids = std::vector<std::int32_t>;

void check(const encoder::tokenizer& words, const ids& found, std::size_t max_tokens,
           const encoder::config& c) {
    EXPECT(!found.empty() && found.size() <= max_tokens);
    for (const std::int32_t id : found) {
        EXPECT(id >= 0 && id < c.vocabulary * c.types);
        words.word(id);
    }
}

/// Asking for places changes nothing else, and they are whole characters of the text.
void check_places(const encoder::tokenizer& words, const std::string& text) {
    std::vector<encoder::text_range> places;
    const ids found = words.tokens_of(text, places);
    EXPECT(found == words.tokens_of(text));
    EXPECT(places.size() == found.size());
    using encoder::detail::begins_character;
    for (const encoder::text_range& r : places) {
        EXPECT(r.begin <= r.end && r.end <= text.size());
        EXPECT(begins_character(text, r.begin) && begins_character(text, r.end));
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    fuzz::bytes in(data, size);
    const auto kind = in.up_to(2);
    encoder::config c;
    c.types = 1 + in.up_to(1);
    c.max_tokens = 64;
    const auto max_tokens = static_cast<std::size_t>(in.up_to(40));
    c.vocabulary = 1 + in.raw<std::uint16_t>() % 2048;
    const std::vector<std::string> parts = fuzz::split(in.rest(), 4);
    const std::string &first = parts[2], &second = parts[3];
    const auto file = [&](const char* name, bool is_there, const std::string& content) {
        here.file(name, is_there ? content : "");
    };
    file("vocab.txt", kind == 0, parts[0]);
    file("tokenizer.json", kind == 1, parts[0]);
    file("vocab.json", kind == 2, parts[0]);
    file("merges.txt", kind == 2, parts[1]);
    file("tokenizer_config.json", kind != 2, parts[1]);
    fuzz::unusable([&] {
        const encoder::tokenizer words(here.path(), c);
        fuzz::unusable([&] {
            const ids all = words.encode(first, first.npos), some = words.encode(first, max_tokens);
            check(words, all, first.npos, c);
            check(words, some, max_tokens, c);
            // [CLS] and [SEP] stand around it.
            if (kind == 0) EXPECT(std::equal(some.begin(), some.end() - 1, all.begin()));
        });
        fuzz::unusable([&] { check_places(words, first); });
        fuzz::unusable(
            [&] { check(words, words.encode(first, second, max_tokens), max_tokens, c); });
    });
    return 0;
}
