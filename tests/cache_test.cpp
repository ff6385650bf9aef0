// What is chosen of caches: scores that neighbours share, and one budget for several rows.
#include "policies.hpp"
#include "support.hpp"
#include <pare/cache.hpp>
#include <pare/compact.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <numeric>
#include <tuple>

namespace cache_test {

TEMPLATE_LIST_TEST_CASE("scores that neighbours share", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const layout l : {layout::rows, layout::padded, layout::columns})
        for (const index_t radius :
             {index_t{0}, index_t{1}, index_t{3}, index_t{50}, std::numeric_limits<index_t>::max()})
            for (const bool largest : {false, true}) {
                CAPTURE(l, radius, largest);
                const std::vector<int> offsets = {0, 1, 1, 20, 27, 130};
                const matrix<T> x(3, 130, random, l);
                matrix<T> y(3, 130, l);
                pare::pool_scores(TestType::policy(), x.view(), offsets, radius,
                                  largest ? pare::pooling::max : pare::pooling::mean, y.view());
                for (index_t r = 0; r < 3; ++r)
                    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
                        for (index_t t = offsets[s]; t < offsets[s + 1]; ++t) {
                            real sum = 0, most = -2, count = 0;
                            for (index_t u = offsets[s]; u < offsets[s + 1]; ++u) {
                                if (std::abs(u - t) > radius) continue;
                                sum += static_cast<real>(x(r, u));
                                most = std::max(most, static_cast<real>(x(r, u)));
                                ++count;
                            }
                            REQUIRE(distance(y(r, t), largest ? most : sum / count) < tolerance<T>);
                        }
                CHECK(y.outside_untouched());
            }
    // One row, and what is no number.
    std::vector<T> x = {1, 2, not_a_number<T>(), 0, 5}, y(5);
    for (const auto how : {pare::pooling::max, pare::pooling::mean}) {
        pare::pool_scores(TestType::policy(), x, std::vector<int>{0, 5}, 1, how, y);
        for (int t = 0; t < 5; ++t)
            CHECK(is_nan(y[static_cast<std::size_t>(t)]) == (t > 0 && t < 4));
    }
}

#ifndef __CUDACC__ // which cannot convert Eigen's types on a device
using short_types = std::tuple<Eigen::half, Eigen::bfloat16>;
TEMPLATE_LIST_TEST_CASE("pooled scores of half types are those of plain loops", "", short_types) {
    random_source random;
    CAPTURE(random);
    const std::vector<int> offsets = {0, 5, 90, 400};
    for (const std::size_t no_number : {std::size_t{400}, std::size_t{300}}) { // none, or one
        std::vector<TestType> x, y(400), expected(400);
        for (int i = 0; i < 400; ++i)
            x.push_back(static_cast<TestType>(static_cast<float>(random.uniform(-1, 1))));
        if (no_number < x.size()) x[no_number] = static_cast<TestType>(not_a_number<float>());
        for (const auto how : {pare::pooling::max, pare::pooling::mean})
            for (const index_t radius : {0, 3, 60}) {
                pare::pool_scores(pare::simd, x, offsets, radius, how, y);
                pare::pool_scores(pare::seq, x, offsets, radius, how, expected);
                for (std::size_t i = 0; i < x.size(); ++i) {
                    const auto a = static_cast<float>(y[i]), b = static_cast<float>(expected[i]);
                    REQUIRE((is_nan(a) ? is_nan(b)
                                       : std::abs(a - b) <= 0.01F * (std::abs(b) + 0.001F)));
                }
            }
        CHECK(pare::simd.first_nan(pare::as_input<1>(x)) ==
              (no_number < x.size() ? static_cast<index_t>(no_number) : -1));
    }
}
#endif

TEST_CASE("what pool_scores cannot use, it says in numbers") {
    std::vector<float> x(6), y(5);
    const auto sentence = [&](index_t radius, const std::vector<int>& offsets, auto&& to) {
        return sentence_of<pare::error>(
            [&] { pare::pool_scores(pare::simd, x, offsets, radius, pare::pooling::max, to); });
    };
    std::vector<float> z(6);
    CHECK(sentence(1, {0, 6}, y) == "pare::pool_scores: scores are 1x6, pooled ones 1x5");
    CHECK(sentence(-1, {0, 6}, z) == "pare::pool_scores: the radius is -1");
    CHECK(sentence(1, {0, 5}, z) ==
          "pare::pool_scores: offsets go from 0 to 5, there are 6 tokens");
}

