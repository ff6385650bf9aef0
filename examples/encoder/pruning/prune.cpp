#include "prune.hpp"

#include "encoder/network/prunable.hpp"
#include "encoder/report/progress.hpp"

#include <pare/policy/simd.hpp>
#include <pare/prune/plan.hpp>
#include <pare/rearrange.hpp>
#include <pare/shrink.hpp>

#include <algorithm>
#include <numeric>
#include <optional>
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
/// Inputs of one unit.
Eigen::Index unit_of(const model& m, unit_kind kind) {
    return kind == unit_kind::head ? m.config.head_size : 1;
}

/// Shows a stage of pare/prune.hpp as a line of progress.
class shown {
  public:
    explicit shown(const char* stage) : stage_(stage) {}
    bool operator()(const pare::prune_progress& at) {
        if (!bar_) bar_.emplace(stage_, at.all);
        bar_->advance(at.done - done_);
        done_ = at.done;
        return true;
    }

  private:
    const char* stage_;
    std::optional<progress> bar_;
    pare::index_t done_ = 0;
};

std::vector<pare::sublayer_statistics> collect(engine& net, const calibration& data,
                                               fisher_source source, std::uint64_t seed) {
    const bool forward = source == fisher_source::none;
    shown line(forward ? "activations" : "gradients");
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
    shown line("gradients");
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
        const pare::sublayer_statistics& of = statistics[place(l, kind)];
        block_matrix energy = of.inputs.covariance();
        const block_matrix w = reader(m.layers[l], kind).weight.cast<double>();
        energy.array() *= (w.transpose() * w).array();
        energy /= of.sums.variance_y();
        energy = sum_blocks(energy, unit_of(m, kind));
        const Eigen::VectorXd diagonal = energy.diagonal().cwiseMax(0.0);
        importance_.emplace_back(diagonal.begin(), diagonal.end());
        energies_.push_back(std::move(energy));
    });
}

void criterion::from_weights(const model& m) {
    for (const layer& l : m.layers) {
        const Eigen::Index size = m.config.head_size;
        std::vector<double> heads, filters;
        for (Eigen::Index h = 0; h < l.heads(size); ++h) {
            double sum = l.attention_output.weight.middleCols(h * size, size).squaredNorm();
            for (const auto& [d, rows] :
                 {std::pair{&l.query, l.queries(size)}, std::pair{&l.key, l.queries(size)},
                  std::pair{&l.value, size}})
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
    shown line("elimination");
    losses_ = pare::elimination_curves(pare::simd, weights, weights_, std::ref(line)).value();
    for (std::size_t l = 0; source != fisher_source::none && l < net.model().layers.size(); ++l)
        losses_.queries.push_back(weights_[place(l, unit_kind::head)].queries.projections());
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

/// Queries and keys of the heads kept, which had `size` numbers, made of fewer.
void narrow(layer& y, const kept_queries& kept, pare::index_t size) {
    if (kept.heads.empty()) return;
    const double factor = pare::rank_factor(kept.rank, size);
    for (const auto& [d, map] :
         {std::pair{&y.query, pare::head_map::down}, std::pair{&y.key, pare::head_map::up}}) {
        const auto rows = static_cast<Eigen::Index>(kept.heads.size()) * kept.rank;
        const dense before = std::exchange(*d, {matrix(rows, d->weight.cols()), vector(rows)});
        pare::narrow_rows(kept.heads, map, kept.rank, before.weight, d->weight, factor);
        pare::narrow_rows(kept.heads, map, kept.rank,
                          pare::view(before.bias.data(), before.bias.size(), 1),
                          pare::view(d->bias.data(), rows, 1), factor);
    }
}

} // namespace

model shrink(const model& m, const kept_units& kept) {
    model small = m;
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
        const pare::index_t queries = at.queries(m.config.head_size);
        const auto heads = pare::kept_positions(kept.heads[l], m.config.head_size);
        const auto filters = pare::kept_positions(kept.filters[l]);
        for (dense* d : {&at.query, &at.key})
            keep_rows(*d, pare::kept_positions(kept.heads[l], queries));
        if (!kept.queries.empty()) narrow(at, kept.queries[l], queries);
        keep_rows(at.value, heads);
        keep_columns(at.attention_output.weight, heads);
        if (m.config.distance_buckets > 0)
            keep_columns(at.distance_bias, pare::kept_positions(kept.heads[l]));
        keep_rows(at.intermediate, filters);
        keep_columns(at.output.weight, filters);
        if (small.exits.empty()) continue;
        std::vector<pare::index_t> seen(static_cast<std::size_t>(m.config.hidden));
        std::iota(seen.begin(), seen.end(), pare::index_t{0}); // a token's state, then its heads
        for (const pare::index_t h : heads) seen.push_back(m.config.hidden + h);
        keep_columns(small.exits[l].weight, seen);
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
        plan.changed.push_back(heads && !kept.queries.empty() && !kept.queries[l].heads.empty());
    });
    shown line("tune");
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

/// Queries as long as they were, of which only what narrower ones keep is left.
void project(layer& y, const std::vector<std::uint8_t>& mask, const kept_queries& kept,
             Eigen::Index size) {
    if (kept.heads.empty()) return;
    const std::vector<pare::index_t> heads = pare::kept_positions(mask);
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const pare::head_maps& of = kept.heads[i];
        const Eigen::MatrixXf p =
            (of.up.leftCols(kept.rank) * of.down.topRows(kept.rank)).cast<float>();
        auto weight = y.query.weight.middleRows(heads[i] * size, size);
        auto bias = y.query.bias.segment(heads[i] * size, size);
        weight = (p * weight).eval();
        bias = (p * bias).eval();
    }
}

} // namespace

model expand(const model& dense_model, const model& pruned, const kept_units& kept) {
    model wide = dense_model;
    for (std::size_t l = 0; l < wide.layers.size(); ++l) {
        if (!kept.queries.empty())
            project(wide.layers[l], kept.heads[l], kept.queries[l],
                    dense_model.layers[l].queries(dense_model.config.head_size));
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const bool is_head = kind == unit_kind::head;
            const auto positions = pare::kept_positions((is_head ? kept.heads : kept.filters)[l],
                                                        is_head ? dense_model.config.head_size : 1);
            dense& to = reader(wide.layers[l], kind);
            const dense& from = reader(pruned.layers[l], kind);
            for (std::size_t i = 0; i < positions.size(); ++i)
                to.weight.col(positions[i]) = from.weight.col(static_cast<Eigen::Index>(i));
            to.bias = from.bias;
        }
    }
    return wide;
}

} // namespace encoder
