// Mask gradients and Fisher information against their definitions.
#include "policies.hpp"
#include "support.hpp"
#include <pare/fisher.hpp>

#include <cstdint>
#include <numeric>

namespace fisher_test {

namespace {

struct sum {
    real value = 0, magnitude = 0;
    void add(real x) {
        value += x;
        magnitude += std::abs(x);
    }
};

template <class T>
void check_close(T actual, const sum& expected, double share) {
    const double slack = share * static_cast<double>(expected.magnitude);
    if (distance(actual, expected.value) > static_cast<real>(slack))
        CHECK_THAT(static_cast<double>(actual),
                   WithinAbs(static_cast<double>(expected.value), slack));
}

template <class Policy, class T, class Offset>
void check_mask_gradients(const Policy& policy, const matrix<T>& a, const matrix<T>& da,
                          const std::vector<Offset>& offsets, index_t unit,
                          layout of_out = layout::rows) {
    const index_t samples = static_cast<index_t>(offsets.size()) - 1, units = a.width / unit;
    CAPTURE(a.height, a.width, unit, samples);
    matrix<T> out(samples, units, of_out);
    pare::mask_gradients(policy, a.view(), da.view(), offsets, unit, out.view());
    CHECK(out.outside_untouched());
    for (index_t s = 0; s < samples; ++s)
        for (index_t u = 0; u < units; ++u) {
            sum expected;
            for (auto t = static_cast<index_t>(offsets[static_cast<std::size_t>(s)]);
                 t < static_cast<index_t>(offsets[static_cast<std::size_t>(s) + 1]); ++t)
                for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                    expected.add(static_cast<real>(a(t, c)) * static_cast<real>(da(t, c)));
            check_close(out(s, u), expected, tolerance<T>);
        }
}

std::vector<index_t> random_offsets(random_source& random, index_t samples, index_t longest) {
    std::vector<index_t> offsets{0};
    for (index_t s = 0; s < samples; ++s)
        offsets.push_back(offsets.back() + std::max<index_t>(0, random.integer(-2, longest)));
    return offsets;
}

// Diagonal and block of all rows of g.
template <class T>
void check_fisher(pare::fisher<>& fisher, const matrix<T>& g, bool block) {
    const index_t n = g.width;
    CAPTURE(n, g.height);
    CHECK(fisher.units() == n);
    CHECK(fisher.samples() == g.height);
    const std::vector<double> diagonal = fisher.diagonal();
    REQUIRE(static_cast<index_t>(diagonal.size()) == n);
    for (index_t i = 0; i < n; ++i)
        for (index_t j = block ? 0 : i; j <= i; ++j) {
            sum expected;
            for (index_t s = 0; s < g.height; ++s)
                expected.add(static_cast<real>(g(s, i)) * static_cast<real>(g(s, j)));
            if (block) {
                check_close(fisher.block_sums()(i, j), expected, tolerance<T>);
                CHECK(fisher.block_sums()(j, i) == fisher.block_sums()(i, j));
            }
            if (i == j) {
                const real count = std::max<real>(1, static_cast<real>(g.height));
                check_close(diagonal[static_cast<std::size_t>(i)],
                            {expected.value / count, expected.magnitude / count}, tolerance<T>);
            }
        }
}

std::vector<double> block_of(pare::fisher<>& fisher) {
    const auto b = fisher.block_sums();
    return {b.data_handle(), b.data_handle() + b.size()};
}

} // namespace

TEMPLATE_LIST_TEST_CASE("mask gradients are sums over a sample's rows and a unit's columns", "",
                        runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);

