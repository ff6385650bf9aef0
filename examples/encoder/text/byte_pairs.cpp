#include "subwords.hpp"
#include "unicode.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <tuple>

namespace encoder::detail {
namespace {

class byte_pairs final : public subwords {
    using json = nlohmann::json;

  public:
    byte_pairs(const settings& given, const word_ids& ids, const json& merges)
        : ids_(ids), before_(given.text("continuing_subword_prefix", "")),
          after_(given.text("end_of_word_suffix", "")),
          whole_words_(given.flag("ignore_merges", false)),
          fuse_unknown_(given.flag("fuse_unk", false)),
          byte_fallback_(given.flag("byte_fallback", false)) {
        if (given.number("dropout", 0, 1).value_or(0) != 0)
            fail(given.file(), "model.dropout is above 0, so that tokens are drawn by chance; set "
                               "it to null");
        if (const std::string unknown = given.text("unk_token", ""); !unknown.empty())
            unknown_ = needed(given, unknown);
        for (const json& merge : merges) {
            const auto [left, right] = read_merge(given, merge);
            const std::string made = left + right.substr(std::min(right.size(), before_.size()));
            merges_[key(needed(given, left), needed(given, right))] = {
                static_cast<std::int32_t>(merges_.size()), needed(given, made)};
        }
    }

    void append(const std::string& word, token_list& to) const override {
        if (whole_words_)
            if (const auto found = ids_.find(word); found != ids_.end())
                return to.add(found->second, {0, word.size()});
        std::vector<symbol> symbols = characters(word);
        merge(symbols);
        for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = at(symbols, i).next)
            to.add(at(symbols, i).id, at(symbols, i).place());
    }

  private:
    /// Of a list; what has gone has id -1.
    struct symbol {
        std::int32_t id, previous, next;
        std::int32_t begin, end; // of its place
        text_range place() const {
            return {static_cast<std::size_t>(begin), static_cast<std::size_t>(end)};
        }
    };
    struct merged {
        std::int32_t rank, id;
    };

    static symbol& at(std::vector<symbol>& all, std::int32_t i) {
        return all[static_cast<std::size_t>(i)];
    }
    static std::uint64_t key(std::int32_t left, std::int32_t right) {
        return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
    }

    std::int32_t needed(const settings& given, const std::string& token) const {
        const auto found = ids_.find(token);
        if (found == ids_.end())
            fail(given.file(), "merges or names the token '", token,
                 "', which is not in its vocabulary");
        return found->second;
    }

    static std::pair<std::string, std::string> read_merge(const settings& given,
                                                          const json& merge) {
        if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
            return {merge[0].get<std::string>(), merge[1].get<std::string>()};
        if (merge.is_string()) {
            const auto& both = merge.get_ref<const std::string&>();
            const std::size_t space = both.find(' ');
            if (space != both.npos && both.find(' ', space + 1) == both.npos)
                return {both.substr(0, space), both.substr(space + 1)};
        }
        fail(given.file(), "has the merge ", merge, ", which is not two tokens");
    }

    std::vector<symbol> characters(const std::string& word) const {
        std::vector<symbol> all;
        const auto add = [&](std::int32_t id, text_range place) {
            const auto here = static_cast<std::int32_t>(all.size());
            if (here > 0) all.back().next = here;
            all.push_back({id, here - 1, -1, static_cast<std::int32_t>(place.begin),
                           static_cast<std::int32_t>(place.end)});
        };
        text_range pending{0, 0}; // an unknown token, if any, which those that follow may join
        const auto add_pending = [&] {
            if (pending.end > 0) add(unknown_.value(), pending);
        };
        for (std::size_t from = 0, to = 0; from < word.size(); from = to) {
            next_character(word, to);
            const std::string character = word.substr(from, to - from);
            std::string name = from > 0 ? before_ + character : character;
            if (to == word.size()) name += after_;
            if (const auto found = ids_.find(name); found != ids_.end()) {
                add_pending();
                pending = {0, 0};
                add(found->second, {from, to});
                continue;
            }
            std::vector<std::int32_t> bytes;
            if (byte_fallback_ && append_bytes(ids_, name, bytes)) {
                for (const std::int32_t id : bytes) add(id, {from, to});
                continue;
            }
            if (!unknown_) continue;
            if (!fuse_unknown_) add_pending();
            pending = {fuse_unknown_ && pending.end > 0 ? pending.begin : from, to};
        }
        add_pending();
        return all;
    }

    /// The pair of the lowest rank, and of these the first, as long as there is one.
    void merge(std::vector<symbol>& symbols) const {
        struct candidate {
            std::int32_t rank, left, id;
            bool operator>(const candidate& other) const {
                return std::tie(rank, left) > std::tie(other.rank, other.left);
            }
        };
        std::priority_queue<candidate, std::vector<candidate>, std::greater<>> open;
        const auto offer = [&](std::int32_t left) {
            if (left < 0 || at(symbols, left).next < 0) return;
            const auto found =
                merges_.find(key(at(symbols, left).id, at(symbols, at(symbols, left).next).id));
            if (found != merges_.end()) open.push({found->second.rank, left, found->second.id});
        };
        for (std::size_t i = 0; i < symbols.size(); ++i) offer(static_cast<std::int32_t>(i));
        while (!open.empty()) {
            const candidate c = open.top();
            open.pop();
            symbol& left = at(symbols, c.left);
            if (left.id < 0 || left.next < 0) continue;
            symbol& right = at(symbols, left.next);
            const auto found = merges_.find(key(left.id, right.id));
            if (found == merges_.end() || found->second.id != c.id) continue; // others by now
            left.id = c.id;
            left.begin = std::min(left.begin, right.begin);
            left.end = std::max(left.end, right.end);
            left.next = right.next;
            right.id = -1;
            if (left.next >= 0) at(symbols, left.next).previous = c.left;
            offer(left.previous);
            offer(c.left);
        }
    }

    const word_ids& ids_; // outlives this
    std::string before_, after_;
    bool whole_words_, fuse_unknown_, byte_fallback_;
    std::optional<std::int32_t> unknown_;
    std::unordered_map<std::uint64_t, merged> merges_; // by the ids of both
};

} // namespace

bool append_bytes(const word_ids& ids, const std::string& text, std::vector<std::int32_t>& to) {
    const std::size_t before = to.size();
    for (const char c : text) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(c) & 0xffu);
        const auto found = ids.find(name);
        if (found == ids.end()) {
            to.resize(before);
            return false;
        }
        to.push_back(found->second);
    }
    return true;
}

std::unique_ptr<subwords> make_byte_pairs(const settings& given, const word_ids& ids,
                                          const nlohmann::json& merges) {
    return std::make_unique<byte_pairs>(given, ids, merges);
}

} // namespace encoder::detail
