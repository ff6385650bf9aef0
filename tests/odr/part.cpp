// Compiled once for each set of flags, with PART naming its function: what the headers hold that
// do not need Eigen, or with RUN_TIME what is used while a model runs.
#include <pare/attention.hpp>
#include <pare/attention_scores.hpp>
#include <pare/cache.hpp>
#include <pare/compact.hpp>
#include <pare/cost.hpp>
#include <pare/fisher.hpp>
#include <pare/gather.hpp>
#include <pare/importance.hpp>
#include <pare/loss_curve.hpp>
#include <pare/merge.hpp>
#include <pare/policy/simd.hpp>
#include <pare/rearrange.hpp>
#include <pare/search.hpp>
#include <pare/shrink.hpp>
#include <pare/soft_mask.hpp>

#include <numeric>
#include <vector>

namespace {

#ifndef RUN_TIME // what hands out vectors of the standard library
template <class Policy>
double calibrate(const Policy& policy, int samples, int units) {
    std::vector<float> gradients(static_cast<std::size_t>(samples * units));
    std::iota(gradients.begin(), gradients.end(), -100.0f);
    const pare::view<float, 2> rows(gradients.data(), samples, units);
    pare::fisher<> fisher(units, pare::fisher_kind::block), more = fisher;
    fisher.add(policy, rows);
    more.add(policy, rows);
    more.merge(fisher);
    const std::vector<double> diagonal = more.diagonal();
    const pare::loss_curve curve = pare::sorted_losses(diagonal);
    const pare::width_choice choice =
        pare::width_search({{curve.loss, pare::cost_table::linear(units, 1)}}).best(units / 2);
    auto keep = curve.mask(choice.kept.at(0));
    const double loss = pare::rearrange(policy, more.block_sums(), keep).loss_after;
    const std::vector<int> left = pare::kept_positions<int>(keep);
    std::vector<float> narrow(static_cast<std::size_t>(samples) * left.size());
    pare::keep_columns(policy, rows, left,
                       pare::view<float, 2>(narrow.data(), samples, left.size()));
    return std::accumulate(diagonal.begin(), diagonal.end(), loss) + narrow[0];
}
#endif

template <class Policy>
double run(const Policy& policy, int tokens, int width) {
    constexpr int most = 4096;
    float x[most], out[most], square[most], scores[most], mask[most];
    int index[most], offsets[] = {0, tokens};
    for (int i = 0; i < most; ++i) x[i] = static_cast<float>(i % 37) / 50;
    std::fill(square, square + most, 1 / static_cast<float>(tokens));
    const pare::view<float, 1> s(scores, tokens), m(mask, tokens);
    const pare::view<const float, 3> heads(x, tokens, 1, width);
    pare::workspace scratch;
    pare::attention(policy, heads, heads, heads, offsets,
                    pare::view<float, 3>(out, tokens, 1, width), s, {}, scratch);
    pare::attention_scores(policy, heads, heads, pare::view<const float, 2>(x, tokens, 1), offsets,
                           m, {}, scratch);
    const int one[] = {0, 1}; // a step against the same keys
    pare::attention(policy, pare::view<const float, 3>(x, 1, 1, width), heads, heads,
                    pare::query_key_offsets{one, offsets}, pare::view<float, 3>(out, 1, 1, width),
                    m, {}, scratch);
    pare::pool_scores(policy, m, offsets, 2, pare::pooling::max, s);
    pare::share_budget(pare::view<const float, 2>(scores, 1, tokens), 2, 1, pare::view(index, 1));
    index[0] = 0, index[1] = 2;
    pare::nearest_rows(policy, pare::view<const float, 2>(x, tokens, width), offsets,
                       pare::view(index, 2), pare::view(index + 2, tokens), s);
    std::fill(mask, mask + tokens, 1.0f);
    pare::merge_rows(policy, pare::view(index, 2), pare::view(index + 2, tokens), m,
                     pare::from_to(pare::view<const float, 2>(x, tokens, width),
                                   pare::view<float, 2>(square, 2, width)));
    std::fill(square, square + most, 1 / static_cast<float>(tokens));
    pare::score_accumulator sums;
    sums.add(m);
    pare::importance(policy, pare::view<const float, 3>(square, 1, tokens, tokens), m);
    sums.add(s);
    sums.add(m);
    pare::soft_mask(policy, s, 0.5, 10, m);
    double result = pare::soft_mask_backward(policy, m, s, 10, s);
    result += pare::mask_penalty(policy, m, offsets, 0.5, s);
    auto kept = pare::keep_above(policy, m, 0.4, offsets, index, offsets);
    sums.keep(pare::view(index, kept));
    pare::gather_rows(policy, pare::view(index, kept), pare::view<float, 2>(x, tokens, width));
    kept = pare::keep_top_k(policy, m, 3, index);
    pare::keep_rows(policy, pare::view<float, 2>(out, tokens, width), pare::view(index, kept),
                    pare::view<float, 2>(square, kept, width));
    return result + static_cast<double>(x[0] + out[0] + square[0] + scores[0]) + sums.sums()(0);
}

} // namespace

// Only plain types cross between parts: pare's own differ from one set of flags to the next.
double PART(int samples, int units) {
    double result = run(pare::simd, samples, units) + run(pare::seq, samples, units);
#ifndef RUN_TIME
    result += calibrate(pare::simd, samples, units) + calibrate(pare::seq, samples, units);
#endif
    return result;
}
