// Pruning heads and filters of an encoder with the components of pare, stage by stage.
#pragma once

#include "calibration.hpp"
#include "widths.hpp"

#include <pare/fisher.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace encoder {

/// Where the importance of heads and filters comes from.
enum class fisher_source {
    free,     ///< gradients of random functions of the outputs: raw text is enough
    labels,   ///< gradients of the loss of labelled examples; the surgeon's are free
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
/// metric of the gradients at the sublayers' outputs. They are those of random functions of the
/// outputs, also where there are labels: a metric is to say how much a change of an output matters.
/// The slope of a loss says how wrong the output is, which is nothing where the label is met.
/// With gradients also what heads lose whose queries and keys, or values, are made of fewer numbers.
class surgeon {
  public:
    /// One backward pass over the calibration data (free, labels), or one forward pass (none: shares
    /// of the residual stream's variance). Not magnitude.
    surgeon(engine& net, const calibration& data, fisher_source source, std::uint64_t seed);

    const sublayer_losses& losses() const { return losses_; }
    /// What tokens weigh in tune(), and nothing else of the statistics. Empty without gradients.
    const std::vector<pare::sublayer_statistics>& weights() const { return weights_; }

  private:
    sublayer_losses losses_;
    std::vector<pare::sublayer_statistics> weights_;
};

/// Exchanges units within layers against the criterion's blocks; returns how many were exchanged.
std::int64_t rearrange(const criterion& c, kept_units& kept);

enum class tuning { none, scale, reconstruct };

/// A ridge that suits a few thousand to some hundred thousand tokens. Reconstruction has the more
/// unknowns; with a smaller one it follows the calibration text too closely. Scales, with a smaller
/// one, follow the few tokens and columns of the largest numbers.
constexpr double default_ridge(tuning how) {
    return how == tuning::reconstruct ? 1e-1 : 1;
}

/// The model without its pruned units, and with narrower heads.
model shrink(const model& m, const kept_units& kept);

/// The model without its pruned units, and with the matrices that read the kept ones refitted,
/// sublayer by sublayer, so that the pruned network's residual stream follows the dense one's.
/// `notes` gets a sentence for each sublayer that could not be tuned and was left as it is.
/// `weights`: of tokens, as surgeon::weights(), or empty.
model tune(engine& dense, const kept_units& kept, const std::vector<sequence>& sequences,
           tuning how, double ridge, std::vector<std::string>& notes,
           const std::vector<pare::sublayer_statistics>& weights = {});

/// The pruned model's weights at the places they had in the dense one, for a run with masks; of
/// narrower heads, as ones of as many numbers as before that vary in as few directions.
model expand(const model& dense, const model& pruned, const kept_units& kept);

} // namespace encoder
