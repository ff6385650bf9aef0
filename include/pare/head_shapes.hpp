// How many heads a layer's attention has, of how many numbers each: shapes as choices of a width
// search, beside the filters that share its budget.
#pragma once

#include "cost.hpp"
#include "gram.hpp"
#include "least_squares.hpp"
#include "project.hpp"
#include "search.hpp"

#include <cstdint>
#include <utility>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

/// What project() needs of a layer's queries; mergeable.
class query_statistics {
  public:
    /// Throws shape_error for a negative number, or for more than any memory has room for.
    explicit query_statistics(index_t heads = 0, index_t size = 0) : size_(size) {
        if (heads < 0 || size < 0)
            detail::fail<shape_error>("query_statistics", heads, " heads of ", size, " numbers");
        detail::count_of<double>("query_statistics", heads, detail::product(size, size));
        for (index_t h = 0; h < heads; ++h) {
            queries_.emplace_back(size);
            gradients_.emplace_back(size);
        }
    }

    /// Adds tokens, from the policy's memory.
    ///
    /// queries    [tokens x heads x size], with their bias
    /// gradients  of the model's loss at them, as sums over all that a query does; of the same type
    /// weights    [tokens] >= 0 of tokens in the moments; {}: all alike
    ///
    /// Throws shape_error, and value_error for numbers that are not finite; of heads before that one
    /// the tokens may be added then. Complexity: 2 * tokens * heads * size^2 multiply-adds.
    template <class Policy, class Q, class G, class Weights = detail::none>
    void add(const Policy& policy, const Q& queries, const G& gradients,
             const Weights& weights = {}) {
        detail::check_whole(policy);
        const auto q = as_input<3>(policy, queries);
        const auto g = as_input<3>(policy, gradients);
        const index_t heads = this->heads();
        if (q.extent(1) != heads || g.extent(1) != heads || q.extent(2) != size_ ||
            g.extent(2) != size_ || g.extent(0) != q.extent(0))
            detail::fail<shape_error>("query_statistics", "queries are ", q.extent(0), " x ",
                                      q.extent(1), " x ", q.extent(2), ", gradients ", g.extent(0),
                                      " x ", g.extent(1), " x ", g.extent(2), ", there are ", heads,
                                      " heads of ", size_);
        if (q.extent(0) == 0 || size_ == 0) return;
        for (index_t h = 0; h < heads; ++h) {
            const auto of_head = [&](const auto& x) {
                using T = typename std::decay_t<decltype(x)>::value_type;
                return view<const T, 2>(x.data_handle() + h * x.stride(1),
                                        {x.extent(0), x.extent(2)}, {x.stride(0), x.stride(2)});
            };
            const auto at = static_cast<std::size_t>(h);
            queries_[at].add(policy, of_head(q), detail::none{}, weights);
            gradients_[at].add(policy, of_head(g));
        }
    }

    /// Adds what another one of the same shape has seen; exact up to rounding. Throws shape_error.
    void merge(const query_statistics& other) {
        check_merge(other);
        for (std::size_t h = 0; h < queries_.size(); ++h) {
            queries_[h].merge(other.queries_[h]);
            gradients_[h].merge(other.gradients_[h]);
        }
    }

    index_t heads() const { return static_cast<index_t>(queries_.size()); }

    /// Of each head. Throws as project() does. A template for the time that its solvers take to
    /// compile, which headers that merely include this one need not spend.
    template <class Projection = projection>
    std::vector<Projection> projections() {
        std::vector<Projection> all;
        for (std::size_t h = 0; h < queries_.size(); ++h) {
            const std::vector<double> metric = gradients_[h].mean();
            all.push_back(project(queries_[h].moment_xx(), view(metric.data(), size_, size_)));
        }
        return all;
    }

  private:
    friend struct detail::saved; // prune/statistics_file.hpp
    friend struct sublayer_statistics;

    void check_merge(const query_statistics& other) const {
        if (other.queries_.size() != queries_.size())
            detail::fail<shape_error>("query_statistics", "merge: ", other.queries_.size(),
                                      " heads into ", queries_.size());
        for (std::size_t h = 0; h < queries_.size(); ++h) {
            queries_[h].check_merge(other.queries_[h]);
            gradients_[h].check_merge(other.gradients_[h]);
        }
    }

