#include "tokenizer.hpp"
#include "scored_pairs.hpp"

#include "encoder/files/settings.hpp"
#include "encoder/text/added_tokens.hpp"
#include "encoder/text/normalize.hpp"
#include "encoder/text/split.hpp"
#include "encoder/text/subwords.hpp"
#include "encoder/text/unicode.hpp"

#include <array>
#include <functional>
#include <stdexcept>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace language {
namespace {

using namespace encoder::detail;
using nlohmann::json;

/// GGUF's.
enum type : std::uint64_t { normal = 1, unknown, control, user_defined, unused, byte };

/// GPT-2's letters for bytes, and back.
class letters {
  public:
    letters() {
        for (std::size_t byte = 0; byte < of_.size(); ++byte) {
            of_[byte] = visible_bytes(std::string(1, static_cast<char>(byte)));
            bytes_.emplace(of_[byte], static_cast<char>(byte));
        }
    }
    const std::array<std::string, 256>& all() const { return of_; }

    /// False where a character stands for no byte.
    bool read(const std::string& token, std::string& bytes) const {
        for (std::size_t from = 0, to = 0; from < token.size(); from = to) {
            next_character(token, to);
            const auto found = bytes_.find(token.substr(from, to - from));
            if (found == bytes_.end()) return false;
            bytes += found->second;
        }
        return true;
    }

  private:
    std::array<std::string, 256> of_;
    std::unordered_map<std::string, char> bytes_;
};

/// How texts become words.
struct cutting {
    const char* pre;    ///< in tokenizer.ggml.pre
    const char* digits; ///< how many are a piece, of the expression below; null: words are GPT-2's
    bool single_digits; ///< each of its own, before words are looked for
    bool to_nfc;        ///< texts, before all else
    bool whole_words;   ///< become tokens of their name, whatever merges make of them
    bool has_beginning; ///< where the file does not say
};
constexpr cutting cuttings[] = {
    {"gpt-2", nullptr, false, false, false, false},
    {"smollm", nullptr, true, false, false, false},
    {"llama-bpe", R"(\p{N}{1,3})", false, false, true, true},
    {"qwen2", R"(\p{N})", false, true, false, false},
};

const cutting& cutting_of(const std::filesystem::path& file, const std::string& pre) {
    for (const cutting& c : cuttings)
        if (pre == c.pre) return c;
    fail(file, "tokenizer.ggml.pre is '", pre, "', not gpt-2, smollm, llama-bpe or qwen2");
}

splitter make_split(const std::filesystem::path& file, const cutting& how) {
    json steps = json::array();
    if (how.single_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    if (how.digits) {
        const std::string expression = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" +
                                       std::string(how.digits) +
                                       R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
        steps.push_back(
            {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}});
    }
    steps.push_back(
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", how.digits == nullptr}});
    return make_splitter(settings(file, {{"type", "Sequence"}, {"pretokenizers", steps}}));
}

void check_merges(const vocabulary& from) {
    std::unordered_set<std::string_view> known;
    for (const std::string& merge : from.merges) {
        if (find_invalid(merge) != merge.npos)
            fail(from.file, "its merge ", known.size(), " is not UTF-8");
        // Readers differ in which of both counts.
        if (!known.insert(merge).second) fail(from.file, "has the merge '", merge, "' twice");
    }
}

constexpr const char* space = "\xe2\x96\x81"; ///< in SentencePiece's tokens

std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
    std::string made;
    for (std::size_t begin = 0;;) {
        const std::size_t found = text.find(what, begin);
        made += text.substr(begin, found - begin);
        if (found == text.npos) return made;
        made += by;
        begin = found + what.size();
    }
}

/// The name of SentencePiece's token of a byte.
std::string name_of(unsigned byte) {
    constexpr const char* digits = "0123456789ABCDEF";
    return {'<', '0', 'x', digits[byte / 16], digits[byte % 16], '>'};
}

/// Makes ids of text between tokens that stand for themselves.
using encoding = std::function<void(std::string_view, bool goes_on, std::vector<std::int32_t>&)>;

class byte_level {
  public:
    /// Keeps the address of `ids`.
    byte_level(const vocabulary& from, const word_ids& ids) : ids_(ids) {
        const cutting& how = cutting_of(from.file, from.pre);
        if (how.to_nfc) normalize_ = make_normalizer(settings(from.file, {{"type", "NFC"}}));
        split_ = make_split(from.file, how);
        const letters written;
        for (const std::string& letter : written.all()) has_gaps_ |= ids.count(letter) == 0;
        check_merges(from);
        model_ = make_byte_pairs(settings(from.file, {{"ignore_merges", how.whole_words}}), ids,
                                 json(from.merges));
    }

