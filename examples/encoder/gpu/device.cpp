#include "device.hpp"

#include "encoder/network/network.hpp"

#include <stdexcept>

namespace encoder {

#ifdef PARE_HAVE_CUDA
std::unique_ptr<engine> make_cuda_engine(model m, precision in); // cuda_engine.cu
#else
static std::unique_ptr<engine> make_cuda_engine(const model&, precision) {
    throw std::invalid_argument("this program was built without CUDA (PARE_CUDA=ON)");
}
#endif

std::unique_ptr<engine> make_engine(model m, device_kind on, precision in) {
    if (on == device_kind::cuda) return make_cuda_engine(std::move(m), in);
    if (in != precision::fp32)
        throw std::invalid_argument("on the CPU, an encoder runs in fp32 only");
    return std::make_unique<network>(std::move(m));
}

} // namespace encoder
