// What the Thrust policy has CUDA's libraries do: products of matrices by cuBLAS, systems of
// equations by cuSOLVER. Programs that call it link CUDA::cublas and CUDA::cusolver; where their
// headers are missing, the call says so.
#pragma once

#include "../../core/error.hpp"
#include "../../core/view.hpp"

#include <cuda_runtime_api.h>
#if __has_include(<cublas_v2.h>) && __has_include(<cusolverDn.h>)
#define PARE_HAVE_CUDA_LIBRARIES 1
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cusolverDn.h>
#endif

#include <algorithm>
#include <map>
#include <mutex>
#include <new>
#include <type_traits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

inline void check_cuda(const char* call, cudaError_t status) {
    if (status != cudaSuccess) fail<device_error>("on", call, ": ", cudaGetErrorString(status));
}

#ifdef PARE_HAVE_CUDA_LIBRARIES

inline void check_cuda(const char* call, cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS)
        fail<device_error>("on", call, ": ", cublasGetStatusString(status));
}
inline void check_cuda(const char* call, cusolverStatus_t status) {
    if (status != CUSOLVER_STATUS_SUCCESS)
        fail<device_error>("on", call, ": status ", static_cast<int>(status));
}

/// A library's handles of threads that have ended, by their device. None is destroyed, since CUDA may
/// have ended before: the next thread that wants one takes it, as making one takes memory and time.
template <class Handle>
class idle_handles {
  public:
    static idle_handles& all() {
        static auto* const handles = new idle_handles; // threads may end behind static objects
        return *handles;
    }
    /// One of `device`, or null.
    Handle take(int device) {
        const std::lock_guard<std::mutex> guard(lock_);
        std::vector<Handle>& some = of_device_[device];
        if (some.empty()) return nullptr;
        const Handle handle = some.back();
        some.pop_back();
        return handle;
    }
    void add(const std::map<int, Handle>& handles) {
        const std::lock_guard<std::mutex> guard(lock_);
        for (const auto& [device, handle] : handles)
            if (handle) of_device_[device].push_back(handle);
    }

  private:
    std::mutex lock_;
    std::map<int, std::vector<Handle>> of_device_;
};
/// A thread's.
template <class Handle>
struct own_handles {
    std::map<int, Handle> of_device;

    ~own_handles() {
        try {
            idle_handles<Handle>::all().add(of_device);
        } catch (const std::bad_alloc&) { // then nobody has them
        }
    }
};
/// The calling thread's handle of a library for its present device, which works on `stream`.
template <class Handle, class Create, class SetStream>
Handle library_handle(const char* call, cudaStream_t stream, Create create, SetStream set_stream) {
    thread_local own_handles<Handle> own;
    int device = 0;
    check_cuda("cudaGetDevice", cudaGetDevice(&device));
    Handle& handle = own.of_device[device];
    if (!handle) handle = idle_handles<Handle>::all().take(device);
    if (!handle) check_cuda(call, create(&handle));
    check_cuda(call, set_stream(handle, stream));
    return handle;
}
/// Parts of long sums are not rounded to a half type before they are added up.
inline cublasHandle_t blas(cudaStream_t stream) {
    const auto create = [](cublasHandle_t* handle) {
        const cublasStatus_t status = cublasCreate(handle);
        return status == CUBLAS_STATUS_SUCCESS
                   ? cublasSetMathMode(*handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)
                   : status;
    };
    return library_handle<cublasHandle_t>("cublasCreate", stream, create, cublasSetStream);
}
inline cusolverDnHandle_t solver(cudaStream_t stream) {
    return library_handle<cusolverDnHandle_t>("cusolverDnCreate", stream, cusolverDnCreate,
                                              cusolverDnSetStream);
}

template <class T>
inline constexpr cudaDataType_t cuda_type = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t cuda_type<double> = CUDA_R_64F;
template <>
inline constexpr cudaDataType_t cuda_type<__half> = CUDA_R_16F;
template <>
inline constexpr cudaDataType_t cuda_type<__nv_bfloat16> = CUDA_R_16BF;

