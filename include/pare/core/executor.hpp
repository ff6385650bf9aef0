// Executors: who runs the tasks of a call.
#pragma once

#include "config.hpp"
#include "error.hpp"

#include <algorithm>
#include <exception>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace pare {
inline namespace PARE_ISA {

// An executor has two members:
//
// - index_t concurrency() const: at most so many tasks run at a time
// - void run(index_t tasks, const F& f) const: f(task, slot) for each task, 0 <= slot <
//   concurrency(); two tasks that run at the same time have different slots
//
// Tasks write to disjoint memory and are the same for any number of threads, and so are the
// results. A host with its own thread pool passes its own executor: pare::simd.with(my_pool).

/// The calling thread.
struct serial {
    index_t concurrency() const { return 1; }
    template <class F>
    void run(index_t tasks, const F& f) const {
        for (index_t i = 0; i < tasks; ++i) f(i, index_t{0});
    }
};

#ifdef _OPENMP
/// OpenMP; threads == 0 takes OpenMP's default number.
struct openmp {
    int threads = 0;

    index_t concurrency() const { return threads > 0 ? threads : omp_get_max_threads(); }
    template <class F>
    void run(index_t tasks, const F& f) const {
        const int n = static_cast<int>(concurrency());
#pragma omp parallel for schedule(dynamic) num_threads(n) if (n > 1 && tasks > 1)
        for (index_t i = 0; i < tasks; ++i) f(i, index_t{omp_get_thread_num()});
    }
};
using default_executor = openmp;
#else
using default_executor = serial;
#endif

/// The share `ith` of `nth` of a call's tasks, for hosts where every thread makes the same call
/// (ggml): the call is complete when all parts have returned. Each part needs workspaces of its
/// own. Accumulators are not shared between parts: keep one a part and merge them.
struct part {
    index_t ith = 0, nth = 1;

    static constexpr bool partial = true;

    index_t concurrency() const { return 1; }
    /// Throws value_error for a share that there is not.
    template <class F>
    void run(index_t tasks, const F& f) const {
        if (ith < 0 || ith >= nth) detail::fail<value_error>("part", "part ", ith, " of ", nth);
        const auto first_of = [&](index_t share) { // one more for each of the first
            return tasks / nth * share + std::min(share, tasks % nth);
        };
        for (index_t i = first_of(ith); i < first_of(ith + 1); ++i) f(i, index_t{0});
    }
};

namespace detail {

template <class Executor, class = void>
inline constexpr bool is_partial = false;
template <class Executor>
inline constexpr bool is_partial<Executor, std::void_t<decltype(Executor::partial)>> =
    Executor::partial;

/// Runs tasks whose results the caller goes on with: a part of a call runs all of them.
template <class Executor, class F>
void run_all(const Executor& executor, index_t tasks, const F& f) {
    if constexpr (is_partial<Executor>)
        serial{}.run(tasks, f);
    else
        executor.run(tasks, f);
}

/// Runs tasks that take memory of their own, and may fail at that. An exception must not leave a
/// thread, so one of theirs is thrown when all have ended.
template <class Executor, class F>
void run_allocating(const Executor& executor, index_t tasks, const F& f) {
#ifdef __cpp_exceptions
    std::vector<std::exception_ptr> failures(static_cast<std::size_t>(executor.concurrency()));
    executor.run(tasks, [&](index_t task, index_t slot) {
        try {
            f(task, slot);
        } catch (...) {
            failures[static_cast<std::size_t>(slot)] = std::current_exception();
        }
    });
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
#else
    executor.run(tasks, f);
#endif
}

/// What goes on from all tasks' results to others cannot run in parts.
template <class Policy>
constexpr void check_whole(const Policy&) {
    static_assert(!is_partial<std::decay_t<decltype(std::declval<Policy>().executor())>>,
                  "pare: this call cannot run as a part: give it an executor of all threads");
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
