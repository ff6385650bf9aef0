#include "answers.hpp"

#include "encoder/text/unicode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace encoder {
namespace {

bool is_article(const std::u32string& word) {
    return word == U"a" || word == U"an" || word == U"the";
}

/// Lower case, without punctuation and articles, which stand between characters of other kinds.
std::vector<std::string> words_of(const std::string& text) {
    std::vector<std::u32string> words(1);
    std::size_t begin = 0; // of the letters and digits at the last word's end
    const auto end_run = [&] {
        if (is_article(words.back().substr(begin))) {
            words.back().erase(begin);
            words.emplace_back();
        }
        begin = words.back().size();
    };
    for (const char32_t c : detail::lower(detail::decode(text))) {
        if (c < 0x80 && detail::is_punctuation(c)) continue;
        const bool is_letter = detail::is_word(c) && !detail::is_mark(c);
        if (!is_letter) end_run();
        if (detail::is_space(c) || (c >= 0x1c && c <= 0x1f)) { // separators of ASCII too
            words.emplace_back();
            begin = 0;
        } else {
            words.back() += c;
            if (!is_letter) begin = words.back().size();
        }
    }
    end_run();
    std::vector<std::string> there;
    for (const std::u32string& word : words)
        if (!word.empty()) there.push_back(detail::encode(word));
    return there;
}

/// Those that are not empty; an empty one where there is none.
std::vector<std::vector<std::string>> words_of(const std::vector<std::string>& answers) {
    std::vector<std::vector<std::string>> all;
    for (const std::string& a : answers)
        if (std::vector<std::string> words = words_of(a); !words.empty())
            all.push_back(std::move(words));
    if (all.empty()) all.emplace_back();
    return all;
}

double f1(const std::vector<std::string>& given, const std::vector<std::string>& right) {
    if (given.empty() || right.empty()) return given.empty() && right.empty() ? 1 : 0;
    std::map<std::string, std::size_t> left;
    for (const std::string& word : right) ++left[word];
    std::size_t shared = 0;
    for (const std::string& word : given)
        if (const auto found = left.find(word); found != left.end() && found->second > 0) {
            --found->second;
            ++shared;
        }
    return 2 * static_cast<double>(shared) / static_cast<double>(given.size() + right.size());
}

/// The tokens of the highest logits in [begin, end), of equal ones the first.
std::vector<std::size_t> best_tokens(const float* logits, const answer_window& w,
                                     std::size_t most) {
    std::vector<std::size_t> tokens;
    for (std::size_t t = w.begin; t < w.end; ++t)
        if (std::isfinite(logits[t])) tokens.push_back(t);
    const auto middle = tokens.begin() + static_cast<std::ptrdiff_t>(std::min(most, tokens.size()));
    std::partial_sort(tokens.begin(), middle, tokens.end(), [&](std::size_t a, std::size_t b) {
        return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    tokens.erase(middle, tokens.end());
    return tokens;
}

} // namespace

std::string normalized_answer(const std::string& text) {
    std::string joined;
    for (const std::string& word : words_of(text)) joined += (joined.empty() ? "" : " ") + word;
    return joined;
}

double exact_match(const std::string& given, const std::vector<std::string>& right) {
    const auto all = words_of(right);
    return std::find(all.begin(), all.end(), words_of(given)) != all.end() ? 1 : 0;
}

double word_f1(const std::string& given, const std::vector<std::string>& right) {
    const std::vector<std::string> words = words_of(given);
    double best = 0;
    for (const auto& r : words_of(right)) best = std::max(best, f1(words, r));
    return best;
}

std::vector<answer_span> best_answers(const std::vector<answer_window>& windows,
                                      const answer_search& how) {
    std::vector<answer_span> all;
    for (std::size_t w = 0; w < windows.size(); ++w) {
        const answer_window& in = windows[w];
        const std::vector<std::size_t> lasts = best_tokens(in.last, in, how.best);
        for (const std::size_t first : best_tokens(in.first, in, how.best))
            for (const std::size_t last : lasts)
                if (last >= first && last - first < how.longest)
                    all.push_back({w, first, last,
                                   static_cast<double>(in.first[first]) +
                                       static_cast<double>(in.last[last])});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const answer_span& a, const answer_span& b) { return a.score > b.score; });
    all.resize(std::min(all.size(), how.best));
    return all;
}

double no_answer_score(const std::vector<answer_window>& windows) {
    double least = std::numeric_limits<double>::infinity();
    for (const answer_window& w : windows)
        least = std::min(least, static_cast<double>(w.first[w.none]) +
                                    static_cast<double>(w.last[w.none]));
    return least;
}

} // namespace encoder
