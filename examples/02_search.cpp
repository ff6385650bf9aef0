// The heads and filters to keep within a budget of multiply-adds.
#include <pare/cost.hpp>
#include <pare/loss_curve.hpp>
#include <pare/search.hpp>

#include <cstdio>
#include <vector>

int main() {
    const std::vector<int> lengths = {12, 200, 45}; // of the sequences that the model will see
    const int hidden = 64, head_size = 16;
    const std::vector<std::vector<double>> head_importance = {{90, 10, 40, 20}, {10, 80, 70, 60}};
    std::vector<std::vector<double>> filter_importance(2);
    for (int f = 0; f < 256; ++f) {
        filter_importance[0].push_back(f % 16);
        filter_importance[1].push_back(f % 4);
    }

    // [example]
    const auto n = pare::moments_of_lengths(lengths);
    const double head = pare::head_macs(n, hidden, head_size),
                 filter = pare::filter_macs(n, hidden);
    std::vector<pare::loss_curve> curves; // heads, then filters of each layer
    std::vector<pare::prunable> sublayers;
    for (std::size_t l = 0; l < 2; ++l) {
        curves.push_back(pare::sorted_losses(head_importance[l]));
        sublayers.push_back({curves.back().loss, pare::cost_table::linear(4, head)});
        curves.push_back(pare::sorted_losses(filter_importance[l]));
        sublayers.push_back({curves.back().loss, pare::cost_table::linear(256, filter)});
        sublayers.back().multiple = 16; // what the matrix kernels like
    }
    const double dense = 8 * head + 512 * filter;
    const pare::width_choice best = pare::width_search(sublayers).best(0.5 * dense);
    if (!best.feasible) return 1; // an answer, not an exception
    const auto heads = curves[0].mask(best.kept[0]), filters = curves[1].mask(best.kept[1]);
    // [example]

    for (const int stays : heads) std::printf("%d ", stays);
    std::printf("\n%d of %d filters", static_cast<int>(best.kept[1]),
                static_cast<int>(filters.size()));
    std::printf("\n%.3f of the multiply-adds, loss %.0f\n", best.cost / dense, best.loss);
    return best.cost <= 0.5 * dense ? 0 : 1;
}
