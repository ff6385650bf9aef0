// The systems of Thrust's execution policies: what each is, tasks and memory on it.
#pragma once

#include "../../core/view.hpp"

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>
#include <thrust/system/cpp/execution_policy.h>
#ifdef _OPENMP
#include <thrust/system/omp/execution_policy.h>

#include <omp.h>
#endif
#ifdef __CUDACC__
#include <thrust/system/cuda/execution_policy.h>
#endif

#include <new>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Where the algorithms of a Thrust execution policy run.
enum class thrust_system { unknown, host, host_threads, device };
template <thrust_system System>
using system_constant = std::integral_constant<thrust_system, System>;

// Thrust's policies of a system derive from its execution_policy, and those of OpenMP from those of
// C++ too.
system_constant<thrust_system::unknown> system_of(...);
template <class Derived>
system_constant<thrust_system::host> system_of(const thrust::cpp::execution_policy<Derived>&);
#ifdef _OPENMP
template <class Derived>
system_constant<thrust_system::host_threads>
system_of(const thrust::omp::execution_policy<Derived>&);
#endif
#ifdef __CUDACC__
template <class Derived>
system_constant<thrust_system::device> system_of(const thrust::cuda::execution_policy<Derived>&);
#endif

/// Whether Exec is CUDA's own.
template <class Exec>
#ifdef __CUDACC__
inline constexpr bool is_cuda = std::is_base_of_v<thrust::cuda::execution_policy<Exec>, Exec>;
#else
inline constexpr bool is_cuda = false;
#endif

/// An executor whose tasks are the elements of thrust::for_each_n, for primitives that have no
/// other form yet.
template <class Exec>
struct thrust_tasks {
    static constexpr thrust_system system = decltype(system_of(std::declval<const Exec&>()))::value;
    static_assert(system != thrust_system::unknown,
                  "pare::on: expected a Thrust execution policy of the C++, OpenMP or CUDA system");

    Exec exec;

    index_t concurrency() const {
#ifdef _OPENMP
        if constexpr (system == thrust_system::host_threads) return omp_get_max_threads();
#endif
        return 1;
    }
    template <class F>
    void run(index_t tasks, const F& f) const {
        static_assert(system != thrust_system::device || always_false<F>,
                      "pare: this call has no form for CUDA yet");
        if constexpr (system != thrust_system::device) {
            if (tasks <= 0) return;
            thrust::for_each_n(exec, thrust::counting_iterator<index_t>(0), tasks, [&f](index_t i) {
                index_t slot = 0;
#ifdef _OPENMP
                if constexpr (system == thrust_system::host_threads) slot = omp_get_thread_num();
#endif
                f(i, slot);
            });
        }
    }
};

/// Memory from the allocator of a Thrust execution policy, which it goes back to.
template <class T, class Exec>
class thrust_memory {
  public:
    thrust_memory(const Exec& exec, index_t count) : exec_(exec), count_(count) {
        if (count == 0) return;
        const auto got = thrust::get_temporary_buffer<T>(exec_, count);
        first_ = thrust::raw_pointer_cast(got.first);
        if (got.second >= count) return;
        give_back();
        throw std::bad_alloc();
    }
    ~thrust_memory() { give_back(); }
    thrust_memory(const thrust_memory&) = delete;
    thrust_memory& operator=(const thrust_memory&) = delete;

    T* data() const { return first_; }

  private:
    using pointer = decltype(thrust::get_temporary_buffer<T>(std::declval<const Exec&>(), 0).first);

    void give_back() {
        if (first_) thrust::return_temporary_buffer(exec_, pointer(first_), count_);
    }

    Exec exec_;
    index_t count_;
    T* first_ = nullptr;
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
