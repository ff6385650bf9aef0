#include "progress.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace encoder {

progress::progress(std::string stage, std::int64_t steps)
    : stage_(std::move(stage)), steps_(std::max<std::int64_t>(1, steps)),
      terminal_(isatty(2) == 1) {}

progress::~progress() {
    if (visible_) fmt::print(stderr, "\r\033[K");
}

double progress::seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void progress::advance(std::int64_t steps) {
    done_ = std::min(steps_, done_ + steps);
    const double elapsed = seconds();
    if (terminal_ && elapsed > 1 && elapsed - drawn_ > 0.1) draw(elapsed);
}

void progress::draw(double elapsed) {
    constexpr int bar = 30;
    const double share = static_cast<double>(done_) / static_cast<double>(steps_);
    const int filled = static_cast<int>(share * bar);
    const double left = share > 0 ? elapsed / share - elapsed : 0;
    fmt::print(stderr, "\r\033[K{:<28} [{:#<{}}{:.<{}}] {:3.0f} %  {:.0f} s left", stage_, "",
               filled, "", bar - filled, 100 * share, left);
    std::fflush(stderr);
    drawn_ = elapsed;
    visible_ = true;
}

} // namespace encoder
