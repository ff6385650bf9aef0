// What a flow of many steps tells its caller.
#pragma once

#include "../core/config.hpp"

#include <functional>

namespace pare {
inline namespace PARE_ISA {

/// What a run is at.
struct prune_progress {
    enum stage { statistics, elimination, refit } at;
    index_t done, all; ///< steps of the stage: batches, sublayers, and batches of each sublayer
};

/// Called before each step, one call at a time, of `elimination` on any thread; where it returns
/// false the stage ends and gives nothing.
using prune_callback = std::function<bool(const prune_progress&)>;

namespace detail {

inline bool goes_on(const prune_callback& callback, const prune_progress& at) {
    return !callback || callback(at);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
