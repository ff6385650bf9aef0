#include "prune.hpp"

#include "encoder/network/prunable.hpp"
#include "encoder/report/progress.hpp"

#include <pare/policy/simd.hpp>
#include <pare/prune/plan.hpp>
#include <pare/rearrange.hpp>
#include <pare/shrink.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <type_traits>
#include <utility>

namespace encoder {
namespace {

/// f(layer, kind), front to back: the order of whatever there is one a sublayer of.
template <class F>
void for_sublayers(const model& m, const F& f) {
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) f(l, kind);
}
std::size_t place(std::size_t l, unit_kind kind) {
    return 2 * l + (kind == unit_kind::head ? 0 : 1);
}

std::vector<pare::sublayer_statistics> collect(engine& net, const calibration& data,
                                               fisher_source source, std::uint64_t seed) {
    const bool forward = source == fisher_source::none;
    prune_stages line(forward ? "activations" : "gradients");
    auto found = net.make_pruner()->collect(
        forward ? forward_text(net, data.all())
                : gradient_text(net, data, gradient_source::outputs, seed),
        std::ref(line));
    net.end_backward();
    return found;
}

// Sums the columns and rows of a square matrix in blocks of `unit`.
criterion::block_matrix sum_blocks(const criterion::block_matrix& m, Eigen::Index unit) {
    if (unit == 1) return m;
    const Eigen::Index units = m.rows() / unit;
    criterion::block_matrix sums(units, units);
    for (Eigen::Index u = 0; u < units; ++u)
        for (Eigen::Index v = 0; v < units; ++v)
            sums(u, v) = m.block(u * unit, v * unit, unit, unit).sum();
    return sums;
}

} // namespace

criterion::criterion(engine& net, const calibration& data, fisher_source source, bool bias_refitted,
                     std::uint64_t seed) {
    if (source == fisher_source::magnitude)
        from_weights(net.model());
    else if (source == fisher_source::none)
        from_outputs(net, data);
    else
        from_gradients(net, data, bias_refitted, seed);
}

void criterion::from_gradients(engine& net, const calibration& data, bool bias_refitted,
                               std::uint64_t seed) {
    prune_stages line("gradients");
    fishers_ = net.make_pruner()->collect_fisher(
        gradient_text(net, data,
                      data.examples.targets.empty() ? gradient_source::outputs
                                                    : gradient_source::labels,
                      seed),
        {pare::fisher_kind::block, bias_refitted, std::ref(line)});
    net.end_backward();
    for (const pare::fisher<>& f : fishers_) importance_.push_back(f.diagonal());
}

std::vector<pare::loss_curve> criterion::losses() const {
    std::vector<pare::loss_curve> curves;
    for (const auto& of_units : importance_) curves.push_back(pare::sorted_losses(of_units));
    return curves;
}

criterion::block_matrix criterion::block(std::size_t sublayer) const {
    if (!energies_.empty()) return energies_[sublayer];
    if (fishers_.empty()) return {};
    pare::fisher<> fisher = fishers_[sublayer];
    const auto sums = fisher.block_sums();
    return Eigen::Map<const block_matrix>(sums.data_handle(), sums.extent(0), sums.extent(1)) /
           static_cast<double>(std::max<pare::index_t>(1, fisher.samples()));
}

// Without gradients: unit u adds W_u x_u to the residual stream. With centred x, since a bias makes
// up for the mean, the energy lost by pruning a set of units is the sum of cov(x)_ij (W'W)_ij over
// it, relative to the variance of the stream that the normalisation sees.
void criterion::from_outputs(engine& net, const calibration& data) {
    const model& m = net.model();
    const auto statistics = collect(net, data, fisher_source::none, 0);
    for_sublayers(m, [&](std::size_t l, unit_kind kind) {
        const layer& y = m.layers[l];
        const pare::sublayer_statistics& of = statistics[place(l, kind)];
        block_matrix energy = of.inputs.covariance();
        const block_matrix w = reader(y, kind).weight.cast<double>();
        energy.array() *= (w.transpose() * w).array();
        energy /= of.sums.variance_y();
        energy = sum_blocks(energy, unit_size(y, kind));
        const Eigen::VectorXd diagonal = energy.diagonal().cwiseMax(0.0);
        importance_.emplace_back(diagonal.begin(), diagonal.end());
        energies_.push_back(std::move(energy));
    });
}

void criterion::from_weights(const model& m) {
    for (const layer& l : m.layers) {
        const Eigen::Index q = l.queries(), v = l.values();
        std::vector<double> heads, filters;
        for (Eigen::Index h = 0; h < l.heads; ++h) {
            double sum = l.attention_output.weight.middleCols(h * v, v).squaredNorm();
            for (const auto& [d, rows] :
                 {std::pair{&l.query, q}, std::pair{&l.key, q}, std::pair{&l.value, v}})
                sum += d->weight.middleRows(h * rows, rows).squaredNorm();
            heads.push_back(sum);
        }
        for (Eigen::Index f = 0; f < l.filters(); ++f)
            filters.push_back(l.intermediate.weight.row(f).squaredNorm() +
                              l.output.weight.col(f).squaredNorm());
        importance_.push_back(std::move(heads));
        importance_.push_back(std::move(filters));
    }
}

