// The search against all choices there are, and costs against loops that count.
#include "half_types.hpp"
#include "support.hpp"
#include <pare/cost.hpp>
#include <pare/loss_curve.hpp>
#include <pare/search.hpp>

#include <algorithm>
#include <functional>
#include <locale>
#include <numeric>

namespace search_test {

namespace {

constexpr double none = std::numeric_limits<double>::max();

/// Losses mostly rise and costs mostly too, in steps as of machines; or neither does.
pare::prunable random_sublayer(random_source& random, index_t most_units, bool whole_numbers) {
    const index_t units = random.integer(0, most_units);
    const bool wild = random.integer(0, 4) == 0;
    const auto number = [&] {
        if (random.integer(0, 5) == 0) return 0.0;
        return whole_numbers ? static_cast<double>(random.integer(0, 4)) : random.uniform(0, 1);
    };
    std::vector<double> loss{0}, cost{number()};
    for (index_t k = 0; k < units; ++k) {
        loss.push_back(number() + (wild ? 0 : loss.back()));
        cost.push_back(number() + (wild ? 0 : cost.back()));
    }
    return {std::move(loss), pare::cost_table(std::move(cost)),
            random.integer(0, 2) ? 1 : random.integer(1, 3),
            random.integer(0, 2) ? 0 : random.integer(0, 3)};
}

std::vector<pare::prunable> random_sublayers(random_source& random, index_t most,
                                             index_t most_units, bool whole_numbers) {
    std::vector<pare::prunable> all;
    for (index_t n = random.integer(0, most); n > 0; --n)
        all.push_back(random_sublayer(random, most_units, whole_numbers));
    return all;
}

bool allowed(const pare::prunable& s, index_t kept) {
    return kept >= s.at_least && kept <= s.units() && kept % s.multiple == 0;
}

struct point {
    double cost, loss;
};
point evaluate(const std::vector<pare::prunable>& sublayers, const std::vector<index_t>& kept) {
    point p{0, 0};
    REQUIRE(kept.size() == sublayers.size());
    for (std::size_t l = 0; l < kept.size(); ++l) {
        REQUIRE(allowed(sublayers[l], kept[l]));
        p.cost += sublayers[l].cost(kept[l]);
        p.loss += sublayers[l].loss[static_cast<std::size_t>(sublayers[l].units() - kept[l])];
    }
    return p;
}

/// Every choice that the constraints allow.
std::vector<point> try_all(const std::vector<pare::prunable>& sublayers) {
    std::vector<point> all;
    std::vector<index_t> kept;
    const std::function<void()> rest = [&] {
        if (kept.size() == sublayers.size()) {
            all.push_back(evaluate(sublayers, kept));
            return;
        }
        const pare::prunable& s = sublayers[kept.size()];
        for (index_t k = 0; k <= s.units(); ++k) {
            if (!allowed(s, k)) continue;
            kept.push_back(k);
            rest();
            kept.pop_back();
        }
    };
    rest();
    return all;
}

double least_loss(const std::vector<point>& all, double budget) {
    double least = none;
    for (const point& p : all)
        if (p.cost <= budget) least = std::min(least, p.loss);
    return least;
}

pare::prunable by_hand(std::vector<double> importance, double each) {
    const pare::loss_curve curve = pare::sorted_losses(importance);
    return {curve.loss, pare::cost_table::linear(curve.units(), each)};
}

} // namespace

TEST_CASE("the search finds what trying all choices finds, as exactly as it says") {
    random_source random;
    CAPTURE(random);
    int feasible = 0;
    for (int round = 0; round < 400; ++round) {
        const bool whole_numbers = round % 2;
        const auto sublayers = random_sublayers(random, 4, 6, whole_numbers);
        const std::vector<point> all = try_all(sublayers);
        double dearest = 0, cheapest = none;
        for (const point& p : all) {
            dearest = std::max(dearest, p.cost);
            cheapest = std::min(cheapest, p.cost);
        }
        const double gap = round % 3 ? 1e-3 : 0.1;
        const double most = round % 5 ? infinite<double>() : random.uniform(0, dearest);
        const pare::width_search search(sublayers, most, gap);
        for (double budget :
             {0.0, cheapest, random.uniform(0, dearest), random.uniform(0, dearest), dearest}) {
            if (!(budget <= std::min(most, dearest))) continue;
            CAPTURE(round, budget, most, gap);
            const pare::width_choice found = search.best(budget);
            const double slack = gap * std::min(most, dearest) * (1 + 1e-9);
            const double best = least_loss(all, budget), safe = least_loss(all, budget - slack);
            if (!found.feasible) {
                REQUIRE(!(safe < none)); // what fits easily is found
                REQUIRE(found.kept.empty());
                continue;
            }
            ++feasible;
            const point p = evaluate(sublayers, found.kept);
            REQUIRE_THAT(found.cost, WithinAbs(p.cost, 1e-12));
            REQUIRE_THAT(found.loss, WithinAbs(p.loss, 1e-12));
            REQUIRE(found.cost <= budget);
            REQUIRE(found.loss >= best - 1e-12);
            REQUIRE(found.loss <= safe + 1e-12);
            REQUIRE(search.bound(budget) <= best + 1e-12);
        }
    }
    CHECK(feasible > 400);
}

TEST_CASE("no choice beats the bound, where costs sum up to the budget too") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 20000; ++round) {
        // Costs of a tenth, a third, ...: quotients by the grid's step round up or down.
        const double each = 1 / static_cast<double>(random.integer(1, 10));
        std::vector<pare::prunable> sublayers;
        for (index_t l = random.integer(1, 3); l > 0; --l) {
            const auto units = static_cast<std::size_t>(random.integer(1, 4));
            std::vector<double> loss{0}, cost;
            for (std::size_t k = 0; k < units; ++k)
                loss.push_back(loss.back() + random.uniform(0, 1));
            for (std::size_t k = 0; k <= units; ++k)
                cost.push_back(each * static_cast<double>(random.integer(0, 30)));
            sublayers.push_back({loss, pare::cost_table(cost)});
        }
        const std::vector<point> all = try_all(sublayers);
        const double gap = random.integer(0, 1) ? 1e-3 : random.uniform(1e-3, 0.3);
        const pare::width_search search(sublayers, infinite<double>(), gap);
        for (const point& p : all) {
            CAPTURE(round, p.cost);
            REQUIRE(search.bound(p.cost) <= least_loss(all, p.cost));
        }
    }
}