    void append(std::string_view text, bool, std::vector<std::int32_t>& to) const {
        std::vector<piece> pieces;
        piece whole{std::string(text), false, {}};
        if (normalize_) normalize_(whole.text, whole.from);
        split_(std::move(whole), pieces);
        token_list list{to, nullptr};
        for (const piece& p : pieces)
            if (has_gaps_)
                append_runs(p.text, list);
            else
                model_->append(p.text, list);
    }

  private:
    /// The model leaves out letters that it does not know, as if their neighbours were beside each
    /// other.
    void append_runs(const std::string& word, token_list& to) const {
        std::size_t begin = 0;
        const auto end_run = [&](std::size_t end) {
            if (begin < end) model_->append(word.substr(begin, end - begin), to);
        };
        for (std::size_t from = 0, behind = 0; from < word.size(); from = behind) {
            next_character(word, behind);
            if (ids_.count(word.substr(from, behind - from)) > 0) continue;
            end_run(from);
            begin = behind;
        }
        end_run(word.size());
    }

    const word_ids& ids_;
    bool has_gaps_ = false; ///< not every byte has a token
    normalizer normalize_;  ///< or none
    splitter split_;
    std::unique_ptr<subwords> model_;
};

class scored {
  public:
    scored(const vocabulary& from, const word_ids& ids)
        : space_before_(from.space_before), pairs_(tokens_of(from), bytes_of(from, ids)) {}

    void append(std::string_view text, bool goes_on, std::vector<std::int32_t>& to) const {
        const std::string written =
            (space_before_ && !goes_on ? space : "") + replaced(text, " ", space);
        check_growth(written.size());
        pairs_.append(written, to);
    }

  private:
    /// Those that text becomes.
    static std::vector<scored_pairs::token> tokens_of(const vocabulary& from) {
        if (from.scores.size() != from.tokens.size())
            fail(from.file, "has ", from.tokens.size(), " tokens, and scores of ",
                 from.scores.size());
        std::vector<scored_pairs::token> made;
        for (std::size_t i = 0; i < from.tokens.size(); ++i)
            if (from.types[i] == normal || from.types[i] == user_defined || from.types[i] == unused)
                made.push_back({from.tokens[i], static_cast<std::int32_t>(i), from.scores[i]});
        return made;
    }
    static std::array<std::int32_t, 256> bytes_of(const vocabulary& from, const word_ids& ids) {
        std::array<std::int32_t, 256> all{};
        for (unsigned b = 0; b < all.size(); ++b) {
            const auto found = ids.find(name_of(b));
            if (found == ids.end())
                fail(from.file, "has no token ", name_of(b),
                     "; vocabularies of SentencePiece are read where each byte has one");
            all[b] = found->second;
        }
        return all;
    }

    bool space_before_;
    scored_pairs pairs_;
};

template <class Made>
encoding make_encoding(const vocabulary& from, const word_ids& ids) {
    return [made = std::make_shared<const Made>(from, ids)](std::string_view text, bool goes_on,
                                                            std::vector<std::int32_t>& to) {
        made->append(text, goes_on, to);
    };
}

} // namespace

struct tokenizer::parts {
    word_ids ids;
    std::vector<std::string> bytes;  ///< that ids stand for; of control tokens their texts
    std::vector<bool> is_control;    ///< by id
    added_tokens always, if_control; ///< that stand for themselves; the latter are all
    encoding plain;                  ///< of what is between them

    explicit parts(const vocabulary& from) {
        read_tokens(from);
        plain = from.is_scored ? make_encoding<scored>(from, ids)
                               : make_encoding<byte_level>(from, ids);
    }

