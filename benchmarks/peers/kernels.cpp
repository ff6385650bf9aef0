// The components behind a C interface, for peers.py to time beside those of other libraries. All
// arrays are contiguous; a negative or zero result means what the function says.
#include <encoder/network/network.hpp>

#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/cost.hpp>
#include <pare/fisher.hpp>
#include <pare/importance.hpp>
#include <pare/loss_curve.hpp>
#include <pare/policy/simd.hpp>
#include <pare/rearrange.hpp>
#include <pare/ridge.hpp>
#include <pare/search.hpp>
#include <pare/soft_mask.hpp>

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

namespace {

using pare::index_t;
using pare::view;

pare::workspace scratch;

auto policy() {
    return pare::simd.with(pare::openmp{omp_get_max_threads()});
}

} // namespace

extern "C" {

void pare_threads(int count) {
    omp_set_num_threads(count);
}

/// scores [batch x n] of probabilities [batch x heads x n x n].
void pare_importance(const float* p, index_t batch, index_t heads, index_t n, float* scores) {
    pare::importance(policy(), view<const float, 4>(p, batch, heads, n, n),
                     view<const index_t, 1>(), view<float, 2>(scores, batch, n), {}, scratch);
}

/// Forward and backward; returns the threshold's gradient.
double pare_soft_mask(const float* scores, const float* gradient, index_t n, double threshold,
                      double temperature, float* mask, float* score_gradient) {
    const view<float, 1> m(mask, n);
    pare::soft_mask(policy(), view(scores, n), threshold, temperature, m);
    return pare::soft_mask_backward(policy(), m, view(gradient, n), temperature,
                                    view(score_gradient, n));
}

void pare_scale_rows(const float* mask, const float* x, index_t rows, index_t columns, float* y) {
    pare::scale_rows(policy(), view(mask, rows), view(x, rows, columns), view(y, rows, columns));
}
void pare_scale_rows_backward(const float* mask, const float* x, const float* gradient,
                              index_t rows, index_t columns, float* x_gradient,
                              float* mask_gradient) {
    pare::scale_rows_backward(policy(), view(mask, rows), view(x, rows, columns),
                              view(gradient, rows, columns), view(x_gradient, rows, columns),
                              view(mask_gradient, rows));
}

/// Moves the rows of x [tokens x columns] whose score is at least the threshold to `kept`; returns
/// how many.
index_t pare_compact(const float* scores, const float* x, index_t tokens, index_t columns,
                     double threshold, std::int32_t* index, float* kept) {
    const view<std::int32_t, 1> positions(index, tokens);
    const index_t left = pare::keep_above(policy(), view(scores, tokens), threshold, positions);
    pare::gather_rows(policy(), view<const std::int32_t, 1>(index, left),
                      pare::from_to(view(x, tokens, columns), view(kept, left, columns)));
    return left;
}

/// out [units]: mean squares of gradients [samples x units].
void pare_fisher_diagonal(const float* gradients, index_t samples, index_t units, double* out) {
    pare::fisher<> fisher(units);
    fisher.add(policy(), view(gradients, samples, units));
    const std::vector<double> diagonal = fisher.diagonal();
    std::copy(diagonal.begin(), diagonal.end(), out);
}

/// out [columns x columns] = x' x, in float.
void pare_gram(const float* x, index_t rows, index_t columns, float* out) {
    pare::gram<float> gram(columns);
    gram.add(policy(), view(x, rows, columns));
    const auto full = gram.sums();
    std::copy_n(full.data_handle(), columns * columns, out);
}

/// mask [units] is the start and the result; returns the loss after `sweeps` in the scale of the
/// mean over samples.
double pare_rearrange(const float* gradients, index_t samples, index_t units, std::uint8_t* mask,
                      index_t sweeps) {
    pare::fisher<float> fisher(units, pare::fisher_kind::block);
    fisher.add(policy(), view(gradients, samples, units));
    pare::rearrange_options options;
    options.max_sweeps = sweeps;
    const auto result = pare::rearrange(policy(), fisher.block_sums(), view(mask, units), options);
    return result.loss_after / static_cast<double>(std::max<index_t>(samples, 1));
}

/// Half of the sum of the scores of the units that go, the least within a budget: of heads [layers x
/// heads] and filters [layers x filters], these in multiples. `cost` is that of what is kept. Negative: nothing fits.
double pare_search(const double* head_scores, const double* filter_scores, index_t layers,
                   index_t heads, index_t filters, double head_cost, double filter_cost,
                   double budget, index_t multiple, double* cost) {
    std::vector<pare::loss_curve> curves;
    std::vector<pare::prunable> sublayers;
    for (index_t l = 0; l < layers; ++l)
        for (const bool of_heads : {true, false}) {
            const index_t units = of_heads ? heads : filters;
            const double* const first = (of_heads ? head_scores : filter_scores) + l * units;
            curves.push_back(pare::sorted_losses(std::vector<double>(first, first + units)));
            sublayers.push_back(
                {curves.back().loss,
                 pare::cost_table::linear(units, of_heads ? head_cost : filter_cost)});
            if (!of_heads) sublayers.back().multiple = multiple;
        }
    const pare::width_choice best = pare::width_search(sublayers).best(budget);
    *cost = best.cost;
    return best.feasible ? best.loss : -1;
}

/// Overwrites b [n x columns] with (g + ridge I)^-1 b; g [n x n] is lost. 0: not positive definite.
int pare_ridge_solve(double* g, index_t n, double ridge, double* b, index_t columns) {
    return pare::ridge_solve(policy(), view(g, n, n), ridge, view(b, n, columns)) ? 1 : 0;
}

/// q, k, v, out [heads x batch * n x size]; scores [batch * n], or null.
void pare_attention(const float* q, const float* k, const float* v, index_t batch, index_t heads,
                    index_t n, index_t size, float* out, float* scores) {
    const index_t tokens = batch * n;
    std::vector<std::int32_t> offsets;
    for (index_t s = 0; s <= batch; ++s) offsets.push_back(static_cast<std::int32_t>(s * n));
    const auto by_token = [&](auto* x) { // [tokens x heads x size]
        return view<std::remove_pointer_t<decltype(x)>, 3>(x, {tokens, heads, size},
                                                           {size, tokens * size, 1});
    };
    pare::attention(policy(), by_token(q), by_token(k), by_token(v), offsets, by_token(out),
                    view<float, 1>(scores, scores ? tokens : 0), {}, scratch);
}

/// The model in a folder, or null, with a sentence on standard error.
void* pare_encoder(const char* folder) {
    try {
        return new encoder::network(encoder::load_model(folder));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return nullptr;
    }
}
/// out [sequences x columns of the model] for packed sequences.
void pare_encode(void* network, const std::int32_t* ids, const std::int64_t* offsets,
                 index_t sequences, float* out) {
    encoder::batch b;
    b.ids.assign(ids, ids + offsets[sequences]);
    b.offsets.assign(offsets, offsets + sequences + 1);
    encoder::matrix found;
    static_cast<encoder::network*>(network)->forward(b, found);
    std::copy_n(found.data(), found.size(), out);
}
void pare_encoder_end(void* network) {
    delete static_cast<encoder::network*>(network);
}

} // extern "C"
