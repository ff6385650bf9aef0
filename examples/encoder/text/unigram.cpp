#include "prefixes.hpp"
#include "subwords.hpp"
#include "unicode.hpp"

#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

namespace encoder::detail {
namespace {

class unigram final : public subwords {
    using json = nlohmann::json;

  public:
    unigram(const settings& given, const word_ids& ids, const json& vocabulary)
        : ids_(ids), byte_fallback_(given.flag("byte_fallback", false)) {
        double least = std::numeric_limits<double>::infinity();
        std::vector<prefixes::entry> tokens;
        for (const json& entry : vocabulary) {
            const double score = entry[1].get<double>();
            if (!std::isfinite(score) || std::abs(score) > 1e30)
                fail(given.file(), "gives the token ", entry[0], " the score ", score);
            check_length(given.file(), entry[0].get_ref<const std::string&>());
            tokens.emplace_back(entry[0].get<std::string>(),
                                static_cast<std::int32_t>(scores_.size()));
            scores_.push_back(score);
            least = std::min(least, score);
        }
        constexpr double penalty = 10;
        unknown_score_ = least - penalty;
        const auto most = static_cast<Eigen::Index>(scores_.size()) - 1;
        if (const auto id = given.count("unk_id", 0, most))
            unknown_ = static_cast<std::int32_t>(*id);
        tokens_ = prefixes(std::move(tokens));
    }

    void append(const std::string& text, token_list& to) const override {
        const std::vector<node> best = best_cuts(text);
        std::vector<text_range> tokens; // from the last to the first
        bool joins = false;             // unknown tokens beside each other are one
        for (std::size_t end = text.size(); end > 0; end = best[end].begin) {
            const bool is_unknown = unknown_ && best[end].id == *unknown_;
            if (joins && is_unknown)
                tokens.back().begin = best[end].begin;
            else
                tokens.push_back({best[end].begin, end});
            joins = is_unknown;
        }
        for (std::size_t i = tokens.size(); i-- > 0;) append_token(text, tokens[i], to);
    }

  private:
    static constexpr std::int32_t none = -1;
    /// The best way to an end: its sum of scores, and its last token.
    struct node {
        double score = 0;
        std::size_t begin = 0;
        std::int32_t id = none;
        bool is_there = false;
    };

    std::vector<node> best_cuts(const std::string& text) const {
        std::vector<node> best(text.size() + 1);
        for (std::size_t at = 0, next = 0; at < text.size(); at = next) {
            next_character(text, next);
            const double here = best[at].score;
            const auto offer = [&](std::size_t end, double score, std::int32_t id) {
                if (!best[end].is_there || here + score > best[end].score)
                    best[end] = {here + score, at, id, true};
            };
            bool one_character = false;
            tokens_.for_each(std::string_view(text).substr(at),
                             [&](std::size_t length, std::int32_t id) {
                                 offer(at + length, scores_[static_cast<std::size_t>(id)], id);
                                 one_character |= at + length == next;
                             });
            if (one_character) continue;
            if (!unknown_)
                throw std::invalid_argument("the tokenizer has no token for '" +
                                            text.substr(at, next - at) + "' and no unknown token");
            offer(next, unknown_score_, *unknown_);
        }
        return best;
    }

    void append_token(const std::string& text, text_range at, token_list& to) const {
        const std::string token = text.substr(at.begin, at.end - at.begin);
        std::vector<std::int32_t> bytes;
        if (const auto found = ids_.find(token); found != ids_.end())
            to.add(found->second, at);
        else if (byte_fallback_ && append_bytes(ids_, token, bytes))
            for (const std::int32_t id : bytes) {
                to.add(id, {at.begin, at.begin + 1});
                ++at.begin;
            }
        else
            to.add(unknown_.value(), at);
    }

    const word_ids& ids_; // outlives this
    std::vector<double> scores_;
    prefixes tokens_;
    std::optional<std::int32_t> unknown_;
    double unknown_score_;
    bool byte_fallback_;
};

} // namespace

std::unique_ptr<subwords> make_unigram(const settings& given, const word_ids& ids,
                                       const nlohmann::json& vocabulary) {
    return std::make_unique<unigram>(given, ids, vocabulary);
}

} // namespace encoder::detail
