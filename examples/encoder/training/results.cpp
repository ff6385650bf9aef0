#include "results.hpp"

#include "encoder/report/report.hpp"
#include "tokens.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace encoder {
namespace {

std::string times_100(double metric) {
    return decimal(100 * metric, 2);
}

} // namespace

measured measure_at(engine& net, const dataset& data, matrix& outputs) {
    std::vector<token_use> use;
    outputs = embed(net, measured_texts(data), "measure", &use);
    measured m{measure(data, outputs), 0, {}};
    m.macs_ratio =
        token_macs(net.model(), use) / dense_token_macs(net.model(), measured_texts(data));
    for (const token_use& u : use)
        m.kept.push_back(static_cast<double>(u.kept) / static_cast<double>(use[0].attending));
    return m;
}

nlohmann::ordered_json to_json(const learning_results& r) {
    const auto seconds = [&](double tokens_per_second) {
        return static_cast<double>(r.tokens) / tokens_per_second;
    };
    nlohmann::ordered_json report;
    report["metric_dense"] = number(r.metric_dense);
    report["metric_pruned"] = number(r.pruned.metric);
    report["macs_ratio"] = r.pruned.macs_ratio;
    report["tokens_kept"] = r.pruned.kept;
    report["seconds_dense"] = seconds(r.at_32.tokens_per_second_dense);
    report["seconds_pruned"] = seconds(r.at_32.tokens_per_second_pruned);
    report["speedup"] = r.at_32.speedup;
    report["speedup_batch_1"] = r.at_1.speedup;
    report["soft_hard_gap"] = number(r.gap.value_or(NAN));
    report["thresholds"] = r.thresholds;
    report["curve"] = nlohmann::json::array();
    for (const operating_point& p : r.curve)
        report["curve"].push_back(
            {{"alpha", p.alpha}, {"macs_ratio", p.macs_ratio}, {"metric", number(p.metric)}});
    report["baselines"] = nlohmann::json::array();
    for (const baseline& b : r.baselines)
        report["baselines"].push_back({{"name", b.name},
                                       {"macs_ratio", b.result.macs_ratio},
                                       {"metric", number(b.result.metric)}});
    report["seconds_total"] = r.seconds;
    report["peak_rss_mb"] = peak_memory_mb();
    report["threads"] = threads();
    return report;
}

page to_page(const learning_results& r, const model& m, const std::vector<sequence>& texts,
             const tokenizer& words, const std::string& metric) {
    page p;
    const double gain = 1 / r.pruned.macs_ratio;
    p.title = "Tokens that leave";
    p.summary = fmt::format("{:.2f} times fewer multiply-adds, {} {} instead of {}", gain, metric,
                            times_100(r.pruned.metric), times_100(r.metric_dense));
    p.facts = {{"share of multiply-adds", fmt::format("{:.3f}", r.pruned.macs_ratio)},
               {metric + ", dense", times_100(r.metric_dense)},
               {metric + ", pruned", times_100(r.pruned.metric)},
               {"speedup in batches of 32", fmt::format("{:.2f}", r.at_32.speedup)},
               {"speedup one by one", fmt::format("{:.2f}", r.at_1.speedup)}};
    constexpr std::size_t most = 8;
    network net(m); // whose layers one sees
    for (std::size_t i = 0; i < std::min(most, texts.size()); ++i) {
        const sequence& s = texts[i * texts.size() / std::min(most, texts.size())];
        page::text t{{}, layers_of_leaving(net, s)};
        for (const std::int32_t id : s) t.tokens.push_back(words.word(without_pin(id)));
        p.texts.push_back(std::move(t));
    }
    p.layers = m.layers.size();
    p.charts = {{"Tokens kept, layer by layer",
                 "Share of all tokens that the FFN of a layer, and the layers after it, still see.",
                 "tokens are kept", r.pruned.kept}};
    page::series learned{"learned", {}};
    for (const operating_point& at : r.curve)
        learned.points.push_back({at.macs_ratio, 100 * at.metric});
    std::vector<page::series> curves = {learned};
    for (const baseline& b : r.baselines)
        curves.push_back({b.name, {{b.result.macs_ratio, 100 * b.result.metric}}});
    p.plots = {{"Quality and cost",
                fmt::format("What is left of the quality ({}) where only a share of the layers' "
                            "multiply-adds is done.",
                            metric),
                "multiply-adds", metric, 100 * r.metric_dense, "all tokens", curves}};
    return p;
}

void print(const learning_results& r, const std::string& metric, const std::filesystem::path& out) {
    fmt::print("\nlayer  threshold  tokens kept\n");
    for (std::size_t l = 0; l < r.thresholds.size(); ++l) {
        constexpr int width = 20;
        std::string bar(width, '.');
        std::fill_n(bar.begin(), std::lround(width * r.pruned.kept[l]), '#');
        fmt::print("{:>5}  {:>9.3f}  {} {:>5.1f} %\n", l, r.thresholds[l], bar,
                   100 * r.pruned.kept[l]);
    }
    fmt::print("\n{:<12}{:>8}{:>15}{:>10}\n", "", "alpha", "share of MACs", metric);
    fmt::print("{:<12}{:>8}{:>15.3f}{:>10}\n", "dense", "", 1., times_100(r.metric_dense));
    for (const operating_point& p : r.curve)
        fmt::print("{:<12}{:>8.2f}{:>15.3f}{:>10}\n", "learned", p.alpha, p.macs_ratio,
                   times_100(p.metric));
    for (const baseline& b : r.baselines)
        fmt::print("{:<12}{:>8}{:>15.3f}{:>10}\n", b.name, "", b.result.macs_ratio,
                   times_100(b.result.metric));
    fmt::print("\nresult                 {} of {} at {:.3f} of the multiply-adds\n",
               times_100(r.pruned.metric), times_100(r.metric_dense), r.pruned.macs_ratio);
    fmt::print("speedup                {:.3f} in batches of 32, {:.3f} one by one, of {:.3f} that "
               "the MACs allow\n",
               r.at_32.speedup, r.at_1.speedup, 1 / r.pruned.macs_ratio);
    if (r.gap) fmt::print("soft to hard           {:+.3f} of the multiply-adds\n", *r.gap);
    fmt::print(
        "seconds                {:.1f}\npeak memory            {:.0f} MB\nwritten              "
        "  {}\n",
        r.seconds, peak_memory_mb(), out.string());
}

} // namespace encoder
