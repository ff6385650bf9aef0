#include "prune.hpp"

#include "progress.hpp"

#include <pare/cost.hpp>
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
#include <numeric>
#include <random>
#include <stdexcept>

namespace encoder {
namespace {

constexpr std::int64_t backward_tokens =
    2048; // a batch; the backward pass keeps all layers' activations

std::int64_t count_tokens(const std::vector<sequence>& sequences) {
    std::int64_t n = 0;
    for (const sequence& s : sequences) n += static_cast<std::int64_t>(s.size());
    return n;
}

// Gradient of r . e, r standard normal, drawn by sample so that batches do not matter.
void draw_projection(std::uint64_t seed, std::int64_t sample, Eigen::Ref<Eigen::RowVectorXf> out) {
    std::seed_seq mixed{seed, static_cast<std::uint64_t>(sample)};
    std::mt19937_64 random(mixed);
    std::normal_distribution<float> normal;
    for (float& x : out) x = normal(random);
}

const dense& reader(const layer& l, unit_kind kind) {
    return kind == unit_kind::head ? l.attention_output : l.output;
}
dense& reader(layer& l, unit_kind kind) {
    return kind == unit_kind::head ? l.attention_output : l.output;
}

// Takes the residual stream x through one sublayer, and says what its matrix read and what it
// summed up to before the normalisation.
void advance(network& net, std::size_t l, unit_kind kind, const batch& b, matrix& x, matrix& inputs,
             matrix& sum) {
    if (kind == unit_kind::head) {
        net.attention(l, x, b, inputs);
        net.attention_residual(l, inputs, x, sum);
        net.attention_norm(l, sum, x);
    } else {
        net.activation(l, x, inputs);
        net.output_residual(l, inputs, x, sum);
        net.output_norm(l, sum, x);
    }
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

// `count` of n indices, in ascending order.
std::vector<std::size_t> choose(std::size_t n, std::size_t count, std::uint64_t seed) {
    std::vector<std::size_t> all(n), some;
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::mt19937_64 random(seed);
    std::sample(all.begin(), all.end(), std::back_inserter(some), count, random);
    return some;
}

// The texts of about `share` of the sequences, one after another, cut into pieces of 4 to
// max_tokens tokens between the special ones at the ends. Lengths are drawn with density 1 / n^2,
// so that each octave of lengths gets as many tokens.
std::vector<sequence> recut_text(const std::vector<sequence>& from, double share,
                                 std::size_t max_tokens, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> uniform;
    sequence text;
    for (const sequence& s : from)
        if (uniform(random) < share && s.size() > 2)
            text.insert(text.end(), s.begin() + 1, s.end() - 1);
    const double longest = std::max(static_cast<double>(max_tokens) - 2, 1.0);
    const double shortest = std::min(4.0, longest);
    std::vector<sequence> pieces;
    for (auto at = text.begin(); at != text.end();) {
        const double u = uniform(random);
        const double length = 1 / ((1 - u) / shortest + u / longest);
        const auto n = std::min<std::ptrdiff_t>(std::lround(length), text.end() - at);
        sequence piece{from.front().front()};
        piece.insert(piece.end(), at, at + n);
        piece.push_back(from.front().back());
        pieces.push_back(std::move(piece));
        at += n;
    }
    return pieces;
}

} // namespace

std::vector<sequence> calibration::all() const {
    std::vector<sequence> both = sequences;
    both.insert(both.end(), recut.begin(), recut.end());
    return both;
}

calibration read_calibration(const std::filesystem::path& file, bool labelled, std::size_t samples,
                             std::uint64_t seed, const tokenizer& words, std::size_t max_tokens) {
    calibration data;
    std::vector<std::string> texts;
    if (labelled) {
        const std::vector<scored_pair> pairs = read_pairs(file);
        const auto [least, most] = std::minmax_element(
            pairs.begin(), pairs.end(),
            [](const scored_pair& x, const scored_pair& y) { return x.score < y.score; });
        const double low = std::min(0.0, least->score), high = most->score;
        if (!(least->score < high)) throw file_error(file.string() + ": all scores are the same");
        for (const std::size_t i : choose(pairs.size(), samples, seed)) {
            texts.push_back(pairs[i].first);
            texts.push_back(pairs[i].second);
            data.labels.push_back((pairs[i].score - low) / (high - low));
        }
    } else {
        const std::vector<std::string> documents = read_documents(file);
        for (const std::size_t i : choose(documents.size(), samples, seed))
            texts.push_back(documents[i]);
    }
    data.sequences = tokenize(words, texts, max_tokens);
    data.recut = recut_text(data.sequences, 0.25, max_tokens, seed);
    return data;
}

criterion::criterion(network& net, const calibration& data, fisher_source source,
                     bool bias_refitted, std::uint64_t seed) {
    if (source == fisher_source::magnitude)
        from_weights(net.model());
    else if (source == fisher_source::none)
        from_outputs(net, data);
    else
        from_gradients(net, data, bias_refitted, seed);
}

pare::loss_curve criterion::losses(std::size_t layer, unit_kind kind) const {
    return pare::sorted_losses(of(kind).diagonal[layer]);
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

// A sample is a sequence, or a pair of sequences that share a label.
void criterion::from_gradients(network& net, const calibration& data, bool bias_refitted,
                               std::uint64_t seed) {
    const model& m = net.model();
    const std::int64_t per_sample = data.labels.empty() ? 1 : 2;
    const std::vector<sequence> sequences = data.labels.empty() ? data.all() : data.sequences;
    const auto samples = static_cast<Eigen::Index>(sequences.size()) / per_sample;
    for (const layer& l : m.layers) {
        heads_.gradients.emplace_back(samples, l.heads(m.config.head_size));
        filters_.gradients.emplace_back(samples, l.filters());
    }
    const auto unit = [&](unit_kind kind) {
        return kind == unit_kind::head ? m.config.head_size : Eigen::Index{1};
    };
    // For the means: sums over each sample's gradients, and over all activations, a sublayer.
    const auto sublayer = [](std::size_t l, unit_kind kind) {
        return 2 * l + (kind == unit_kind::head ? 0 : 1);
    };
    std::vector<matrix> gradient_sums;
    std::vector<Eigen::RowVectorXd> activation_sums;
    if (bias_refitted)
        for (const layer& l : m.layers)
            for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
                const Eigen::Index columns = reader(l, kind).weight.cols();
                gradient_sums.emplace_back(samples, columns);
                activation_sums.push_back(Eigen::RowVectorXd::Zero(columns));
            }
    progress bar("mask gradients", count_tokens(sequences));
    std::int64_t first = 0; // sample of the batch
    std::int64_t tokens = 0;
    for (std::size_t next = 0; next < sequences.size();) {
        batch b;
        while (next < sequences.size() && b.tokens() < backward_tokens)
            for (std::int64_t i = 0; i < per_sample; ++i) b.append(sequences[next++]);
        const Eigen::Index count = b.sequences() / per_sample;
        std::vector<std::int64_t> offsets;
        for (std::int64_t s = 0; s <= b.sequences(); s += per_sample)
            offsets.push_back(b.offsets[static_cast<std::size_t>(s)]);

        const auto loss = [&](const matrix& e, matrix& gradient) {
            if (per_sample == 1) {
                for (Eigen::Index s = 0; s < e.rows(); ++s)
                    draw_projection(seed, first + s, gradient.row(s));
                return;
            }
            for (Eigen::Index p = 0; p < count; ++p) { // (cos - label)^2 of embeddings of length 1
                const float error =
                    e.row(2 * p).dot(e.row(2 * p + 1)) -
                    static_cast<float>(data.labels[static_cast<std::size_t>(first + p)]);
                gradient.row(2 * p) = 2 * error * e.row(2 * p + 1);
                gradient.row(2 * p + 1) = 2 * error * e.row(2 * p);
            }
        };
        net.backward(b, loss,
                     [&](std::size_t l, unit_kind kind, const matrix& a, const matrix& da) {
                         const std::size_t at = sublayer(l, kind);
                         pare::mask_gradients(pare::simd, a, da, offsets, unit(kind),
                                              of(kind).gradients[l].middleRows(first, count));
                         if (!bias_refitted) return;
                         pare::sample_sums(pare::simd, da, offsets,
                                           gradient_sums[at].middleRows(first, count));
                         Eigen::RowVectorXd sum(a.cols());
                         pare::sample_sums(pare::simd, a, std::array{std::int64_t{0}, b.tokens()},
                                           pare::view(sum.data(), 1, a.cols()));
                         activation_sums[at] += sum;
                     });
        first += count;
        tokens += b.tokens();
        bar.advance(b.tokens());
    }
    if (bias_refitted)
        for (std::size_t l = 0; l < m.layers.size(); ++l)
            for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
                const std::size_t at = sublayer(l, kind);
                const Eigen::RowVectorXd mean = activation_sums[at] / static_cast<double>(tokens);
                pare::centre_mask_gradients(gradient_sums[at], mean, unit(kind),
                                            of(kind).gradients[l]);
            }
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
void criterion::from_outputs(network& net, const calibration& data) {
    const model& m = net.model();
    std::vector<batch> batches = make_batches(data.all(), forward_tokens, any_number);
    std::vector<matrix> streams(batches.size());
    for (std::size_t b = 0; b < batches.size(); ++b) net.embed(batches[b], streams[b]);
    progress bar("unit energies", 2 * static_cast<std::int64_t>(m.layers.size() * batches.size()));
    matrix inputs, sum;
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const dense& read = reader(m.layers[l], kind);
            pare::least_squares moments(read.weight.cols(), read.weight.rows());
            for (std::size_t b = 0; b < batches.size(); ++b) {
                matrix& x = streams[b];
                advance(net, l, kind, batches[b], x, inputs, sum);
                moments.add(pare::simd, inputs, sum);
                bar.advance();
            }
            const Eigen::VectorXd mean = moments.mean_x();
            block_matrix energy = moments.moment_xx();
            energy.triangularView<Eigen::StrictlyUpper>() = energy.transpose();
            energy.noalias() -= mean * mean.transpose();
            const block_matrix w = read.weight.cast<double>();
            energy.array() *= (w.transpose() * w).array();
            energy /= moments.mean_square_y() - moments.mean_y().squaredNorm();
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

macs::macs(const config& shape, const std::vector<sequence>& sequences) {
    std::vector<std::size_t> lengths;
    for (const sequence& s : sequences) lengths.push_back(s.size());
    const pare::length_moments n = pare::moments_of_lengths(lengths);
    per_head = pare::head_macs(n, shape.hidden, shape.head_size);
    per_filter = pare::filter_macs(n, shape.hidden);
}

double macs::of(const model& m) const {
    double sum = 0;
    for (const layer& l : m.layers)
        sum += per_head * static_cast<double>(l.heads(m.config.head_size)) +
               per_filter * static_cast<double>(l.filters());
    return sum;
}

kept_units search(const model& m, const criterion& c, const macs& costs, double share) {
    const bool divisible = std::all_of(m.layers.begin(), m.layers.end(), [](const layer& l) {
        return l.filters() % filter_multiple == 0;
    });
    const pare::index_t multiple = divisible ? filter_multiple : 1;
    std::vector<pare::loss_curve> curves; // heads of all layers, then filters
    std::vector<pare::prunable> sublayers;
    for (const unit_kind kind : {unit_kind::head, unit_kind::filter})
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            curves.push_back(c.losses(l, kind));
            const bool heads = kind == unit_kind::head;
            sublayers.push_back(
                {curves.back().loss,
                 pare::cost_table::linear(curves.back().units(),
                                          heads ? costs.per_head : costs.per_filter),
                 heads ? 1 : multiple, 0});
        }
    const double budget = share * costs.of(m);
    const pare::width_choice found = pare::width_search(sublayers, budget).best(budget);
    if (found.cost == 0)
        throw std::invalid_argument(
            "a budget of " + std::to_string(share) +
            " of the multiply-adds keeps nothing: the smallest that keeps one "
            "unit is " +
            std::to_string(
                std::min(costs.per_head, costs.per_filter * static_cast<double>(multiple)) /
                costs.of(m)));
    kept_units kept;
    for (std::size_t i = 0; i < curves.size(); ++i)
        (i < m.layers.size() ? kept.heads : kept.filters).push_back(curves[i].mask(found.kept[i]));
    return kept;
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

model tune(network& dense_net, const kept_units& kept, const std::vector<sequence>& sequences,
           tuning how, double ridge, std::vector<std::string>& notes) {
    model small = shrink(dense_net.model(), kept);
    if (how == tuning::none) return small;
    network pruned(std::move(small));
    const std::vector<batch> batches = make_batches(sequences, forward_tokens, any_number);
    std::vector<matrix> dense_streams(batches.size()), streams(batches.size());
    for (std::size_t b = 0; b < batches.size(); ++b) {
        dense_net.embed(batches[b], dense_streams[b]);
        streams[b] = dense_streams[b];
    }
    const std::size_t layers = dense_net.model().layers.size();
    progress bar("tune", 2 * static_cast<std::int64_t>(layers * batches.size()));
    matrix inputs, sum; // of one sublayer and one batch
    for (std::size_t l = 0; l < layers; ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const bool is_head = kind == unit_kind::head;
            const auto read_inputs = [&](network& net, const matrix& x, const batch& b) {
                is_head ? net.attention(l, x, b, inputs) : net.activation(l, x, inputs);
            };
            dense refit = reader(pruned.model().layers[l], kind);
            pare::least_squares statistics(refit.weight.cols(), refit.weight.rows());
            for (std::size_t b = 0; b < batches.size(); ++b) {
                advance(dense_net, l, kind, batches[b], dense_streams[b], inputs, sum);
                sum -= streams[b];
                read_inputs(pruned, streams[b], batches[b]);
                statistics.add(pare::simd, inputs, sum);
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
            is_head ? pruned.replace_attention_output(l, std::move(refit))
                    : pruned.replace_output(l, std::move(refit));
            for (std::size_t b = 0; b < batches.size(); ++b) {
                read_inputs(pruned, streams[b], batches[b]);
                is_head ? pruned.attention_output(l, inputs, streams[b])
                        : pruned.output(l, inputs, streams[b]);
            }
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
