// Answers to questions: the best ones that logits of spans name, and how good they are, as SQuAD
// measures them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace encoder {

/// The text without upper case, the punctuation of ASCII, the words a, an and the, and more than one
/// space between words.
std::string normalized_answer(const std::string& text);

/// 1 if the normalized answer is one of `right`, else 0. Answers without a word do not count among
/// `right`; where none is left, an answer without a word is right.
double exact_match(const std::string& given, const std::vector<std::string>& right);
/// The harmonic mean of precision and recall of words that the normalized answers share, each as
/// often as both have it: the best over `right`. Where one has no word, 1 if neither has, else 0.
double word_f1(const std::string& given, const std::vector<std::string>& right);

/// One of a window's spans, by its tokens; both are in it.
struct answer_span {
    std::size_t window, first, last;
    double score; ///< the sum of both logits
};

/// Of a question's windows, which of them may answer is one's [begin, end) of its tokens.
struct answer_window {
    const float *first, *last; ///< a logit a token; -infinity where it was dropped
    std::size_t begin, end;    ///< tokens of the context
    std::size_t none = 0;      ///< the token that stands for no answer: the first one
};

/// How answers are looked for.
struct answer_search {
    std::size_t best = 20;    ///< of each window's first and last tokens, so many are combined
    std::size_t longest = 30; ///< tokens of an answer
};

/// The best spans over all windows, best first, at most `how.best`: of each window the best first and
/// last tokens whose logits are finite, the last not before the first. O(tokens log best + best^2).
std::vector<answer_span> best_answers(const std::vector<answer_window>& windows,
                                      const answer_search& how = {});
/// The least score of no answer over all windows: an answer counts where it is higher.
double no_answer_score(const std::vector<answer_window>& windows);

} // namespace encoder
