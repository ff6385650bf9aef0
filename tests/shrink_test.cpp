// Removal of rows, columns and entries against the positions kept, and masked against shrunken
// layers.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/fisher.hpp>
#include <pare/shrink.hpp>

#include <algorithm>
#include <cstdint>
#include <new>
#include <numeric>
#include <string>

namespace shrink_test {

namespace {

struct block_of_four { // as quantised formats have
    std::uint16_t scale;
    std::int8_t codes[4];
    bool operator==(const block_of_four& o) const {
        return scale == o.scale && std::equal(codes, codes + 4, o.codes);
    }
};

template <class T>
T number(index_t i) {
    if constexpr (std::is_same_v<T, block_of_four>) {
        const auto b = static_cast<std::int8_t>(i);
        return {static_cast<std::uint16_t>(i), {b, 1, b, 2}};
    } else {
        return static_cast<T>(i % 127);
    }
}

template <class T>
matrix<T> numbered(index_t h, index_t w, layout l) {
    matrix<T> m(h, w, l);
    for (index_t i = 0; i < h; ++i)
        for (index_t j = 0; j < w; ++j) m(i, j) = number<T>(13 * i + j);
    return m;
}

template <class Index>
std::vector<Index> random_positions(index_t extent, random_source& random) {
    std::vector<Index> p;
    for (index_t i = 0; i < extent; ++i)
        if (random.integer(0, 2)) p.push_back(static_cast<Index>(i));
    return p;
}

} // namespace

TEMPLATE_TEST_CASE("rows and columns kept, any type and layout", "", std::int8_t, int, float,
                   double, block_of_four) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    const auto check = [&](auto policy, layout l, layout of_out, auto index) {
        using index_type = decltype(index);
        for (index_t h : {0, 1, 5, 17})
            for (index_t w : {0, 1, 6, 40}) {
                const auto weight = numbered<T>(h, w, l);
                const auto rows = random_positions<index_type>(h, random);
                const auto columns = random_positions<index_type>(w, random);
                const auto kept_h = static_cast<index_t>(rows.size());
                const auto kept_w = static_cast<index_t>(columns.size());
                matrix<T> fewer_rows(kept_h, w, of_out), fewer_columns(h, kept_w, of_out);
                pare::keep_rows(policy, weight.view(), rows, fewer_rows.view());
                pare::keep_columns(policy, weight.view(), columns, fewer_columns.view());
                index_t wrong = 0;
                for (index_t i = 0; i < kept_h; ++i)
                    for (index_t j = 0; j < w; ++j)
                        wrong +=
                            !(fewer_rows(i, j) ==
                              weight(static_cast<index_t>(rows[static_cast<std::size_t>(i)]), j));
                for (index_t i = 0; i < h; ++i)
                    for (index_t j = 0; j < kept_w; ++j)
                        wrong += !(
                            fewer_columns(i, j) ==
                            weight(i, static_cast<index_t>(columns[static_cast<std::size_t>(j)])));
                CHECK(wrong == 0);
                if constexpr (std::is_arithmetic_v<T>) {
                    CHECK(fewer_rows.outside_untouched());
                    CHECK(fewer_columns.outside_untouched());
                }
            }
    };
    const layout all[] = {layout::rows, layout::padded, layout::columns, layout::interleaved};
    for (layout l : all)
        for (layout of_out : all) {
            check(pare::seq, l, of_out, std::int32_t{});
            check(pare::simd.with(pare::serial{}), l, of_out, index_t{});
            check(pare::simd, l, of_out, std::uint32_t{});
        }
}

TEST_CASE("elements that own memory are copied by assignment") {
    const auto named = [](index_t i) { // too long to be within its object
        return "the name of a unit, which is a long one, " + std::to_string(i);
    };
    const index_t height = 5, width = 4;
    std::vector<std::string> names;
    for (index_t i = 0; i < height * width; ++i) names.push_back(named(i));
    const std::vector<int> kept{1, 2, 4};
    const auto check = [&](auto policy) {
        std::vector<std::string> rows(3 * width), columns(height * 3), entries(3);
        const pare::view<const std::string, 2> all(names.data(), height, width);
        pare::keep_rows(policy, all, kept, pare::view(rows.data(), 3, width));
        pare::keep_columns(policy, all, std::vector<int>{0, 1, 3},
                           pare::view(columns.data(), height, 3));
        pare::keep_entries(policy, names, kept, entries);
        auto place = names;
        pare::keep_rows(policy, pare::view(place.data(), height, width), kept,
                        pare::view(place.data(), 3, width));
        for (index_t i = 0; i < 3; ++i) {
            const index_t from = kept[static_cast<std::size_t>(i)];
            CHECK(entries[static_cast<std::size_t>(i)] == named(from));
            for (index_t j = 0; j < width; ++j) {
                const auto at = static_cast<std::size_t>(i * width + j);
                CHECK(rows[at] == named(from * width + j));
                CHECK(place[at] == rows[at]);
                CHECK(rows[at].data() != names[static_cast<std::size_t>(from * width + j)].data());
            }
        }
        CHECK(columns[3 * 2 + 2] == named(2 * width + 3));
    };
    check(pare::seq);
    check(pare::simd);
}

