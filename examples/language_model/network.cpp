#include "network.hpp"

#include "layers.hpp"
#include "sublayers.hpp"

#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace language {
namespace {

/// From [tokens x heads of all groups] to [groups * tokens x heads of a group], text by text and in
/// it group by group, or back: a group of a text is a sequence, since its cache has a length of its
/// own.
template <bool Back>
matrix by_groups(const matrix& x, index_t groups, const std::vector<index_t>& offsets) {
    const index_t tokens = offsets.back(), width = x.size() / (groups * tokens);
    matrix y(Back ? tokens : groups * tokens, Back ? groups * width : width);
    for (std::size_t text = 0; text + 1 < offsets.size(); ++text) {
        const index_t first = offsets[text], n = offsets[text + 1] - first;
        for (index_t g = 0; g < groups; ++g)
            for (index_t t = 0; t < n; ++t) {
                const index_t row = first * groups + g * n + t;
                if constexpr (Back)
                    y.row(first + t).segment(g * width, width) = x.row(row);
                else
                    y.row(row) = x.row(first + t).segment(g * width, width);
            }
    }
    return y;
}

void check_ids(const model& m, const std::vector<std::int32_t>& ids) {
    for (const std::int32_t id : ids)
        if (id < 0 || id >= m.config.vocabulary)
            throw std::invalid_argument("token " + std::to_string(id) + " is none of " +
                                        std::to_string(m.config.vocabulary));
}

} // namespace

void attend(const shape& of, const matrix& queries, const std::vector<std::int32_t>& offsets,
            const layer_cache& c, const scoring& scores, matrix& context,
            std::vector<float>& received, pare::workspace& scratch) {
    pare::attention_options<float> options;
    options.mask.causal = true;
    if (scores) options.queries = *scores;
    options.scores = pare::score_scale::per_query; // groups whose lengths differ are compared
    const index_t heads = of.heads_of_group(), size = of.head_size;
    context.resize(queries.rows(), queries.cols());
    received.assign(scores ? static_cast<std::size_t>(c.sequences() * c.room()) : std::size_t{0},
                    0.0f);
    pare::attention(pare::simd,
                    pare::view<const float, 3>(queries.data(), queries.rows(), heads, size),
                    c.keys(), c.values(), pare::query_key_offsets{offsets, c.rooms(), c.lengths()},
                    pare::view<float, 3>(context.data(), queries.rows(), heads, size), received,
                    options, scratch);
}

matrix forward(const model& m, const token_batch& batch, cache& c, const scoring& scores,
               const observer& show) {
    const shape& of = m.config;
    const auto& offsets = batch.offsets;
    const index_t tokens = offsets.back(), texts = static_cast<index_t>(batch.places.size());
    check_ids(m, batch.ids);
    if (tokens == 0) throw std::invalid_argument("a pass of no tokens");
    if (c.size() != m.layers.size())
        throw std::invalid_argument("a cache of " + std::to_string(c.size()) + " layers for " +
                                    std::to_string(m.layers.size()));
    for (std::size_t i = 0; i < c.size(); ++i)
        if (const index_t groups = groups_of(m.layers[i], of); c[i].sequences() != texts * groups)
            throw std::invalid_argument("a cache of " + std::to_string(c[i].sequences()) +
                                        " sequences for " + std::to_string(texts) + " texts of " +
                                        std::to_string(groups) + " groups");
    matrix x(tokens, of.hidden);
    for (index_t t = 0; t < tokens; ++t)
        x.row(t) = m.words.row(batch.ids[static_cast<std::size_t>(t)]);
    std::vector<index_t> places;
    for (std::size_t text = 0; text < batch.places.size(); ++text)
        for (index_t t = offsets[text]; t < offsets[text + 1]; ++t)
            places.push_back(batch.places[text] + t - offsets[text]);
    const auto place = [&](index_t t) { return places[static_cast<std::size_t>(t)]; };
    pare::workspace scratch;
    matrix context;
    std::vector<float> received;
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        const layer& l = m.layers[i];
        const index_t groups = groups_of(l, of);
        std::vector<std::int32_t> queries = {0};
        for (std::size_t text = 0; text < batch.places.size(); ++text)
            for (index_t g = 0; g < groups; ++g)
                queries.push_back(
                    static_cast<std::int32_t>(queries.back() + offsets[text + 1] - offsets[text]));
        layer_cache& keys = c[i];
        const matrix h = norm(x, l.before_attention, of.epsilon).out();
        matrix q = norm(times(h, l.query), l.query_norm, of.epsilon).out(),
               k = norm(times(h, l.key), l.key_norm, of.epsilon).out();
        rotate(m, place, q);
        rotate(m, place, k);
        keys.append(k, times(h, l.value), offsets, batch.places);
        const matrix grouped = by_groups<false>(q, groups, offsets);
        attend(of, grouped, queries, keys, scores, context, received, scratch);
        if (show)
            show({static_cast<index_t>(i),
                  keys,
                  x,
                  h,
                  grouped,
                  context,
                  queries,
                  {received.data(), received.empty() ? 0 : keys.sequences(), keys.room()}});
        x += times(by_groups<true>(context, groups, offsets), l.projection);
        const matrix f = norm(x, l.before_filters, of.epsilon).out();
        x += times(times(f, l.gate).unaryExpr(&silu).cwiseProduct(times(f, l.up)), l.down);
    }
    return norm(x, m.last, of.epsilon).out();
}

std::vector<double> losses(const model& m, const matrix& rows,
                           const std::vector<std::int32_t>& next) {
    check_ids(m, next);
    const auto n = static_cast<index_t>(next.size());
    if (n > rows.rows())
        throw std::invalid_argument(std::to_string(n) + " next tokens behind " +
                                    std::to_string(rows.rows()) + " rows");
    constexpr index_t most = 64; // rows whose logits are made at a time: they are wide
    std::vector<double> found;
    for (index_t first = 0; first < n; first += most) {
        const index_t here = std::min(most, n - first);
        const matrix logits = rows.middleRows(first, here) * m.to_logits().transpose();
        for (index_t t = 0; t < here; ++t) {
            const auto row = logits.row(t);
            const float largest = row.maxCoeff();
            double sum = 0;
            for (index_t j = 0; j < row.cols(); ++j)
                sum += static_cast<double>(std::exp(row(j) - largest));
            const auto id = next[static_cast<std::size_t>(first + t)];
            found.push_back(std::log(sum) + static_cast<double>(largest - row(id)));
        }
    }
    return found;
}

std::vector<std::int32_t> likeliest(const model& m, const matrix& rows) {
    const matrix logits = rows * m.to_logits().transpose();
    std::vector<std::int32_t> found;
    for (index_t t = 0; t < logits.rows(); ++t) {
        index_t best = 0;
        logits.row(t).maxCoeff(&best);
        found.push_back(static_cast<std::int32_t>(best));
    }
    return found;
}

} // namespace language
