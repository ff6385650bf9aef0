#include <pare/leaving.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* leaving, const int* offsets, const float* x, float* sums, float* gone) {
    pare::leaving_sums(POLICY, pare::view(leaving, 5), pare::view(offsets, 3),
                       pare::view(sums, 2, 5), pare::view(x, 5, 4));
    pare::leaving_map<> map(4, 3);
    map.fit(POLICY, pare::least_squares(4, 3));
    map.add(POLICY, pare::view(sums, 2, 5), pare::view(gone, 2, 3));
}
