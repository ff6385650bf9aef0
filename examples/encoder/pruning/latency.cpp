#include "latency.hpp"

#include "encoder/files/file.hpp"
#include "encoder/files/output.hpp"
#include "encoder/report/progress.hpp"
#include "encoder/report/report.hpp"
#include "encoder/task/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace encoder {
namespace {

using pare::index_t;

double median(std::vector<double> of) {
    const auto middle = of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2);
    std::nth_element(of.begin(), middle, of.end());
    return *middle;
}

/// Of the median, from the median of deviations from it, as if they were normal.
double standard_error(const std::vector<double>& of) {
    const double m = median(of);
    std::vector<double> off;
    for (const double x : of) off.push_back(std::abs(x - m));
    return 1.25 * 1.48 * median(off) / std::sqrt(static_cast<double>(of.size()));
}

/// Times of the networks by the first one's of the same round, in turn: medians over rounds, until
/// they are known to 1 % or a few seconds have gone by.
std::vector<double> in_turn(const std::vector<engine*>& nets, const batch& b) {
    constexpr std::size_t fewest = 7, most = 200;
    constexpr double patience = 3, wanted = 0.01;
    std::vector<std::vector<double>> ratios(nets.size());
    double spent = 0;
    for (std::size_t round = 0; round < most; ++round) {
        double first = 0;
        for (std::size_t i = 0; i < nets.size(); ++i) {
            const double t = seconds_of(*nets[i], b);
            if (i == 0) first = t;
            spent += t;
            if (round > 0) ratios[i].push_back(t / first); // the first one warms up
        }
        if (ratios[0].size() < fewest) continue;
        if (spent > patience ||
            std::all_of(ratios.begin(), ratios.end(), [](const std::vector<double>& r) {
                return standard_error(r) <= wanted * median(r);
            }))
            break;
    }
    std::vector<double> medians;
    for (const std::vector<double>& r : ratios) medians.push_back(median(r));
    return medians;
}

/// The first units of a model of one layer, each head of which has so many numbers.
kept_units first_units(const model& m, const layer_shape& shape) {
    const layer& y = m.layers.at(0);
    const auto first = [](Eigen::Index of, index_t n) {
        std::vector<std::uint8_t> mask(static_cast<std::size_t>(of), 0);
        std::fill_n(mask.begin(), n, 1);
        return mask;
    };
    const pare::head_shape& of = shape.attention;
    kept_units kept{{first(y.heads, of.heads)}, {first(y.filters(), shape.filters)}};
    const auto narrow = [&](index_t rank, index_t size) -> std::vector<kept_numbers> {
        if (of.heads == 0 || rank == size) return {};
        const auto same = Eigen::MatrixXd::Identity(size, size);
        return {{rank, {static_cast<std::size_t>(of.heads), {same, same}}}};
    };
    kept.queries = narrow(of.queries, y.queries());
    kept.values = narrow(of.values, y.values());
    return kept;
}

batch same_lengths(const model& m, std::int64_t sequences, std::int64_t tokens) {
    constexpr std::int64_t most = 1 << 20; // tokens
    if (sequences < 1 || tokens < 1 || tokens > m.config.max_tokens || sequences > most / tokens)
        throw std::invalid_argument("batches of " + std::to_string(sequences) + " x " +
                                    std::to_string(tokens) + " tokens: expected up to " +
                                    std::to_string(m.config.max_tokens) + " a sequence and " +
                                    std::to_string(most) + " in all");
    batch b;
    std::int32_t id = 0;
    for (std::int64_t s = 0; s < sequences; ++s) {
        sequence ids;
        for (std::int64_t t = 0; t < tokens; ++t)
            ids.push_back(id = static_cast<std::int32_t>((id + 7919) % m.config.vocabulary));
        b.append(ids);
    }
    return b;
}

model without_tokens(model m) {
    m.tokens = {};
    m.exits.clear();
    return m;
}

/// The model with one layer, which has all heads and filters that any of its layers has, and heads of
/// as many numbers. Any weights will do.
model widest_layer(model m) {
    if (m.layers.empty()) throw std::invalid_argument("a model without layers takes no time");
    layer both = m.layers[0];
    index_t queries = 0, values = 0;
    for (const layer& l : m.layers) {
        queries = std::max(queries, l.queries());
        values = std::max(values, l.values());
        if (l.heads > both.heads) {
            both.heads = l.heads;
            both.distance_bias = l.distance_bias;
        }
        if (l.filters() > both.filters()) {
            both.intermediate = l.intermediate;
            both.output = l.output;
        }
    }
    const auto zeros = [](Eigen::Index out, Eigen::Index in) -> dense {
        return {matrix::Zero(out, in), vector::Zero(out)};
    };
    const Eigen::Index hidden = m.config.hidden;
    both.query = both.key = zeros(both.heads * queries, hidden);
    both.value = zeros(both.heads * values, hidden);
    both.attention_output = zeros(hidden, both.heads * values);
    m.layers = {both};
    return m;
}

