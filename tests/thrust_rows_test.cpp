// Block kernels of the Thrust policy at the edges of their tiles, against long double and pare::seq.
#include "far_memory.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/compact.hpp>
#include <pare/fisher.hpp>
#include <pare/importance.hpp>
#include <pare/soft_mask.hpp>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace thrust_rows_test {

namespace {

/// Half of a float's bits, as bfloat16 has.
struct brief {
    std::uint16_t bits = 0;
    brief() = default;
    explicit brief(float x) {
        std::uint32_t all;
        std::memcpy(&all, &x, sizeof all);
        bits = static_cast<std::uint16_t>((all + 0x8000u) >> 16);
    }
    explicit operator float() const {
        const std::uint32_t all = static_cast<std::uint32_t>(bits) << 16;
        float x;
        std::memcpy(&x, &all, sizeof x);
        return x;
    }
    explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
};

std::size_t size(index_t i) {
    return static_cast<std::size_t>(i);
}
template <class T>
real exact(const T& x) {
    return static_cast<real>(static_cast<pare::compute_t<T>>(x));
}

/// Rows that begin `shift` elements behind 16 bytes, `gap` apart, with NaN around them.
template <class T>
struct rows_of {
    index_t rows, columns, stride;
    std::vector<T> memory;
    T* first;

    rows_of(index_t height, index_t width, index_t shift, index_t gap)
        : rows(height), columns(width), stride(width + gap),
          memory(size(rows * stride + shift + 32), T(not_a_number<float>())) {
        auto at = reinterpret_cast<std::uintptr_t>(memory.data());
        at = (at + 15) / 16 * 16;
        first = memory.data() + (reinterpret_cast<T*>(at) - memory.data()) + shift;
    }
    rows_of(index_t height, index_t width, index_t shift, index_t gap, random_source& random)
        : rows_of(height, width, shift, gap) {
        for (index_t i = 0; i < rows; ++i)
            for (index_t j = 0; j < columns; ++j) (*this)(i, j) = T(random.uniform<float>());
    }
    rows_of(const rows_of&) = delete;

    T& operator()(index_t i, index_t j) { return first[i * stride + j]; }
    pare::view<T, 2> view() { return {first, {rows, columns}, {stride, 1}}; }
    /// Whether all is NaN but what rows hold.
    bool outside_untouched() {
        index_t wrong = 0;
        for (std::size_t e = 0; e < memory.size(); ++e) {
            const index_t at = static_cast<index_t>(e) - (first - memory.data());
            if (at >= 0 && at < rows * stride && at % stride < columns) continue;
            wrong += !is_nan(static_cast<double>(memory[e]));
        }
        return wrong == 0;
    }
};

/// Offsets of segments as long as said.
std::vector<int> offsets_of(const std::vector<int>& lengths) {
    std::vector<int> offsets{0};
    for (const int n : lengths) offsets.push_back(offsets.back() + n);
    return offsets;
}

const auto on_thrust = [] { return pare::on(thrust::cpp::par); };

/// An array in memory that the host does not read.
template <class T>
class there {
  public:
    explicit there(const std::vector<T>& values) : count_(values.size()) {
        const far::open_device now;
        data_ = static_cast<T*>(far::device.allocate((count_ + 1) * sizeof(T)));
        std::copy(values.begin(), values.end(), data_);
    }
    there(const there&) = delete;
    ~there() { far::device.give_back(data_); }
    pare::view<T, 1> view() const { return {data_, static_cast<index_t>(count_)}; }
    T* data() const { return data_; }
    std::vector<T> here() const {
        const far::open_device now;
        return {data_, data_ + count_};
    }

  private:
    std::size_t count_;
    T* data_;
};

} // namespace

