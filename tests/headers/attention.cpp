#include <pare/attention.hpp>
#ifdef POLICY_HEADER
#include POLICY_HEADER
#endif

void call(const float* x, const int* offsets, float* out, float* scores) {
    const pare::view<const float, 3> rows(x, 5, 2, 4);
    pare::attention_options<float> options;
    options.mask.causal = true;
    pare::attention(POLICY, rows, rows, rows, pare::view(offsets, 3), pare::view(out, 5, 2, 4),
                    pare::view(scores, 5), options);
}
