#include <pare/cost.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

double call() {
    const int lengths[] = {3, 5};
    const auto n = pare::moments_of_lengths(lengths, {true});
    return pare::head_macs(n, 16, 4) + pare::cost_table::linear(4, pare::filter_macs(n, 16))(2);
}
