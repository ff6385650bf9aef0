// Tokens that leave a layer, or fade out, and the way back of the gradients.
#include "network_state.hpp"

#include <pare/compact.hpp>
#include <pare/gather.hpp>
#include <pare/leaving.hpp>
#include <pare/policy/simd.hpp>
#include <pare/soft_mask.hpp>

#include <cmath>
#include <numeric>

namespace encoder {

std::int64_t choose_tokens(const token_pruning& p, std::size_t l, pare::view<const float, 1> scores,
                           const std::vector<std::int64_t>& offsets,
                           std::vector<std::int64_t>& kept,
                           std::vector<std::int64_t>& kept_offsets) {
    const pare::pins first{1};
    if (p.by == token_pruning::rule::threshold)
        return pare::keep_above(pare::simd, scores, p.alpha * p.numbers[l], offsets, kept,
                                kept_offsets, first);
    std::vector<std::int64_t> k;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        std::int64_t pins = 1; // the first one
        for (std::int64_t t = offsets[s] + 1; t < offsets[s + 1]; ++t)
            pins += scores(t) == pin_score;
        k.push_back(
            std::max(pins, tokens_to_keep(p.by, p.numbers[l], offsets[s + 1] - offsets[s])));
    }
    return pare::keep_top_k(pare::simd, scores, k, offsets, kept, kept_offsets, first);
}

void network::state::scale_scores(const std::vector<std::int64_t>& offsets,
                                  const std::vector<float>& carry,
                                  pare::view<float, 1> scores) const {
    if (pruning.scores == pare::score_scale::relative) return;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        const float left = carry.empty() ? static_cast<float>(offsets[s + 1] - offsets[s])
                                         : std::accumulate(carry.begin() + offsets[s],
                                                           carry.begin() + offsets[s + 1], 0.f);
        for (std::int64_t t = offsets[s]; t < offsets[s + 1]; ++t) scores(t) /= left;
    }
}

std::vector<std::int32_t> network::state::positions_of(const remaining& left,
                                                       const std::vector<std::int64_t>& kept) {
    std::vector<std::int32_t> positions;
    positions.reserve(kept.size());
    std::size_t s = 0;
    for (const std::int64_t t : kept) {
        while (left.offsets[s + 1] <= t) ++s;
        positions.push_back(left.positions.empty() ? static_cast<std::int32_t>(t - left.offsets[s])
                                                   : left.positions[static_cast<std::size_t>(t)]);
    }
    return positions;
}

void network::state::remaining::leave(const std::vector<float>& leaving) {
    std::int64_t row = 0, begin = 0; // of the rows that stay; a token's row before
    for (std::size_t t = 0; t + 1 < groups.size(); ++t) {
        const std::int64_t end = groups[t + 1];
        if (end > begin && leaving[static_cast<std::size_t>(begin)] == 0) ++row;
        groups[t + 1] = row;
        begin = end;
    }
    std::size_t to = 0;
    for (std::size_t t = 0; t < pins.size(); ++t)
        if (leaving[t] == 0) pins[to++] = pins[t];
    pins.resize(to);
}

float* network::state::attend_dropping(std::size_t l, const float* projected, float* residual,
                                       float* heads_out, record* r, remaining& left) {
    const Index tokens = left.offsets.back(), d = hidden(), columns = context_columns(l);
    std::vector<float> values(static_cast<std::size_t>(tokens));
    const pare::view<float, 1> scores(values.data(), tokens);
    attend(l, projected, left.offsets, left.positions, heads_out, scores);
    scale_scores(left.offsets, {}, scores);
    std::vector<std::int64_t> kept(values.size()), offsets(left.offsets.size());
    for (std::size_t t = 0; t < left.pins.size(); ++t)
        if (left.pins[t]) values[t] = pin_score;
    const Index stay = choose_tokens(pruning, l, scores, left.offsets, kept, offsets);
    if (stay == tokens) return heads_out;

    kept.resize(static_cast<std::size_t>(stay));
    const std::vector<float> leaving = leaving_tokens(tokens, kept);
    if (carries()) leave(l, left.pooled_by(), residual, heads_out, leaving, left.gone);
    left.leave(leaving);
    if (model.config.distance_buckets > 0) left.positions = positions_of(left, kept);
    left.offsets = std::move(offsets);
    pare::gather_rows(pare::simd, kept, pare::view<float, 2>(residual, tokens, d));
    const pare::view<float, 2> all(heads_out, tokens, columns);
    if (!r) {
        pare::gather_rows(pare::simd, kept, all);
        return heads_out;
    }
    float* const some = context.get<float>(stay * columns);
    pare::gather_rows(pare::simd, kept,
                      pare::from_to(all, pare::view<float, 2>(some, stay, columns)));
    r->kept = std::move(kept);
    return some;
}

