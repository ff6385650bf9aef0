// Text files as a model's tokens, and how well it predicts them.
#pragma once

#include "model.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace language {

/// A file's tokenizer. Throws encoder::file_error as tokenizer does, and where tokens have no embedding.
tokenizer read_tokenizer(const gguf_file& file, const shape& config);

/// What every text of the model begins with: a token, or none. Throws encoder::file_error where the
/// file names one that is none.
std::vector<std::int32_t> beginning_of(const gguf_file& file, const tokenizer& words);
/// A text behind it.
std::vector<std::int32_t> behind(std::vector<std::int32_t> begin,
                                 const std::vector<std::int32_t>& text);

/// use(a line of a file, its tokens behind `begin`) for each, as long as that returns true. Throws
/// encoder::file_error as encoder::for_documents does, and for a line that cannot be cut.
void for_texts(const std::filesystem::path& from, const tokenizer& words,
               const std::vector<std::int32_t>& begin,
               const std::function<bool(const std::string&, std::vector<std::int32_t>)>& use);

struct document {
    std::string text;
    std::vector<std::int32_t> tokens;
};

/// Up to `count` of a file's lines, as tokens behind `begin`: of `shortest` or more, the first
/// `longest` of them. Throws encoder::file_error, also where there is no such line.
std::vector<document> read_documents(const std::filesystem::path& from, const tokenizer& words,
                                     const std::vector<std::int32_t>& begin, std::size_t count,
                                     std::size_t shortest, std::size_t longest);

/// How well a model predicts texts, each behind the other.
class prediction {
  public:
    /// The names of both files are for errors.
    prediction(std::filesystem::path model, std::filesystem::path texts)
        : model_(std::move(model)), texts_(std::move(texts)) {}
    /// -log p of the next text's tokens behind its first one. Throws encoder::file_error if one is no
    /// number.
    void add(const std::vector<double>& losses);
    const std::vector<double>& losses() const { return means_; } ///< means of texts
    /// Of all texts' tokens alike. Throws encoder::file_error if it is no number.
    double perplexity() const;

  private:
    std::filesystem::path model_, texts_;
    std::vector<double> means_;
    double sum_ = 0, predicted_ = 0;
};

/// The mean of some numbers, and two standard errors of it; NaN of one.
std::pair<double, double> mean_of(const std::vector<double>& x);
/// With its error, if that is known.
std::string with_error(double mean, double error);
/// In percent, by how much more than with `whole` perplexities are, the mean over texts, whose mean
/// losses these are.
std::string rise_of(const std::vector<double>& losses, const std::vector<double>& whole);

} // namespace language
