#include "network.hpp"

#include <pare/policy/simd.hpp>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace language {
namespace {

matrix normed(const matrix& x, const vector& gain, double epsilon) {
    matrix y(x.rows(), x.cols());
    for (index_t t = 0; t < x.rows(); ++t) {
        const double square =
            static_cast<double>(x.row(t).squaredNorm()) / static_cast<double>(x.cols());
        y.row(t) =
            x.row(t).cwiseProduct(gain) * static_cast<float>(1 / std::sqrt(square + epsilon));
    }
    return y;
}

/// Turns each two neighbouring columns of a head by an angle that grows with the token's place.
void rotate(const shape& c, index_t place, matrix& x) {
    const index_t size = c.head_size();
    for (index_t i = 0; i < size / 2; ++i) {
        const double share = 2.0 * static_cast<double>(i) / static_cast<double>(size);
        const double speed = std::pow(c.rotary_base, -share);
        for (index_t t = 0; t < x.rows(); ++t) {
            const double angle = static_cast<double>(place + t) * speed;
            const auto along = static_cast<float>(std::cos(angle)),
                       across = static_cast<float>(std::sin(angle));
            for (index_t j = 2 * i; j < x.cols(); j += size) {
                const float a = x(t, j), b = x(t, j + 1);
                x(t, j) = along * a - across * b;
                x(t, j + 1) = across * a + along * b;
            }
        }
    }
}

/// From [tokens x heads of all groups] to [groups x tokens x heads of a group], or back: a group is a
/// sequence, since its cache has a length of its own.
template <bool Back>
matrix by_groups(const matrix& x, index_t groups, index_t tokens) {
    const index_t width = x.size() / (groups * std::max<index_t>(tokens, 1));
    matrix y(Back ? tokens : groups * tokens, Back ? groups * width : width);
    for (index_t g = 0; g < groups; ++g)
        for (index_t t = 0; t < tokens; ++t)
            if constexpr (Back)
                y.row(t).segment(g * width, width) = x.row(g * tokens + t);
            else
                y.row(g * tokens + t) = x.row(t).segment(g * width, width);
    return y;
}

void check_ids(const model& m, const std::vector<std::int32_t>& ids) {
    for (const std::int32_t id : ids)
        if (id < 0 || id >= m.config.vocabulary)
            throw std::invalid_argument("token " + std::to_string(id) + " is none of " +
                                        std::to_string(m.config.vocabulary));
}

float silu(float x) {
    return x / (1 + std::exp(-x));
}

} // namespace

matrix forward(const model& m, const std::vector<std::int32_t>& ids, index_t place, cache& c,
               const scoring& scores, const observer& show) {
    const shape& of = m.config;
    const auto tokens = static_cast<index_t>(ids.size());
    check_ids(m, ids);
    if (tokens == 0) throw std::invalid_argument("a pass of no tokens");
    if (c.size() != m.layers.size())
        throw std::invalid_argument("a cache of " + std::to_string(c.size()) + " layers for " +
                                    std::to_string(m.layers.size()));
    matrix x(tokens, of.hidden);
    for (index_t t = 0; t < tokens; ++t) x.row(t) = m.words.row(ids[static_cast<std::size_t>(t)]);
    std::vector<std::int32_t> queries(static_cast<std::size_t>(of.groups + 1));
    for (std::size_t g = 0; g < queries.size(); ++g)
        queries[g] = static_cast<std::int32_t>(static_cast<index_t>(g) * tokens);
    pare::attention_options<float> options;
    options.mask.causal = true;
    options.queries = scores.queries;
    options.scores = scores.scale;
    options.reduction = scores.reduction;
    pare::workspace scratch;
    std::vector<float> received;
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        const layer& l = m.layers[i];
        layer_cache& keys = c[i];
        const matrix h = normed(x, l.before_attention, of.epsilon);
        matrix q = h * l.query.transpose(), k = h * l.key.transpose();
        rotate(of, place, q);
        rotate(of, place, k);
        keys.append(k, h * l.value.transpose(), place);
        const matrix grouped = by_groups<false>(q, of.groups, tokens);
        matrix context(grouped.rows(), grouped.cols());
        received.assign(scores.wanted ? static_cast<std::size_t>(of.groups * keys.room())
                                      : std::size_t{0},
                        0.0f);
        const index_t heads = of.heads_of_group(), size = of.head_size();
        pare::attention(pare::simd,
                        pare::view<const float, 3>(grouped.data(), of.groups * tokens, heads, size),
                        keys.keys(), keys.values(),
                        pare::query_key_offsets{queries, keys.rooms(), keys.lengths()},
                        pare::view<float, 3>(context.data(), of.groups * tokens, heads, size),
                        received, options, scratch);
        if (show)
            show(static_cast<index_t>(i), keys, h,
                 {received.data(), received.empty() ? 0 : of.groups, keys.room()});
        x.noalias() += by_groups<true>(context, of.groups, tokens) * l.projection.transpose();
        const matrix f = normed(x, l.before_filters, of.epsilon);
        const matrix active =
            (f * l.gate.transpose()).unaryExpr(&silu).cwiseProduct(f * l.up.transpose());
        x.noalias() += active * l.down.transpose();
    }
    return normed(x, m.last, of.epsilon);
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

std::int32_t likeliest(const model& m, const matrix& rows) {
    const vector logits = rows.row(rows.rows() - 1) * m.to_logits().transpose();
    index_t best = 0;
    logits.maxCoeff(&best);
    return static_cast<std::int32_t>(best);
}

} // namespace language
