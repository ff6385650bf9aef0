// Catch2 2.13 and 3 read alike: include this and use the names below.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Matchers::ContainsSubstring;
#else
#include <catch2/catch.hpp>
inline auto ContainsSubstring(const std::string& part) {
    return Catch::Matchers::Contains(part);
}
#endif

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