/// What times depend on besides widths and the place, in words.
std::string shape(const model& m, const latency_options& of) {
    std::string words = "hidden size " + std::to_string(m.config.hidden) +
                        ", heads x numbers of their queries, values + filters of layers";
    for (const layer& l : m.layers)
        words += " " + std::to_string(l.heads) + "x" + std::to_string(l.queries()) + "," +
                 std::to_string(l.values()) + "+" + std::to_string(l.filters());
    return words + ", batches of " + std::to_string(of.sequences) + " x " +
           std::to_string(of.tokens) + " tokens";
}

double time_of(const std::filesystem::path& file, const std::string& name,
               const nlohmann::json& value) {
    const double time = value.is_number() ? value.get<double>() : -1;
    if (!(time >= 0 && time < 1e9))
        detail::fail(file, name, " is ", value.dump(), ", not a time from 0 to 1e9");
    return time;
}

/// f(width, what the object has for it), for widths up to `most`.
template <class F>
void for_widths(const std::filesystem::path& file, const std::string& name,
                const nlohmann::json& value, index_t most, const F& f) {
    if (!value.is_object()) detail::fail(file, name, " is not an object of times by width");
    for (const auto& [key, of_width] : value.items()) {
        index_t width = -1;
        if (!read_number(key, width) || width < 0 || width > most)
            detail::fail(file, name, " holds the width '", key, "', expected 0 to ", most);
        f(width, of_width);
    }
}

/// {"0": time, "16": time, ...}, up to `most`; `ends`: both of which must be there.
std::map<index_t, double> times_of(const std::filesystem::path& file, const std::string& name,
                                   const nlohmann::json& value, index_t most, bool ends) {
    std::map<index_t, double> times;
    for_widths(file, name, value, most, [&](index_t width, const nlohmann::json& time) {
        times[width] = time_of(file, name + " " + std::to_string(width), time);
    });
    if (ends && (times.count(0) == 0 || times.count(most) == 0))
        detail::fail(file, name, " does not hold the widths 0 and ", most);
    return times;
}

nlohmann::ordered_json to_json(const std::map<index_t, double>& times) {
    nlohmann::ordered_json all;
    for (const auto& [width, time] : times) all[std::to_string(width)] = time;
    return all;
}

/// The times in a file, if it is there, by place and by shape. Throws for any other JSON, so that
/// nobody's is added to.
nlohmann::ordered_json known_times(const std::filesystem::path& file) {
    if (!detail::is_file(file)) return nlohmann::ordered_json::object();
    const std::string text = detail::read_text(file);
    detail::parse_json(file, text); // which names what is wrong
    auto all = nlohmann::ordered_json::parse(text);
    for (const auto& [place, by_shape] : all.items()) {
        if (!by_shape.is_object() || by_shape.empty())
            detail::fail(file, "'", place,
                         "' is not an object of times by shape; name another file");
        for (const auto& [shape, times] : by_shape.items())
            for (const char* const key : {"dense", "heads", "filters"})
                if (!times.is_object() || !times.contains(key))
                    detail::fail(file, "the times of '", shape, "' lack '", key,
                                 "'; name another file");
    }
    return all;
}

} // namespace

latency::latency(const engine& dense, latency_options options)
    : options_(std::move(options)),
      batch_(same_lengths(dense.model(), options_.sequences, options_.tokens)),
      whole_(dense.make(without_tokens(dense.model()))), widest_(widest_layer(whole_->model())),
      unit_(dense.make(widest_)) {
    load();
    if (!(dense_ > 0)) dense_ = in_turn({unit_.get(), whole_.get()}, batch_)[1];
    const layer& widest = widest_.layers[0];
    std::vector<layer_shape> some;
    for (const auto& [q, v] :
         {numbers{least().first, most().second}, numbers{most().first, least().second}, most()}) {
        heads_[{q, v}][0] = 0;
        for (index_t h = 1; h <= widest.heads; ++h) some.push_back({{h, q, v}, 0});
    }
    for (index_t i = 1; i < 8; ++i)
        some.push_back({{}, widest.filters() * i / 8 / filter_multiple * filter_multiple});
    some.push_back({{}, widest.filters()});
    measure(some);
}