    SECTION("every tail of filters, ragged samples") {
        for (index_t units = 0; units <= 70; ++units) {
            const auto offsets = random_offsets(random, 4, 19);
            const matrix<T> a(offsets.back(), units, random), da(offsets.back(), units, random);
            check_mask_gradients(policy, a, da, offsets, 1);
        }
    }
    SECTION("around the sizes at which columns are cut") {
        for (index_t units : {255, 257, 1023, 1024, 1025, 2047, 2048, 2049, 16383, 16384, 16387}) {
            const std::vector<int> offsets{0, 3, 3, 11};
            const matrix<T> a(11, units, random), da(11, units, random);
            check_mask_gradients(policy, a, da, offsets, 1);
        }
    }
    SECTION("heads of any size") {
        for (index_t unit : {3, 8, 32, 100, 3000})
            for (index_t units : {0, 1, 2, 7}) {
                const std::vector<std::uint32_t> offsets{0, 2, 11};
                const matrix<T> a(11, units * unit, random), da(11, units * unit, random);
                check_mask_gradients(policy, a, da, offsets, unit);
            }
        const std::vector<std::int64_t> offsets{0, 5};
        const matrix<T> a(5, 170 * 100, random), da(5, 170 * 100, random);
        check_mask_gradients(policy, a, da, offsets, 100);
    }
    SECTION("samples of many lengths") {
        for (index_t rows : {1, 7, 8, 9, 255, 256, 257, 600}) {
            const std::vector<int> offsets{0, 0, static_cast<int>(rows), static_cast<int>(rows)};
            const matrix<T> a(rows, 13, random), da(rows, 13, random);
            check_mask_gradients(policy, a, da, offsets, 1);
        }
    }
    SECTION("any layout, rows outside of all samples, no samples") {
        for (layout l : {layout::padded, layout::columns, layout::interleaved})
            for (layout other : {layout::rows, l}) {
                const matrix<T> a(40, 60, random, l), da(40, 60, random, other);
                check_mask_gradients(policy, a, da, std::vector<int>{3, 20, 37}, 4, l);
                check_mask_gradients(policy, a, da, std::vector<int>{7}, 4, l);
            }
    }
}

TEMPLATE_TEST_CASE("mask gradients made in parts are the same", "", float, double) {
    random_source random;
    CAPTURE(random);
    const std::vector<int> offsets{0, 10, 10, 300};
    const matrix<TestType> a(300, 1500, random), da(300, 1500, random);
    matrix<TestType> whole(3, 500), parts(3, 500);
    pare::mask_gradients(pare::simd, a.view(), da.view(), offsets, 3, whole.view());
    for (index_t ith : {2, 0, 3, 1})
        pare::mask_gradients(pare::simd.with(pare::part{ith, 4}), a.view(), da.view(), offsets, 3,
                             parts.view());
    CHECK(same_bits(whole.data, parts.data));
#ifdef _OPENMP
    for (int threads : {1, 2, 5}) {
        matrix<TestType> out(3, 500);
        pare::mask_gradients(pare::simd.with(pare::openmp{threads}), a.view(), da.view(), offsets,
                             3, out.view());
        CHECK(same_bits(whole.data, out.data));
    }
#endif
}

TEST_CASE("mask gradients of wrong shapes") {
    const matrix<float> a(10, 12), da(10, 12), narrow(10, 11);
    matrix<float> out(2, 4);
    const std::vector<int> offsets{0, 5, 10};
    const auto call = [&](const auto& x, const auto& dx, const std::vector<int>& o, index_t unit) {
        return sentence_of<pare::shape_error>(
            [&] { pare::mask_gradients(pare::seq, x.view(), dx.view(), o, unit, out.view()); });
    };
    CHECK(call(a, narrow, offsets, 3) ==
          "pare::mask_gradients: activation is 10 x 12, gradient 10 x 11");
    CHECK(call(a, da, offsets, 5) == "pare::mask_gradients: 12 columns are not units of 5");
    CHECK(call(a, da, offsets, 0) == "pare::mask_gradients: 12 columns are not units of 0");
    CHECK(call(a, da, offsets, 2) == "pare::mask_gradients: out is 2 x 4, 2 samples have 6 units");
    CHECK(call(a, da, {0, 10}, 3) == "pare::mask_gradients: out is 2 x 4, 1 samples have 4 units");
    for (const std::vector<int>& bad : std::vector<std::vector<int>>{{0, 5, 11}, {0, 7, 5}}) {
        CHECK_THAT(call(a, da, bad, 3), ContainsSubstring("offset 2 is " + std::to_string(bad[2])));
    }
    CHECK_THAT(call(a, da, {-1, 5, 10}, 3), ContainsSubstring("offset 0 is -1"));
    CHECK_THAT(call(a, da, {}, 3), ContainsSubstring("out is 2 x 4"));
    for (float x : out.data) CHECK(is_nan(x)); // nothing written
}

