// What vector registers' numbers are folded to, for every number of registers that kernels fold at once.
#include "support.hpp"
#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace registers_test {

namespace {

template <index_t Rows, class T>
void check_fold(random_source& random) {
    constexpr index_t n = pare::detail::lanes<T>;
    std::vector<T> numbers(static_cast<std::size_t>(Rows * n));
    for (T& x : numbers) x = std::round(random.uniform<T>(-1000, 1000)); // sums are exact
    pare::detail::batch<T> rows[Rows];
    for (index_t r = 0; r < Rows; ++r)
        rows[r] = pare::detail::batch<T>::load_unaligned(numbers.data() + r * n);
    T sums[Rows + 1], most[Rows + 1];
    sums[Rows] = most[Rows] = poison<T>();
    pare::detail::fold<Rows, T>(rows, sums, [](const auto& x, const auto& y) { return x + y; });
    pare::detail::fold<Rows, T>(rows, most,
                                [](const auto& x, const auto& y) { return xsimd::max(x, y); });
    for (index_t r = 0; r < Rows; ++r) {
        const auto first = numbers.begin() + r * n;
        CHECK(sums[r] == std::accumulate(first, first + n, T(0)));
        CHECK(most[r] == *std::max_element(first, first + n));
    }
    CHECK(same_bits(sums[Rows], poison<T>()));
    CHECK(same_bits(most[Rows], poison<T>()));
}
template <class T, index_t... R>
void check_folds(std::integer_sequence<index_t, R...>) {
    random_source random;
    (check_fold<R + 1, T>(random), ...);
}

} // namespace

TEST_CASE("registers fold to the sum and the largest of each, and no more is written") {
    check_folds<float>(std::make_integer_sequence<index_t, 24>());
    check_folds<double>(std::make_integer_sequence<index_t, 24>());
}

} // namespace registers_test
