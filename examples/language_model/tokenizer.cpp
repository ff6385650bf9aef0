#include "tokenizer.hpp"

#include "encoder/files/settings.hpp"
#include "encoder/text/added_tokens.hpp"
#include "encoder/text/normalize.hpp"
#include "encoder/text/split.hpp"
#include "encoder/text/subwords.hpp"
#include "encoder/text/unicode.hpp"

#include <array>
#include <stdexcept>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace language {
namespace {

using namespace encoder::detail;
using nlohmann::json;

/// GGUF's.
enum type : std::uint64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5 };

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

} // namespace

struct tokenizer::parts {
    word_ids ids;
    std::vector<std::string> bytes;  ///< that ids stand for; of control tokens their texts
    std::vector<bool> is_control;    ///< by id
    added_tokens always, if_control; ///< that stand for themselves; the latter are all
    bool has_gaps = false;           ///< not every byte has a token
    normalizer normalize;            ///< or none
    splitter split;
    std::unique_ptr<subwords> model; ///< knows the address of `ids`

    explicit parts(const vocabulary& from) {
        const cutting& how = cutting_of(from.file, from.pre);
        if (how.to_nfc) normalize = make_normalizer(settings(from.file, {{"type", "NFC"}}));
        split = make_split(from.file, how);
        read_tokens(from);
        check_merges(from);
        model = make_byte_pairs(settings(from.file, {{"ignore_merges", how.whole_words}}), ids,
                                json(from.merges));
    }

    void append(std::string_view text, std::vector<std::int32_t>& to) const {
        std::vector<piece> pieces;
        piece whole{std::string(text), false, {}};
        if (normalize) normalize(whole.text, whole.from);
        split(std::move(whole), pieces);
        token_list list{to, nullptr};
        for (const piece& p : pieces)
            if (has_gaps)
                append_runs(p.text, list);
            else
                model->append(p.text, list);
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
            if (kind < normal || kind > unused)
                fail(from.file, "its token '", token, "' has the type ", kind,
                     ", not one from 1 to 5, as tokens of byte-level BPE have");
            if (!ids.emplace(token, id).second)
                fail(from.file, "has the token '", token, "' twice, with the ids ", ids.at(token),
                     " and ", id);
            std::string& stands_for = bytes.emplace_back();
            if (kind == normal && !written.read(token, stands_for))
                fail(from.file, "its token '", token, "' has a character that is no byte's letter");
            is_control.push_back(kind == control || kind == unknown);
            if (kind == normal || kind == unused) continue;
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
        for (const std::string& letter : written.all()) has_gaps |= ids.count(letter) == 0;
    }

    /// The model leaves out letters that it does not know, as if their neighbours were beside each
    /// other.
    void append_runs(const std::string& word, token_list& to) const {
        std::size_t begin = 0;
        const auto end_run = [&](std::size_t end) {
            if (begin < end) model->append(word.substr(begin, end - begin), to);
        };
        for (std::size_t from = 0, behind = 0; from < word.size(); from = behind) {
            next_character(word, behind);
            if (ids.count(word.substr(from, behind - from)) > 0) continue;
            end_run(from);
            begin = behind;
        }
        end_run(word.size());
    }
};

vocabulary read_vocabulary(const gguf_file& file) {
    if (const std::string kind = file.text("tokenizer.ggml.model"); kind != "gpt2")
        fail(file.path(), "tokenizer.ggml.model is '", kind, "', not gpt2");
    return {file.path(), file.texts("tokenizer.ggml.tokens"),
            file.numbers("tokenizer.ggml.token_type"), file.texts("tokenizer.ggml.merges"),
            file.text("tokenizer.ggml.pre")};
}

bool has_beginning(const gguf_file& file) {
    return file.flag("tokenizer.ggml.add_bos_token",
                     cutting_of(file.path(), file.text("tokenizer.ggml.pre")).has_beginning);
}

tokenizer::tokenizer(const vocabulary& from) : parts_(std::make_shared<const parts>(from)) {}

std::vector<std::int32_t> tokenizer::encode(const std::string& text, bool control) const {
    if (const std::size_t bad = find_invalid(text); bad != text.npos)
        throw std::invalid_argument("text is not valid UTF-8 at byte " + std::to_string(bad));
    std::vector<std::int32_t> ids;
    const added_tokens& own = control ? parts_->if_control : parts_->always;
    for (const added_tokens::segment& s : own.find(text))
        if (s.id == added_tokens::none)
            parts_->append(std::string_view(text).substr(s.begin, s.end - s.begin), ids);
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
