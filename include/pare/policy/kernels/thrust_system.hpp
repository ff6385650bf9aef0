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
#include "cuda_matrix.hpp"

#include <thrust/system/cuda/execution_policy.h>
#endif

#include <limits>
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

/// Whether Exec is a policy of CUDA's without an allocator: temporary memory is taken and given back in
/// the order of its stream. Thrust's own memory waits for the device.
template <class Exec>
#ifdef __CUDACC__
inline constexpr bool takes_from_stream =
    std::is_same_v<Exec, thrust::cuda_cub::par_t> ||
    std::is_same_v<Exec, thrust::cuda_cub::par_nosync_t> ||
    std::is_same_v<Exec, thrust::cuda_cub::execute_on_stream> ||
    std::is_same_v<Exec, thrust::cuda_cub::execute_on_stream_nosync>;
#else
inline constexpr bool takes_from_stream = false;
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

/// Memory from the allocator of a Thrust execution policy, which it goes back to; or from CUDA's stream,
/// in whose order it is taken and given back.
template <class T, class Exec>
class thrust_memory {
  public:
    thrust_memory(const Exec& exec, index_t count) : exec_(exec), count_(count) {
        if (count <= 0) return; // not negative, but g++ warns where it cannot see that
#ifdef __CUDACC__
        if constexpr (is_cuda<Exec>)
            if ((takes_from_stream<Exec> || is_captured()) && took_from_stream()) return;
#endif
        const auto got = thrust::get_temporary_buffer<T>(exec_, count);
        first_ = thrust::raw_pointer_cast(got.first);
        if (got.second >= count) return;
        give_back();
        throw std::bad_alloc();
    }
    ~thrust_memory() {
        give_back();
    }
    thrust_memory(const thrust_memory&) = delete;
    thrust_memory& operator=(const thrust_memory&) = delete;

    T* data() const {
        return first_;
    }

  private:
    using pointer = decltype(thrust::get_temporary_buffer<T>(std::declval<const Exec&>(), 0).first);

    void give_back() {
#ifdef __CUDACC__
        if constexpr (is_cuda<Exec>)
            if (from_stream_) {
                cudaFreeAsync(first_, thrust::cuda_cub::stream(exec_));
                return;
            }
#endif
        if (!first_) return;
        try {
            thrust::return_temporary_buffer(exec_, pointer(first_), count_);
        } catch (...) { // of a destructor nobody hears it, and an earlier fault the next call finds
        }
    }
#ifdef __CUDACC__
    /// Whether the policy's stream makes a graph, which has memory of its own: what an allocator gets
    /// back before the graph runs, it may give to somebody else.
    bool is_captured() {
        cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        if (cudaStreamIsCapturing(thrust::cuda_cub::stream(exec_), &status) == cudaSuccess)
            return status == cudaStreamCaptureStatusActive;
        cudaGetLastError(); // of the default stream, while another one makes a graph
        return false;
    }
    /// False where the device has no such memory.
    bool took_from_stream() {
        constexpr auto most = std::numeric_limits<std::size_t>::max() / sizeof(T);
        if (static_cast<std::size_t>(count_) > most) throw std::bad_alloc();
        void* got = nullptr;
        const auto bytes = static_cast<std::size_t>(count_) * sizeof(T);
        const cudaError_t error = cudaMallocAsync(&got, bytes, thrust::cuda_cub::stream(exec_));
        first_ = static_cast<T*>(got);
        from_stream_ = error == cudaSuccess;
        if (from_stream_) return true;
        cudaGetLastError(); // which the next call would find
        if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
        // An earlier call's fault is no lack of memory.
        if (error != cudaErrorNotSupported) check_cuda("cudaMallocAsync", error);
        return false;
    }
#endif

    Exec exec_;
    index_t count_;
    T* first_ = nullptr;
#ifdef __CUDACC__
    bool from_stream_ = false;
#endif
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
