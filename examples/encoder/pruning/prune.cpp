#include "prune.hpp"

#include "encoder/report/progress.hpp"

#include <pare/cost.hpp>
#include <pare/eliminate.hpp>
#include <pare/fisher.hpp>
#include <pare/policy/simd.hpp>
#include <pare/rearrange.hpp>
#include <pare/search.hpp>
#include <pare/shrink.hpp>
#include <pare/tune.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>

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

using square = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

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

double mean_of(const std::vector<float>& numbers) {
    double sum = 0;
    for (const float x : numbers) sum += static_cast<double>(x);
    return sum / static_cast<double>(std::max<std::size_t>(1, numbers.size()));
}

/// Of the last `count` tokens: as much as their squared gradients weigh, and a little for all.
std::vector<float> weights_from(const std::vector<float>& squares, Eigen::Index count,
                                double typical) {
    constexpr float for_all = 0.05f;
    const auto scale = static_cast<float>(1 / std::max(typical, 1e-30));
    std::vector<float> weights(squares.end() - count, squares.end());
    for (float& w : weights) w = (1 - for_all) * scale * w + for_all;
    return weights;
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

std::vector<pare::loss_curve> criterion::losses() const {
    std::vector<pare::loss_curve> curves;
    for (std::size_t l = 0; l < heads_.diagonal.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter})
            curves.push_back(pare::sorted_losses(of(kind).diagonal[l]));
    return curves;
}

criterion::block_matrix criterion::block(std::size_t layer, unit_kind kind) const {
    const units& u = of(kind);
    if (!u.energies.empty()) return u.energies[layer];
    if (u.gradients.empty()) return {};
    pare::fisher<> fisher(u.gradients[layer].cols(), pare::fisher_kind::block);
    fisher.add(pare::simd, u.gradients[layer]);
    const auto sums = fisher.block_sums();
    return Eigen::Map<const block_matrix>(sums.data_handle(), sums.extent(0), sums.extent(1)) /
           static_cast<double>(std::max<pare::index_t>(1, fisher.samples()));
}

void criterion::from_gradients(engine& net, const calibration& data, bool bias_refitted,
                               std::uint64_t seed) {
    const model& m = net.model();
    const auto samples =
        static_cast<Eigen::Index>(gradient_sequences(data).size() / data.examples.texts_each());
    for (const layer& l : m.layers) {
        heads_.gradients.emplace_back(samples, l.heads(m.config.head_size));
        filters_.gradients.emplace_back(samples, l.filters());
    }
    // For the means: sums over each sample's gradients, and over all inputs, a sublayer.
    std::vector<matrix> gradient_sums;
    std::vector<Eigen::RowVectorXd> input_sums;
    std::int64_t tokens = 0;
    if (bias_refitted)
        for_sublayers(m, [&](std::size_t l, unit_kind kind) {
            const Eigen::Index columns = reader(m.layers[l], kind).weight.cols();
            gradient_sums.emplace_back(samples, columns);
            input_sums.push_back(Eigen::RowVectorXd::Zero(columns));
        });
    backward_over(
        net, data, seed, [&](const gradient_batch& b, const engine::unit_gradients& found) {
            const auto rows = [&](matrix& all) {
                return all.middleRows(b.first_sample, b.samples);
            };
            rows(of(found.kind).gradients[found.layer]) = net.mask_gradients(
                found.inputs, found.at_inputs, b.offsets, unit_of(m, found.kind));
            if (!bias_refitted) return;
            const std::size_t at = place(found.layer, found.kind);
            rows(gradient_sums[at]) = net.sample_sums(found.at_inputs, b.offsets);
            input_sums[at] +=
                net.sample_sums(found.inputs, {0, b.offsets.back()}).row(0).cast<double>();
            tokens = b.first_token + b.offsets.back();
        });
    if (bias_refitted)
        for_sublayers(m, [&](std::size_t l, unit_kind kind) {
            const Eigen::RowVectorXd mean =
                input_sums[place(l, kind)] / static_cast<double>(tokens);
            pare::centre_mask_gradients(gradient_sums[place(l, kind)], mean, unit_of(m, kind),
                                        of(kind).gradients[l]);
        });
    for (units* u : {&heads_, &filters_})
        for (const matrix& g : u->gradients) {
            pare::fisher<> fisher(g.cols());
            fisher.add(pare::simd, g);
            u->diagonal.push_back(fisher.diagonal());
        }
}