TEMPLATE_LIST_TEST_CASE("centred mask gradients are those of the activation less its mean", "",
                        runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (const index_t unit : {1, 3, 8}) {
        const auto offsets = random_offsets(random, 7, 40);
        const index_t units = 11, columns = units * unit, tokens = offsets.back();
        CAPTURE(unit, tokens);
        matrix<T> a(tokens, columns, random), da(tokens, columns, random, layout::padded);
        matrix<T> g(7, units), sums(7, columns, layout::padded), total(1, columns);
        pare::mask_gradients(policy, a.view(), da.view(), offsets, unit, g.view());
        pare::sample_sums(policy, da.view(), offsets, sums.view());
        pare::sample_sums(policy, a.view(), std::vector<index_t>{0, tokens}, total.view());
        std::vector<T> mean;
        for (index_t c = 0; c < columns; ++c)
            mean.push_back(total(0, c) / static_cast<T>(std::max<index_t>(1, tokens)));
        pare::centre_mask_gradients(sums.view(), mean, unit, g.view());
        CHECK(sums.outside_untouched());
        for (index_t s = 0; s < 7; ++s)
            for (index_t u = 0; u < units; ++u) {
                sum expected;
                for (index_t c = u * unit; c < (u + 1) * unit; ++c) {
                    real exact_mean = 0;
                    for (index_t t = 0; t < tokens; ++t)
                        exact_mean += static_cast<real>(a(t, c)) / static_cast<real>(tokens);
                    for (index_t t = offsets[static_cast<std::size_t>(s)];
                         t < offsets[static_cast<std::size_t>(s) + 1]; ++t) {
                        expected.add(static_cast<real>(a(t, c)) * static_cast<real>(da(t, c)));
                        expected.add(-exact_mean * static_cast<real>(da(t, c)));
                    }
                }
                check_close(g(s, u), expected, 2 * tolerance<T>);
            }
    }
}

TEST_CASE("sample sums and centring of wrong shapes") {
    std::vector<float> x(12), out(6), mean(2);
    const std::vector<int> offsets = {0, 2, 3};
    CHECK_THROWS_AS(pare::sample_sums(pare::seq, pare::view(x.data(), 3, 4), offsets,
                                      pare::view(out.data(), 2, 3)),
                    pare::shape_error);
    for (const index_t unit : {index_t{0}, index_t{2}, std::numeric_limits<index_t>::max()})
        CHECK_THROWS_AS(pare::centre_mask_gradients(pare::view(x.data(), 3, 4), mean, unit,
                                                    pare::view(out.data(), 3, 2)),
                        pare::shape_error);
}

TEMPLATE_LIST_TEST_CASE("Fisher information is the mean of products of gradients", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);

    SECTION("sizes and sample counts") {
        for (index_t n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 16, 17, 33, 100})
            for (index_t samples : {0, 1, 9, 255, 256, 257}) {
                const matrix<T> g(samples, n, random);
                pare::fisher<> diagonal(n), block(n, pare::fisher_kind::block);
                diagonal.add(policy, g.view());
                block.add(policy, g.view());
                check_fisher(diagonal, g, false);
                check_fisher(block, g, true);
                CHECK(same_bits(diagonal.diagonal(), block.diagonal()));
            }
        const matrix<T> g(1000, 50, random);
        pare::fisher<> block(50, pare::fisher_kind::block);
        block.add(policy, g.view());
        check_fisher(block, g, true);
    }
    SECTION("any layout") {
        for (layout l : {layout::padded, layout::columns, layout::interleaved}) {
            const matrix<T> g(300, 21, random, l);
            pare::fisher<> block(21, pare::fisher_kind::block);
            block.add(policy, g.view());
            check_fisher(block, g, true);
        }
    }
    SECTION("added in pieces and merged in any order") {
        const matrix<T> g(500, 23, random, layout::padded);
        std::vector<index_t> cuts{0, 0, 1, 130, 400, 500}, order{0, 1, 2, 3, 4};
        std::shuffle(order.begin(), order.end(), random.engine);
        pare::fisher<> pieces(23, pare::fisher_kind::block), merged(23, pare::fisher_kind::block);
        for (index_t i : order) {
            const auto c = static_cast<std::size_t>(i);
            const auto piece = g.slice(cuts[c], cuts[c + 1]);
            pieces.add(policy, piece);
            pare::fisher<> other(23, pare::fisher_kind::block);
            other.add(policy, piece);
            merged.block_sums(); // reading does not disturb
            merged.merge(other);
        }
        check_fisher(pieces, g, true);
        check_fisher(merged, g, true);
    }
    SECTION("not finite: an error, and nothing is added") {
        const T bad[] = {not_a_number<T>(), infinite<T>(), minus_infinite<T>(),
                         std::numeric_limits<T>::max()};
        for (pare::fisher_kind kind : {pare::fisher_kind::diagonal, pare::fisher_kind::block})
            for (T x : bad)
                for (index_t column : {0, 13, 18}) {
                    matrix<T> g(300, 19, random);
                    pare::fisher<> fisher(19, kind);
                    fisher.add(policy, g.view());
                    const auto before = fisher.diagonal();
                    const bool block = kind == pare::fisher_kind::block;
                    const auto block_before = block ? block_of(fisher) : before;
                    g(random.integer(0, 299), column) = x;
                    const auto sentence =
                        sentence_of<pare::value_error>([&] { fisher.add(policy, g.view()); });
                    CHECK_THAT(sentence, ContainsSubstring("pare::fisher: the gradients of unit " +
                                                           std::to_string(column) +
                                                           " in samples 300 to 599"));
                    CHECK(fisher.samples() == 300);
                    CHECK(same_bits(fisher.diagonal(), before));
                    if (block) CHECK(same_bits(block_of(fisher), block_before));
                }
    }
}

