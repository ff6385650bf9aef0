// Tokens kept by threshold and by count, and their rows, against sets and stable sorts.
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/compact.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

namespace compact_test {

namespace {

std::size_t size(index_t i) {
    return static_cast<std::size_t>(i);
}

/// A ragged batch with scores of few different values, pinned tokens, and empty sequences.
template <class T>
struct batch {
    std::vector<index_t> offsets{0};
    index_t stride;
    std::vector<T> numbers;
    std::vector<std::uint8_t> flags;
    pare::pins pinned;

    batch(random_source& random, index_t sequences, index_t longest, index_t score_stride = 1)
        : stride(score_stride) {
        for (index_t s = 0; s < sequences; ++s)
            offsets.push_back(offsets.back() + std::max<index_t>(0, random.integer(-2, longest)));
        const index_t different = random.integer(1, 30);
        for (index_t i = 0; i < tokens(); ++i)
            for (index_t e = 0; e < stride; ++e)
                numbers.push_back(e ? not_a_number<T>()
                                    : static_cast<T>(random.integer(0, different)));
        pinned.first = std::max<index_t>(0, random.integer(-1, 2));
        pinned.last = std::max<index_t>(0, random.integer(-2, 2));
        if (random.integer(0, 1)) {
            for (index_t i = 0; i < tokens(); ++i)
                flags.push_back(static_cast<std::uint8_t>(random.integer(0, 9) == 0 ? 7 : 0));
            pinned.flags = pare::as_input<1>(flags);
        }
    }
    batch(const batch&) = delete;
    batch& operator=(const batch&) = delete;

    index_t sequences() const { return static_cast<index_t>(offsets.size()) - 1; }
    index_t tokens() const { return offsets.back(); }
    pare::view<const T, 1> scores() const { return {numbers.data(), {tokens()}, {stride}}; }
    bool is_pinned(index_t i, index_t first, index_t end) const {
        return i - first < pinned.first || i >= end - pinned.last ||
               (!flags.empty() && flags[size(i)] != 0);
    }
    /// A sequence's positions: pinned ones first, then by descending score.
    std::vector<index_t> ranked(index_t s) const {
        const index_t first = offsets[size(s)], end = offsets[size(s) + 1];
        std::vector<index_t> order(size(end - first));
        std::iota(order.begin(), order.end(), first);
        std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) {
            if (is_pinned(i, first, end) != is_pinned(j, first, end))
                return is_pinned(i, first, end);
            return scores()(i) > scores()(j);
        });
        return order;
    }
};

using kept_tokens = std::vector<std::vector<index_t>>; // of every sequence

template <class T>
kept_tokens above(const batch<T>& b, double threshold) {
    kept_tokens kept;
    for (index_t s = 0; s < b.sequences(); ++s) {
        kept.emplace_back();
        const index_t first = b.offsets[size(s)], end = b.offsets[size(s) + 1];
        for (index_t i = first; i < end; ++i)
            if (b.is_pinned(i, first, end) || static_cast<double>(b.scores()(i)) >= threshold)
                kept.back().push_back(i);
        if (kept.back().empty() && first < end) kept.back().push_back(b.ranked(s)[0]);
    }
    return kept;
}
template <class T, class Count>
kept_tokens top(const batch<T>& b, const Count& count) {
    kept_tokens kept;
    for (index_t s = 0; s < b.sequences(); ++s) {
        kept.push_back(b.ranked(s));
        kept.back().resize(std::min(kept.back().size(), size(count(s))));
        std::sort(kept.back().begin(), kept.back().end());
    }
    return kept;
}

/// select(index, new offsets) gives what is expected and touches nothing behind it.
template <class Index, class NewOffset, class Select>
void check_kept(const kept_tokens& expected, index_t room, const Select& select) {
    std::vector<Index> all;
    std::vector<NewOffset> offsets{0};
    for (const auto& of_sequence : expected) {
        for (index_t i : of_sequence) all.push_back(static_cast<Index>(i));
        offsets.push_back(static_cast<NewOffset>(all.size()));
    }
    for (const index_t more : {index_t{0}, room - static_cast<index_t>(all.size()) + 3}) {
        const index_t length = static_cast<index_t>(all.size()) + std::max<index_t>(0, more);
        std::vector<Index> index(size(length) + 1, poison<Index>());
        std::vector<NewOffset> new_offsets(offsets.size() + 1, poison<NewOffset>());
        const index_t kept =
            select(pare::view(index.data(), length),
                   pare::view(new_offsets.data(), static_cast<index_t>(offsets.size())));
        REQUIRE(kept == static_cast<index_t>(all.size()));
        CHECK(std::equal(all.begin(), all.end(), index.begin()));
        CHECK(std::equal(offsets.begin(), offsets.end(), new_offsets.begin()));
        CHECK(std::all_of(index.begin() + kept, index.end(),
                          [](Index i) { return i == poison<Index>(); }));
        CHECK(new_offsets.back() == poison<NewOffset>());
    }
}

