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

#include <map>
#include <type_traits>

namespace pare {

/// A call of CUDA that failed.
struct device_error : error {
    using error::error;
};

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

/// The calling thread's handle of a library for its present device, which works on `stream`. They
/// are made once and kept: CUDA may have ended when a thread does.
template <class Handle, class Create, class SetStream>
Handle library_handle(const char* call, cudaStream_t stream, Create create, SetStream set_stream) {
    thread_local std::map<int, Handle> of_device;
    int device = 0;
    check_cuda("cudaGetDevice", cudaGetDevice(&device));
    Handle& handle = of_device[device];
    if (!handle) check_cuda(call, create(&handle));
    check_cuda(call, set_stream(handle, stream));
    return handle;
}
inline cublasHandle_t blas(cudaStream_t stream) {
    return library_handle<cublasHandle_t>("cublasCreate", stream, cublasCreate, cublasSetStream);
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

/// out[i, j] = sum over rows t of x[t, i] * y[t, j], for elements of rows that are neighbours.
template <class T, class C>
void cuda_products(cudaStream_t stream, view<const T, 2> x, view<const T, 2> y, C* out) {
    static_assert(std::is_same_v<T, float> || cuda_type<T> != CUDA_R_32F,
                  "pare: cuBLAS multiplies float, double, __half and __nv_bfloat16");
    const C one = 1, zero = 0;
    const auto rows = [](view<const T, 2> v) { // their distance
        return static_cast<int>(v.extent(0) > 1 ? v.stride(0) : v.extent(1));
    };
    const auto columns_x = static_cast<int>(x.extent(1)), columns_y = static_cast<int>(y.extent(1));
    // Columns first, as cuBLAS reads them: the transposed out is y' times x.
    check_cuda("cublasGemmEx",
               cublasGemmEx(blas(stream), CUBLAS_OP_N, CUBLAS_OP_T, columns_y, columns_x,
                            static_cast<int>(x.extent(0)), &one, y.data_handle(), cuda_type<T>,
                            rows(y), x.data_handle(), cuda_type<T>, rows(x), &zero, out,
                            cuda_type<C>, columns_y,
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

template <class T, class C>
void cuda_products(cudaStream_t, view<const T, 2>, view<const T, 2>, C*) {
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