TEST_CASE("the front has every choice than which none is cheaper and better") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 200; ++round) {
        // Whole numbers, which the grid tells apart.
        const auto sublayers = random_sublayers(random, 4, 6, true);
        const std::vector<point> all = try_all(sublayers);
        const pare::width_search search(sublayers, infinite<double>(), 1e-4);
        const std::vector<pare::width_choice> front = search.front();
        REQUIRE(front.empty() == all.empty());
        double cost = -1, loss = none;
        for (const pare::width_choice& c : front) {
            CAPTURE(round, c.cost, c.loss);
            REQUIRE(c.cost > cost);
            REQUIRE(c.loss < loss);
            cost = c.cost;
            loss = c.loss;
            const point p = evaluate(sublayers, c.kept);
            REQUIRE(p.cost == c.cost);
            REQUIRE(p.loss == c.loss);
            REQUIRE(c.loss == least_loss(all, c.cost));
            REQUIRE(least_loss(all, c.cost - 0.5) > c.loss);
        }
        for (const point& p : all) // and no place is missing
            REQUIRE(std::any_of(front.begin(), front.end(), [&](const pare::width_choice& c) {
                return c.cost <= p.cost && c.loss <= p.loss;
            }));
    }
}

TEST_CASE(
    "the search keeps to its budget where sums of costs round, and more budget loses no more") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 50; ++round) {
        std::vector<pare::prunable> sublayers;
        double whole = 0;
        for (index_t l = 0; l < 6; ++l)
            for (const index_t units : {12, 60}) {
                const double each = random.uniform(1e-3, 100);
                sublayers.push_back(by_hand(random.vector<double>(units, 0, 1), each));
                whole += each * static_cast<double>(units);
            }
        const pare::width_search search(sublayers);
        double last = none;
        for (const double share : {0.0, 0.1, 0.5, 0.9, 1.0, 1.1}) {
            const pare::width_choice found = search.best(share * whole);
            REQUIRE(found.feasible);
            REQUIRE(evaluate(sublayers, found.kept).cost <= share * whole);
            REQUIRE(found.loss <= last);
            last = found.loss;
        }
        REQUIRE(last == 0);
        const pare::width_choice half = search.best(whole / 2);
        REQUIRE(half.loss <= search.bound(whole / 2) * 1.02); // what the gap amounts to here
    }
}