namespace {

/// By sorting: how many of each row are among its `least` best, and the best of what is left.
template <class T>
std::vector<int> sorted_counts(const matrix<T>& x, index_t total, index_t least,
                               const std::vector<bool>& pinned) {
    std::vector<std::tuple<bool, T, index_t, index_t>> all, rest; // smallest first
    std::vector<int> counts(static_cast<std::size_t>(x.height));
    for (index_t r = 0; r < x.height; ++r) {
        all.clear();
        for (index_t j = 0; j < x.width; ++j)
            all.emplace_back(!pinned[static_cast<std::size_t>(j)], -x(r, j), r, j);
        std::sort(all.begin(), all.end());
        const auto some = std::min(least, x.width);
        rest.insert(rest.end(), all.begin() + some, all.end());
        counts[static_cast<std::size_t>(r)] = static_cast<int>(some);
        total -= some;
    }
    std::sort(rest.begin(), rest.end());
    for (std::size_t i = 0; i < rest.size() && static_cast<index_t>(i) < total; ++i)
        ++counts[static_cast<std::size_t>(std::get<2>(rest[i]))];
    return counts;
}

} // namespace

TEMPLATE_TEST_CASE("one budget of several rows", "", float, double) {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 200; ++round) {
        const index_t rows = random.integer(0, 5), keys = random.integer(0, 30);
        const index_t least = random.integer(1, 8);
        const index_t total = rows * least + random.integer(0, rows * keys + 3);
        CAPTURE(rows, keys, least, total);
        matrix<TestType> x(rows, keys, random, round % 2 ? layout::columns : layout::padded);
        for (index_t r = 0; r < rows; ++r) // many are equal, and some rows get more
            for (index_t j = 0; j < keys; ++j)
                x(r, j) = std::round(x(r, j) * 3) * static_cast<TestType>(1 + r);
        pare::pins pinned{random.integer(0, 3), random.integer(0, 3)};
        std::vector<std::uint8_t> flags(static_cast<std::size_t>(keys));
        std::vector<bool> is_pinned;
        for (index_t j = 0; j < keys; ++j) {
            flags[static_cast<std::size_t>(j)] = round % 3 == 0 && random.integer(0, 4) == 0;
            is_pinned.push_back(j < pinned.first || j >= keys - pinned.last ||
                                flags[static_cast<std::size_t>(j)]);
        }
        if (round % 3 == 0) pinned.flags = flags;
        std::vector<int> counts(static_cast<std::size_t>(rows), -1);
        pare::share_budget(x.view(), total, least, counts, pinned);
        CHECK(counts == sorted_counts(x, total, least, is_pinned));
        CHECK(std::accumulate(counts.begin(), counts.end(), index_t{0}) ==
              std::min(total, rows * keys));
    }
}

TEST_CASE("what share_budget cannot use, it says in numbers") {
    const std::vector<float> x = {1, 2, 3, 4, 5, not_a_number<float>()};
    const auto sentence = [&](index_t total, index_t least, index_t rows, const pare::pins& p) {
        std::vector<int> counts(static_cast<std::size_t>(rows));
        return sentence_of<pare::error>(
            [&] { pare::share_budget(pare::view(x.data(), 2, 3), total, least, counts, p); });
    };
    CHECK(sentence(3, 2, 2, {}) == "pare::share_budget: a budget of 3 for 2 rows, of which each "
                                   "keeps at least 2; that has to be 1 or more, and the budget 4");
    CHECK(sentence(3, 0, 2, {}) == "pare::share_budget: a budget of 3 for 2 rows, of which each "
                                   "keeps at least 0; that has to be 1 or more, and the budget 2");
    CHECK(sentence(4, 1, 2, {}) == "pare::share_budget: score 2 of row 1 is NaN");
    CHECK(sentence(4, 1, 3, {}) ==
          "pare::share_budget: scores are 2x3, there are 3 counts; pinned are the first 0 keys, "
          "the last 0 and by 0 flags");
    CHECK_THAT(sentence(4, 1, 2, {-1, 0}), ContainsSubstring("the first -1 keys"));
}

TEST_CASE("rows with numbers of their own keep the best of all") {
    random_source random;
    CAPTURE(random);
    const matrix<float> x(4, 50, random);
    std::vector<int> counts(4), kept(200), offsets = {0, 50, 100, 150, 200};
    pare::share_budget(x.view(), 60, 5, counts);
    const pare::view<const float, 1> flat(x.data.data(), 200);
    kept.resize(static_cast<std::size_t>(
        pare::keep_top_k(pare::simd, flat, counts, offsets, kept, offsets)));
    REQUIRE(kept.size() == 60);
    for (std::size_t r = 0; r < 4; ++r) CHECK(offsets[r + 1] - offsets[r] == counts[r]);
    // No row keeps a smaller one than another leaves, beyond the five best of each.
    float least = 2, most = -2;
    for (index_t r = 0; r < 4; ++r) {
        const auto begin = kept.begin() + offsets[static_cast<std::size_t>(r)],
                   end = kept.begin() + offsets[static_cast<std::size_t>(r) + 1];
        for (int j = 0; j < 50; ++j) {
            const bool stays = std::find(begin, end, static_cast<int>(r) * 50 + j) != end;
            if (!stays) most = std::max(most, x(r, j));
            if (stays && end - begin > 5) least = std::min(least, x(r, j));
        }
    }
    CHECK(least > most);
}

} // namespace cache_test