TEMPLATE_TEST_CASE("rows of any alignment are scaled, forward and backward", "", float, double,
                   brief) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    const double unit = std::is_same_v<T, brief> ? 0.004 : 3e-7;
    const auto check = [&](index_t n, index_t d, index_t shift, index_t gap) {
        CAPTURE(n, d, shift, gap);
        rows_of<T> x(n, d, shift, gap, random), dy(n, d, shift, gap, random);
        rows_of<T> mask(1, n, 0, 0, random), y(n, d, shift, gap), dx(n, d, 0, gap), dm(1, n, 0, 0);
        const pare::view<T, 1> m(mask.first, n), g(dm.first, n);
        pare::scale_rows(on_thrust(), m, x.view(), y.view());
        pare::scale_rows_backward(on_thrust(), m, x.view(), dy.view(), dx.view(), g);
        index_t wrong = 0;
        for (index_t i = 0; i < n; ++i) {
            real sum = 0, magnitude = 0;
            for (index_t j = 0; j < d; ++j) {
                const real s = exact(mask(0, i));
                wrong += !(distance(exact(y(i, j)), s * exact(x(i, j))) <= unit);
                wrong += !(distance(exact(dx(i, j)), s * exact(dy(i, j))) <= unit);
                sum += exact(x(i, j)) * exact(dy(i, j));
                magnitude += std::abs(exact(x(i, j)) * exact(dy(i, j)));
            }
            wrong += !(distance(exact(dm(0, i)), sum) <= unit * (1 + magnitude));
        }
        CHECK(wrong == 0);
        CHECK((y.outside_untouched() && dx.outside_untouched() && dm.outside_untouched()));
        pare::scale_rows(on_thrust(), m, x.view(), x.view());
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < d; ++j) wrong += !same_bits(x(i, j), y(i, j));
        CHECK(wrong == 0);
    };
    for (const index_t d : {1, 3, 4, 8, 15, 16, 17, 64, 127, 128, 129, 1024, 1031})
        for (const index_t shift : {0, 1, 4})
            for (const index_t gap : {0, 1, 8}) check(7, d, shift, gap);
    for (const index_t n : {0, 1, 8, 9, 127, 128, 129, 513}) check(n, 24, 0, 0);
}

TEST_CASE("so many places that a thread has several") {
    random_source random;
    CAPTURE(random);
    const index_t n = 3001, d = 2803 * 2 + 1; // four times 2^19 packs of four, and rows with tails
    std::vector<float> x(size(n * d)), y(x.size(), not_a_number<float>());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 8191) - 4000;
    const auto mask = random.vector<float>(n);
    const pare::view<const float, 2> rows(x.data(), n, d);
    const pare::view<float, 2> scaled(y.data(), n, d);
    const auto wrong = [&](const auto& expected) {
        index_t found = 0;
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < d; ++j) found += !same_bits(scaled(i, j), expected(i, j));
        return found;
    };
    pare::scale_rows(on_thrust(), mask, rows, scaled);
    CHECK(wrong([&](index_t i, index_t j) { return mask[size(i)] * rows(i, j); }) == 0);
    const index_t whole = d - 3;
    const pare::view<const float, 2> packed(x.data(), n, whole);
    const pare::view<float, 2> packed_out(y.data(), n, whole);
    pare::scale_rows(on_thrust(), mask, packed, packed_out);
    index_t bad = 0;
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < whole; ++j)
            bad += !same_bits(packed_out(i, j), mask[size(i)] * packed(i, j));
    CHECK(bad == 0);
    std::vector<int> every_second;
    for (int i = 0; i < n; i += 2) every_second.push_back(i);
    const auto kept = static_cast<index_t>(every_second.size());
    pare::gather_rows(on_thrust(), every_second,
                      pare::from_to(rows, pare::view<float, 2>(y.data(), kept, d)));
    for (index_t i = 0; i < kept; ++i)
        bad += std::memcmp(&scaled(i, 0), &rows(2 * i, 0), size(d) * sizeof(float)) != 0;
    CHECK(bad == 0);
}