TEMPLATE_LIST_TEST_CASE("a million gradients near 1 sum up accurately", "", policies) {
    random_source random;
    CAPTURE(random);
    const matrix<float> g = [&] {
        matrix<float> m(1000000, 2);
        for (index_t i = 0; i < m.height; ++i)
            for (index_t j = 0; j < 2; ++j) m(i, j) = random.uniform<float>(0.99, 1.01);
        return m;
    }();
    pare::fisher<> fisher(2, pare::fisher_kind::block);
    fisher.add(TestType::policy(), g.view());
    for (index_t i = 0; i < 2; ++i)
        for (index_t j = 0; j < 2; ++j) {
            real expected = 0;
            for (index_t s = 0; s < g.height; ++s)
                expected += static_cast<real>(g(s, i)) * static_cast<real>(g(s, j));
            // One running float sum would be off by 1e-3.
            CHECK_THAT(fisher.block_sums()(i, j),
                       WithinRel(static_cast<double>(expected), tolerance<float> / 4));
        }
    CHECK_THAT(fisher.diagonal()[0], WithinRel(1.0, 1e-3));
}

#ifdef _OPENMP
TEMPLATE_TEST_CASE("Fisher information does not depend on the number of threads", "", float,
                   double) {
    random_source random;
    CAPTURE(random);
    const matrix<TestType> g(600, 301, random);
    const auto add = [&](auto policy) {
        pare::fisher<> fisher(301, pare::fisher_kind::block);
        fisher.add(policy, g.view());
        auto numbers = block_of(fisher);
        const auto diagonal = fisher.diagonal();
        numbers.insert(numbers.end(), diagonal.begin(), diagonal.end());
        return numbers;
    };
    const auto expected = add(pare::simd.with(pare::serial{}));
    for (int threads : {1, 2, 5})
        CHECK(same_bits(add(pare::simd.with(pare::openmp{threads})), expected));
}
#endif

TEST_CASE("Fisher information of wrong shapes") {
    const matrix<float> g(3, 7);
    pare::fisher<> fisher(5), other(6), block(5, pare::fisher_kind::block);
    CHECK(sentence_of<pare::shape_error>([&] { fisher.add(pare::seq, g.view()); }) ==
          "pare::fisher: gradients of 7 units, expected 5");
    CHECK_THAT(sentence_of<pare::shape_error>([&] { fisher.merge(other); }),
               ContainsSubstring("6 units into 5"));
    CHECK_THROWS_AS(fisher.merge(block), pare::shape_error);
    CHECK_THROWS_AS(fisher.block_sums(), pare::shape_error);
    CHECK(fisher.samples() == 0);
    CHECK(fisher.diagonal() == std::vector<double>(5, 0.0));
}

} // namespace fisher_test
