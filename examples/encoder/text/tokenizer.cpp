#include "tokenizer.hpp"

#include "pipeline.hpp"

#include "encoder/files/config.hpp"

#include <algorithm>
#include <stdexcept>

namespace encoder {
namespace {

using namespace detail;
using ids = std::vector<std::int32_t>;

std::shared_ptr<const pipeline> read(const std::filesystem::path& folder, const config& c) {
    const bool has_json = is_file(folder / "tokenizer.json");
    check_class(settings::if_exists(folder / "tokenizer_config.json"), has_json);
    std::unique_ptr<pipeline> made =
        has_json ? read_tokenizer_json(folder, c) : read_vocabulary_files(folder, c);
    made->lowers_first = read_sentence_settings(folder).flag("do_lower_case", false);
    return made;
}

/// What is left of max_tokens for texts.
std::size_t room(const text_template& around, std::size_t max_tokens, const char* texts) {
    const std::size_t tokens = around.tokens();
    if (max_tokens < tokens)
        throw std::invalid_argument("max_tokens is " + std::to_string(max_tokens) +
                                    ", the tokens around " + texts + " alone are " +
                                    std::to_string(tokens));
    return max_tokens - tokens;
}

tokenizer::framed fill(const text_template& around, const ids& first, const ids& second,
                       std::int32_t type_step) {
    tokenizer::framed all{};
    all.ids.reserve(first.size() + second.size() + around.tokens());
    for (const template_part& p : around.parts) {
        using kind = template_part::kind;
        const ids& from = p.what == kind::first ? first : p.what == kind::second ? second : p.ids;
        if (p.what == kind::first) all.first = all.ids.size();
        if (p.what == kind::second) all.second = all.ids.size();
        for (const std::int32_t id : from) all.ids.push_back(id + p.type * type_step);
    }
    return all;
}

} // namespace

tokenizer::tokenizer(const std::filesystem::path& folder, const config& c)
    : steps_(read(transformer_folder(folder), c)),
      type_step_(c.types > 1 ? static_cast<std::int32_t>(c.vocabulary) : 0) {
    const auto most = static_cast<std::size_t>(c.max_tokens);
    if (steps_->single.tokens() > most)
        fail(folder, "allows ", most, " tokens, those around a text alone are ",
             steps_->single.tokens());
    for (const text_template* t : {&steps_->single, &steps_->pair})
        for (const template_part& p : t->parts)
            if (c.types > 1 && p.type >= c.types)
                fail(folder, "has a tokenizer with the token type ", p.type, ", the model has ",
                     c.types, " types");
}

ids tokenizer::encode(std::string_view text, std::size_t max_tokens) const {
    ids found;
    steps_->append(text, room(steps_->single, max_tokens, "a text"), {found, nullptr});
    return frame(found).ids;
}

ids tokenizer::encode(std::string_view first, std::string_view second,
                      std::size_t max_tokens) const {
    const std::size_t most = room(steps_->pair, max_tokens, "two texts");
    ids found, more;
    steps_->append(first, first.npos, {found, nullptr});
    steps_->append(second, second.npos, {more, nullptr});
    if (found.size() + more.size() > most) {
        // Of equal ones the second counts as the longer.
        const bool first_is_longer = found.size() > more.size();
        auto &longer = first_is_longer ? found : more, &shorter = first_is_longer ? more : found;
        shorter.resize(std::min(shorter.size(), most / 2));
        longer.resize(most - shorter.size());
    }
    return frame(found, more).ids;
}

ids tokenizer::tokens_of(std::string_view text) const {
    ids found;
    steps_->append(text, text.npos, {found, nullptr});
    return found;
}

ids tokenizer::tokens_of(std::string_view text, std::vector<text_range>& places) const {
    ids found;
    places.clear();
    steps_->append(text, text.npos, {found, &places});
    return found;
}

tokenizer::framed tokenizer::frame(const ids& text) const {
    return fill(steps_->single, text, {}, type_step_);
}

tokenizer::framed tokenizer::frame(const ids& first, const ids& second) const {
    return fill(steps_->pair, first, second, type_step_);
}

const std::string& tokenizer::word(std::int32_t id) const {
    return steps_->words[static_cast<std::size_t>(id) % steps_->words.size()];
}

} // namespace encoder
