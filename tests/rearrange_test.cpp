// Exchanges against the loss 1/2 (1 - m)' I (1 - m) itself, and the first sweep against a plain
// version of the published greedy.
#include "policies.hpp"
#include "support.hpp"
#include <pare/rearrange.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace rearrange_test {

namespace {

using mask = std::vector<std::uint8_t>;

// x'x of `samples` random rows, some columns larger than others.
template <class T>
matrix<T> random_block(index_t n, index_t samples, random_source& random, layout l = layout::rows) {
    matrix<double> x(samples, n, random);
    for (index_t j = 0; j < n; ++j) {
        const double size = std::exp(random.uniform(-1, 1)), shift = random.uniform(-0.5, 0.5);
        for (index_t s = 0; s < samples; ++s) x(s, j) = size * (x(s, j) + shift);
    }
    matrix<T> g(n, n, l);
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j <= i; ++j) {
            double sum = 0;
            for (index_t s = 0; s < samples; ++s) sum += x(s, i) * x(s, j);
            g(i, j) = g(j, i) = static_cast<T>(sum);
        }
    return g;
}

template <class T>
real loss_of(const matrix<T>& g, double ridge, const mask& m) {
    real loss = 0;
    for (std::size_t i = 0; i < m.size(); ++i)
        for (std::size_t j = 0; j < m.size(); ++j)
            if (!m[i] && !m[j]) {
                const auto a = static_cast<index_t>(i), b = static_cast<index_t>(j);
                loss += static_cast<real>(g(a, b)) * (i == j ? 1 + static_cast<real>(ridge) : 1);
            }
    return loss / 2;
}

// The published greedy from its definition: kept units by ascending diagonal; each is pruned, and
// the pruned unit whose return leaves the least loss is kept. False if two returns were so close
// that rounding may choose either.
template <class T>
bool greedy_sweep(const matrix<T>& g, double ridge, mask& m) {
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < m.size(); ++i)
        if (m[i]) order.push_back(i);
    const auto diagonal = [&](std::size_t i) {
        return g(static_cast<index_t>(i), static_cast<index_t>(i));
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return diagonal(a) < diagonal(b); });
    for (std::size_t a : order) {
        m[a] = 0;
        const real all = loss_of(g, ridge, m);
        real best = std::numeric_limits<real>::max(), second = best;
        std::size_t back = a;
        for (std::size_t b = 0; b < m.size(); ++b) {
            if (m[b]) continue;
            m[b] = 1;
            const real loss = loss_of(g, ridge, m);
            m[b] = 0;
            if (loss < best) {
                second = best;
                best = loss;
                back = b;
            } else {
                second = std::min(second, loss);
            }
        }
        if (second - best < static_cast<real>(tolerance<T>) * all) return false;
        m[back] = 1;
    }
    return true;
}

mask random_mask(index_t n, index_t kept, random_source& random) {
    mask m(static_cast<std::size_t>(n), 0);
    std::fill(m.begin(), m.begin() + kept, std::uint8_t{1});
    std::shuffle(m.begin(), m.end(), random.engine);
    return m;
}

index_t count(const mask& m) {
    return std::count(m.begin(), m.end(), 1);
}

template <class T>
void check_local_optimum(const matrix<T>& g, double ridge, mask m) {
    const real loss = loss_of(g, ridge, m);
    real whole = 0; // what rounding is relative to
    for (index_t i = 0; i < g.width; ++i) whole += static_cast<real>(g(i, i));
    for (std::size_t i = 0; i < m.size(); ++i)
        for (std::size_t j = 0; j < m.size(); ++j)
            if (m[i] && !m[j]) {
                std::swap(m[i], m[j]);
                const real exchanged = loss_of(g, ridge, m);
                REQUIRE(exchanged >= loss - static_cast<real>(tolerance<T>) * (whole + loss));
                std::swap(m[i], m[j]);
            }
}

} // namespace

TEMPLATE_LIST_TEST_CASE("one sweep is the published greedy", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    int compared = 0, total = 0;
    for (index_t n : {1, 2, 3, 5, 8, 12, 15, 16, 17, 33})
        for (index_t kept : {index_t{1}, n / 3, n / 2, n - 1})
            for (double ridge : {0.0, 0.4}) {
                CAPTURE(n, kept, ridge);
                const auto g = random_block<T>(n, 2 * n, random, layout::padded);
                mask m = random_mask(n, kept, random), expected = m;
                const auto result = pare::rearrange(TestType::policy(), g.view(), m, {ridge, 1});
                CHECK(result.sweeps == 1);
                ++total;
                if (!greedy_sweep(g, ridge, expected)) continue;
                ++compared;
                CHECK(m == expected);
            }
    CHECK(compared > total * 3 / 4);
}