TEMPLATE_TEST_CASE("sums over segments of any length", "", float, double, brief) {
    using T = TestType;
    using C = pare::compute_t<T>;
    random_source random;
    CAPTURE(random);
    const auto check = [&](const std::vector<int>& offsets, index_t columns, index_t unit,
                           index_t shift, index_t gap) {
        CAPTURE(offsets.size(), offsets.back(), columns, unit, shift, gap);
        const index_t rows = offsets.back() + 2;
        const auto samples = static_cast<index_t>(offsets.size()) - 1;
        rows_of<T> x(rows, columns, shift, gap, random), y(rows, columns, shift, gap, random);
        rows_of<C> out(samples, columns / unit, 0, 1), alone(1, columns / unit, 0, 0);
        pare::mask_gradients(on_thrust(), x.view(), y.view(), offsets, unit, out.view());
        index_t wrong = 0;
        for (index_t s = 0; s < samples; ++s) {
            const int begin = offsets[size(s)], end = offsets[size(s) + 1];
            for (index_t u = 0; u < columns / unit; ++u) {
                real sum = 0, magnitude = 0;
                for (index_t t = begin; t < end; ++t)
                    for (index_t c = u * unit; c < (u + 1) * unit; ++c) {
                        sum += exact(x(t, c)) * exact(y(t, c));
                        magnitude += std::abs(exact(x(t, c)) * exact(y(t, c)));
                    }
                wrong += !(distance(out(s, u), sum) <= tolerance<C> * magnitude + 1e-30);
            }
            // Whatever other samples there are, the sums are the same.
            pare::mask_gradients(on_thrust(), x.view(), y.view(), std::vector<int>{begin, end},
                                 unit, alone.view());
            for (index_t u = 0; u < columns / unit; ++u)
                wrong += !same_bits(alone(0, u), out(s, u));
        }
        CHECK(wrong == 0);
        CHECK(out.outside_untouched());
    };
    const auto ragged = offsets_of({0, 1, 255, 256, 257, 0, 600, 3});
    for (const index_t columns : {1, 3, 12, 31, 128, 130})
        for (const index_t shift : {0, 1})
            for (const index_t gap : {0, 3, 8}) check(ragged, columns, 1, shift, gap);
    for (const index_t unit : {3, 4, 64, 200}) check(ragged, 2 * unit, unit, 0, 0);
    check({3, 7, 1500}, 72, 8, 0, 0);
    check({0, 2100}, 520, 1, 0, 0);
    check({0, 2100}, 520, 2, 0, 0);
    check(offsets_of(std::vector<int>(1100, 2)), 5, 1, 0, 0);
}

TEST_CASE("sums of transformed numbers at the edges of packs and blocks") {
    random_source random;
    CAPTURE(random);
    for (const index_t n : {1, 3, 4, 255, 256, 257, 1023, 1025, 4099, 300007, 1100000})
        for (const index_t shift : {0, 1}) {
            CAPTURE(n, shift);
            rows_of<float> mask(1, n, shift, 0), gradient(1, n, shift, 0, random),
                ds(1, n, shift, 0), again(1, n, 1 - shift, 0);
            for (index_t i = 0; i < n; ++i) mask(0, i) = random.uniform<float>(0, 1);
            const auto v = [&](rows_of<float>& x) { return pare::view<float, 1>(x.first, n); };
            const double sum =
                pare::soft_mask_backward(on_thrust(), v(mask), v(gradient), 0.5, v(ds));
            real expected = 0, magnitude = 0;
            for (index_t i = 0; i < n; ++i) {
                const real m = mask(0, i), one = m * (1 - m) * 2 * gradient(0, i);
                expected -= one;
                magnitude += std::abs(one);
            }
            CHECK(distance(sum, expected) <= 1e-5 * magnitude);
            CHECK(ds.outside_untouched());
            CHECK(pare::soft_mask_backward(on_thrust(), v(mask), v(gradient), 0.5, v(again)) ==
                  sum);
        }
}

