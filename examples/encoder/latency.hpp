// What sublayers of each width take on this machine.
#pragma once

#include "prune.hpp"

#include <pare/cost.hpp>

#include <map>

namespace encoder {

/// The time of a forward pass over batches of one shape, as a sum over sublayers, in units of a
/// layer of the model alone. Widths are timed in such a layer, when they are asked for; what sums
/// over sublayers leave of the dense model's time does not depend on widths.
class latency {
  public:
    /// Batches of `sequences` sequences of `tokens` tokens. Times the dense model and a few widths.
    /// Throws std::invalid_argument for a shape that the model cannot run.
    latency(const model& m, std::int64_t sequences, std::int64_t tokens);

    double dense() const { return dense_; }
    double rest() const;
    /// Of a layer's heads or filters by units kept: as timed, and straight lines in between.
    pare::cost_table table(std::size_t l, unit_kind kind) const;

    /// Times those of the widths that have not been timed yet; returns whether there were any.
    bool measure(unit_kind kind, const std::vector<pare::index_t>& widths);

    /// Another model's time by the dense one's: the median over rounds of both in turn.
    double share_of(const model& other);

  private:
    batch batch_;
    network whole_;
    model widest_; // one layer with all heads and filters that any has
    network unit_; // runs it
    std::map<pare::index_t, double> heads_, filters_;
    double dense_ = 0;
};

/// What to keep so that a forward pass takes at most `share` of the dense one's time and the least
/// is lost. Widths that are chosen are timed; then the model of these widths is timed as a whole,
/// and the choice made again with what the sums had missed, until the promise holds or three times.
/// Throws std::invalid_argument if even the narrowest takes longer.
kept_units search(const model& m, const std::vector<pare::loss_curve>& losses, latency& costs,
                  double share);

} // namespace encoder