  private:
    void read_tokens(const vocabulary& from) {
        if (from.tokens.empty()) fail(from.file, "has no tokens");
        if (from.types.size() != from.tokens.size())
            fail(from.file, "has ", from.tokens.size(), " tokens, and types of ",
                 from.types.size());
        const letters written;
        std::vector<added_token> user, all;
        for (std::size_t i = 0; i < from.tokens.size(); ++i) {
            const std::string& token = from.tokens[i];
            const std::uint64_t kind = from.types[i];
            const auto id = static_cast<std::int32_t>(i);
            if (token.empty()) fail(from.file, "its token ", i, " is empty");
            if (find_invalid(token) != token.npos)
                fail(from.file, "its token ", i, " is not UTF-8");
            if (const std::uint64_t last = from.is_scored ? byte : unused;
                kind < normal || kind > last)
                fail(from.file, "its token '", token, "' has the type ", kind,
                     ", not one from 1 to ", last, ", as tokens of ",
                     from.is_scored ? "SentencePiece" : "byte-level BPE", " have");
            if (from.is_scored) check_length(from.file, token);
            if (!ids.emplace(token, id).second)
                fail(from.file, "has the token '", token, "' twice, with the ids ", ids.at(token),
                     " and ", id);
            std::string& stands_for = bytes.emplace_back();
            if (from.is_scored && (kind == normal || kind == unused))
                stands_for = replaced(token, space, " ");
            else if (kind == normal && !written.read(token, stands_for))
                fail(from.file, "its token '", token, "' has a character that is no byte's letter");
            if (kind == byte) stands_for = byte_of(from.file, token);
            is_control.push_back(kind == control || kind == unknown);
            if (kind == normal || kind == unused || kind == byte) continue;
            check_length(from.file, token);
            stands_for = token;
            added_token added;
            added.content = token;
            added.id = id;
            if (kind == user_defined) user.push_back(added);
            all.push_back(std::move(added));
        }
        always = added_tokens(std::move(user));
        if_control = added_tokens(std::move(all));
    }

    static char byte_of(const std::filesystem::path& file, const std::string& token) {
        for (unsigned b = 0; b < 256; ++b)
            if (token == name_of(b)) return static_cast<char>(b);
        fail(file, "its token '", token, "' is that of a byte, which would be named as <0x0A> is");
    }
};

namespace {

bool is_scored(const gguf_file& file) {
    const std::string kind = file.text("tokenizer.ggml.model");
    if (kind != "gpt2" && kind != "llama")
        fail(file.path(), "tokenizer.ggml.model is '", kind, "', not gpt2 or llama");
    return kind == "llama";
}

} // namespace

vocabulary read_vocabulary(const gguf_file& file) {
    vocabulary v{file.path(), file.texts("tokenizer.ggml.tokens"),
                 file.numbers("tokenizer.ggml.token_type")};
    v.is_scored = is_scored(file);
    if (v.is_scored) {
        v.scores = file.reals("tokenizer.ggml.scores");
        v.space_before = file.flag("tokenizer.ggml.add_space_prefix", true);
    } else {
        v.merges = file.texts("tokenizer.ggml.merges");
        v.pre = file.text("tokenizer.ggml.pre");
    }
    return v;
}

bool has_beginning(const gguf_file& file) {
    return file.flag("tokenizer.ggml.add_bos_token",
                     is_scored(file) ||
                         cutting_of(file.path(), file.text("tokenizer.ggml.pre")).has_beginning);
}

tokenizer::tokenizer(const vocabulary& from) : parts_(std::make_shared<const parts>(from)) {}

std::vector<std::int32_t> tokenizer::encode(const std::string& text, bool control,
                                            bool goes_on) const {
    if (const std::size_t bad = find_invalid(text); bad != text.npos)
        throw std::invalid_argument("text is not valid UTF-8 at byte " + std::to_string(bad));
    std::vector<std::int32_t> ids;
    const added_tokens& own = control ? parts_->if_control : parts_->always;
    for (const added_tokens::segment& s : own.find(text))
        if (s.id == added_tokens::none)
            parts_->plain(std::string_view(text).substr(s.begin, s.end - s.begin),
                          goes_on && s.begin == 0, ids);
        else
            ids.push_back(s.id);
    return ids;
}

std::string tokenizer::decode(const std::vector<std::int32_t>& ids, bool control) const {
    std::string text;
    for (const std::int32_t id : ids) {
        const auto at = static_cast<std::size_t>(id);
        if (id < 0 || at >= size())
            throw std::invalid_argument("there is no token " + std::to_string(id) +
                                        ", the vocabulary has " + std::to_string(size()));
        if (control || !parts_->is_control[at]) text += parts_->bytes[at];
    }
    return text;
}

std::int32_t tokenizer::id_of(const std::string& token) const {
    const auto found = parts_->ids.find(token);
    if (found == parts_->ids.end())
        throw std::invalid_argument("the vocabulary has no token '" + token + "'");
    return found->second;
}

std::size_t tokenizer::size() const {
    return parts_->bytes.size();
}

} // namespace language