TEMPLATE_TEST_CASE("what keys receive, of many rows and any layout", "", float, double, brief) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    struct shape {
        index_t batch, heads, queries, keys;
    };
    for (const auto& [batch, heads, queries, keys] : {shape{1, 3, 1000, 20},
                                                      {2, 5, 64, 64},
                                                      {3, 2, 63, 65},
                                                      {1, 12, 200, 200},
                                                      {2, 1, 1, 9},
                                                      {1, 70, 33, 8},
                                                      {1, 2, 9000, 3}})
        for (const index_t gap : {0, 1, 8})
            for (const int rule : {0, 1, 2, 3}) {
                CAPTURE(batch, heads, queries, keys, gap, rule);
                pare::importance_options options;
                options.scale = pare::score_scale::fixed;
                options.length = 1;
                options.mask.causal = rule == 1 || rule == 3;
                options.mask.window = rule == 2 ? 7 : 0;
                if (rule == 3) options.queries = pare::counted_queries::last(5);
                rows_of<T> p(batch * heads * queries, keys, 0, gap, random);
                const pare::view<const T, 4> view(
                    p.first, {batch, heads, queries, keys},
                    {heads * queries * p.stride, queries * p.stride, p.stride, 1});
                std::vector<int> lengths;
                const bool square = queries == keys;
                for (index_t b = 0; b < batch; ++b)
                    lengths.push_back(static_cast<int>(random.integer(1, keys)));
                std::vector<double> found(size(batch * keys), 7), same = found;
                const pare::view<double, 2> scores(found.data(), batch, keys),
                    second(same.data(), batch, keys);
                pare::importance(on_thrust(), view, lengths, scores, options);
                index_t wrong = 0;
                for (index_t b = 0; b < batch; ++b)
                    for (index_t k = 0; k < keys; ++k) {
                        const index_t n = lengths[size(b)], rows = square ? n : queries;
                        real sum = 0;
                        const auto q = pare::detail::counted(options.queries, rows);
                        for (index_t h = 0; h < heads; ++h)
                            for (index_t i = q.begin; i < q.end; ++i) {
                                const auto seen =
                                    pare::detail::visible_keys(options.mask, i, rows, n);
                                if (k >= seen.begin && k < seen.end) sum += exact(view(b, h, i, k));
                            }
                        sum = k < n ? sum / static_cast<real>(heads) : 0;
                        wrong += !(distance(scores(b, k), sum) <= 1e-4 * std::sqrt(double(rows)));
                    }
                CHECK(wrong == 0);
                // Somewhere else in memory, and alone.
                rows_of<T> moved(batch * heads * queries, keys, 1, gap + 2);
                for (index_t i = 0; i < p.rows; ++i)
                    for (index_t k = 0; k < keys; ++k) moved(i, k) = p(i, k);
                const pare::view<const T, 4> elsewhere(
                    moved.first, {batch, heads, queries, keys},
                    {heads * queries * moved.stride, queries * moved.stride, moved.stride, 1});
                for (index_t b = 0; b < batch; ++b)
                    pare::importance(
                        on_thrust(),
                        pare::view<const T, 4>(&elsewhere(b, 0, 0, 0), {1, heads, queries, keys},
                                               {1, elsewhere.stride(1), moved.stride, 1}),
                        std::vector<int>{lengths[size(b)]},
                        pare::view<double, 2>(&second(b, 0), index_t{1}, keys), options);
                CHECK(same == found);
            }
}

TEMPLATE_TEST_CASE("packed and padded probabilities give the same scores, near and far", "", float,
                   double) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    const index_t heads = 7;
    const auto offsets = offsets_of({130, 0, 1, 64, 400, 9, 0});
    const index_t tokens = offsets.back();
    for (const bool causal : {false, true}) {
        pare::importance_options options;
        options.mask.causal = causal;
        std::vector<T> packed;
        for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
            const index_t n = offsets[s + 1] - offsets[s];
            const auto some = random.vector<T>(heads * n * n, 0, 1);
            packed.insert(packed.end(), some.begin(), some.end());
        }
        std::vector<double> scores(size(tokens)), expected(scores);
        pare::importance_packed(on_thrust(), packed, heads, offsets, scores, options);
        pare::importance_packed(pare::seq, packed, heads, offsets, expected, options);
        for (std::size_t i = 0; i < scores.size(); ++i)
            CHECK_THAT(scores[i], WithinRel(expected[i], 1e-5));
        const there<T> far_p(packed);
        const there<int> far_offsets(offsets);
        const there<double> far_scores(std::vector<double>(size(tokens), 7.0));
        pare::importance_packed(far::far_policy, far_p.view(), heads, far_offsets.view(),
                                far_scores.view(), options);
        const auto far_found = far_scores.here();
        for (std::size_t i = 0; i < scores.size(); ++i)
            CHECK_THAT(far_found[i], WithinRel(scores[i], 1e-14));
        const T* first = packed.data();
        for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
            const index_t n = offsets[s + 1] - offsets[s];
            if (n == 0) continue;
            std::vector<double> alone(size(n));
            pare::importance(on_thrust(), pare::view<const T, 3>(first, heads, n, n), alone,
                             options);
            for (index_t i = 0; i < n; ++i)
                CHECK_THAT(alone[size(i)], WithinRel(scores[size(offsets[s] + i)], 1e-14));
            const there<T> far_one(std::vector<T>(first, first + heads * n * n));
            const there<double> far_alone(std::vector<double>(size(n), 7.0));
            pare::importance(far::far_policy, pare::view<const T, 3>(far_one.data(), heads, n, n),
                             far_alone.view(), options);
            const auto found = far_alone.here();
            for (index_t i = 0; i < n; ++i)
                CHECK_THAT(found[size(i)], WithinRel(alone[size(i)], 1e-14));
            first += heads * n * n;
        }
    }
}

