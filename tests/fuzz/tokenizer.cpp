// A vocabulary and the texts that it cuts into tokens: vocab.txt, a text, and a second one.
#include "files.hpp"

#include "encoder/text/tokenizer.hpp"

#include <algorithm>

namespace {

using ids = std::vector<std::int32_t>;

void check(const encoder::tokenizer& words, const ids& found, std::size_t max_tokens,
           std::int64_t vocabulary, std::int64_t types) {
    EXPECT(found.size() >= 2 && found.size() <= max_tokens);
    for (const std::int32_t id : found) {
        EXPECT(id >= 0 && id < vocabulary * types);
        words.word(id);
    }
    EXPECT(words.word(found.front()) == "[CLS]" && words.word(found.back()) == "[SEP]");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    fuzz::bytes in(data, size);
    const bool lower_case = in.flag();
    const auto max_tokens = static_cast<std::size_t>(in.up_to(40));
    const std::vector<std::string> parts = fuzz::split(in.rest(), 3);
    const std::string &first = parts[1], &second = parts[2];
    auto vocabulary = std::count(parts[0].begin(), parts[0].end(), '\n');
    if (!parts[0].empty() && parts[0].back() != '\n') ++vocabulary;
    fuzz::unusable([&] {
        const encoder::tokenizer words(here.file("vocab.txt", parts[0]), lower_case, vocabulary);
        fuzz::unusable([&] {
            const ids all = words.encode(first, first.npos), some = words.encode(first, max_tokens);
            check(words, all, first.npos, vocabulary, 1);
            check(words, some, max_tokens, vocabulary, 1);
            EXPECT(std::equal(some.begin(), some.end() - 1, all.begin()));
        });
        fuzz::unusable([&] {
            check(words, words.encode(first, second, max_tokens), max_tokens, vocabulary, 2);
        });
    });
    return 0;
}
