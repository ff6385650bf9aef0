// Soft masks, their gradients and the penalty against long double and finite differences.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/soft_mask.hpp>

#include <algorithm>

namespace soft_mask_test {

namespace {

/// A vector is the column of a matrix; its stride is 1, or 6 for layout::padded.
template <class T>
pare::view<T, 1> vector_of(matrix<T>& m) {
    return {m.data.data(), {m.height}, {m.row_stride}};
}
template <class T>
pare::view<const T, 1> vector_of(const matrix<T>& m) {
    return {m.data.data(), {m.height}, {m.row_stride}};
}
template <class T>
matrix<T> random_vector(index_t n, random_source& random, double low, double high,
                        layout l = layout::rows) {
    matrix<T> m(n, 1, l);
    for (index_t i = 0; i < n; ++i) m(i, 0) = random.uniform<T>(low, high);
    return m;
}

const index_t sizes[] = {0,  1,  2,  3,  4,  5,  7,  8,   9,   15,   16,   17,  31,
                         32, 33, 47, 63, 64, 65, 70, 511, 513, 4095, 4097, 9000};

template <class T>
real mask_at(T score, double threshold, double temperature) {
    const real z = (static_cast<real>(score) - static_cast<real>(static_cast<T>(threshold))) /
                   static_cast<real>(temperature);
    return 1 / (1 + std::exp(-z));
}

// Rounding z changes the mask by z M (1 - M) of its unit, an exponential by a few units.
template <class T>
bool close_to_mask(T mask, T score, double threshold, double temperature) {
    const real expected = mask_at(score, threshold, temperature);
    const real z = std::abs(std::log(expected) - std::log1p(-expected));
    const real error = static_cast<real>(rounding<T>) * (4 + 2 * std::min<real>(z, 1000));
    return distance(mask, expected) <=
           error * expected + static_cast<real>(2 * std::numeric_limits<T>::min());
}

} // namespace

TEMPLATE_LIST_TEST_CASE("soft masks are the logistic function of the distance to the threshold", "",
                        runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);