namespace {

/// Segments around the size of a tile, and scores of few different values.
struct selection_case {
    std::vector<int> offsets;
    std::vector<float> scores;
    std::vector<std::uint8_t> flags;
    pare::pins pinned;

    selection_case(random_source& random, int round) {
        const std::vector<std::vector<int>> lengths = {{2047, 1, 2048, 0, 4097, 2, 100},
                                                       {5, 0, 9000, 0, 0, 3},
                                                       std::vector<int>(700, 7),
                                                       {2048},
                                                       {10000},
                                                       std::vector<int>(5000, 1),
                                                       {0, 0, 0},
                                                       {1, 4095, 4096, 4097, 1}};
        offsets = offsets_of(lengths[size(round % static_cast<int>(lengths.size()))]);
        const index_t different = random.integer(1, 3) == 1 ? 3 : 100000;
        for (int i = 0; i < offsets.back(); ++i)
            scores.push_back(static_cast<float>(random.integer(-different, different)));
        for (float& x : scores)
            if (random.integer(0, 50) == 0) x = random.integer(0, 1) ? 0.0f : -0.0f;
        pinned.first = random.integer(0, 2) ? random.integer(0, 3) : 0;
        pinned.last = random.integer(0, 2) ? 0 : random.integer(0, 3);
        if (random.integer(0, 1)) {
            for (std::size_t i = 0; i < scores.size(); ++i)
                flags.push_back(random.integer(0, 99) == 0);
            pinned.flags = pare::as_input<1>(flags);
        }
    }
};

} // namespace

TEST_CASE("selections across tiles, near and far, are those of plain loops") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 48; ++round) {
        const selection_case c(random, round);
        const auto highest =
            c.scores.empty() ? 0 : *std::max_element(c.scores.begin(), c.scores.end());
        const double thresholds[] = {0, highest, highest + 1.0, highest * 0.99};
        const double threshold = thresholds[random.integer(0, 3)];
        const index_t k = random.integer(1, 5) * random.integer(1, 400);
        CAPTURE(round, threshold, k, c.pinned.first, c.pinned.last, c.flags.size());
        const std::size_t tokens = c.scores.size();
        std::vector<std::int32_t> expected(tokens, -1), index(expected);
        std::vector<std::int64_t> expected_offsets(c.offsets.size(), -1), offsets(expected_offsets);
        const there<float> far_scores(c.scores);
        const there<int> far_offsets(c.offsets);
        const there<std::uint8_t> far_flags(c.flags);
        auto far_pinned = c.pinned;
        if (!c.flags.empty()) far_pinned.flags = far_flags.view();
        for (const bool top : {false, true}) {
            CAPTURE(top);
            const auto keep = [&](const auto& policy, const auto& s, const auto& o, auto&& i,
                                  auto&& kept, const pare::pins& pinned) {
                return top ? pare::keep_top_k(policy, s, k, o, i, kept, pinned)
                           : pare::keep_above(policy, s, threshold, o, i, kept, pinned);
            };
            const index_t kept =
                keep(pare::seq, c.scores, c.offsets, expected, expected_offsets, c.pinned);
            std::fill(expected.begin() + kept, expected.end(), -1);
            std::fill(index.begin(), index.end(), -1);
            REQUIRE(keep(on_thrust(), c.scores, c.offsets, index, offsets, c.pinned) == kept);
            CHECK((index == expected && offsets == expected_offsets));

            const there<std::int32_t> far_index(std::vector<std::int32_t>(tokens, -1));
            const there<std::int64_t> far_kept(std::vector<std::int64_t>(offsets.size(), -1));
            const auto call = [&](index_t room) {
                return keep(far::far_policy, far_scores.view(), far_offsets.view(),
                            pare::view<std::int32_t, 1>(far_index.data(), room), far_kept.view(),
                            far_pinned);
            };
            if (kept > 0) {
                CHECK_THAT(sentence_of<pare::shape_error>([&] { call(kept - 1); }),
                           ContainsSubstring("are kept"));
                CHECK(far_index.here() == std::vector<std::int32_t>(tokens, -1));
                CHECK(far_kept.here() == std::vector<std::int64_t>(offsets.size(), -1));
            }
            REQUIRE(call(kept) == kept);
            CHECK((far_index.here() == expected && far_kept.here() == expected_offsets));

            const there<std::int32_t> late_index(std::vector<std::int32_t>(tokens, -1));
            const there<int> late(c.offsets); // new offsets in place of the old
            if (top)
                pare::keep_top_k_async(far::far_policy, far_scores.view(), k, late.view(),
                                       late_index.view(), late.view(), far_pinned);
            else
                pare::keep_above_async(far::far_policy, far_scores.view(), threshold, late.view(),
                                       late_index.view(), late.view(), far_pinned);
            const auto late_offsets = late.here();
            CHECK(late_index.here() == expected);
            CHECK(std::equal(late_offsets.begin(), late_offsets.end(), expected_offsets.begin()));
        }
    }
}

