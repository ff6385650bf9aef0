#include "tokens.hpp"

#include "encoder/report/progress.hpp"

#include <pare/gather.hpp>
#include <pare/least_squares.hpp>
#include <pare/policy/simd.hpp>
#include <pare/tune.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace encoder {
namespace {

/// What is left of a batch, with its residual stream.
struct stream {
    batch tokens;
    matrix x, context;
    std::vector<float> scores;
};

/// Drops what does not stay in layer l, rows and ids alike; returns what stays.
std::vector<std::int64_t> drop(const token_pruning& p, std::size_t l, stream& s) {
    std::vector<std::int64_t> kept(s.scores.size());
    const pare::view<const float, 1> scores(s.scores.data(), s.tokens.tokens());
    kept.resize(static_cast<std::size_t>(
        choose_tokens(p, l, scores, s.tokens.offsets, kept, s.tokens.offsets)));
    pare::gather_rows(pare::simd, kept, s.tokens.ids, s.x, s.context);
    for (std::size_t i = 0; i < kept.size() && !s.tokens.pins.empty(); ++i)
        s.tokens.pins[i] = s.tokens.pins[static_cast<std::size_t>(kept[i])];
    if (!s.tokens.pins.empty()) s.tokens.pins.resize(kept.size());
    const auto rows = static_cast<Eigen::Index>(kept.size());
    s.tokens.ids.resize(kept.size());
    s.x.conservativeResize(rows, Eigen::NoChange);
    s.context.conservativeResize(rows, Eigen::NoChange);
    return kept;
}

/// The rest of layer l, behind its attention.
void finish(network& net, std::size_t l, const matrix& context, matrix& x) {
    matrix active;
    net.add_units(l, unit_kind::head, context, x, x);
    net.normalize(l, unit_kind::head, x, x);
    net.activation(l, x, active);
    net.add_units(l, unit_kind::filter, active, x, x);
    net.normalize(l, unit_kind::filter, x, x);
}

/// The largest threshold that drops at most `share` of the scores. Takes them in any order.
double quantile(std::vector<float>& scores, double share) {
    if (scores.empty()) return 0;
    const auto drop = static_cast<std::size_t>(share * static_cast<double>(scores.size()));
    const auto at = scores.begin() + static_cast<std::ptrdiff_t>(drop);
    std::nth_element(scores.begin(), at, scores.end());
    return static_cast<double>(*at);
}

} // namespace

layer_costs costs_of(const layer& y, const config& c) {
    const auto d = static_cast<double>(c.hidden),
               columns = static_cast<double>(y.value.weight.rows()),
               queries = static_cast<double>(y.query.weight.rows()),
               filters = static_cast<double>(y.filters());
    return {(2 * queries + columns) * d, queries + columns, (columns + 2 * filters) * d,
            d * (d + columns)};
}

double token_macs(const model& m, const std::vector<token_use>& use) {
    const auto times = [](double cost, std::int64_t n) { return cost * static_cast<double>(n); };
    double sum = 0;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const layer_costs c = costs_of(m.layers[l], m.config);
        sum += times(c.projections, use[l].attending) + times(c.attention, use[l].pairs) +
               times(c.rest, use[l].kept) + times(c.exit, use[l].guessed);
    }
    return sum;
}

double dense_token_macs(const model& m, const std::vector<sequence>& sequences) {
    token_use all;
    for (const sequence& s : sequences) all.attend(static_cast<std::int64_t>(s.size()));
    all.kept = all.attending;
    return token_macs(m, std::vector<token_use>(m.layers.size(), all));
}

token_pruning schedule(network& net, const std::vector<sequence>& text, token_pruning::rule by,
                       double most, std::vector<token_use>& use) {
    const model& m = net.model();
    const auto depth = static_cast<double>(m.layers.size());
    const auto dropped = [&](std::size_t l) {
        return std::min(0.99, most * static_cast<double>(l + 1) / depth);
    };
    const token_pruning before = net.tokens();
    token_pruning found = before;
    found.by = by;
    found.numbers.clear();
    use.assign(m.layers.size(), {});
    if (by != token_pruning::rule::threshold) {
        std::size_t longest = 0;
        for (const sequence& t : text) longest = std::max(longest, t.size());
        double left = static_cast<double>(longest);
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            left *= 1 - dropped(l);
            found.numbers.push_back(by == token_pruning::rule::count ? left : 1 - dropped(l));
        }
        net.set_token_pruning(found);
        matrix embeddings;
        for (const batch& b : make_batches(text, net.forward_tokens(), any_number))
            net.forward(b, embeddings, &use);
        net.set_token_pruning(before);
        return found;
    }

    std::vector<stream> streams;
    for (batch& b : make_batches(text, net.forward_tokens(), any_number)) {
        streams.push_back({std::move(b), {}, {}, {}});
        net.embed(streams.back().tokens, streams.back().x);
    }
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        std::vector<float> scores; // of all but first and pinned tokens
        for (stream& s : streams) {
            const auto& offsets = s.tokens.offsets;
            s.scores.resize(s.tokens.ids.size());
            net.attention(l, s.x, s.tokens, s.context,
                          pare::view<float, 1>(s.scores.data(), s.tokens.tokens()));
            for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
                use[l].attend(offsets[i + 1] - offsets[i]);
                std::copy_if(s.scores.begin() + offsets[i] + 1, s.scores.begin() + offsets[i + 1],
                             std::back_inserter(scores), [](float x) { return std::isfinite(x); });
            }
        }
        // A layer without heads has no scores and drops nothing.
        const bool heads = m.layers[l].heads > 0;
        found.numbers.push_back(heads ? quantile(scores, dropped(l)) : 0);
        for (stream& s : streams) {
            const std::int64_t came = s.tokens.tokens();
            drop(found, l, s);
            use[l].kept += s.tokens.tokens();
            if (!m.exits.empty() && s.tokens.tokens() < came)
                use[l].guessed +=
                    m.is_per_token() ? came - s.tokens.tokens() : s.tokens.sequences();
            finish(net, l, s.context, s.x);
        }
    }
    return found;
}

