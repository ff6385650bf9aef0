// What JSON files of this folder say, checked.
#pragma once

#include "file.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace encoder::detail {

/// A JSON object and the file that it comes from, which its errors name. A key that is null counts
/// as absent, as it does for those who write these files.
class settings {
    using json = nlohmann::json;
    using Index = Eigen::Index;

  public:
    explicit settings(std::filesystem::path file) : file_(std::move(file)) {
        json_ = parse_json(file_, read_text(file_));
    }
    /// `name`: what stands before the keys in errors.
    settings(std::filesystem::path file, json object, std::string name = "")
        : file_(std::move(file)), json_(std::move(object)), name_(std::move(name)) {}
    static settings if_exists(const std::filesystem::path& file) {
        return is_file(file) ? settings(file) : settings(file, json::object());
    }

    const json& all() const { return json_; }
    const std::filesystem::path& file() const { return file_; }

    bool has(const char* key) const { return find(key) != nullptr; }
    std::string text(const char* key, const char* otherwise) const {
        const json* const value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_string()) fail(file_, name_, key, " is ", *value, ", not a string");
        return value->get<std::string>();
    }
    /// A list of strings; an empty one where there is none.
    std::vector<std::string> texts(const char* key) const {
        const json* const value = find(key);
        if (value == nullptr) return {};
        const auto is_text = [](const json& x) { return x.is_string(); };
        if (!value->is_array() || !std::all_of(value->begin(), value->end(), is_text))
            fail(file_, name_, key, " is ", *value, ", not a list of strings");
        return value->get<std::vector<std::string>>();
    }
    bool flag(const char* key, bool otherwise) const {
        const json* const value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_boolean()) fail(file_, name_, key, " is ", *value, ", not true or false");
        return value->get<bool>();
    }
    std::optional<double> number(const char* key, double least, double most) const {
        const json* const value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!is_number(*value, least, most))
            fail(file_, name_, key, " is ", *value, ", not a number from ", least, " to ", most);
        return value->get<double>();
    }
    std::optional<Index> count(const char* key, Index least, Index most) const {
        const json* const value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!is_natural(*value, least, most))
            fail(file_, name_, key, " is ", *value, ", not a whole number from ", least, " to ",
                 most);
        return value->get<Index>();
    }
    Index size(const char* key, Index most) const { return needed(key, count(key, 1, most)); }
    template <class T>
    T needed(const char* key, const std::optional<T>& value) const {
        if (!value) fail(file_, "has no ", name_, key);
        return *value;
    }

    /// A whole number from `least` to `most` for each layer; `most` where nothing is said.
    std::vector<Index> widths(const char* key, std::size_t layers, Index most,
                              Index least = 0) const {
        const json* const found = find(key);
        if (found == nullptr) return std::vector<Index>(layers, most);
        check_list(key, *found, layers);
        for (const json& n : *found)
            if (!is_natural(n, least, most))
                fail(file_, name_, key, " holds ", n, ", not a whole number from ", least, " to ",
                     most);
        return found->get<std::vector<Index>>();
    }
    /// A number of at least `least` for each layer.
    std::vector<double> numbers(const char* key, std::size_t layers, double least = 0) const {
        const json* const found = find(key);
        if (found == nullptr) fail(file_, "has no ", name_, key);
        check_list(key, *found, layers);
        for (const json& n : *found)
            if (!is_number(n, least, largest))
                fail(file_, name_, key, " holds ", n, ", not a number from ", least, " to ",
                     largest);
        return found->get<std::vector<double>>();
    }
    /// The same, or an empty list.
    std::vector<double> numbers_or_none(const char* key, std::size_t layers,
                                        double least = 0) const {
        const json* const found = find(key);
        return numbers(key, found != nullptr && found->empty() ? 0 : layers, least);
    }
    /// The object at `key`; an empty one where there is none.
    settings object(const char* key) const {
        const json* const found = find(key);
        return object(name_ + key, found == nullptr ? json::object() : *found);
    }
    std::vector<settings> objects(const char* key) const {
        const json* const found = find(key);
        std::vector<settings> all;
        if (found == nullptr) return all;
        if (!found->is_array()) fail(file_, name_, key, " is ", *found, ", not a list");
        for (const json& entry : *found)
            all.push_back(object(name_ + key + '[' + std::to_string(all.size()) + ']', entry));
        return all;
    }

    static constexpr double largest = std::numeric_limits<double>::max();

  private:
    const json* find(const char* key) const {
        const auto found = json_.find(key);
        return found == json_.end() || found->is_null() ? nullptr : &*found;
    }
    settings object(const std::string& name, const json& value) const {
        if (!value.is_object()) fail(file_, name, " is ", value, ", not an object");
        return settings(file_, value, name + '.');
    }
    void check_list(const char* key, const json& list, std::size_t layers) const {
        if (!list.is_array())
            fail(file_, name_, key, " is not a list with a number for each of ", layers, " layers");
        if (list.size() != layers)
            fail(file_, name_, key, " has ", list.size(), " entries, the model has ", layers,
                 " layers");
    }
    static bool is_natural(const json& value, Index least, Index most) {
        return value.is_number_unsigned() &&
               value.get<std::uint64_t>() >= static_cast<std::uint64_t>(least) &&
               value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most);
    }
    static bool is_number(const json& value, double least, double most) {
        return value.is_number() && value.get<double>() >= least && value.get<double>() <= most;
    }

    std::filesystem::path file_;
    json json_;
    std::string name_;
};

} // namespace encoder::detail