TEST_CASE("selections of so many tiles that groups of them are put together") {
    random_source random;
    CAPTURE(random);
    for (const std::vector<int>& lengths :
         {std::vector<int>{700000, 1, 0, 599999}, std::vector<int>(300000, 4),
          std::vector<int>{2048 * 513}, std::vector<int>{2048 * 256, 2048 * 256, 2049, 70}}) {
        const auto offsets = offsets_of(lengths);
        const auto scores = random.vector<float>(offsets.back());
        for (const double threshold : {0.999, 2.0, -2.0}) {
            CAPTURE(lengths.size(), threshold);
            const std::size_t tokens = scores.size();
            std::vector<std::int32_t> expected(tokens, -1), index(expected);
            std::vector<int> expected_offsets(offsets.size(), -1), found_offsets(expected_offsets);
            const index_t kept =
                pare::keep_above(pare::seq, scores, threshold, offsets, expected, expected_offsets);
            REQUIRE(pare::keep_above(on_thrust(), scores, threshold, offsets, index,
                                     found_offsets) == kept);
            CHECK((index == expected));
            CHECK((found_offsets == expected_offsets));
        }
    }
}

TEST_CASE("the best of so many segments that one block counts what those before them keep") {
    random_source random;
    CAPTURE(random);
    for (const int segments : {1024, 1025, 8191, 8192, 9000, 16384}) {
        std::vector<int> lengths;
        for (int s = 0; s < segments; ++s)
            lengths.push_back(static_cast<int>(s % 16 ? 0 : random.integer(0, 9)));
        lengths.back() = 3;
        const auto offsets = offsets_of(lengths);
        auto scores = random.vector<float>(offsets.back());
        for (float& x : scores) x = std::round(4 * x); // many are equal
        CAPTURE(segments);
        const std::size_t tokens = scores.size();
        std::vector<std::int32_t> expected(tokens, -1), index(expected);
        std::vector<int> expected_offsets(offsets.size(), -1), found(expected_offsets);
        const index_t kept =
            pare::keep_top_k(pare::seq, scores, 3, offsets, expected, expected_offsets);
        REQUIRE(pare::keep_top_k(on_thrust(), scores, 3, offsets, index, found) == kept);
        CHECK((index == expected && found == expected_offsets));
        const there<float> far_scores(scores);
        const there<int> late(offsets); // new offsets in place of the old
        const there<std::int32_t> late_index(std::vector<std::int32_t>(tokens, -1));
        pare::keep_top_k_async(far::far_policy, far_scores.view(), 3, late.view(),
                               late_index.view(), late.view(), {});
        CHECK((late_index.here() == expected && late.here() == expected_offsets));
    }
}

TEST_CASE("a long sequence is sorted") {
    random_source random;
    CAPTURE(random);
    auto scores = random.vector<double>(70001);
    for (double& x : scores) x = std::round(500 * x);
    std::vector<int> expected(scores.size()), index(expected);
    for (const index_t k : {index_t{1}, index_t{777}, index_t{70000}}) {
        const index_t kept = pare::keep_top_k(pare::seq, scores, k, expected);
        CHECK(pare::keep_top_k(on_thrust(), scores, k, index) == kept);
        CHECK(std::equal(index.begin(), index.begin() + kept, expected.begin()));
        const there<double> far_scores(scores);
        const there<int> far_index(std::vector<int>(scores.size()));
        CHECK(pare::keep_top_k(far::far_policy, far_scores.view(), k, far_index.view()) == kept);
        const auto found = far_index.here();
        CHECK(std::equal(found.begin(), found.begin() + kept, expected.begin()));
    }
}

