#include "texts.hpp"

#include "encoder/text/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace language {

using token_ids = std::vector<std::int32_t>;

tokenizer read_tokenizer(const gguf_file& file, const shape& config) {
    tokenizer words(read_vocabulary(file));
    if (words.size() > static_cast<std::size_t>(config.vocabulary))
        throw file_error(fmt::format("{}: it names {} tokens, of which {} have embeddings",
                                     file.path().string(), words.size(), config.vocabulary));
    return words;
}

token_ids beginning_of(const gguf_file& file, const tokenizer& words) {
    constexpr const char* key = "tokenizer.ggml.bos_token_id";
    if (!has_beginning(file)) return {};
    const std::uint64_t id = file.number(key);
    if (id >= words.size())
        throw file_error(fmt::format("{}: {} is {}, and there are {} tokens", file.path().string(),
                                     key, id, words.size()));
    return {static_cast<std::int32_t>(id)};
}

token_ids behind(token_ids begin, const token_ids& text) {
    begin.insert(begin.end(), text.begin(), text.end());
    return begin;
}

void for_texts(const std::filesystem::path& from, const tokenizer& words, const token_ids& begin,
               const std::function<bool(const std::string&, token_ids)>& use) {
    encoder::for_documents(from, [&](const std::string& line, std::size_t number) {
        token_ids text;
        try {
            text = behind(begin, words.encode(line));
        } catch (const std::invalid_argument& error) {
            throw file_error(fmt::format("{}: line {}: {}", from.string(), number, error.what()));
        }
        return use(line, std::move(text));
    });
}

std::vector<document> read_documents(const std::filesystem::path& from, const tokenizer& words,
                                     const token_ids& begin, std::size_t count,
                                     std::size_t shortest, std::size_t longest) {
    std::vector<document> found;
    for_texts(from, words, begin, [&](const std::string& line, token_ids text) {
        text.resize(std::min(text.size(), longest));
        if (text.size() >= shortest) found.push_back({line, std::move(text)});
        return found.size() < count;
    });
    if (found.empty())
        throw file_error(
            fmt::format("{}: no text has {} tokens or more, of which the first {} are read",
                        from.string(), shortest, longest));
    return found;
}

void prediction::add(const std::vector<double>& losses) {
    for (std::size_t i = 0; i < losses.size(); ++i)
        if (!std::isfinite(losses[i]))
            throw file_error(
                fmt::format("{}: what it predicts behind token {} of text {} of {} is no "
                            "number: its weights are too large",
                            model_.string(), i, means_.size() + 1, texts_.string()));
    const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
    const auto count = static_cast<double>(losses.size());
    means_.push_back(sum / count);
    sum_ += sum;
    predicted_ += count;
}
double prediction::perplexity() const {
    const double found = std::exp(sum_ / predicted_);
    if (!std::isfinite(found))
        throw file_error(
            fmt::format("{}: the perplexity of {} is no number: its weights are too large",
                        model_.string(), texts_.string()));
    return found;
}

std::pair<double, double> mean_of(const std::vector<double>& x) {
    const auto n = static_cast<double>(x.size());
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
    double square = 0;
    for (const double y : x) square += (y - mean) * (y - mean);
    return {mean, 2 * std::sqrt(square / (n - 1) / n)};
}

std::string with_error(double mean, double error) {
    return std::isfinite(error) ? fmt::format("{:.1f} ± {:.1f}", mean, error)
                                : fmt::format("{:.1f}", mean);
}

std::string rise_of(const std::vector<double>& losses, const std::vector<double>& whole) {
    std::vector<double> more(losses.size());
    std::transform(losses.begin(), losses.end(), whole.begin(), more.begin(), std::minus<>());
    const auto [mean, error] = mean_of(more);
    return with_error(100 * std::expm1(mean), 100 * std::exp(mean) * error);
}

} // namespace language
