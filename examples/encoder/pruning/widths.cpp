#include "widths.hpp"

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
    const auto heads = [*this, size = m.config.head_size](std::size_t, pare::index_t n,
                                                          pare::index_t queries) {
        return static_cast<double>(n) * (static_cast<double>(queries) * per_query_number +
                                         static_cast<double>(size) * per_value_number);
    };
    return {heads, [&m, each = per_filter](std::size_t l) {
                return pare::cost_table::linear(m.layers[l].filters(), each);
            }};
}

double unit_costs::of(const model& m) const {
    const sublayer_costs costs = of_layers(m);
    const Eigen::Index size = m.config.head_size;
    double sum = 0;
    for (std::size_t l = 0; l < m.layers.size(); ++l)
        sum += costs.heads(l, m.layers[l].heads(size), m.layers[l].queries(size)) +
               per_filter * static_cast<double>(m.layers[l].filters());
    return sum;
}

pare::index_t query_multiple(pare::index_t queries) {
    constexpr pare::index_t most = 8; // as many floats are loaded at once
    return std::gcd(std::clamp<pare::index_t>(queries / 4, 1, most), queries);
}

layer_choices::layer_choices(const model& m, const sublayer_losses& losses, layer_widths allowed)
    : losses_(losses), allowed_(allowed), queries_(m.queries()) {
    const bool divisible = std::all_of(m.layers.begin(), m.layers.end(), [](const layer& l) {
        return l.filters() % filter_multiple == 0;
    });
    filter_multiple_ = divisible ? filter_multiple : 1;
    const bool narrow = !losses.queries.empty() && allowed != layer_widths::equal;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        attention_.push_back(pare::shapes_of_heads(
            losses.units[2 * l], narrow ? losses.queries[l] : std::vector<pare::projection>(), {},
            queries_[l], query_multiple(queries_[l])));
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
}

std::vector<pare::prunable> layer_choices::sublayers(const sublayer_costs& costs) const {
    std::vector<pare::prunable> all, heads, filters;
    for (std::size_t l = 0; l < attention_.size(); ++l) {
        pare::prunable of_heads = attention_[l].choices([&](const pare::head_shape& shape) {
            return costs.heads(l, shape.heads, shape.queries);
        });
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
        const pare::head_shape& attention =
            attention_[l].shapes[static_cast<std::size_t>(chosen(2 * l))];
        all.push_back({attention.heads, attention.heads > 0 ? attention.queries : queries_[l],
                       chosen(2 * l + 1)});
    }
    return all;
}

kept_units layer_choices::keep(const std::vector<layer_shape>& shapes) const {
    kept_units kept;
    for (std::size_t l = 0; l < shapes.size(); ++l) {
        kept.heads.push_back(losses_.units[2 * l].mask(shapes[l].heads));
        kept.filters.push_back(losses_.units[2 * l + 1].mask(shapes[l].filters));
        kept_queries& queries = kept.queries.emplace_back();
        queries.rank = shapes[l].queries;
        if (queries.rank == queries_[l]) continue;
        for (std::size_t h = 0; h < kept.heads[l].size(); ++h)
            if (kept.heads[l][h]) queries.heads.push_back(losses_.queries[l][h]);
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
        throw std::invalid_argument("a budget of " + std::to_string(share) +
                                    " of heads and filters is below the least of equal widths, " +
                                    std::to_string(found.cost / whole));
    if (found.cost == 0 && found.loss > 0) // units without which nothing is lost may all go
        throw std::invalid_argument("a budget of " + std::to_string(share) +
                                    " of heads and filters keeps nothing");
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
        const pare::index_t heads = y.heads(m.config.head_size);
        add(heads);
        add(y.filters());
        if (!narrow) continue;
        pare::projection free;
        free.loss.assign(static_cast<std::size_t>(y.queries(m.config.head_size)) + 1, 0.0);
        alike.queries.emplace_back(static_cast<std::size_t>(heads), free);
    }
    search(m, alike, costs, share, allowed);
}

} // namespace encoder
