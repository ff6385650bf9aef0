// A decoder's cache of keys and values that shrinks by what its keys receive: at the end of a prompt,
// for each group of heads apart, and then steps against what is left.
#include <pare/attention.hpp>
#include <pare/cache.hpp>
#include <pare/compact.hpp>
#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

int main() {
    // A prompt of 512 tokens; 6 query heads share 2 groups of keys and values, and the cache of each
    // group has room for 600. Queries look at every eighth key of the first group, at every 32nd of
    // the second one.
    const int heads = 6, groups = 2, size = 16, tokens = 512, room = 600;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> queries(tokens * heads * size, 1.0f), out(queries.size());
    std::vector<float> keys(groups * room * size), values(keys.size());
    for (float& x : values) x = normal(random);
    for (int g = 0; g < groups; ++g)
        for (int t = 0; t < tokens; t += g == 0 ? 8 : 32)
            std::fill_n(keys.data() + (g * room + t) * size, size, 1.0f);
    const std::vector<int> offsets = {0, tokens};

    // [example]
    // The prompt, and what the keys of each group receive from its last 32 queries (SnapKV).
    const pare::view<const float, 3> q(queries.data(), tokens, heads, size);
    const pare::view<const float, 3> k(keys.data(), {tokens, groups, size}, {size, room * size, 1});
    const pare::view<const float, 3> v(values.data(), {tokens, groups, size},
                                       {size, room * size, 1});
    pare::attention_options<float> options;
    options.mask.causal = true;
    options.queries = pare::counted_queries::last(32);
    std::vector<float> received(groups * tokens);
    const pare::view scores(received.data(), groups, tokens);
    pare::attention(pare::simd, q, k, v, offsets, pare::view(out.data(), tokens, heads, size),
                    scores, options);

    // A quarter of the keys stay: of each group at least 48, its first 4 and last 32 among them, and
    // of what is left the best of all groups together (Ada-KV).
    const pare::pins always{4, 32};
    std::vector<int> lengths(groups), kept(tokens);
    pare::share_budget(scores, groups * tokens / 4, 48, lengths, always);
    for (int g = 0; g < groups; ++g) {
        pare::keep_top_k(pare::simd, pare::view(received.data() + g * tokens, tokens), lengths[g],
                         kept, always);
        pare::gather_rows(pare::simd, pare::view(kept.data(), lengths[g]),
                          pare::view(keys.data() + g * room * size, tokens, size),
                          pare::view(values.data() + g * room * size, tokens, size)); // in place
    }

    // A step. Caches have lengths of their own, so a group is a sequence, of its heads' queries.
    const std::vector<float> next_key(groups * size, 0.5f), next_value = next_key;
    for (int g = 0; g < groups; ++g) {
        const int at = (g * room + lengths[g]++) * size;
        std::copy_n(next_key.data() + g * size, size, keys.data() + at);
        std::copy_n(next_value.data() + g * size, size, values.data() + at);
    }
    const std::vector<int> one_each = {0, 1, 2}, rooms = {0, room, 2 * room};
    const pare::view<const float, 3> step(queries.data(), groups, heads / groups, size);
    std::vector<float> context(heads * size);
    pare::attention(pare::simd, step,
                    pare::view<const float, 3>(keys.data(), groups * room, 1, size),
                    pare::view<const float, 3>(values.data(), groups * room, 1, size),
                    pare::query_key_offsets{one_each, rooms, lengths},
                    pare::view(context.data(), groups, heads / groups, size));
    // [example]

    // The keys that queries look at have stayed, and with them what a step gives.
    const std::vector<float> before(out.end() - heads * size, out.end());
    double distance = 0, norm = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
        distance += (before[i] - context[i]) * (before[i] - context[i]);
        norm += before[i] * before[i];
    }
    std::printf("%d and %d of %d keys stay; the next step differs by %.2f of the last one's norm\n",
                lengths[0] - 1, lengths[1] - 1, tokens, std::sqrt(distance / norm));
    const bool right = lengths[0] + lengths[1] == groups * tokens / 4 + 2 && lengths[0] > 64;
    return right && distance < 0.5 * norm ? 0 : 1;
}
