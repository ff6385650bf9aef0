// What the options of both programs have in common: what is no number or no name is refused.
#pragma once

#include "encoder/text/text.hpp"

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>

namespace encoder {

/// For an option that is a number; others would be wrapped around or cut off.
template <class Number>
CLI::Validator number_text(const std::string& expected) {
    return CLI::Validator(
        [expected](const std::string& text) {
            Number ignored;
            return read_number(text, ignored) ? "" : "'" + text + "' is not " + expected;
        },
        "");
}
inline CLI::Validator natural_number() {
    return number_text<std::uint64_t>("a whole number from 0 to 2^64 - 1");
}
inline CLI::Validator whole_number() {
    return number_text<int>("a whole number");
}
inline CLI::Validator real_number() {
    return number_text<double>("a number");
}

/// For an option that is a file or folder.
inline CLI::Validator path_text() {
    return CLI::Validator(
        [](const std::string& text) { return text.empty() ? "'' is no name" : ""; }, "");
}

} // namespace encoder
