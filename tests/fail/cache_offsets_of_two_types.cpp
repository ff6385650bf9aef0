// expect: pare: offsets of queries and keys, and lengths, have one element type
#include <pare/pare.hpp>

#include <cstdint>

void misuse(const float* q, const float* cache, float* out, const std::int32_t (&queries)[2],
            const std::int64_t (&keys)[2]) {
    const pare::view k(cache, 8, 2, 4);
    pare::attention(pare::seq, pare::view(q, 1, 2, 4), k, k, pare::query_key_offsets{queries, keys},
                    pare::view(out, 1, 2, 4));
}
