// Executors: who runs the tasks of a call.
//
// An executor has two members:
//
// - index_t concurrency() const: at most so many tasks run at a time
// - void run(index_t tasks, const F& f) const: f(task, slot) for each task, 0 <= slot <
//   concurrency(); two tasks that run at the same time have different slots
//
// Tasks do not throw. They write to disjoint memory and are the same for any number of threads, and
// so are the results. A host with its own thread pool passes its own executor:
// pare::simd.with(my_pool).
#pragma once

#include "config.hpp"
#include "error.hpp"
#include "policy.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <type_traits>
#include <utility>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace pare {
inline namespace PARE_ISA {

/// The calling thread.
struct serial {
    index_t concurrency() const { return 1; }
    template <class F>
    void run(index_t tasks, const F& f) const {
        for (index_t i = 0; i < tasks; ++i) f(i, index_t{0});
    }
};

namespace detail {

/// run(f), and when it has ended throws what f threw first: an exception must not leave a thread.
template <class F, class Run>
void catching(const F& f, const Run& run) {
#ifdef __cpp_exceptions
    std::exception_ptr failure;
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
    run([&](index_t task, index_t slot) {
        try {
            f(task, slot);
        } catch (...) {
            if (!failed.test_and_set()) failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
#else
    run(f);
#endif
}

/// Where a share of tasks begins: the first ones have one more.
constexpr index_t first_of_share(index_t tasks, index_t shares, index_t share) {
    return tasks / shares * share + std::min(share, tasks % shares);
}

#ifdef _OPENMP
/// Tasks in a share for each thread, of tasks that follow each other. A thread takes its own share's and
/// then what is left of others': it reads on where it has read, and where steps of a call have as many
/// tasks, it finds in its cache what it left there.
class task_shares {
  public:
    task_shares(index_t tasks, index_t threads)
        : count_(std::clamp<index_t>(tasks, 1, std::min(threads, most))) {
        for (index_t i = 0; i < count_; ++i) {
            all_[i].next = first_of_share(tasks, count_, i);
            all_[i].end = first_of_share(tasks, count_, i + 1);
        }
    }
    /// f(task) for each that is not taken yet.
    template <class F>
    void take(index_t thread, const F& f) {
        for (index_t i = 0; i < count_; ++i) {
            share& some = all_[(thread + i) % count_];
            if (some.next.load(std::memory_order_relaxed) >= some.end) continue; // reads are shared
            for (index_t task;
                 (task = some.next.fetch_add(1, std::memory_order_relaxed)) < some.end;)
                f(task);
        }
    }

  private:
    static constexpr index_t most = 64; // more threads than shares begin with others'

    struct alignas(64) share { // a line of the cache each
        std::atomic<index_t> next;
        index_t end;
    };
    index_t count_;
    share all_[most];
};
#endif

} // namespace detail

#ifdef _OPENMP
/// OpenMP; threads == 0 takes OpenMP's default number. An exception of f is thrown when all tasks
/// have ended.
struct openmp {
    int threads = 0;

    index_t concurrency() const { return threads > 0 ? threads : omp_get_max_threads(); }
    template <class F>
    void run(index_t tasks, const F& f) const {
        const int n = static_cast<int>(concurrency());
        detail::catching(f, [&](const auto& caught) {
            detail::task_shares shares(tasks, n);
#pragma omp parallel num_threads(n) if (n > 1 && tasks > 1)
            {
                const index_t slot = omp_get_thread_num();
                shares.take(slot, [&](index_t task) { caught(task, slot); });
            }
        });
    }
};
using default_executor = openmp;
#else
using default_executor = serial;
#endif

/// The share `ith` of `nth` of a call's tasks, for hosts where every thread makes the same call
/// (ggml): the call is complete when all parts have returned. Each part needs workspaces of its
/// own. What a call cannot check as a whole, a part checks of its own share before it writes that. What
/// goes on from all tasks' results, as accumulators do, is no call for parts, and does not compile:
/// there each thread has batches and an accumulator of its own, to be merged, and a serial policy.
struct part {
    index_t ith = 0, nth = 1;

    static constexpr bool partial = true;

    /// Throws value_error for a share that there is not.
    void check() const {
        if (ith < 0 || ith >= nth) detail::fail<value_error>("part", "part ", ith, " of ", nth);
    }
    index_t concurrency() const { return 1; }
    /// Throws as check().
    template <class F>
    void run(index_t tasks, const F& f) const {
        check();
        const index_t end = detail::first_of_share(tasks, nth, ith + 1);
        for (index_t i = detail::first_of_share(tasks, nth, ith); i < end; ++i) f(i, index_t{0});
    }
};

namespace detail {

template <class Executor, class = void>
inline constexpr bool is_partial = false;
template <class Executor>
inline constexpr bool is_partial<Executor, std::void_t<decltype(Executor::partial)>> =
    Executor::partial;

/// Among how many the tasks of a call are shared out: threads, or parts.
template <class Executor>
index_t shares_of(const Executor& executor) {
    if constexpr (std::is_same_v<Executor, part>)
        return std::clamp<index_t>(executor.nth, 1, 4096); // any more have nothing to do
    else
        return executor.concurrency();
}

/// How many of some columns, up to `most`, a task has where there are so many tasks for each piece of
/// them: as many as can be, since the hardware reads long runs of memory ahead, but few enough for
/// all threads to have some tasks.
template <class Executor>
index_t piece_of_rows(index_t columns, index_t tasks, index_t most, const Executor& executor) {
    constexpr index_t line = 64;
    const index_t threads = shares_of(executor);
    const index_t pieces = threads == 1 ? 1 : (4 * threads + tasks - 1) / tasks;
    return std::clamp<index_t>((columns / pieces + line - 1) / line * line, line, most);
}

/// For the s-th of many pieces of a call, each of a few tasks: parts take turns at who has the first one.
template <class Executor>
Executor in_turn(const Executor& executor, [[maybe_unused]] index_t s) {
    if constexpr (std::is_same_v<Executor, part>) {
        executor.check();
        return {(executor.ith + s) % executor.nth, executor.nth};
    } else {
        return executor;
    }
}

/// Runs tasks whose results the caller goes on with: a part of a call runs all of them.
template <class Executor, class F>
void run_all(const Executor& executor, index_t tasks, const F& f) {
    if constexpr (is_partial<Executor>)
        serial{}.run(tasks, f);
    else
        executor.run(tasks, f);
}

/// Runs tasks that take memory of their own, and may fail at that, on an executor that need not
/// know what an exception is.
template <class Executor, class F>
void run_allocating(const Executor& executor, index_t tasks, const F& f) {
    catching(f, [&](const auto& caught) { executor.run(tasks, caught); });
}

/// What goes on from all tasks' results to others cannot run in parts.
template <class Policy>
constexpr void check_whole(const Policy& policy) {
    check_policy(policy);
    static_assert(!is_partial<std::decay_t<decltype(std::declval<Policy>().executor())>>,
                  "pare: this call cannot run as a part: give it an executor of all threads");
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
