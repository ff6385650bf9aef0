#include "pipeline.hpp"

#include "unicode.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <utility>

namespace encoder::detail {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// The tokens around texts, of tokenizers that are files of words.
struct around {
    const char *begin, *end, *unknown, *padding, *mask;
    bool two_between;      ///< of a pair's texts
    bool mask_takes_space; ///< before it
    std::int32_t second_type;
};
constexpr around bert = {"[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", false, false, 1};
constexpr around mpnet = {"<s>", "</s>", "[UNK]", "<pad>", "<mask>", true, true, 1};
constexpr around roberta = {"<s>", "</s>", "<unk>", "<pad>", "<mask>", true, true, 0};

/// A token in tokenizer_config.json or special_tokens_map.json: a text, or an object with one.
std::string read_token(const settings& given, const char* key, const std::string& otherwise) {
    const auto found = given.all().find(key);
    if (found != given.all().end() && found->is_object())
        return given.object(key).text("content", otherwise.c_str());
    return given.text(key, otherwise.c_str());
}

class vocabulary_reader {
  public:
    vocabulary_reader(const fs::path& folder, const config& c, const around& names)
        : folder_(folder), config_(c), names_(names),
          beside_(settings::if_exists(folder / "tokenizer_config.json")),
          map_(settings::if_exists(folder / "special_tokens_map.json")),
          made_(std::make_unique<pipeline>()) {
        made_->words.resize(static_cast<std::size_t>(c.vocabulary));
    }

    std::unique_ptr<pipeline> read_word_piece() {
        const fs::path file = folder_ / "vocab.txt";
        std::istringstream lines(read_text(file));
        std::int64_t count = 0;
        bool upper_case = false;
        for (std::string word; std::getline(lines, word); ++count) {
            if (!word.empty() && word.back() == '\r') word.pop_back();
            if (count < config_.vocabulary) made_->add_word(file, word, count);
            upper_case |= has_upper_case(word);
        }
        if (count > config_.vocabulary)
            fail(file, "has ", count, " tokens, vocab_size in config.json is ", config_.vocabulary,
                 ": every token needs a row of the embeddings");

        const bool lower_case = beside_.flag("do_lower_case", !upper_case);
        made_->normalize = make_normalizer(settings(
            file, {{"type", "BertNormalizer"},
                   {"lowercase", lower_case},
                   {"strip_accents", beside_.flag("strip_accents", lower_case)},
                   {"handle_chinese_chars", beside_.flag("tokenize_chinese_chars", true)}}));
        made_->split = make_splitter(settings(file, {{"type", "BertPreTokenizer"}}));
        made_->model = make_word_piece(
            settings(file, {{"unk_token", name("unk_token", names_.unknown)}}), made_->ids);
        finish(file);
        return std::move(made_);
    }

    std::unique_ptr<pipeline> read_byte_pairs() {
        const fs::path file = folder_ / "vocab.json", merges_file = folder_ / "merges.txt";
        const json vocabulary = parse_json(file, read_text(file));
        for (const auto& [word, id] : vocabulary.items()) {
            if (!id.is_number_unsigned())
                fail(file, "gives the token '", word, "' the id ", id, ", which is none");
            made_->add_word(file, word,
                            static_cast<std::int64_t>(
                                std::min<std::uint64_t>(id.get<std::uint64_t>(), 1u << 30)));
        }
        json merges = json::array();
        std::istringstream lines(read_text(merges_file));
        for (std::string line; std::getline(lines, line);) {
            if (!line.empty() && line.back() == '\r') line.pop_back();
            if (line.empty() || line.rfind("#version", 0) == 0) continue;
            if (find_invalid(line) != line.npos)
                fail(merges_file, "is not UTF-8 behind ", merges.size(), " merges");
            merges.push_back(line);
        }
        made_->split = make_splitter(
            settings(file, {{"type", "ByteLevel"},
                            {"add_prefix_space", beside_.flag("add_prefix_space", false)}}));
        made_->model = make_byte_pairs(
            settings(merges_file, {{"unk_token", name("unk_token", names_.unknown)}}), made_->ids,
            merges);
        finish(file);
        return std::move(made_);
    }

  private:
    std::string name(const char* key, const char* otherwise) const {
        return read_token(beside_, key, read_token(map_, key, otherwise));
    }

    static bool has_upper_case(const std::string& word) {
        const bool special = word.size() > 2 && (word.back() == ']' || word.back() == '>');
        return !special &&
               std::any_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
    }

