#include "report.hpp"

#include "encoder/files/output.hpp"
#include "encoder/files/sentence.hpp"

#include <fmt/core.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

namespace encoder {
namespace fs = std::filesystem;

fs::path name_beside(const fs::path& model, const std::string& suffix) {
    fs::path name = fs::absolute(model).lexically_normal();
    if (!name.has_filename()) name = name.parent_path();
    return name.filename().string() + suffix;
}

nlohmann::json number(double x) {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
}

std::string decimal(double x, int decimals) {
    return std::isfinite(x) ? fmt::format("{:.{}f}", x, decimals) : "undefined";
}

std::string to_text(const nlohmann::ordered_json& report) {
    return report.dump(2) + '\n';
}

int threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

void set_threads(int number) {
    constexpr int most = 1024;
    const int wanted = number == 0 ? threads() : number;
    if (wanted < 0 || wanted > most)
        throw std::invalid_argument(fmt::format("--threads is {}, expected 0 to {}", wanted, most));
    // OpenMP ends the program where it gets fewer.
    std::vector<std::thread> all;
    std::mutex until_all;
    try {
        const std::lock_guard<std::mutex> guard(until_all);
        while (static_cast<int>(all.size()) < wanted)
            all.emplace_back([&] { const std::lock_guard<std::mutex> wait(until_all); });
    } catch (const std::system_error&) {
    }
    for (std::thread& t : all) t.join();
    const int possible = std::max(1, static_cast<int>(all.size())); // this one is always there
    if (possible < number)
        throw std::invalid_argument(
            fmt::format("--threads is {}, the system gives {}", number, possible));
#ifdef _OPENMP
    omp_set_num_threads(possible);
#endif
}

void say(const std::string& line) {
    std::fputs((line + '\n').c_str(), stderr);
}

int exit_status(const char* program, const std::function<void()>& work) {
    // A file must not get the number of a standard stream that is closed, or it is printed to.
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (fcntl(stream, F_GETFD) == -1)
            (void)!open("/dev/null", O_RDONLY); // so that writing to it is an error
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
    clean_up_on_signals();
    const auto refused = [&](const std::string& why) {
        say(on_one_line(fmt::format("{}: {}", program, why)));
        return 2;
    };
    try {
        work();
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
            throw std::system_error(errno, std::generic_category(), "write");
    } catch (const std::bad_alloc&) {
        return refused("there is not enough memory");
    } catch (const fs::filesystem_error& e) {
        return refused(e.path1().string() + ": " + e.code().message());
    } catch (const std::system_error& e) { // as fmt::print throws it
        return refused("standard output: cannot be written: " + e.code().message());
    } catch (const std::exception& e) {
        return refused(e.what());
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

} // namespace encoder