struct quantised { // 6 bytes
    std::uint16_t scale;
    std::int8_t codes[4];
};

template <class T>
T number(index_t i) {
    if constexpr (std::is_same_v<T, quantised>)
        return {static_cast<std::uint16_t>(i), {static_cast<std::int8_t>(i), 1, 2, 3}};
    else
        return static_cast<T>(i % 125);
}
template <class T>
matrix<T> numbered(index_t h, index_t w, layout l) {
    matrix<T> m(h, w, l);
    for (index_t i = 0; i < h; ++i)
        for (index_t j = 0; j < w; ++j) m(i, j) = number<T>(17 * i + j);
    return m;
}
std::vector<int> random_index(index_t rows, random_source& random) {
    std::vector<int> index;
    const index_t of_ten = random.integer(0, 10);
    for (index_t i = 0; i < rows; ++i)
        if (random.integer(1, 10) <= of_ten) index.push_back(static_cast<int>(i));
    return index;
}
const layout layouts[] = {layout::rows, layout::padded, layout::columns, layout::interleaved};

/// f(policy) for policies that share out rows in different ways.
template <class F>
void for_policies(const F& f) {
    f(pare::seq);
    f(pare::simd.with(pare::serial{}));
#ifdef _OPENMP
    f(pare::sequential<pare::openmp>(pare::openmp{3}));
    for (int threads : {1, 2, 5}) f(pare::simd.with(pare::openmp{threads}));
#endif
}

} // namespace

TEMPLATE_LIST_TEST_CASE("tokens above a threshold, the pinned, and at least one", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 200; ++round) {
        const batch<T> b(random, random.integer(0, 6), round < 100 ? 4 : 90, 1 + round % 2 * 2);
        const double threshold = random.uniform(-1, 31);
        CAPTURE(round, threshold, b.offsets, b.pinned.first, b.pinned.last, b.flags);
        const auto select = [&](auto index, auto offsets) {
            return pare::keep_above(policy, b.scores(), threshold, b.offsets, index, offsets,
                                    b.pinned);
        };
        const auto expected = above(b, threshold);
        check_kept<std::int32_t, std::int32_t>(expected, b.tokens(), select);
        check_kept<std::int64_t, std::uint16_t>(expected, b.tokens(), select);
        check_kept<std::uint32_t, std::int64_t>(expected, b.tokens(), select);
        auto place = b.offsets; // new offsets in place of the old
        std::vector<int> index(size(b.tokens()));
        const index_t kept =
            pare::keep_above(policy, b.scores(), threshold, place, index, place, b.pinned);
        CHECK(place.back() == kept);
    }
}

TEST_CASE("sentences hold integers of one byte as numbers") {
    const std::vector<float> scores{1, 2, 3};
    std::vector<int> index(3);
    std::vector<std::uint8_t> offsets{0, 65, 3};
    CHECK(sentence_of<pare::shape_error>([&] {
              pare::keep_above(pare::seq, scores, 0, offsets, index, offsets);
          }) == "pare::keep_above: offset 2 is 3 after 65");
    std::vector<float> rows(4);
    const auto gather = [&](auto position) {
        return sentence_of<pare::value_error>(
            [&] { pare::gather_rows(pare::seq, std::vector{position}, rows); });
    };
    CHECK(gather(std::int8_t{-1}) ==
          "pare::gather_rows: position 0 is -1, which does not ascend below 4");
    CHECK(gather(char{65}) == "pare::gather_rows: position 0 is 65, which does not ascend below 4");
    CHECK(gather(std::uint8_t{10}) ==
          "pare::gather_rows: position 0 is 10, which does not ascend below 4");
}