surgeon::surgeon(engine& net, const calibration& data, fisher_source source, std::uint64_t seed) {
    weights_ = collect(net, data, source, seed);
    const pruning_text none;
    prunable<pare::vectorised<>, float> weights(pare::simd, net, none);
    const auto units = [&] {
        prune_stages line("elimination");
        return pare::elimination_curves(pare::simd, weights, weights_, std::ref(line)).value();
    };
    losses_ = units();
    if (source != fisher_source::none) {
        const std::vector<layer>& layers = net.model().layers;
        pare::index_t step =
            std::numeric_limits<pare::index_t>::max(); // searches ask for multiples
        for (const layer& y : layers)
            if (y.heads > 0) step = std::min(step, number_multiple(y.values()));
        prune_stages line("ranks");
        auto values =
            pare::value_curves(pare::simd, weights, weights_, losses_.units, step, std::ref(line))
                .value();
        for (std::size_t l = 0; l < layers.size(); ++l) {
            const std::size_t s = place(l, unit_kind::head);
            losses_.queries.push_back(weights_[s].queries.projections());
            losses_.values.push_back(std::move(values[s]));
        }
    }
    for (pare::sublayer_statistics& of : weights_) of.drop_sums();
    if (source == fisher_source::none) weights_.clear(); // tokens weigh the same
}

std::int64_t rearrange(const criterion& c, kept_units& kept) {
    std::int64_t exchanges = 0;
    progress bar("rearrange", static_cast<std::int64_t>(kept.heads.size()));
    for (std::size_t l = 0; l < kept.heads.size(); ++l) {
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            auto& mask = (kind == unit_kind::head ? kept.heads : kept.filters)[l];
            exchanges += pare::rearrange(pare::simd, c.block(place(l, kind)), mask).exchanges;
        }
        bar.advance();
    }
    return exchanges;
}

namespace {

/// Whether heads of layer l are made of fewer numbers.
bool are_narrower(const std::vector<kept_numbers>& numbers, std::size_t l) {
    return !numbers.empty() && !numbers[l].heads.empty();
}

/// What gives the kept heads' numbers, for fewer of them.
void narrow_rows(dense& d, const kept_numbers& kept, pare::head_map map, double factor = 1) {
    const auto rows = static_cast<Eigen::Index>(kept.heads.size()) * kept.rank;
    const dense before = std::exchange(d, {matrix(rows, d.weight.cols()), vector(rows)});
    pare::narrow_rows(kept.heads, map, kept.rank, before.weight, d.weight, factor);
    pare::narrow_rows(kept.heads, map, kept.rank,
                      pare::view(before.bias.data(), before.bias.size(), 1),
                      pare::view(d.bias.data(), rows, 1), factor);
}

/// What reads them behind its first columns.
void narrow_columns(matrix& w, Eigen::Index first, const kept_numbers& kept) {
    const auto behind = [&](auto* data, Eigen::Index columns) {
        using T = std::remove_pointer_t<decltype(data)>;
        return pare::view<T, 2>(data + first, {columns - first, w.rows()}, {1, columns});
    };
    const auto columns = first + static_cast<Eigen::Index>(kept.heads.size()) * kept.rank;
    matrix fewer(w.rows(), columns);
    fewer.leftCols(first) = w.leftCols(first);
    pare::narrow_rows(kept.heads, pare::head_map::up, kept.rank,
                      behind(static_cast<const float*>(w.data()), w.cols()),
                      behind(fewer.data(), columns));
    w = std::move(fewer);
}

} // namespace

