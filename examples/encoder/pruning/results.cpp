#include "results.hpp"

#include "encoder/report/report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace encoder {
namespace {

/// As a key in the report: small letters and no spaces.
std::string key_of(std::string name) {
    for (char& c : name)
        c = c == ' ' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name;
}

std::string bar_of(Eigen::Index kept, Eigen::Index of, Eigen::Index width) {
    std::string bar;
    for (Eigen::Index i = 0; i < width; ++i) bar += i * of < kept * width ? '#' : '.';
    return bar;
}

} // namespace

nlohmann::ordered_json to_json(const pruning_results& r) {
    nlohmann::ordered_json report;
    report["macs_ratio"] = r.macs_ratio;
    report["params_dense"] = r.parameters_dense;
    report["params_pruned"] = r.parameters_pruned;
    report["bytes_dense"] = r.bytes_dense;
    report["bytes_pruned"] = r.bytes_pruned;
    for (std::size_t i = 0; i < r.quality_dense.size(); ++i) {
        const std::string name = key_of(r.quality_dense[i].name);
        report[name + "_dense"] = number(r.quality_dense[i].value);
        report[name + "_pruned"] = number(r.quality_pruned[i].value);
    }
    report[key_of(r.alike.name)] = number(r.alike.value);
    report["difference_to_masked"] = r.difference;
    report["loss_expected"] = r.loss_expected;
    report["loss_bound"] = r.loss_bound;
    for (const char* stage : {"fisher", "search", "rearrange", "tune", "total"})
        report[std::string("seconds_") + stage] = r.seconds.at(stage);
    report["peak_rss_mb"] = peak_memory_mb();
    report["tokens_per_s_dense"] = r.speed.tokens_per_second_dense;
    report["tokens_per_s_pruned"] = r.speed.tokens_per_second_pruned;
    report["speedup"] = r.speed.speedup;
    if (r.latency) {
        report["latency_promised"] = r.latency->promised;
        report["latency_achieved"] = r.latency->achieved;
    }
    for (const auto& [units, fit] : r.fits)
        report[std::string("latency_") + units] = {{"constant", fit.constant},
                                                   {"each", fit.each},
                                                   {"knee", fit.knee},
                                                   {"error", fit.error}};
    report["threads"] = r.threads;
    report["heads_kept"] = r.heads;
    report["queries_kept"] = r.queries;
    report["values_kept"] = r.values;
    report["filters_kept"] = r.filters;
    report["untuned"] = r.notes;
    return report;
}

page to_page(const pruning_results& r, budget_kind kind, const std::vector<pricing::choice>& front,
             const std::vector<measured_budget>& points) {
    const std::string cost = name_of(kind);
    const bool measures = !r.quality_dense.empty();
    const std::string metric = measures ? r.quality_dense[0].name : r.alike.name;
    page p;
    p.title = "Heads and filters that are gone";
    p.summary = fmt::format("{:.1f} % of the multiply-adds, {:.2f} times as fast",
                            100 * r.macs_ratio, r.speed.speedup);
    if (measures)
        p.facts = {{metric + ", dense", decimal(100 * r.quality_dense[0].value, 2)},
                   {metric + ", pruned", decimal(100 * r.quality_pruned[0].value, 2)}};
    p.facts.push_back({r.alike.name, decimal(r.alike.value, 4)});
    p.facts.push_back({"speedup", fmt::format("{:.2f}", r.speed.speedup)});
    p.facts.push_back({"share of parameters",
                       fmt::format("{:.3f}", static_cast<double>(r.parameters_pruned) /
                                                 static_cast<double>(r.parameters_dense))});
    const auto shares = [](const std::vector<Eigen::Index>& kept,
                           const std::vector<Eigen::Index>& of) {
        std::vector<double> all;
        for (std::size_t l = 0; l < kept.size(); ++l)
            all.push_back(static_cast<double>(kept[l]) /
                          static_cast<double>(std::max<Eigen::Index>(1, of[l])));
        return all;
    };
    p.charts = {{"Heads kept, layer by layer", "Share of the dense layer's attention heads.",
                 "heads are kept", shares(r.heads, r.heads_dense)},
                {"Numbers of queries and keys, layer by layer",
                 "Share of the dense layer's, in each head that is kept.", "numbers are kept",
                 shares(r.queries, r.queries_dense)},
                {"Numbers of values, layer by layer",
                 "Share of the dense layer's, in each head that is kept.", "numbers are kept",
                 shares(r.values, r.values_dense)},
                {"Filters kept, layer by layer", "Share of the dense layer's FFN filters.",
                 "filters are kept", shares(r.filters, r.filters_dense)}};
    page::series quality{"pruned", {}}, speed{"pruned", {}}, expected{"expected", {}};
    for (const measured_budget& at : points) {
        quality.points.push_back({at.share, at.quality});
        speed.points.push_back({at.share, at.tokens_per_second});
    }
    double last = -1;
    for (const pricing::choice& c : front)
        if (c.share > last + 0.02) {
            expected.points.push_back({c.share, c.loss / front.front().loss});
            last = c.share;
        }
    p.plots = {
        {"Quality and cost",
         "Measured on models pruned to some budgets, this one among them.",
         cost,
         metric,
         measures ? 100 * r.quality_dense[0].value : 1,
         "dense",
         {quality}},
        {"Speed and cost",
         fmt::format("Of the same models, in batches of {} texts.", r.texts_a_batch),
         cost,
         "tokens/s",
         r.speed.tokens_per_second_dense,
         "dense",
         {speed}},
        {"What the criterion expects",
         "The least loss that the search finds for each budget, of all heads and filters gone.",
         cost,
         "share of the loss",
         NAN,
         "dense",
         {expected}}};
    return p;
}

