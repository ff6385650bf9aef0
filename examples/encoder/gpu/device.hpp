// Where encoders run, and how their numbers are stored there.
#pragma once

#include "encoder/network/engine.hpp"

namespace encoder {

enum class device_kind { cpu, cuda };
/// Of weights and activations; sums are made in fp32.
enum class precision { fp32, fp16, bf16 };

/// An encoder on the CPU, or on the present GPU with a stream of its own, which those made of it
/// share. Throws std::invalid_argument for a GPU where there is none or where the program was built
/// without CUDA, and for less than fp32 on the CPU.
std::unique_ptr<engine> make_engine(model m, device_kind on, precision in);

} // namespace encoder