TEST_CASE("an element that cannot be copied ends the call with its exception") {
    struct refuses {
        bool refused = false;
        refuses() = default;
        refuses(const refuses&) = default;
        refuses& operator=(const refuses& from) {
            if (from.refused) throw std::bad_alloc();
            return *this;
        }
    };
    std::vector<refuses> units(70), out(70);
    units[69].refused = true;
    const std::vector<int> one{0};
    const pare::view<const refuses, 2> all(units.data(), 1, 70);
    const pare::view<refuses, 2> to(out.data(), 1, 70);
    CHECK_THROWS_AS(pare::keep_rows(pare::simd, all, one, to), std::bad_alloc);
    const std::vector<int> last{69};
    CHECK_THROWS_AS(pare::keep_columns(pare::simd, all, last, pare::view(out.data(), 1, 1)),
                    std::bad_alloc);
}

TEMPLATE_TEST_CASE("rows and columns kept in place", "", std::int8_t, float, double) {
    random_source random;
    CAPTURE(random);
    for (layout l : {layout::rows, layout::padded, layout::columns, layout::interleaved})
        for (int round = 0; round < 10; ++round) {
            const auto original = numbered<TestType>(17, 40, l);
            auto weight = original;
            const auto rows = random_positions<int>(17, random),
                       columns = random_positions<int>(40, random);
            const auto h = static_cast<index_t>(rows.size()),
                       w = static_cast<index_t>(columns.size());
            const pare::view<TestType, 2> fewer_rows(weight.data.data(), {h, 40},
                                                     {weight.row_stride, weight.column_stride});
            pare::keep_rows(pare::seq, weight.view(), rows, fewer_rows);
            const pare::view<TestType, 2> both(weight.data.data(), {h, w},
                                               {weight.row_stride, weight.column_stride});
            pare::keep_columns(pare::simd.with(pare::serial{}), fewer_rows, columns, both);
            index_t wrong = 0;
            for (index_t i = 0; i < h; ++i)
                for (index_t j = 0; j < w; ++j)
                    wrong += both(i, j) != original(rows[static_cast<std::size_t>(i)],
                                                    columns[static_cast<std::size_t>(j)]);
            CHECK(wrong == 0);
            CHECK(weight.outside_untouched());
        }
}

TEST_CASE("entries kept") {
    const std::vector<float> bias{0, 10, 20, 30, 40};
    const std::vector<std::uint16_t> positions{1, 3, 4};
    std::vector<float> out(3, -1.0f);
    pare::keep_entries(pare::simd, bias, positions, out);
    CHECK(out == std::vector<float>{10, 30, 40});
    std::vector<float> wide(6, -1.0f);
    pare::keep_entries(pare::seq, bias, positions, pare::view<float, 1>(wide.data(), {3}, {2}));
    CHECK(wide == std::vector<float>{10, -1, 30, -1, 40, -1});
    pare::keep_entries(pare::seq, pare::view<const float, 1>(bias.data(), {3}, {2}),
                       std::vector<int>{0, 2}, pare::view(out.data(), 2));
    CHECK(out == std::vector<float>{0, 40, 40});
    auto place = bias;
    pare::keep_entries(pare::seq, place, positions, pare::view(place.data(), 3));
    CHECK(place == std::vector<float>{10, 30, 40, 30, 40});
    std::vector<float> nothing;
    pare::keep_entries(pare::seq, bias, std::vector<int>{}, nothing);
}

TEST_CASE("positions that a mask keeps") {
    const std::vector<std::uint8_t> mask{1, 0, 7};
    CHECK(pare::kept_positions(mask) == std::vector<index_t>{0, 2});
    CHECK(pare::kept_positions(mask, 3) == std::vector<index_t>{0, 1, 2, 6, 7, 8});
    CHECK(pare::kept_positions<int>(mask, 2, 3) == // Q, K and V one below another
          std::vector<int>{0, 1, 4, 5, 6, 7, 10, 11, 12, 13, 16, 17});
    CHECK(pare::kept_positions(mask, 1, 2) == std::vector<index_t>{0, 2, 3, 5}); // gate|up
    CHECK(pare::kept_positions(std::vector<std::uint8_t>{}, 4, 3).empty());
    CHECK(pare::kept_positions(std::vector<float>{0, 0.5f, 0}, 2) == std::vector<index_t>{2, 3});
    CHECK_THROWS_AS(pare::kept_positions(mask, 0), pare::shape_error);
    CHECK_THROWS_AS(pare::kept_positions(mask, 1, 0), pare::shape_error);
}

