#include "text.hpp"

#include "encoder/files/characters.hpp"
#include "encoder/files/file.hpp"
#include "encoder/report/report.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <stdexcept>

namespace encoder {
namespace {

using detail::fail;

void check_utf8(const std::string& line, const std::filesystem::path& file, std::size_t number) {
    std::size_t at = 1;
    for_characters(line, [&](std::string_view bytes, utf8proc_int32_t character) {
        if (character < 0) fail(file, "line ", number, " is not UTF-8 at byte ", at);
        at += bytes.size();
    });
}

/// More than any model reads of a text, and little enough for what tokenizers make of it.
constexpr std::size_t longest_line = 1 << 22;

/// The next line, or what of it fits into `room`, and whether that is all; false behind the last one.
bool read_line(std::istream& in, std::vector<char>& room, std::string& line, bool& whole) {
    in.getline(room.data(), static_cast<std::streamsize>(room.size()));
    line.assign(room.data(), static_cast<std::size_t>(in.gcount()) - (in.good() ? 1 : 0));
    whole = in.good() || in.eof();
    if (whole) return !in.fail();
    if (in.bad() || line.empty()) return false;
    in.clear();
    in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    in.clear(in.rdstate() & ~std::ios::failbit);
    for (int i = 0; i < 3 && (static_cast<unsigned char>(line.back()) & 0xc0) == 0x80; ++i)
        line.pop_back();
    line.pop_back(); // what may be a part of a character
    return true;
}

/// Calls use(line, number, whether all of it is there) for each line that is not blank, as long as that
/// returns true.
template <class Use>
void for_lines_while(const std::filesystem::path& file, const Use& use) {
    std::error_code error;
    if (std::filesystem::is_directory(file, error)) fail(file, "is a folder, not a text file");
    std::ifstream in(file, std::ios::binary);
    if (!in) fail(file, "cannot be read");
    std::vector<char> room(longest_line + 1);
    std::string line;
    bool whole = true;
    for (std::size_t number = 1; read_line(in, room, line, whole); ++number) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (number == 1 && line.compare(0, 3, "\xEF\xBB\xBF") == 0)
            line.erase(0, 3); // byte order mark
        if (line.find_first_not_of(" \t") == std::string::npos) continue;
        check_utf8(line, file, number);
        if (!use(line, number, whole)) return;
    }
    if (in.bad()) fail(file, "reading failed");
}
template <class Use>
void for_lines(const std::filesystem::path& file, const Use& use) {
    for_lines_while(file, [&](const std::string& line, std::size_t number, bool whole) {
        if (!whole) fail(file, "line ", number, " is longer than ", longest_line, " bytes");
        use(line, number);
        return true;
    });
}

std::vector<std::string> split_at_tabs(const std::string& line) {
    std::vector<std::string> columns;
    for (std::size_t begin = 0, tab = 0; tab != line.npos; begin = tab + 1) {
        tab = line.find('\t', begin);
        columns.push_back(line.substr(begin, tab - begin));
    }
    return columns;
}

double score_of(const std::string& column, const std::filesystem::path& file, std::size_t line) {
    double score = 0;
    if (!read_number(column, score) || !std::isfinite(score))
        fail(file, "line ", line, " has the score '", column, "', which is not a number");
    return score;
}

} // namespace

void for_documents(const std::filesystem::path& file,
                   const std::function<bool(const std::string&, std::size_t)>& use) {
    bool any = false, said = false;
    for_lines_while(file, [&](const std::string& line, std::size_t number, bool whole) {
        any = true;
        if (!whole && !std::exchange(said, true))
            say(file.string() + ": line " + std::to_string(number) + " is longer than " +
                std::to_string(longest_line) + " bytes; of such a line no more is read");
        return use(line, number);
    });
    if (!any) fail(file, "holds no document");
}

std::vector<std::string> read_documents(const std::filesystem::path& file) {
    std::vector<std::string> documents;
    for_documents(file, [&](const std::string& line, std::size_t) {
        documents.push_back(line);
        return true;
    });
    return documents;
}

std::vector<scored_pair> read_pairs(const std::filesystem::path& file) {
    std::vector<scored_pair> pairs;
    for_lines(file, [&](const std::string& line, std::size_t number) {
        const std::vector<std::string> columns = split_at_tabs(line);
        if (columns.size() != 3)
            fail(file, "line ", number,
                 " does not have three columns (score, text, text) separated by tabs");
        pairs.push_back({score_of(columns[0], file, number), columns[1], columns[2]});
    });
    if (pairs.empty()) fail(file, "holds no pair");
    return pairs;
}

