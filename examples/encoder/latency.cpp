#include "latency.hpp"

#include "evaluate.hpp"
#include "progress.hpp"

#include <algorithm>
#include <chrono>
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
std::vector<double> in_turn(const std::vector<network*>& nets, const batch& b) {
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
        }
        if (l.filters() > both.filters()) {
            both.intermediate = l.intermediate;
            both.output = l.output;
        }
    }
    m.layers = {both};
    return m;
}

} // namespace

latency::latency(const model& m, std::int64_t sequences, std::int64_t tokens)
    : batch_(same_lengths(m, sequences, tokens)), whole_(without_tokens(m)),
      widest_(widest_layer(without_tokens(m))), unit_(widest_) {
    dense_ = in_turn({&unit_, &whole_}, batch_)[1];
    std::vector<index_t> some;
    const layer& widest = widest_.layers[0];
    for (index_t h = 0; h <= widest.heads(m.config.head_size); ++h) some.push_back(h);
    measure(unit_kind::head, some);
    some = {0, widest.filters()};
    for (index_t i = 1; i < 8; ++i)
        some.push_back(widest.filters() * i / 8 / filter_multiple * filter_multiple);
    measure(unit_kind::filter, some);
}

bool latency::measure(unit_kind kind, const std::vector<index_t>& widths) {
    std::map<index_t, double>& timed = kind == unit_kind::head ? heads_ : filters_;
    std::vector<network> nets;
    std::vector<index_t> missing;
    nets.emplace_back(shrink(widest_, first_units(widest_, 0, 0)));
    for (const index_t w : widths)
        if (timed.count(w) == 0 && std::find(missing.begin(), missing.end(), w) == missing.end()) {
            missing.push_back(w);
            nets.emplace_back(shrink(widest_, kind == unit_kind::head
                                                  ? first_units(widest_, w, 0)
                                                  : first_units(widest_, 0, w)));
        }
    if (missing.empty()) return false;
    std::vector<network*> all = {&unit_};
    for (network& net : nets) all.push_back(&net);
    const std::vector<double> times = in_turn(all, batch_);
    for (std::size_t i = 0; i < missing.size(); ++i)
        timed[missing[i]] = missing[i] == 0 ? 0 : std::max(0., times[i + 2] - times[1]);
    return true;
}

pare::cost_table latency::table(std::size_t l, unit_kind kind) const {
    const layer& of = whole_.model().layers[l];
    const bool is_head = kind == unit_kind::head;
    const index_t units = is_head ? of.heads(widest_.config.head_size) : of.filters();
    const std::map<index_t, double>& timed = is_head ? heads_ : filters_;
    std::vector<double> cost;
    for (index_t k = 0; k <= units; ++k) {
        const auto above = timed.lower_bound(k);
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

double latency::rest() const {
    double rest = dense_;
    for (std::size_t l = 0; l < whole_.model().layers.size(); ++l)
        for (const unit_kind kind : {unit_kind::head, unit_kind::filter}) {
            const pare::cost_table of_sublayer = table(l, kind);
            rest -= of_sublayer(of_sublayer.units());
        }
    return rest;
}

double latency::share_of(const model& other) {
    network net(without_tokens(other));
    return in_turn({&whole_, &net}, batch_)[1];
}

kept_units search(const model& m, const std::vector<pare::loss_curve>& losses, latency& costs,
                  double share) {
    const auto cost = [&](std::size_t l, unit_kind kind) { return costs.table(l, kind); };
    double missed = 0; // by the sums, of the dense model's time
    kept_units kept;
    for (int attempt = 0; attempt < 3; ++attempt) {
        pare::width_choice found;
        do {
            const double budget = (share - missed) * costs.dense() - costs.rest();
            found = pare::width_search(prunables(m, losses, cost), budget).best(budget);
            if (!found.feasible)
                throw std::invalid_argument(
                    "a share of " + std::to_string(share) +
                    " of the time is below what remains without heads and filters, " +
                    std::to_string(costs.rest() / costs.dense() + missed));
            std::vector<index_t> heads, filters; // in turn, as the curves are
            for (std::size_t i = 0; i < found.kept.size(); ++i)
                (i % 2 == 0 ? heads : filters).push_back(found.kept[i]);
            const bool more_heads = costs.measure(unit_kind::head, heads);
            if (!costs.measure(unit_kind::filter, filters) && !more_heads) break;
        } while (true);
        kept = keep(m, losses, found.kept);
        const double achieved = costs.share_of(shrink(m, kept));
        const double promised = (found.cost + costs.rest()) / costs.dense() + missed;
        if (std::abs(achieved - share) <= 0.02 * share || promised < 0.98 * share) break;
        missed += achieved - share;
    }
    return kept;
}

} // namespace encoder