latency::numbers latency::most() const {
    return {widest_.layers[0].queries(), widest_.layers[0].values()};
}

latency::numbers latency::least() const {
    numbers fewest = most();
    for (const layer& l : whole_->model().layers) {
        if (l.heads == 0) continue;
        fewest.first = std::min(fewest.first, number_multiple(l.queries()));
        fewest.second = std::min(fewest.second, number_multiple(l.values()));
    }
    return fewest;
}

bool latency::measure(const std::vector<layer_shape>& shapes) {
    std::vector<std::unique_ptr<engine>> nets;
    std::vector<std::pair<times*, layer_shape>> missing; // of heads or of filters alone
    const auto add = [&](times& known, index_t width, const layer_shape& of) {
        if (width == 0) {
            known[0] = 0;
        } else if (known.emplace(width, -1).second) {
            missing.emplace_back(&known, of);
        }
    };
    for (const layer_shape& of : shapes) {
        const pare::head_shape& heads = of.attention;
        if (heads.heads > 0) add(heads_[{heads.queries, heads.values}], heads.heads, {heads, 0});
        add(filters_, of.filters, {{}, of.filters});
    }
    if (missing.empty()) return false;
    const auto make = [&](const layer_shape& of) {
        nets.push_back(whole_->make(shrink(widest_, first_units(widest_, of))));
    };
    make({{}, 0});
    for (const auto& of : missing) make(of.second);
    std::vector<engine*> all = {unit_.get()};
    for (const auto& net : nets) all.push_back(net.get());
    const std::vector<double> found = in_turn(all, batch_);
    for (std::size_t i = 0; i < missing.size(); ++i) {
        auto& [known, of] = missing[i];
        (*known)[of.attention.heads > 0 ? of.attention.heads : of.filters] =
            std::max(0., found[i + 2] - found[1]);
    }
    return true;
}

namespace {

/// What lies between two neighbours at `at`, on a straight line.
double between(index_t at, index_t low, double of_low, index_t high, double of_high) {
    if (low == high) return of_low;
    const double share = static_cast<double>(at - low) / static_cast<double>(high - low);
    return (1 - share) * of_low + share * of_high;
}

/// Between its neighbours, of which there are some at both sides.
double at(const std::map<index_t, double>& times, index_t width) {
    const auto above = times.lower_bound(width);
    const auto below = above->first == width ? above : std::prev(above);
    return between(width, below->first, below->second, above->first, above->second);
}

} // namespace

double latency::time_of_heads(const pare::head_shape& shape) const {
    if (shape.heads == 0) return 0;
    const auto known = heads_.find({shape.queries, shape.values});
    if (known != heads_.end())
        if (const auto found = known->second.find(shape.heads); found != known->second.end())
            return found->second;
    // Work is a sum over both kinds of numbers: each along what was timed with all of the other.
    std::map<index_t, double> by_queries, by_values;
    for (const auto& [of, by_heads] : heads_) {
        const auto found = by_heads.find(shape.heads);
        if (found == by_heads.end()) continue;
        if (of.second == most().second) by_queries[of.first] = found->second;
        if (of.first == most().first) by_values[of.second] = found->second;
    }
    const double sum = at(by_queries, shape.queries) + at(by_values, shape.values);
    return std::max(0., sum - by_queries.at(most().first));
}

sublayer_costs latency::of_layers() const {
    sublayer_costs costs;
    if (options_.fitted) {
        const numbers low = least(), high = most();
        const pare::hinge_cost narrow_queries = fit(heads_.at({low.first, high.second})),
                               narrow_values = fit(heads_.at({high.first, low.second})),
                               all = fit(heads_.at(high));
        costs.heads = [=, whole = dense_](std::size_t, const pare::head_shape& of) {
            const double of_all = all(of.heads);
            const double by_queries =
                between(of.queries, low.first, narrow_queries(of.heads), high.first, of_all);
            const double by_values =
                between(of.values, low.second, narrow_values(of.heads), high.second, of_all);
            return of.heads > 0 ? whole * std::max(0., by_queries + by_values - of_all) : 0;
        };
    } else {
        costs.heads = [this](std::size_t, const pare::head_shape& of) { return time_of_heads(of); };
    }
    costs.filters = [this](std::size_t l) {
        const index_t units = whole_->model().layers[l].filters();
        std::vector<double> cost;
        if (options_.fitted) {
            const pare::hinge_cost formula = fit(unit_kind::filter);
            for (index_t k = 0; k <= units; ++k) cost.push_back(dense_ * formula(k));
            return pare::cost_table(std::move(cost));
        }
        for (index_t k = 0; k <= units; ++k) cost.push_back(at(filters_, k));
        return pare::cost_table(std::move(cost));
    };
    return costs;
}

