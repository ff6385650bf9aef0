// Small tokenizers and what the reference makes of texts with them, as scripts in fixtures/ wrote it.
#pragma once

#include "encoder_fixtures.hpp"

#include "encoder/files/model.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tokenizers {

using ids = std::vector<std::int32_t>;

inline nlohmann::json kind(const std::string& name) {
    return fixtures::json("tokenizers/" + name + ".json");
}

inline encoder::config config_of(const nlohmann::json& kind) {
    encoder::config c;
    c.vocabulary = kind["rows"];
    c.positions = c.max_tokens = 512;
    c.types = 2;
    return c;
}

/// Two digits to the base 92 a number; between lists of them there are spaces.
inline std::vector<ids> unpack(const std::string& packed) {
    std::map<char, std::int32_t> digits;
    for (char c = 33; c < 127; ++c)
        if (c != '"' && c != '\\') digits.emplace(c, static_cast<std::int32_t>(digits.size()));
    std::vector<ids> all(1);
    for (std::size_t i = 0; i < packed.size();) {
        if (packed[i] == ' ') {
            all.emplace_back();
            ++i;
            continue;
        }
        all.back().push_back(digits.at(packed[i]) * 92 + digits.at(packed.at(i + 1)));
        i += 2;
    }
    return all;
}

} // namespace tokenizers