/// A matrix that is stored row after row, or column after column, as cuBLAS reads it: columns first,
/// so that what has neighbours in its rows counts as transposed.
struct cuda_operand {
    cublasOperation_t operation;
    int distance; // between rows, or columns
};
template <class T>
cuda_operand operand_of(view<const T, 3> x) {
    const bool in_rows = x.stride(2) == 1 || x.extent(2) <= 1;
    const index_t distance =
        in_rows ? std::max(x.stride(1), x.extent(2)) : std::max(x.stride(2), x.extent(1));
    return {in_rows ? CUBLAS_OP_N : CUBLAS_OP_T, static_cast<int>(std::max<index_t>(1, distance))};
}

/// thrust_policy::multiply, for at least one product of at least one row, column and term. Of float
/// it has the digits of float: TF32, which has ten of them, is another type of calculation, and no
/// handle here is in a mode that allows it.
template <class T, class Out>
void cuda_multiply(cudaStream_t stream, view<const T, 3> a, view<const T, 3> b, view<Out, 3> out,
                   bool add) {
    static_assert(std::is_same_v<T, float> || cuda_type<T> != CUDA_R_32F,
                  "pare: cuBLAS multiplies float, double, __half and __nv_bfloat16");
    using C = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const C one = 1, before = add ? 1 : 0;
    const cuda_operand of_a = operand_of(a), of_b = operand_of(b),
                       of_out = operand_of(view<const Out, 3>(out));
    // Columns first, the transposed out is b' a'.
    check_cuda("cublasGemmStridedBatchedEx",
               cublasGemmStridedBatchedEx(
                   blas(stream), of_b.operation, of_a.operation, static_cast<int>(out.extent(2)),
                   static_cast<int>(out.extent(1)), static_cast<int>(a.extent(2)), &one,
                   b.data_handle(), cuda_type<T>, of_b.distance, b.stride(0), a.data_handle(),
                   cuda_type<T>, of_a.distance, a.stride(0), &before, out.data_handle(),
                   cuda_type<Out>, of_out.distance, out.stride(0), static_cast<int>(out.extent(0)),
                   std::is_same_v<C, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                   CUBLAS_GEMM_DEFAULT));
}

/// Overwrites the columns b [n x m], one after another, with g^-1 b; false if g is not positive
/// definite. g [n x n] has a valid lower triangle by rows, and is overwritten; `memory(bytes)` gives
/// memory of the device, as long as its result lives. Waits for `info`, an integer there.
template <class Memory>
bool cuda_solve(cudaStream_t stream, double* g, index_t n, double* b, index_t m, int* info,
                const Memory& memory) {
    const cusolverDnHandle_t handle = solver(stream);
    const auto order = static_cast<int>(n);
    const cublasFillMode_t lower = CUBLAS_FILL_MODE_UPPER; // columns first
    int need = 0;
    check_cuda("cusolverDnDpotrf_bufferSize",
               cusolverDnDpotrf_bufferSize(handle, lower, order, g, order, &need));
    const auto scratch = memory(need);
    check_cuda("cusolverDnDpotrf",
               cusolverDnDpotrf(handle, lower, order, g, order, scratch.data(), need, info));
    int minor = 0; // the first that is not positive definite
    check_cuda("cudaMemcpyAsync",
               cudaMemcpyAsync(&minor, info, sizeof minor, cudaMemcpyDeviceToHost, stream));
    check_cuda("cudaStreamSynchronize", cudaStreamSynchronize(stream));
    if (minor != 0) return false;
    check_cuda("cusolverDnDpotrs", cusolverDnDpotrs(handle, lower, order, static_cast<int>(m), g,
                                                    order, b, order, info));
    return true;
}

#else

template <class T, class Out>
void cuda_multiply(cudaStream_t, view<const T, 3>, view<const T, 3>, view<Out, 3>, bool) {
    static_assert(always_false<T>, "pare: products of matrices on CUDA need cuBLAS and cuSOLVER");
}
template <class Memory>
bool cuda_solve(cudaStream_t, double*, index_t, double*, index_t, int*, const Memory&) {
    static_assert(always_false<Memory>, "pare: solving on CUDA needs cuBLAS and cuSOLVER");
    return false;
}

#endif

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