model shrink(const model& m, const kept_units& kept) {
    model small = m;
    small.curve.clear(); // it was measured with all units
    // `rows` of a matrix and its bias that produce kept units, or `columns` that read them.
    const auto keep_rows = [](dense& d, const std::vector<pare::index_t>& rows) {
        const auto n = static_cast<Eigen::Index>(rows.size());
        dense out{matrix(n, d.weight.cols()), vector(n)};
        pare::keep_rows(pare::seq, d.weight, rows, out.weight);
        pare::keep_entries(pare::seq, d.bias, rows, out.bias);
        d = std::move(out);
    };
    const auto keep_columns = [](matrix& of, const std::vector<pare::index_t>& columns) {
        matrix out(of.rows(), static_cast<Eigen::Index>(columns.size()));
        pare::keep_columns(pare::seq, of, columns, out);
        of = std::move(out);
    };
    for (std::size_t l = 0; l < small.layers.size(); ++l) {
        layer& at = small.layers[l];
        const pare::index_t queries = at.queries();
        const auto heads = pare::kept_positions(kept.heads[l], unit_size(at, unit_kind::head));
        const auto filters = pare::kept_positions(kept.filters[l]);
        at.heads = std::count(kept.heads[l].begin(), kept.heads[l].end(), 1);
        for (dense* d : {&at.query, &at.key})
            keep_rows(*d, pare::kept_positions(kept.heads[l], std::max<pare::index_t>(1, queries)));
        keep_rows(at.value, heads);
        keep_columns(at.attention_output.weight, heads);
        if (m.config.distance_buckets > 0)
            keep_columns(at.distance_bias, pare::kept_positions(kept.heads[l]));
        keep_rows(at.intermediate, filters);
        keep_columns(at.output.weight, filters);
        if (!small.exits.empty()) {
            std::vector<pare::index_t> seen(static_cast<std::size_t>(m.config.hidden));
            std::iota(seen.begin(), seen.end(),
                      pare::index_t{0}); // a token's state, then its heads
            for (const pare::index_t h : heads) seen.push_back(m.config.hidden + h);
            keep_columns(small.exits[l].weight, seen);
        }
        if (are_narrower(kept.queries, l)) {
            const double factor = pare::rank_factor(kept.queries[l].rank, queries);
            narrow_rows(at.query, kept.queries[l], pare::head_map::down, factor);
            narrow_rows(at.key, kept.queries[l], pare::head_map::up, factor);
        }
        if (are_narrower(kept.values, l)) {
            narrow_rows(at.value, kept.values[l], pare::head_map::down);
            narrow_columns(at.attention_output.weight, 0, kept.values[l]);
            if (!small.exits.empty())
                narrow_columns(small.exits[l].weight, m.config.hidden, kept.values[l]);
        }
    }
    return small;
}

model tune(engine& dense_net, const kept_units& kept, const std::vector<sequence>& sequences,
           tuning how, double ridge, std::vector<std::string>& notes,
           const std::vector<pare::sublayer_statistics>& weights) {
    model small = shrink(dense_net.model(), kept);
    if (how == tuning::none) return small;
    const std::unique_ptr<engine> pruned = dense_net.make(std::move(small));
    pare::prune_plan plan;
    for_sublayers(dense_net.model(), [&](std::size_t l, unit_kind kind) {
        const bool heads = kind == unit_kind::head;
        plan.masks.push_back((heads ? kept.heads : kept.filters)[l]);
        plan.changed.push_back(heads &&
                               (are_narrower(kept.queries, l) || are_narrower(kept.values, l)));
    });
    prune_stages line("tune");
    const auto reports =
        dense_net.make_pruner()->refit(*pruned, forward_text(dense_net, sequences), plan, weights,
                                       {{ridge}, how == tuning::scale, std::ref(line)});
    for (std::size_t s = 0; s < reports.size(); ++s)
        if (!reports[s].fit)
            notes.push_back("layer " + std::to_string(s / 2) + (s % 2 ? " filters" : " heads") +
                            " left untuned: " + reports[s].fit.failure);
    return pruned->model();
}

namespace {

/// Heads' numbers as many as they were, of which only what fewer keep is left.
void project(dense& d, const std::vector<std::uint8_t>& mask, const kept_numbers& kept) {
    const std::vector<pare::index_t> heads = pare::kept_positions(mask);
    for (std::size_t i = 0; i < kept.heads.size(); ++i) {
        const pare::head_maps& of = kept.heads[i];
        const Eigen::MatrixXf p =
            (of.up.leftCols(kept.rank) * of.down.topRows(kept.rank)).cast<float>();
        const Eigen::Index size = p.rows();
        auto weight = d.weight.middleRows(heads[i] * size, size);
        auto bias = d.bias.segment(heads[i] * size, size);
        weight = (p * weight).eval();
        bias = (p * bias).eval();
    }
}

} // namespace

model expand(const model& dense_model, const model& pruned, const kept_units& kept) {
    model wide = dense_model;
    for (std::size_t l = 0; l < wide.layers.size(); ++l) {
        layer& y = wide.layers[l];
        const layer& small = pruned.layers[l];
        if (!kept.queries.empty()) project(y.query, kept.heads[l], kept.queries[l]);
        if (!kept.values.empty()) project(y.value, kept.heads[l], kept.values[l]);
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const bool is_head = kind == unit_kind::head;
            const auto units = pare::kept_positions((is_head ? kept.heads : kept.filters)[l]);
            const Eigen::Index size = unit_size(y, kind), fewer = unit_size(small, kind);
            const bool narrower = is_head && are_narrower(kept.values, l);
            dense& to = reader(y, kind);
            const dense& from = reader(small, kind);
            to.bias = from.bias;
            for (std::size_t i = 0; i < units.size(); ++i) {
                const auto read =
                    from.weight.middleCols(static_cast<Eigen::Index>(i) * fewer, fewer);
                auto reads = to.weight.middleCols(units[i] * size, size);
                if (narrower)
                    reads = read * kept.values[l].heads[i].down.topRows(fewer).cast<float>();
                else
                    reads = read;
            }
        }
    }
    return wide;
}

} // namespace encoder