TEST_CASE("the search by hand") {
    // Heads cost 4, filters 1; 5 of budget: one head and one filter, or five filters.
    const std::vector<pare::prunable> sublayers = {by_hand({9, 1}, 4), by_hand({2, 0}, 4),
                                                   by_hand({3, 1, 1}, 1), by_hand({2, 2, 1}, 1)};
    SECTION("a head worth more than the filters it displaces") {
        const auto c = pare::width_search(sublayers).best(5);
        CHECK(c.kept == std::vector<index_t>{1, 0, 1, 0});
        CHECK(c.cost == 5);
        CHECK(c.loss == (12 + 10 - 9 - 3) / 2.0);
    }
    SECTION("a budget for everything: what is worth nothing is not kept") {
        const auto c = pare::width_search(sublayers).best(1e9);
        CHECK(c.kept == std::vector<index_t>{2, 1, 3, 3});
        CHECK(c.loss == 0);
        CHECK(c.cost == 18);
    }
    SECTION("no budget") {
        const auto c = pare::width_search(sublayers, 0).best(0);
        CHECK(c.feasible);
        CHECK(c.kept == std::vector<index_t>{0, 0, 0, 0});
        CHECK(c.loss == 11);
        CHECK_FALSE(pare::width_search(sublayers).best(-1).feasible);
    }
    SECTION("a small loss beside a huge one still counts") {
        CHECK(pare::width_search({by_hand({1e20, 1}, 1), by_hand({1e20, 3}, 1)}).best(3).loss ==
              0.5);
    }
    SECTION("equal widths") {
        const pare::prunable heads = pare::tied({sublayers[0], sublayers[1]});
        const auto c = pare::width_search({heads, sublayers[2]}).best(9);
        CHECK(c.kept == std::vector<index_t>{1, 1});
        CHECK(c.loss == (1 + 0 + 1 + 1) / 2.0);
        CHECK_THROWS_AS(pare::tied({sublayers[0], sublayers[2]}), pare::shape_error);
        CHECK_THROWS_AS(pare::tied({}), pare::shape_error);
    }
    SECTION("constraints that cannot be met") {
        auto few = sublayers;
        few[1].at_least = 3;
        CHECK_FALSE(pare::width_search(few).best(1e9).feasible);
        CHECK(same_bits(pare::width_search(few).best(1e9).cost, infinite<double>()));
        CHECK(pare::width_search(few).front().empty());
        pare::prunable rounded = by_hand({1, 1, 1}, 1);
        rounded.multiple = 2;
        rounded.at_least = 3;
        CHECK_FALSE(pare::width_search({rounded}).best(1e9).feasible);
        rounded.at_least = 1;
        const auto least = pare::width_search({rounded}).best(1.5);
        CHECK_FALSE(least.feasible);
        CHECK(least.cost == 2);
    }
    SECTION("a width of its own that costs less than a narrower one") { // a staircase, measured
        const pare::prunable measured{{0, 1, 2, 3}, pare::cost_table({0, 5, 4, 6})};
        CHECK(pare::width_search({measured}).best(5).kept == std::vector<index_t>{2});
        CHECK(pare::width_search({measured}).front().size() == 3);
    }
    SECTION("a cost that is out of all proportion") {
        const pare::prunable dear{{0, 1, 2}, pare::cost_table({0, 1, 1e300})};
        CHECK(pare::width_search({dear, dear}, 2).best(2).kept == std::vector<index_t>{1, 1});
        CHECK(pare::width_search({dear}, 1e-300).best(1e-300).kept == std::vector<index_t>{0});
    }
    SECTION("no sublayers") {
        CHECK(pare::width_search({}).best(0).feasible);
        CHECK(pare::width_search({}).front().size() == 1);
    }
}