TEST_CASE("a threshold is rounded as scores are") {
    const std::vector<Eigen::half> scores = {Eigen::half(0.1F), Eigen::half(0.5F),
                                             Eigen::half(0.0999F)};
    std::vector<int> index(3);
    CHECK(pare::keep_above(pare::seq, scores, 0.1, index) == 2);
    CHECK(index[0] + index[1] == 1);
    CHECK(pare::keep_above(pare::seq, scores, minus_infinite<double>(), index) == 3);
}

TEMPLATE_LIST_TEST_CASE("scores of a half type: those above a threshold, or the best one", "",
                        half_types) {
    const auto scores = halves_of<TestType>({0.25f, 0.75f, 0.75f, 0.5f});
    std::vector<int> index(4);
    CHECK(pare::keep_above(pare::seq, scores, 0.5, index) == 3);
    CHECK(index == std::vector<int>{1, 2, 3, 0});
    CHECK(pare::keep_above(pare::seq, scores, 2, index) == 1);
    CHECK(index[0] == 1);
    CHECK(pare::keep_top_k(pare::seq, scores, 3, index) == 3);
    CHECK(index == std::vector<int>{1, 2, 3, 0});
}

TEMPLATE_LIST_TEST_CASE("the k tokens with the highest scores", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 200; ++round) {
        const batch<T> b(random, random.integer(0, 6), round < 100 ? 4 : 90, 1 + round % 2 * 2);
        CAPTURE(round, b.offsets, b.pinned.first, b.pinned.last, b.flags);
        const int k = static_cast<int>(random.integer(1, round < 100 ? 5 : 100));
        check_kept<std::int32_t, std::int64_t>(
            top(b, [&](index_t) { return k; }), b.tokens(), [&](auto index, auto offsets) {
                return pare::keep_top_k(policy, b.scores(), k, b.offsets, index, offsets, b.pinned);
            });
        std::vector<std::uint8_t> each;
        for (index_t s = 0; s < b.sequences(); ++s) {
            const bool empty = b.offsets[size(s)] == b.offsets[size(s) + 1];
            each.push_back(static_cast<std::uint8_t>(random.integer(empty ? 0 : 1, 99)));
        }
        check_kept<std::int64_t, std::int32_t>(top(b, [&](index_t s) { return each[size(s)]; }),
                                               b.tokens(), [&](auto index, auto offsets) {
                                                   return pare::keep_top_k(policy, b.scores(), each,
                                                                           b.offsets, index,
                                                                           offsets, b.pinned);
                                               });
    }
}

TEMPLATE_LIST_TEST_CASE("the k best of thousands of tokens, of either sign", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 6; ++round) {
        batch<T> b(random, 2, 10000, 1 + round % 2);
        for (std::size_t i = 0; i < b.numbers.size(); ++i) {
            const T negative = -b.numbers[i]; // of 0 that is equal to it
            if (i % 3 == 0) b.numbers[i] = negative;
        }
        const int k = static_cast<int>(random.integer(1, 9000));
        CAPTURE(round, k, b.offsets, b.pinned.first, b.pinned.last);
        check_kept<std::int32_t, std::int32_t>(
            top(b, [&](index_t) { return k; }), b.tokens(), [&](auto index, auto offsets) {
                return pare::keep_top_k(TestType::policy(), b.scores(), k, b.offsets, index,
                                        offsets, b.pinned);
            });
    }
}

