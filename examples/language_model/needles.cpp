#include "needles.hpp"

#include <algorithm>
#include <set>

namespace language {
namespace {

template <std::size_t N>
const char* any(const char* const (&of)[N], std::mt19937_64& random) {
    return of[random() % N];
}

/// With the space before each.
std::vector<std::string> split_sentences(const std::string& text) {
    std::vector<std::string> sentences;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t stop = text.find(". ", begin);
        const std::size_t end = stop == std::string::npos ? text.size() : stop + 1;
        sentences.push_back(text.substr(begin, end - begin));
        begin = end;
    }
    return sentences;
}

} // namespace

std::vector<needle> make_needles(std::size_t count, std::mt19937_64& random) {
    static constexpr const char* names[] = {"Anna",  "Boris", "Clara", "David", "Elena", "Felix",
                                            "Grace", "Henry", "Irene", "James", "Karen", "Louis",
                                            "Maria", "Oscar", "Paula", "Simon"};
    static constexpr const char* things[] = {"locker", "ticket",  "room",   "phone",
                                             "badge",  "account", "parcel", "passport"};
    std::set<std::string> asked;
    std::vector<needle> needles;
    while (needles.size() < std::min<std::size_t>(count, std::size(names) * std::size(things))) {
        needle n;
        n.question =
            std::string("The ") + any(things, random) + " number of " + any(names, random) + " is";
        n.answer = " " + std::to_string(1000 + random() % 9000);
        n.sentence = n.question + n.answer + ".";
        if (asked.insert(n.question).second) needles.push_back(n);
    }
    return needles;
}

std::vector<std::int32_t> hide_needles(const tokenizer& words, const std::string& text,
                                       const std::vector<needle>& needles, std::size_t tokens) {
    std::size_t used = 0;
    for (const needle& n : needles) used += words.encode(n.sentence).size();
    std::vector<std::string> sentences;
    for (std::string& s : split_sentences(text)) {
        used += words.encode(s).size();
        if (used > tokens) break;
        sentences.push_back(std::move(s));
    }
    std::string all;
    std::size_t placed = 0;
    for (std::size_t i = 0; i <= sentences.size(); ++i) {
        // Needle j is behind the share (j + 1/2) / needles of the sentences.
        while (placed < needles.size() &&
               (2 * placed + 1) * sentences.size() <= 2 * i * needles.size())
            all += needles[placed++].sentence;
        if (i < sentences.size()) all += sentences[i];
    }
    return words.encode(all);
}

std::size_t count_found(const model& m, const tokenizer& words, const cache& c, index_t length,
                        const std::vector<needle>& needles) {
    if (needles.empty()) return 0;
    token_batch questions;
    std::vector<std::vector<std::int32_t>> answers;
    std::size_t longest = 0, longest_answer = 0;
    for (const needle& n : needles) {
        const std::vector<std::int32_t> asked = words.encode(n.question);
        questions.add(asked, length);
        answers.push_back(words.encode(n.answer));
        longest = std::max(longest, asked.size());
        longest_answer = std::max(longest_answer, answers.back().size());
    }
    cache of_each;
    for (const layer_cache& of : c)
        of_each.push_back(of.copies(static_cast<index_t>(needles.size()),
                                    static_cast<index_t>(longest + longest_answer)));
    const auto said = continue_texts(m, questions, of_each, static_cast<index_t>(longest_answer));
    std::size_t found = 0;
    for (std::size_t i = 0; i < answers.size(); ++i)
        found += std::equal(answers[i].begin(), answers[i].end(), said[i].begin());
    return found;
}

} // namespace language
