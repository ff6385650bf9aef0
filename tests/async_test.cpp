// Tokens kept and rows moved by calls that do not say how many.
#include "policies.hpp"
#include "support.hpp"
#include <pare/compact.hpp>

#include <algorithm>

namespace async_test {

namespace {

std::size_t size(index_t i) {
    return static_cast<std::size_t>(i);
}

} // namespace

TEMPLATE_LIST_TEST_CASE("what is kept without a number is what is kept with one", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 40; ++round) {
        std::vector<int> offsets{0};
        for (index_t s = random.integer(0, 5); s > 0; --s)
            offsets.push_back(offsets.back() +
                              static_cast<int>(std::max<index_t>(0, random.integer(-2, 60))));
        const index_t tokens = offsets.back(), columns = random.integer(0, 20);
        const auto scores = random.vector<T>(tokens);
        CAPTURE(offsets, columns);
        for (const bool top : {false, true}) {
            std::vector<int> index(size(tokens), -1), kept_offsets(offsets.size(), -1);
            auto expected_index = index, expected = kept_offsets;
            index_t kept;
            if (top) {
                kept = pare::keep_top_k(TestType::policy(), scores, 3, offsets, expected_index,
                                        expected, pare::pins{1});
                pare::keep_top_k_async(TestType::policy(), scores, 3, offsets, index, kept_offsets,
                                       pare::pins{1});
            } else {
                kept = pare::keep_above(TestType::policy(), scores, 0.3, offsets, expected_index,
                                        expected, pare::pins{1});
                pare::keep_above_async(TestType::policy(), scores, 0.3, offsets, index,
                                       kept_offsets, pare::pins{1});
            }
            CHECK(index == expected_index);
            CHECK(kept_offsets == expected);

            const matrix<T> x(tokens, columns, random);
            auto place = x;
            matrix<T> few(tokens, columns), back(tokens, columns, layout::padded);
            std::vector<std::int64_t> ids(size(tokens));
            for (index_t i = 0; i < tokens; ++i) ids[size(i)] = 100 + i;
            pare::gather_rows_async(TestType::policy(), index, kept_offsets, place.view(), ids,
                                    pare::from_to(x.view(), few.view()));
            pare::restore_async(TestType::policy(), index, kept_offsets,
                                pare::from_to(few.view(), back.view()));
            index_t wrong = 0, next = 0;
            for (index_t i = 0; i < tokens; ++i) {
                const bool is_kept = next < kept && index[size(next)] == i;
                if (is_kept) wrong += ids[size(next)] != 100 + i;
                if (i >= kept) wrong += ids[size(i)] != 100 + i;
                for (index_t j = 0; j < columns; ++j) {
                    if (is_kept) wrong += !same_bits(few(next, j), x(i, j));
                    if (is_kept) wrong += !same_bits(place(next, j), x(i, j));
                    if (i >= kept) wrong += !same_bits(few(i, j), poison<T>());
                    if (i >= kept) wrong += !same_bits(place(i, j), x(i, j));
                    wrong += !same_bits(back(i, j), is_kept ? x(i, j) : poison<T>());
                }
                next += is_kept;
            }
            CHECK(wrong == 0);
            CHECK((few.outside_untouched() && back.outside_untouched()));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("calls without a number check shapes", "", policies) {
    const std::vector<float> scores = {1, 2, 3, 4, 5};
    const std::vector<int> offsets = {0, 2, 5};
    std::vector<int> index(5, -1), kept(3, -1), few(4, -1);
    matrix<float> x(5, 3), narrow(5, 2), low(4, 3);
    const auto shape = [](const auto& f) { return sentence_of<pare::shape_error>(f); };
    CHECK(shape([&] {
              pare::keep_above_async(TestType::policy(), scores, 2, offsets, few, kept);
          }) == "pare::keep_above_async: room for 4 positions, all 5 may be kept");
    CHECK(shape([&] {
              pare::keep_top_k_async(TestType::policy(), scores, 2, offsets, few, kept);
          }) == "pare::keep_top_k_async: room for 4 positions, all 5 may be kept");
    pare::keep_above_async(TestType::policy(), scores, 2.5, offsets, index, kept);
    CHECK(kept == std::vector<int>{0, 1, 4});
    CHECK(shape([&] {
              pare::gather_rows_async(TestType::policy(), index, kept,
                                      pare::from_to(x.view(), narrow.view()));
          }) == "pare::gather_rows_async: array 0: 5 of 5 x 3 against 5 x 2");
    CHECK(shape([&] {
              pare::restore_async(TestType::policy(), index, kept,
                                  pare::from_to(low.view(), x.view()));
          }) == "pare::restore_async: array 0: 5 of 5 x 3 against 4 x 3");
    CHECK(shape([&] {
              pare::gather_rows_async(TestType::policy(), index, std::vector<int>{}, x.view());
          }) == "pare::gather_rows_async: 0 offsets of stride 1");
    for (index_t i = 0; i < 5; ++i) CHECK(is_nan(x(i, 0)));
}

} // namespace async_test