void print(const pruning_results& r, const std::filesystem::path& out) {
    fmt::print("\nlayer  heads kept             query size   value size   filters kept\n");
    for (std::size_t l = 0; l < r.heads.size(); ++l)
        fmt::print("{:>5}  {} {:>3} of {:<3} {:>3} of {:<4} {:>3} of {:<4} {} {:>5} of {}\n", l,
                   bar_of(r.heads[l], r.heads_dense[l], 12), r.heads[l], r.heads_dense[l],
                   r.queries[l], r.queries_dense[l], r.values[l], r.values_dense[l],
                   bar_of(r.filters[l], r.filters_dense[l], 20), r.filters[l], r.filters_dense[l]);
    fmt::print("\n{:<22}{:>14}{:>14}{:>10}\n", "", "dense", "pruned", "ratio");
    const auto row = [](const char* name, double before, double after, int digits) {
        fmt::print("{:<22}{:>14}{:>14}{:>10}\n", name, decimal(before, digits),
                   decimal(after, digits), decimal(after / before, 3));
    };
    row("MACs a text, millions", r.macs_dense / 1e6, r.macs_ratio * r.macs_dense / 1e6, 1);
    row("parameters", static_cast<double>(r.parameters_dense),
        static_cast<double>(r.parameters_pruned), 0);
    row("bytes", static_cast<double>(r.bytes_dense), static_cast<double>(r.bytes_pruned), 0);
    for (std::size_t i = 0; i < r.quality_dense.size(); ++i)
        row((std::string(r.quality_dense[i].name) + " x 100").c_str(),
            100 * r.quality_dense[i].value, 100 * r.quality_pruned[i].value, 2);
    row("tokens/s", r.speed.tokens_per_second_dense, r.speed.tokens_per_second_pruned, 0);
    fmt::print("\n{:<23}{}\n", r.alike.name, decimal(r.alike.value, 4));
    fmt::print("expected loss          {:.4g}; no choice in the budget loses less than {:.4g}\n",
               r.loss_expected, r.loss_bound);
    fmt::print("speedup                {:.3f}, of {:.3f} that the MACs allow\n", r.speed.speedup,
               1 / r.macs_ratio);
    if (r.latency)
        fmt::print("latency                {:.3f} of the dense model's, promised {:.3f}: {:.3f} of "
                   "the promise\n",
                   r.latency->achieved, r.latency->promised,
                   r.latency->achieved / r.latency->promised);
    for (const auto& [units, fit] : r.fits)
        fmt::print(
            "latency of {:<12}{:.4f} of the dense model's, and {:.5f} for each beyond {}; off "
            "by up to {:.4f}\n",
            units, fit.constant, fit.each, fit.knee, fit.error);
    fmt::print("agrees with masked     within {:.1e} in every output\n", r.difference);
    fmt::print(
        "seconds of pruning     {:.1f} = criterion {:.1f} + search {:.1f} + rearrange {:.1f} + "
        "tune {:.1f}; "
        "with checks {:.1f}\n",
        r.seconds.at("total"), r.seconds.at("fisher"), r.seconds.at("search"),
        r.seconds.at("rearrange"), r.seconds.at("tune"), r.seconds.at("whole"));
    fmt::print("peak memory            {:.0f} MB\ncalibration            {} texts\n",
               peak_memory_mb(), r.texts);
    for (const std::string& note : r.notes) fmt::print("note: {}\n", note);
    fmt::print("written                {}\n", out.string());
}

} // namespace encoder
