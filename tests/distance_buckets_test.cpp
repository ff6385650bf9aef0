// Buckets of distances against T5's formula, and the tables that are made of them.
#include "support.hpp"
#include <pare/distance_buckets.hpp>

#include <cmath>

namespace distance_buckets_test {

namespace {

/// The formula as T5's code has it, in double: relative_position is of a key less a query's.
index_t bucket_of_t5(index_t relative_position, bool bidirectional, index_t num_buckets,
                     index_t max_distance) {
    index_t result = 0, n = -relative_position;
    if (bidirectional) {
        num_buckets /= 2;
        if (n < 0) {
            result = num_buckets;
            n = -n;
        }
    } else if (n < 0) {
        n = 0;
    }
    const index_t max_exact = num_buckets / 2;
    if (n < max_exact) return result + n;
    // Logarithms to base 2, so that powers of two are exact.
    const double part =
        std::log2(static_cast<double>(n) / static_cast<double>(max_exact)) /
        std::log2(static_cast<double>(max_distance) / static_cast<double>(max_exact)) *
        static_cast<double>(num_buckets - max_exact);
    const index_t large = max_exact + static_cast<index_t>(part);
    return result + (large < num_buckets - 1 ? large : num_buckets - 1);
}

} // namespace

TEST_CASE("buckets of distances are T5's and MPNet's") {
    for (const bool both_ways : {true, false})
        for (const auto& [count, max_distance] :
             {std::pair<index_t, index_t>{32, 128}, {64, 256}, {320, 800}, {4, 3}, {8, 64}}) {
            const pare::distance_buckets buckets{count, max_distance, both_ways};
            for (index_t d = -600; d <= 600; ++d) {
                CAPTURE(count, max_distance, both_ways, d);
                REQUIRE(buckets(d) == bucket_of_t5(d, both_ways, count, max_distance));
            }
        }
    // The first key of each bucket, as MPNet has them: 8 alone, then by powers of the root of 2.
    const pare::distance_buckets mpnet;
    const std::vector<index_t> first = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
    for (std::size_t b = 0; b < first.size(); ++b) {
        CHECK(mpnet(-first[b]) == static_cast<index_t>(b));
        if (b > 0) {
            CHECK(mpnet(first[b]) == 16 + static_cast<index_t>(b));
            CHECK(mpnet(1 - first[b]) == static_cast<index_t>(b) - 1);
        }
    }
    constexpr index_t farthest = std::numeric_limits<index_t>::max();
    CHECK(mpnet(farthest) == 31);
    CHECK(mpnet(-farthest - 1) == 15);
}

TEST_CASE("a table of distances has each bucket's bias") {
    random_source random;
    CAPTURE(random);
    const auto weights = random.vector<double>(32 * 3);
    const pare::view of_buckets(weights.data(), 32, 3);
    for (const index_t most : {0, 5, 128, 200}) {
        std::vector<float> numbers(static_cast<std::size_t>(3 * (2 * most + 1)), poison<float>());
        const pare::view table(numbers.data(), 3, 2 * most + 1);
        pare::expand_buckets(of_buckets, table);
        for (index_t h = 0; h < 3; ++h)
            for (index_t d = -most; d <= most; ++d)
                REQUIRE(table(h, most + d) ==
                        static_cast<float>(of_buckets(bucket_of_t5(d, true, 32, 128), h)));
    }
    pare::expand_buckets(pare::view<double, 2>(nullptr, 32, 0),
                         pare::view<float, 2>(nullptr, 0, 9));
}

TEST_CASE("what buckets cannot be, they say in numbers") {
    std::vector<float> weights(32 * 2), table(2 * 9);
    const auto sentence = [&](index_t rows, index_t columns,
                              const pare::distance_buckets& buckets) {
        return sentence_of<pare::error>([&] {
            pare::expand_buckets(pare::view(weights.data(), rows, 2),
                                 pare::view(table.data(), 2, columns), buckets);
        });
    };
    CHECK(sentence(31, 9, {}) == "pare::expand_buckets: biases of buckets are 31x2, the table 2x9; "
                                 "of 32 buckets it is heads by an odd number");
    CHECK_THAT(sentence(32, 8, {}), ContainsSubstring("biases of buckets are 32x2, the table 2x8"));
    CHECK(sentence(32, 9, {32, 8}) ==
          "pare::distance_buckets: 32 buckets both ways up to distance 8; 4 are the least, and "
          "distances go beyond 8, which have a bucket each, and below 2^31");
    CHECK_THAT(sentence(3, 9, {3, 128}), ContainsSubstring("3 buckets both ways"));
    CHECK_THAT(sentence(1, 9, {1, 128, false}), ContainsSubstring("1 buckets one way"));
    CHECK_THAT(sentence(2, 9, {2, index_t{1} << 31, false}), ContainsSubstring("below 2^31"));
}

} // namespace distance_buckets_test
