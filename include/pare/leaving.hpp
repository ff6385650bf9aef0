// Tokens that leave and still count: a linear map for each layer guesses what a token dropped there
// would have become, for means over all tokens.
//
// Between keep_above and gather_rows, which overwrites the rows of tokens that leave:
//
//     pare::leaving_sums(policy, leaving, offsets, sums, hidden, context);
//     maps[l].add(policy, sums, gone);
//
// Behind the last layer, the mean of sequence s is (sum of the rows left + gone[s]) / all its tokens.
//
// A map is fitted on text that goes through the dense network: from what a token is in its layer (its
// row of the residual stream, the outputs of its heads) to what it is behind the last one.
//
//     statistics.add(policy, hidden_and_context, last_hidden); // batch after batch
//     maps[l].fit(policy, statistics);
#pragma once

#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/view.hpp"
#include "least_squares.hpp"
#include "policy/seq.hpp"
#include "tune.hpp"

#include <tuple>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What each sequence's leaving tokens are, added up, side by side, and how many they are:
///
///     sums[s, :] = sum over the tokens t of sequence s of leaving[t] * (x[t, :] of each x, 1)
///
/// leaving  [tokens], 1 for tokens that leave and 0 for those that stay; or the share of each that
///          leaves, with soft masks
/// offsets  [sequences + 1], from 0 to tokens, as before dropping
/// sums     [sequences x columns of all x + 1], overwritten
/// x        [tokens x columns], one or more of them
///
/// Sums are made in double. In the host's memory. Throws shape_error. Complexity: reads the rows of
/// tokens that leave once.
template <class Policy, class Leaving, class Offsets, class Sums, class... X>
void leaving_sums(const Policy& policy, const Leaving& leaving, const Offsets& offsets, Sums&& sums,
                  const X&... x) {
    detail::check_policy(policy);
    static_assert(Policy::on_host, "pare::leaving_sums: it works in the host's memory; take a "
                                   "policy of the host, such as pare::seq");
    static_assert(sizeof...(x) > 0, "pare::leaving_sums: pass the rows after the sums");
    constexpr const char* name = "leaving_sums";
    const auto share = as_input<1>(policy, leaving);
    const auto o = as_input<1>(policy, offsets);
    const auto to = as_output<2>(policy, std::forward<Sums>(sums));
    using T = typename decltype(to)::value_type;
    detail::check_real<T>();
    const index_t tokens = share.extent(0), sequences = o.extent(0) - 1;
    detail::check_offsets(name, policy, o, tokens);
    const auto rows = std::tuple(as_input<2>(policy, x)...);
    index_t columns = 0;
    const auto add_columns = [&](const auto& part) {
        if (part.extent(0) != tokens)
            detail::fail<shape_error>(name, part.extent(0), " rows, ", tokens, " tokens");
        columns += part.extent(1);
    };
    std::apply([&](const auto&... part) { (add_columns(part), ...); }, rows);
    if (to.extent(0) != sequences || to.extent(1) != columns + 1)
        detail::fail<shape_error>(name, "sums are ", to.extent(0), " x ", to.extent(1), ", ",
                                  sequences, " sequences have ", columns, " columns and a count");
    detail::run_allocating(policy.executor(), sequences, [&](index_t s, index_t) {
        std::vector<double, detail::allocator<double>> total(static_cast<std::size_t>(columns + 1));
        for (auto t = static_cast<index_t>(o(s)); t < static_cast<index_t>(o(s + 1)); ++t) {
            const auto weight = detail::to_double(share(t));
            if (weight == 0) continue;
            double* at = total.data();
            const auto add_row = [&](const auto& part) {
                for (index_t c = 0; c < part.extent(1); ++c)
                    at[c] += weight * detail::to_double(part(t, c));
                at += part.extent(1);
            };
            std::apply([&](const auto&... part) { (add_row(part), ...); }, rows);
            *at += weight;
        }
        for (index_t c = 0; c <= columns; ++c)
            to(s, c) = detail::from_double<T>(total[static_cast<std::size_t>(c)]);
    });
}

