#include "questions.hpp"

#include "encoder/files/settings.hpp"
#include "unicode.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

namespace encoder {
namespace {

using detail::fail;
using detail::settings;

std::string needed_text(const settings& of, const char* key) {
    if (!of.has(key)) of.needed(key, std::optional<std::string>());
    return of.text(key, "");
}

/// The byte at which each character begins, and the end.
std::vector<std::size_t> character_places(const std::string& text) {
    std::vector<std::size_t> places;
    for (std::size_t at = 0; at <= text.size(); ++at)
        if (detail::begins_character(text, at)) places.push_back(at);
    return places;
}

std::vector<right_answer> read_answers(const settings& asked, const std::string& context,
                                       const std::vector<std::size_t>& places) {
    std::vector<right_answer> answers;
    if (asked.flag("is_impossible", false)) return answers;
    for (const settings& a : asked.objects("answers")) {
        const auto most = static_cast<Eigen::Index>(places.size()) - 1;
        const auto start =
            static_cast<std::size_t>(a.needed("answer_start", a.count("answer_start", 0, most)));
        right_answer answer{needed_text(a, "text"), places[start]};
        if (context.compare(answer.begin, answer.text.size(), answer.text) != 0)
            fail(a.file(), "the answer '", answer.text, "' to the question ", asked.text("id", ""),
                 " is not at character ", start, " of its context");
        answers.push_back(std::move(answer));
    }
    return answers;
}

} // namespace

bool question_set::has_unanswerable() const {
    return std::any_of(questions.begin(), questions.end(),
                       [](const question& q) { return q.answers.empty(); });
}

question_set read_questions(const std::filesystem::path& file) {
    question_set all;
    for (const settings& article : settings(file).objects("data"))
        for (const settings& paragraph : article.objects("paragraphs")) {
            const std::string& context =
                all.contexts.emplace_back(needed_text(paragraph, "context"));
            const std::vector<std::size_t> places = character_places(context);
            for (const settings& asked : paragraph.objects("qas"))
                all.questions.push_back({needed_text(asked, "id"), needed_text(asked, "question"),
                                         all.contexts.size() - 1,
                                         read_answers(asked, context, places)});
        }
    if (all.questions.empty()) fail(file, "holds no question: data, paragraphs, qas");
    return all;
}

std::vector<window> make_windows(std::size_t tokens, std::size_t longest, std::size_t shared) {
    if (longest == 0) throw std::invalid_argument("windows of 0 tokens hold nothing");
    const std::size_t step = longest - std::min(shared, longest / 2);
    std::vector<window> windows;
    for (std::size_t begin = 0;; begin += step) {
        windows.push_back({begin, std::min(begin + longest, tokens)});
        if (windows.back().end == tokens) return windows;
    }
}

context_tokens tokenize(const tokenizer& words, const std::string& context) {
    context_tokens found;
    found.ids = words.tokens_of(context, found.places);
    return found;
}

std::vector<asked> ask(const tokenizer& words, const question_set& all, std::size_t number,
                       const context_tokens& context, const config& c) {
    const question& q = all.questions[number];
    const auto begins = std::find_if(q.text.begin(), q.text.end(), [](unsigned char letter) {
        return letter > ' '; // transformers leaves out spaces there as well
    });
    const std::vector<std::int32_t> asks = words.tokens_of(std::string(begins, q.text.end()));
    const std::size_t taken = words.frame(asks, {}).ids.size(),
                      most = static_cast<std::size_t>(c.max_tokens);
    if (taken >= most)
        throw std::invalid_argument("the question " + q.id + " takes " + std::to_string(taken) +
                                    " of " + std::to_string(most) +
                                    " tokens, which leaves none for its context");
    std::vector<asked> found;
    for (const window& w : make_windows(context.ids.size(), most - taken)) {
        const auto part = [&](const auto& from) {
            return std::vector(from.begin() + static_cast<std::ptrdiff_t>(w.begin),
                               from.begin() + static_cast<std::ptrdiff_t>(w.end));
        };
        tokenizer::framed f = words.frame(asks, part(context.ids));
        for (std::size_t t = 0; t < f.ids.size(); ++t)
            if (t < f.second || t >= f.second + (w.end - w.begin)) f.ids[t] += pinned;
        found.push_back({std::move(f.ids), {number, f.second, part(context.places)}});
    }
    return found;
}

} // namespace encoder
