#include "budget.hpp"

namespace encoder {

const char* name_of(budget_kind kind) {
    return kind == budget_kind::macs         ? "multiply-adds"
           : kind == budget_kind::parameters ? "parameters of heads and filters"
                                             : "time";
}

unit_costs unit_prices(budget_kind kind, const config& shape, const unit_costs& macs) {
    return kind == budget_kind::parameters ? unit_costs::parameters(shape) : macs;
}

pricing::pricing(const model& m, const engine& dense, budget_kind kind, const latency_options& how,
                 const unit_costs& macs, layer_widths allowed)
    : model_(m), allowed_(allowed), counts_(unit_prices(kind, m.config, macs)) {
    if (kind == budget_kind::latency) times.emplace(dense, how);
}

found_units pricing::search(const sublayer_losses& losses, double share) {
    return times ? encoder::search(model_, losses, *times, share, allowed_)
                 : encoder::search(model_, losses, counts_, share, allowed_);
}

std::vector<pricing::choice> pricing::front(const sublayer_losses& losses) const {
    const double rest = times ? times->rest() : 0,
                 whole = times ? times->dense() : counts_.of(model_);
    const layer_choices layers(model_, losses, allowed_);
    const auto sublayers = layers.sublayers(times ? times->of_layers() : counts_.of_layers(model_));
    std::vector<choice> choices;
    for (const pare::width_choice& c : pare::width_search(sublayers).front())
        choices.push_back({(c.cost + rest) / whole, c.loss, layers.shapes(c.kept)});
    return choices;
}

nlohmann::ordered_json to_json(const std::vector<pricing::choice>& front) {
    nlohmann::ordered_json points = nlohmann::json::array();
    for (const pricing::choice& c : front) {
        nlohmann::ordered_json point;
        point["share"] = c.share;
        point["loss"] = c.loss;
        for (const layer_shape& kept : c.kept) {
            point["heads"].push_back(kept.attention.heads);
            point["queries"].push_back(kept.attention.queries);
            point["values"].push_back(kept.attention.values);
            point["filters"].push_back(kept.filters);
        }
        points.push_back(std::move(point));
    }
    return points;
}

} // namespace encoder
