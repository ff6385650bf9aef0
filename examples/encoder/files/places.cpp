#include "places.hpp"

#include "file.hpp"

#include <sys/stat.h>
#include <unistd.h>

namespace encoder {
namespace {

namespace fs = std::filesystem;
using namespace detail;

/// What is there and is neither file nor folder.
bool is_special(const fs::path& path) {
    std::error_code error;
    return fs::is_other(fs::status(path, error));
}

/// All zeros if there is nothing.
struct ::stat status_of(const fs::path& path) {
    struct ::stat status = {};
    (void)::stat(path.c_str(), &status);
    return status;
}

bool is_same(const fs::path& a, const fs::path& b) {
    std::error_code error;
    return a == b || fs::equivalent(a, b, error);
}

} // namespace

bool detail::is_there(const fs::path& path) {
    std::error_code error;
    return fs::exists(fs::symlink_status(path, error));
}

bool detail::is_open_on(int file, const fs::path& path) {
    struct ::stat open = {};
    const struct ::stat there = status_of(path);
    return ::fstat(file, &open) == 0 && open.st_dev == there.st_dev && open.st_ino == there.st_ino;
}

int detail::standard_stream(const fs::path& path) {
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO})
        if (is_open_on(stream, path)) return stream;
    return -1;
}

bool detail::is_written_through(const fs::path& path) {
    return is_special(path) || standard_stream(path) >= 0;
}

void detail::check_place(const fs::path& path, const output::kind& of, const fs::path& named) {
    std::error_code error;
    if (!is_there(path) ||
        (of.is_folder && fs::is_directory(path, error) && fs::is_empty(path, error)))
        return;
    if (!of.is(path))
        fail(named, "exists and is not ", of.name,
             ", so it is not replaced; remove it or give another name");
}

void detail::check_writable(const fs::path& path, const output::kind& of, const fs::path& named) {
    check_place(path, of, named);
    const fs::path parent = path.parent_path();
    if (!fs::is_directory(parent) || ::access(parent.c_str(), W_OK | X_OK) != 0)
        fail(named, "cannot be written: the folder ", parent.string(),
             " does not exist or cannot be written");
    if (!is_there(path)) return;
    if (::access(path.c_str(), W_OK) != 0) fail(named, "cannot be replaced: it is write-protected");
    if (of.is_folder && status_of(path).st_dev != status_of(parent).st_dev)
        fail(named,
             "cannot be replaced: another file system is mounted there; name a folder in it");
}

fs::path resolved(const fs::path& path) {
    constexpr int most = 40; // links
    const auto without_slash = [](fs::path p) { return p.has_filename() ? p : p.parent_path(); };
    std::error_code error;
    fs::path at = without_slash(fs::absolute(path));
    for (int links = 0; fs::is_symlink(fs::symlink_status(at, error)); ++links) {
        if (links == most) fail(path, "is a link that leads nowhere");
        const fs::path to = fs::read_symlink(at, error);
        at = without_slash(at.parent_path() / to);
    }
    if (fs::path there = fs::canonical(at, error); !error) return there;
    const fs::path parent = fs::canonical(at.parent_path(), error);
    if (error)
        fail(path, "cannot be written: the folder ", at.parent_path().string(),
             " does not exist or cannot be written");
    return parent / at.filename();
}

bool holds(const fs::path& folder, const fs::path& path) {
    for (fs::path at = path;; at = at.parent_path()) {
        if (is_same(at, folder)) return true;
        if (at == at.parent_path()) return false;
    }
}

void check_outputs(const std::vector<program_input>& inputs,
                   const std::vector<program_output>& outputs) {
    struct place {
        const program_output* of;
        fs::path path;
    };
    std::vector<place> before;
    for (const program_output& o : outputs) {
        if (o.path.empty()) continue;
        const fs::path named = std::string(o.option) + " " + o.path.string();
        const bool is_folder = o.kind->is_folder;
        if (!is_folder && is_written_through(o.path)) continue;
        if (!is_folder && !o.path.has_filename()) fail(named, "is the name of a folder");
        fs::path at;
        try {
            at = resolved(o.path);
        } catch (const file_error& error) {
            throw file_error(std::string(o.option) + " " + error.what());
        }
        for (const program_input& i : inputs) {
            if (i.path.empty()) continue;
            std::error_code error;
            fs::path from = fs::canonical(i.path, error);
            if (error) from = fs::absolute(i.path).lexically_normal(); // it may not be there
            if (is_same(from, at)) fail(named, "is ", i.name, " itself");
            if (is_folder && holds(at, from)) fail(named, "holds ", i.name, ", ", i.path.string());
        }
        for (const place& p : before) {
            if (is_same(p.path, at)) fail(named, "is the same as ", p.of->option);
            if (holds(p.path, at)) fail(named, "is in ", p.of->option, ' ', p.of->path.string());
            if (holds(at, p.path)) fail(named, "holds ", p.of->option, ' ', p.of->path.string());
        }
        check_writable(at, *o.kind, named);
        before.push_back({&o, at});
    }
}

} // namespace encoder