    index_t size_;
    std::vector<least_squares> queries_;
    std::vector<gram<double>> gradients_;
};

/// The shapes that a layer's attention can have, and what they lose.
struct head_shapes {
    std::vector<head_shape> shapes; ///< no heads first
    std::vector<double> losses;     ///< of each

    /// As a sublayer of width_search, which keeps shapes[kept] of it. cost(shape) in any measure.
    template <class Cost>
    prunable choices(const Cost& cost) const {
        std::vector<double> costs;
        for (const head_shape& shape : shapes) costs.push_back(cost(shape));
        return {{losses.rbegin(), losses.rend()}, cost_table(std::move(costs)), 1, 0};
    }
};

/// All numbers of heads, the last to go kept, with ranks of queries and of values in multiples. What
/// heads and values lose is fitted together, by rank_curves; what logits lose is added.
///
/// heads    the order in which heads go, of pare::eliminate
/// logits   [heads] of query_statistics, or empty: queries keep their size
/// values   [heads + 1] of rank_curves, or empty: values keep their size, and heads alone lose what
///          their curve says
/// whole    what heads have now: numbers are multiples of those in `multiple`, whose heads do not count
///
/// Throws shape_error, and value_error for an order in which a head goes twice or is none.
inline head_shapes shapes_of_heads(const loss_curve& heads, const std::vector<projection>& logits,
                                   const std::vector<rank_curve>& values, const head_shape& whole,
                                   const head_shape& multiple) {
    const index_t count = heads.units();
    const auto at = [](index_t i) { return static_cast<std::size_t>(i); };
    const auto ranks = [&](const auto& curves, index_t size) {
        for (const auto& curve : curves)
            if (static_cast<index_t>(curve.loss.size()) != size + 1)
                detail::fail<shape_error>("shapes_of_heads", "a curve of ", curve.loss.size(),
                                          " losses, heads have ", size, " numbers");
    };
    const auto divides = [](index_t by, index_t size) { return by >= 1 && size % by == 0; };
    if (whole.heads != count || (!logits.empty() && logits.size() != at(count)) ||
        (!values.empty() && values.size() != at(count + 1)) ||
        !divides(multiple.queries, whole.queries) || !divides(multiple.values, whole.values))
        detail::fail<shape_error>("shapes_of_heads", whole.heads, " heads of ", whole.queries,
                                  " and ", whole.values, " numbers in multiples of ",
                                  multiple.queries, " and ", multiple.values, ", curves of ", count,
                                  " heads, logits of ", logits.size(), " heads, values of ",
                                  values.size(), " numbers of heads");
    if (static_cast<index_t>(heads.loss.size()) != count + 1)
        detail::fail<shape_error>("shapes_of_heads", "a curve of ", heads.loss.size(),
                                  " losses, there are ", count, " heads");
    ranks(logits, whole.queries);
    ranks(values, whole.values);
    head_shapes found;
    for (index_t kept = 0; kept <= count; ++kept) {
        const std::vector<std::uint8_t> mask = heads.mask(kept);
        const double of_heads = heads.loss[at(count - kept)];
        if (kept == 0) {
            found.shapes.push_back({});
            found.losses.push_back(of_heads);
            continue;
        }
        for (index_t q = logits.empty() ? whole.queries : multiple.queries; q <= whole.queries;
             q += multiple.queries) {
            double of_logits = 0;
            for (index_t h = 0; h < count && !logits.empty(); ++h)
                if (mask[at(h)]) of_logits += logits[at(h)].loss[at(whole.queries - q)];
            for (index_t v = values.empty() ? whole.values : multiple.values; v <= whole.values;
                 v += multiple.values) {
                found.shapes.push_back({kept, q, v});
                found.losses.push_back(
                    of_logits +
                    (values.empty() ? of_heads : values[at(kept)].loss[at(whole.values - v)]));
            }
        }
    }
    return found;
}

} // namespace PARE_ISA
} // namespace pare
