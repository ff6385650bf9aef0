// Rows of half types: what they give against the same numbers in double, and on registers against
// the same floats.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/fisher.hpp>
#include <pare/gram.hpp>
#include <pare/importance.hpp>
#include <pare/merge.hpp>
#include <pare/soft_mask.hpp>

#include <tuple>

namespace half_rows_test {

namespace {

/// The same numbers in T.
template <class T, class Half>
matrix<T> of(const matrix<Half>& x, layout l = layout::rows) {
    matrix<T> wide(x.height, x.width, l);
    for (index_t i = 0; i < x.height; ++i)
        for (index_t j = 0; j < x.width; ++j) wide(i, j) = static_cast<T>(value(x(i, j)));
    return wide;
}
template <class T>
std::vector<double> numbers(const matrix<T>& x) {
    std::vector<double> all;
    for (index_t i = 0; i < x.height; ++i)
        for (index_t j = 0; j < x.width; ++j) all.push_back(value(x(i, j)));
    return all;
}

constexpr index_t rows = 37;
const std::vector<int> offsets = {0, 20, 20, rows};

/// What rows x and y [rows x columns] give in sums, in double.
template <class Policy, class T>
std::vector<double> sums_of(const Policy& policy, const matrix<T>& x, const matrix<T>& y) {
    const index_t columns = x.width;
    std::vector<double> all;
    const auto append = [&](const std::vector<double>& more) {
        all.insert(all.end(), more.begin(), more.end());
    };
    matrix<double> out(3, columns);
    pare::mask_gradients(policy, x.view(), y.view(), offsets, 1, out.view());
    append(numbers(out));
    matrix<double> scores(1, columns);
    const pare::view<const T, 3> probabilities(x.data.data(), {1, rows, columns},
                                               {0, x.row_stride, x.column_stride});
    pare::importance(policy, probabilities, pare::view(scores.data.data(), columns));
    append(numbers(scores));
    pare::gram<> gram(columns), cross(columns, columns);
    gram.add(policy, x.view());
    cross.add(policy, x.view(), y.view());
    append(gram.mean());
    append(cross.mean());
    pare::fisher<> fisher(columns);
    fisher.add(policy, x.view());
    append(fisher.diagonal());
    return all;
}

/// What they give in rows, of T.
template <class Policy, class T>
std::vector<double> rows_of(const Policy& policy, const matrix<T>& x, const matrix<T>& y,
                            layout l) {
    const index_t columns = x.width;
    std::vector<double> all;
    const auto append = [&](const matrix<T>& more) {
        CHECK(more.outside_untouched());
        const std::vector<double> found = numbers(more);
        all.insert(all.end(), found.begin(), found.end());
    };
    std::vector<T> mask, sizes(rows, static_cast<T>(1.0F)), mask_gradient(rows);
    for (index_t t = 0; t < rows; ++t) mask.push_back(x(t, 0));
    matrix<T> to(rows, columns, l);
    pare::scale_rows(policy, mask, x.view(), to.view());
    append(to);
    pare::scale_rows_backward(policy, mask, x.view(), y.view(), to.view(), mask_gradient);
    append(to);
    matrix<T> of_scores(1, rows), of_mask(1, rows);
    all.push_back(pare::soft_mask_backward(policy, mask, mask_gradient, 0.5,
                                           pare::view(of_scores.data.data(), rows)));
    for (index_t t = 0; t < rows; ++t) of_mask(0, t) = mask_gradient[static_cast<std::size_t>(t)];
    append(of_scores);
    append(of_mask);
    std::vector<int> index, nearest;
    for (int t = 0; t < rows; ++t) {
        if (t % 3 == 0) index.push_back(t);
        nearest.push_back(t % 3 == 1 ? t - 1 : -1);
    }
    matrix<T> merged(static_cast<index_t>(index.size()), columns, l);
    pare::merge_rows(policy, index, nearest, sizes, pare::from_to(x.view(), merged.view()));
    append(merged);
    return all;
}

void check_near(const std::vector<double>& found, const std::vector<double>& expected,
                double share) {
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i)
        CHECK(distance(found[i], expected[i]) <= share * (1 + std::abs(expected[i])));
}

} // namespace

TEMPLATE_LIST_TEST_CASE("rows of half types give what the same numbers give in double", "",
                        half_types) {
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::padded, layout::columns, layout::interleaved})
        for (const index_t columns : {1, 7, 64, 131}) {
            CAPTURE(l, columns);
            const matrix<TestType> x(rows, columns, random, l), y(rows, columns, random, l);
            const auto check = [&](const auto& policy) {
                check_near(sums_of(policy, x, y), sums_of(pare::seq, of<double>(x), of<double>(y)),
                           tolerance<float>);
                check_near(rows_of(policy, x, y, l),
                           rows_of(pare::seq, of<double>(x), of<double>(y), layout::rows),
                           8 * epsilon_of<TestType>);
            };
            check(std::tuple_element_t<0, policies>::policy());
            check(std::tuple_element_t<std::tuple_size_v<policies> - 1, policies>::policy());
        }
}

#if !defined(__CUDACC__) && !defined(PARE_TEST_THRUST)
TEMPLATE_LIST_TEST_CASE("on registers, sums over rows of half types are those of the same floats",
                        "", half_types) {
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::padded})
        for (const index_t columns : {1, 7, 64, 131}) {
            CAPTURE(l, columns);
            const matrix<TestType> x(rows, columns, random, l), y(rows, columns, random, l);
            CHECK(same_bits(sums_of(pare::simd, x, y),
                            sums_of(pare::simd, of<float>(x, l), of<float>(y, l))));
        }
}
#endif

} // namespace half_rows_test
