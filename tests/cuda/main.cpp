// Runs the component tests on a GPU. Their vectors are in memory that the GPU shares, because `new`
// takes it from there.
#define CATCH_CONFIG_RUNNER
#include "../catch.hpp"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory_resource>
#include <new>

namespace {

bool has_device() {
    static const bool has = [] {
        int count = 0;
        return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    }();
    return has;
}

struct shared_memory : std::pmr::memory_resource {
    void* do_allocate(std::size_t bytes, std::size_t) override {
        void* memory = nullptr;
        if (has_device() ? cudaMallocManaged(&memory, bytes) != cudaSuccess
                         : (memory = std::malloc(bytes)) == nullptr)
            throw std::bad_alloc();
        return memory;
    }
    void do_deallocate(void* memory, std::size_t, std::size_t) override {
        if (has_device())
            cudaFree(memory);
        else
            std::free(memory);
    }
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        return this == &other;
    }
};

// Never destroyed: what is static gives memory back at the very end.
std::pmr::memory_resource& pool() {
    alignas(shared_memory) static unsigned char place[sizeof(shared_memory)];
    alignas(std::pmr::synchronized_pool_resource) static unsigned char
        pool_place[sizeof(std::pmr::synchronized_pool_resource)];
    static auto* const made =
        new (pool_place) std::pmr::synchronized_pool_resource(new (place) shared_memory);
    return *made;
}

constexpr std::size_t header = 64; // what the pool gave, or 0 where malloc did; the rest is aligned
thread_local bool in_pool = false; // should CUDA itself use `new`

} // namespace

void* operator new(std::size_t size) {
    const std::size_t all = size + header;
    unsigned char* memory = nullptr;
    if (in_pool) {
        memory =
            static_cast<unsigned char*>(std::aligned_alloc(header, (all / header + 1) * header));
        if (!memory) throw std::bad_alloc();
        *reinterpret_cast<std::size_t*>(memory) = 0;
    } else {
        in_pool = true;
        memory = static_cast<unsigned char*>(pool().allocate(all, header));
        in_pool = false;
        *reinterpret_cast<std::size_t*>(memory) = all;
    }
    return memory + header;
}
void operator delete(void* memory) noexcept {
    if (!memory) return;
    auto* const first = static_cast<unsigned char*>(memory) - header;
    const std::size_t all = *reinterpret_cast<std::size_t*>(first);
    if (all == 0) return std::free(first);
    in_pool = true;
    pool().deallocate(first, all, header);
    in_pool = false;
}
void operator delete(void* memory, std::size_t) noexcept {
    operator delete(memory);
}

int main(int argc, char** argv) {
    if (!has_device()) {
        std::puts("skipped: no device");
        return 0;
    }
    return Catch::Session().run(argc, argv);
}
