#include "pipeline.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace encoder::detail {
namespace {

using nlohmann::json;

class reader {
  public:
    reader(const std::filesystem::path& folder, const config& c)
        : file_(folder / "tokenizer.json"), config_(c), made_(std::make_unique<pipeline>()) {
        json all = parse_json(file_, read_text(file_));
        // Large lists are not copied.
        if (!all["model"].is_object()) fail(file_, "has no model");
        const json vocabulary = take(all["model"], "vocab"), merges = take(all["model"], "merges"),
                   added = take(all, "added_tokens");
        const settings given(file_, std::move(all));
        if (const std::string side = given.object("truncation").text("direction", "Right");
            side != "Right")
            fail(file_, "truncation.direction is ", side, ", only Right is possible");
        made_->words.resize(static_cast<std::size_t>(c.vocabulary));
        if (given.has("normalizer")) made_->normalize = make_normalizer(given.object("normalizer"));
        if (given.has("pre_tokenizer")) made_->split = make_splitter(given.object("pre_tokenizer"));
        read_model(given.object("model"), vocabulary, merges);
        read_added(added);
        if (!given.has("post_processor"))
            fail(file_, "its post_processor is null, so that a text has no tokens around it; an "
                        "encoder needs them");
        read_templates(given.object("post_processor"));
        check_templates();
        check_against(settings::if_exists(folder / "tokenizer_config.json"), given);
    }

    std::unique_ptr<pipeline> made() { return std::move(made_); }

  private:
    using kind = template_part::kind;

    static json take(json& from, const char* key) {
        const auto found = from.find(key);
        if (found == from.end()) return json::array();
        json taken = std::move(*found);
        from.erase(found);
        return taken;
    }

    void read_model(const settings& given, const json& vocabulary, const json& merges) {
        std::string type = given.text("type", "");
        if (type.empty()) // of older files
            type = vocabulary.is_array() ? "Unigram" : merges.empty() ? "WordPiece" : "BPE";
        if (type == "Unigram") {
            read_list(vocabulary);
            made_->model = make_unigram(given, made_->ids, vocabulary);
            return;
        }
        if (type != "WordPiece" && type != "BPE")
            fail(file_, "has the model '", type, "', not WordPiece, BPE or Unigram");
        if (!vocabulary.is_object()) fail(file_, "model.vocab is not an object");
        for (const auto& [word, id] : vocabulary.items()) {
            if (!id.is_number_unsigned())
                fail(file_, "gives the token '", word, "' the id ", id, ", which is none");
            made_->add_word(file_, word, id_of(id));
        }
        made_->model = type == "BPE" ? make_byte_pairs(given, made_->ids, merges)
                                     : make_word_piece(given, made_->ids);
    }

    void read_list(const json& vocabulary) {
        if (!vocabulary.is_array() || vocabulary.empty())
            fail(file_, "model.vocab is not a list of tokens");
        std::int64_t id = 0;
        for (const json& entry : vocabulary) {
            if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() ||
                !entry[1].is_number())
                fail(file_, "model.vocab holds ", entry, ", not a token and its score");
            made_->add_word(file_, entry[0].get<std::string>(), id++);
        }
    }

    /// Too large ones are refused with the word.
    static std::int64_t id_of(const json& id) {
        return static_cast<std::int64_t>(
            std::min<std::uint64_t>(id.get<std::uint64_t>(), 1u << 30));
    }

    void read_added(const json& list) {
        if (!list.is_array()) fail(file_, "added_tokens is not a list");
        std::vector<added_token> all;
        for (const json& entry : list) {
            if (!entry.is_object()) fail(file_, "added_tokens holds ", entry, ", not an object");
            const settings one(file_, entry, "added_tokens.");
            const std::string content = one.text("content", "");
            check_length(file_, content);
            const auto id = one.needed("id", one.count("id", 0, 1 << 30));
            if (const auto known = made_->ids.find(content);
                known != made_->ids.end() && known->second != id)
                fail(file_, "the added token '", content, "' has the id ", id,
                     ", in the vocabulary it has ", known->second);
            if (id >= config_.vocabulary)
                fail(file_, "the added token '", content, "' has the id ", id,
                     ", vocab_size in config.json is ", config_.vocabulary,
                     ": every token needs a row of the embeddings");
            all.push_back({content, static_cast<std::int32_t>(id), one.flag("single_word", false),
                           one.flag("lstrip", false), one.flag("rstrip", false),
                           one.flag("normalized", !one.flag("special", false))});
        }
        made_->set_added(file_, std::move(all));
    }

    std::int32_t special(const std::string& name) const {
        const std::int32_t id = made_->find(name);
        if (id < 0)
            fail(file_, "its post_processor needs the token ", name, ", which is not there");
        return id;
    }

