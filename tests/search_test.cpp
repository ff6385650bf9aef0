// The search against all masks there are, and costs against loops that count.
#include "support.hpp"
#include <pare/cost.hpp>
#include <pare/search.hpp>

#include <algorithm>
#include <map>
#include <numeric>

namespace {

pare::prunable_units random_units(random_source& random, index_t most_layers, index_t most_units,
                                  bool whole_numbers) {
    pare::prunable_units units;
    const bool uneven = random.integer(0, 3) == 0;
    const index_t width = random.integer(0, most_units);
    units.importance.resize(static_cast<std::size_t>(random.integer(0, most_layers)));
    for (auto& layer : units.importance) {
        layer.resize(static_cast<std::size_t>(uneven ? random.integer(0, most_units) : width));
        for (double& x : layer) {
            x = whole_numbers ? static_cast<double>(random.integer(0, 4)) : random.uniform(0, 1);
            if (random.integer(0, 9) == 0) x = 0;
        }
    }
    units.cost = static_cast<double>(random.integer(1, 40)) / 4;
    units.multiple = random.integer(0, 2) ? 1 : random.integer(1, 3);
    units.at_least = random.integer(0, 2) ? 0 : random.integer(0, 3);
    units.equal = random.integer(0, 3) == 0;
    return units;
}

bool allowed(const pare::prunable_units& units, const pare::masks& masks) {
    if (masks.size() != units.importance.size()) return false;
    std::vector<index_t> kept;
    for (std::size_t l = 0; l < masks.size(); ++l) {
        if (masks[l].size() != units.importance[l].size()) return false;
        for (auto m : masks[l])
            if (m > 1) return false;
        kept.push_back(std::accumulate(masks[l].begin(), masks[l].end(), index_t{0}));
        if (kept[l] % units.multiple != 0 || kept[l] < units.at_least) return false;
        if (units.equal && kept[l] != kept[0]) return false;
    }
    return true;
}

// Units kept and importance pruned.
std::pair<index_t, real> evaluate(const pare::prunable_units& units, const pare::masks& masks) {
    index_t kept = 0;
    real pruned = 0;
    for (std::size_t l = 0; l < masks.size(); ++l)
        for (std::size_t u = 0; u < masks[l].size(); ++u)
            if (masks[l][u])
                ++kept;
            else
                pruned += static_cast<real>(units.importance[l][u]);
    return {kept, pruned};
}

// For every number of units kept by masks that satisfy the constraints, the least importance
// pruned: found by trying all masks.
std::map<index_t, real> try_all(const pare::prunable_units& units) {
    pare::masks masks;
    std::size_t bits = 0;
    for (const auto& layer : units.importance) {
        masks.emplace_back(layer.size());
        bits += layer.size();
    }
    std::map<index_t, real> least;
    for (std::size_t code = 0; code < std::size_t{1} << bits; ++code) {
        std::size_t rest = code;
        for (auto& layer : masks)
            for (auto& m : layer) m = rest & 1, rest >>= 1;
        if (!allowed(units, masks)) continue;
        const auto [kept, pruned] = evaluate(units, masks);
        const auto found = least.emplace(kept, pruned).first;
        found->second = std::min(found->second, pruned);
    }
    return least;
}

void check_against_all(const pare::prunable_units& heads, const pare::prunable_units& filters,
                       bool whole_numbers, random_source& random) {
    const auto all_heads = try_all(heads), all_filters = try_all(filters);
    const double infinity = std::numeric_limits<double>::infinity();
    double least_cost = infinity, most_cost = 0;
    for (const auto& h : all_heads)
        for (const auto& f : all_filters) {
            const double cost = heads.cost * static_cast<double>(h.first) +
                                filters.cost * static_cast<double>(f.first);
            least_cost = std::min(least_cost, cost);
            most_cost = std::max(most_cost, cost);
        }
    for (double budget : {0.0, least_cost - 0.25, least_cost, random.uniform(0, most_cost),
                          random.uniform(0, most_cost), most_cost, most_cost + 1}) {
        if (!(budget < infinity)) budget = 100;
        real best = -1;
        double best_cost = least_cost;
        for (const auto& h : all_heads)
            for (const auto& f : all_filters) {
                const double cost = heads.cost * static_cast<double>(h.first) +
                                    filters.cost * static_cast<double>(f.first);
                const real loss = (h.second + f.second) / 2;
                if (cost > budget) continue;
                if (best < 0 || loss < best || (loss == best && cost < best_cost)) {
                    best = loss;
                    best_cost = cost;
                }
            }
        CAPTURE(budget, least_cost, most_cost);
        const auto result = pare::search(heads, filters, budget);
        REQUIRE(result.feasible == (best >= 0));
        if (!result.feasible) {
            REQUIRE(result.cost == least_cost);
            REQUIRE((result.heads.empty() && result.filters.empty()));
            continue;
        }
        REQUIRE(result.cost <= budget);
        REQUIRE(allowed(heads, result.heads));
        REQUIRE(allowed(filters, result.filters));
        const auto h = evaluate(heads, result.heads), f = evaluate(filters, result.filters);
        REQUIRE(result.cost == heads.cost * static_cast<double>(h.first) +
                                   filters.cost * static_cast<double>(f.first));
        const real loss = (h.second + f.second) / 2;
        REQUIRE_THAT(result.loss, WithinAbs(static_cast<double>(loss), 1e-13));
        REQUIRE_THAT(static_cast<double>(loss), WithinAbs(static_cast<double>(best), 1e-13));
        if (whole_numbers) REQUIRE(result.cost == best_cost); // of equal losses the cheapest
    }
}

pare::prunable_units units(std::vector<std::vector<double>> importance, double cost = 1) {
    pare::prunable_units u;
    u.importance = std::move(importance);
    u.cost = cost;
    return u;
}

} // namespace

