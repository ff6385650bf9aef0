// Memory of the host from which and to which a Thrust policy copies while the host goes on.
#pragma once

#include "thrust_system.hpp"
#ifdef __CUDACC__
#include "cuda_matrix.hpp"
#endif

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>

#include <memory>
#include <new>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// `count` numbers, uninitialised: on CUDA pinned, with an event behind the last copy. What is copied
/// is the policy's to read or write until wait(); copies are made in the order of the policy's other
/// work.
template <class T, class Exec>
class thrust_staging {
  public:
    /// Throws bad_alloc, and on CUDA device_error.
    thrust_staging(const Exec& exec, index_t count) : exec_(exec) {
        const auto bytes = static_cast<std::size_t>(count > 0 ? count : 1) * sizeof(T);
        if constexpr (is_cuda<Exec>) {
#ifdef __CUDACC__
            void* memory = nullptr;
            const cudaError_t status = cudaMallocHost(&memory, bytes);
            if (status == cudaErrorMemoryAllocation) {
                cudaGetLastError(); // it is not the next call's
                throw std::bad_alloc();
            }
            check_cuda("cudaMallocHost", status);
            numbers_ = static_cast<T*>(memory);
            if (cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming) != cudaSuccess) {
                cudaFreeHost(memory);
                fail<device_error>("on", "cudaEventCreateWithFlags failed");
            }
#endif
        } else {
            numbers_ = static_cast<T*>(::operator new(bytes));
        }
    }
    ~thrust_staging() {
        if constexpr (is_cuda<Exec>) {
#ifdef __CUDACC__
            cudaEventSynchronize(copied_);
            cudaEventDestroy(copied_);
            cudaFreeHost(numbers_);
#endif
        } else {
            ::operator delete(numbers_);
        }
    }
    thrust_staging(const thrust_staging&) = delete;
    thrust_staging& operator=(const thrust_staging&) = delete;

    T* data() const {
        return numbers_;
    }

    /// Queues a copy of the numbers from `first` on to the policy's memory.
    void send(index_t first, index_t count, T* to) const {
        copy(data() + first, count, to, true);
    }
    /// Queues a copy of the policy's memory to the numbers from `first` on.
    void fetch(const T* from, index_t count, index_t first) const {
        copy(from, count, data() + first, false);
    }
    /// Until what is queued so far has been copied, and no longer.
    void wait() const {
#ifdef __CUDACC__
        if constexpr (is_cuda<Exec>)
            check_cuda("cudaEventSynchronize", cudaEventSynchronize(copied_));
#endif
    }

  private:
    void copy(const T* from, index_t count, T* to, [[maybe_unused]] bool to_device) const {
        if (count == 0) return;
        if constexpr (is_cuda<Exec>) {
#ifdef __CUDACC__
            Exec found = exec_;
            const cudaStream_t stream = thrust::cuda_cub::stream(found);
            check_cuda("cudaMemcpyAsync",
                       cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(T),
                                       to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                                       stream));
            check_cuda("cudaEventRecord", cudaEventRecord(copied_, stream));
#endif
        } else {
            thrust::for_each_n(exec_, thrust::counting_iterator<index_t>(0), count,
                               [=](index_t i) { to[i] = from[i]; });
        }
    }

    Exec exec_;
    T* numbers_ = nullptr;
#ifdef __CUDACC__
    cudaEvent_t copied_ = nullptr;
#endif
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
