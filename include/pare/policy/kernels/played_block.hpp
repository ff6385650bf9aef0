// How a host plays the threads of a block.
#pragma once

#include "../../core/view.hpp"

#include <cstring>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// One after another. PARE_BLOCK_PLAYER is another such type, for tests that look for races
/// (tests/races).
struct one_thread {
    /// kernel(block, memory).
    template <class Kernel>
    static void run(int, const Kernel& kernel, index_t block, unsigned char* memory) {
        kernel(block, memory);
    }
    /// f(thread) by each of so many threads, all of which have done it when it returns.
    template <class F>
    static void step(int threads, const F& f) {
        for (int thread = 0; thread < threads; ++thread) f(thread);
    }
    /// f(warp) for so many warps, within one step.
    template <class F>
    static void for_warps(int count, const F& f) {
        for (int warp = 0; warp < count; ++warp) f(warp);
    }
    /// 16 bytes, or zeros where `from` is null. They are there behind wait() at the latest.
    static void copy_later(void* to, const void* from) {
        if (from != nullptr)
            std::memcpy(to, from, 16);
        else
            std::memset(to, 0, 16);
    }
    static void wait() {}
};

#ifdef PARE_BLOCK_PLAYER
using block_player = PARE_BLOCK_PLAYER;
#else
using block_player = one_thread;
#endif

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
