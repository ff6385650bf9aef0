// What a budget is a share of, and what fits it.
#pragma once

#include "latency.hpp"

#include <nlohmann/json.hpp>

#include <optional>
#include <vector>

namespace encoder {

enum class budget_kind { macs, parameters, latency };

/// In words.
const char* name_of(budget_kind kind);

/// Of a budget that is no time: parameters, or the multiply-adds that are given.
unit_costs unit_prices(budget_kind kind, const config& shape, const unit_costs& macs);

/// What heads and filters of a model cost.
class pricing {
  public:
    /// `m`, which is kept by reference, is the dense model that runs in `dense`; `macs` are its
    /// units' multiply-adds. For a budget of latency, times a few widths.
    pricing(const model& m, const engine& dense, budget_kind kind, const latency_options& how,
            const unit_costs& macs, layer_widths allowed);

    found_units search(const sublayer_losses& losses, double share);

    struct choice {
        double share, loss; ///< as the criterion expects it
        std::vector<layer_shape> kept;
    };
    /// The least loss for every share.
    std::vector<choice> front(const sublayer_losses& losses) const;

    std::optional<latency> times; ///< where the budget is of latency

  private:
    const model& model_;
    layer_widths allowed_;
    unit_costs counts_;
};

nlohmann::ordered_json to_json(const std::vector<pricing::choice>& front);

} // namespace encoder
