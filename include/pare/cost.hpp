// What units cost: multiply-adds and parameters of heads and filters, under any mask, of grouped
// queries and gated FFNs, too; a table per sublayer, and a formula fitted to costs that were measured.
#pragma once

#include "core/attention.hpp"
#include "core/checks.hpp"
#include "core/error.hpp"
#include "core/ops.hpp"
#include "core/view.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What costs need of the sequences that a model will see, means over them: the length n, since
/// products with weights grow with it, and the pairs of a query and a key that it sees, n^2 without
/// a mask. One average length would underrate attention, since mean(n^2) >= mean(n)^2.
struct length_moments {
    double mean = 0, pairs = 0;
};

/// Moments of `lengths`, integers > 0, under a mask. Throws value_error if there are none, one is
/// not positive or the window is negative.
template <class Lengths>
length_moments moments_of_lengths(const Lengths& lengths, const attention_mask& mask = {}) {
    const auto n = as_input<1>(lengths);
    if (mask.window < 0)
        detail::fail<value_error>("moments_of_lengths", "the window is ", mask.window);
    if (n.extent(0) == 0) detail::fail<value_error>("moments_of_lengths", "no lengths");
    length_moments m;
    for (index_t i = 0; i < n.extent(0); ++i) {
        const double length = static_cast<double>(n(i));
        if (!detail::is_finite(length) || length <= 0)
            detail::fail<value_error>("moments_of_lengths", "length ", i, " is ", n(i));
        m.mean += length / static_cast<double>(n.extent(0));
        // A query sees its own key and, on one side, so many more.
        const double reach =
            mask.window > 0 ? std::min(length, static_cast<double>(mask.window)) : length;
        const double one_side = reach * length - reach * (reach - 1) / 2;
        m.pairs +=
            (mask.causal ? one_side : 2 * one_side - length) / static_cast<double>(n.extent(0));
    }
    return m;
}

/// Multiply-adds that one attention head costs per sequence: 4 n d d_h for its part of the query,
/// key, value and output projections, 2 d_h for each pair of a query and a key, for QK' and PV.
/// With `group` query heads to one of keys and values (grouped queries), all of those, which leave
/// together: a unit of `group` * head_size inputs of the output projection.
inline double head_macs(const length_moments& n, index_t hidden, index_t head_size,
                        index_t group = 1) {
    const double d = static_cast<double>(hidden), dh = static_cast<double>(head_size);
    const double g = static_cast<double>(group);
    return (2 * g + 2) * n.mean * d * dh + 2 * g * n.pairs * dh;
}

/// A layer's attention: heads, and numbers of each one's queries and keys and of its values.
struct head_shape {
    index_t heads = 0, queries = 0, values = 0;
};

/// Multiply-adds of a shape per sequence: of each number of a head's queries, keys or values n d for
/// its projection or the output's, and one for each pair of a query and a key.
inline double shape_macs(const length_moments& n, index_t hidden, const head_shape& shape) {
    return static_cast<double>(shape.heads) * static_cast<double>(shape.queries + shape.values) *
           head_macs(n, hidden, 1) / 2;
}

/// Multiply-adds that one FFN filter costs per sequence; `matrices` is 2, or 3 for a gated FFN,
/// where two input matrices share a filter.
inline double filter_macs(const length_moments& n, index_t hidden, index_t matrices = 2) {
    return static_cast<double>(matrices) * n.mean * static_cast<double>(hidden);
}

/// Weights of one head (four projections) and its query, key and value biases; with grouped
/// queries, of a head of keys and values and its `group` query heads.
inline double head_parameters(index_t hidden, index_t head_size, bool biases = true,
                              index_t group = 1) {
    const double d = static_cast<double>(hidden), g = static_cast<double>(group);
    return static_cast<double>(head_size) * ((2 * g + 2) * d + (biases ? g + 2 : 0));
}

