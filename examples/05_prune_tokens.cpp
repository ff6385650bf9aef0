// Dropping tokens that get little attention, between a layer's attention and its FFN.
#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/distance_buckets.hpp>
#include <pare/policy/simd.hpp>

#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

int main() {
    // Two sequences of 40 and 24 tokens; queries, keys and values of 4 heads of 16, interleaved.
    const int heads = 4, size = 16, width = heads * size, tokens = 64;
    std::vector<int> offsets = {0, 40, 64}, ids(tokens);
    std::iota(ids.begin(), ids.end(), 0);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> qkv(tokens * 3 * width), hidden(tokens * width), context(tokens * width);
    for (float& x : qkv) x = normal(random);
    for (float& x : hidden) x = normal(random);
    const auto part = [&](int which) {
        return pare::view<const float, 3>(qkv.data() + which * width, {tokens, heads, size},
                                          {3 * width, size, 1});
    };

    // [example]
    std::vector<float> scores(tokens); // 1 = as much attention as the mean token gets
    pare::attention(pare::simd, part(0), part(1), part(2), offsets,
                    pare::view<float, 3>(context.data(), tokens, heads, size), scores);

    std::vector<int> kept(tokens); // positions, ascending; `offsets` become those of what is left
    kept.resize(pare::keep_above(pare::simd, scores, /*threshold=*/0.95, offsets, kept, offsets,
                                 pare::pins{1})); // the first token of a sequence always stays
    pare::gather_rows(pare::simd, kept, pare::view(hidden.data(), tokens, width),
                      pare::view(context.data(), tokens, width), ids); // in place
    // The attention output, the FFN and all later layers work on kept.size() rows.
    // [example]

    // A next layer that biases logits by relative position, of the tokens that are left.
    const int left = offsets[2];
    std::vector<float> relative_attention_bias(static_cast<std::size_t>(32 * heads));
    for (float& x : relative_attention_bias) x = normal(random);
    const std::vector<std::int32_t> positions(ids.begin(), ids.begin() + left);

    std::vector<float> table(heads * 257); // distances -128 .. 128; those beyond are as the last
    pare::expand_buckets(pare::view(relative_attention_bias.data(), 32, heads),
                         pare::view(table.data(), heads, 257));
    pare::attention_options<float> options;
    options.scale = 1; // T5's; MPNet has the usual one
    options.distance_bias = {table.data(), heads, 257};
    options.positions = pare::view(positions.data(), left); // of the tokens that are left

    const auto rows = [&](int which) {
        return pare::view<const float, 3>(qkv.data() + which * width, {left, heads, size},
                                          {3 * width, size, 1});
    };
    std::vector<float> biased(static_cast<std::size_t>(left * width));
    pare::attention(pare::simd, rows(0), rows(1), rows(2), offsets,
                    pare::view<float, 3>(biased.data(), left, heads, size), options);

    std::printf("%zu of %d tokens stay: %d and %d\n", kept.size(), tokens, offsets[1],
                offsets[2] - offsets[1]);
    return ids[0] == 0 && ids[static_cast<std::size_t>(offsets[1])] == 40 &&
                   kept.size() < static_cast<std::size_t>(tokens)
               ? 0
               : 1;
}
