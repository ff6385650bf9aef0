#include <pare/compact.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* scores, const int* offsets, int* index, int* kept, float* hidden) {
    const auto count =
        pare::keep_above(POLICY, pare::view(scores, 5), 0.5, pare::view(offsets, 3),
                         pare::view(index, 5), pare::view(kept, 3), pare::pins{1, 1});
    pare::gather_rows(POLICY, pare::view(index, count), pare::view(hidden, 5, 4));
}