TEST_CASE("shrink checks shapes and positions") {
    const auto weight = numbered<float>(5, 4, layout::rows);
    matrix<float> out(2, 4), narrow(2, 3), columns(5, 2);
    const auto rows = [&](const auto& positions, auto& o) {
        pare::keep_rows(pare::seq, weight.view(), positions, o.view());
    };
    CHECK(sentence_of<pare::shape_error>([&] {
              rows(std::vector<int>{0, 1, 2}, out);
          }) == "pare::keep_rows: 3 of 5 x 4 go into 2 x 4");
    CHECK_THROWS_AS(rows(std::vector<int>{0, 1}, narrow), pare::shape_error);
    CHECK(sentence_of<pare::value_error>([&] {
              rows(std::vector<int>{0, 5}, out);
          }) == "pare::keep_rows: position 1 is 5, which does not ascend below 5");
    for (const std::vector<int>& bad : std::vector<std::vector<int>>{{-1, 2}, {2, 2}, {3, 1}})
        CHECK_THROWS_AS(rows(bad, out), pare::value_error);
    CHECK_THROWS_AS(rows(std::vector<std::uint64_t>{0, ~std::uint64_t{0}}, out), pare::value_error);
    CHECK_THROWS_AS(rows(std::vector<std::uint64_t>{std::uint64_t{1} << 63, 1}, out),
                    pare::value_error);
    const std::vector<int> spread{0, 9, 1};
    CHECK_THROWS_AS(rows(pare::view<const int, 1>(spread.data(), {2}, {2}), out),
                    pare::shape_error);
    CHECK(sentence_of<pare::shape_error>([&] {
              pare::keep_columns(pare::seq, weight.view(), std::vector<int>{0, 1}, out.view());
          }) == "pare::keep_columns: 2 of 5 x 4 go into 2 x 4");
    CHECK_THROWS_AS(
        pare::keep_columns(pare::seq, weight.view(), std::vector<int>{0, 4}, columns.view()),
        pare::value_error);
    CHECK(out.outside_untouched());
    for (index_t j = 0; j < 4; ++j) CHECK(is_nan(out(0, j)));
}

TEMPLATE_TEST_CASE("scales fold into the columns of their unit", "", float, double) {
    for (layout l : {layout::rows, layout::padded, layout::columns}) {
        auto weight = numbered<TestType>(4, 6, l);
        const auto original = weight;
        pare::fold_scales(std::vector<TestType>{2, 0, TestType(-0.5)}, 2, weight.view());
        for (index_t i = 0; i < 4; ++i)
            for (index_t j = 0; j < 6; ++j) {
                const double scale = j < 2 ? 2 : j < 4 ? 0 : -0.5;
                CHECK(static_cast<double>(weight(i, j)) ==
                      scale * static_cast<double>(original(i, j)));
            }
        CHECK(weight.outside_untouched());
        pare::fold_scales(std::vector<std::uint8_t>{1, 0, 0}, 2, weight.view()); // a mask
        CHECK(weight(3, 1) == 2 * original(3, 1));
        CHECK(weight(3, 5) == 0);
    }
    auto weight = numbered<TestType>(4, 6, layout::rows);
    const auto before = weight.data;
    const std::vector<double> three{1, 2, 3}, bad{1, not_a_number<double>(), 3};
    CHECK(sentence_of<pare::shape_error>([&] { pare::fold_scales(three, 3, weight.view()); }) ==
          "pare::fold_scales: 3 units of 3, the weight is 4 x 6");
    for (const index_t unit : {index_t{0}, std::numeric_limits<index_t>::max()})
        CHECK_THROWS_AS(pare::fold_scales(three, unit, weight.view()), pare::shape_error);
    CHECK_THAT(sentence_of<pare::value_error>([&] { pare::fold_scales(bad, 2, weight.view()); }),
               ContainsSubstring("scale 1 is nan"));
    CHECK(same_bits(weight.data, before));
}

