// What a program writes: checked before the work against all that it reads, written to one side,
// flushed, and put in place in one step.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace encoder {

/// A file or folder that appears, or replaces an older one of its kind, when it is complete. Until
/// then it stands beside its place in a folder `.NAME.pare`, which holds
///     lock  locked as long as the run that made the folder lives
///     new   what is being written
///     old   what is being replaced, where the system cannot exchange two names
/// The folder goes with this object, or at a signal (see clean_up_on_signals); if a run is killed,
/// the next one that writes the same takes it over. What is not known to be a run's is left alone,
/// and another name taken. Two runs cannot write the same at the same time.
class output {
  public:
    /// What is replaced: `is` a thing of this kind. Folders are replaced too if they are empty.
    struct kind {
        const char* name;
        bool is_folder;
        bool (*is)(const std::filesystem::path& existing);
    };
    static const kind file;

    /// An empty path: nothing is to be written. What is there and is no file or folder, such as a
    /// pipe, is written through, and so is a file that this program was given as its standard
    /// output. Throws file_error if `path` cannot be written, is not of the kind, or if another run
    /// is writing it, which has some seconds to end.
    explicit output(std::filesystem::path path, const kind& of = file);
    ~output();
    output(const output&) = delete;
    output& operator=(const output&) = delete;

    explicit operator bool() const { return !given_.empty(); }
    /// As given.
    const std::filesystem::path& name() const { return given_; }
    /// Of a folder: where to write it. It is there, and empty.
    const std::filesystem::path& path() const { return new_; }
    /// Of a file: all of it. Throws file_error.
    void write(std::string_view text);

    /// Puts all of them, written by now, in place, one right after the other, or throws file_error.
    /// What a pipe is to get comes last. Other runs wait until an output goes, not only until then.
    friend void put_in_place(std::initializer_list<output*> all);

  private:
    friend void clean_up_on_signals();

    bool claim(const std::filesystem::path& folder);
    void replace();
    void remove_rest();

    std::filesystem::path given_, target_; // as named, and where that leads
    const kind* kind_;
    int through_ = -1; // what is written through, where that is open already
    std::string text_; // for it
    std::filesystem::path folder_, new_, old_;
    int lock_ = -1;
};

void put_in_place(std::initializer_list<output*> all);

/// Where `path` leads, or would lead if it were there: absolute, links followed. Throws file_error
/// if it can be nowhere.
std::filesystem::path resolved(const std::filesystem::path& path);

/// Whether `path` is `folder` or in it, by whatever names.
bool holds(const std::filesystem::path& folder, const std::filesystem::path& path);

struct program_input {
    const char* name; ///< "the model"
    std::filesystem::path path;
};
struct program_output {
    const char* option; ///< "--out"
    std::filesystem::path path;
    const output::kind* kind = &output::file;
};
/// Throws file_error, naming the option, for what cannot be written: an output that is an input,
/// another output, in an output folder, not of its kind, or in no folder that can be written to; and
/// a folder that holds an input. Empty paths are neither.
void check_outputs(const std::vector<program_input>& inputs,
                   const std::vector<program_output>& outputs);

/// Creates or overwrites a file with these parts, one after another. Throws file_error.
void write_file(const std::filesystem::path& path, const std::vector<std::string_view>& parts);

/// Creates `folder / part`, level by level, in a folder that is there: an output's that a signal has
/// cleared away does not come back. Throws std::filesystem::filesystem_error.
void make_folders(const std::filesystem::path& folder, const std::filesystem::path& part);

/// From now on SIGINT, SIGTERM and SIGHUP, unless they are ignored, remove what outputs have beside
/// their places before they end the program. To be called before there are other threads.
void clean_up_on_signals();

} // namespace encoder
