#include <pare/merge.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* keys, const int* offsets, const int* index, int* nearest, float* similarity,
          float* sizes, float* merged) {
    const pare::view x(keys, 5, 4);
    pare::nearest_rows(POLICY, x, pare::view(offsets, 3), pare::view(index, 2),
                       pare::view(nearest, 5), pare::view(similarity, 5));
    pare::merge_rows(POLICY, pare::view(index, 2), pare::view(nearest, 5), pare::view(sizes, 5),
                     pare::from_to(x, pare::view(merged, 2, 4)));
}
