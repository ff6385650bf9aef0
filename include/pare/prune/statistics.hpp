// Passes over calibration text: what its activations and gradients say of each sublayer.
#pragma once

#include "../fisher.hpp"
#include "../gram.hpp"
#include "../head_shapes.hpp"
#include "../least_squares.hpp"
#include "model.hpp"
#include "progress.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <optional>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What calibration text says of one sublayer; mergeable. prune/statistics_file.hpp writes and reads
/// it.
struct sublayer_statistics {
    least_squares inputs; ///< of the units' values, each token by its weight
    gram<double> metric;  ///< of the gradients at the sums; no rows without a backward pass
    least_squares sums;   ///< of the sums, as outputs of no inputs; no rows with a backward pass
    query_statistics queries; ///< of heads whose queries the backward pass has shown; else of none
    /// [batch][token] the squared length of the gradient at the sum; empty where another process
    /// has the batch.
    std::vector<std::vector<float>> squares;
    index_t batches = 0; ///< seen, of squares.size() that there are

    /// Throws shape_error for a negative number, or for more than any memory has room for.
    sublayer_statistics(index_t columns, index_t outputs)
        : inputs(columns, 0), metric(outputs), sums(0, outputs) {}

    /// Adds what another process has seen of the same sublayer. Throws shape_error, and value_error
    /// if both have the same batch; then nothing is added.
    void merge(const sublayer_statistics& other) {
        for (std::size_t b = 0; b < std::min(squares.size(), other.squares.size()); ++b)
            if (!squares[b].empty() && !other.squares[b].empty())
                detail::fail<value_error>("prune", "both statistics have seen batch ", b);
        inputs.check_merge(other.inputs);
        metric.check_merge(other.metric);
        sums.check_merge(other.sums);
        if (queries.heads() > 0 && other.queries.heads() > 0) queries.check_merge(other.queries);
        squares.resize(std::max(squares.size(), other.squares.size()));
        inputs.merge(other.inputs);
        metric.merge(other.metric);
        sums.merge(other.sums);
        if (queries.heads() == 0) // it has seen none
            queries = other.queries;
        else if (other.queries.heads() > 0)
            queries.merge(other.queries);
        for (std::size_t b = 0; b < other.squares.size(); ++b)
            if (squares[b].empty()) squares[b] = other.squares[b];
        batches += other.batches;
    }

    /// Gives the memory of the sums back, once there are curves: refit reads the squares alone.
    void drop_sums() {
        inputs = least_squares(0, 0);
        metric = gram<double>(0);
        sums = least_squares(0, 0);
        queries = query_statistics();
    }
};

namespace detail {

template <class T>
double mean_of(const std::vector<T>& numbers) {
    double sum = 0;
    for (const T x : numbers) sum += static_cast<double>(x);
    return sum / static_cast<double>(std::max<std::size_t>(1, numbers.size()));
}

/// What a token weighs: as its squared gradient over what is typical, and a little for all. Where
/// nothing is known to be typical, those with a gradient weigh as much as one that is; and where the
/// first ones hardly had any, none weighs more than float's numbers bear.
inline float token_weight(float square, double typical) {
    constexpr double for_all = 0.05, most = 1e6;
    double weight = square > 0 ? 1 : 0;
    if (typical > 0) weight = std::min(static_cast<double>(square) / typical, most);
    return static_cast<float>(for_all + (1 - for_all) * weight);
}

/// Copies numbers of the host's memory to the policy's.
template <class Policy, class T>
void copy_to_policy([[maybe_unused]] const Policy& policy, const std::vector<T>& from, T* to) {
    if constexpr (Policy::on_host)
        std::copy(from.begin(), from.end(), to);
    else
        policy.copy_from_host(from.data(), static_cast<index_t>(from.size()), to);
}

/// Adds rows x and y, or `none`, each by its weight, or 1 where there are no weights.
template <class Policy, class X, class Y, class Statistics>
void add_weighted(const Policy& policy, const X& x, const Y& y, const std::vector<float>& weights,
                  Statistics& statistics) {
    if (weights.empty()) return statistics.add(policy, x, y);
    if constexpr (Policy::on_host) {
        statistics.add(policy, x, y, weights);
    } else {
        const auto count = static_cast<index_t>(weights.size());
        const auto memory = policy.template temporary<float>(count);
        policy.copy_from_host(weights.data(), count, memory.data());
        statistics.add(policy, x, y, view<const float, 1>(memory.data(), count));
    }
}

template <class Policy, class Q, class G>
void add_queries(const Policy& policy, const Q& queries, const G& gradients,
                 const std::vector<float>& weights, query_statistics& statistics) {
    const auto q = as_input<3>(policy, queries);
    if (statistics.heads() == 0) statistics = query_statistics(q.extent(1), q.extent(2));
    add_weighted(policy, queries, gradients, weights, statistics);
}

template <class T>
view<T, 2> transposed(const view<T, 2>& x) {
    return {x.data_handle(), {x.extent(1), x.extent(0)}, {x.stride(1), x.stride(0)}};
}

} // namespace detail

