#include "needles.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <stdexcept>

namespace language {
namespace {

template <std::size_t N>
const char* any(const char* const (&of)[N], std::mt19937_64& random) {
    return of[random() % N];
}

/// Pieces that end before the spaces of these separators.
std::vector<std::string> split(const std::string& text, const std::string& separator) {
    std::vector<std::string> pieces;
    for (std::size_t begin = 0, end; begin < text.size(); begin = end) {
        const std::size_t stop = text.find(separator, begin + 1);
        end = stop == std::string::npos ? text.size() : stop + separator.size() - 1;
        pieces.push_back(text.substr(begin, end - begin));
    }
    return pieces;
}

} // namespace

std::vector<needle> make_needles(std::size_t count, std::mt19937_64& random) {
    static constexpr const char* names[] = {"Anna",  "Boris", "Clara", "David", "Elena", "Felix",
                                            "Grace", "Henry", "Irene", "James", "Karen", "Louis",
                                            "Maria", "Oscar", "Paula", "Simon"};
    static constexpr const char* things[] = {"locker", "ticket",  "room",   "phone",
                                             "badge",  "account", "parcel", "passport"};
    static_assert(std::size(names) * std::size(things) == most_needles);
    if (count > most_needles)
        throw std::invalid_argument(std::to_string(count) + " needles; there are " +
                                    std::to_string(most_needles));
    std::set<std::string> asked;
    std::vector<needle> needles;
    while (needles.size() < count) {
        needle n;
        n.question =
            std::string(" The ") + any(things, random) + " number of " + any(names, random) + " is";
        n.answer = " " + std::to_string(1000 + random() % 9000);
        n.sentence = n.question + n.answer + ".";
        if (asked.insert(n.question).second) needles.push_back(n);
    }
    return needles;
}

std::vector<std::int32_t> hide_needles(const tokenizer& words, const std::string& text,
                                       const std::vector<needle>& needles, std::size_t tokens) {
    std::size_t used = 0;
    const auto fits = [&](const std::string& more, bool goes_on = true) {
        const std::size_t n = words.encode(more, false, goes_on).size();
        if (used + n > tokens) return false;
        used += n;
        return true;
    };
    for (const needle& n : needles)
        if (!fits(n.sentence))
            throw std::invalid_argument(std::to_string(needles.size()) +
                                        " needles have more than " + std::to_string(tokens) +
                                        " tokens");
    std::vector<std::string> sentences;
    for (const std::string& s : split(text, ". ")) {
        if (fits(s, !sentences.empty())) {
            sentences.push_back(s);
            continue;
        }
        std::string some;
        for (const std::string& word : split(s, " ")) {
            if (!fits(word, !(sentences.empty() && some.empty()))) break;
            some += word;
        }
        if (!some.empty()) sentences.push_back(some);
        break;
    }
    std::string all;
    std::size_t placed = 0;
    for (std::size_t i = 0; i <= sentences.size(); ++i) {
        // Needle j is behind the share (j + 1/2) / needles of the sentences.
        while (placed < needles.size() &&
               (2 * placed + 1) * sentences.size() <= 2 * i * needles.size()) {
            // Another space before a needle's own would make other tokens of it.
            all.erase(all.find_last_not_of(' ') + 1);
            all += needles[placed++].sentence;
        }
        if (i < sentences.size()) all += sentences[i];
    }
    return words.encode(all);
}

std::size_t count_found(const model& m, const tokenizer& words, const cache& c, index_t length,
                        const std::vector<needle>& needles) {
    constexpr std::size_t together = 8; // of which each has a copy of the cache
    std::size_t found = 0;
    for (std::size_t first = 0; first < needles.size(); first += together) {
        token_batch questions;
        std::vector<std::vector<std::int32_t>> answers;
        std::size_t longest = 0, longest_answer = 0;
        for (std::size_t i = first; i < std::min(needles.size(), first + together); ++i) {
            const std::vector<std::int32_t> asked = words.encode(needles[i].question, false, true);
            answers.push_back(words.encode(needles[i].answer, false, true));
            if (asked.empty() || answers.back().empty())
                throw std::invalid_argument("the vocabulary has no token of '" +
                                            needles[i].sentence + "'");
            questions.add(asked, length);
            longest = std::max(longest, asked.size());
            longest_answer = std::max(longest_answer, answers.back().size());
        }
        cache copies;
        for (const layer_cache& of : c)
            copies.push_back(of.copies(static_cast<index_t>(answers.size()),
                                       static_cast<index_t>(longest + longest_answer)));
        const auto said =
            continue_texts(m, questions, copies, static_cast<index_t>(longest_answer));
        for (std::size_t i = 0; i < answers.size(); ++i)
            found += std::equal(answers[i].begin(), answers[i].end(), said[i].begin());
    }
    return found;
}

} // namespace language
