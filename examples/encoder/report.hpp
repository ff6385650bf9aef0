// What the programs of this folder share: checks of what they are to write, and reports.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <functional>
#include <string>

namespace encoder {

/// The name of a model's folder with `suffix`, in the current folder.
std::filesystem::path name_beside(const std::filesystem::path& model, const std::string& suffix);

/// Throws file_error, naming the option, if `path` (not empty) is not a file that can be written.
void check_output(const std::string& option, const std::filesystem::path& path);
/// The same for the folder of a model made from `source`.
void check_model_output(const std::string& option, const std::filesystem::path& path,
                        const std::filesystem::path& source);

/// NaN (a correlation of constants, say) has no JSON number.
nlohmann::json number(double x);
/// The file appears when it is complete. Throws file_error.
void write_file(const std::filesystem::path& path, const std::string& text);
void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& report);

/// OpenMP's number; 0 leaves it as it is.
int threads();
void set_threads(int number);
double peak_memory_mb();
/// As the system names it.
std::string processor_name();

/// A program's exit status: 0, or 2 where `work` throws, with one sentence on stderr.
int exit_status(const char* program, const std::function<void()>& work);

/// A folder that is removed unless nothing goes wrong.
struct temporary_folder {
    std::filesystem::path path;
    ~temporary_folder();
};

} // namespace encoder
