// How many heads a layer needs, and of how many numbers, from the buffers of a backward pass.
#include <pare/head_shapes.hpp>
#include <pare/policy/simd.hpp>
#include <pare/shrink.hpp>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

int main() {
    // Stand-ins for a model's buffers: half of the numbers of queries hardly vary, and the last head
    // gives what the first two give.
    constexpr int tokens = 300, heads = 3, size = 4, hidden = 6, columns = heads * size;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto some = [&](std::size_t count) {
        std::vector<float> x(count);
        for (float& a : x) a = normal(random);
        return x;
    };
    std::vector<float> q = some(tokens * columns), dq = some(tokens * columns);
    std::vector<float> context = some(tokens * columns), dy = some(tokens * hidden);
    const std::vector<float> output = some(hidden * columns), query = some(columns * hidden);
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t i = 0; i < columns; ++i) {
            if (i % size >= size / 2) q[t * columns + i] *= 0.01f;
            if (i >= 2 * size)
                context[t * columns + i] =
                    context[t * columns + i - size] - context[t * columns + i - 2 * size];
        }

    // [example]
    pare::query_statistics queries(heads, size);
    queries.add(pare::simd, pare::view(q.data(), tokens, heads, size),
                pare::view(dq.data(), tokens, heads, size)); // the gradients there
    std::vector<pare::projection> logits = queries.projections();

    // Of the output matrix its inputs, and the gradients at what it gives.
    pare::least_squares contexts(columns);
    contexts.add(pare::simd, pare::view(context.data(), tokens, columns));
    pare::gram<double> metric(hidden);
    metric.add(pare::simd, pare::view(dy.data(), tokens, hidden));
    const std::vector<double> mean = metric.mean();
    const auto c = pare::view(mean.data(), hidden, hidden);
    const auto w = pare::view(output.data(), hidden, columns);
    pare::loss_curve order = pare::eliminate(pare::simd, contexts.covariance(), c, w, size);
    std::vector<pare::rank_curve> values = // by number of heads kept
        pare::rank_curves(pare::simd, contexts.covariance(), c, w, size, order);

    const auto n = pare::moments_of_lengths(std::vector{20, 40});
    const auto macs = [&](pare::head_shape s) { return pare::shape_macs(n, hidden, s); };
    const pare::head_shape whole{heads, size, size};
    pare::head_shapes attention = // numbers in multiples of 2
        pare::shapes_of_heads(order, logits, values, whole, {1, 2, 2});
    const double budget = 0.5 * macs(whole);
    pare::width_search search({attention.choices(macs)}, budget); // beside filters and other layers
    pare::width_choice best = search.best(budget);
    pare::head_shape shape = attention.shapes[static_cast<std::size_t>(best.kept[0])];
    std::vector<std::uint8_t> mask = order.mask(shape.heads);

    // The query matrix of the heads kept, and then of their numbers. Its bias goes the same way; the
    // key matrix by head_map::up, values by values[heads kept].heads.
    const std::vector<pare::index_t> rows = pare::kept_positions(mask, size);
    std::vector<float> of_heads(rows.size() * hidden);
    pare::keep_rows(pare::simd, pare::view(query.data(), columns, hidden), rows,
                    pare::view(of_heads.data(), shape.heads * size, hidden));
    std::vector<pare::projection> kept;
    for (std::size_t h = 0; h < heads; ++h)
        if (mask[h]) kept.push_back(logits[h]);
    std::vector<float> narrow(static_cast<std::size_t>(shape.heads * shape.queries * hidden));
    pare::narrow_rows(
        kept, pare::head_map::down, shape.queries,
        pare::view(of_heads.data(), shape.heads * size, hidden),
        pare::view(narrow.data(), shape.heads * shape.queries, hidden),
        pare::rank_factor(shape.queries, size)); // logits are divided by sqrt(queries)
    // [example]

    for (std::size_t i = 0; i < attention.shapes.size(); ++i)
        std::printf("%d heads of %d and %d numbers: loss %8.4f\n",
                    static_cast<int>(attention.shapes[i].heads),
                    static_cast<int>(attention.shapes[i].queries),
                    static_cast<int>(attention.shapes[i].values), attention.losses[i]);
    std::printf("%d heads of %d and %d numbers within half of the multiply-adds\n",
                static_cast<int>(shape.heads), static_cast<int>(shape.queries),
                static_cast<int>(shape.values));
    return shape.heads == 2 && shape.queries == 2 && shape.values == size ? 0 : 1;
}