TEST_CASE("the search refuses numbers that it cannot work with") {
    const double nan = not_a_number<double>();
    const pare::prunable good = by_hand({1, 2}, 1);
    pare::prunable bad = good;
    bad.loss[1] = nan;
    CHECK_THAT(sentence_of<pare::value_error>([&] {
                   pare::width_search({good, bad});
               }),
               ContainsSubstring("the loss of sublayer 1 with 1 units is nan"));
    bad.loss.pop_back();
    CHECK_THAT(sentence_of<pare::value_error>([&] { pare::width_search({bad}); }),
               ContainsSubstring("sublayer 0 has 2 losses for 2 units"));
    bad = good;
    bad.multiple = 0;
    CHECK_THROWS_AS(pare::width_search({bad}), pare::value_error);
    pare::prunable impossible =
        good; // has no width that is allowed, which does not excuse the others
    impossible.at_least = 7;
    CHECK_THROWS_AS(pare::width_search({impossible, bad}), pare::value_error);
    for (const double budget : {1., infinite<double>()})
        CHECK_FALSE(pare::width_search({good, impossible}).best(budget).feasible);
    bad = good;
    bad.loss.push_back(9);
    CHECK(sentence_of<pare::shape_error>([&] {
              pare::tied({bad, bad});
          }) == "pare::tied: sublayers of 2 and 2 units, the latter with 4 losses");
    CHECK_THROWS_AS(pare::width_search({good}, nan), pare::value_error);
    for (const double gap : {0.0, -1.0, 2.0, nan, infinite<double>(), 1e-300})
        CHECK_THROWS_AS(pare::width_search({good}, 1, gap), pare::value_error);
    for (const double large : {1e308, std::numeric_limits<double>::max()}) {
        const pare::prunable dear{{0, 1}, pare::cost_table({0, large})};
        const pare::prunable lossy{{0, large}, pare::cost_table({0, 1})};
        CHECK(pare::width_search({dear, lossy}).best(large).cost == large);
        CHECK_THAT(sentence_of<pare::value_error>([&] {
                       pare::width_search({dear, dear});
                   }),
                   ContainsSubstring("costs sum up to inf, their losses to 2"));
        CHECK_THROWS_AS(pare::width_search({lossy, lossy}), pare::value_error);
        CHECK_THROWS_AS(pare::tied({dear, dear}), pare::value_error);
    }
    CHECK(pare::width_search({good}).best(infinite<double>()).loss == 0);
    CHECK_FALSE(pare::width_search({good}).best(minus_infinite<double>()).feasible);
    CHECK(same_bits(pare::width_search({good}).bound(-1), infinite<double>()));
    CHECK_THROWS_AS(pare::width_search({good}).best(nan), pare::value_error);
}

TEST_CASE("the cost of a head and of a filter is what their loops multiply") {
    const index_t hidden = 6, head_size = 3;
    const std::vector<int> lengths{1, 4, 9};
    double head = 0, filter = 0, gated = 0; // multiply-adds, sum over the sequences
    for (int n : lengths) {
        for (int t = 0; t < n; ++t) {
            for (index_t c = 0; c < head_size; ++c)
                for (index_t d = 0; d < hidden; ++d) head += 4; // query, key, value; output
            for (int key = 0; key < n; ++key)
                for (index_t c = 0; c < head_size; ++c) head += 2; // score; context
            for (index_t d = 0; d < hidden; ++d) filter += 2, gated += 3;
        }
    }
    const auto moments = pare::moments_of_lengths(lengths);
    CHECK_THAT(moments.mean, WithinRel(14.0 / 3, 1e-15));
    CHECK_THAT(moments.pairs, WithinRel(98.0 / 3, 1e-15));
    CHECK_THAT(pare::head_macs(moments, hidden, head_size), WithinRel(head / 3, 1e-14));
    CHECK_THAT(pare::filter_macs(moments, hidden), WithinRel(filter / 3, 1e-14));
    CHECK_THAT(pare::filter_macs(moments, hidden, 3), WithinRel(gated / 3, 1e-14));

    CHECK(pare::head_parameters(hidden, head_size, false) == 4 * 6 * 3);
    CHECK(pare::head_parameters(hidden, head_size) == 4 * 6 * 3 + 3 * 3);
    CHECK(pare::filter_parameters(hidden) == 2 * 6 + 1);
    CHECK(pare::filter_parameters(hidden, 3) == 3 * 6 + 2);
    CHECK(pare::filter_parameters(hidden, 3, false) == 3 * 6);
    CHECK(pare::head_parameters(index_t{1} << 40, index_t{1} << 40) > 4e24);

    CHECK_THROWS_AS(pare::moments_of_lengths(std::vector<int>{}), pare::value_error);
    CHECK(sentence_of<pare::value_error>([] {
              pare::moments_of_lengths(std::vector<int>{3, 0});
          }) == "pare::moments_of_lengths: length 1 is 0");
    CHECK(pare::moments_of_lengths(std::vector<unsigned>{7}).pairs == 49);
}

