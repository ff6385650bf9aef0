// Fisher information of head and filter masks, from per-sample mask gradients.
//
// A mask m multiplies the outputs of a layer's units (heads before the output projection, filters
// before the second FFN matrix); m = 1 is the dense model. With g_s = dL_s/dm at m = 1, the loss
// that a mask adds is about 1/2 (1 - m)' I (1 - m), I = mean_s g_s g_s' (Kwon et al.,
// arXiv:2204.09656, section 3).
//
// L_s is the user's choice: the loss with labels (empirical Fisher); or, where there are none, the
// loss with labels drawn from the model, or a random projection of what its user consumes, logits or
// the embedding.
#pragma once

#include "core/checks.hpp"
#include "gram.hpp"
#include "policy/seq.hpp"

#include <type_traits>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

template <class Offset>
struct outside_of_rows {
    const Offset* offsets;
    index_t rows;
    constexpr bool operator()(index_t s) const {
        const index_t at = static_cast<index_t>(offsets[s]);
        return at < (s > 0 ? static_cast<index_t>(offsets[s - 1]) : 0) || at > rows;
    }
};

template <class Policy, class X, class Offsets, class Out>
void check_samples(const char* name, const Policy& policy, const X& x, const Offsets& offsets,
                   index_t unit, const Out& out) {
    using Offset = typename Offsets::value_type;
    static_assert(std::is_integral_v<Offset>, "pare: offsets are integers");
    if (unit < 1 || x.extent(1) % unit != 0)
        fail<shape_error>(name, x.extent(1), " columns are not units of ", unit);
    if (offsets.extent(0) != out.extent(0) + 1 || out.extent(1) != x.extent(1) / unit)
        fail<shape_error>(name, "out is ", out.extent(0), " x ", out.extent(1), ", ",
                          offsets.extent(0) - 1, " samples have ", x.extent(1) / unit, " units");
    if (!is_contiguous(offsets)) fail<shape_error>(name, "offsets have stride ", offsets.stride(0));
    if constexpr (Policy::on_host) {
        const outside_of_rows<Offset> wrong{offsets.data_handle(), x.extent(0)};
        if (const index_t s = policy.first(offsets.extent(0), wrong); s >= 0)
            fail<shape_error>(name, "offset ", s, " is ", offsets(s),
                              ", which does not ascend within ", x.extent(0), " rows");
    }
}

} // namespace detail

/// Per-sample mask gradients from two buffers that any model with a backward pass has:
///
///     out[s, u] = sum of a[t, c] * da[t, c] over the rows t of sample s, the columns c of unit u
///
/// activation  a [tokens x units * unit], what the mask multiplies: context of the heads, or FFN
///             activation
/// gradient    da, same shape: gradient of the summed loss at the product, for a mask of ones
/// offsets     samples + 1 integers: sample s has the rows offsets[s] <= t < offsets[s + 1]
/// unit        columns of one unit: head size, or 1 for filters
/// out         [samples x units], overwritten
///
/// One backward pass over a batch yields all samples' gradients, because samples do not interact.
/// Throws shape_error. NaN goes through to `out`; the accumulator below finds it.
/// Complexity: tokens * columns; reads both buffers once.
template <class Policy, class A, class G, class Offsets, class Out>
void mask_gradients(const Policy& policy, const A& activation, const G& gradient,
                    const Offsets& offsets, index_t unit, Out&& out) {
    const auto a = as_input<2>(policy, activation);
    const auto da = as_input<2>(policy, gradient);
    const auto o = as_input<1>(policy, offsets);
    const auto result = as_output<2>(policy, std::forward<Out>(out));
    static_assert(
        std::is_same_v<typename decltype(a)::value_type, typename decltype(da)::value_type>,
        "pare::mask_gradients: activation and gradient have one element type");
    detail::check_real<typename decltype(a)::value_type, typename decltype(result)::value_type>();
    if (a.extent(0) != da.extent(0) || a.extent(1) != da.extent(1))
        detail::fail<shape_error>("mask_gradients", "activation is ", a.extent(0), " x ",
                                  a.extent(1), ", gradient ", da.extent(0), " x ", da.extent(1));
    detail::check_samples("mask_gradients", policy, a, o, unit, result);
    policy.segment_sums(ops::product{}, o.data_handle(), unit, result, a, da);
}

/// out[s, c] = sum over the rows t of sample s of x[t, c]: of gradients, for centre_mask_gradients,
/// or, with one sample of all rows, of activations for their means. x [tokens x columns], out
/// [samples x columns].
template <class Policy, class X, class Offsets, class Out>
void sample_sums(const Policy& policy, const X& x, const Offsets& offsets, Out&& out) {
    const auto rows = as_input<2>(policy, x);
    const auto o = as_input<1>(policy, offsets);
    const auto result = as_output<2>(policy, std::forward<Out>(out));
    detail::check_real<typename decltype(result)::value_type>();
    detail::check_samples("sample_sums", policy, rows, o, 1, result);
    policy.segment_sums(ops::identity{}, o.data_handle(), 1, result, rows);
}