TEMPLATE_LIST_TEST_CASE("selection of one sequence", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    const std::vector<T> scores = {T(0.5), T(0.1), T(0.9), T(0.5), T(0.9)};
    std::vector<int> index(5, -1);
    const auto kept = [&](index_t count) {
        return std::vector<int>(index.begin(), index.begin() + count);
    };
    CHECK(kept(pare::keep_above(policy, scores, 0.5, index)) == std::vector<int>{0, 2, 3, 4});
    CHECK(kept(pare::keep_above(policy, scores, 2, index)) == std::vector<int>{2});
    CHECK(kept(pare::keep_above(policy, scores, 2, index, pare::pins{1})) == std::vector<int>{0});
    CHECK(kept(pare::keep_above(policy, scores, 0.6, index, pare::pins{2})) ==
          std::vector<int>{0, 1, 2, 4});
    CHECK(kept(pare::keep_above(policy, scores, minus_infinite<double>(), index)) ==
          std::vector<int>{0, 1, 2, 3, 4});
    CHECK(kept(pare::keep_above(policy, scores, 1e300, index)) == std::vector<int>{2});
    CHECK(kept(pare::keep_top_k(policy, scores, 3, index)) == std::vector<int>{0, 2, 4});
    CHECK(kept(pare::keep_top_k(policy, scores, 9, index)) == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(kept(pare::keep_top_k(policy, scores, 1, index, pare::pins{2})) == std::vector<int>{0});
    CHECK(kept(pare::keep_above(policy, scores, 2, index, pare::pins{0, 1})) ==
          std::vector<int>{4});
    CHECK(kept(pare::keep_above(policy, scores, 2, index, pare::pins{1, 2})) ==
          std::vector<int>{0, 3, 4});
    CHECK(kept(pare::keep_above(policy, scores, 2, index, pare::pins{3, 4})) ==
          std::vector<int>{0, 1, 2, 3, 4});
    CHECK(kept(pare::keep_top_k(policy, scores, 2, index, pare::pins{0, 2})) ==
          std::vector<int>{3, 4});
    const std::vector<std::uint8_t> flags = {0, 1, 0, 0, 0};
    CHECK(kept(pare::keep_top_k(policy, scores, 2, index,
                                pare::pins{0, 0, pare::as_input<1>(flags)})) ==
          std::vector<int>{1, 2});
    CHECK(pare::keep_above(policy, std::vector<T>{}, 0.5, index) == 0);
    CHECK(pare::keep_top_k(policy, std::vector<T>{}, 1, index) == 0);
    const T infinity = infinite<T>();
    const std::vector<T> extremes = {-infinity, infinity, T(0), infinity};
    CHECK(kept(pare::keep_above(policy, extremes, 1e30, index)) == std::vector<int>{1, 3});
    CHECK(kept(pare::keep_top_k(policy, extremes, 3, index)) == std::vector<int>{1, 2, 3});
}

TEMPLATE_LIST_TEST_CASE("more than all of them is all of them", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    const std::vector<T> scores = {T(3), T(1), T(2), T(5)};
    std::vector<int> offsets = {0, 3, 4}, index(4), kept(3);
    constexpr auto no_limit = std::numeric_limits<std::uint64_t>::max();
    CHECK(pare::keep_top_k(policy, scores, no_limit, offsets, index, kept) == 4);
    CHECK(pare::keep_top_k(policy, scores, std::vector<std::uint64_t>{no_limit, 1}, offsets, index,
                           kept) == 4);
    const pare::pins most{std::numeric_limits<index_t>::max()};
    CHECK(pare::keep_above(policy, scores, 100, offsets, index, kept, most) == 4);
    CHECK(pare::keep_top_k(policy, scores, 1, offsets, index, kept, most) == 2);
    const pare::pins most_behind{0, std::numeric_limits<index_t>::max()};
    CHECK(pare::keep_above(policy, scores, 100, offsets, index, kept, most_behind) == 4);
    CHECK(pare::keep_top_k(policy, scores, 1, offsets, index, kept, most_behind) == 2);
}

TEMPLATE_LIST_TEST_CASE("what a sequence keeps does not depend on its batch", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 30; ++round) {
        const batch<T> b(random, 5, 40);
        const double threshold = random.uniform(0, 20);
        std::vector<int> index(size(b.tokens())), alone(size(b.tokens()));
        std::vector<index_t> offsets(b.offsets.size());
        for (bool by_count : {false, true}) {
            by_count ? pare::keep_top_k(policy, b.scores(), 7, b.offsets, index, offsets, b.pinned)
                     : pare::keep_above(policy, b.scores(), threshold, b.offsets, index, offsets,
                                        b.pinned);
            for (index_t s = 0; s < 5; ++s) {
                const index_t first = b.offsets[size(s)], n = b.offsets[size(s) + 1] - first;
                const pare::view<const T, 1> scores(b.numbers.data() + first, n);
                pare::pins pinned{b.pinned.first, b.pinned.last};
                if (!b.flags.empty()) pinned.flags = pare::view(b.flags.data() + first, n);
                const index_t kept =
                    by_count ? pare::keep_top_k(policy, scores, 7, alone, pinned)
                             : pare::keep_above(policy, scores, threshold, alone, pinned);
                REQUIRE(kept == offsets[size(s) + 1] - offsets[size(s)]);
                for (index_t i = 0; i < kept; ++i)
                    CHECK(index[size(offsets[size(s)] + i)] == first + alone[size(i)]);
            }
        }
    }
}

