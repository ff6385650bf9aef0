// Encoders on a GPU.
#include "device.hpp"
#include "device_network.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <limits>
#include <stdexcept>

namespace encoder {
namespace {

using pare::detail::check_cuda;

/// A stream and its memory, from the device's pool, which keeps what it has got.
struct stream_home : device::home {
    using value_type = char; // it is Thrust's allocator

    explicit stream_home(int device) : home(name_of(device)) {
        cudaMemPool_t pool;
        check_cuda("cudaDeviceGetDefaultMemPool", cudaDeviceGetDefaultMemPool(&pool, device));
        std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
        check_cuda("cudaMemPoolSetAttribute",
                   cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &most));
        check_cuda("cudaStreamCreateWithFlags",
                   cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    }
    ~stream_home() override { cudaStreamDestroy(stream); }
    stream_home(const stream_home&) = delete;

    char* allocate(std::ptrdiff_t bytes) {
        void* memory = nullptr;
        const cudaError_t status =
            cudaMallocAsync(&memory, static_cast<std::size_t>(bytes), stream);
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError(); // it is not the next call's
            throw std::bad_alloc();
        }
        check_cuda("cudaMallocAsync", status);
        return static_cast<char*>(memory);
    }
    void deallocate(char* memory, std::size_t) noexcept { cudaFreeAsync(memory, stream); }

    cudaStream_t stream = nullptr;

  private:
    static std::string name_of(int device) {
        cudaDeviceProp properties;
        check_cuda("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, device));
        return properties.name;
    }
};

template <class T>
std::unique_ptr<engine> make(model m, const std::shared_ptr<stream_home>& home) {
    const auto policy = pare::on(thrust::cuda::par_nosync(*home).on(home->stream));
    return std::make_unique<device_network<std::decay_t<decltype(policy)>, T>>(std::move(m), policy,
                                                                               home);
}

} // namespace

std::unique_ptr<engine> make_cuda_engine(model m, precision in) {
    int devices = 0, device = 0;
    if (const cudaError_t status = cudaGetDeviceCount(&devices);
        status != cudaSuccess || devices == 0)
        throw std::invalid_argument(std::string("there is no GPU to run on: ") +
                                    cudaGetErrorString(status));
    check_cuda("cudaGetDevice", cudaGetDevice(&device));
    const auto home = std::make_shared<stream_home>(device);
    switch (in) {
    case precision::fp32:
        break;
    case precision::fp16:
        return make<__half>(std::move(m), home);
    case precision::bf16:
        return make<__nv_bfloat16>(std::move(m), home);
    }
    return make<float>(std::move(m), home);
}

} // namespace encoder