/// Turns gradients of a mask that replaces units by 0 into those of one that replaces them by their
/// mean:
///
///     g[s, u] -= sum over the columns c of unit u of mean[c] * sums[s, c]
///
/// Pruning costs that much and no more where a bias is refitted afterwards (reconstruct), because
/// the bias takes over the mean.
///
/// sums       [samples x columns], sample_sums of the gradient
/// mean       [columns], of the activation over all tokens
/// gradients  g [samples x units], units of `unit` columns, from mask_gradients
///
/// All are in the host's memory. Throws shape_error.
template <class Sums, class Mean, class G>
void centre_mask_gradients(const Sums& sums, const Mean& mean, index_t unit, G&& gradients) {
    const auto d = as_input<2>(sums);
    const auto m = as_input<1>(mean);
    const auto g = as_output<2>(std::forward<G>(gradients));
    using T = typename decltype(g)::value_type;
    detail::check_real<T>();
    if (d.extent(0) != g.extent(0) || m.extent(0) != d.extent(1) ||
        !detail::is_product(d.extent(1), g.extent(1), unit))
        detail::fail<shape_error>("centre_mask_gradients", "sums are ", d.extent(0), " x ",
                                  d.extent(1), ", means ", m.extent(0), ", gradients ", g.extent(0),
                                  " x ", g.extent(1), " of units of ", unit);
    for (index_t s = 0; s < g.extent(0); ++s)
        for (index_t u = 0; u < g.extent(1); ++u) {
            double effect = 0;
            for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                effect += detail::to_double(m(c)) * detail::to_double(d(s, c));
            g(s, u) = detail::from_double<T>(detail::to_double(g(s, u)) - effect);
        }
}

/// How much of the Fisher matrix is accumulated.
enum class fisher_kind {
    diagonal, ///< I_jj only: O(units) memory, one pass over the gradients
    block ///< all of I for the units given: O(units^2) memory; one object a layer and kind of unit
};

/// Accumulates the Fisher information of `units` units. Sums are kept in Acc (double), where `gram`
/// keeps them; of a block as it makes them, of a diagonal over parts of a few hundred samples in the
/// gradients' own type.
template <class Acc = double>
class fisher {
  public:
    fisher() = default;
    /// Throws shape_error for a negative number of units, or one that no memory has room for.
    explicit fisher(index_t units, fisher_kind kind = fisher_kind::diagonal) : kind_(kind) {
        if (units < 0) detail::fail<shape_error>("fisher", units, " units");
        detail::count_of<double>("fisher", units, kind == fisher_kind::block ? units : 1);
        if (kind == fisher_kind::block) block_ = gram<Acc>(units);
        diagonal_ = detail::kept_sums<double>(units);
    }

    /// Adds samples; gradients [samples x units], per-sample mask gradients, in the policy's memory.
    /// Throws shape_error, and value_error for NaN and infinity; then nothing is added.
    template <class Policy, class G>
    void add(const Policy& policy, const G& gradients) {
        detail::check_whole(policy);
        const auto g = as_input<2>(policy, gradients);
        if (g.extent(1) != units())
            detail::fail<shape_error>("fisher", "gradients of ", g.extent(1), " units, expected ",
                                      units());
        using T = typename decltype(g)::value_type;
        workspace scratch;
        const auto squares = policy.template temporary<double>(scratch, units());
        detail::sum_columns(policy, ops::square{}, squares.data(), g);
        const detail::bad_squares<T> bad{squares.data()};
        if (const index_t j = policy.first(units(), bad); j >= 0)
            detail::fail<value_error>("fisher", "the gradients of unit ", j, " in samples ",
                                      samples_, " to ", samples_ + g.extent(0) - 1,
                                      " have NaN, infinity or overflowing squares");
        diagonal_.prepare(policy);
        if (kind_ == fisher_kind::block) block_.add_finite(policy, g, g);
        diagonal_.add(policy, squares.data());
        samples_ += g.extent(0);
    }

    /// Adds what another accumulator over the same units has seen; exact up to rounding.
    void merge(const fisher& other) {
        if (other.units() != units() || other.kind_ != kind_)
            detail::fail<shape_error>("fisher", "merge: ", other.units(), " units into ", units(),
                                      ", or a diagonal with a block");
        if (kind_ == fisher_kind::block) block_.merge(other.block_);
        diagonal_.add(other.diagonal_);
        samples_ += other.samples_;
    }

    index_t units() const { return diagonal_.size(); }
    index_t samples() const { return samples_; }

    /// I_jj of every unit: mean squared gradients. All 0 before the first sample.
    std::vector<double> diagonal() const {
        std::vector<double> mean(diagonal_.here());
        if (samples_ > 0)
            for (double& x : mean) x /= static_cast<double>(samples_);
        return mean;
    }
    /// samples() * I, [units x units], both triangles valid. Throws shape_error for a diagonal
    /// accumulator.
    view<const Acc, 2> block_sums() {
        if (kind_ != fisher_kind::block)
            detail::fail<shape_error>("fisher", "a diagonal has no block");
        return block_.sums();
    }

  private:
    fisher_kind kind_ = fisher_kind::diagonal;
    detail::owned<index_t> samples_;
    detail::kept_sums<double> diagonal_;
    gram<Acc> block_;
};

} // namespace PARE_ISA
} // namespace pare
