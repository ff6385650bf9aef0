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

kept_units first_units(const model& m, index_t heads, index_t filters) {
    kept_units kept;
    for (const layer& l : m.layers) {
        kept.heads.emplace_back(static_cast<std::size_t>(l.heads(m.config.head_size)), 0);
        kept.filters.emplace_back(static_cast<std::size_t>(l.filters()), 0);
        std::fill_n(kept.heads.back().begin(), heads, 1);
        std::fill_n(kept.filters.back().begin(), filters, 1);
    }
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

/// The model with one layer, which has all heads and filters that any of its layers has.
model widest_layer(model m) {
    if (m.layers.empty()) throw std::invalid_argument("a model without layers takes no time");
    layer both = m.layers[0];
    for (const layer& l : m.layers) {
        if (l.query.weight.rows() > both.query.weight.rows()) {
            both.query = l.query;
            both.key = l.key;
            both.value = l.value;
            both.attention_output = l.attention_output;
            both.distance_bias = l.distance_bias;
        }
        if (l.filters() > both.filters()) {
            both.intermediate = l.intermediate;
            both.output = l.output;
        }
    }
    m.layers = {both};
    return m;
}

/// What times depend on besides widths and the place, in words.
std::string shape(const model& m, const latency_options& of) {
    std::string words = "hidden size " + std::to_string(m.config.hidden) + ", heads of " +
                        std::to_string(m.config.head_size) + ", heads and filters of layers";
    for (const layer& l : m.layers)
        words +=
            " " + std::to_string(l.heads(m.config.head_size)) + "+" + std::to_string(l.filters());
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

/// {"0": time, "16": time, ...}, up to `most`.
std::map<index_t, double> times_of(const std::filesystem::path& file, const std::string& name,
                                   const nlohmann::json& value, index_t most) {
    std::map<index_t, double> times;
    if (!value.is_object()) detail::fail(file, name, " is not an object of times by width");
    for (const auto& [key, time] : value.items()) {
        index_t width = -1;
        if (!read_number(key, width) || width < 0 || width > most)
            detail::fail(file, name, " holds the width '", key, "', expected 0 to ", most);
        times[width] = time_of(file, name + " " + key, time);
    }
    if (times.count(0) == 0 || times.count(most) == 0)
        detail::fail(file, name, " does not hold the widths 0 and ", most);
    return times;
}

nlohmann::ordered_json to_json(const std::map<index_t, double>& times) {
    nlohmann::ordered_json all;
    for (const auto& [width, time] : times) all[std::to_string(width)] = time;
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
    std::vector<index_t> some;
    const layer& widest = widest_.layers[0];
    for (index_t h = 0; h <= widest.heads(widest_.config.head_size); ++h) some.push_back(h);
    measure(unit_kind::head, some);
    some = {0, widest.filters()};
    for (index_t i = 1; i < 8; ++i)
        some.push_back(widest.filters() * i / 8 / filter_multiple * filter_multiple);
    measure(unit_kind::filter, some);
}

bool latency::measure(unit_kind kind, const std::vector<index_t>& widths) {
    std::map<index_t, double>& known = kind == unit_kind::head ? heads_ : filters_;
    std::vector<std::unique_ptr<engine>> nets;
    std::vector<index_t> missing;
    nets.push_back(whole_->make(shrink(widest_, first_units(widest_, 0, 0))));
    for (const index_t w : widths)
        if (known.count(w) == 0 && std::find(missing.begin(), missing.end(), w) == missing.end()) {
            missing.push_back(w);
            nets.push_back(whole_->make(shrink(widest_, kind == unit_kind::head
                                                            ? first_units(widest_, w, 0)
                                                            : first_units(widest_, 0, w))));
        }
    if (missing.empty()) return false;
    std::vector<engine*> all = {unit_.get()};
    for (const auto& net : nets) all.push_back(net.get());
    const std::vector<double> times = in_turn(all, batch_);
    for (std::size_t i = 0; i < missing.size(); ++i)
        known[missing[i]] = missing[i] == 0 ? 0 : std::max(0., times[i + 2] - times[1]);
    return true;
}

pare::cost_table latency::table(std::size_t l, unit_kind kind) const {
    const layer& of = whole_->model().layers[l];
    const bool is_head = kind == unit_kind::head;
    const index_t units = is_head ? of.heads(widest_.config.head_size) : of.filters();
    if (options_.fitted) {
        const pare::hinge_cost formula = fit(kind);
        std::vector<double> cost;
        for (index_t k = 0; k <= units; ++k) cost.push_back(dense_ * formula(k));
        return pare::cost_table(std::move(cost));
    }
    std::vector<double> cost;
    for (index_t k = 0; k <= units; ++k) {
        const auto above = timed(kind).lower_bound(k);
        if (above->first == k) {
            cost.push_back(above->second);
            continue;
        }
        const auto below = std::prev(above);
        const double share = static_cast<double>(k - below->first) /
                             static_cast<double>(above->first - below->first);
        cost.push_back((1 - share) * below->second + share * above->second);
    }
    return pare::cost_table(std::move(cost));
}

pare::hinge_cost latency::fit(unit_kind kind) const {
    std::vector<index_t> widths;
    std::vector<double> times;
    for (const auto& [width, time] : timed(kind)) {
        widths.push_back(width);
        times.push_back(time / dense_);
    }
    return pare::fit_hinge(widths, times);
}

void latency::load() {
    if (options_.times.empty() || !detail::is_file(options_.times)) return;
    const auto all = detail::parse_json(options_.times, detail::read_text(options_.times));
    const std::string place = whole_->place();
    const auto here = all.find(place);
    if (here == all.end()) return;
    if (!here->is_object()) detail::fail(options_.times, "'", place, "' is not an object");
    const auto of_shape = here->find(shape(whole_->model(), options_));
    if (of_shape == here->end()) return;
    for (const char* const key : {"dense", "heads", "filters"})
        if (!of_shape->is_object() || !of_shape->contains(key))
            detail::fail(options_.times, "the times of '", of_shape.key(), "' lack '", key, "'");
    const layer& widest = widest_.layers[0];
    dense_ = time_of(options_.times, "dense", (*of_shape)["dense"]);
    heads_ = times_of(options_.times, "heads", (*of_shape)["heads"],
                      widest.heads(widest_.config.head_size));
    filters_ = times_of(options_.times, "filters", (*of_shape)["filters"], widest.filters());
}

void latency::save() const {
    if (options_.times.empty()) return;
    // Others may have written meanwhile, or do: nothing of theirs is lost.
    output file(options_.times);
    nlohmann::ordered_json all;
    if (detail::is_file(options_.times))
        all = nlohmann::ordered_json::parse(detail::read_text(options_.times));
    all[whole_->place()][shape(whole_->model(), options_)] = {
        {"dense", dense_}, {"heads", to_json(heads_)}, {"filters", to_json(filters_)}};
    file.write(to_text(all));
    put_in_place({&file});
}

double latency::rest() const {
    double rest = dense_;
    for (std::size_t l = 0; l < whole_->model().layers.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const pare::cost_table of_sublayer = table(l, kind);
            rest -= of_sublayer(of_sublayer.units());
        }
    return rest;
}

double latency::share_of(const model& other) {
    const std::unique_ptr<engine> net = whole_->make(without_tokens(other));
    return in_turn({whole_.get(), net.get()}, batch_)[1];
}

found_units search(const model& m, const std::vector<pare::loss_curve>& losses, latency& costs,
                   double share, layer_widths allowed) {
    const auto cost = [&](std::size_t l, unit_kind kind) { return costs.table(l, kind); };
    double missed = 0; // by the sums, of the dense model's time
    found_units result;
    for (int attempt = 0; attempt < 3; ++attempt) {
        pare::width_choice found;
        do {
            const double budget = (share - missed) * costs.dense() - costs.rest();
            const pare::width_search all(prunables(m, losses, cost, allowed), budget);
            found = all.best(budget);
            result.bound = all.bound(budget);
            if (!found.feasible)
                throw std::invalid_argument(
                    "a share of " + std::to_string(share) + " of the time is below what remains " +
                    (allowed == layer_widths::uneven ? "without heads and filters, "
                                                     : "with the least of equal widths, ") +
                    std::to_string((found.cost + costs.rest()) / costs.dense() + missed));
            std::vector<index_t> heads, filters; // in turn, as the curves are
            for (std::size_t i = 0; i < found.kept.size(); ++i)
                (i % 2 == 0 ? heads : filters).push_back(found.kept[i]);
            const bool more_heads = costs.measure(unit_kind::head, heads);
            if (!costs.measure(unit_kind::filter, filters) && !more_heads) break;
        } while (true);
        result.kept = keep(m, losses, of_sublayers(m, found.kept));
        result.loss = found.loss;
        const double achieved = costs.share_of(shrink(m, result.kept));
        const double promised = (found.cost + costs.rest()) / costs.dense() + missed;
        if (std::abs(achieved - share) <= 0.02 * share || promised < 0.98 * share) break;
        missed += achieved - share;
    }
    return result;
}

} // namespace encoder
