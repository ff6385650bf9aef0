// The Thrust policy: pare::on(exec) runs every component's tasks by a Thrust execution policy of
// the host, thrust::cpp::par or thrust::omp::par, with or without an allocator. On CUDA's it does
// not compile yet.
#pragma once

#if !defined(__CUDACC__) && !defined(THRUST_DEVICE_SYSTEM)
#error                                                                                             \
    "pare: Thrust takes CUDA for its device system, which this compiler does not know; define THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP or THRUST_DEVICE_SYSTEM_OMP, or link pare::thrust"
#endif

#include "seq.hpp"

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/system/cpp/execution_policy.h>
#ifdef _OPENMP
#include <thrust/system/omp/execution_policy.h>
#endif

#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

// Thrust's policies of a system derive from its execution_policy, and those of OpenMP from those of
// C++ too.
#ifdef _OPENMP
template <class Derived>
std::true_type has_openmp_threads(const thrust::omp::execution_policy<Derived>&);
#endif
std::false_type has_openmp_threads(...);

template <class Derived>
std::true_type runs_on_host(const thrust::cpp::execution_policy<Derived>&);
#ifdef _OPENMP
template <class Derived>
std::true_type runs_on_host(const thrust::omp::execution_policy<Derived>&);
#endif
std::false_type runs_on_host(...);

/// An executor whose tasks are the elements of thrust::for_each_n.
template <class Exec>
struct thrust_tasks {
    static_assert(decltype(runs_on_host(std::declval<const Exec&>()))::value,
                  "pare::on: expected a Thrust execution policy of the C++ or OpenMP system");
    static constexpr bool threads =
        decltype(has_openmp_threads(std::declval<const Exec&>()))::value;

    Exec exec;

    index_t concurrency() const {
#ifdef _OPENMP
        if constexpr (threads) return omp_get_max_threads();
#endif
        return 1;
    }
    template <class F>
    void run(index_t tasks, const F& f) const {
        if (tasks <= 0) return;
        thrust::for_each_n(exec, thrust::counting_iterator<index_t>(0), tasks, [&f](index_t i) {
            index_t slot = 0;
#ifdef _OPENMP
            if constexpr (threads) slot = omp_get_thread_num();
#endif
            f(i, slot);
        });
    }
};

} // namespace detail

/// The policy of a Thrust execution policy: pare::importance(pare::on(thrust::omp::par), ...).
/// Memory is the host's. Primitives are those of pare::seq, their tasks shared out by Thrust, and
/// so are the results.
template <class Exec>
sequential<detail::thrust_tasks<Exec>> on(const Exec& exec) {
    return sequential<detail::thrust_tasks<Exec>>(detail::thrust_tasks<Exec>{exec});
}

} // namespace PARE_ISA
} // namespace pare
