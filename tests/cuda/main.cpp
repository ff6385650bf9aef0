// Runs the component tests on a GPU, where there is one.
#define CATCH_CONFIG_RUNNER
#include "../catch.hpp"

#include <cuda_runtime_api.h>

#include <cstdio>

int main(int argc, char** argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::puts("skipped: no device");
        return 0;
    }
    return Catch::Session().run(argc, argv);
}
