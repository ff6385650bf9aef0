// Statistics of queries against sums in long double, and shapes of attention against all choices.
#include "policies.hpp"
#include "support.hpp"
#include <pare/head_shapes.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace head_shapes_test {

namespace {

using real_matrix = Eigen::Matrix<real, Eigen::Dynamic, Eigen::Dynamic>;
using Eigen::MatrixXd;

template <class T>
pare::view<const T, 3> by_head(const matrix<T>& rows, index_t first, index_t some, index_t heads) {
    const index_t size = rows.width / heads;
    return {&rows(first, 0),
            {some, heads, size},
            {rows.row_stride, size * rows.column_stride, rows.column_stride}};
}
template <class T>
real_matrix moments(const matrix<T>& rows, index_t head, index_t size,
                    const std::vector<T>& weights) {
    real_matrix sum = real_matrix::Zero(size, size);
    real all = 0;
    for (index_t t = 0; t < rows.height; ++t) {
        const real w =
            weights.empty() ? 1 : static_cast<real>(weights[static_cast<std::size_t>(t)]);
        all += w;
        for (index_t i = 0; i < size; ++i)
            for (index_t j = 0; j < size; ++j)
                sum(i, j) += w * static_cast<real>(rows(t, head * size + i)) *
                             static_cast<real>(rows(t, head * size + j));
    }
    return sum / all;
}

} // namespace

TEMPLATE_LIST_TEST_CASE("statistics of queries give the projections of their sums", "", runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    const index_t tokens = 50, heads = 3, size = 4, first = 20;
    for (const layout l : {layout::rows, layout::interleaved})
        for (const bool weighted : {false, true}) {
            CAPTURE(weighted);
            matrix<T> q(tokens, heads * size, random, l), g(tokens, heads * size, random, l);
            for (index_t t = 0; t < tokens; ++t) q(t, 1) += T(3); // a bias
            const std::vector<T> w = weighted ? random.vector<T>(tokens, 0, 2) : std::vector<T>();
            pare::query_statistics found(heads, size), rest(heads, size);
            const auto add = [&](pare::query_statistics& to, index_t begin, index_t some) {
                const auto queries = by_head(q, begin, some, heads);
                const auto gradients = by_head(g, begin, some, heads);
                if (weighted)
                    to.add(TestType::policy(), queries, gradients,
                           pare::view(w.data() + begin, some));
                else
                    to.add(TestType::policy(), queries, gradients);
            };
            add(found, 0, first);
            add(rest, first, tokens - first);
            found.merge(rest);
            const std::vector<pare::projection> all = found.projections();
            REQUIRE(all.size() == 3);
            for (index_t h = 0; h < heads; ++h) {
                const MatrixXd s = moments(q, h, size, w).template cast<double>();
                const MatrixXd m = moments(g, h, size, {}).template cast<double>();
                const pare::projection expected = pare::project(s, m);
                for (std::size_t k = 0; k <= 4; ++k)
                    CHECK_THAT(all[static_cast<std::size_t>(h)].loss[k],
                               WithinAbs(expected.loss[k], 1e-5 * expected.loss.back()));
            }
        }
    pare::query_statistics two(2, 4);
    const matrix<T> three(5, 12, random);
    const auto rows = by_head(three, 0, 5, 3);
    CHECK_THROWS_WITH(two.add(TestType::policy(), rows, rows),
                      Catch::Contains("queries are 5 x 3 x 4") && Catch::Contains("2 heads"));
    CHECK_THROWS_AS(two.merge(pare::query_statistics(3, 4)), pare::shape_error);
    CHECK_THROWS_AS(pare::query_statistics(-1, 4), pare::shape_error);
    CHECK(sentence_of<pare::shape_error>([] { pare::query_statistics(0, -1); }) ==
          "pare::query_statistics: 0 heads of -1 numbers");
    const pare::view<const T, 3> nothing(nullptr, {0, 2, 4}, {11, 5, 1});
    two.add(TestType::policy(), nothing, nothing);
    for (const pare::projection& p : two.projections())
        CHECK(p.loss == std::vector<double>(5, 0.0));
}