TEMPLATE_LIST_TEST_CASE("rearranged masks are local optima of the same size", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    index_t exchanges = 0;
    for (index_t n : {0, 1, 2, 4, 7, 8, 9, 16, 31, 33, 40})
        for (index_t kept : {index_t{0}, n / 4, n / 2, n})
            for (index_t samples : {index_t{3}, 2 * n + 5})
                for (double ridge : {0.0, 0.1, 1.5}) {
                    CAPTURE(n, kept, samples, ridge);
                    const auto g = random_block<T>(n, samples, random);
                    mask m = random_mask(n, kept, random);
                    const mask before = m;
                    const auto result =
                        pare::rearrange(TestType::policy(), g.view(), m, {ridge, 100});
                    CHECK(count(m) == kept);
                    CHECK(result.converged);
                    real whole = 1e-300L;
                    for (index_t i = 0; i < n; ++i) whole += static_cast<real>(g(i, i));
                    const double slack = rounding<double> * 100 * static_cast<double>(n) *
                                         static_cast<double>(whole);
                    CHECK_THAT(result.loss_before,
                               WithinAbs(static_cast<double>(loss_of(g, ridge, before)), slack));
                    CHECK_THAT(result.loss_after,
                               WithinAbs(static_cast<double>(loss_of(g, ridge, m)), slack));
                    CHECK(result.loss_after <= result.loss_before + slack);
                    if (result.exchanges == 0) CHECK(m == before);
                    check_local_optimum(g, ridge, m);
                    exchanges += result.exchanges;
                }
    CHECK(exchanges > 100);
}

TEMPLATE_LIST_TEST_CASE("rearrange, by hand", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    // Units 0 and 1 do the same: pruning both costs 4 x one. Units 2 and 3 cancel.
    const std::vector<T> g{1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 2, -2, 0, 0, -2, 2};
    const pare::view<const T, 2> block(g.data(), 4, 4);
    mask m{0, 0, 1, 1};
    const auto result = pare::rearrange(policy, block, m);
    CHECK(m == mask{1, 1, 0, 0});
    CHECK(result.loss_before == 2);
    CHECK(result.loss_after == 0);
    CHECK(result.converged);

    SECTION("no sweeps: only the loss") {
        mask same{0, 1, 1, 0};
        const auto r = pare::rearrange(policy, block, same, {0, 0});
        CHECK(same == mask{0, 1, 1, 0});
        CHECK((r.sweeps == 0 && r.exchanges == 0 && !r.converged));
        CHECK(r.loss_before == 1.5);
        CHECK(r.loss_after == 1.5);
    }
    SECTION("any integer mask in any stride; whatever is not 0 is kept") {
        std::vector<int> wide{0, -7, 0, -7, 5, -7, 9, -7};
        pare::rearrange(policy, block, pare::view<int, 1>(wide.data(), {4}, {2}));
        CHECK(wide == std::vector<int>{1, -7, 1, -7, 0, -7, 0, -7});
    }
    SECTION("a block of zeros") {
        const std::vector<T> zeros(16, T(0));
        mask same{0, 1, 1, 0};
        const auto r = pare::rearrange(policy, pare::view(zeros.data(), 4, 4), same);
        CHECK(same == mask{0, 1, 1, 0});
        CHECK(r.converged);
    }
}

TEMPLATE_LIST_TEST_CASE("a broken block keeps the counts", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    auto g = random_block<T>(40, 50, random);
    g(3, 20) = g(20, 3) = not_a_number<T>();
    g(7, 8) = g(8, 7) = infinite<T>();
    mask m = random_mask(40, 20, random);
    pare::rearrange(TestType::policy(), g.view(), m);
    CHECK(count(m) == 20);
}

TEST_CASE("rearrange checks its arguments") {
    random_source random;
    CAPTURE(random);
    auto g = random_block<double>(6, 10, random);
    const matrix<double> narrow(6, 5), columns(6, 6, layout::columns);
    mask m{1, 0, 1, 0, 1, 0}, shorter{1, 0};
    const mask before = m;
    const double nan = not_a_number<double>(), infinity = infinite<double>();
    CHECK_THROWS_AS(pare::rearrange(pare::seq, narrow.view(), m), pare::shape_error);
    CHECK_THROWS_AS(pare::rearrange(pare::seq, columns.view(), m), pare::shape_error);
    CHECK(sentence_of<pare::shape_error>([&] { pare::rearrange(pare::seq, g.view(), shorter); }) ==
          "pare::rearrange: block is 6 x 6, mask has 2 units");
    for (double ridge : {-1.0, nan, infinity})
        CHECK_THROWS_AS(pare::rearrange(pare::seq, g.view(), m, {ridge, 1}), pare::value_error);
    CHECK_THROWS_AS(pare::rearrange(pare::seq, g.view(), m, {0, -1}), pare::value_error);
    for (double bad : {-1.0, nan, infinity, std::numeric_limits<double>::max()}) {
        g(4, 4) = bad;
        CHECK_THAT(sentence_of<pare::value_error>([&] { pare::rearrange(pare::seq, g.view(), m); }),
                   ContainsSubstring("diagonal element 4 is"));
    }
    CHECK(m == before);
}

} // namespace rearrange_test