    void read_templates(const settings& given) {
        const std::string type = given.text("type", "");
        if (type == "Sequence") {
            const auto parts = given.objects("processors");
            for (const settings& part : parts)
                if (part.text("type", "") != "ByteLevel") read_templates(part);
            return;
        }
        if (!made_->single.parts.empty()) fail(file_, "has two post_processors that add tokens");
        if (type == "TemplateProcessing") {
            made_->single = read_template(given, "single");
            made_->pair = read_template(given, "pair");
            if (made_->pair.parts.empty()) made_->pair = doubled(made_->single);
        } else if (type == "BertProcessing" || type == "RobertaProcessing") {
            const bool roberta = type == "RobertaProcessing";
            const std::int32_t begin = special(pair_text(given, "cls")),
                               end = special(pair_text(given, "sep"));
            made_->set_templates(begin, end, roberta, roberta ? 0 : 1);
        } else {
            fail(file_, "has the post_processor '", type,
                 "', not TemplateProcessing, BertProcessing, RobertaProcessing, or a Sequence of "
                 "one of these and ByteLevel");
        }
    }

    /// ["[SEP]", 102]: the text.
    std::string pair_text(const settings& given, const char* key) const {
        const auto found = given.all().find(key);
        if (found == given.all().end() || !found->is_array() || found->empty() ||
            !(*found)[0].is_string())
            fail(file_, "its post_processor's ", key, " is not a token and its id");
        return (*found)[0].get<std::string>();
    }

    text_template read_template(const settings& given, const char* key) const {
        text_template t;
        const settings specials = given.object("special_tokens");
        for (const settings& part : given.objects(key)) {
            const bool is_text = part.has("Sequence");
            const settings what = part.object(is_text ? "Sequence" : "SpecialToken");
            const std::string id = what.text("id", "");
            template_part p;
            p.type = static_cast<std::int32_t>(what.count("type_id", 0, 1 << 10).value_or(0));
            if (is_text) {
                if (id != "A" && id != "B")
                    fail(file_, "its post_processor has the sequence '", id, "', not A or B");
                p.what = id == "A" ? kind::first : kind::second;
            } else {
                p.ids = special_ids(specials, id);
            }
            t.parts.push_back(std::move(p));
        }
        return t;
    }

    std::vector<std::int32_t> special_ids(const settings& specials, const std::string& name) const {
        if (!specials.has(name.c_str())) return {special(name)};
        const settings one = specials.object(name.c_str());
        std::vector<std::int32_t> ids;
        const auto found = one.all().find("ids");
        if (found == one.all().end() || !found->is_array())
            fail(file_, "its post_processor has no ids for ", name);
        for (const json& id : *found) {
            if (!id.is_number_unsigned() || id_of(id) >= config_.vocabulary)
                fail(file_, "its post_processor gives ", name, " the id ", id,
                     ", vocab_size in config.json is ", config_.vocabulary);
            ids.push_back(static_cast<std::int32_t>(id_of(id)));
        }
        return ids;
    }

    /// What is there for a pair where the file says nothing of it: the second text with the tokens
    /// behind the first one, of type 1, as BERT has it.
    static text_template doubled(text_template t) {
        auto text = std::find_if(t.parts.begin(), t.parts.end(),
                                 [](const template_part& p) { return p.what == kind::first; });
        std::vector<template_part> more(text, t.parts.end());
        for (template_part& p : more) {
            if (p.what == kind::first) p.what = kind::second;
            p.type = 1;
        }
        t.parts.insert(t.parts.end(), more.begin(), more.end());
        return t;
    }

    void check_templates() const {
        const auto count = [](const text_template& t, kind what) {
            return std::count_if(t.parts.begin(), t.parts.end(),
                                 [&](const template_part& p) { return p.what == what; });
        };
        const bool single =
            count(made_->single, kind::first) == 1 && count(made_->single, kind::second) == 0;
        const bool pair =
            count(made_->pair, kind::first) == 1 && count(made_->pair, kind::second) == 1;
        if (!single || !pair) fail(file_, "its post_processor does not have each text once");
        if (made_->single.tokens() == 0)
            fail(file_, "its post_processor puts no token around a text; an encoder needs one");
        constexpr std::size_t most = 64;
        if (made_->pair.tokens() > most)
            fail(file_, "its post_processor puts ", made_->pair.tokens(),
                 " tokens around a pair, "
                 "more than ",
                 most);
    }

    /// Where both say how a text is normalized, they must say the same.
    static void check_against(const settings& beside, const settings& given) {
        const settings normalizer = given.object("normalizer");
        if (normalizer.text("type", "") != "BertNormalizer") return;
        const bool lower_case = normalizer.flag("lowercase", true);
        const auto check = [&](const char* key, bool here) {
            if (beside.flag(key, here) != here)
                fail(beside.file(), key, " is ", here ? "false" : "true",
                     ", in tokenizer.json it is ", here ? "true" : "false",
                     ": remove the wrong one of them");
        };
        check("do_lower_case", lower_case);
        check("strip_accents", normalizer.flag("strip_accents", lower_case));
        check("tokenize_chinese_chars", normalizer.flag("handle_chinese_chars", true));
    }

    std::filesystem::path file_;
    const config& config_;
    std::unique_ptr<pipeline> made_;
};

} // namespace

std::unique_ptr<pipeline> read_tokenizer_json(const std::filesystem::path& folder,
                                              const config& c) {
    return reader(folder, c).made();
}

} // namespace encoder::detail