TEST_CASE("the cost of grouped heads under a mask is what their loops multiply") {
    const index_t hidden = 5, head_size = 3;
    const std::vector<int> lengths{1, 2, 7, 20};
    for (const pare::attention_mask mask : {pare::attention_mask{},
                                            {true, 0},
                                            {true, 4},
                                            {false, 4},
                                            {true, 1},
                                            {false, 1},
                                            {false, 100},
                                            {true, std::numeric_limits<index_t>::max()}})
        for (const index_t group : {1, 2, 7}) {
            double macs = 0;
            for (int n : lengths)
                for (index_t h = 0; h < group; ++h)
                    for (int q = 0; q < n; ++q) {
                        for (index_t c = 0; c < head_size; ++c)
                            for (index_t d = 0; d < hidden; ++d)
                                macs += h == 0 ? 4 : 2; // query, output; once key, value
                        for (int k = 0; k < n; ++k) {
                            if ((mask.causal && k > q) ||
                                (mask.window > 0 && std::abs(q - k) >= mask.window))
                                continue;
                            for (index_t c = 0; c < head_size; ++c) macs += 2; // score; context
                        }
                    }
            CAPTURE(mask.causal, mask.window, group);
            CHECK_THAT(
                pare::head_macs(pare::moments_of_lengths(lengths, mask), hidden, head_size, group),
                WithinRel(macs / 4, 1e-14));
            // Rows of the projections of queries and outputs, of keys and values; and biases.
            const index_t rows = head_size * (2 * group + 2);
            CHECK(pare::head_parameters(hidden, head_size, false, group) ==
                  static_cast<double>(rows * hidden));
            CHECK(pare::head_parameters(hidden, head_size, true, group) ==
                  static_cast<double>(rows * hidden + head_size * (group + 2)));
        }
    CHECK(sentence_of<pare::value_error>([&] {
              pare::moments_of_lengths(lengths, {true, -1});
          }) == "pare::moments_of_lengths: the window is -1");
}

TEST_CASE("fitted costs are the formula's where they follow it, and as near as any otherwise") {
    random_source random;
    CAPTURE(random);
    for (int repeat = 0; repeat < 200; ++repeat) {
        const index_t most = random.integer(2, 40);
        std::vector<index_t> kept = {0, most};
        for (index_t k = 1; k < most; ++k)
            if (random.integer(0, 2)) kept.push_back(k);
        if (kept.size() < 3) kept.push_back(1);
        const pare::hinge_cost truth{random.uniform(0, 2), random.uniform(0.1, 1),
                                     random.integer(0, most - 1), 0};
        const bool noisy = random.integer(0, 1) == 1;
        std::vector<double> cost;
        for (const index_t k : kept)
            cost.push_back(truth(k) + (noisy && k > 0 ? random.uniform(0, 0.5) : 0));
        const pare::hinge_cost found = pare::fit_hinge(kept, cost);
        const auto squares = [&](const pare::hinge_cost& h) {
            double sum = 0;
            for (std::size_t i = 0; i < kept.size(); ++i)
                if (kept[i] > 0) sum += (h(kept[i]) - cost[i]) * (h(kept[i]) - cost[i]);
            return sum;
        };
        const double least = squares(found);
        CAPTURE(truth.constant, truth.each, truth.knee, found.constant, found.each, found.knee);
        CHECK(least <= squares(truth) + 1e-9);
        for (int i = 0; i < 20; ++i) { // no better neighbour
            pare::hinge_cost other = found;
            other.constant = std::max(0., other.constant + random.uniform(-0.1, 0.1));
            other.each = std::max(0., other.each + random.uniform(-0.1, 0.1));
            other.knee = random.integer(0, most - 1);
            CHECK(least <= squares(other) + 1e-9);
        }
        double farthest = 0;
        for (std::size_t i = 0; i < kept.size(); ++i)
            if (kept[i] > 0) farthest = std::max(farthest, std::abs(found(kept[i]) - cost[i]));
        CHECK_THAT(found.error, WithinAbs(farthest, 1e-12));
        CHECK(found(0) == 0);
    }
    const auto steep =
        pare::fit_hinge(std::vector<int>{1, 2, 4, 8}, std::vector<float>{3, 3, 5, 9});
    CHECK(steep.knee == 2);
    CHECK_THAT(steep.constant, WithinAbs(3, 1e-9));
    CHECK_THAT(steep.each, WithinAbs(1, 1e-9));
    CHECK_THROWS_AS(pare::fit_hinge(std::vector<int>{1, 2}, std::vector<double>{1}),
                    pare::shape_error);
    CHECK(sentence_of<pare::value_error>([] {
              pare::fit_hinge(std::vector<int>{0}, std::vector<double>{0});
          }) == "pare::fit_hinge: no costs of units");
    const auto one = pare::fit_hinge(std::vector<int>{0, 3, 3}, std::vector<double>{0, 1, 2});
    CHECK(one(3) == 1.5);
    CHECK(one.error == 0.5);
    CHECK(sentence_of<pare::value_error>([] {
              pare::fit_hinge(std::vector<int>{1, -2}, std::vector<double>{1, 2});
          }) == "pare::fit_hinge: entry 1 is -2 units at a cost of 2");
    CHECK_THROWS_AS(
        pare::fit_hinge(std::vector<int>{1, 2}, std::vector<double>{1, not_a_number<double>()}),
        pare::value_error);
}