TEST_CASE("search finds what trying all masks finds") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 300; ++round) {
        const bool whole_numbers = round % 2;
        const auto heads = random_units(random, 3, 3, whole_numbers);
        const auto filters = random_units(random, round % 10 ? 2 : 3, 4, whole_numbers);
        CAPTURE(round, heads.importance, filters.importance, heads.cost, filters.cost);
        CAPTURE(heads.multiple, heads.at_least, heads.equal);
        CAPTURE(filters.multiple, filters.at_least, filters.equal);
        check_against_all(heads, filters, whole_numbers, random);
    }
}

TEST_CASE("search never exceeds its budget, and a larger budget never loses more") {
    random_source random;
    CAPTURE(random);
    for (int round = 0; round < 1000; ++round) {
        auto heads = random_units(random, 6, 12, false),
             filters = random_units(random, 6, 60, false);
        heads.cost = random.uniform(1e-3, 100); // sums of such costs round
        filters.cost = random.uniform(1e-3, 10);
        double whole = 0, last_loss = std::numeric_limits<double>::infinity();
        for (const auto& layer : heads.importance)
            whole += heads.cost * static_cast<double>(layer.size());
        for (const auto& layer : filters.importance)
            whole += filters.cost * static_cast<double>(layer.size());
        for (double share : {0.0, 0.1, 0.5, 0.9, 1.0}) {
            CAPTURE(round, share, whole);
            const auto result = pare::search(heads, filters, share * whole);
            if (!result.feasible) {
                REQUIRE(result.cost > share * whole);
                continue;
            }
            const auto h = evaluate(heads, result.heads), f = evaluate(filters, result.filters);
            REQUIRE((allowed(heads, result.heads) && allowed(filters, result.filters)));
            REQUIRE(heads.cost * static_cast<double>(h.first) +
                        filters.cost * static_cast<double>(f.first) <=
                    share * whole);
            REQUIRE(result.loss <= last_loss * (1 + 1e-12));
            last_loss = result.loss;
        }
    }
}

