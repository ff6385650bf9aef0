#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>

int main() {
    const float gradients[] = {1, 2, 3, 4, 5, 6};
    pare::fisher<> fisher(3);
    fisher.add(pare::simd, pare::view<const float, 2>(gradients, 2, 3));
    return fisher.diagonal()[2] == 22.5 ? 0 : 1; // (3^2 + 6^2) / 2
}
