// Dense layers by cuBLASLt, which adds the bias while a product is still in registers. Programs that
// call it link CUDA::cublasLt; where its header is missing, the call says so.
#pragma once

#include "cuda_matrix.hpp"

#if defined(PARE_HAVE_CUDA_LIBRARIES) && __has_include(<cublasLt.h>)
#define PARE_HAVE_CUBLAS_LT 1
#include <cublasLt.h>
#endif

#include <array>
#include <cstdint>
#include <map>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

#ifdef PARE_HAVE_CUBLAS_LT

/// The largest power of two up to 256 that divides an address: what kernels are chosen by.
inline std::uint32_t alignment_of(const void* p) {
    const auto address = reinterpret_cast<std::uintptr_t>(p) | 256;
    return static_cast<std::uint32_t>(address & (~address + 1));
}

/// thrust_policy::affine, for at least one row, input and output; false, with nothing done, where
/// cuBLASLt has no kernel for the shape. `memory(bytes)` gives memory of the device, as long as its
/// result lives.
///
/// There is no activation, though the epilogue has GELU: it is the form with tanh, which is up to
/// 4.7e-4 away from BERT's with erf (at -2.7, 62 units in the last place of a half).
template <class T, class Memory>
bool cuda_affine(cudaStream_t stream, view<const T, 2> x, view<const T, 2> weight,
                 view<const T, 1> bias, view<T, 2> out, const Memory& memory) {
    constexpr std::size_t most_memory = std::size_t{32} << 20; // what Hopper's kernels ask for
    // cuBLAS's handle is one of cuBLASLt's too, which knows no stream.
    const auto handle = reinterpret_cast<cublasLtHandle_t>(blas(stream));
    const float one = 1, zero = 0;
    cublasLtMatmulDescOpaque_t product;
    check_cuda("cublasLtMatmulDescInit",
               cublasLtMatmulDescInit(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto describe = [&](cublasLtMatmulDescAttributes_t what, const auto& value) {
        check_cuda("cublasLtMatmulDescSetAttribute",
                   cublasLtMatmulDescSetAttribute(&product, what, &value, sizeof value));
    };
    // Columns first, the transposed out is (weight as it is stored)' times (x as it is stored), and
    // the bias goes to its rows.
    describe(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    describe(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    // A choice is told how the matrices are aligned and not how the bias is, which kernels may read 16
    // bytes at a time.
    const bool moves = alignment_of(bias.data_handle()) < 16;
    const std::size_t bias_bytes = static_cast<std::size_t>(bias.extent(0)) * sizeof(T);
    const auto moved = memory(moves ? static_cast<index_t>(bias_bytes) : 0);
    if (moves)
        check_cuda("cudaMemcpyAsync", cudaMemcpyAsync(moved.data(), bias.data_handle(), bias_bytes,
                                                      cudaMemcpyDeviceToDevice, stream));
    const void* bias_address = bias.data_handle();
    if (moves) bias_address = moved.data();
    describe(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_address);
    const auto layout = [&](const auto& rows, cublasLtMatrixLayoutOpaque_t& of) {
        const index_t distance = std::max(rows.stride(0), rows.extent(1));
        check_cuda("cublasLtMatrixLayoutInit",
                   cublasLtMatrixLayoutInit(&of, cuda_type<T>,
                                            static_cast<std::uint64_t>(rows.extent(1)),
                                            static_cast<std::uint64_t>(rows.extent(0)), distance));
        return distance;
    };
    cublasLtMatrixLayoutOpaque_t of_weight, of_x, of_out;
    const index_t weight_distance = layout(weight, of_weight), x_distance = layout(x, of_x),
                  out_distance = layout(out, of_out);

    // The choice of a kernel takes longer than its launch, and depends on no more than these.
    int device = 0;
    check_cuda("cudaGetDevice", cudaGetDevice(&device));
    const std::uint32_t aligned[] = {alignment_of(weight.data_handle()),
                                     alignment_of(x.data_handle()),
                                     alignment_of(out.data_handle())};
    const std::array<index_t, 8> shape = {
        device,       x.extent(0),
        x.extent(1),  weight.extent(0),
        x_distance,   weight_distance,
        out_distance, aligned[0] + (aligned[1] << 10) + (index_t{aligned[2]} << 20)};
    thread_local std::map<std::array<index_t, 8>, cublasLtMatmulHeuristicResult_t> choices;
    auto at = choices.find(shape);
    if (at == choices.end()) {
        if (choices.size() >= 4096) choices.clear(); // of texts, each batch may have another shape
        cublasLtMatmulPreferenceOpaque_t wish;
        check_cuda("cublasLtMatmulPreferenceInit", cublasLtMatmulPreferenceInit(&wish));
        const auto ask = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
            check_cuda("cublasLtMatmulPreferenceSetAttribute",
                       cublasLtMatmulPreferenceSetAttribute(&wish, what, &value, sizeof value));
        };
        ask(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_memory);
        // Parts of long sums are not rounded to a half type before they are added up.
        constexpr std::uint32_t in_float = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        ask(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, in_float);
        ask(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned[0]);
        ask(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned[1]);
        ask(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned[2]);
        ask(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned[2]);
        cublasLtMatmulHeuristicResult_t choice;
        int found = 0;
        const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
            handle, &product, &of_weight, &of_x, &of_out, &of_out, &wish, 1, &choice, &found);
        if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE)
            check_cuda("cublasLtMatmulAlgoGetHeuristic", status);
        if (status != CUBLAS_STATUS_SUCCESS || found == 0)
            choice.state = CUBLAS_STATUS_NOT_SUPPORTED;
        at = choices.emplace(shape, choice).first;
    }
    const cublasLtMatmulHeuristicResult_t& choice = at->second;
    if (choice.state != CUBLAS_STATUS_SUCCESS) return false;
    const auto scratch = memory(static_cast<index_t>(choice.workspaceSize));
    check_cuda("cublasLtMatmul",
               cublasLtMatmul(handle, &product, &one, weight.data_handle(), &of_weight,
                              x.data_handle(), &of_x, &zero, out.data_handle(), &of_out,
                              out.data_handle(), &of_out, &choice.algo, scratch.data(),
                              choice.workspaceSize, stream));
    return true;
}

#else

template <class T, class Memory>
bool cuda_affine(cudaStream_t, view<const T, 2>, view<const T, 2>, view<const T, 1>, view<T, 2>,
                 const Memory&) {
    static_assert(always_false<T>, "pare: dense layers on CUDA need cuBLASLt");
    return false;
}

#endif

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
