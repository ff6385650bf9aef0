#include "widths.hpp"

#include <fmt/core.h>
#include <pare/cost.hpp>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace encoder {

unit_costs unit_costs::multiply_adds(const config& shape, const std::vector<sequence>& sequences) {
    std::vector<std::size_t> lengths;
    for (const sequence& s : sequences) lengths.push_back(s.size());
    const pare::length_moments n = pare::moments_of_lengths(lengths);
    const double number = pare::head_macs(n, shape.hidden, 1) / 2;
    return {number, number, pare::filter_macs(n, shape.hidden)};
}

unit_costs unit_costs::parameters(const config& shape) {
    const double in = static_cast<double>(shape.hidden + 1),
                 out = static_cast<double>(shape.hidden);
    return {2 * in, in + out, static_cast<double>(pare::filter_parameters(shape.hidden))};
}

sublayer_costs unit_costs::of_layers(const model& m) const {
    const auto heads = [*this](std::size_t, const pare::head_shape& of) {
        return static_cast<double>(of.heads) * (static_cast<double>(of.queries) * per_query_number +
                                                static_cast<double>(of.values) * per_value_number);
    };
    return {heads, [&m, each = per_filter](std::size_t l) {
                return pare::cost_table::linear(m.layers[l].filters(), each);
            }};
}

double unit_costs::of(const model& m) const {
    const sublayer_costs costs = of_layers(m);
    double sum = 0;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const layer& y = m.layers[l];
        sum += costs.heads(l, {y.heads, y.queries(), y.values()}) +
               per_filter * static_cast<double>(y.filters());
    }
    return sum;
}

pare::index_t number_multiple(pare::index_t numbers) {
    constexpr pare::index_t most = 8; // as many floats are loaded at once
    return std::gcd(std::clamp<pare::index_t>(numbers / 4, 1, most), numbers);
}

layer_choices::layer_choices(const model& m, const sublayer_losses& losses, layer_widths allowed)
    : losses_(losses), allowed_(allowed), queries_(m.queries()), values_(m.values()) {
    const bool divisible = std::all_of(m.layers.begin(), m.layers.end(), [](const layer& l) {
        return l.filters() % filter_multiple == 0;
    });
    filter_multiple_ = divisible ? filter_multiple : 1;
    const bool narrow = !losses.queries.empty() && allowed != layer_widths::equal;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const pare::loss_curve& heads = losses.units[2 * l];
        const pare::head_shape whole{m.layers[l].heads, queries_[l], values_[l]};
        const pare::head_shape multiple{1, number_multiple(whole.queries),
                                        number_multiple(whole.values)};
        attention_.push_back(narrow ? pare::shapes_of_heads(heads, losses.queries[l],
                                                            losses.values[l], whole, multiple)
                                    : pare::shapes_of_heads(heads, {}, {}, whole, multiple));
    }
    if (allowed == layer_widths::uneven) return;
    const auto same = [](const auto& all, const char* what) {
        for (const pare::index_t n : all)
            if (n != all[0])
                throw std::invalid_argument("layers of " + std::to_string(all[0]) + " and " +
                                            std::to_string(n) + what +
                                            " cannot be made equally wide; prune a model whose "
                                            "layers are");
    };
    same(m.heads(), " heads");
    same(m.filters(), " filters");
    same(queries_, " numbers of a head's query");
    same(values_, " numbers of a head's value");
}

std::vector<pare::prunable> layer_choices::sublayers(const sublayer_costs& costs) const {
    std::vector<pare::prunable> all, heads, filters;
    for (std::size_t l = 0; l < attention_.size(); ++l) {
        pare::prunable of_heads = attention_[l].choices(
            [&](const pare::head_shape& shape) { return costs.heads(l, shape); });
        pare::prunable of_filters{losses_.units[2 * l + 1].loss, costs.filters(l), filter_multiple_,
                                  0};
        if (allowed_ != layer_widths::uneven) {
            of_heads.at_least = allowed_ == layer_widths::equal
                                    ? of_heads.units()
                                    : std::min<pare::index_t>(1, of_heads.units());
            of_filters.at_least = std::min<pare::index_t>(1, of_filters.units());
        }
        (allowed_ == layer_widths::uneven ? all : heads).push_back(std::move(of_heads));
        (allowed_ == layer_widths::uneven ? all : filters).push_back(std::move(of_filters));
    }
    if (allowed_ == layer_widths::uneven) return all;
    return {pare::tied(heads), pare::tied(filters)};
}

std::vector<layer_shape> layer_choices::shapes(const std::vector<pare::index_t>& found) const {
    std::vector<layer_shape> all;
    for (std::size_t l = 0; l < attention_.size(); ++l) {
        const auto chosen = [&](std::size_t i) { return found[i % found.size()]; };
        all.push_back(
            {attention_[l].shapes[static_cast<std::size_t>(chosen(2 * l))], chosen(2 * l + 1)});
    }
    return all;
}

kept_units layer_choices::keep(const std::vector<layer_shape>& shapes) const {
    kept_units kept;
    for (std::size_t l = 0; l < shapes.size(); ++l) {
        const pare::head_shape& attention = shapes[l].attention;
        kept.heads.push_back(losses_.units[2 * l].mask(attention.heads));
        kept.filters.push_back(losses_.units[2 * l + 1].mask(shapes[l].filters));
        kept.queries.push_back({attention.queries, {}});
        kept.values.push_back({attention.values, {}});
        if (attention.heads == 0) continue;
        for (std::size_t h = 0; attention.queries < queries_[l] && h < kept.heads[l].size(); ++h)
            if (kept.heads[l][h]) kept.queries[l].heads.push_back(losses_.queries[l][h]);
        if (attention.values < values_[l])
            kept.values[l].heads =
                losses_.values[l][static_cast<std::size_t>(attention.heads)].heads;
    }
    return kept;
}

found_units search(const model& m, const sublayer_losses& losses, const unit_costs& costs,
                   double share, layer_widths allowed) {
    const double whole = costs.of(m), budget = share * whole;
    const layer_choices choices(m, losses, allowed);
    const pare::width_search all(choices.sublayers(costs.of_layers(m)), budget);
    const pare::width_choice found = all.best(budget);
    if (!found.feasible)
        throw std::invalid_argument(fmt::format(
            "a budget of {} of heads and filters is below the least of equal widths, {:.6f}", share,
            found.cost / whole));
    if (found.cost == 0 && found.loss > 0) // units without which nothing is lost may all go
        throw std::invalid_argument(
            fmt::format("a budget of {} of heads and filters keeps nothing", share));
    return {choices.keep(choices.shapes(found.kept)), found.loss, all.bound(budget)};
}

void check_budget(const model& m, const unit_costs& costs, double share, layer_widths allowed,
                  bool narrow) {
    sublayer_losses alike;
    for (const layer& y : m.layers) {
        const auto add = [&](pare::index_t units) {
            alike.units.push_back(
                pare::sorted_losses(std::vector<double>(static_cast<std::size_t>(units), 1)));
        };
        add(y.heads);
        add(y.filters());
        if (!narrow) continue;
        const auto heads = static_cast<std::size_t>(y.heads);
        pare::projection free;
        free.loss.assign(static_cast<std::size_t>(y.queries()) + 1, 0.0);
        alike.queries.emplace_back(heads, free);
        pare::rank_curve also_free;
        also_free.loss.assign(static_cast<std::size_t>(y.values()) + 1, 0.0);
        alike.values.emplace_back(heads + 1, also_free);
    }
    search(m, alike, costs, share, allowed);
}

} // namespace encoder
