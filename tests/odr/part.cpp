// Compiled once for each instruction set, with PART naming its function.
#include <pare/compact.hpp>
#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>
#include <pare/soft_mask.hpp>

#include <numeric>
#include <vector>

// Only plain types cross between parts: pare's own differ from one instruction set to the next.
double PART(int samples, int units) {
    std::vector<float> gradients(static_cast<std::size_t>(samples * units));
    std::iota(gradients.begin(), gradients.end(), -100.0f);
    pare::fisher<> fisher(units, pare::fisher_kind::block);
    fisher.add(pare::simd, pare::view<const float, 2>(gradients.data(), samples, units));
    pare::fisher<> reference(units, pare::fisher_kind::block);
    reference.add(pare::seq, pare::view<const float, 2>(gradients.data(), samples, units));
    reference.merge(fisher);
    const std::vector<double> diagonal = reference.diagonal();

    std::vector<float> mask(gradients.size());
    pare::soft_mask(pare::simd, gradients, 0, 10, mask);
    const double threshold_gradient =
        pare::soft_mask_backward(pare::simd, mask, gradients, 10, gradients);
    std::vector<int> index(mask.size());
    const auto kept = pare::keep_above(pare::simd, mask, 0.5, index);
    pare::gather_rows(pare::simd, pare::view(index.data(), kept), gradients);
    return std::accumulate(diagonal.begin(), diagonal.end(), threshold_gradient + gradients[0]);
}