TEST_CASE("every part of a selection returns how many are kept") {
    random_source random;
    CAPTURE(random);
    const batch<float> b(random, 4, 50);
    std::vector<int> whole(size(b.tokens()), -1), parts = whole;
    std::vector<index_t> offsets(b.offsets.size()), of_parts = offsets;
    const index_t kept =
        pare::keep_above(pare::seq, b.scores(), 9, b.offsets, whole, offsets, b.pinned);
    for (index_t ith : {1, 0, 2})
        CHECK(pare::keep_above(pare::simd.with(pare::part{ith, 3}), b.scores(), 9, b.offsets, parts,
                               of_parts, b.pinned) == kept);
    parts.resize(size(kept));
    whole.resize(size(kept));
    CHECK(parts == whole);
    CHECK(of_parts == offsets);
}

TEMPLATE_LIST_TEST_CASE("NaN scores are an error that names sequence and position", "", runs) {
    using T = typename TestType::type;
    for (const index_t at : {0, 2, 3, 999, 1000, 1599}) {
        std::vector<T> scores(1600, T(1));
        scores[size(at)] = not_a_number<T>();
        const std::vector<int> offsets = {0, 0, 3, 1000, 1000, 1600, 1600};
        const int sequence = at < 3 ? 1 : at < 1000 ? 2 : 4;
        const std::string expected = "score " + std::to_string(at - offsets[size(sequence)]) +
                                     " of sequence " + std::to_string(sequence) + " is NaN";
        std::vector<int> index(1600, -1), new_offsets(7, -1);
        CHECK(sentence_of<pare::value_error>([&] {
                  pare::keep_above(TestType::policy(), scores, 0.5, offsets, index, new_offsets);
              }) == "pare::keep_above: " + expected);
        CHECK(sentence_of<pare::value_error>([&] {
                  pare::keep_top_k(TestType::policy(), scores, 5, offsets, index, new_offsets);
              }) == "pare::keep_top_k: " + expected);
        CHECK(index == std::vector<int>(1600, -1));
        CHECK(new_offsets == std::vector<int>(7, -1));
    }
}

TEST_CASE("selection checks its arguments") {
    const std::vector<float> scores = {1, 2, 3, 4, 5};
    const std::vector<int> offsets = {0, 2, 5};
    std::vector<int> index(5, -1), new_offsets(3, -1), few(3, -1);
    const auto shape = [](const auto& f) { return sentence_of<pare::shape_error>(f); };
    const auto call = [&](const std::vector<int>& o, auto& to, auto& new_o, pare::pins pinned) {
        return shape([&] { pare::keep_above(pare::simd, scores, 2, o, to, new_o, pinned); });
    };
    CHECK(call({0, 4}, index, new_offsets, {}) ==
          "pare::keep_above: offsets go from 0 to 4, there are 5 tokens");
    CHECK(call({0, 4, 2, 5}, index, new_offsets, {}) == "pare::keep_above: offset 2 is 2 after 4");
    CHECK(call({}, index, new_offsets, {}) ==
          "pare::keep_above: no offsets; of no sequences they are one 0");
    CHECK(call({0, 5}, index, new_offsets, {}) ==
          "pare::keep_above: 2 offsets, 3 new ones of stride 1");
    CHECK(call(offsets, few, new_offsets, {}) ==
          "pare::keep_above: room for 3 positions, 4 are kept");
    CHECK(
        call(offsets, index, new_offsets, {-1}) ==
        "pare::keep_above: pinned are the first -1 tokens, the last 0 and by 0 flags, there are 5 "
        "tokens");
    const std::vector<std::uint8_t> flags(4);
    CHECK(call(offsets, index, new_offsets, {1, 0, pare::as_input<1>(flags)}) ==
          "pare::keep_above: pinned are the first 1 tokens, the last 0 and by 4 flags, there are 5 "
          "tokens");
    const pare::view<int, 1> spread(index.data(), {3}, {2});
    CHECK(shape([&] { pare::keep_above(pare::seq, scores, 2, spread); }) ==
          "pare::keep_above: positions have stride 2");
    CHECK(shape([&] { pare::keep_top_k(pare::seq, scores, 2, offsets, few, new_offsets); }) ==
          "pare::keep_top_k: room for 3 positions, 4 are kept");
    const std::vector<float> many(300, 1.0f);
    std::vector<std::int8_t> narrow(300, -1);
    CHECK(shape([&] { pare::keep_above(pare::seq, many, 2, narrow); }) ==
          "pare::keep_above: integers up to 127 cannot count 300 tokens");
    CHECK(shape([&] {
              pare::keep_top_k(pare::seq, scores, std::vector<int>{1}, offsets, index, new_offsets);
          }) == "pare::keep_top_k: 1 numbers k for 2 sequences");
    CHECK(sentence_of<pare::value_error>([&] {
              pare::keep_top_k(pare::seq, scores, std::vector<int>{1, 0}, offsets, index,
                               new_offsets);
          }) == "pare::keep_top_k: k is 0 for sequence 1 of 3 tokens");
    CHECK_THROWS_AS(pare::keep_top_k(pare::seq, scores, -1, index), pare::value_error);
    CHECK_THROWS_AS(pare::keep_above(pare::seq, scores, not_a_number<double>(), index),
                    pare::value_error);
    for (const auto& out : {index, new_offsets, few})
        CHECK(std::all_of(out.begin(), out.end(), [](int i) { return i == -1; }));
    CHECK(narrow == std::vector<std::int8_t>(300, -1));
}