    SECTION("every tail, any stride, in place") {
        for (index_t n : sizes)
            for (layout l : {layout::rows, layout::padded}) {
                const auto scores = random_vector<T>(n, random, -2, 2, l);
                matrix<T> mask(n, 1, l);
                auto place = scores;
                pare::soft_mask(policy, vector_of(scores), 0.3, 0.125, vector_of(mask));
                pare::soft_mask(policy, vector_of(place), 0.3, 0.125, vector_of(place));
                index_t wrong = 0;
                for (index_t i = 0; i < n; ++i)
                    wrong += !close_to_mask(mask(i, 0), scores(i, 0), 0.3, 0.125);
                CHECK(wrong == 0);
                CHECK(same_bits(mask.data, place.data));
                CHECK(mask.outside_untouched());
            }
    }
    SECTION("from far below to far above") {
        const auto scores = random_vector<T>(4000, random, -120, 120);
        matrix<T> mask(4000, 1);
        pare::soft_mask(policy, vector_of(scores), 1.5, 1.0, vector_of(mask));
        for (index_t i = 0; i < 4000; ++i) {
            CAPTURE(scores(i, 0), mask(i, 0), mask_at(scores(i, 0), 1.5, 1.0));
            CHECK(close_to_mask(mask(i, 0), scores(i, 0), 1.5, 1.0));
        }
    }
    SECTION("nothing overflows") {
        const T infinity = infinite<T>();
        constexpr T largest = std::numeric_limits<T>::max();
        const std::vector<T> high = {T(1e4), T(0.5), infinity, largest};
        std::vector<T> low;
        for (T x : high) low.push_back(-x);
        std::vector<T> mask(high.size()), scores(37, T(0.25));
        for (double temperature : {1e-5, 1e-30}) {
            pare::soft_mask(policy, high, 0.1, temperature, mask);
            CHECK(mask == std::vector<T>(high.size(), T(1)));
            pare::soft_mask(policy, low, 0.1, temperature, mask);
            CHECK(mask == std::vector<T>(high.size(), T(0)));
            mask.resize(scores.size());
            pare::soft_mask(policy, scores, 0.25, temperature, mask);
            for (const T m : mask) CHECK(distance(m, 0.5) <= static_cast<real>(rounding<T>));
            pare::soft_mask(policy, scores, minus_infinite<double>(), temperature, mask);
            CHECK(mask == std::vector<T>(scores.size(), T(1)));
            pare::soft_mask(policy, scores, infinite<double>(), temperature, mask);
            CHECK(mask == std::vector<T>(scores.size(), T(0)));
            mask.resize(high.size());
        }
        std::vector<T> one(1);
        for (const T x : {infinity, -infinity}) {
            pare::soft_mask(policy, std::vector<T>{x}, static_cast<double>(x), 1e-5, one);
            CHECK(one[0] == (x > 0 ? T(1) : T(0)));
        }
    }
    SECTION("a token's mask does not depend on its place") {
        const auto scores = random_vector<T>(83, random, -3, 3);
        matrix<T> mask(83, 1), one(1, 1);
        pare::soft_mask(policy, vector_of(scores), 0.0, 0.5, vector_of(mask));
        for (index_t i = 0; i < 83; ++i) {
            pare::soft_mask(policy, pare::view(&scores(i, 0), 1), 0.0, 0.5, vector_of(one));
            CHECK(same_bits(one(0, 0), mask(i, 0)));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("soft masks pass gradients to scores and threshold", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (index_t n : sizes)
        for (layout l : {layout::rows, layout::padded}) {
            CAPTURE(n);
            const auto mask = random_vector<T>(n, random, 0, 1, l);
            const auto gradient = random_vector<T>(n, random, -1, 1, l);
            const double temperature = 0.01;
            matrix<T> ds(n, 1, l);
            const double dtheta = pare::soft_mask_backward(
                policy, vector_of(mask), vector_of(gradient), temperature, vector_of(ds));
            real sum = 0, magnitude = 0;
            index_t wrong = 0;
            for (index_t i = 0; i < n; ++i) {
                const real m = mask(i, 0);
                const real expected = m * (1 - m) / static_cast<real>(temperature) *
                                      static_cast<real>(gradient(i, 0));
                wrong += !(distance(ds(i, 0), expected) <=
                           5 * static_cast<real>(rounding<T>) * std::abs(expected));
                sum += expected;
                magnitude += std::abs(expected);
            }
            CHECK(wrong == 0);
            CHECK(distance(dtheta, -sum) <= static_cast<real>(tolerance<T>) * magnitude);
            CHECK(ds.outside_untouched());
            auto place = gradient;
            CHECK(pare::soft_mask_backward(policy, vector_of(mask), vector_of(place), temperature,
                                           vector_of(place)) == dtheta);
            CHECK(same_bits(place.data, ds.data));
        }
    // Where a mask is 0 or 1 there is no gradient, however small the temperature.
    const std::vector<T> ends = {T(0), T(1), T(0), T(1)}, g(4, T(1e6));
    std::vector<T> ds(4, poison<T>());
    CHECK(pare::soft_mask_backward(policy, ends, g, 1e-30, ds) == 0.0);
    CHECK(ds == std::vector<T>(4, T(0)));
}

TEMPLATE_LIST_TEST_CASE("gradients of soft masks are slopes", "", policies) {
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const index_t n = 29;
    const double threshold = 0.2, temperature = 0.3, step = 1e-6;
    const auto scores = random.vector<double>(n), weights = random.vector<double>(n);
    const auto loss = [&](const std::vector<double>& s, double theta) {
        std::vector<double> mask(s.size());
        pare::soft_mask(policy, s, theta, temperature, mask);
        double sum = 0;
        for (std::size_t i = 0; i < s.size(); ++i) sum += weights[i] * mask[i];
        return sum;
    };
    std::vector<double> mask(scores.size()), ds(scores.size());
    pare::soft_mask(policy, scores, threshold, temperature, mask);
    const double dtheta = pare::soft_mask_backward(policy, mask, weights, temperature, ds);
    const double slope =
        (loss(scores, threshold + step) - loss(scores, threshold - step)) / (2 * step);
    CHECK_THAT(dtheta, WithinAbs(slope, 1e-8));
    for (std::size_t i = 0; i < scores.size(); ++i) {
        auto up = scores, down = scores;
        up[i] += step;
        down[i] -= step;
        CHECK_THAT(ds[i],
                   WithinAbs((loss(up, threshold) - loss(down, threshold)) / (2 * step), 1e-8));
    }
}

TEMPLATE_LIST_TEST_CASE("rows times their mask, forward and backward", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const auto check = [&](index_t n, index_t d, layout l, layout of_mask) {
        CAPTURE(n, d, static_cast<int>(l));
        const auto mask = random_vector<T>(n, random, 0, 1, of_mask);
        const matrix<T> x(n, d, random, l), dy(n, d, random, l);
        matrix<T> y(n, d, l), dx(n, d, l), dm(n, 1, of_mask);
        pare::scale_rows(policy, vector_of(mask), x.view(), y.view());
        pare::scale_rows_backward(policy, vector_of(mask), x.view(), dy.view(), dx.view(),
                                  vector_of(dm));
        index_t wrong = 0;
        for (index_t i = 0; i < n; ++i) {
            real sum = 0, magnitude = 0;
            for (index_t j = 0; j < d; ++j) {
                wrong += y(i, j) != mask(i, 0) * x(i, j);
                wrong += dx(i, j) != mask(i, 0) * dy(i, j);
                sum += static_cast<real>(x(i, j)) * static_cast<real>(dy(i, j));
                magnitude += std::abs(static_cast<real>(x(i, j)) * static_cast<real>(dy(i, j)));
            }
            wrong += !(distance(dm(i, 0), sum) <= static_cast<real>(tolerance<T>) * magnitude);
        }
        CHECK(wrong == 0);
        for (const auto* m : {&y, &dx, &dm}) CHECK(m->outside_untouched());

        auto in_x = x, in_dy = dy, over_x = x;
        auto again = dm;
        pare::scale_rows(policy, vector_of(mask), in_x.view(), in_x.view());
        CHECK(same_bits(in_x.data, y.data));
        pare::scale_rows_backward(policy, vector_of(mask), x.view(), in_dy.view(), in_dy.view(),
                                  vector_of(again));
        CHECK(same_bits(in_dy.data, dx.data));
        CHECK(same_bits(again.data, dm.data));
        pare::scale_rows_backward(policy, vector_of(mask), over_x.view(), dy.view(), over_x.view(),
                                  vector_of(again));
        CHECK(same_bits(over_x.data, dx.data));
        CHECK(same_bits(again.data, dm.data));
    };
    SECTION("every tail of columns") {
        for (index_t d = 0; d <= 70; ++d) check(3, d, layout::rows, layout::rows);
        for (index_t d : {127, 255, 384, 1023, 1025, 16384, 17000})
            check(2, d, layout::rows, layout::rows);
    }
    SECTION("any layout and number of rows") {
        for (index_t n : {0, 1, 2, 64, 301})
            for (layout l : {layout::rows, layout::padded, layout::columns, layout::interleaved})
                for (layout of_mask : {layout::rows, layout::padded}) check(n, 100, l, of_mask);
    }
}

TEMPLATE_LIST_TEST_CASE("the penalty is the mean over sequences of their mean mask", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 20; ++round)
        for (layout l : {layout::rows, layout::padded}) {
            std::vector<int> offsets{0};
            for (index_t s = random.integer(0, 5); s > 0; --s)
                offsets.push_back(offsets.back() +
                                  static_cast<int>(std::max<index_t>(0, random.integer(-20, 90))));
            const index_t n = offsets.back();
            CAPTURE(n, offsets.size());
            const auto mask = random_vector<T>(n, random, 0, 1, l);
            const auto before = random_vector<T>(n, random, -1, 1, l);
            auto gradient = before;
            const double factor = 0.7;
            const double penalty =
                pare::mask_penalty(policy, vector_of(mask), offsets, factor, vector_of(gradient));
            real sequences = 0, expected = 0;
            for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
                sequences += offsets[s + 1] > offsets[s];
            index_t wrong = 0;
            for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
                const real share = 1 / (sequences * static_cast<real>(offsets[s + 1] - offsets[s]));
                for (index_t i = offsets[s]; i < offsets[s + 1]; ++i) {
                    expected += share * static_cast<real>(mask(i, 0));
                    const real g =
                        static_cast<real>(before(i, 0)) + static_cast<real>(factor) * share;
                    wrong += !(distance(gradient(i, 0), g) <= 3 * static_cast<real>(rounding<T>));
                }
            }
            CHECK(wrong == 0);
            CHECK_THAT(penalty, WithinAbs(static_cast<double>(expected), tolerance<T>));
            CHECK(gradient.outside_untouched());
        }
}

TEMPLATE_LIST_TEST_CASE("a sequence's part of the penalty does not depend on the others' lengths",
                        "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const auto mask = random_vector<T>(100, random, 0, 1);
    const auto gradient_of_first = [&](int length_of_second) {
        std::vector<T> gradient(static_cast<std::size_t>(20 + length_of_second), T(0));
        pare::mask_penalty(TestType::policy(), pare::view(mask.data.data(), 20 + length_of_second),
                           std::vector<int>{0, 20, 20 + length_of_second}, 1.0, gradient);
        gradient.resize(20);
        return gradient;
    };
    CHECK(same_bits(gradient_of_first(1), gradient_of_first(80)));
}

TEMPLATE_TEST_CASE("soft masks do not depend on the number of threads", "", float, double) {
    random_source random;
    CAPTURE(random);
    const index_t n = 300000, tokens = 3000, columns = 100;
    const auto scores = random_vector<TestType>(n, random, -1, 1);
    const auto gradient = random_vector<TestType>(n, random, -1, 1);
    const matrix<TestType> x(tokens, columns, random), dy(tokens, columns, random);
    const auto all = [&](const auto& policy, auto& mask, auto& ds, auto& dx, auto& dm) {
        pare::soft_mask(policy, vector_of(scores), 0.1, 0.2, vector_of(mask));
        const double dtheta = pare::soft_mask_backward(policy, vector_of(scores),
                                                       vector_of(gradient), 0.2, vector_of(ds));
        pare::scale_rows_backward(policy, pare::view(&scores(0, 0), tokens), x.view(), dy.view(),
                                  dx.view(), vector_of(dm));
        return dtheta;
    };
    matrix<TestType> mask(n, 1), ds(n, 1), dx(tokens, columns), dm(tokens, 1);
    const double dtheta = all(pare::simd.with(pare::serial{}), mask, ds, dx, dm);
    const auto check = [&](const auto&... on) {
        matrix<TestType> mask2(n, 1), ds2(n, 1), dx2(tokens, columns), dm2(tokens, 1);
        double sum = 0;
        ((sum += all(on, mask2, ds2, dx2, dm2)), ...);
        CHECK(same_bits(mask2.data, mask.data));
        CHECK(same_bits(ds2.data, ds.data));
        CHECK(same_bits(dx2.data, dx.data));
        CHECK(same_bits(dm2.data, dm.data));
        return sum;
    };
    const double of_parts =
        check(pare::simd.with(pare::part{1, 3}), pare::simd.with(pare::part{0, 3}),
              pare::simd.with(pare::part{2, 3}));
    CHECK_THAT(of_parts, WithinAbs(dtheta, 1e-9));
#ifdef _OPENMP
    for (int threads : {1, 2, 5}) CHECK(check(pare::simd.with(pare::openmp{threads})) == dtheta);
#endif
}

TEMPLATE_LIST_TEST_CASE("NaN scores are an error, wherever they are", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::padded})
        for (const index_t at : {0, 1, 17, 511, 512, 1500, 1535, 1540}) {
            auto scores = random_vector<T>(1541, random, -1, 1, l);
            scores(at, 0) = at % 2 ? from_bits<T>(0xffc00000, 0xfff8000000000000) // quiet, negative
                                   : from_bits<T>(0x7fa00000, 0x7ff4000000000000); // signaling
            matrix<T> mask(1541, 1, l);
            if constexpr (!on_host<TestType>) { // it does not wait: the token alone is none
                pare::soft_mask(TestType::policy(), vector_of(scores), 0, 1, vector_of(mask));
                for (index_t i = 0; i < 1541; ++i) REQUIRE(is_nan(mask(i, 0)) == (i == at));
                continue;
            }
            CHECK(sentence_of<pare::value_error>([&] {
                      pare::soft_mask(TestType::policy(), vector_of(scores), 0, 1, vector_of(mask));
                  }) == "pare::soft_mask: score " + std::to_string(at) + " of 1541 is NaN");
            for (index_t i = 0; i < 1541; ++i) REQUIRE(is_nan(mask(i, 0)));
        }
}

