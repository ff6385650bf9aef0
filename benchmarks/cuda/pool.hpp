// Memory of a GPU for the Thrust policy, on a stream: what is given back is used again.
#pragma once

#include <pare/policy/thrust.hpp>

#include <cstddef>
#include <cstdint>

namespace bench {

/// An allocator of Thrust's. It is the caller's stream.
struct pool {
    using value_type = char;

    explicit pool(cudaStream_t of) : stream(of) {
        int device = 0;
        cudaMemPool_t all;
        std::uint64_t most = ~std::uint64_t{0};
        pare::detail::check_cuda("cudaGetDevice", cudaGetDevice(&device));
        pare::detail::check_cuda("cudaDeviceGetDefaultMemPool",
                                 cudaDeviceGetDefaultMemPool(&all, device));
        pare::detail::check_cuda(
            "cudaMemPoolSetAttribute",
            cudaMemPoolSetAttribute(all, cudaMemPoolAttrReleaseThreshold, &most));
    }
    pool(const pool&) = delete;

    char* allocate(std::ptrdiff_t bytes) {
        void* memory = nullptr;
        pare::detail::check_cuda("cudaMallocAsync",
                                 cudaMallocAsync(&memory, static_cast<std::size_t>(bytes), stream));
        return static_cast<char*>(memory);
    }
    void deallocate(char* memory, std::size_t) noexcept { cudaFreeAsync(memory, stream); }

    auto policy() { return pare::on(thrust::cuda::par_nosync(*this).on(stream)); }

    cudaStream_t stream;
};

} // namespace bench
