// expect: pare: numbers of tokens to keep are integers
#include <pare/pare.hpp>

void misuse(const std::vector<float>& scores, const std::vector<int>& offsets,
            std::vector<int>& index, std::vector<int>& kept) {
    const std::vector<double> k(2, 1.5);
    pare::keep_top_k(pare::seq, scores, k, offsets, index, kept);
}
