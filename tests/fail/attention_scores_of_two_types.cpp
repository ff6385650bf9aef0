// expect: pare::attention_scores: queries and keys have one element type
#include <pare/pare.hpp>

void misuse(const float* q, const double* k, const float* lse, const std::vector<int>& offsets,
            std::vector<float>& scores) {
    pare::attention_scores(pare::seq, pare::view(q, 8, 2, 4), pare::view(k, 8, 2, 4),
                           pare::view(lse, 8, 2), offsets, scores);
}