std::vector<labelled_text> read_labelled(const std::filesystem::path& file, target_kind target) {
    constexpr int highest = 65535;
    const std::size_t before = target == target_kind::none ? 0 : 1;
    const char* const columns_expected =
        target == target_kind::none    ? "one or two columns (text or text, text)"
        : target == target_kind::label ? "two or three columns (label, text or label, text, text)"
                                       : "two or three columns (score, text or score, text, text)";
    std::vector<labelled_text> texts;
    std::size_t expected = 0; // columns, as in the first line
    for_lines(file, [&](const std::string& line, std::size_t number) {
        const std::vector<std::string> columns = split_at_tabs(line);
        const std::size_t n = columns.size();
        if (n != before + 1 && n != before + 2)
            fail(file, "line ", number, " does not have ", columns_expected, " separated by tabs");
        if (texts.empty()) expected = n;
        if (n != expected)
            fail(file, "line ", number, " has ", n, " columns, the lines before it have ",
                 expected);
        texts.push_back({0, columns[before], n == before + 2 ? columns[before + 1] : ""});
        if (target == target_kind::score) texts.back().target = score_of(columns[0], file, number);
        if (target != target_kind::label) return;
        int label = 0;
        if (!read_number(columns[0], label) || label < 0 || label > highest)
            fail(file, "line ", number, " has the label '", columns[0],
                 "', which is not a whole number from 0 to ", highest);
        texts.back().target = label;
    });
    if (texts.empty()) fail(file, "holds no text");
    return texts;
}

std::vector<tagged_sentence> read_tagged_words(const std::filesystem::path& file) {
    constexpr const char* between = " \t";
    std::vector<tagged_sentence> sentences;
    std::size_t next = 0; // line of the open sentence
    for_lines(file, [&](const std::string& line, std::size_t number) {
        const std::size_t begin = line.find_first_not_of(between),
                          end = line.find_first_of(between, begin),
                          last = line.find_last_not_of(between),
                          tag = line.find_last_of(between, last);
        const std::string word = line.substr(begin, end - begin);
        if (word == "-DOCSTART-") return;
        if (end == line.npos || end > last)
            fail(file, "line ", number, " has one column, not a word and its tag");
        if (sentences.empty() || number != next) sentences.push_back({{}, {}, number});
        sentences.back().words.push_back(word);
        sentences.back().tags.push_back(line.substr(tag + 1, last - tag));
        next = number + 1;
    });
    if (sentences.empty()) fail(file, "holds no sentence");
    return sentences;
}

std::vector<sequence> tokenize(const tokenizer& words, const std::vector<std::string>& texts,
                               std::size_t max_tokens) {
    std::vector<sequence> result;
    for (const std::string& text : texts) result.push_back(words.encode(text, max_tokens));
    return result;
}

std::vector<sequence> tokenize(const tokenizer& words, const std::vector<labelled_text>& texts,
                               const config& c) {
    const bool pairs = std::any_of(texts.begin(), texts.end(),
                                   [](const labelled_text& text) { return !text.second.empty(); });
    const auto max_tokens = static_cast<std::size_t>(c.max_tokens);
    std::vector<sequence> result;
    for (const labelled_text& text : texts)
        result.push_back(pairs ? words.encode(text.first, text.second, max_tokens)
                               : words.encode(text.first, max_tokens));
    return result;
}

std::vector<sentence_part> tokenize_sentence(const tokenizer& words,
                                             const std::vector<std::string>& sentence,
                                             std::size_t max_tokens) {
    const tokenizer::framed around = words.frame({});
    const std::size_t room = max_tokens - std::min(max_tokens, around.ids.size());
    if (room == 0)
        throw std::invalid_argument("max_tokens is " + std::to_string(max_tokens) +
                                    ", the tokens around a sentence alone are " +
                                    std::to_string(around.ids.size()));
    std::vector<sentence_part> parts;
    std::vector<std::int32_t> ids;
    std::vector<std::pair<std::size_t, std::size_t>> places;
    const auto end_part = [&] {
        for (auto& [word, token] : places) token += around.first;
        parts.push_back({words.frame(ids).ids, std::move(places)});
        ids.clear();
        places.clear();
    };
    for (std::size_t word = 0; word < sentence.size(); ++word) {
        std::vector<std::int32_t> of_word =
            words.tokens_of(word == 0 ? sentence[word] : ' ' + sentence[word]);
        of_word.resize(std::min(of_word.size(), room));
        if (of_word.empty()) continue;
        if (ids.size() + of_word.size() > room) end_part();
        places.emplace_back(word, ids.size());
        ids.insert(ids.end(), of_word.begin(), of_word.end());
    }
    end_part();
    return parts;
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