// Without gradients: unit u adds W_u x_u to the residual stream. With centred x, since a bias makes
// up for the mean, the energy lost by pruning a set of units is the sum of cov(x)_ij (W'W)_ij over
// it, relative to the variance of the stream that the normalisation sees.
void criterion::from_outputs(engine& net, const calibration& data) {
    const model& m = net.model();
    std::vector<batch> batches = make_batches(data.all(), net.forward_tokens(), any_number);
    std::vector<rows> streams(batches.size());
    for (std::size_t b = 0; b < batches.size(); ++b) net.embed(batches[b], streams[b]);
    progress bar("unit energies", 2 * static_cast<std::int64_t>(m.layers.size() * batches.size()));
    rows inputs, sum;
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const dense& read = reader(m.layers[l], kind);
            pare::least_squares moments(read.weight.cols(), read.weight.rows());
            for (std::size_t b = 0; b < batches.size(); ++b) {
                advance(net, l, kind, batches[b], streams[b], inputs, sum);
                net.add(inputs, &sum, {}, moments);
                bar.advance();
            }
            block_matrix energy = moments.covariance();
            const block_matrix w = read.weight.cast<double>();
            energy.array() *= (w.transpose() * w).array();
            energy /= moments.variance_y();
            energy = sum_blocks(energy, kind == unit_kind::head ? m.config.head_size : 1);
            const Eigen::VectorXd diagonal = energy.diagonal().cwiseMax(0.0);
            of(kind).diagonal.emplace_back(diagonal.begin(), diagonal.end());
            of(kind).energies.push_back(std::move(energy));
        }
}

void criterion::from_weights(const model& m) {
    for (const layer& l : m.layers) {
        const Eigen::Index size = m.config.head_size;
        std::vector<double> heads, filters;
        for (Eigen::Index h = 0; h < l.heads(size); ++h) {
            double sum = l.attention_output.weight.middleCols(h * size, size).squaredNorm();
            for (const dense* d : {&l.query, &l.key, &l.value})
                sum += d->weight.middleRows(h * size, size).squaredNorm();
            heads.push_back(sum);
        }
        for (Eigen::Index f = 0; f < l.filters(); ++f)
            filters.push_back(l.intermediate.weight.row(f).squaredNorm() +
                              l.output.weight.col(f).squaredNorm());
        heads_.diagonal.push_back(std::move(heads));
        filters_.diagonal.push_back(std::move(filters));
    }
}

unit_costs unit_costs::multiply_adds(const config& shape, const std::vector<sequence>& sequences) {
    std::vector<std::size_t> lengths;
    for (const sequence& s : sequences) lengths.push_back(s.size());
    const pare::length_moments n = pare::moments_of_lengths(lengths);
    return {pare::head_macs(n, shape.hidden, shape.head_size), pare::filter_macs(n, shape.hidden)};
}

unit_costs unit_costs::parameters(const config& shape) {
    return {static_cast<double>(pare::head_parameters(shape.hidden, shape.head_size)),
            static_cast<double>(pare::filter_parameters(shape.hidden))};
}

pare::cost_table unit_costs::table(const model& m, std::size_t l, unit_kind kind) const {
    return kind == unit_kind::head
               ? pare::cost_table::linear(m.layers[l].heads(m.config.head_size), per_head)
               : pare::cost_table::linear(m.layers[l].filters(), per_filter);
}

double unit_costs::of(const model& m) const {
    double sum = 0;
    for (const layer& l : m.layers)
        sum += per_head * static_cast<double>(l.heads(m.config.head_size)) +
               per_filter * static_cast<double>(l.filters());
    return sum;
}

