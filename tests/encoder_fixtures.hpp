// What the encoder's tests share: the reference's results, and where the real model is.
#pragma once

#include "catch.hpp"

#include "encoder/files/safetensors.hpp"

#include <nlohmann/json.hpp>
#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

namespace fixtures {

inline std::filesystem::path path(const std::string& name) {
    return std::filesystem::path(PARE_FIXTURES) / name;
}

inline nlohmann::json json(const std::string& name) {
    std::ifstream in(path(name));
    return nlohmann::json::parse(in);
}

inline std::string bytes(const std::string& base64) {
    static const std::string digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string bytes;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : base64) {
        const auto digit = digits.find(c);
        if (digit == digits.npos) break; // the padding
        bits = bits << 6 | static_cast<std::uint32_t>(digit);
        if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 0xffu);
    }
    return bytes;
}

/// Little-endian float32 in base64.
inline std::vector<float> floats(const std::string& base64) {
    const std::string from = bytes(base64);
    std::vector<float> values(from.size() / sizeof(float));
    std::memcpy(values.data(), from.data(), values.size() * sizeof(float));
    return values;
}

/// What the file_error says that work() throws.
template <class Work>
std::string error_of(const Work& work) {
    try {
        work();
    } catch (const encoder::file_error& error) {
        return error.what();
    }
    return "no error";
}

/// The folder of all-MiniLM-L6-v2. Without it a test says so and passes, but where
/// PARE_REQUIRE_MODEL is set it fails.
inline std::optional<std::filesystem::path> model_folder() {
    if (const char* folder = std::getenv("PARE_MODEL_DIR")) return folder;
    const char* required = std::getenv("PARE_REQUIRE_MODEL");
    if (required != nullptr && *required != '\0')
        FAIL("PARE_MODEL_DIR is not set, PARE_REQUIRE_MODEL is");
    std::cout << "skipped: PARE_MODEL_DIR is not set\n";
    return std::nullopt;
}

/// An empty folder that goes away with everything in it.
class scratch_folder {
  public:
    scratch_folder() {
        const auto parent = std::filesystem::temp_directory_path();
        int i = 0;
        do path_ = parent / ("pare_test_" + std::to_string(i++));
        while (!std::filesystem::create_directory(path_));
    }
    ~scratch_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    scratch_folder(const scratch_folder&) = delete;
    scratch_folder& operator=(const scratch_folder&) = delete;

    std::filesystem::path operator/(const std::filesystem::path& name) const {
        return path_ / name;
    }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

/// So many threads as long as it lives.
class with_threads {
  public:
    explicit with_threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
    ~with_threads() { omp_set_num_threads(before_); }
    with_threads(const with_threads&) = delete;
    with_threads& operator=(const with_threads&) = delete;

  private:
    int before_;
};

} // namespace fixtures
