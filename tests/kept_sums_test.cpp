// Accumulators whose sums are in the memory of one policy after another: read, copied and merged in
// between, against sums in long double.
#include "policies.hpp"
#include "support.hpp"
#include <pare/fisher.hpp>
#include <pare/least_squares.hpp>

#include <thread>

namespace kept_sums_test {

namespace {

constexpr index_t inputs = 13, outputs = 6;

/// One of each kind, of the same rows.
struct accumulators {
    pare::fisher<> diagonal{inputs}, block{inputs, pare::fisher_kind::block};
    pare::gram<> xx{inputs};
    pare::gram<float> xy{inputs, outputs};
    pare::least_squares fit{inputs, outputs};

    template <class Policy, class T>
    void add(const Policy& policy, const matrix<T>& x, const matrix<T>& y, index_t first,
             index_t last) {
        const auto left = x.slice(first, last), right = y.slice(first, last);
        diagonal.add(policy, left);
        block.add(policy, left);
        xx.add(policy, left);
        xy.add(policy, left, right);
        fit.add(policy, left, right);
    }
    void merge(const accumulators& other) {
        diagonal.merge(other.diagonal);
        block.merge(other.block);
        xx.merge(other.xx);
        xy.merge(other.xy);
        fit.merge(other.fit);
    }
    void read() {
        diagonal.diagonal();
        block.block_sums();
        xx.lower_sums();
        xy.lower_sums();
        fit.covariance();
        fit.covariance_xy();
    }
};

template <class T>
void check(accumulators& found, const matrix<T>& x, const matrix<T>& y, index_t rows,
           bool with_fit = true) {
    CAPTURE(rows);
    REQUIRE(found.diagonal.samples() == rows);
    REQUIRE(found.xx.rows() == rows);
    if (with_fit) REQUIRE(found.fit.tokens() == rows);
    const auto diagonal = found.diagonal.diagonal(), of_block = found.block.diagonal();
    const auto block = found.block.block_sums(), xx = found.xx.sums();
    const auto xy = found.xy.sums();
    const auto moment = found.fit.moment_xx(), cross = found.fit.moment_xy();
    const auto n = static_cast<real>(rows);
    real off = 0;
    const auto compare = [&](auto a, real b) { off = std::max(off, distance(a, b / n)); };
    for (index_t i = 0; i < inputs; ++i) {
        for (index_t j = 0; j < inputs; ++j) {
            real sum = 0;
            for (index_t t = 0; t < rows; ++t)
                sum += static_cast<real>(x(t, i)) * static_cast<real>(x(t, j));
            compare(block(i, j) / static_cast<double>(rows), sum);
            compare(xx(i, j) / static_cast<double>(rows), sum);
            if (with_fit) compare(moment(i, j), sum);
            if (i != j) continue;
            compare(diagonal[static_cast<std::size_t>(i)], sum);
            compare(of_block[static_cast<std::size_t>(i)], sum);
        }
        for (index_t j = 0; j < outputs; ++j) {
            real sum = 0;
            for (index_t t = 0; t < rows; ++t)
                sum += static_cast<real>(x(t, i)) * static_cast<real>(y(t, j));
            compare(static_cast<double>(xy(i, j)) / static_cast<double>(rows), sum);
            if (with_fit) compare(cross(i, j), sum);
        }
    }
    CHECK(off < static_cast<real>(tolerance<float>)); // of gram<float>
}

} // namespace

TEMPLATE_LIST_TEST_CASE("sums stay right wherever they are", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    random_source random;
    CAPTURE(random);
    const matrix<T> x(500, inputs, random), y(500, outputs, random, layout::padded);

    SECTION("from one policy's memory to the next one's") {
        accumulators sums;
        sums.add(policy, x, y, 0, 60);
        sums.add(policy, x, y, 60, 200);
        sums.add(pare::seq, x, y, 200, 203);
        sums.add(policy, x, y, 203, 400);
        sums.read();
        sums.add(policy, x, y, 400, 400);
        sums.add(policy, x, y, 400, 450);
        sums.add(pare::seq, x, y, 450, 500);
        check(sums, x, y, 500);
        check(sums, x, y, 500); // reading does not disturb
    }
    SECTION("copied, moved and merged half-way") {
        accumulators sums;
        sums.add(policy, x, y, 0, 300);
        accumulators copy = sums, midway = sums;
        copy.add(policy, x, y, 300, 500);
        sums.add(pare::seq, x, y, 300, 500);
        check(midway, x, y, 300);
        check(copy, x, y, 500);
        check(sums, x, y, 500);

        accumulators rest;
        rest.add(policy, x, y, 300, 500);
        midway.add(policy, x, y, 0, 0);
        const accumulators moved = std::move(rest);
        midway.merge(moved);
        check(midway, x, y, 500);
        midway = copy;
        midway = accumulators();
        midway.merge(moved);
        sums = std::move(midway);
        CHECK(sums.diagonal.samples() == 200);
        accumulators first;
        first.add(policy, x, y, 0, 300);
        first.merge(sums);
        check(first, x, y, 500);
    }
    SECTION("read by two threads at once") {
        accumulators sums;
        sums.add(policy, x, y, 0, 500);
        const pare::fisher<>& diagonal = sums.diagonal;
        std::vector<double> of_other;
        std::thread other([&] { of_other = diagonal.diagonal(); });
        const auto found = diagonal.diagonal();
        other.join();
        CHECK(same_bits(found, of_other));
        check(sums, x, y, 500);
    }
    SECTION("the same calls, the same bits") {
        const auto numbers = [&] {
            accumulators sums;
            for (index_t first = 0; first < 500; first += 125)
                sums.add(policy, x, y, first, first + 125);
            auto all = sums.diagonal.diagonal();
            const auto block = sums.block.block_sums();
            all.insert(all.end(), block.data_handle(), block.data_handle() + block.size());
            const auto cross = sums.fit.covariance_xy();
            all.insert(all.end(), cross.data(), cross.data() + cross.size());
            return all;
        };
        CHECK(same_bits(numbers(), numbers()));
    }
}

TEST_CASE("what an accumulator was moved from holds nothing, and takes nothing") {
    random_source random;
    CAPTURE(random);
    const matrix<double> x(20, inputs, random), y(20, outputs, random);
    accumulators from;
    from.add(pare::seq, x, y, 0, 20);
    accumulators to = std::move(from);
    check(to, x, y, 20);
    CHECK(from.diagonal.units() + from.diagonal.samples() == 0);
    CHECK(from.block.units() + from.block.samples() + from.block.block_sums().size() == 0);
    CHECK(from.xx.rows() + from.xx.sums().size() == 0);
    CHECK(from.xx.mean().empty());
    CHECK(from.xy.rows() + from.xy.lower_sums().size() == 0);
    CHECK(from.fit.inputs() + from.fit.outputs() + from.fit.tokens() == 0);
    const auto rows = x.slice(0, 20), targets = y.slice(0, 20);
    CHECK_THROWS_AS(from.diagonal.add(pare::seq, rows), pare::shape_error);
    CHECK_THROWS_AS(from.block.add(pare::seq, rows), pare::shape_error);
    CHECK_THROWS_AS(from.xx.add(pare::seq, rows), pare::shape_error);
    CHECK_THROWS_AS(from.xy.add(pare::seq, rows, targets), pare::shape_error);
    CHECK_THROWS_AS(from.fit.add(pare::seq, rows, targets), pare::shape_error);
    CHECK_THROWS_AS(to.xx.merge(from.xx), pare::shape_error);
    from = std::move(to);
    check(from, x, y, 20);
}

#if defined(PARE_TEST_THRUST) && !defined(__CUDACC__)
namespace {
struct other_system : far::system {};
} // namespace

TEST_CASE("sums take a policy's memory from the first call until they are read") {
    random_source random;
    CAPTURE(random);
    const matrix<double> x(100, inputs, random), y(100, outputs, random);
    const auto there = remote::on(far::system{});
    const auto other = remote::on(other_system{});
    {
        accumulators sums;
        CHECK(far::device.held == 0);
        sums.add(there, x, y, 0, 30);
        const long of_each = far::device.held;
        CHECK(of_each > 0);
        sums.add(there, x, y, 30, 50);
        CHECK(far::device.held == of_each);
        accumulators copy = sums; // which reads them
        CHECK(far::device.held == 0);
        sums.add(there, x, y, 50, 70);
        copy.add(there, x, y, 50, 100);
        CHECK(far::device.held == 2 * of_each);
        sums.add(other, x, y, 70, 100); // another type's
        CHECK(far::device.held == 2 * of_each);
        check(sums, x, y, 100);
        CHECK(far::device.held == of_each);
        copy = accumulators();
        CHECK(far::device.held == 0);
        sums.add(there, x, y, 0, 30);
    }
    CHECK(far::device.held == 0);
}

TEST_CASE("where a policy's memory ends, nothing is added to its sums") {
    random_source random;
    CAPTURE(random);
    const matrix<double> x(200, inputs, random), y(200, outputs, random);
    const auto there = remote::on(far::system{});
    for (const bool begun : {false, true}) {
        accumulators sums;
        if (begun) sums.add(there, x, y, 0, 100);
        const index_t first = begun ? 100 : 0;
        // One accumulator after the other, each with an allocation more until there are enough.
        const auto add = [&](auto& to, const auto& call) {
            for (long allowed = 0;; ++allowed) {
                CAPTURE(allowed);
                REQUIRE(allowed < 100);
                far::device.allowed = allowed;
                bool done = true;
                try {
                    call(to);
                } catch (const std::bad_alloc&) {
                    done = false;
                }
                far::device.allowed = -1;
                if (done) return;
            }
        };
        const auto left = x.slice(first, 200), right = y.slice(first, 200);
        const auto one = [&](auto& to) { to.add(there, left); };
        const auto two = [&](auto& to) { to.add(there, left, right); };
        add(sums.diagonal, one);
        add(sums.block, one);
        add(sums.xx, one);
        add(sums.xy, two);
        check(sums, x, y, 200, false);
        add(sums.fit, two); // which then has part of the rows
    }
    CHECK(far::device.held == 0);
}
#endif

} // namespace kept_sums_test
