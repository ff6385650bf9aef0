// Pruning heads and filters of an encoder with the components of pare, stage by stage.
#pragma once

#include "calibration.hpp"

#include <pare/fisher.hpp>
#include <pare/loss_curve.hpp>
#include <pare/search.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace encoder {

/// Where the importance of heads and filters comes from.
enum class fisher_source {
    free,     ///< gradients of random functions of the outputs: raw text is enough
    labels,   ///< gradients of the loss of labelled examples
    none,     ///< forward only: the energy that each unit's output adds to the residual stream
    magnitude ///< squared weights; no text at all (a baseline)
};

/// The importance of every unit, and of pairs of units within a layer, by Fisher information.
class criterion {
  public:
    using block_matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    /// One backward pass over the calibration data (free, labels), one forward pass (none), or
    /// none. `bias_refitted`: a pruned unit leaves its mean behind, because tuning refits the bias,
    /// so only what varies counts. It concerns free and labels; none never counts the mean,
    /// magnitude always.
    criterion(engine& net, const calibration& data, fisher_source source, bool bias_refitted,
              std::uint64_t seed);

    /// What sublayers lose as their units are removed, the least important first; heads and
    /// filters of the first layer, then of the next ones.
    std::vector<pare::loss_curve> losses() const;
    /// A sublayer's block for pare::rearrange, [units x units]; empty for magnitude.
    block_matrix block(std::size_t sublayer) const;

  private:
    void from_gradients(engine& net, const calibration& data, bool bias_refitted,
                        std::uint64_t seed);
    void from_outputs(engine& net, const calibration& data);
    void from_weights(const model& m);

    // Of sublayers: Fisher information, or importances, and without gradients also blocks.
    std::vector<pare::fisher<>> fishers_;
    std::vector<std::vector<double>> importance_;
    std::vector<block_matrix> energies_;
};

/// What sublayers lose as units are removed and the rest makes up for them, by least squares in the
/// metric of the gradients at the sublayers' outputs.
class surgeon {
  public:
    /// One backward pass over the calibration data (free, labels), or one forward pass (none: shares
    /// of the residual stream's variance). Not magnitude.
    surgeon(engine& net, const calibration& data, fisher_source source, std::uint64_t seed);

    /// In the order of criterion::losses().
    const std::vector<pare::loss_curve>& losses() const { return losses_; }
    /// What tokens weigh in tune(), and nothing else of the statistics. Empty without gradients.
    const std::vector<pare::sublayer_statistics>& weights() const { return weights_; }

  private:
    std::vector<pare::loss_curve> losses_;
    std::vector<pare::sublayer_statistics> weights_;
};

/// What a head and a filter cost, wherever they are.
struct unit_costs {
    double per_head, per_filter;

    /// Per sequence, over the lengths of `sequences`.
    static unit_costs multiply_adds(const config& shape, const std::vector<sequence>& sequences);
    static unit_costs parameters(const config& shape);
    /// Of all heads and filters.
    double of(const model& m) const;
    pare::cost_table table(const model& m, std::size_t l, unit_kind kind) const;
};

/// Filters are kept in multiples of this where the dense widths are: vector registers and matrix
/// kernels like it, and the choice among thousands of filters hardly notices.
inline constexpr pare::index_t filter_multiple = 16;

/// Which widths layers may have beside each other.
enum class layer_widths {
    uneven, ///< any
    tied,   ///< the same number of heads in all layers, and of filters
    equal   ///< all heads, and the same number of filters in all layers
};

/// 1 for units that are kept: [layer][unit].
struct kept_units {
    std::vector<std::vector<std::uint8_t>> heads, filters;
};

/// Sublayers for pare::width_search, or all layers' heads as one and their filters as another;
/// `losses` are in the order of criterion::losses(). Throws std::invalid_argument if widths
/// are to be the same in layers that differ.
using sublayer_cost = std::function<pare::cost_table(std::size_t layer, unit_kind kind)>;
std::vector<pare::prunable> prunables(const model& m, const std::vector<pare::loss_curve>& losses,
                                      const sublayer_cost& cost, layer_widths allowed);
/// What a search over prunables() keeps, by sublayer.
std::vector<pare::index_t> of_sublayers(const model& m, const std::vector<pare::index_t>& found);
/// The units that go last.
kept_units keep(const model& m, const std::vector<pare::loss_curve>& losses,
                const std::vector<pare::index_t>& widths);

/// What a search finds, and what that loses by the criterion: none that fits the budget loses less
/// than `bound`.
struct found_units {
    kept_units kept;
    double loss, bound;
};

/// What to keep with at most `share` of what the model's heads and filters cost.
/// Throws std::invalid_argument if the budget does not even keep one unit, or what equal widths keep
/// at least.
found_units search(const model& m, const std::vector<pare::loss_curve>& losses,
                   const unit_costs& costs, double share,
                   layer_widths allowed = layer_widths::uneven);

/// Throws what search() would, whatever the losses.
void check_budget(const model& m, const unit_costs& costs, double share, layer_widths allowed);

/// Exchanges units within layers against the criterion's blocks; returns how many were exchanged.
std::int64_t rearrange(const criterion& c, kept_units& kept);

enum class tuning { none, scale, reconstruct };

/// A ridge that suits a few thousand to some hundred thousand tokens. Reconstruction has the more
/// unknowns; with a smaller one it follows the calibration text too closely.
constexpr double default_ridge(tuning how) {
    return how == tuning::reconstruct ? 1e-1 : 1e-2;
}

/// The model without its pruned units.
model shrink(const model& m, const kept_units& kept);

/// The model without its pruned units, and with the matrices that read the kept ones refitted,
/// sublayer by sublayer, so that the pruned network's residual stream follows the dense one's.
/// `notes` gets a sentence for each sublayer that could not be tuned and was left as it is.
/// `weights`: of tokens, as surgeon::weights(), or empty.
model tune(engine& dense, const kept_units& kept, const std::vector<sequence>& sequences,
           tuning how, double ridge, std::vector<std::string>& notes,
           const std::vector<pare::sublayer_statistics>& weights = {});

/// The pruned model's weights at the places they had in the dense one, for a run with masks.
model expand(const model& dense, const model& pruned, const kept_units& kept);

} // namespace encoder