/// Guesses what a token that leaves would have become: y = W x + b. T is the type that W and b are
/// kept in.
template <class T = float>
class leaving_map {
  public:
    leaving_map() = default;
    /// Of tokens of `inputs` numbers that end as `outputs`. Until it is fitted, a token stays what it
    /// is in the first `outputs` of them. Throws shape_error for numbers that do not fit.
    leaving_map(index_t inputs, index_t outputs) : inputs_(inputs), outputs_(outputs) {
        detail::check_real<T>();
        if (outputs < 0 || inputs < outputs)
            detail::fail<shape_error>("leaving_map", inputs, " inputs and ", outputs, " outputs");
        detail::count_of<T>("leaving_map", inputs); // so that there is one more
        const index_t count = detail::count_of<T>("leaving_map", inputs + 1, outputs);
        numbers_.resize(static_cast<std::size_t>(count), T(0));
        for (index_t i = 0; i < outputs; ++i) weight()(i, i) = T(1);
    }

    /// Fits it by least squares, with a ridge towards what it was; see pare::reconstruct.
    /// Statistics of `inputs` and `outputs` over some dozen tokens an input. Throws as that does.
    template <class Policy>
    tune_result fit(const Policy& policy, const least_squares& statistics, double ridge = 1e-3) {
        return reconstruct(policy, statistics, weight(), bias(), ridge);
    }

    /// gone[s, :] += W x + n b, for x and n of sequence s from leaving_sums.
    ///
    /// sums  [sequences x inputs + 1]
    /// gone  [sequences x outputs], added to
    ///
    /// Sums are made in double. In the host's memory. Throws shape_error. Complexity: sequences *
    /// inputs * outputs.
    template <class Policy, class Sums, class Gone>
    void add(const Policy& policy, const Sums& sums, Gone&& gone) const {
        detail::check_policy(policy);
        static_assert(Policy::on_host, "pare::leaving_map: it works in the host's memory; take a "
                                       "policy of the host, such as pare::seq");
        const auto x = as_input<2>(policy, sums);
        const auto y = as_output<2>(policy, std::forward<Gone>(gone));
        using U = typename decltype(y)::value_type;
        detail::check_real<U>();
        if (x.extent(1) != inputs_ + 1 || y.extent(1) != outputs_ || x.extent(0) != y.extent(0))
            detail::fail<shape_error>("leaving_map", "sums are ", x.extent(0), " x ", x.extent(1),
                                      ", guesses ", y.extent(0), " x ", y.extent(1),
                                      "; the map has ", inputs_, " inputs and ", outputs_,
                                      " outputs");
        detail::run_allocating(policy.executor(), x.extent(0), [&](index_t s, index_t) {
            std::vector<double, detail::allocator<double>> total(
                static_cast<std::size_t>(outputs_));
            const T* row = numbers_.data();
            for (index_t i = 0; i <= inputs_; ++i, row += outputs_) {
                const auto value = detail::to_double(x(s, i));
                if (value == 0) continue; // of a sequence that no token leaves, all are
                for (index_t j = 0; j < outputs_; ++j)
                    total[static_cast<std::size_t>(j)] += value * detail::to_double(row[j]);
            }
            for (index_t j = 0; j < outputs_; ++j)
                y(s, j) = detail::from_double<U>(detail::to_double(y(s, j)) +
                                                 total[static_cast<std::size_t>(j)]);
        });
    }

    index_t inputs() const { return inputs_; }
    index_t outputs() const { return outputs_; }
    /// W [outputs x inputs] and b [outputs], to be stored, loaded or trained.
    view<T, 2> weight() { return {numbers_.data(), {outputs_, inputs_}, {1, outputs_}}; }
    view<const T, 2> weight() const {
        return {numbers_.data(), {outputs_, inputs_}, {1, outputs_}};
    }
    view<T, 1> bias() { return {numbers_.data() + inputs_ * outputs_, {outputs_}, {1}}; }
    view<const T, 1> bias() const {
        return {numbers_.data() + inputs_ * outputs_, {outputs_}, {1}};
    }

  private:
    detail::owned<index_t> inputs_, outputs_;
    std::vector<T> numbers_; // W transposed, and b as one more row
};

} // namespace PARE_ISA
} // namespace pare