TEST_CASE("soft masks check temperatures and thresholds") {
    const std::vector<float> scores(5, 0.5f);
    std::vector<float> mask(5, -1.0f);
    const auto sentence = [&](double threshold, double temperature) {
        return sentence_of<pare::value_error>(
            [&] { pare::soft_mask(pare::seq, scores, threshold, temperature, mask); });
    };
    CHECK(sentence(0, 0) == "pare::soft_mask: the temperature is 0");
    CHECK(sentence(0, -0.5) == "pare::soft_mask: the temperature is -0.5");
    CHECK(sentence(0, 1e-40) == "pare::soft_mask: the temperature is 1e-40"); // 1 / T is no float
    CHECK(sentence(0, 1e60) == "pare::soft_mask: the temperature is 1e+60");  // 1 / T is 0
    CHECK_THAT(sentence(0, not_a_number<double>()), ContainsSubstring("temperature is nan"));
    CHECK_THAT(sentence(0, infinite<double>()), ContainsSubstring("temperature is inf"));
    CHECK(sentence(not_a_number<double>(), 1) == "pare::soft_mask: the threshold is NaN");
    CHECK(sentence_of<pare::value_error>([&] {
              pare::soft_mask_backward(pare::simd, mask, scores, 0, mask);
          }) == "pare::soft_mask_backward: the temperature is 0");
    CHECK(mask == std::vector<float>(5, -1.0f));
}

