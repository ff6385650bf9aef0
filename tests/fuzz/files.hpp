// What the targets of the encoder's readers share: a folder for files, and what a reader may throw.
#pragma once

#include "fuzz.hpp"

#include "encoder/files/safetensors.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace fuzz {

/// An input as several texts, between bytes that are not in UTF-8. Those that are not there are empty;
/// the last one is all that is left.
inline std::vector<std::string> split(std::string_view all, std::size_t parts) {
    std::vector<std::string> found;
    while (found.size() + 1 < parts) {
        const std::size_t end = std::min(all.find('\xff'), all.size());
        found.emplace_back(all.substr(0, end));
        all.remove_prefix(std::min(end + 1, all.size()));
    }
    found.emplace_back(all);
    return found;
}

/// A folder of this process, which goes away with everything in it. In memory where that is to be had:
/// elsewhere an input takes as long as a disk does.
class folder {
  public:
    folder() {
        const std::filesystem::path memory = "/dev/shm";
        path_ = exists(memory) ? memory : std::filesystem::temp_directory_path();
        path_ /= "pare_fuzz-" + std::to_string(::getpid());
        create_directories(path_);
    }
    ~folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;

    std::filesystem::path operator/(const char* name) const { return path_ / name; }
    const std::filesystem::path& path() const { return path_; }
    /// The path of a file with this content; without content there is none.
    std::filesystem::path file(const char* name, std::string_view content) const {
        std::filesystem::path path = path_ / name;
        if (content.empty()) {
            std::filesystem::remove(path);
            return path;
        }
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << content;
        return path;
    }

  private:
    std::filesystem::path path_;
};

/// Whether `read` says that its input cannot be used. Anything else that it throws is a fault.
template <class Read>
bool unusable(const Read& read) {
    try {
        read();
        return false;
    } catch (const encoder::file_error& e) {
        EXPECT(*e.what() != '\0');
    } catch (const std::invalid_argument& e) {
        EXPECT(*e.what() != '\0');
    }
    return true;
}

} // namespace fuzz
