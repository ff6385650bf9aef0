// What is only so of memory that the host cannot read. That components leave it to the policy is
// what all their tests check, which run on such memory, too.
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/fisher.hpp>
#include <pare/least_squares.hpp>
#include <pare/shrink.hpp>
#include <pare/soft_mask.hpp>

#include <algorithm>
#include <atomic>
#include <numeric>

namespace thrust_memory_test {

namespace {

const auto there = remote::on(far::system{});

/// Sequences of 40, 0, 1 and 49 tokens.
const std::vector<int> four_sequences = {0, 40, 40, 41, 90};

/// Scores that count how often they are read.
template <class T>
struct counted_scores {
    const T* numbers;
    std::atomic<long>* reads;
    T operator()(index_t i) const {
        ++*reads;
        return numbers[i];
    }
};
template <class T>
struct before_by_score {
    counted_scores<T> scores;
    bool is_pinned(index_t i, const pare::detail::index_range& segment) const {
        return i == segment.begin;
    }
    bool operator()(index_t i, index_t j, const pare::detail::index_range& segment) const {
        if (is_pinned(i, segment) || is_pinned(j, segment)) return i == segment.begin;
        return scores(i) != scores(j) ? scores(i) > scores(j) : i < j;
    }
};

} // namespace

TEST_CASE("calls that wait for a number check what they read far away") {
    const std::vector<float> scores = {1, 2, not_a_number<float>(), 4}, good = {1, 2, 3, 4};
    const std::vector<int> offsets = {0, 1, 4}, counts = {1, 0};
    std::vector<int> index(4, -1);
    const auto above = [&](std::vector<int> o) {
        return sentence_of<pare::error>([&] { pare::keep_above(there, scores, 0, o, index, o); });
    };
    CHECK(above(offsets) == "pare::keep_above: score 1 of sequence 1 is NaN");
    CHECK(above({0, 3, 2, 4}) == "pare::keep_above: offset 2 is 2 after 3");
    CHECK(above({0, 1, 3}) == "pare::keep_above: offsets go from 0 to 3, there are 4 tokens");
    std::vector<int> kept(3, -1);
    CHECK(sentence_of<pare::value_error>([&] {
              pare::keep_top_k(there, good, counts, offsets, index, kept);
          }) == "pare::keep_top_k: k is 0 for sequence 1 of 3 tokens");
    CHECK(index == std::vector<int>(4, -1));
    CHECK(kept == std::vector<int>(3, -1));
    pare::fisher<> diagonal(2);
    CHECK_THAT(sentence_of<pare::value_error>(
                   [&] { diagonal.add(there, pare::view(scores.data(), 2, 2)); }),
               ContainsSubstring("the gradients of unit 0 in samples 0 to 1 have NaN"));
    const std::vector<double> numbers = {1, 2, 3, 4}, weights = {1, -1};
    const pare::view rows(numbers.data(), 2, 2);
    pare::least_squares squares(2, 2);
    CHECK(sentence_of<pare::value_error>([&] { squares.add(there, rows, rows, weights); }) ==
          "pare::least_squares: the weight of token 1 is -1");
    std::vector<float> gradient = good;
    CHECK(sentence_of<pare::shape_error>([&] {
              pare::mask_penalty(there, good, std::vector<int>{0, 3, 2, 4}, 1, gradient);
          }) == "pare::mask_penalty: offset 2 is 2 after 3");
    CHECK(gradient == good);
}

TEST_CASE("where temporary memory ends, calls throw and give back what they had") {
    random_source random;
    const index_t tokens = four_sequences.back(), columns = 12;
    std::vector<double> scores = random.vector<double>(tokens);
    std::vector<double> gradient = random.vector<double>(tokens);
    std::vector<double> rows = random.vector<double>(tokens * columns);
    const pare::view<double, 2> all(rows.data(), tokens, columns);
    std::vector<int> new_offsets(5), index(90);
    const auto call = [&] {
        pare::mask_penalty(there, scores, four_sequences, 1, gradient);
        pare::keep_top_k(there, scores, 5, four_sequences, index, new_offsets);
        const index_t kept = pare::keep_above(there, scores, 0, index);
        pare::gather_rows(there, pare::view<const int, 1>(index.data(), kept), all);
        pare::fisher<> block(columns, pare::fisher_kind::block);
        block.add(there, all);
    };
    int failures = 0;
    for (long allowed = 0;; ++allowed) {
        far::device.allowed = allowed;
        bool done = true;
        try {
            call();
        } catch (const std::bad_alloc&) {
            done = false;
            ++failures;
        }
        far::device.allowed = -1;
        REQUIRE(far::device.held == 0);
        if (done) break;
    }
    CHECK(failures > 20);
}

TEST_CASE("a decoder's batch takes memory for what its steps leave of the keys that they see") {
    const index_t sequences = 8, heads = 64, room = 512, keys = sequences * room;
    std::vector<int> queries(sequences + 1), rooms(sequences + 1), lengths(sequences, 500);
    for (int s = 0; s <= sequences; ++s) {
        queries[static_cast<std::size_t>(s)] = s;
        rooms[static_cast<std::size_t>(s)] = s * static_cast<int>(room);
    }
    const auto bytes_of = [&](index_t window, index_t columns, auto... scores) {
        const std::vector<float> q(sequences * heads), k(keys), v(keys * columns);
        std::vector<float> out(sequences * heads * columns);
        pare::attention_options<float> o;
        o.mask.window = window;
        far::device.most = 0;
        pare::attention(there, pare::view(q.data(), sequences, heads, index_t{1}),
                        pare::view(k.data(), keys, index_t{1}, index_t{1}),
                        pare::view(v.data(), keys, index_t{1}, columns),
                        pare::query_key_offsets{queries, rooms, lengths},
                        pare::view(out.data(), sequences, heads, columns), scores..., o);
        return static_cast<index_t>(far::device.most);
    };
    std::vector<float> scores(keys);
    // With scores four logits a head and key, and what keys receive in sequences that are no steps.
    CHECK(bytes_of(0, 1, pare::view(scores.data(), keys)) < heads * keys * 18);
    // Of a window of 100 keys a part of a sequence, of all keys four and one for where they begin; and
    // how far apart arrays are depends on where they are on the host.
    const index_t saved = bytes_of(0, 64) - bytes_of(100, 64);
    CHECK(saved > (5 - 1) * sequences * 4 * heads * (64 + 2) * 4 - 4096);
}

TEMPLATE_TEST_CASE("of the best of many tokens, few reads are far away", "", float, double) {
    random_source random;
    const std::vector<index_t> offsets = {0, 6000};
    std::vector<TestType> scores = random.vector<TestType>(offsets[1], -1, 1);
    for (std::size_t i = 0; i < scores.size(); i += 7) scores[i] = scores[0]; // which are equal
    std::atomic<long> reads{0};
    const before_by_score<TestType> before{{scores.data(), &reads}};
    std::vector<index_t> expected(scores.size());
    std::iota(expected.begin(), expected.end(), 0);
    std::sort(expected.begin(), expected.end(), [&](index_t i, index_t j) {
        return before(i, j, {0, offsets[1]});
    });
    for (const index_t k : {1, 2, 100, 3000, 5999, 6000}) {
        CAPTURE(k, random);
        reads = 0;
        std::vector<index_t> index(scores.size(), -1), kept(2);
        pare::on(thrust::cpp::par)
            .select_first_async(
                before, [=](index_t) { return k; }, offsets.data(), 1, offsets[1], index.data(),
                kept.data());
        std::vector<index_t> best(expected.begin(), expected.begin() + k);
        std::sort(best.begin(), best.end());
        index.resize(static_cast<std::size_t>(k));
        CHECK(index == best);
        CHECK(kept[1] == k);
        // Three bits of a score at a time; and once for the pinned ones, and twice for those kept.
        const long digits = (static_cast<long>(sizeof(TestType)) * 8 + 2) / 3;
        CHECK(reads <= (digits + 3) * offsets[1]);
    }
}

TEST_CASE("what is written elsewhere than to a call's outputs is found", "[!shouldfail]") {
    const std::vector<float> x(10, 1.0f);
    using pare::as_input;
    const auto input = as_input<1>(there, x);
    auto* const data = const_cast<float*>(input.data_handle());
    const index_t at = GENERATE(3, -1, 10); // in the input, and beside it
    there.for_each(1, [=](index_t) { data[at] = 2; });
}

} // namespace thrust_memory_test
