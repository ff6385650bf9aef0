// The weights of a model's folder, in one file or in several.
#pragma once

#include "safetensors.hpp"

#include <map>
#include <string>
#include <vector>

namespace encoder::detail {

inline constexpr const char *weights_file = "model.safetensors",
                            *weights_index = "model.safetensors.index.json";

/// The files of a folder's weights, there or not, without the index. Throws file_error.
std::vector<std::filesystem::path> weight_files(const std::filesystem::path& folder);

/// model.safetensors or, where that is not there, the files that model.safetensors.index.json
/// names, in memory, each checked as safetensors_file does it. Throws file_error, also for a tensor
/// that is not in the file that the index names, or in one that it does not; weights in another
/// format are named with what to do.
class stored_weights {
  public:
    explicit stored_weights(const std::filesystem::path& folder);

    const std::map<std::string, const safetensors_file*>& files() const { return files_; }
    /// model.safetensors or the index.
    const std::filesystem::path& path() const { return path_; }

    bool has(const std::string& name) const { return files_.count(name) > 0; }
    const safetensors_file::entry& at(const std::string& name) const {
        return files_.at(name)->entries().at(name);
    }
    /// As safetensors_file does it.
    std::vector<float> read(const std::string& name, const std::vector<std::int64_t>& shape) const;

  private:
    void read_index();

    std::filesystem::path path_;
    std::vector<std::unique_ptr<safetensors_file>> all_;
    std::map<std::string, const safetensors_file*> files_; // of each tensor
};

} // namespace encoder::detail
