// What the readers of this folder share: one-sentence errors, and JSON.
#pragma once

#include "safetensors.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <locale>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace encoder::detail {

/// Throws file_error: "<path>: <parts>".
template <class... Parts>
[[noreturn]] void fail(const std::filesystem::path& path, const Parts&... parts) {
    std::ostringstream sentence;
    sentence.imbue(std::locale::classic());
    sentence << path.string() << ": ";
    (sentence << ... << parts);
    throw file_error(sentence.str());
}

inline bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

inline bool is_file(const std::filesystem::path& path) {
    std::error_code missing;
    return std::filesystem::is_regular_file(path, missing);
}

/// Throws for what is not there, and for a pipe or a device, which would be waited for.
inline void check_is_file(const std::filesystem::path& path) {
    if (is_file(path)) return;
    std::error_code missing;
    if (std::filesystem::exists(path, missing))
        fail(path, "is not a regular file; put one in its place");
    fail(path, "there is no such file");
}

/// Whether a path that a file names stays in that file's folder, whatever is there. No system's end
/// of a name is in it.
inline bool is_inside(const std::filesystem::path& path) {
    if (path.is_absolute() || path.string().find('\0') != std::string::npos) return false;
    return std::find(path.begin(), path.end(), "..") == path.end();
}

/// Throws for what Git LFS leaves in the place of a file that it has not fetched. `begin`: of the
/// file.
inline void check_is_fetched(const std::filesystem::path& path, std::string_view begin) {
    constexpr std::string_view pointer = "version https://git-lfs.github.com/spec/";
    if (begin.substr(0, pointer.size()) == pointer)
        fail(path, "is a Git LFS pointer, not the file that it stands for; run `git lfs pull` in "
                   "its folder");
}

/// Throws for what cannot be read, as far as its first bytes show.
inline void check_can_be_read(const std::filesystem::path& path) {
    check_is_file(path);
    std::ifstream in(path, std::ios::binary);
    std::string begin(64, '\0');
    in.read(begin.data(), static_cast<std::streamsize>(begin.size()));
    if (!in.is_open() || in.bad()) fail(path, "cannot be read");
    check_is_fetched(path, begin);
}

inline std::string read_text(const std::filesystem::path& path) {
    check_is_file(path);
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in) fail(path, "cannot be read");
    check_is_fetched(path, text);
    return text;
}

/// The JSON value (an object, if not said otherwise) that `text`, all or part of the file `path`,
/// is.
inline nlohmann::json parse_json(const std::filesystem::path& path, std::string_view text,
                                 nlohmann::json::value_t type = nlohmann::json::value_t::object) {
    using nlohmann::json;
    // JSON leaves the meaning of a repeated key open, so that two readers may see two models. Depth
    // is limited because printing is recursive.
    constexpr int deepest = 64;
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, json::parse_event_t event, json& value) {
        if (depth > deepest) fail(path, "its JSON is nested deeper than ", deepest);
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key &&
            !keys.back().insert(value.get<std::string>()).second)
            fail(path, "the key '", value.get<std::string>(), "' stands twice in its JSON");
        return true;
    };
    try {
        json parsed = json::parse(text.begin(), text.end(), watch);
        if (parsed.type() != type)
            fail(path, "holds a JSON ", parsed.type_name(), ", not an ", json(type).type_name());
        return parsed;
    } catch (const json::parse_error& e) {
        fail(path, "not valid JSON at byte ", e.byte, " of ", text.size());
    } catch (const json::exception&) {
        fail(path, "its JSON holds a number that is out of range");
    }
}

} // namespace encoder::detail