std::vector<dense> plain_exits(const model& m) {
    std::vector<dense> exits;
    for (const layer& y : m.layers)
        exits.push_back({matrix::Identity(m.config.hidden, m.config.hidden + y.value.weight.rows()),
                         vector::Zero(m.config.hidden)});
    return exits;
}

void fit_exits(network& net, const std::vector<sequence>& text) {
    const model& m = net.model();
    std::vector<dense> exits = plain_exits(m);
    std::vector<pare::least_squares> statistics;
    for (const dense& exit : exits) statistics.emplace_back(exit.weight.cols(), exit.weight.rows());
    const std::vector<batch> batches = make_batches(text, net.forward_tokens(), any_number);
    progress bar("exits", static_cast<std::int64_t>(batches.size()));
    for (const batch& b : batches) {
        std::vector<matrix> seen;
        matrix x, context;
        net.embed(b, x);
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            net.attention(l, x, b, context);
            seen.emplace_back(x.rows(), x.cols() + context.cols()) << x, context;
            finish(net, l, context, x);
        }
        for (std::size_t l = 0; l < m.layers.size(); ++l) statistics[l].add(pare::simd, seen[l], x);
        bar.advance();
    }
    constexpr double ridge = 1e-3;
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        pare::reconstruct(pare::simd, statistics[l], exits[l].weight, exits[l].bias, ridge);
    net.update([&](model& changed) { changed.exits = std::move(exits); });
}

void fail_as_too_small(double share, double least) {
    throw std::invalid_argument(
        fmt::format("a share of {} of the multiply-adds is below what the first layers take; the "
                    "smallest that is possible is {:.3f}",
                    share, std::ceil(1000 * least) / 1000));
}

token_pruning schedule_for(network& net, const std::vector<sequence>& text, token_pruning::rule by,
                           double share) {
    const double dense = dense_token_macs(net.model(), text), budget = share * dense;
    constexpr int steps = 7;
    progress bar("token schedule", steps + 1);
    std::vector<token_use> use;
    double low = 0, high = 0.99;
    token_pruning best = schedule(net, text, by, high, use);
    for (; token_macs(net.model(), use) > budget; best = schedule(net, text, by, high, use)) {
        if (high >= static_cast<double>(net.model().layers.size()))
            fail_as_too_small(share, token_macs(net.model(), use) / dense);
        low = high;
        high *= 2;
    }
    bar.advance();
    for (int i = 0; i < steps; ++i) {
        const double middle = (low + high) / 2;
        token_pruning p = schedule(net, text, by, middle, use);
        if (token_macs(net.model(), use) > budget) {
            low = middle;
        } else {
            high = middle;
            best = std::move(p);
        }
        bar.advance();
    }
    return best;
}

std::vector<std::size_t> layers_of_leaving(network& net, const sequence& text) {
    const model& m = net.model();
    std::vector<std::size_t> layers(text.size(), m.layers.size());
    if (net.tokens().numbers.empty()) return layers;
    std::vector<std::size_t> present(text.size());
    std::iota(present.begin(), present.end(), std::size_t{0});
    stream s;
    s.tokens.append(text);
    net.embed(s.tokens, s.x);
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        s.scores.resize(present.size());
        net.attention(l, s.x, s.tokens, s.context,
                      pare::view<float, 1>(s.scores.data(), s.tokens.tokens()));
        if (m.layers[l].heads > 0) { // else nothing says who matters
            for (const std::size_t t : present) layers[t] = l;
            std::vector<std::size_t> stay;
            for (const std::int64_t t : drop(net.tokens(), l, s))
                stay.push_back(present[static_cast<std::size_t>(t)]);
            for (const std::size_t t : stay) layers[t] = m.layers.size();
            present = std::move(stay);
        }
        finish(net, l, s.context, s.x);
    }
    return layers;
}

} // namespace encoder