    void finish(const fs::path& file) {
        const std::string begin = name("cls_token", names_.begin),
                          end = name("sep_token", names_.end),
                          mask = name("mask_token", names_.mask);
        std::vector<added_token> all;
        const auto enter = [&](added_token token, const fs::path& from) {
            check_length(from, token.content);
            if (token.id >= config_.vocabulary)
                fail(from, "the added token '", token.content, "' has the id ", token.id,
                     ", vocab_size in config.json is ", config_.vocabulary,
                     ": every token needs a row of the embeddings");
            const auto same = std::find_if(all.begin(), all.end(), [&](const added_token& t) {
                return t.content == token.content;
            });
            if (same == all.end())
                all.push_back(std::move(token));
            else
                *same = std::move(token);
        };
        for (const std::string& content : {begin, end, name("unk_token", names_.unknown),
                                           name("pad_token", names_.padding), mask})
            if (const auto found = made_->ids.find(content); found != made_->ids.end())
                enter({content, found->second, false, names_.mask_takes_space && content == mask},
                      file);
        read_added_tokens(enter);
        read_added_decoder(enter);
        made_->set_added(file, std::move(all));

        const auto required = [&](const std::string& token) {
            const std::int32_t id = made_->find(token);
            if (id < 0) fail(file, "lacks the token ", token);
            return id;
        };
        const std::int32_t from = required(begin), to = required(end);
        made_->set_templates(from, to, names_.two_between, names_.second_type);
    }

    /// {"token": id}
    template <class Enter>
    void read_added_tokens(const Enter& enter) const {
        const auto given = settings::if_exists(folder_ / "added_tokens.json");
        for (const auto& [content, value] : given.all().items()) {
            const auto id = given.count(content.c_str(), 0, 1 << 30);
            enter({content, static_cast<std::int32_t>(given.needed(content.c_str(), id))},
                  given.file());
        }
    }

    /// {"id": {"content": "token", ...}}
    template <class Enter>
    void read_added_decoder(const Enter& enter) const {
        const settings given = beside_.object("added_tokens_decoder");
        for (const auto& [key, value] : given.all().items()) {
            const settings one = given.object(key.c_str());
            const bool digits =
                !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos;
            if (!digits)
                fail(given.file(), "added_tokens_decoder has the id '", key, "', which is none");
            enter({one.text("content", ""), static_cast<std::int32_t>(std::stol(key)),
                   one.flag("single_word", false), one.flag("lstrip", false),
                   one.flag("rstrip", false), one.flag("normalized", !one.flag("special", false))},
                  given.file());
        }
    }

    fs::path folder_;
    const config& config_;
    const around& names_;
    settings beside_, map_;
    std::unique_ptr<pipeline> made_;
};

/// The class without what says that it is the fast one.
std::string class_of(const settings& tokenizer_config) {
    std::string name = tokenizer_config.text("tokenizer_class", "");
    constexpr std::string_view fast = "Fast";
    if (name.size() > fast.size() &&
        name.compare(name.size() - fast.size(), fast.size(), fast) == 0)
        name.resize(name.size() - fast.size());
    return name;
}

template <std::size_t N>
bool is_one_of(const std::string& name, const char* const (&names)[N]) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

} // namespace

void check_class(const settings& tokenizer_config, bool has_tokenizer_json) {
    // They have no fast tokenizer, so that tokenizer.json is not theirs.
    static constexpr const char* others[] = {"BertJapaneseTokenizer", "BertweetTokenizer",
                                             "PhobertTokenizer", "TapasTokenizer"};
    static constexpr const char* of_words[] = {"",
                                               "BertTokenizer",
                                               "DistilBertTokenizer",
                                               "ElectraTokenizer",
                                               "MPNetTokenizer",
                                               "MobileBertTokenizer",
                                               "RobertaTokenizer",
                                               "DistilRobertaTokenizer"};
    const std::string name = class_of(tokenizer_config);
    if (is_one_of(name, others))
        fail(tokenizer_config.file(), "tokenizer_class is ", name,
             ", which cuts words in a way that is not possible here; take a model whose tokenizer "
             "is saved as tokenizer.json");
    if (!has_tokenizer_json && !is_one_of(name, of_words))
        fail(tokenizer_config.file(), "tokenizer_class is ", name,
             ", which is read from tokenizer.json only, and there is none; save it with "
             "transformers' fast tokenizer, which writes tokenizer.json");
    if (const std::string words = tokenizer_config.text("word_tokenizer_type", "basic");
        words != "basic")
        fail(tokenizer_config.file(), "word_tokenizer_type is ", words, ", only basic is possible");
    if (const std::string side = tokenizer_config.text("truncation_side", "right"); side != "right")
        fail(tokenizer_config.file(), "truncation_side is ", side, ", only right is possible");
}

std::unique_ptr<pipeline> read_vocabulary_files(const fs::path& folder, const config& c) {
    const std::string name = class_of(settings::if_exists(folder / "tokenizer_config.json"));
    if (is_file(folder / "vocab.txt"))
        return vocabulary_reader(folder, c, name == "MPNetTokenizer" ? mpnet : bert)
            .read_word_piece();
    if (is_file(folder / "vocab.json"))
        return vocabulary_reader(folder, c, roberta).read_byte_pairs();
    for (const char* model : {"sentencepiece.bpe.model", "spiece.model", "tokenizer.model"})
        if (is_file(folder / model))
            fail(folder / model, "is a SentencePiece model, which is not read; save the tokenizer "
                                 "with transformers' fast tokenizer, which writes tokenizer.json");
    fail(folder,
         "has no tokenizer: no tokenizer.json, no vocab.txt, no vocab.json with merges.txt");
}

} // namespace encoder::detail
