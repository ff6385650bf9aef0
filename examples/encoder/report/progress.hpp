// A line on the terminal for work that takes longer than a second: stage, bar, time left.
#pragma once

#include <pare/prune/progress.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace encoder {

/// Shows how far a stage is, on stderr if that is a terminal; says nothing where it is not.
class progress {
  public:
    /// A stage of `steps` steps.
    progress(std::string stage, std::int64_t steps);
    /// Removes the line.
    ~progress();
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;

    /// `steps` more steps are done.
    void advance(std::int64_t steps = 1);
    /// Seconds since the stage began.
    double seconds() const;

  private:
    void draw(double elapsed);

    std::string stage_;
    std::int64_t steps_, done_ = 0;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    double drawn_ = 0;
    bool terminal_, visible_ = false;
};

/// Shows the stages of pare/prune.hpp, one line after another: a callback that goes on.
class prune_stages {
  public:
    /// `stage`: what a stage is called; null: as pare calls it.
    explicit prune_stages(const char* stage = nullptr) : name_(stage) {}
    bool operator()(const pare::prune_progress& at) {
        constexpr const char* names[] = {"statistics", "elimination", "refit"};
        if (!bar_ || at.at != stage_) {
            bar_.reset();
            bar_.emplace(name_ ? name_ : names[at.at], at.all);
            stage_ = at.at;
            done_ = 0;
        }
        bar_->advance(at.done - done_);
        done_ = at.done;
        return true;
    }

  private:
    const char* name_;
    std::optional<progress> bar_;
    pare::prune_progress::stage stage_{};
    pare::index_t done_ = 0;
};

} // namespace encoder
