#include "places.hpp"

#include "file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

namespace encoder {
namespace {

namespace fs = std::filesystem;
using namespace detail;

/// What the lock says, so that a folder is known to be a run's.
constexpr std::string_view lock_text = "pare writes something here\n";

/// The outputs that have a folder, and who may touch those: a thread that waits for signals too.
struct open_outputs {
    std::mutex busy;
    std::set<output*> all;
};
open_outputs& shared() {
    static open_outputs& of_program = *new open_outputs; // that thread outlives static objects
    return of_program;
}

/// A file descriptor, closed in the end.
class descriptor {
  public:
    explicit descriptor(int number) : number_(number) {}
    ~descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    operator int() const { return number_; }
    int release() { return std::exchange(number_, -1); }

  private:
    int number_;
};

void write_all(int file, std::string_view text, const fs::path& named) {
    while (!text.empty()) {
        const ssize_t written = ::write(file, text.data(), text.size());
        if (written < 0 && errno != EINTR) fail(named, "cannot be written: ", std::strerror(errno));
        if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
    }
}

/// To the disk.
void flush(const fs::path& path, const fs::path& named) {
    const descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file < 0 && errno == EACCES) return; // a folder that may be written but not read
    // Not every file system can do it for folders.
    if (file < 0 || (::fsync(file) != 0 && errno != EINVAL && errno != ENOTSUP))
        fail(named, "cannot be written: ", std::strerror(errno));
}

void flush_all(const fs::path& path, const fs::path& named) {
    if (fs::is_directory(path))
        for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path))
            flush(entry.path(), named);
    flush(path, named);
}

/// A rename of both at once; false where there is no such thing.
bool exchange(const fs::path& a, const fs::path& b) {
#ifdef RENAME_EXCHANGE
    if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
    if (errno != ENOSYS && errno != EINVAL && errno != ENOTSUP)
        throw fs::filesystem_error("", std::error_code(errno, std::generic_category()));
#endif
    (void)a, (void)b;
    return false;
}

/// Whether a run made this folder, or could have: it is empty, or has a lock and nothing unknown.
bool is_of_run(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(fs::symlink_status(folder, error))) return false;
    std::set<std::string> names;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
        names.insert(at->path().filename().string());
    const bool empty = names.empty(), locked = names.erase("lock") == 1;
    names.erase("new");
    names.erase("old");
    return !error && names.empty() && (locked || empty);
}

/// Whether an open lock says what it is to say; its run may have ended when it had said only a part.
bool is_lock(int lock, bool in_part) {
    std::array<char, lock_text.size() + 1> text{};
    const ssize_t n = ::pread(lock, text.data(), text.size(), 0);
    if (n < 0) return false;
    const auto size = static_cast<std::size_t>(n);
    return (in_part || size == lock_text.size()) &&
           lock_text.substr(0, size) == std::string_view(text.data(), size);
}

} // namespace

const output::kind output::file = {"a file", false, detail::is_file};

output::output(fs::path path, const kind& of) : given_(std::move(path)), kind_(&of) {
    if (given_.empty()) return;
    if (!of.is_folder && is_written_through(given_)) {
        through_ = standard_stream(given_);
        return;
    }
    target_ = resolved(given_);
    check_writable(target_, of, given_);
    using namespace std::chrono;
    // A run that has been killed takes a moment to end; another one may be about to.
    const auto end = steady_clock::now() + seconds(5);
    const std::string name = "." + target_.filename().string() + ".pare";
    for (int number = 1; lock_ < 0; ++number) {
        const fs::path folder =
            target_.parent_path() / (number == 1 ? name : name + std::to_string(number));
        while (claim(folder) && lock_ < 0) {
            if (steady_clock::now() > end)
                fail(given_, "another run is writing it; let that end, or give another name");
            std::this_thread::sleep_for(milliseconds(20));
        }
    }
}

output::~output() {
    if (folder_.empty()) return;
    const std::lock_guard<std::mutex> guard(shared().busy); // for good, if a signal ends this
    if (shared().all.erase(this) > 0) remove_rest();
}