TEST_CASE("cost tables") {
    const pare::cost_table table({0.5, 2, 1}); // a measured table need not ascend
    CHECK(table.units() == 2);
    CHECK(table(0) == 0.5);
    CHECK(table(2) == 1);
    const auto linear = pare::cost_table::linear(3, 2.5);
    CHECK(linear.units() == 3);
    CHECK(linear(0) == 0);
    CHECK(linear(3) == 7.5);
    CHECK(pare::cost_table::linear(0, 1).units() == 0);
    CHECK_THROWS_AS(pare::cost_table::linear(-2, 1), pare::value_error);
    CHECK(sentence_of<pare::shape_error>([] {
              pare::cost_table::linear(std::numeric_limits<index_t>::max(), 1);
          }) == "pare::cost_table: 9223372036854775807 x 1 numbers have no room in any memory");
    CHECK_THROWS_AS(pare::cost_table({}), pare::value_error);
    for (double bad : {not_a_number<double>(), -1.0, infinite<double>()})
        CHECK_THAT(sentence_of<pare::value_error>([&] {
                       pare::cost_table({0, 1, bad});
                   }),
                   ContainsSubstring("pare::cost_table: the cost of 2 units is"));
}

TEMPLATE_LIST_TEST_CASE("costs of half types", "", half_types) {
    const std::vector<int> kept{1, 2, 3};
    const auto fitted = pare::fit_hinge(kept, halves_of<TestType>({1, 2, 3}));
    CHECK_THAT(fitted(2), WithinAbs(2, 1e-9));
    CHECK_THAT(sentence_of<pare::value_error>([&] {
                   pare::fit_hinge(kept, halves_of<TestType>({1, -2, 3}));
               }),
               ContainsSubstring("entry 1 is 2 units at a cost of -2"));
}

TEST_CASE("sentences do not follow the program's locale") {
    struct grouped : std::numpunct<char> {
        char do_decimal_point() const override { return ','; }
        char do_thousands_sep() const override { return '.'; }
        std::string do_grouping() const override { return "\3"; }
    };
    struct restored {
        std::locale before = std::locale::global(std::locale(std::locale(), new grouped));
        ~restored() { std::locale::global(before); }
    } locale;
    const std::vector<pare::prunable> sublayers(1234, {{0}, pare::cost_table::linear(0, 1)});
    CHECK(sentence_of<pare::value_error>([&] { pare::width_search(sublayers, 1, 5e-7); }) ==
          "pare::width_search: a gap of 5e-07 over 1234 sublayers asks for 2.468e+09 places on "
          "the grid");
}

} // namespace search_test