/// Weights of one filter and its biases before the activation.
inline double filter_parameters(index_t hidden, index_t matrices = 2, bool biases = true) {
    const double each = static_cast<double>(hidden) + (biases ? 1 : 0);
    return static_cast<double>(matrices) * each - (biases ? 1 : 0);
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
        if (units < 0) detail::fail<value_error>("cost_table", "the costs of ", units, " units");
        const index_t count = detail::count_of<double>("cost_table", units) + 1;
        std::vector<double> cost(static_cast<std::size_t>(count));
        for (std::size_t k = 0; k < cost.size(); ++k) cost[k] = each * static_cast<double>(k);
        return cost_table(std::move(cost));
    }

    index_t units() const { return static_cast<index_t>(cost_.size()) - 1; }
    double operator()(index_t kept) const { return cost_[static_cast<std::size_t>(kept)]; }

  private:
    std::vector<double> cost_;
};

/// What sublayers take on a GPU, by the formula of arXiv:2204.09656: nothing without units, a
/// constant up to a number of them, and as much for each from there.
struct hinge_cost {
    double constant = 0, each = 0;
    index_t knee = 0; ///< units that cost no more than one
    double error = 0; ///< the largest distance from the costs that it was fitted to

    double operator()(index_t kept) const {
        return kept == 0 ? 0
                         : constant + each * static_cast<double>(std::max(kept - knee, index_t{0}));
    }
};

/// Fits the formula to cost[i], measured with kept[i] >= 0 units, by least squares over the
/// constant and the cost of a unit, neither negative, and all knees below the largest kept[i].
/// Entries of 0 units do not count. Throws shape_error for unequal lengths, value_error if no
/// number of units is above 0 or an entry is negative or not finite.
/// O(largest kept * entries).
template <class Kept, class Costs>
hinge_cost fit_hinge(const Kept& kept, const Costs& cost) {
    const auto k = as_input<1>(kept);
    const auto y = as_input<1>(cost);
    if (k.extent(0) != y.extent(0))
        detail::fail<shape_error>("fit_hinge", k.extent(0), " numbers of units, ", y.extent(0),
                                  " costs");
    index_t most = 0;
    double n = 0, mean_y = 0;
    for (index_t i = 0; i < k.extent(0); ++i) {
        if (k(i) < 0 || !detail::is_finite(detail::to_double(y(i))) || detail::to_double(y(i)) < 0)
            detail::fail<value_error>("fit_hinge", "entry ", i, " is ", k(i),
                                      " units at a cost of ", y(i));
        if (k(i) == 0) continue;
        most = std::max<index_t>(most, k(i));
        mean_y += detail::to_double(y(i));
        ++n;
    }
    if (most == 0) detail::fail<value_error>("fit_hinge", "no costs of units");
    mean_y /= n;
    hinge_cost best;
    double best_squares = -1;
    for (index_t knee = 0; knee < most; ++knee) {
        // y = constant + each * over, over = max(kept - knee, 0).
        const auto over = [&](index_t i) {
            return static_cast<double>(std::max<index_t>(k(i) - knee, 0));
        };
        double mean_over = 0, xy = 0, xx = 0, squares = 0;
        for (index_t i = 0; i < k.extent(0); ++i)
            if (k(i) > 0) mean_over += over(i) / n;
        for (index_t i = 0; i < k.extent(0); ++i) {
            if (k(i) == 0) continue;
            const double x = over(i) - mean_over;
            xy += x * (detail::to_double(y(i)) - mean_y);
            xx += x * x;
        }
        hinge_cost tried{mean_y, xx > 0 ? std::max(0., xy / xx) : 0., knee, 0};
        tried.constant -= tried.each * mean_over;
        if (tried.constant < 0) { // through the knee
            double of_over = 0;
            xy = 0;
            for (index_t i = 0; i < k.extent(0); ++i) {
                if (k(i) == 0) continue;
                xy += over(i) * detail::to_double(y(i));
                of_over += over(i) * over(i);
            }
            tried.constant = 0;
            tried.each = xy / of_over;
        }
        for (index_t i = 0; i < k.extent(0); ++i) {
            if (k(i) == 0) continue;
            const double off = tried(k(i)) - detail::to_double(y(i));
            squares += off * off;
            tried.error = std::max(tried.error, std::abs(off));
        }
        // Knees below all that was measured fit alike; the first of them stays.
        if (best_squares >= 0 && squares >= (1 - 1e-9) * best_squares) continue;
        best_squares = squares;
        best = tried;
    }
    return best;
}

} // namespace PARE_ISA
} // namespace pare