/// Makes the folder, or takes it over from a run that has ended; false if it is no run's. With
/// `lock_` unset on success another run has it.
bool output::claim(const fs::path& folder) {
    const std::lock_guard<std::mutex> guard(shared().busy);
    while (true) {
        const bool made = ::mkdir(folder.c_str(), 0777) == 0;
        if (!made && errno != EEXIST) fail(given_, "cannot be written: ", std::strerror(errno));
        // Another run may have been at it while the first look went through the names.
        if (!is_of_run(folder) && !is_of_run(folder)) {
            if (is_there(folder)) return false;
            continue; // its run has just ended
        }
        const fs::path name = folder / "lock";
        descriptor lock(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
        if (lock < 0 && errno == ENOENT) continue;
        if (lock < 0 && made) fail(given_, "cannot be written: ", std::strerror(errno));
        if (lock < 0) return false;
        if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) return true;
            if (!made) return false; // without locks, nobody knows whether that run has ended
        }
        if (!is_open_on(lock, name)) continue; // the run that had it has removed it
        if (!is_lock(lock, !is_there(folder / "new") && !is_there(folder / "old"))) return false;
        folder_ = folder;
        new_ = folder / "new";
        old_ = folder / "old";
        lock_ = lock.release();
        shared().all.insert(this);
        break;
    }
    try {
        // A run that ended between two renames.
        if (is_there(old_) && !is_there(target_)) fs::rename(old_, target_);
        fs::remove_all(old_);
        fs::remove_all(new_);
        write_all(lock_, lock_text, given_);
        // It is made here and nowhere else, so that it does not come back when a signal ends this.
        if (kind_->is_folder)
            fs::create_directory(new_);
        else
            write_file(new_, {});
    } catch (const fs::filesystem_error& error) {
        shared().all.erase(this);
        remove_rest();
        fail(given_, "cannot be written: ", error.code().message());
    } catch (...) {
        shared().all.erase(this);
        remove_rest();
        throw;
    }
    return true;
}

/// Removes the folder, and keeps what was there before in its place.
void output::remove_rest() {
    std::error_code error;
    if (is_there(old_) && !is_there(target_)) fs::rename(old_, target_, error);
    // What is being written may grow meanwhile.
    for (int i = 0; i < 100 && is_there(new_); ++i) fs::remove_all(new_, error);
    if (is_there(target_)) fs::remove_all(old_, error); // else it is all that there is
    // Else the lock shows the next run what it may clear, or put back.
    if (!is_there(new_) && !is_there(old_)) {
        ::unlink((folder_ / "lock").c_str());
        ::rmdir(folder_.c_str());
    }
    ::close(std::exchange(lock_, -1));
}

void output::write(std::string_view text) {
    if (folder_.empty()) {
        text_ = text;
        return;
    }
    const descriptor whole(::open(new_.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    if (whole < 0) fail(given_, "cannot be written: ", std::strerror(errno));
    write_all(whole, text, given_);
}

/// The one step.
void output::replace() {
    check_place(target_, *kind_, given_);
    std::error_code none;
    if (const fs::file_status there = fs::status(target_, none); fs::exists(there))
        fs::permissions(new_, there.permissions(), none); // what was private stays so
    if (kind_->is_folder && is_there(target_)) {
        if (!exchange(new_, target_)) {
            fs::rename(target_, old_);
            fs::rename(new_, target_); // or remove_rest() takes the old one back
        }
    } else {
        fs::rename(new_, target_);
    }
    flush(target_.parent_path(), given_);
}

void put_in_place(std::initializer_list<output*> all) {
    for (output* o : all)
        if (!o->folder_.empty()) flush_all(o->new_, o->given_);
    {
        const std::lock_guard<std::mutex> guard(shared().busy);
        for (output* o : all) {
            if (o->folder_.empty()) continue;
            try {
                o->replace();
            } catch (const fs::filesystem_error& error) {
                fail(o->given_, "cannot be written: ", error.code().message());
            }
        }
    }
    for (output* o : all) {
        if (o->text_.empty()) continue;
        std::fflush(stdout);
        const descriptor opened(o->through_ < 0 ? ::open(o->given_.c_str(), O_WRONLY | O_CLOEXEC)
                                                : -1);
        const int file = o->through_ < 0 ? static_cast<int>(opened) : o->through_;
        if (file < 0) fail(o->given_, "cannot be written: ", std::strerror(errno));
        write_all(file, o->text_, o->given_);
    }
}

void write_file(const fs::path& path, const std::vector<std::string_view>& parts) {
    const descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file < 0) fail(path, "cannot be written: ", std::strerror(errno));
    for (const std::string_view part : parts) write_all(file, part, path);
}

void make_folders(const fs::path& folder, const fs::path& part) {
    fs::path at = folder;
    for (const fs::path& name : part) fs::create_directory(at /= name);
}

void clean_up_on_signals() {
    sigset_t wanted;
    sigemptyset(&wanted);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        struct ::sigaction now {};
        if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(&wanted, signal);
    }
    // A thread that waits for them may do what a handler must not.
    pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
    shared();
    const auto end = [wanted] {
        int signal = 0;
        if (sigwait(&wanted, &signal) != 0) return;
        shared().busy.lock(); // and never again open: what there is, is left as it is from now on
        for (output* o : shared().all) o->remove_rest();
        std::signal(signal, SIG_DFL);
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, signal);
        pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
        std::raise(signal);
    };
    try {
        std::thread(end).detach();
    } catch (const std::system_error&) { // then the next run clears what is left
        pthread_sigmask(SIG_UNBLOCK, &wanted, nullptr);
    }
}

} // namespace encoder
