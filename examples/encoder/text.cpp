#include "text.hpp"

#include <utf8proc.h>

#include <charconv>
#include <cmath>
#include <fstream>
#include <functional>

namespace encoder {
namespace {

void check_utf8(const std::string& line, const std::filesystem::path& file, std::size_t number) {
    const auto* data = reinterpret_cast<const utf8proc_uint8_t*>(line.data());
    const auto size = static_cast<utf8proc_ssize_t>(line.size());
    for (utf8proc_ssize_t at = 0; at < size;) {
        utf8proc_int32_t code;
        const utf8proc_ssize_t step = utf8proc_iterate(data + at, size - at, &code);
        if (step < 1)
            throw file_error(file.string() + ": line " + std::to_string(number) +
                             " is not UTF-8 at byte " + std::to_string(at + 1));
        at += step;
    }
}

// Calls use(line, number) for each line that is not blank.
void for_lines(const std::filesystem::path& file,
               const std::function<void(const std::string&, std::size_t)>& use) {
    std::error_code error;
    if (std::filesystem::is_directory(file, error))
        throw file_error(file.string() + ": is a folder, not a text file");
    std::ifstream in(file, std::ios::binary);
    if (!in) throw file_error(file.string() + ": cannot be read");
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); ++number) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (number == 1 && line.compare(0, 3, "\xEF\xBB\xBF") == 0)
            line.erase(0, 3); // byte order mark
        if (line.find_first_not_of(" \t") == std::string::npos) continue;
        check_utf8(line, file, number);
        use(line, number);
    }
    if (in.bad()) throw file_error(file.string() + ": reading failed");
}

} // namespace

std::vector<std::string> read_documents(const std::filesystem::path& file) {
    std::vector<std::string> documents;
    for_lines(file, [&](const std::string& line, std::size_t) { documents.push_back(line); });
    if (documents.empty()) throw file_error(file.string() + ": holds no document");
    return documents;
}

std::vector<scored_pair> read_pairs(const std::filesystem::path& file) {
    std::vector<scored_pair> pairs;
    for_lines(file, [&](const std::string& line, std::size_t number) {
        const std::string where = file.string() + ": line " + std::to_string(number);
        const std::size_t first = line.find('\t');
        const std::size_t second = first == std::string::npos ? first : line.find('\t', first + 1);
        if (second == std::string::npos || line.find('\t', second + 1) != std::string::npos)
            throw file_error(where +
                             " does not have three columns (score, text, text) separated by tabs");
        scored_pair pair{0, line.substr(first + 1, second - first - 1), line.substr(second + 1)};
        const char* const end = line.data() + first;
        const auto [stop, code] = std::from_chars(line.data(), end, pair.score);
        if (code != std::errc() || stop != end || !std::isfinite(pair.score))
            throw file_error(where + " has the score '" + line.substr(0, first) +
                             "', which is not a number");
        pairs.push_back(std::move(pair));
    });
    if (pairs.empty()) throw file_error(file.string() + ": holds no pair");
    return pairs;
}

std::vector<sequence> tokenize(const tokenizer& words, const std::vector<std::string>& texts,
                               std::size_t max_tokens) {
    std::vector<sequence> result;
    for (const std::string& text : texts) result.push_back(words.encode(text, max_tokens));
    return result;
}

std::vector<batch> make_batches(const std::vector<sequence>& from, std::int64_t tokens,
                                std::int64_t sequences) {
    std::vector<batch> batches;
    for (const sequence& s : from) {
        if (batches.empty() || batches.back().sequences() == sequences ||
            batches.back().tokens() + static_cast<std::int64_t>(s.size()) > tokens)
            batches.emplace_back();
        batches.back().append(s);
    }
    return batches;
}

} // namespace encoder
