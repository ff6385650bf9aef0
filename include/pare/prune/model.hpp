// What pruning by prune.hpp asks of a model that is not ours.
//
// A model has sublayers, one after another along a residual stream: a matrix W, with a bias b or
// none, reads the values of units, heads or filters, and what it gives is added to the stream. What
// only the model knows it says by members, whatever its class:
//
//     index_t sublayers()                 how many there are, in the order in which they run
//     sublayer<T> describe(s)             sublayer s: W, b and what its units cost
//     index_t batches()                   of calibration text
//     stream start(batch)                 the stream that comes into sublayer 0: a type of the
//                                         model's own, which can be copied
//     view<const T, 2> rows(stream&)      its rows [tokens x outputs of W], one behind another
//     view<const T, 2> units(s, stream&)  what W reads [tokens x inputs of W], until the next call
//     void add(s, units, stream&)         rows += units W' + b
//     void keep(s, mask)                  removes the units whose mask is 0, for good, if they are
//                                         there
//
// and may have
//
//     void normalize(s, stream&)          what is done to that sum before the next sublayer reads it
//     void backward(batch, visit)         a forward and a backward pass, which calls visit(s, units,
//                                         at_units, at_sum) once for each sublayer, in any order:
//                                         units as above, and the gradients at them and at the sum.
//                                         Of heads, visit(s, units, at_units, at_sum, queries,
//                                         at_queries) also says what ranks of their queries lose: the
//                                         queries [tokens x heads x size], and the gradients there.
//                                         A batch may come in pieces, one after another
//     offsets(batch)                      of the samples in the batch's tokens, for collect_fisher,
//                                         which wants it in one piece
//     void changed(s)                     W and b have new numbers
//     void narrow(s, narrow_heads)        makes the heads that keep has left of fewer numbers, for good:
//                                         queries by narrow_rows with head_map::down, keys by up, both
//                                         times rank_factor if logits are divided by the root of their
//                                         numbers; values by down, W by up. For sublayers whose describe
//                                         says what that costs, and with a backward pass that shows
//                                         queries
//
// Activations, gradients and offsets are in the policy's memory, W and b in the host's. The loss of
// `backward` need not know targets: what makes its squared gradients the metric in which the model's
// outputs differ are, at logits, probabilities less a class that is drawn from them
// (draw_class_gradients), and at embeddings numbers that are drawn from a normal distribution.
#pragma once

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../cost.hpp"

#include <functional>
#include <type_traits>
#include <utility>

namespace pare {
inline namespace PARE_ISA {

/// What heads cost that are made of fewer numbers than the model's.
struct number_costs {
    index_t queries = 0; ///< numbers of a head's query now; a value's are those of a unit
    /// Of what numbers are multiples; they divide those that there are.
    index_t query_multiple = 1, value_multiple = 1;
    /// Of a layer's heads, in the measure of sublayer::cost and, of whole ones, as much. {}: they stay
    /// whole.
    std::function<double(const head_shape&)> cost;

    explicit operator bool() const { return static_cast<bool>(cost); }
};

struct narrow_heads; // plan.hpp

/// A sublayer of a model, as it is now. T need not be the activations' type.
template <class T>
struct sublayer {
    view<T, 2> weight; ///< W [outputs x inputs]; the transposed view of one stored in x out
    view<T, 1> bias;   ///< b [outputs], or a view of nothing
    index_t unit = 1;  ///< inputs of one unit, side by side: head size, or 1 for filters
    cost_table cost;   ///< of units kept, in any measure that is the same in all sublayers
    index_t multiple = 1, at_least = 1; ///< of units kept
    /// Sublayers of one number >= 0 keep equally many units.
    index_t tied = -1;
    number_costs numbers = {}; ///< of heads that may be narrower, if the model has `narrow`

    index_t units() const { return weight.extent(1) / unit; }
};

namespace detail {

template <class Model>
using stream_of = std::decay_t<decltype(std::declval<Model&>().start(index_t{}))>;
template <class Model>
using number_of = std::remove_const_t<typename decltype(std::declval<Model&>().rows(
    std::declval<stream_of<Model>&>()))::value_type>;

struct ignore {
    template <class... Views>
    void operator()(index_t, const Views&...) const {}
};
template <class Model>
using can_normalize =
    decltype(std::declval<Model&>().normalize(index_t{}, std::declval<stream_of<Model>&>()));
template <class Model>
using can_run_backwards = decltype(std::declval<Model&>().backward(index_t{}, ignore{}));
template <class Model>
using has_samples = decltype(std::declval<Model&>().backward(index_t{}, ignore{}),
                             std::declval<Model&>().offsets(index_t{}));
template <class Model>
using can_narrow =
    decltype(std::declval<Model&>().narrow(index_t{}, std::declval<const narrow_heads&>()));
template <class Model>
using is_told = decltype(std::declval<Model&>().changed(index_t{}));

template <class Model>
void normalize(Model& model, index_t s, stream_of<Model>& x) {
    if constexpr (has<can_normalize, Model>::value) model.normalize(s, x);
}
template <class Model>
void tell(Model& model, index_t s) {
    if constexpr (has<is_told, Model>::value) model.changed(s);
}

/// describe(s), checked.
template <class Model>
auto described(Model& model, index_t s) {
    const auto y = model.describe(s);
    const index_t outputs = y.weight.extent(0), inputs = y.weight.extent(1);
    const index_t biases = y.bias.extent(0);
    if (y.unit < 1 || inputs % y.unit != 0 || (biases != 0 && biases != outputs) ||
        y.cost.units() != inputs / y.unit)
        fail<shape_error>("prune", "sublayer ", s, " has a weight of ", outputs, " x ", inputs,
                          ", units of ", y.unit, ", ", biases, " biases and costs of ",
                          y.cost.units(), " units");
    return y;
}
template <class X>
void check_extents(const char* what, index_t s, const X& x, index_t rows, index_t columns) {
    if (x.extent(0) != rows || x.extent(1) != columns)
        fail<shape_error>("prune", what, " of sublayer ", s, " are ", x.extent(0), " x ",
                          x.extent(1), ", expected ", rows, " x ", columns);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
