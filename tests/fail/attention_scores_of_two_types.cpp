// expect: pare: keys are of the queries' type, or queries and keys are float or half types
#include <pare/pare.hpp>

void misuse(const float* q, const double* k, const float* lse, const std::vector<int>& offsets,
            std::vector<float>& scores) {
    pare::attention_scores(pare::seq, pare::view(q, 8, 2, 4), pare::view(k, 8, 2, 4),
                           pare::view(lse, 8, 2), offsets, scores);
}