TEMPLATE_TEST_CASE("rows gathered, in place and not, and restored", "", float, double,
                   std::uint16_t, std::int8_t, quantised) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    for_policies([&](const auto& policy) {
        for (layout l : layouts)
            for (index_t w : {0, 1, 3, 15, 16, 17, 64, 65, 200, 1031})
                for (index_t h : {0, 1, 7, 150}) {
                    const auto x = numbered<T>(h, w, l);
                    const auto index = random_index(h, random);
                    const auto kept = static_cast<index_t>(index.size());
                    CAPTURE(w, h, kept, static_cast<int>(l));
                    auto place = x, back = matrix<T>(h, w, l);
                    matrix<T> few(kept, w, layouts[random.integer(0, 3)]);
                    pare::gather_rows(policy, index, place.view());
                    pare::gather_rows(policy, index, pare::from_to(x.view(), few.view()));
                    pare::restore(policy, index, pare::from_to(few.view(), back.view()));
                    index_t wrong = 0, next = 0;
                    for (index_t i = 0; i < h; ++i) {
                        const bool is_kept = next < kept && index[size(next)] == i;
                        for (index_t j = 0; j < w; ++j) {
                            if (is_kept) {
                                wrong += !same_bits(few(next, j), x(i, j));
                                wrong += !same_bits(place(next, j), x(i, j));
                            }
                            wrong += !same_bits(back(i, j), is_kept ? x(i, j) : poison<T>());
                            if (i >= kept) wrong += !same_bits(place(i, j), x(i, j));
                        }
                        next += is_kept;
                    }
                    CHECK(wrong == 0);
                    CHECK(few.outside_untouched());
                    CHECK(place.outside_untouched());
                    CHECK(back.outside_untouched());
                }
    });
}

TEMPLATE_TEST_CASE("rows gathered in place into a tighter matrix", "", float, std::int8_t) {
    random_source random;
    CAPTURE(random);
    for_policies([&](const auto& policy) {
        auto x = numbered<TestType>(90, 100, layout::padded);
        const auto before = x;
        const auto index = random_index(90, random);
        const auto kept = static_cast<index_t>(index.size());
        const pare::view<TestType, 2> tight(x.data.data(), kept, 100);
        pare::gather_rows(policy, index, pare::from_to(x.view(), tight));
        index_t wrong = 0;
        for (index_t i = 0; i < kept; ++i)
            for (index_t j = 0; j < 100; ++j) wrong += tight(i, j) != before(index[size(i)], j);
        CHECK(wrong == 0);
    });
}

