// Nothing to do: no rows, no columns, no memory. Null pointers are not moved, and nothing is written.
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/eliminate.hpp>
#include <pare/fisher.hpp>
#include <pare/gather.hpp>
#include <pare/rearrange.hpp>
#include <pare/shrink.hpp>
#include <pare/soft_mask.hpp>
#include <pare/tune.hpp>

namespace nothing_test {

namespace {

/// A matrix of which one extent is 0, without memory and with strides as if it had some.
template <class T>
pare::view<T, 2> no_matrix(index_t rows, index_t columns) {
    return {nullptr, {rows, columns}, {columns + 3, 1}};
}
template <class T>
pare::view<T, 3> no_heads(index_t tokens, index_t heads, index_t size) {
    return {nullptr, {tokens, heads, size}, {heads * size + 5, size + 1, 1}};
}
template <class T>
pare::view<T, 1> no_vector() {
    return {nullptr, {0}, {1}};
}

} // namespace

TEMPLATE_LIST_TEST_CASE("rows without columns, columns without rows, and neither", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    const std::vector<int> offsets = {0, 2, 5}, none = {0};
    for (const auto& [rows, columns] : {std::pair<index_t, index_t>{5, 0}, {0, 4}, {0, 0}}) {
        CAPTURE(rows, columns);
        const std::vector<int>& o = rows ? offsets : none;
        const auto samples = static_cast<index_t>(o.size()) - 1;
        const auto x = no_matrix<const T>(rows, columns);
        const auto y = no_matrix<T>(rows, columns);
        std::vector<T> sums(static_cast<std::size_t>(samples * columns));
        pare::mask_gradients(policy, x, x, o, 1, pare::view<T, 2>(sums.data(), samples, columns));
        pare::sample_sums(policy, x, o, pare::view<T, 2>(sums.data(), samples, columns));
        pare::fisher<> block(columns, pare::fisher_kind::block);
        block.add(policy, x);
        CHECK(block.samples() == rows);
        CHECK(block.diagonal() == std::vector<double>(static_cast<std::size_t>(columns)));
        pare::gram<> gram(columns, 3);
        std::vector<T> three(static_cast<std::size_t>(rows * 3), T(1));
        gram.add(policy, x, pare::view<const T, 2>(three.data(), rows, 3));

        std::vector<T> weights(static_cast<std::size_t>(rows), T(0.5)), found = weights;
        pare::scale_rows(policy, weights, x, y);
        pare::scale_rows_backward(policy, weights, x, x, y, found);
        CHECK(found == std::vector<T>(weights.size(), T(0)));

        const std::vector<int> all = rows ? std::vector<int>{0, 3} : std::vector<int>{};
        const auto some = no_matrix<T>(static_cast<index_t>(all.size()), columns);
        pare::gather_rows(policy, all, pare::from_to(x, some), y);
        pare::restore(policy, all, pare::from_to(some, y));
        pare::keep_rows(policy, x, all, some);
        pare::keep_columns(policy, x, std::vector<int>{}, no_matrix<T>(rows, 0));
        pare::fold_scales(std::vector<T>(static_cast<std::size_t>(columns), T(1)), 1, y);
    }
}

TEMPLATE_LIST_TEST_CASE("attention and scores of no tokens, no heads and no size", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    pare::workspace scratch;
    const std::vector<int> offsets = {0, 2, 5}, none = {0, 0};
    for (const auto& [tokens, heads, size] :
         {std::array<index_t, 3>{0, 2, 4}, {5, 0, 4}, {5, 2, 0}, {0, 0, 0}}) {
        CAPTURE(tokens, heads, size);
        const auto x = no_heads<const T>(tokens, heads, size);
        std::vector<T> scores(static_cast<std::size_t>(tokens));
        pare::attention(policy, x, x, x, tokens ? offsets : none, no_heads<T>(tokens, heads, size),
                        scores, {}, scratch);
        pare::attention(policy, x, x, x, tokens ? offsets : none, no_heads<T>(tokens, heads, size),
                        {}, scratch);
    }
    for (const auto& [heads, queries, keys] :
         {std::array<index_t, 3>{0, 3, 3}, {2, 0, 3}, {2, 3, 0}, {0, 0, 0}}) {
        CAPTURE(heads, queries, keys);
        const pare::view<const T, 4> p(nullptr, {2, heads, queries, keys}, {100, 20, 5, 1});
        std::vector<T> scores(static_cast<std::size_t>(2 * keys));
        const pare::view<T, 2> s(scores.data(), 2, keys);
        for (const bool causal : {false, true}) {
            pare::importance_options o;
            o.mask.causal = causal;
            pare::importance(policy, p, std::vector<int>{}, s, o);
            CHECK(scores == std::vector<T>(scores.size(), T(0)));
        }
        pare::importance_backward(
            policy, s, std::vector<int>{},
            pare::view<T, 4>(nullptr, {2, heads, queries, keys}, {100, 20, 5, 1}));
    }
    pare::importance_packed(policy, no_vector<const T>(), 2, none, no_vector<T>());
}

TEMPLATE_LIST_TEST_CASE("masks and selections of no tokens", "", runs) {
    using T = typename TestType::type;
    const auto policy = TestType::policy();
    const auto nothing = no_vector<T>();
    const auto index = no_vector<int>();
    std::vector<int> offsets = {0, 0, 0}, kept = offsets;
    pare::soft_mask(policy, nothing, 0.5, 1, nothing);
    CHECK(pare::soft_mask_backward(policy, nothing, nothing, 1, nothing) == 0);
    CHECK(pare::mask_penalty(policy, nothing, offsets, 1, nothing) == 0);
    CHECK(pare::keep_above(policy, nothing, 0.5, offsets, index, kept) == 0);
    CHECK(pare::keep_top_k(policy, nothing, 2, offsets, index, kept) == 0);
    CHECK(pare::keep_above(policy, nothing, 0.5, index) == 0);
    CHECK(pare::dropped_ranges(index, offsets, no_matrix<int>(0, 2)) == 0);
}

TEMPLATE_LIST_TEST_CASE("statistics and layers without inputs or outputs", "", policies) {
    const auto policy = TestType::policy();
    for (const auto& [inputs, outputs] : {std::pair<index_t, index_t>{0, 3}, {4, 0}, {0, 0}}) {
        CAPTURE(inputs, outputs);
        random_source random;
        const matrix<float> x(20, inputs, random), y(20, outputs, random);
        pare::least_squares s(inputs, outputs);
        s.add(policy, x.view(), y.view());
        s.add(policy, x.view(), y.view(), std::vector<float>(20, 1.0f));
        s.merge(pare::least_squares(inputs, outputs));
        const auto weight = no_matrix<float>(outputs, inputs);
        const auto gone =
            pare::eliminate(pare::simd, s.covariance(), pare::view<double, 2>(), weight, 1);
        CHECK(gone.units() == inputs);
        const pare::gram<> metric(outputs);
        if (outputs > 0)
            CHECK(pare::eliminate(pare::simd, s.covariance(), metric.lower_sums(), weight, 1)
                      .units() == inputs);
        std::vector<float> bias(static_cast<std::size_t>(outputs));
        CHECK(pare::reconstruct(policy, s, weight, bias));
        std::vector<float> scales(static_cast<std::size_t>(inputs));
        CHECK(pare::scale(policy, s, 1, weight, bias, scales));
    }
    std::vector<char> mask;
    CHECK(pare::rearrange(policy, no_matrix<const float>(0, 0), mask).converged);
    CHECK(pare::ridge_solve(policy, no_matrix<double>(0, 0), 1, no_matrix<double>(0, 3)));
    matrix<double> g(4, 4);
    for (index_t i = 0; i < 16; ++i) g(i / 4, i % 4) = i % 5 == 0;
    CHECK(pare::ridge_solve(policy, g.view(), 1, no_matrix<double>(4, 0)));
}

TEST_CASE("of one number, the stride is any") {
    constexpr index_t any = 7;
    const auto one = [](auto& x) { return pare::view(&x, {1}, {any}); };
    int position = 0, kept_position = 3, none = 0, new_none = 3, length = 1;
    float score = 1, hidden = 2, probability = 1, importance = 0;
    CHECK(pare::keep_above(pare::seq, one(score), 0.5, one(kept_position)) == 1);
    CHECK(kept_position == 0);
    pare::gather_rows(pare::seq, one(position), one(hidden));
    CHECK(hidden == 2);
    CHECK(pare::keep_above(pare::seq, no_vector<float>(), 0.5, one(none), no_vector<int>(),
                           one(new_none)) == 0);
    CHECK(new_none == 0);
    pare::gather_rows_async(pare::seq, no_vector<int>(), one(none), one(hidden));
    pare::importance(pare::seq, pare::view(&probability, 1, 1, 1, 1), one(length),
                     pare::view(&importance, 1, 1));
    CHECK(importance == 1);
    pare::importance_packed(pare::seq, no_vector<float>(), 1, one(none), no_vector<float>());
    pare::mask_gradients(pare::seq, no_matrix<float>(0, 2), no_matrix<float>(0, 2), one(none), 1,
                         no_matrix<float>(0, 2));
    double mask = 1, block = 1;
    CHECK(pare::rearrange(pare::seq, pare::view(&block, {1, 1}, {any, any}), one(mask)).converged);
}

} // namespace nothing_test