TEST_CASE("soft masks check shapes") {
    const std::vector<float> five(5, 0.5f), six(6, 0.5f);
    std::vector<float> out(5, -1.0f), long_out(6, -1.0f);
    const matrix<float> x(5, 3), wide(5, 4), high(6, 3);
    matrix<float> y(5, 3);
    const auto sentence = [](const auto& f) { return sentence_of<pare::shape_error>(f); };
    CHECK(sentence([&] { pare::soft_mask(pare::seq, six, 0, 1, out); }) ==
          "pare::soft_mask: 6 scores, the mask has 5");
    CHECK(sentence([&] { pare::soft_mask_backward(pare::seq, five, six, 1, out); }) ==
          "pare::soft_mask_backward: a mask of 5, gradients of 6 and 5");
    CHECK(sentence([&] { pare::scale_rows(pare::seq, five, wide.view(), y.view()); }) ==
          "pare::scale_rows: x is 5 x 4, y 5 x 3");
    CHECK(sentence([&] { pare::scale_rows(pare::seq, six, x.view(), y.view()); }) ==
          "pare::scale_rows: a mask of 6 for 5 rows");
    CHECK(sentence([&] {
              pare::scale_rows_backward(pare::seq, five, x.view(), high.view(), y.view(), out);
          }) == "pare::scale_rows_backward: x is 5 x 3, dy 6 x 3");
    CHECK(sentence([&] {
              pare::scale_rows_backward(pare::seq, five, wide.view(), wide.view(), y.view(), out);
          }) == "pare::scale_rows_backward: x is 5 x 4, dx 5 x 3");
    CHECK(sentence([&] {
              pare::scale_rows_backward(pare::seq, five, x.view(), x.view(), y.view(), long_out);
          }) == "pare::scale_rows_backward: a mask of 5, its gradient of 6 for 5 rows");
    const auto penalty = [&](const std::vector<int>& offsets, double factor) {
        pare::mask_penalty(pare::seq, five, offsets, factor, out);
    };
    CHECK(sentence([&] {
              penalty({0, 3}, 1);
          }) == "pare::mask_penalty: offsets go from 0 to 3, there are 5 tokens");
    CHECK(sentence([&] {
              penalty({1, 5}, 1);
          }) == "pare::mask_penalty: offsets go from 1 to 5, there are 5 tokens");
    CHECK(sentence([&] {
              penalty({0, 4, 3, 5}, 1);
          }) == "pare::mask_penalty: offset 2 is 3 after 4");
    CHECK(sentence([&] { penalty({}, 1); }) ==
          "pare::mask_penalty: no offsets; of no sequences they are one 0");
    CHECK(sentence([&] {
              pare::mask_penalty(pare::seq, five, std::vector<int>{0, 5}, 1, long_out);
          }) == "pare::mask_penalty: a mask of 5, its gradient of 6");
    CHECK_THROWS_AS(penalty({0, 5}, not_a_number<double>()), pare::value_error);
    CHECK(out == std::vector<float>(5, -1.0f));
    CHECK(long_out == std::vector<float>(6, -1.0f));
    CHECK(y.outside_untouched());
    for (index_t i = 0; i < 5; ++i) CHECK(is_nan(y(i, 0)));
}

TEMPLATE_LIST_TEST_CASE("masks of half types have gradients and a penalty", "", half_types) {
    using T = TestType;
    const auto check = [](auto policy) {
        const auto mask = halves_of<T>({0.5F, 0.25F, 1}), gradient = halves_of<T>({1, 2, 4});
        auto scores = halves_of<T>({9, 9, 9});
        CHECK(pare::soft_mask_backward(policy, mask, gradient, 0.5, scores) == -1.25);
        CHECK(value(scores[0]) == 0.5);
        CHECK(value(scores[1]) == 0.75);
        CHECK(value(scores[2]) == 0);
        auto added = halves_of<T>({1, 1, 1});
        const std::vector<int> offsets{0, 2, 3};
        CHECK(pare::mask_penalty(policy, mask, offsets, 2, added) == 0.6875);
        CHECK(value(added[0]) == 1.5);
        CHECK(value(added[1]) == 1.5);
        CHECK(value(added[2]) == 2);
    };
    check(pare::seq);
    check(pare::simd);
}

} // namespace soft_mask_test