surgeon::surgeon(engine& net, const calibration& data, fisher_source source, std::uint64_t seed) {
    const model& m = net.model();
    std::vector<pare::least_squares> inputs;
    std::vector<pare::gram<double>> metrics;
    for_sublayers(m, [&](std::size_t l, unit_kind kind) {
        inputs.emplace_back(reader(m.layers[l], kind).weight.cols(), 0);
        metrics.emplace_back(m.config.hidden);
    });
    if (source == fisher_source::none) {
        std::vector<batch> batches = make_batches(data.all(), net.forward_tokens(), any_number);
        progress bar("unit inputs", static_cast<std::int64_t>(batches.size()));
        rows x, read, sum;
        for (const batch& b : batches) {
            net.embed(b, x);
            for_sublayers(m, [&](std::size_t l, unit_kind kind) {
                advance(net, l, kind, b, x, read, sum);
                net.add(read, nullptr, {}, inputs[place(l, kind)]);
            });
            bar.advance();
        }
    } else {
        std::vector<std::vector<float>> squares(inputs.size());
        std::vector<double> typical(inputs.size(), 0.0);
        backward_over(
            net, data, seed, [&](const gradient_batch&, const engine::unit_gradients& found) {
                const std::size_t at = place(found.layer, found.kind);
                const std::vector<float> of_batch = net.squared_lengths(found.at_outputs);
                squares[at].insert(squares[at].end(), of_batch.begin(), of_batch.end());
                if (!(typical[at] > 0)) typical[at] = mean_of(of_batch);
                net.add(found.at_outputs, metrics[at]);
                net.add(found.inputs, nullptr,
                        weights_from(squares[at], found.inputs.count, typical[at]), inputs[at]);
            });
        for (const std::vector<float>& all : squares)
            weights_.push_back(
                weights_from(all, static_cast<Eigen::Index>(all.size()), mean_of(all)));
    }
    // A sublayer a thread: units leave one by one, with little work for many threads in between. The
    // large ones begin first.
    const std::size_t layers = m.layers.size();
    losses_.resize(inputs.size());
    progress bar("elimination", static_cast<std::int64_t>(inputs.size()));
    std::mutex one_at_a_time;
    pare::default_executor().run(static_cast<pare::index_t>(inputs.size()), [&](pare::index_t task,
                                                                                pare::index_t) {
        const auto i = static_cast<std::size_t>(task);
        const unit_kind kind = i < layers ? unit_kind::filter : unit_kind::head;
        const std::size_t l = i % layers, at = place(l, kind);
        const pare::gram<double>& metric = metrics[at];
        const pare::view<const double, 2> sums = metric.lower();
        square mean; // the identity without gradients
        if (metric.rows() > 0)
            mean = Eigen::Map<const square>(sums.data_handle(), sums.extent(0), sums.extent(1)) /
                   static_cast<double>(metric.rows());
        losses_[at] = pare::eliminate(pare::simd.with(pare::serial()), inputs[at].covariance(),
                                      mean, reader(m.layers[l], kind).weight, unit_of(m, kind));
        const std::lock_guard<std::mutex> now(one_at_a_time);
        bar.advance();
    });
}

std::vector<pare::prunable> prunables(const model& m, const std::vector<pare::loss_curve>& losses,
                                      const sublayer_cost& cost) {
    const bool divisible = std::all_of(m.layers.begin(), m.layers.end(), [](const layer& l) {
        return l.filters() % filter_multiple == 0;
    });
    std::vector<pare::prunable> sublayers;
    for_sublayers(m, [&](std::size_t l, unit_kind kind) {
        const bool filters = kind == unit_kind::filter;
        sublayers.push_back({losses[place(l, kind)].loss, cost(l, kind),
                             filters && divisible ? filter_multiple : 1, 0});
    });
    return sublayers;
}

kept_units keep(const model& m, const std::vector<pare::loss_curve>& losses,
                const std::vector<pare::index_t>& widths) {
    kept_units kept;
    for_sublayers(m, [&](std::size_t l, unit_kind kind) {
        const std::size_t at = place(l, kind);
        (kind == unit_kind::head ? kept.heads : kept.filters)
            .push_back(losses[at].mask(widths[at]));
    });
    return kept;
}

found_units search(const model& m, const std::vector<pare::loss_curve>& losses,
                   const unit_costs& costs, double share) {
    const double budget = share * costs.of(m);
    const auto sublayers = prunables(
        m, losses, [&](std::size_t l, unit_kind kind) { return costs.table(m, l, kind); });
    const pare::width_search all(sublayers, budget);
    const pare::width_choice found = all.best(budget);
    if (found.cost == 0 && found.loss > 0) // units without which nothing is lost may all go
        throw std::invalid_argument("a budget of " + std::to_string(share) +
                                    " of heads and filters keeps nothing");
    return {keep(m, losses, found.kept), found.loss, all.bound(budget)};
}

