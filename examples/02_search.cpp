// The heads and filters to keep within a budget of multiply-adds.
#include <pare/cost.hpp>
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

    // [example
    const auto n = pare::moments_of_lengths(lengths);
    pare::prunable_units heads, filters;
    heads.importance = head_importance; // [layer][head]
    heads.cost = pare::head_macs(n, hidden, head_size);
    filters.importance = filter_importance; // [layer][filter]
    filters.cost = pare::filter_macs(n, hidden);
    filters.multiple = 16; // what the matrix kernels like

    const double dense = 8 * heads.cost + 512 * filters.cost;
    pare::search_result best = pare::search(heads, filters, 0.5 * dense);
    if (!best.feasible) return 1; // an answer, not an exception
    // example]

    for (const auto& mask : best.heads) {
        for (int keep : mask) std::printf("%d ", keep);
        std::printf("\n");
    }
    std::printf("%.3f of the multiply-adds, loss %.0f\n", best.cost / dense, best.loss);
    return best.cost <= 0.5 * dense ? 0 : 1;
}
