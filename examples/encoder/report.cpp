#include "report.hpp"

#include "file.hpp"

#include <fmt/core.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

namespace encoder {
namespace {

namespace fs = std::filesystem;

void check_parent(const std::string& option, const fs::path& path) {
    const fs::path parent = fs::absolute(path).lexically_normal().parent_path();
    if (!fs::is_directory(parent) || access(parent.c_str(), W_OK) != 0)
        throw file_error(fmt::format("{} {}: the folder {} does not exist or cannot be written",
                                     option, path.string(), parent.string()));
}

} // namespace

fs::path name_beside(const fs::path& model, const std::string& suffix) {
    fs::path name = fs::absolute(model).lexically_normal();
    if (!name.has_filename()) name = name.parent_path();
    return name.filename().string() + suffix;
}

void check_output(const std::string& option, const fs::path& path) {
    if (path.empty()) return;
    check_parent(option, path);
    if (fs::is_directory(path))
        throw file_error(fmt::format("{} {}: is a folder", option, path.string()));
}

void check_model_output(const std::string& option, const fs::path& path, const fs::path& source) {
    check_parent(option, path);
    std::error_code none;
    if (!fs::exists(path, none)) return;
    if (fs::equivalent(path, source, none))
        throw file_error(fmt::format("{} {}: is the model itself", option, path.string()));
    if (!fs::is_directory(path) || (!fs::exists(path / "config.json") && !fs::is_empty(path)))
        throw file_error(fmt::format("{} {}: exists and is not a model", option, path.string()));
}

nlohmann::json number(double x) {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
}

void write_json(const fs::path& path, const nlohmann::ordered_json& report) {
    write_file(path, report.dump(2) + '\n');
}

void write_file(const fs::path& path, const std::string& text) {
    const detail::unfinished unfinished(path);
    detail::write_text(unfinished.path(), text);
    std::error_code error;
    fs::rename(unfinished.path(), path, error);
    if (error) throw file_error(path.string() + ": cannot be written");
}

int threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

void set_threads(int number) {
#ifdef _OPENMP
    if (number > 0) omp_set_num_threads(number);
#else
    (void)number;
#endif
}

int exit_status(const char* program, const std::function<void()>& work) {
    try {
        work();
    } catch (const std::exception& e) {
        fmt::print(stderr, "{}: {}\n", program, e.what());
        return 2;
    }
    return 0;
}

double peak_memory_mb() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
}

std::string processor_name() {
    std::ifstream in("/proc/cpuinfo");
    for (std::string line; std::getline(in, line);)
        if (const auto colon = line.find(": ");
            line.rfind("model name", 0) == 0 && colon < line.size())
            return line.substr(colon + 2);
    utsname system{};
    return uname(&system) == 0 ? system.machine : "unknown processor";
}

temporary_folder::~temporary_folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
}

} // namespace encoder
