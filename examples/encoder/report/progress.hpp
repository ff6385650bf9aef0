// A line on the terminal for work that takes longer than a second: stage, bar, time left.
#pragma once

#include <chrono>
#include <cstdint>
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

} // namespace encoder
