// Compiled once for each instruction set, with PART naming its function.
#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>

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
    return std::accumulate(diagonal.begin(), diagonal.end(), 0.0);
}
