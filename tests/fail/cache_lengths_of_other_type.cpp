// expect: pare: offsets of queries and keys, and lengths, have one element type
#include <pare/pare.hpp>

void misuse(const float* q, const float* cache, float* out, const int (&offsets)[2],
            const pare::view<const pare::index_t, 1>& lengths) {
    const pare::view k(cache, 8, 2, 4);
    pare::attention(pare::seq, pare::view(q, 1, 2, 4), k, k,
                    pare::query_key_offsets{offsets, offsets, lengths}, pare::view(out, 1, 2, 4));
}