void network::state::attend_fading(std::size_t l, const float* projected, double temperature,
                                   record& r, remaining& left) {
    const std::size_t tokens = r.carry.size();
    r.key_bias.resize(tokens);
    r.scores.resize(tokens);
    std::transform(r.carry.begin(), r.carry.end(), r.key_bias.begin(),
                   [](float c) { return std::log(std::max(c, least_carry)); });
    const pare::view<float, 1> scores(r.scores.data(), left.offsets.back());
    attend(l, projected, left.offsets, {}, r.context.data(), scores,
           {r.key_bias.data(), r.carry.data()});
    scale_scores(left.offsets, r.carry, scores);
    r.mask.assign(tokens, 1.f);
    r.leaving.assign(tokens, 0.f);
    if (heads(l) > 0) { // else nothing says who matters
        pare::soft_mask(pare::simd, r.scores, pruning.alpha * pruning.numbers[l], temperature,
                        r.mask);
        for (std::size_t s = 0; s + 1 < left.offsets.size(); ++s)
            r.mask[static_cast<std::size_t>(left.offsets[s])] = 1; // the first token stays
        for (std::size_t t = 0; t < left.pins.size(); ++t)
            if (left.pins[t]) r.mask[t] = 1;
    }
    for (std::size_t t = 0; t < tokens; ++t) {
        left.carry[t] = r.carry[t] * r.mask[t];
        r.leaving[t] = r.carry[t] - left.carry[t];
    }
    if (carries())
        leave(l, left.pooled_by(), r.input.get<float>(left.offsets.back() * hidden()),
              r.context.data(), r.leaving, left.gone);
}

matrix network::state::leaving_sums(std::size_t l, const std::vector<std::int64_t>& offsets,
                                    const float* x, const float* heads_out,
                                    const std::vector<float>& leaving) const {
    const Index tokens = offsets.back(), d = hidden(), columns = context_columns(l);
    matrix sums(static_cast<Index>(offsets.size()) - 1, d + columns + 1);
    pare::leaving_sums(pare::simd.with(pare::openmp{}), leaving, offsets, sums,
                       pare::view<const float, 2>(x, tokens, d),
                       pare::view<const float, 2>(heads_out, tokens, columns));
    return sums;
}

void network::state::leave(std::size_t l, const std::vector<std::int64_t>& offsets, const float* x,
                           const float* heads_out, const std::vector<float>& leaving,
                           matrix& gone) const {
    const matrix sums = leaving_sums(l, offsets, x, heads_out, leaving);
    if (model.exits.empty()) {
        gone += sums.leftCols(hidden());
        return;
    }
    if (!model.is_per_token()) {
        for_row_blocks(gone.rows(), [&](Index first, Index rows, Index) {
            packed[l].exit.add(row(sums, first), rows, row(gone, first));
        });
        return;
    }
    std::vector<Index> some; // others add nothing
    for (Index t = 0; t < sums.rows(); ++t)
        if (sums(t, sums.cols() - 1) != 0) some.push_back(t);
    const matrix left = sums(some, Eigen::all);
    matrix guesses(left.rows(), hidden());
    for_row_blocks(left.rows(), [&](Index first, Index rows, Index) {
        packed[l].exit.assign(row(left, first), rows, row(guesses, first));
    });
    for (std::size_t i = 0; i < some.size(); ++i)
        gone.row(some[i]) += guesses.row(static_cast<Index>(i));
}

matrix network::state::leave_backward(std::size_t l, const record& r, const float* input,
                                      const std::vector<float>& leaving, const matrix& gone,
                                      encoder::model& found) const {
    const Index d = hidden(), inputs = d + context_columns(l);
    matrix gradient = matrix::Zero(gone.rows(), inputs + 1);
    if (model.exits.empty()) {
        gradient.leftCols(d) = gone;
        return gradient;
    }
    for_row_blocks(gone.rows(), [&](Index first, Index rows, Index) {
        transposed[l].exit.assign(row(gone, first), rows, row(gradient, first));
    });
    const matrix sums = leaving_sums(l, r.pooled_by(), input, r.context.data(), leaving);
    dense stacked{matrix::Zero(d, inputs + 1), vector::Zero(d)}; // its own bias is not there
    add_weight_gradient(gone.rows(), gone.data(), d, sums.data(), stacked.weight, stacked.bias);
    found.exits[l].weight += stacked.weight.leftCols(inputs);
    found.exits[l].bias += stacked.weight.col(inputs);
    return gradient;
}

/// From the gradient at the kept rows, in `rows` and `context_gradient`, to that at all rows that
/// came into the layer.
void network::state::undrop(std::size_t l, const record& r, const float* input, descent& down,
                            float* rows, matrix& context_gradient, encoder::model& found) const {
    const Index tokens = r.offsets.back(), kept = static_cast<Index>(r.kept.size());
    const Index d = hidden(), columns = context_gradient.cols();
    matrix all = matrix::Zero(tokens, d), context_all = matrix::Zero(tokens, columns);
    if (down.gone.size() > 0) {
        const matrix gradient =
            leave_backward(l, r, input, leaving_tokens(tokens, r.kept), down.gone, found);
        const std::vector<std::int64_t>& pooled_by = r.pooled_by();
        for (std::size_t s = 0; s + 1 < pooled_by.size(); ++s) {
            const Index first = pooled_by[s], n = pooled_by[s + 1] - first;
            const auto g = gradient.row(static_cast<Index>(s));
            all.middleRows(first, n).rowwise() = g.head(d);
            context_all.middleRows(first, n).rowwise() = g.segment(d, columns);
        }
    }
    pare::restore(pare::simd, r.kept, pare::from_to(pare::view<const float, 2>(rows, kept, d), all),
                  pare::from_to(context_gradient, context_all));
    std::copy_n(all.data(), all.size(), rows);
    context_gradient = std::move(context_all);
    down.offsets = r.offsets;
}

