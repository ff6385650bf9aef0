// Sums that stay in a Thrust policy's memory between calls.
#pragma once

#include "../../core/kept_sums.hpp"
#include "thrust_system.hpp"
#ifdef __CUDACC__
#include "cuda_matrix.hpp"
#endif

#include <algorithm>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>

#include <new>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// On CUDA memory of the current device, not of the policy's allocator, and an event behind what was
/// queued last: other streams wait for it, and stream and allocator may end.
template <class Exec>
class thrust_kept final : public sums_there {
  public:
    static constexpr char mark = 0; ///< whose address is this type's

    /// Throws bad_alloc, and on CUDA device_error.
    thrust_kept(const Exec& exec, index_t count)
        : exec_(exec), count_(std::max<index_t>(count, 0)), // g++ does not know that it is
          memory_(exec, is_cuda<Exec> ? 0 : count) {
        if constexpr (is_cuda<Exec>) {
#ifdef __CUDACC__
            Exec found = exec;
            const cudaStream_t stream = thrust::cuda_cub::stream(found);
            const auto bytes =
                static_cast<std::size_t>(std::max<index_t>(count_, 1)) * sizeof(double);
            void* memory = nullptr;
            cudaError_t status = cudaGetDevice(&device_);
            if (status == cudaSuccess)
                status = cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming);
            if (status == cudaSuccess) status = cudaMalloc(&memory, bytes);
            first_ = static_cast<double*>(memory);
            if (status == cudaSuccess) status = cudaMemsetAsync(memory, 0, bytes, stream);
            if (status == cudaSuccess) status = cudaEventRecord(queued_, stream);
            if (status == cudaSuccess) return;
            give_back();
            cudaGetLastError(); // it is not the next call's
            if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
            check_cuda("cudaMalloc", status);
#endif
        } else {
            first_ = memory_.data();
            thrust::for_each_n(exec_, thrust::counting_iterator<index_t>(0), count_,
                               [first = first_](index_t i) { first[i] = 0; });
        }
    }
    ~thrust_kept() override {
        give_back();
    }
    thrust_kept(const thrust_kept&) = delete;
    thrust_kept& operator=(const thrust_kept&) = delete;

    void fetch(double* to) const override {
        if constexpr (is_cuda<Exec>) {
#ifdef __CUDACC__
            check_cuda("cudaEventSynchronize", cudaEventSynchronize(queued_));
            check_cuda("cudaMemcpy",
                       cudaMemcpy(to, first_, static_cast<std::size_t>(count_) * sizeof(double),
                                  cudaMemcpyDeviceToHost));
#endif
        } else {
            thrust::for_each_n(exec_, thrust::counting_iterator<index_t>(0), count_,
                               [=, from = first_](index_t i) { to[i] = from[i]; });
        }
    }

    bool is_of(const void* other) const override {
#ifdef __CUDACC__
        int device = 0;
        if (is_cuda<Exec> && (cudaGetDevice(&device) != cudaSuccess || device != device_))
            return false;
#endif
        return other == &mark;
    }

    /// The sums, for a policy of which each kernel is queued behind what was queued before, and before
    /// what is queued when this is gone.
    class loan {
      public:
        loan(thrust_kept& from, const Exec& exec) : from_(from), exec_(exec) {
#ifdef __CUDACC__
            if constexpr (is_cuda<Exec>)
                check_cuda("cudaStreamWaitEvent",
                           cudaStreamWaitEvent(thrust::cuda_cub::stream(exec_), from_.queued_, 0));
#endif
        }
        ~loan() {
#ifdef __CUDACC__
            if constexpr (is_cuda<Exec>)
                cudaEventRecord(from_.queued_, thrust::cuda_cub::stream(exec_));
#endif
        }
        loan(const loan&) = delete;
        loan& operator=(const loan&) = delete;

        double* data() const {
            return from_.first_;
        }

      private:
        thrust_kept& from_;
        Exec exec_;
    };
    loan lend(const Exec& exec) {
        return {*this, exec};
    }

  private:
    void give_back() {
#ifdef __CUDACC__
        if constexpr (is_cuda<Exec>) {
            if (queued_) cudaEventSynchronize(queued_);
            cudaFree(first_);
            if (queued_) cudaEventDestroy(queued_);
        }
#endif
    }

    Exec exec_;
    index_t count_;
    thrust_memory<double, Exec> memory_; ///< of systems that are not CUDA
    double* first_ = nullptr;
#ifdef __CUDACC__
    cudaEvent_t queued_ = nullptr;
    int device_ = 0;
#endif
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