TEST_CASE("one list of positions for arrays of several types") {
    random_source random;
    CAPTURE(random);
    for_policies([&](const auto& policy) {
        const index_t n = 60;
        const auto hidden = numbered<float>(n, 48, layout::padded);
        const auto halves = numbered<std::uint16_t>(n, 33, layout::rows);
        const Eigen::MatrixXd residual = Eigen::MatrixXd::Random(n, 5); // by columns
        const Eigen::VectorXf targets = Eigen::VectorXf::Random(n);
        std::vector<std::int64_t> ids(size(n));
        std::iota(ids.begin(), ids.end(), 1000);
        const auto index = random_index(n, random);
        const auto kept = static_cast<index_t>(index.size());

        auto h = hidden;
        auto few_halves = matrix<std::uint16_t>(kept, 33);
        auto r = residual;
        auto t = targets;
        auto i_ds = ids;
        pare::gather_rows(policy, index, h.view(), r, t,
                          pare::from_to(halves.view(), few_halves.view()), i_ds);
        matrix<float> all_hidden(n, 48);
        Eigen::MatrixXd all_residual = Eigen::MatrixXd::Zero(n, 5);
        pare::restore(
            policy, index,
            pare::from_to(pare::view<const float, 2>(h.data.data(), {kept, 48}, {h.row_stride, 1}),
                          all_hidden.view()),
            pare::from_to(r.topRows(kept), all_residual));
        index_t wrong = 0;
        for (index_t i = 0; i < kept; ++i) {
            const index_t from = index[size(i)];
            for (index_t j = 0; j < 48; ++j) wrong += h(i, j) != hidden(from, j);
            for (index_t j = 0; j < 48; ++j) wrong += all_hidden(from, j) != hidden(from, j);
            for (index_t j = 0; j < 33; ++j) wrong += few_halves(i, j) != halves(from, j);
            wrong += r.row(i) != residual.row(from);
            wrong += all_residual.row(from) != residual.row(from);
            wrong += t(i) != targets(from);
            wrong += i_ds[size(i)] != ids[size(from)];
        }
        CHECK(wrong == 0);
    });
}

TEST_CASE("rows gathered in parts") {
    random_source random;
    CAPTURE(random);
    const auto x = numbered<float>(500, 300, layout::rows);
    const auto index = random_index(500, random);
    const auto kept = static_cast<index_t>(index.size());
    matrix<float> whole(kept, 300), parts(kept, 300), back(500, 300), back_parts(500, 300);
    auto place = x;
    pare::gather_rows(pare::simd, index, pare::from_to(x.view(), whole.view()));
    pare::restore(pare::simd, index, pare::from_to(whole.view(), back.view()));
    for (index_t ith : {2, 0, 1}) {
        const auto policy = pare::simd.with(pare::part{ith, 3});
        pare::gather_rows(policy, index, place.view(), pare::from_to(x.view(), parts.view()));
        pare::restore(policy, index, pare::from_to(whole.view(), back_parts.view()));
    }
    CHECK(same_bits(parts.data, whole.data));
    CHECK(same_bits(back_parts.data, back.data));
    place.data.resize(size(kept * 300));
    whole.data.resize(size(kept * 300));
    CHECK(same_bits(place.data, whole.data));
}

TEST_CASE("moving rows checks positions and shapes") {
    const auto x = numbered<float>(5, 4, layout::rows);
    auto place = x;
    matrix<float> two(2, 4), narrow(2, 3), all(5, 4);
    std::vector<int> ids = {0, 1, 2};
    const std::vector<int> index = {1, 3};
    const auto shape = [](const auto& f) { return sentence_of<pare::shape_error>(f); };
    const auto value = [](const auto& f) { return sentence_of<pare::value_error>(f); };
    const auto gather = [&](const std::vector<int>& at) {
        pare::gather_rows(pare::seq, at, place.view(), pare::from_to(x.view(), two.view()));
    };
    CHECK(value([&] {
              gather({1, 5});
          }) == "pare::gather_rows: position 1 is 5, which does not ascend below 5");
    CHECK(value([&] {
              gather({3, 1});
          }) == "pare::gather_rows: position 1 is 1, which does not ascend below 5");
    CHECK(value([&] {
              gather({2, 2});
          }) == "pare::gather_rows: position 1 is 2, which does not ascend below 5");
    CHECK(value([&] {
              gather({-1, 2});
          }) == "pare::gather_rows: position 0 is -1, which does not ascend below 5");
    CHECK(value([&] { pare::gather_rows(pare::seq, index, place.view(), ids); }) ==
          "pare::gather_rows: position 1 is 3, which does not ascend below 3");
    CHECK(shape([&] {
              gather({1, 2, 3});
          }) == "pare::gather_rows: array 1: 3 of 5 x 4 against 2 x 4");
    CHECK(shape([&] {
              pare::gather_rows(pare::seq, index, pare::from_to(x.view(), narrow.view()));
          }) == "pare::gather_rows: array 0: 2 of 5 x 4 against 2 x 3");
    const std::vector<int> apart = {0, 9, 1};
    CHECK(shape([&] {
              pare::gather_rows(pare::seq, pare::view<const int, 1>(apart.data(), {2}, {2}),
                                place.view());
          }) == "pare::gather_rows: positions have stride 2");
    CHECK(
        value([&] {
            pare::restore(pare::seq, std::vector<int>{1, 5}, pare::from_to(two.view(), all.view()));
        }) == "pare::restore: position 1 is 5, which does not ascend below 5");
    CHECK(shape([&] {
              pare::restore(pare::seq, index, pare::from_to(two.view(), all.view()),
                            pare::from_to(narrow.view(), all.view()));
          }) == "pare::restore: array 1: 2 of 5 x 4 against 2 x 3");
    CHECK(same_bits(place.data, x.data));
    CHECK(same_bits(all.data, matrix<float>(5, 4).data));
    CHECK(same_bits(two.data, matrix<float>(2, 4).data));
}

