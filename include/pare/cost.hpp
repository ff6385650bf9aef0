// What units cost: multiply-adds and parameters of heads and filters, and a table per sublayer.
#pragma once

#include "core/error.hpp"
#include "core/view.hpp"

#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// Mean and mean square of the lengths of the sequences that a model will see. Costs need no more
/// than that: products with weights grow with n, attention with n^2. One average length would
/// underrate attention, since mean(n^2) >= mean(n)^2.
struct length_moments {
    double mean = 0, mean_square = 0;
};

/// Moments of `lengths`, integers > 0. Throws value_error if there are none or one is not positive.
template <class Lengths>
length_moments moments_of_lengths(const Lengths& lengths) {
    const auto n = as_input<1>(lengths);
    if (n.extent(0) == 0) detail::fail<value_error>("moments_of_lengths", "no lengths");
    length_moments m;
    for (index_t i = 0; i < n.extent(0); ++i) {
        if (!(n(i) > 0))
            detail::fail<value_error>("moments_of_lengths", "length ", i, " is ", n(i));
        const double length = static_cast<double>(n(i));
        m.mean += length / static_cast<double>(n.extent(0));
        m.mean_square += length * length / static_cast<double>(n.extent(0));
    }
    return m;
}

/// Multiply-adds that one attention head costs per sequence: 4 n d d_h for its part of the query,
/// key, value and output projections, 2 n^2 d_h for QK' and PV. A head of a causal model does half
/// of the latter.
inline double head_macs(const length_moments& n, index_t hidden, index_t head_size) {
    const double d = static_cast<double>(hidden), dh = static_cast<double>(head_size);
    return 4 * n.mean * d * dh + 2 * n.mean_square * dh;
}

/// Multiply-adds that one FFN filter costs per sequence; `matrices` is 2, or 3 for a gated FFN,
/// where two input matrices share a filter.
inline double filter_macs(const length_moments& n, index_t hidden, index_t matrices = 2) {
    return static_cast<double>(matrices) * n.mean * static_cast<double>(hidden);
}

/// Weights of one head (four projections) and its query, key and value biases.
inline index_t head_parameters(index_t hidden, index_t head_size, bool biases = true) {
    return 4 * hidden * head_size + (biases ? 3 * head_size : 0);
}

/// Weights of one filter and its biases before the activation.
inline index_t filter_parameters(index_t hidden, index_t matrices = 2, bool biases = true) {
    return matrices * hidden + (biases ? matrices - 1 : 0);
}

/// The cost of one sublayer for every number of units kept, 0 included, in any one unit of measure
/// (MACs, parameters, seconds).
class cost_table {
  public:
    /// cost[k] = cost of k units kept, k = 0 .. units. Throws value_error if empty, negative or not
    /// finite.
    explicit cost_table(std::vector<double> cost) : cost_(std::move(cost)) {
        if (cost_.empty()) detail::fail<value_error>("cost_table", "no entries");
        for (std::size_t k = 0; k < cost_.size(); ++k)
            if (!detail::is_finite(cost_[k]) || cost_[k] < 0)
                detail::fail<value_error>("cost_table", "the cost of ", k, " units is ", cost_[k]);
    }
    /// k units cost k * each.
    static cost_table linear(index_t units, double each) {
        std::vector<double> cost(static_cast<std::size_t>(units) + 1);
        for (std::size_t k = 0; k < cost.size(); ++k) cost[k] = each * static_cast<double>(k);
        return cost_table(std::move(cost));
    }

    index_t units() const { return static_cast<index_t>(cost_.size()) - 1; }
    double operator()(index_t kept) const { return cost_[static_cast<std::size_t>(kept)]; }

  private:
    std::vector<double> cost_;
};

} // namespace PARE_ISA
} // namespace pare
