#include <pare/distance_buckets.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* of_buckets, float* table) {
    pare::expand_buckets(pare::view(of_buckets, 32, 2), pare::view(table, 2, 257));
}
