// How much layers keep: what it costs, what it loses, and the search for the best.
#pragma once

#include "encoder/files/model.hpp"
#include "encoder/text/batch.hpp"

#include <pare/head_shapes.hpp>
#include <pare/loss_curve.hpp>
#include <pare/search.hpp>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace encoder {

/// What sublayers lose as they get narrower.
struct sublayer_losses {
    std::vector<pare::loss_curve>
        units; ///< heads and filters of the first layer, then of the next ones
    /// [layer][head] as its queries and keys are made of fewer numbers; empty: they are not.
    std::vector<std::vector<pare::projection>> queries;
    /// [layer][heads kept] as their values are; empty: they are not.
    std::vector<std::vector<pare::rank_curve>> values;

    sublayer_losses() = default;
    sublayer_losses(std::vector<pare::loss_curve> of) : units(std::move(of)) {}
};

/// What a layer's attention and filters cost, by what it keeps of them.
struct sublayer_costs {
    std::function<double(std::size_t l, const pare::head_shape& shape)> heads;
    std::function<pare::cost_table(std::size_t l)> filters;
};

/// What a head costs, by the numbers of its query and of its value, and a filter, wherever they are.
struct unit_costs {
    double per_query_number, per_value_number, per_filter;

    /// Per sequence, over the lengths of `sequences`.
    static unit_costs multiply_adds(const config& shape, const std::vector<sequence>& sequences);
    static unit_costs parameters(const config& shape);
    /// Of all heads and filters.
    double of(const model& m) const;
    /// Of the layers of `m`, which is kept by reference.
    sublayer_costs of_layers(const model& m) const;
};

/// Filters are kept in multiples of this where the dense widths are: vector registers and matrix
/// kernels like it, and the choice among thousands of filters hardly notices.
inline constexpr pare::index_t filter_multiple = 16;

/// And numbers of a head's query, and of its value, in multiples of this.
pare::index_t number_multiple(pare::index_t numbers);

/// Which widths layers may have beside each other.
enum class layer_widths {
    uneven, ///< any
    tied,   ///< the same number of heads in all layers, and of filters
    equal   ///< all heads, and the same number of filters in all layers
};

/// Numbers that a layer's heads make their queries and keys of, or their values.
struct kept_numbers {
    pare::index_t rank = 0;
    std::vector<pare::head_maps> heads; ///< of those kept; empty: all have what they had
};

/// 1 for units that are kept: [layer][unit].
struct kept_units {
    std::vector<std::vector<std::uint8_t>> heads, filters;
    std::vector<kept_numbers> queries = {},
                              values = {}; ///< [layer], or empty: all have what they had
};

/// How much a layer keeps.
struct layer_shape {
    pare::head_shape attention;
    pare::index_t filters;
};

/// What layers may keep, as choices of pare::width_search.
class layer_choices {
  public:
    /// The losses are kept by reference. Throws std::invalid_argument if widths are to be the same in
    /// layers that differ.
    layer_choices(const model& m, const sublayer_losses& losses, layer_widths allowed);

    /// Heads and filters of each layer in turn, or all layers' heads as one and their filters as
    /// another.
    std::vector<pare::prunable> sublayers(const sublayer_costs& costs) const;
    /// What a search over those keeps, of each layer.
    std::vector<layer_shape> shapes(const std::vector<pare::index_t>& found) const;
    /// The units that go last, and the maps of their numbers.
    kept_units keep(const std::vector<layer_shape>& shapes) const;

  private:
    const sublayer_losses& losses_;
    layer_widths allowed_;
    pare::index_t filter_multiple_;
    std::vector<pare::head_shapes> attention_;    // of each layer
    std::vector<pare::index_t> queries_, values_; // that a head of the layer has now
};

/// What a search finds, and what that loses by the criterion: none that fits the budget loses less
/// than `bound`.
struct found_units {
    kept_units kept;
    double loss, bound;
};

/// What to keep with at most `share` of what the model's heads and filters cost.
/// Throws std::invalid_argument if the budget does not even keep one unit, or what equal widths keep
/// at least.
found_units search(const model& m, const sublayer_losses& losses, const unit_costs& costs,
                   double share, layer_widths allowed = layer_widths::uneven);

/// Throws what search() would, whatever the losses. `narrow`: heads can have fewer numbers.
void check_budget(const model& m, const unit_costs& costs, double share, layer_widths allowed,
                  bool narrow);

} // namespace encoder
