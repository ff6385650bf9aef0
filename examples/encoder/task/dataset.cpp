#include "dataset.hpp"

#include "encoder/files/file.hpp"
#include "encoder/files/heads.hpp"

#include <algorithm>
#include <iterator>
#include <random>

namespace encoder {
namespace {

/// Some of the rows, in their order.
template <class Row>
void select(std::vector<Row>& rows, const selection& some) {
    if (rows.size() <= some.most) return;
    std::vector<Row> selected;
    std::mt19937_64 random(some.seed);
    std::sample(rows.begin(), rows.end(), std::back_inserter(selected), some.most, random);
    rows = std::move(selected);
}

double class_of(const std::string& tag, const std::vector<std::string>& names,
                const std::filesystem::path& file, std::size_t line) {
    const auto found = std::find(names.begin(), names.end(), tag);
    if (found != names.end()) return static_cast<double>(found - names.begin());
    std::string all;
    for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 12); ++i)
        all += (i == 0 ? "" : ", ") + names[i];
    detail::fail(file, "line ", line, " has the tag '", tag, "', which is none of the model's ",
                 names.size(), " (id2label in config.json): ", all,
                 names.size() > 12 ? ", ..." : "");
}

void read_tagged(const std::filesystem::path& file, const tokenizer& words, const model& m,
                 const selection& some, dataset& data) {
    const auto longest = static_cast<std::size_t>(m.config.max_tokens);
    std::vector<tagged_sentence> rows = read_tagged_words(file);
    select(rows, some);
    data.parts = {0};
    for (const tagged_sentence& r : rows) {
        for (sentence_part& p : tokenize_sentence(words, r.words, longest)) {
            const std::size_t first = data.targets.size();
            data.targets.resize(first + p.ids.size(), dataset::no_tag);
            for (const auto& [word, token] : p.words)
                data.targets[first + token] =
                    class_of(r.tags[word], data.tags, file, r.line + word);
            data.texts.push_back(std::move(p.ids));
        }
        data.parts.push_back(data.texts.size());
    }
}

/// The tokens of a window that an answer begins and ends with, or the first one for both: of those of
/// the context the last one that does not begin behind the answer, and the first that does not end
/// before its end.
std::pair<std::size_t, std::size_t> ends_of(const right_answer& a, const context_window& in) {
    const std::size_t end = a.begin + a.text.size();
    const std::vector<text_range>& places = in.places;
    if (places.empty() || places.front().begin > a.begin || places.back().end < end) return {};
    const auto last = std::find_if(places.begin(), places.end(),
                                   [&](const text_range& p) { return p.end >= end; });
    const auto behind = std::find_if(places.begin(), places.end(),
                                     [&](const text_range& p) { return p.begin > a.begin; });
    const auto first = std::min(std::max(behind, places.begin() + 1) - 1, last);
    return {in.begin + static_cast<std::size_t>(first - places.begin()),
            in.begin + static_cast<std::size_t>(last - places.begin())};
}

void read_asked(const std::filesystem::path& file, const tokenizer& words, const model& m,
                const selection& some, dataset& data) {
    question_set all = read_questions(file);
    select(all.questions, some);
    data.paired = true;
    data.parts = {0};
    context_tokens context; // questions of one stand side by side
    for (std::size_t q = 0; q < all.questions.size(); ++q) {
        if (const std::size_t of = all.questions[q].context;
            q == 0 || of != all.questions[q - 1].context)
            context = tokenize(words, all.contexts[of]);
        for (auto& [ids, window] : ask(words, all, q, context, m.config)) {
            if (some.labels) {
                const std::vector<right_answer>& right = all.questions[q].answers;
                const auto [first, last] = right.empty() ? std::pair<std::size_t, std::size_t>()
                                                         : ends_of(right[0], window);
                data.targets.push_back(static_cast<double>(first));
                data.targets.push_back(static_cast<double>(last));
            }
            data.texts.push_back(std::move(ids));
            data.windows.push_back(std::move(window));
        }
        data.parts.push_back(data.texts.size());
    }
    data.questions = std::make_shared<const question_set>(std::move(all));
}

} // namespace

const char* name_of(task_kind kind) {
    switch (kind) {
    case task_kind::classify:
        return "classify";
    case task_kind::regress:
        return "regress";
    case task_kind::tag:
        return "tag";
    case task_kind::answer:
        return "answer";
    case task_kind::similarity:
        return "similarity";
    default:
        return "distill";
    }
}

task_kind task_of(const model& m) {
    if (!m.head) return task_kind::similarity;
    if (m.head->of == head::subject::token) return task_kind::tag;
    if (m.head->of == head::subject::span) return task_kind::answer;
    return m.head->is_score() ? task_kind::regress : task_kind::classify;
}