namespace detail {

/// f(statistics of all sublayers, b) for the batches of a share. None if the callback ended it.
template <class Model, class F>
std::optional<std::vector<sublayer_statistics>>
for_batches(Model& model, const part& share, const prune_callback& callback, const F& f) {
    share.check();
    std::vector<sublayer_statistics> all;
    const index_t sublayers = model.sublayers(), batches = model.batches();
    for (index_t s = 0; s < sublayers; ++s) {
        const auto y = described(model, s);
        all.emplace_back(y.weight.extent(1), y.weight.extent(0));
        all.back().squares.resize(static_cast<std::size_t>(batches));
    }
    for (index_t b = share.ith; b < batches; b += share.nth) {
        if (!goes_on(callback, {prune_progress::statistics, b, batches})) return std::nullopt;
        f(all, b);
        for (sublayer_statistics& to : all) ++to.batches;
    }
    return all;
}

} // namespace detail

/// Passes over the calibration text that go forward alone, of a model that has no `backward` or
/// whose user has no time for it. The rest as for collect.
template <class Policy, class Model>
std::optional<std::vector<sublayer_statistics>>
collect_forward(const Policy& policy, Model& model, part share = {0, 1},
                const prune_callback& callback = {}) {
    using T = detail::number_of<Model>;
    return detail::for_batches(model, share, callback, [&](auto& all, index_t b) {
        auto x = model.start(b);
        for (index_t s = 0; s < model.sublayers(); ++s) {
            sublayer_statistics& to = all[static_cast<std::size_t>(s)];
            const view<const T, 2> units = model.units(s, x);
            detail::check_extents("units", s, units, model.rows(x).extent(0), to.inputs.inputs());
            to.inputs.add(policy, units);
            model.add(s, units, x);
            const view<const T, 2> sums = model.rows(x);
            detail::check_extents("sums", s, sums, units.extent(0), to.sums.outputs());
            const view<const T, 2> no_inputs(sums.data_handle(), {sums.extent(0), 0}, {0, 1});
            to.sums.add(policy, no_inputs, sums);
            detail::normalize(model, s, x);
        }
    });
}

/// Passes over the calibration text: a forward and a backward pass a batch, or, of a model without
/// `backward`, those of collect_forward. None if the callback ended it. Keep what it gives for other
/// budgets.
///
/// share  this process's part of the batches, every nth; merge what all parts find, in any order.
///        Tokens weigh by their squared gradients over those of batch 0, which every part runs
///
/// Throws shape_error for members that give other shapes than they should, and value_error for a
/// share that there is not and for numbers that are not finite. Memory: 8 bytes * (inputs^2 +
/// outputs^2) a sublayer, and 4 bytes * tokens; of activations, what the model holds of a batch.
template <class Policy, class Model>
std::optional<std::vector<sublayer_statistics>> collect(const Policy& policy, Model& model,
                                                        part share = {0, 1},
                                                        const prune_callback& callback = {}) {
    using T = detail::number_of<Model>;
    if constexpr (!detail::has<detail::can_run_backwards, Model>::value) {
        return collect_forward(policy, model, share, callback);
    } else {
        std::vector<double> typical(static_cast<std::size_t>(model.sublayers()), 0.0);
        const auto squares_of = [&](index_t s, const auto& at_sum, index_t b) {
            std::vector<double> squares = detail::column_sums(
                policy, ops::square{}, detail::transposed<const T>(as_input<2>(policy, at_sum)));
            double& of_first = typical[static_cast<std::size_t>(s)];
            // Of the first piece of batch 0 that has gradients: the same for all shares.
            if (b == 0 && !(of_first > 0)) of_first = detail::mean_of(squares);
            return squares;
        };
        share.check();
        if (share.ith > 0 && model.batches() > share.ith)
            model.backward(0, [&](index_t s, const auto&, const auto&, const auto& at_sum,
                                  const auto&...) { squares_of(s, at_sum, 0); });
        return detail::for_batches(model, share, callback, [&](auto& all, index_t b) {
            model.backward(b, [&](index_t s, const auto& units, const auto&, const auto& at_sum,
                                  const auto&... queries) {
                const auto at = static_cast<std::size_t>(s);
                sublayer_statistics& to = all[at];
                detail::check_extents("units", s, units, units.extent(0), to.inputs.inputs());
                detail::check_extents("gradients", s, at_sum, units.extent(0), to.sums.outputs());
                std::vector<float> weights;
                for (const double square : squares_of(s, at_sum, b)) {
                    to.squares[static_cast<std::size_t>(b)].push_back(static_cast<float>(square));
                    weights.push_back(
                        detail::token_weight(static_cast<float>(square), typical[at]));
                }
                to.metric.add(policy, at_sum);
                detail::add_weighted(policy, units, detail::none{}, weights, to.inputs);
                if constexpr (sizeof...(queries) > 0)
                    detail::add_queries(policy, queries..., weights, to.queries);
            });
        });
    }
}

