#include <pare/gather.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const int* index, float* hidden, float* all) {
    pare::gather_rows(POLICY, pare::view(index, 3), pare::view(hidden, 5, 4));
    pare::restore(POLICY, pare::view(index, 3),
                  pare::from_to(pare::view(hidden, 3, 4), pare::view(all, 5, 4)));
}