/// From the gradient at scaled scores to that at relative ones, and its part in the carry's.
void network::state::scale_scores_backward(const record& r, std::vector<float>& gradient,
                                           std::vector<float>& carry) const {
    if (pruning.scores == pare::score_scale::relative) return;
    for (std::size_t s = 0; s + 1 < r.offsets.size(); ++s) {
        const auto first = static_cast<std::size_t>(r.offsets[s]),
                   end = static_cast<std::size_t>(r.offsets[s + 1]);
        float left = 0, change = 0; // score = relative / left
        for (std::size_t t = first; t < end; ++t) {
            left += r.carry[t];
            change += gradient[t] * r.scores[t];
        }
        for (std::size_t t = first; t < end; ++t) {
            gradient[t] /= left;
            carry[t] -= change / left;
        }
    }
}

/// From the gradient at what is left of soft tokens behind layer l to that at what came in and at
/// the scores, the threshold's on the way. What left of them went through the layer's exit: its
/// part goes to `rows` and `context_gradient`.
fading_gradients network::state::fade_backward(std::size_t l, const record& r, double temperature,
                                               const float* input, float* rows,
                                               matrix& context_gradient, descent& down,
                                               gradients& found) const {
    const Index d = hidden(), columns = context_columns(l);
    const std::size_t tokens = r.mask.size();
    vector at_leaving = vector::Zero(static_cast<Index>(tokens));
    if (down.gone.size() > 0) {
        const matrix gradient = leave_backward(l, r, input, r.leaving, down.gone, found.weights);
        pare::openmp{}.run(gradient.rows(), [&](Index s, Index) {
            const auto at = static_cast<std::size_t>(s);
            const std::vector<std::int64_t>& pooled_by = r.pooled_by();
            const Index first = pooled_by[at], n = pooled_by[at + 1] - first;
            const auto of_row = gradient.row(s).head(d);
            const auto of_context = gradient.row(s).segment(d, columns);
            const Eigen::Map<const vector> share(r.leaving.data() + first, n);
            at_leaving.segment(first, n) =
                Eigen::Map<const matrix>(input + first * d, n, d) * of_row.transpose() +
                r.context.middleRows(first, n) * of_context.transpose();
            at_leaving.segment(first, n).array() += gradient(s, d + columns);
            Eigen::Map<matrix>(rows + first * d, n, d).noalias() += share * of_row;
            context_gradient.middleRows(first, n).noalias() += share * of_context;
        });
    }
    fading_gradients g;
    g.scores.resize(tokens);
    for (std::size_t t = 0; t < tokens; ++t) { // left = came * mask, and what leaves is the rest
        const float leaving = at_leaving(static_cast<Index>(t)), left = down.carry[t] - leaving;
        g.scores[t] = columns > 0 ? left * r.carry[t] : 0.f;
        down.carry[t] = left * r.mask[t] + leaving;
    }
    for (std::size_t s = 0; s + 1 < r.offsets.size(); ++s) // the first token stays
        g.scores[static_cast<std::size_t>(r.offsets[s])] = 0;
    for (std::size_t t = 0; t < r.pins.size(); ++t)
        if (r.pins[t]) g.scores[t] = 0;
    found.thresholds[l] += pruning.alpha * pare::soft_mask_backward(pare::simd, r.mask, g.scores,
                                                                    temperature, g.scores);
    scale_scores_backward(r, g.scores, down.carry);
    return g;
}

/// What `weight` times the share of tokens left behind layer l grows by with the thresholds up to
/// there: by that of layer i, -carry (1 - mask i) / temperature.
void network::state::add_left_by_threshold(std::size_t l, const std::vector<float>& carry,
                                           double weight, double temperature,
                                           std::vector<double>& sums) const {
    for (std::size_t i = 0; i <= l; ++i) {
        const record& r = records[i];
        for (std::size_t s = 0; s + 1 < r.offsets.size(); ++s) {
            double sum = 0;
            for (auto t = static_cast<std::size_t>(r.offsets[s]) + 1;
                 t < static_cast<std::size_t>(r.offsets[s + 1]); ++t)
                sum += static_cast<double>(carry[t] * (1 - r.mask[t]));
            sums[i] -= weight * sum / temperature /
                       static_cast<double>(r.offsets[s + 1] - r.offsets[s]) /
                       static_cast<double>(r.offsets.size() - 1);
        }
    }
}

} // namespace encoder
