// Exchanging kept and pruned filters where their effects add up.
#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>
#include <pare/rearrange.hpp>

#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

int main() {
    // Per-sample mask gradients: filters 0 and 1 are small, but their gradients always go together.
    const int samples = 100, filters = 4;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> g;
    for (int s = 0; s < samples; ++s) {
        const float shared = normal(random);
        for (float x : {shared, shared, 1.1f * normal(random), 1.2f * normal(random)})
            g.push_back(x);
    }
    std::vector<std::uint8_t> mask = {0, 0, 1, 1}; // the two smallest are pruned

    // [example]
    pare::fisher<> fisher(filters, pare::fisher_kind::block);
    fisher.add(pare::simd, pare::view(g.data(), samples, filters));
    pare::rearrange_result r = pare::rearrange(pare::simd, fisher.block_sums(), mask);
    // [example]

    std::printf("loss %.1f -> %.1f, mask %d %d %d %d\n", r.loss_before, r.loss_after, mask[0],
                mask[1], mask[2], mask[3]);
    return r.converged && mask[0] + mask[1] == 1 ? 0 : 1;
}