TEST_CASE("dropped ranges and kept positions are all tokens") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 300; ++round) {
        std::vector<index_t> offsets{0};
        for (index_t s = random.integer(0, 6); s > 0; --s)
            offsets.push_back(offsets.back() + std::max<index_t>(0, random.integer(-2, 12)));
        const index_t tokens = offsets.back(), sequences = static_cast<index_t>(offsets.size()) - 1;
        const auto index = random_index(tokens, random);
        const index_t room = static_cast<index_t>(index.size()) + sequences;
        CAPTURE(offsets, index);
        matrix<std::int32_t> ranges(room, 2, layouts[random.integer(0, 3)]);
        const index_t count = pare::dropped_ranges(index, offsets, ranges.view());
        std::vector<int> seen(size(tokens), 0);
        for (const int i : index) ++seen[size(i)];
        index_t last = -1;
        for (index_t r = 0; r < count; ++r) {
            REQUIRE(ranges(r, 0) < ranges(r, 1));
            REQUIRE(ranges(r, 1) <= tokens);
            const auto of = [&](index_t i) {
                return std::upper_bound(offsets.begin(), offsets.end(), i);
            };
            CHECK(of(ranges(r, 0)) == of(ranges(r, 1) - 1)); // one sequence
            // As long as can be: what is before is kept or in another sequence.
            if (ranges(r, 0) == last) CHECK(of(last - 1) != of(last));
            for (index_t i = ranges(r, 0); i < ranges(r, 1); ++i) ++seen[size(i)];
            last = ranges(r, 1);
        }
        CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
        for (index_t r = count; r < room; ++r) CHECK(ranges(r, 0) == poison<std::int32_t>());
        if (count > 0) {
            matrix<std::int32_t> small(count - 1, 2);
            CHECK_THROWS_AS(pare::dropped_ranges(index, offsets, small.view()), pare::shape_error);
            for (const std::int32_t i : small.data) CHECK(i == poison<std::int32_t>());
        }
    }
    std::vector<int> ranges(6, -1);
    const auto call = [&](const std::vector<int>& index, const std::vector<int>& offsets,
                          index_t columns) {
        pare::dropped_ranges(index, offsets, pare::view(ranges.data(), 2, columns));
    };
    CHECK(sentence_of<pare::shape_error>([&] {
              call({1, 3}, {0, 6}, 2);
          }) == "pare::dropped_ranges: 3 ranges go into 2 x 2");
    CHECK(sentence_of<pare::shape_error>([&] {
              call({1}, {0, 6}, 3);
          }) == "pare::dropped_ranges: 2 ranges go into 2 x 3");
    CHECK(sentence_of<pare::value_error>([&] {
              call({1, 6}, {0, 6}, 2);
          }) == "pare::dropped_ranges: position 1 is 6, which does not ascend below 6");
    CHECK_THROWS_AS(call({1}, {}, 2), pare::shape_error);
    CHECK_THROWS_AS(call({1}, {1, 6}, 2), pare::shape_error);
    CHECK(ranges == std::vector<int>(6, -1));
}

} // namespace compact_test