TEST_CASE("a search over shapes and filters finds the best of all choices within the budget") {
    random_source random;
    CAPTURE(random);
    const index_t heads = 3, size = 4, of_values = 6, filters = 5;
    const auto falling = [&](index_t n) {
        std::vector<double> loss{0};
        for (index_t i = 0; i < n; ++i) loss.push_back(loss.back() + random.uniform(0, 1));
        return loss;
    };
    pare::loss_curve of_heads{{2, 0, 1}, falling(heads)};
    std::vector<pare::projection> logits(3);
    for (pare::projection& p : logits) p.loss = falling(size);
    std::vector<pare::rank_curve> values(4);
    for (index_t kept = 0; kept <= heads; ++kept) {
        auto& loss = values[static_cast<std::size_t>(kept)].loss = falling(of_values);
        for (double& x : loss) x += of_heads.loss[static_cast<std::size_t>(heads - kept)];
    }
    const std::vector<double> of_filters = falling(filters);
    const pare::length_moments n = pare::moments_of_lengths(std::vector<int>{5, 9});
    const double filter = pare::filter_macs(n, 16);
    const auto cost = [&](const pare::head_shape& s) { return pare::shape_macs(n, 16, s); };
    CHECK_THAT(cost({3, size, size}), WithinRel(3 * pare::head_macs(n, 16, size), 1e-12));

    const pare::head_shape all_of_them{heads, size, of_values};
    const pare::head_shapes found =
        pare::shapes_of_heads(of_heads, logits, values, all_of_them, {1, 2, 3});
    CHECK(found.shapes.size() == 1 + 3 * 2 * 2);
    const std::vector<pare::prunable> sublayers = {
        found.choices(cost), {of_filters, pare::cost_table::linear(filters, filter), 1, 0}};
    const double all = cost(all_of_them) + filter * filters;
    for (const double share : {0.1, 0.3, 0.5, 0.8, 1.0}) {
        CAPTURE(share);
        const pare::width_choice best = pare::width_search(sublayers, all).best(share * all);
        REQUIRE(best.feasible);
        double least = std::numeric_limits<double>::max();
        for (index_t h = 0; h <= heads; ++h)
            for (index_t q = 2; q <= size; q += 2)
                for (index_t v = 3; v <= of_values; v += 3)
                    for (index_t f = 0; f <= filters; ++f) {
                        if (cost({h, q, v}) + filter * static_cast<double>(f) > share * all)
                            continue;
                        double loss = of_filters[static_cast<std::size_t>(filters - f)];
                        if (h == 0) loss += of_heads.loss[3];
                        const std::vector<std::uint8_t> mask = of_heads.mask(h);
                        for (std::size_t i = 0; i < 3 && h > 0; ++i)
                            if (mask[i]) loss += logits[i].loss[static_cast<std::size_t>(size - q)];
                        if (h > 0)
                            loss += values[static_cast<std::size_t>(h)]
                                        .loss[static_cast<std::size_t>(of_values - v)];
                        least = std::min(least, loss);
                    }
        // The search rounds costs.
        CHECK(best.loss >= least - 1e-12);
        CHECK(best.loss <= least * 1.02 + 1e-12);
        CHECK(best.cost <= share * all);
        const pare::head_shape& shape = found.shapes[static_cast<std::size_t>(best.kept[0])];
        CHECK_THAT(best.cost,
                   WithinRel(cost(shape) + filter * static_cast<double>(best.kept[1]), 1e-12));
    }
    // Heads alone.
    const pare::head_shapes whole = pare::shapes_of_heads(of_heads, {}, {}, all_of_them, {1, 4, 6});
    CHECK(whole.losses == std::vector<double>(of_heads.loss.rbegin(), of_heads.loss.rend()));
}

TEST_CASE("shapes of heads refuse curves of other heads") {
    const pare::loss_curve heads{{0, 1}, {0, 1, 2}};
    const auto refused = [&](const auto& logits, const auto& values, index_t size, index_t multiple,
                             const char* sentence) {
        CHECK_THROWS_WITH(
            pare::shapes_of_heads(heads, logits, values, {2, size, size}, {1, multiple, multiple}),
            Catch::Contains(sentence));
    };
    using logits = std::vector<pare::projection>;
    using values = std::vector<pare::rank_curve>;
    refused(logits(3), values(), 4, 2,
            "2 heads of 4 and 4 numbers in multiples of 2 and 2, curves of 2 heads, logits of 3");
    refused(logits(), values(2), 4, 2, "values of 2 numbers of heads");
    refused(logits(), values(), 4, 3, "multiples of 3 and 3");
    refused(logits(), values(), 4, 0, "multiples of 0 and 0");
    refused(logits(2), values(), 4, 2, "a curve of 0 losses, heads have 4 numbers");
    CHECK_THROWS_WITH(pare::shapes_of_heads(heads, {}, {}, {3, 4, 4}, {1, 2, 2}),
                      Catch::Contains("3 heads of 4 and 4 numbers"));
    // Made by hand.
    const auto of = [](const pare::loss_curve& curve) {
        pare::shapes_of_heads(curve, {}, {}, {2, 4, 4}, {1, 2, 2});
    };
    CHECK(sentence_of<pare::shape_error>([&] {
              of({{0, 1}, {0, 1}});
          }) == "pare::shapes_of_heads: a curve of 2 losses, there are 2 heads");
    CHECK_THROWS_AS(of({{0, 1}, {0, 1, 2, 3}}), pare::shape_error);
    CHECK_THROWS_AS(of({{0, 2}, {0, 1, 2}}), pare::value_error);
    CHECK_THROWS_AS(of({{1, 1}, {0, 1, 2}}), pare::value_error);
}

} // namespace head_shapes_test