TEST_CASE("what is wrong far away is found before anything is written") {
    random_source random;
    CAPTURE(random);
    auto scores = random.vector<float>(5000);
    const auto offsets = offsets_of({2040, 0, 2960});
    const auto call = [&](const std::vector<float>& s, const std::vector<int>& o, bool top) {
        const there<float> far_scores(s);
        const there<int> far_offsets(o), far_kept(std::vector<int>(o.size(), -1));
        const there<int> far_index(std::vector<int>(s.size(), -1));
        const auto sentence = sentence_of<pare::error>([&] {
            if (top)
                pare::keep_top_k(far::far_policy, far_scores.view(), 3, far_offsets.view(),
                                 far_index.view(), far_kept.view());
            else
                pare::keep_above(far::far_policy, far_scores.view(), 0, far_offsets.view(),
                                 far_index.view(), far_kept.view());
        });
        CHECK(far_index.here() == std::vector<int>(s.size(), -1));
        CHECK(far_kept.here() == std::vector<int>(o.size(), -1));
        return sentence.substr(sentence.find(": "));
    };
    for (const bool top : {false, true}) {
        CHECK(call(scores, {0, 3000, 2000, 5000}, top) == ": offset 2 is 2000 after 3000");
        CHECK(call(scores, {0, 5001, 5000}, top) == ": offset 2 is 5000 after 5001");
        CHECK(call(scores, {0, 4999}, top) == ": offsets go from 0 to 4999, there are 5000 tokens");
        CHECK(call(scores, {-1000000, 5000}, top) ==
              ": offsets go from -1000000 to 5000, there are 5000 tokens");
        auto with_nan = scores;
        with_nan[4500] = not_a_number<float>();
        CHECK(call(with_nan, offsets, top) == ": score 2460 of sequence 2 is NaN");
    }
    scores[7] = not_a_number<float>();
    const there<float> far_scores(scores);
    const there<int> far_index(std::vector<int>(scores.size(), -1));
    CHECK(sentence_of<pare::value_error>([&] {
              pare::keep_above(far::far_policy, far_scores.view(), 0, far_index.view());
          }) == "pare::keep_above: score 7 of sequence 0 is NaN");
    CHECK(far_index.here() == std::vector<int>(scores.size(), -1));
    // A call that does not wait drops the token, as one below the threshold.
    const there<int> far_offsets(offsets), far_kept(offsets);
    pare::keep_above_async(far::far_policy, far_scores.view(), -2, far_offsets.view(),
                           far_index.view(), far_kept.view());
    CHECK(far_kept.here() == std::vector<int>{0, 2039, 2039, 4999});
    CHECK(far_index.here()[7] == 8);
    pare::keep_top_k_async(far::far_policy, far_scores.view(), 2039, far_offsets.view(),
                           far_index.view(), far_kept.view());
    CHECK(far_kept.here() == std::vector<int>{0, 2039, 2039, 4078});
    CHECK(far_index.here()[7] == 8);
    // A mask of NaN, of that token alone.
    const there<float> far_mask(scores);
    pare::soft_mask(far::far_policy, far_scores.view(), 0, 1, far_mask.view());
    const auto mask = far_mask.here();
    for (std::size_t i = 0; i < mask.size(); ++i) CHECK(is_nan(mask[i]) == (i == 7));
}

TEST_CASE("penalties of offsets that are out of order change nothing") {
    const there<float> mask(std::vector<float>(3000, 0.5f)),
        gradient(std::vector<float>(3000, 1.0f));
    for (const auto& wrong : {std::vector<int>{0, 2000, 1000, 3000}, {0, 2999}, {1, 3000}}) {
        const there<int> offsets(wrong);
        CHECK_THROWS_AS(
            pare::mask_penalty(far::far_policy, mask.view(), offsets.view(), 1, gradient.view()),
            pare::shape_error);
        CHECK(gradient.here() == std::vector<float>(3000, 1.0f));
    }
    const there<int> offsets({0, 0, 1000, 3000, 3000});
    CHECK_THAT(pare::mask_penalty(far::far_policy, mask.view(), offsets.view(), 2, gradient.view()),
               WithinRel(0.5, 1e-12));
    const auto found = gradient.here();
    CHECK_THAT(found[0], WithinRel(1.001f, 1e-6f));
    CHECK_THAT(found[2999], WithinRel(1.0005f, 1e-6f));
}

} // namespace thrust_rows_test