std::int64_t rearrange(const criterion& c, kept_units& kept) {
    std::int64_t exchanges = 0;
    progress bar("rearrange", static_cast<std::int64_t>(kept.heads.size()));
    for (std::size_t l = 0; l < kept.heads.size(); ++l) {
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            auto& mask = (kind == unit_kind::head ? kept.heads : kept.filters)[l];
            exchanges += pare::rearrange(pare::simd, c.block(l, kind), mask).exchanges;
        }
        bar.advance();
    }
    return exchanges;
}

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
    const auto keep_columns = [](dense& d, const std::vector<pare::index_t>& columns) {
        matrix out(d.weight.rows(), static_cast<Eigen::Index>(columns.size()));
        pare::keep_columns(pare::seq, d.weight, columns, out);
        d.weight = std::move(out);
    };
    for (std::size_t l = 0; l < small.layers.size(); ++l) {
        layer& at = small.layers[l];
        const auto heads = pare::kept_positions(kept.heads[l], m.config.head_size);
        const auto filters = pare::kept_positions(kept.filters[l]);
        for (dense* d : {&at.query, &at.key, &at.value}) keep_rows(*d, heads);
        keep_columns(at.attention_output, heads);
        keep_rows(at.intermediate, filters);
        keep_columns(at.output, filters);
        if (small.exits.empty()) continue;
        std::vector<pare::index_t> seen(static_cast<std::size_t>(m.config.hidden));
        std::iota(seen.begin(), seen.end(), pare::index_t{0}); // a token's state, then its heads
        for (const pare::index_t h : heads) seen.push_back(m.config.hidden + h);
        keep_columns(small.exits[l], seen);
    }
    return small;
}

model tune(engine& dense_net, const kept_units& kept, const std::vector<sequence>& sequences,
           tuning how, double ridge, std::vector<std::string>& notes,
           const std::vector<std::vector<float>>& weights) {
    model small = shrink(dense_net.model(), kept);
    if (how == tuning::none) return small;
    const std::unique_ptr<engine> made = dense_net.make(std::move(small));
    engine& pruned = *made;
    const std::vector<batch> batches =
        make_batches(sequences, dense_net.forward_tokens(), any_number);
    std::vector<rows> dense_streams(batches.size()), streams(batches.size());
    for (std::size_t b = 0; b < batches.size(); ++b) {
        dense_net.embed(batches[b], dense_streams[b]);
        streams[b] = dense_streams[b];
    }
    const std::size_t layers = dense_net.model().layers.size();
    progress bar("tune", 2 * static_cast<std::int64_t>(layers * batches.size()));
    rows inputs, sum; // of one sublayer and one batch
    for (std::size_t l = 0; l < layers; ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const bool is_head = kind == unit_kind::head;
            dense refit = reader(pruned.model().layers[l], kind);
            pare::least_squares statistics(refit.weight.cols(), refit.weight.rows());
            std::size_t seen = 0; // tokens
            // Tokens without a weight, as those recut from labelled pairs are, count as one.
            const auto weights_of = [&](const batch& b) {
                std::vector<float> some(b.ids.size(), 1.f);
                for (std::size_t t = 0; !weights.empty() && t < some.size(); ++t)
                    if (seen + t < weights[place(l, kind)].size())
                        some[t] = weights[place(l, kind)][seen + t];
                seen += some.size();
                return some;
            };
            for (std::size_t b = 0; b < batches.size(); ++b) {
                advance(dense_net, l, kind, batches[b], dense_streams[b], inputs, sum);
                dense_net.subtract(streams[b], sum);
                pruned.units(l, kind, streams[b], batches[b], inputs);
                pruned.add(inputs, &sum, weights_of(batches[b]), statistics);
                bar.advance();
            }
            pare::tune_result result;
            if (how == tuning::reconstruct) {
                result = pare::reconstruct(pare::simd, statistics, refit.weight, refit.bias, ridge);
            } else {
                const Eigen::Index unit = is_head ? dense_net.model().config.head_size : 1;
                vector scales(refit.weight.cols() / unit);
                result = pare::scale(pare::simd, statistics, unit, refit.weight, refit.bias, scales,
                                     ridge);
            }
            if (!result)
                notes.push_back("layer " + std::to_string(l) + (is_head ? " heads" : " filters") +
                                " left untuned: " + result.failure);
            pruned.replace(l, kind, std::move(refit));
            for (std::size_t b = 0; b < batches.size(); ++b)
                advance(pruned, l, kind, batches[b], streams[b], inputs, sum);
        }
    return pruned.model();
}

model expand(const model& dense_model, const model& pruned, const kept_units& kept) {
    model wide = dense_model;
    for (std::size_t l = 0; l < wide.layers.size(); ++l)
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
    return wide;
}

} // namespace encoder
