// What the programs of this folder share: reports, and how they begin and end.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <functional>
#include <string>

namespace encoder {

/// The name of a model's folder with `suffix`, in the current folder.
std::filesystem::path name_beside(const std::filesystem::path& model, const std::string& suffix);

/// NaN (a correlation of constants, say) has no JSON number.
nlohmann::json number(double x);
/// With so many decimals; what is not finite is `undefined`.
std::string decimal(double x, int decimals);
/// As it stands in a file.
std::string to_text(const nlohmann::ordered_json& report);

/// OpenMP's number; 0: its own, or as many as the system gives if those are fewer. Throws
/// std::invalid_argument if the system does not give so many as are asked for.
int threads();
void set_threads(int number);
double peak_memory_mb();
/// As the system names it.
std::string processor_name();

/// A line on stderr, if that can be written to: what a run finds does not depend on it.
void say(const std::string& line);

/// A program's exit status: 0, or 2 with one sentence on stderr where `work` throws, or where what it
/// printed cannot be written. To be called first in a program: it sees to what becomes of outputs at
/// signals, and that a pipe without a reader and a file that is too long are errors like others.
int exit_status(const char* program, const std::function<void()>& work);

} // namespace encoder
