#include "verify.hpp"

#include <algorithm>

namespace encoder {
namespace {

std::vector<vector> factors(const std::vector<std::vector<std::uint8_t>>& kept) {
    std::vector<vector> all;
    for (const auto& mask : kept) {
        all.emplace_back(static_cast<Eigen::Index>(mask.size()));
        std::copy(mask.begin(), mask.end(), all.back().begin());
    }
    return all;
}

} // namespace

std::unique_ptr<engine> with_masks(const engine& where, const model& dense, const model& pruned,
                                   const kept_units& kept) {
    std::unique_ptr<engine> masked = where.make(expand(dense, pruned, kept));
    masked->set_masks({factors(kept.heads), factors(kept.filters)});
    masked->set_token_pruning({});
    return masked;
}

double tolerance(data_type type, precision used, const matrix& outputs) {
    double unit = 1e-4;
    if (type == data_type::f16 || used == precision::fp16) unit = 5e-3;
    if (type == data_type::bf16 || used == precision::bf16) unit = 4e-2;
    return unit * std::max(1., static_cast<double>(outputs.cwiseAbs().maxCoeff()));
}

} // namespace encoder