/// How collect_fisher counts.
struct fisher_options {
    fisher_kind kind = fisher_kind::diagonal;
    /// A unit that goes leaves its mean behind, as it does where a bias is fitted anew
    /// (centre_mask_gradients).
    bool centred = false;
    prune_callback callback = {};
};

/// The paper's statistics instead: the Fisher information of the masks of units, of the model's
/// samples. Needs `backward` and `offsets`. Turn the diagonals into
/// curves by sorted_losses, and improve a plan's masks by pare::rearrange of the blocks.
///
/// Memory: what `fisher` says a sublayer and, centred, of all samples the sums of gradients
/// [samples x inputs] and [samples x units]. Throws as `collect` does.
template <class Policy, class Model>
std::optional<std::vector<fisher<>>> collect_fisher(const Policy& policy, Model& model,
                                                    const fisher_options& options = {}) {
    using C = compute_t<detail::number_of<Model>>;
    using rows = std::vector<C>;
    struct centring {
        rows gradients, sums;      // [samples x units], [samples x inputs]
        std::vector<double> means; // of the inputs
        index_t tokens = 0;
    };
    std::vector<fisher<>> all;
    std::vector<index_t> unit;
    for (index_t s = 0; s < model.sublayers(); ++s) {
        const auto y = detail::described(model, s);
        all.emplace_back(y.units(), options.kind);
        unit.push_back(y.unit);
    }
    std::vector<centring> kept(options.centred ? all.size() : 0);
    workspace scratch;
    // What f writes [samples x columns] in the policy's memory, behind what `to` has.
    const auto append = [&](index_t samples, index_t columns, rows& to, const auto& f) {
        const auto memory = policy.template temporary<C>(scratch, samples * columns);
        f(view<C, 2>(memory.data(), samples, columns));
        to.resize(to.size() + static_cast<std::size_t>(samples * columns));
        C* const end = to.data() + to.size() - samples * columns;
        if constexpr (Policy::on_host)
            std::copy_n(memory.data(), samples * columns, end);
        else
            policy.copy_to_host(memory.data(), samples * columns, end);
    };
    const index_t batches = model.batches();
    for (index_t b = 0; b < batches; ++b) {
        if (!detail::goes_on(options.callback, {prune_progress::statistics, b, batches}))
            return std::nullopt;
        const auto& offsets = model.offsets(b);
        const index_t samples = as_input<1>(policy, offsets).extent(0) - 1;
        model.backward(b, [&](index_t s, const auto& units, const auto& at_units, const auto&,
                              const auto&...) {
            const auto at = static_cast<std::size_t>(s);
            fisher<>& to = all[at];
            const auto add_gradients = [&](view<C, 2> gradients) {
                pare::mask_gradients(policy, units, at_units, offsets, unit[at], gradients);
            };
            if (!options.centred) {
                const auto memory = policy.template temporary<C>(scratch, samples * to.units());
                const view<C, 2> gradients(memory.data(), samples, to.units());
                add_gradients(gradients);
                to.add(policy, gradients);
                return;
            }
            centring& centre = kept[at];
            append(samples, to.units(), centre.gradients, add_gradients);
            append(samples, units.extent(1), centre.sums,
                   [&](view<C, 2> sums) { pare::sample_sums(policy, at_units, offsets, sums); });
            const std::vector<double> sums =
                detail::column_sums(policy, ops::identity{}, as_input<2>(policy, units));
            centre.means.resize(sums.size());
            for (std::size_t c = 0; c < sums.size(); ++c) centre.means[c] += sums[c];
            centre.tokens += units.extent(0);
        });
    }
    for (std::size_t s = 0; s < kept.size(); ++s) {
        centring& centre = kept[s];
        const auto columns = static_cast<index_t>(centre.means.size());
        const index_t units = all[s].units();
        const index_t samples =
            units > 0 ? static_cast<index_t>(centre.gradients.size()) / units : 0;
        for (double& mean : centre.means)
            mean /= static_cast<double>(std::max<index_t>(1, centre.tokens));
        const view<C, 2> gradients(centre.gradients.data(), samples, units);
        centre_mask_gradients(view<const C, 2>(centre.sums.data(), samples, columns), centre.means,
                              unit[s], gradients);
        const auto memory = policy.template temporary<C>(scratch, gradients.size());
        detail::copy_to_policy(policy, centre.gradients, memory.data());
        all[s].add(policy, view<const C, 2>(memory.data(), samples, units));
        centre = {};
    }
    return all;
}

} // namespace PARE_ISA
} // namespace pare