TEMPLATE_LIST_TEST_CASE("scales and weights of half types fold", "", half_types) {
    using T = TestType;
    auto weight = halves_of<T>({1, 2, 3, 4});
    const pare::view<T, 2> columns(weight.data(), 2, 2);
    pare::fold_scales(halves_of<T>({2, -0.5F}), 1, columns);
    pare::fold_scales(std::vector<double>{1, 4}, 1, columns);
    std::vector<double> wide{1, 2};
    pare::fold_scales(halves_of<T>({3, 4}), 1, pare::view(wide.data(), 1, 2));
    CHECK(wide == std::vector<double>{3, 8});
    for (const std::size_t i : {0U, 1U, 2U, 3U})
        CHECK(value(weight[i]) == (i % 2 == 0 ? 2.0 : -2.0) * static_cast<double>(i + 1));
    const auto bad = std::vector<T>{static_cast<T>(1.0F), static_cast<T>(not_a_number<float>())};
    CHECK_THAT(sentence_of<pare::value_error>([&] { pare::fold_scales(bad, 1, columns); }),
               ContainsSubstring("scale 1 is nan"));
}

TEMPLATE_LIST_TEST_CASE("a shrunken layer gives what the masked one gives", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    // out = W2 (mask o scale o (W1 x + b1)), W1 holds two parts that are multiplied (gate|up).
    for (index_t unit : {1, 4}) {
        const index_t units = 9, inner = units * unit, inputs = 7, outputs = 5, parts = 2;
        const matrix<T> w1(parts * inner, inputs, random), w2(outputs, inner, random);
        const auto b1 = random.vector<T>(parts * inner), x = random.vector<T>(inputs);
        const auto scales = random.vector<T>(units);
        std::vector<std::uint8_t> mask(static_cast<std::size_t>(units));
        for (auto& m : mask) m = static_cast<std::uint8_t>(random.integer(0, 1));

        const auto forward = [&](const matrix<T>& first, const std::vector<T>& bias,
                                 const matrix<T>& second, auto factor) {
            std::vector<real> out(static_cast<std::size_t>(outputs));
            const index_t width = second.width;
            for (index_t c = 0; c < width; ++c) {
                real value = factor(c);
                for (index_t p = 0; p < parts; ++p) {
                    real sum = static_cast<real>(bias[static_cast<std::size_t>(p * width + c)]);
                    for (index_t d = 0; d < inputs; ++d)
                        sum += static_cast<real>(first(p * width + c, d)) *
                               static_cast<real>(x[static_cast<std::size_t>(d)]);
                    value *= sum;
                }
                for (index_t o = 0; o < outputs; ++o)
                    out[static_cast<std::size_t>(o)] += value * static_cast<real>(second(o, c));
            }
            return out;
        };
        const auto masked = forward(w1, b1, w2, [&](index_t c) {
            const auto u = static_cast<std::size_t>(c / unit);
            return mask[u] ? static_cast<real>(scales[u]) : 0;
        });

        const auto stacked = pare::kept_positions<std::int32_t>(mask, unit, parts);
        const auto columns = pare::kept_positions<std::int32_t>(mask, unit);
        const auto width = static_cast<index_t>(columns.size());
        matrix<T> folded = w2, small1(parts * width, inputs), small2(outputs, width);
        std::vector<T> small_bias(stacked.size());
        pare::fold_scales(scales, unit, folded.view());
        pare::keep_rows(policy, w1.view(), stacked, small1.view());
        pare::keep_entries(policy, b1, stacked, small_bias);
        pare::keep_columns(policy, folded.view(), columns, small2.view());
        const auto shrunken = forward(small1, small_bias, small2, [](index_t) { return real(1); });
        for (std::size_t o = 0; o < masked.size(); ++o)
            CHECK_THAT(static_cast<double>(shrunken[o]),
                       WithinAbs(static_cast<double>(masked[o]), 100 * rounding<T>));
    }
}

TEST_CASE("positions that their type cannot hold are refused") {
    const std::vector<char> mask(9, 1);
    CHECK(pare::kept_positions<std::uint8_t>(mask, 7, 4).back() == 251);
    CHECK(pare::kept_positions<std::int8_t>(std::vector<char>(8, 1), 16).back() == 127);
    CHECK(sentence_of<pare::shape_error>([&] { pare::kept_positions<std::uint8_t>(mask, 7, 5); }) ==
          "pare::kept_positions: positions up to 255 do not reach the 9 units of 7 in 5 parts");
    constexpr index_t most = std::numeric_limits<index_t>::max();
    CHECK_THROWS_AS(pare::kept_positions(mask, most), pare::shape_error);
    CHECK_THROWS_AS(pare::kept_positions(mask, 1, most), pare::shape_error);
    CHECK_THROWS_AS(pare::kept_positions(mask, most, most), pare::shape_error);
    CHECK(pare::kept_positions(std::vector<char>(), most, most).empty());
}

TEST_CASE("a negative number of units is refused") {
    CHECK_THROWS_AS(pare::fisher<>(-1), pare::shape_error);
    CHECK_THROWS_AS(pare::gram<>(-1), pare::shape_error);
}

} // namespace shrink_test