TEST_CASE("search by hand") {
    // Heads cost 4, filters 1; 5 of budget: one head and one filter, or five filters.
    const auto heads = units({{9, 1}, {2, 0}}, 4);
    const auto filters = units({{3, 1, 1}, {2, 2, 1}});
    SECTION("a head worth more than the filters it displaces") {
        const auto r = pare::search(heads, filters, 5);
        CHECK(r.heads == pare::masks{{1, 0}, {0, 0}});
        CHECK(r.filters == pare::masks{{1, 0, 0}, {0, 0, 0}});
        CHECK(r.cost == 5);
        CHECK(r.loss == (12 + 10 - 9 - 3) / 2.0);
    }
    SECTION("a budget for everything: what is worth nothing is not kept") {
        const auto r = pare::search(heads, filters, 1e9);
        CHECK(r.heads == pare::masks{{1, 1}, {1, 0}});
        CHECK(r.filters == pare::masks{{1, 1, 1}, {1, 1, 1}});
        CHECK(r.loss == 0);
        CHECK(r.cost == 18);
    }
    SECTION("no budget") {
        const auto r = pare::search(heads, filters, 0);
        CHECK(r.feasible);
        CHECK(r.heads == pare::masks{{0, 0}, {0, 0}});
        CHECK(r.cost == 0);
        CHECK(r.loss == 11);
        CHECK_FALSE(pare::search(heads, filters, -1).feasible);
    }
    SECTION("ties go to the earlier layer and unit") {
        const auto equal = units({{1, 1, 1}, {1, 1, 1}});
        const auto r = pare::search(equal, units({}), 4);
        CHECK(r.heads == pare::masks{{1, 1, 1}, {1, 0, 0}});
        CHECK(r.filters.empty());
    }
    SECTION("a small importance beside a huge one still counts") {
        const auto r = pare::search(units({{1e20, 1}}), units({{1e20, 1}}), 4);
        CHECK(r.loss == 0);
        CHECK(pare::search(units({{1e20, 1}}), units({{1e20, 3}}), 3).loss == 0.5);
    }
    SECTION("constraints that cannot be met") {
        auto few = heads;
        few.at_least = 3;
        const auto r = pare::search(few, filters, 1e9);
        CHECK_FALSE(r.feasible);
        CHECK(r.cost == std::numeric_limits<double>::infinity());
        auto rounded = units({{1, 1, 1}});
        rounded.multiple = 2;
        rounded.at_least = 3;
        CHECK_FALSE(pare::search(rounded, filters, 1e9).feasible);
        rounded.at_least = 1;
        const auto least = pare::search(rounded, filters, 1.5);
        CHECK_FALSE(least.feasible);
        CHECK(least.cost == 2);
    }
    SECTION("no layers at all meet any constraint") {
        auto none = units({});
        none.at_least = 2;
        CHECK(pare::search(none, filters, 2).feasible);
        none.equal = true;
        CHECK(pare::search(filters, none, 2).feasible);
    }
}

TEST_CASE("search refuses numbers that it cannot work with") {
    const auto good = units({{1, 2}});
    const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
    for (double bad : {nan, infinity, -1.0}) {
        CHECK_THAT(sentence_of<pare::value_error>([&] {
                       pare::search(units({{1}, {2, bad}}), good, 1);
                   }),
                   ContainsSubstring("pare::search: the importance of unit 1 in layer 1 is"));
        CHECK_THROWS_AS(pare::search(good, units({{bad}}), 1), pare::value_error);
        CHECK_THROWS_AS(pare::search(good, units({{1}}, bad), 1), pare::value_error);
    }
    CHECK_THROWS_AS(pare::search(good, units({{1}}, 0), 1), pare::value_error);
    CHECK_THROWS_AS(pare::search(good, good, nan), pare::value_error);
    CHECK_THROWS_AS(pare::search(good, good, infinity), pare::value_error);
    auto odd = good;
    odd.multiple = 0;
    CHECK_THROWS_AS(pare::search(odd, good, 1), pare::value_error);
    odd = good;
    odd.at_least = -1;
    CHECK_THROWS_AS(pare::search(good, odd, 1), pare::value_error);
}

TEST_CASE("the cost of a head and of a filter is what their loops multiply") {
    const index_t hidden = 6, head_size = 3, filters = 5;
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
    CHECK_THAT(moments.mean_square, WithinRel(98.0 / 3, 1e-15));
    CHECK_THAT(pare::head_macs(moments, hidden, head_size), WithinRel(head / 3, 1e-14));
    CHECK_THAT(pare::filter_macs(moments, hidden), WithinRel(filter / 3, 1e-14));
    CHECK_THAT(pare::filter_macs(moments, hidden, 3), WithinRel(gated / 3, 1e-14));

    CHECK(pare::head_parameters(hidden, head_size, false) ==
          3 * head_size * hidden + hidden * head_size);
    CHECK(pare::head_parameters(hidden, head_size) == 4 * hidden * head_size + 3 * head_size);
    CHECK(filters * pare::filter_parameters(hidden) == 2 * hidden * filters + filters);
    CHECK(pare::filter_parameters(hidden, 3) == 3 * hidden + 2);
    CHECK(pare::filter_parameters(hidden, 3, false) == 3 * hidden);

    CHECK_THROWS_AS(pare::moments_of_lengths(std::vector<int>{}), pare::value_error);
    CHECK(sentence_of<pare::value_error>([] {
              pare::moments_of_lengths(std::vector<int>{3, 0});
          }) == "pare::moments_of_lengths: length 1 is 0");
    CHECK(pare::moments_of_lengths(std::vector<unsigned>{7}).mean_square == 49);
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
    CHECK_THROWS_AS(pare::cost_table({}), pare::value_error);
    for (double bad : {std::nan(""), -1.0, std::numeric_limits<double>::infinity()})
        CHECK_THAT(sentence_of<pare::value_error>([&] {
                       pare::cost_table({0, 1, bad});
                   }),
                   ContainsSubstring("pare::cost_table: the cost of 2 units is"));
}
