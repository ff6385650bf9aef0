#include <pare/fisher.hpp>
#ifdef CONSUMER_WITHOUT_SIMD
#include <pare/policy/seq.hpp>
constexpr auto policy = pare::seq;
#else
#include <pare/policy/simd.hpp>
constexpr auto policy = pare::simd;
#endif
#ifdef CONSUMER_USES_EIGEN
#include <Eigen/Core>
#endif

int main() {
#ifdef CONSUMER_USES_EIGEN
    const Eigen::Matrix<float, 2, 3, Eigen::RowMajor> gradients{{1, 2, 3}, {4, 5, 6}};
#else
    const float numbers[] = {1, 2, 3, 4, 5, 6};
    const pare::view<const float, 2> gradients(numbers, 2, 3);
#endif
    pare::fisher<> fisher(3);
    fisher.add(policy, gradients);
    return fisher.diagonal()[2] == 22.5 ? 0 : 1; // (3^2 + 6^2) / 2
}
