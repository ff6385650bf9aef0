#include <pare/search.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call() {
    const pare::prunable sublayer{{0, 1, 3}, pare::cost_table::linear(2, 5)};
    return pare::width_search({sublayer, sublayer}).best(10).loss;
}
