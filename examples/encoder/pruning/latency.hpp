// What sublayers of each width take on this machine, or on its GPU.
#pragma once

#include "prune.hpp"

#include <pare/cost.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <utility>

namespace encoder {

/// What to time, and how to fill in what is not timed.
struct latency_options {
    std::int64_t sequences = 32, tokens = 128; ///< of the batches
    bool fitted = false;                       ///< tables are pare::fit_hinge's of what was timed
    std::filesystem::path times; ///< a file of former times, or empty, or not there yet
};

/// The time of a forward pass over batches of one shape, as a sum over sublayers, in units of a
/// layer of the model alone. Widths are timed in such a layer, when they are asked for; what sums
/// over sublayers leave of the dense model's time does not depend on widths.
class latency {
  public:
    /// Times the dense model and a few widths, where the file does not hold them: for the same
    /// processor, number of threads, widths of the model's layers and batches. Throws
    /// std::invalid_argument for batches that the model cannot run, file_error for a file that
    /// holds anything but times.
    latency(const engine& dense, latency_options options);

    double dense() const { return dense_; }
    double rest() const;
    /// As timed, and straight lines in between; or as fitted. Of the dense model's layers.
    sublayer_costs of_layers() const;
    /// The formula nearest to the times of a layer's heads or filters, by the dense model's.
    pare::hinge_cost fit(unit_kind kind) const;

    /// Times those of the shapes that have not been timed yet; returns whether there were any.
    bool measure(const std::vector<layer_shape>& shapes);

    /// Another model's time by the dense one's: the median over rounds of both in turn.
    double share_of(const model& other);

    /// Writes the file, if there is to be one, with these times and the others that it holds by now.
    void save() const;

  private:
    using times = std::map<pare::index_t, double>;           // by units kept
    using numbers = std::pair<pare::index_t, pare::index_t>; // of a head's query and value
    void load();
    double time_of_heads(const pare::head_shape& shape) const;
    pare::hinge_cost fit(const times& of) const;
    /// Of a head, as it is and as narrow as a search may ask for.
    numbers most() const;
    numbers least() const;

    latency_options options_;
    batch batch_;
    std::unique_ptr<engine> whole_;
    model widest_;                   // one layer with all heads and filters that any has
    std::unique_ptr<engine> unit_;   // runs it
    std::map<numbers, times> heads_; // by their numbers
    times filters_;
    double dense_ = 0;
};

/// What to keep so that a forward pass takes at most `share` of the dense one's time and the least
/// is lost. Widths that are chosen are timed; then the model of these widths is timed as a whole,
/// and the choice made again with what the sums had missed, until the promise holds or three times.
/// Throws std::invalid_argument if even the narrowest takes longer.
found_units search(const model& m, const sublayer_losses& losses, latency& costs, double share,
                   layer_widths allowed);

} // namespace encoder
