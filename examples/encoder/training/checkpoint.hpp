// What the trainings of a program leave on the disk after every epoch, so that one that is killed goes
// on.
#pragma once

#include "train.hpp"

namespace encoder {

/// The checkpoints of a program that writes its result to `out`: in a folder beside that, which goes
/// in the end if there is nothing in it.
class checkpoints {
  public:
    explicit checkpoints(const std::filesystem::path& out) : folder_(folder_of(out)) {}
    ~checkpoints();
    checkpoints(const checkpoints&) = delete;
    checkpoints& operator=(const checkpoints&) = delete;

    static std::filesystem::path folder_of(const std::filesystem::path& out);
    static const output::kind kind;

    /// All epochs that the checkpoint `at`, of these, does not have yet; says so by `name`.
    void run(trainer& t, const std::filesystem::path& at, const std::string& name) const;
    /// Where the result is in place.
    void remove() const;

  private:
    std::filesystem::path folder_;
};

} // namespace encoder
