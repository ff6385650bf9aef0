// Warps of a block as threads, included before all else, so that ThreadSanitizer sees what warps do to
// each other's memory within a step. Lanes run from the last to the first, shared memory begins as NaN,
// and what is copied later is NaN until its thread waits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <pthread.h>
#include <thread>
#include <vector>

namespace races {

constexpr int lanes = 32;
/// Of more warps, each thread plays every fourth, since threads take long to meet: neighbours are in
/// different ones.
constexpr int most_threads = 4;

struct later {
    void* to;
    const void* from;
};
/// What one of the threads that play a block has for itself: warps first, first + apart and so on.
struct player {
    int first, apart;
    pthread_barrier_t* behind_step;
    std::vector<later> copies;
};
inline thread_local player* own = nullptr;

/// So many threads, which wait for the next block: they take longer to begin than most blocks run.
class crew {
  public:
    explicit crew(int count) {
        pthread_barrier_init(&behind_step_, nullptr, static_cast<unsigned>(count));
        pthread_barrier_init(&between_blocks_, nullptr, static_cast<unsigned>(count) + 1);
        for (int number = 0; number < count; ++number)
            all_.emplace_back([this, number, count] {
                player here{number, count, &behind_step_, {}};
                own = &here;
                while (true) {
                    pthread_barrier_wait(&between_blocks_);
                    if (!block_) return;
                    block_();
                    here.copies.clear();
                    pthread_barrier_wait(&between_blocks_);
                }
            });
    }
    crew(const crew&) = delete;
    crew& operator=(const crew&) = delete;
    ~crew() {
        block_ = nullptr;
        pthread_barrier_wait(&between_blocks_);
        for (std::thread& t : all_) t.join();
        pthread_barrier_destroy(&between_blocks_);
        pthread_barrier_destroy(&behind_step_);
    }

    /// One block, by all.
    void run(const std::function<void()>& block) {
        block_ = block;
        pthread_barrier_wait(&between_blocks_);
        pthread_barrier_wait(&between_blocks_);
    }

  private:
    pthread_barrier_t behind_step_, between_blocks_;
    std::function<void()> block_;
    std::vector<std::thread> all_;
};

struct warps {
    template <class Kernel>
    static void run(int threads, const Kernel& kernel, std::ptrdiff_t block,
                    unsigned char* memory) {
        std::memset(memory, 0xff, Kernel::shared_bytes);
        const int count = std::min(most_threads, (threads + lanes - 1) / lanes);
        thread_local std::map<int, crew> crews;
        crews.try_emplace(count, count).first->second.run([&] { kernel(block, memory); });
    }
    template <class F>
    static void step(int threads, const F& f) {
        for (int warp = own->first; warp * lanes < threads; warp += own->apart)
            for (int lane = lanes - 1; lane >= 0; --lane)
                if (const int thread = warp * lanes + lane; thread < threads) f(thread);
        pthread_barrier_wait(own->behind_step);
    }
    template <class F>
    static void for_warps(int count, const F& f) {
        for (int warp = own->first; warp < count; warp += own->apart) f(warp);
    }
    static void copy_later(void* to, const void* from) {
        for (const void* p : {static_cast<const void*>(to), from})
            if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0) {
                std::fputs("a copy of 16 bytes is not aligned\n", stderr);
                std::abort();
            }
        std::memset(to, 0xff, 16);
        own->copies.push_back({to, from});
    }
    static void wait() {
        for (const later& c : own->copies) {
            if (c.from != nullptr)
                std::memcpy(c.to, c.from, 16);
            else
                std::memset(c.to, 0, 16);
        }
        own->copies.clear();
    }
};

} // namespace races