int dataset::classes() const {
    return targets.empty()
               ? 0
               : 1 + static_cast<int>(*std::max_element(targets.begin(), targets.end()));
}

std::vector<std::size_t> dataset::first_rows() const {
    std::vector<std::size_t> first = {0};
    for (std::size_t t = 0; t < texts.size(); ++t) first.push_back(first.back() + rows(t));
    return first;
}

dataset read_dataset(task_kind kind, const std::filesystem::path& file, const tokenizer& words,
                     const model& m, const selection& some) {
    const config& c = m.config;
    dataset data{kind, {}, {}, {}, {}};
    const auto longest = static_cast<std::size_t>(c.max_tokens);
    switch (kind) {
    case task_kind::classify:
    case task_kind::regress: {
        std::vector<labelled_text> rows =
            read_labelled(file, !some.labels                  ? target_kind::none
                                : kind == task_kind::classify ? target_kind::label
                                                              : target_kind::score);
        select(rows, some);
        data.texts = tokenize(words, rows, c);
        for (const labelled_text& r : rows) {
            data.paired = data.paired || !r.second.empty();
            if (some.labels) data.targets.push_back(r.target);
        }
        break;
    }
    case task_kind::tag:
        data.tags = label_names(m);
        if (some.labels) {
            read_tagged(file, words, m, some, data);
            break;
        }
        [[fallthrough]];
    case task_kind::distill: {
        std::vector<std::string> rows = read_documents(file);
        select(rows, some);
        data.texts = tokenize(words, rows, longest);
        break;
    }
    case task_kind::answer:
        read_asked(file, words, m, some, data);
        break;
    case task_kind::similarity: {
        std::vector<scored_pair> rows = read_pairs(file);
        double highest = 0;
        for (const scored_pair& r : rows) highest = std::max(highest, r.score);
        select(rows, some);
        for (const scored_pair& r : rows) {
            for (const std::string* text : {&r.first, &r.second})
                data.texts.push_back(words.encode(*text, longest));
            data.targets.push_back(highest > 0 ? std::max(0., r.score) / highest : 0.);
        }
        data.pairs = make_task(words, rows, longest);
        break;
    }
    }
    return data;
}

void check_classes(const dataset& data, const std::filesystem::path& file, const model& m) {
    const Eigen::Index classes = m.head ? m.head->output.weight.rows() : 0;
    if (data.kind == task_kind::classify && data.classes() > classes)
        detail::fail(file, "has the label ", data.classes() - 1, ", the model ", classes,
                     " classes");
}

dataset hold_out(dataset& from, std::size_t each) {
    dataset held{from.kind, {}, {}, {}, {}, from.paired, from.tags, {}, {}, from.questions},
        rest = held;
    const std::vector<std::size_t> rows = from.first_rows();
    const auto copy = [&](std::size_t begin, std::size_t end, dataset& to) {
        for (std::size_t t = begin; t < end; ++t) {
            to.texts.push_back(from.texts[t]);
            if (!from.windows.empty()) to.windows.push_back(from.windows[t]);
        }
        if (from.targets.empty()) return;
        // A target a row of outputs to tag, two a text to answer, one an example of others.
        if (from.kind == task_kind::tag) {
            begin = rows[begin];
            end = rows[end];
        } else if (from.kind == task_kind::answer) {
            begin *= 2;
            end *= 2;
        } else {
            begin /= from.texts_each();
            end /= from.texts_each();
        }
        to.targets.insert(to.targets.end(),
                          from.targets.begin() + static_cast<std::ptrdiff_t>(begin),
                          from.targets.begin() + static_cast<std::ptrdiff_t>(end));
    };
    const bool in_parts = !from.parts.empty();
    const std::size_t examples = in_parts ? from.parts.size() - 1 : from.size();
    for (std::size_t i = 0; i < examples; ++i) {
        dataset& to = i % each == each - 1 ? held : rest;
        if (in_parts && to.parts.empty()) to.parts = {0};
        if (in_parts)
            copy(from.parts[i], from.parts[i + 1], to);
        else
            copy(i * from.texts_each(), (i + 1) * from.texts_each(), to);
        if (in_parts) to.parts.push_back(to.texts.size());
    }
    if (held.texts.empty())
        throw std::invalid_argument(std::to_string(examples) +
                                    " examples are too few to hold some out; give --evaluate");
    if (from.kind == task_kind::similarity) {
        held.pairs = similarity_task{held.texts, {}, held.targets};
        for (std::size_t i = 0; i < held.size(); ++i)
            held.pairs->pairs.emplace_back(2 * i, 2 * i + 1);
    }
    from = std::move(rest);
    return held;
}

const std::vector<sequence>& measured_texts(const dataset& data) {
    return data.pairs ? data.pairs->sequences : data.texts;
}

} // namespace encoder