pare::hinge_cost latency::fit(const times& of) const {
    std::vector<index_t> widths;
    std::vector<double> shares;
    for (const auto& [width, time] : of) {
        widths.push_back(width);
        shares.push_back(time / dense_);
    }
    return pare::fit_hinge(widths, shares);
}

pare::hinge_cost latency::fit(unit_kind kind) const {
    return fit(kind == unit_kind::head ? heads_.at(most()) : filters_);
}

void latency::load() {
    if (options_.times.empty()) return;
    const auto all = known_times(options_.times);
    const auto here = all.find(whole_->place());
    if (here == all.end()) return;
    const auto of_shape = here->find(shape(whole_->model(), options_));
    if (of_shape == here->end()) return;
    const nlohmann::json known = *of_shape;
    const layer& widest = widest_.layers[0];
    dense_ = time_of(options_.times, "dense", known["dense"]);
    for_widths(options_.times, "heads", known["heads"], most().first,
               [&](index_t q, const nlohmann::json& of_queries) {
                   const std::string name = "heads of " + std::to_string(q);
                   for_widths(options_.times, name, of_queries, most().second,
                              [&](index_t v, const nlohmann::json& of) {
                                  heads_[{q, v}] =
                                      times_of(options_.times, name + " and " + std::to_string(v),
                                               of, widest.heads, numbers{q, v} == most());
                              });
               });
    filters_ = times_of(options_.times, "filters", known["filters"], widest.filters(), true);
}

void latency::save() const {
    if (options_.times.empty()) return;
    // Others may have written meanwhile, or do: nothing of theirs is lost.
    output file(options_.times);
    nlohmann::ordered_json all = known_times(options_.times);
    nlohmann::ordered_json heads;
    for (const auto& [of, by_heads] : heads_)
        heads[std::to_string(of.first)][std::to_string(of.second)] = to_json(by_heads);
    all[whole_->place()][shape(whole_->model(), options_)] = {
        {"dense", dense_}, {"heads", heads}, {"filters", to_json(filters_)}};
    file.write(to_text(all));
    put_in_place({&file});
}

double latency::rest() const {
    const sublayer_costs costs = of_layers();
    const std::vector<layer>& layers = whole_->model().layers;
    double rest = dense_;
    for (std::size_t l = 0; l < layers.size(); ++l) {
        const layer& y = layers[l];
        rest -= costs.heads(l, {y.heads, y.queries(), y.values()}) + costs.filters(l)(y.filters());
    }
    return rest;
}

double latency::share_of(const model& other) {
    const std::unique_ptr<engine> net = whole_->make(without_tokens(other));
    return in_turn({whole_.get(), net.get()}, batch_)[1];
}

found_units search(const model& m, const sublayer_losses& losses, latency& costs, double share,
                   layer_widths allowed) {
    const layer_choices choices(m, losses, allowed);
    double missed = 0; // by the sums, of the dense model's time
    found_units result;
    for (int attempt = 0; attempt < 3; ++attempt) {
        pare::width_choice found;
        std::vector<layer_shape> shapes;
        do {
            const double budget = (share - missed) * costs.dense() - costs.rest();
            const pare::width_search all(choices.sublayers(costs.of_layers()), budget);
            found = all.best(budget);
            result.bound = all.bound(budget);
            if (!found.feasible)
                throw std::invalid_argument(
                    "a share of " + std::to_string(share) + " of the time is below what remains " +
                    (allowed == layer_widths::uneven ? "without heads and filters, "
                                                     : "with the least of equal widths, ") +
                    std::to_string((found.cost + costs.rest()) / costs.dense() + missed));
            shapes = choices.shapes(found.kept);
        } while (costs.measure(shapes));
        result.kept = choices.keep(shapes);
        result.loss = found.loss;
        const double achieved = costs.share_of(shrink(m, result.kept));
        const double promised = (found.cost + costs.rest()) / costs.dense() + missed;
        if (std::abs(achieved - share) <= 0.02 * share || promised < 0.98 * share) break;
        missed += achieved - share;
    }
    return result;
}

} // namespace encoder
