#include "drawing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace encoder {
namespace {

std::string percent(double share) {
    return fmt::format("{:.0f}%", 100 * share);
}

/// From a range of numbers to one of an SVG's.
struct scale {
    double low, high, from, to;
    double operator()(double x) const { return from + (x - low) / (high - low) * (to - from); }
};

struct tick_marks {
    std::vector<double> at;
    int decimals;
};
/// About `wanted` round numbers from low to high.
tick_marks ticks(double low, double high, double wanted) {
    const double rough = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
    const double digit = rough / power;
    const double step = power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
    tick_marks marks{{}, std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)))};
    for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
        marks.at.push_back(i * step + 0.); // 0 without a sign
    return marks;
}

constexpr double width = 760;

/// A series' mark: a circle for the first, other shapes for the others.
std::string mark(std::size_t series, double x, double y) {
    switch (series % 4) {
    case 0:
        return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5.5\"", x, y);
    case 1:
        return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"9\" height=\"9\"", x - 4.5,
                           y - 4.5);
    case 2:
        return fmt::format("<path d=\"M{:.1f} {:.1f}l6 6l-6 6l-6 -6z\"", x, y - 6);
    default:
        return fmt::format("<path d=\"M{:.1f} {:.1f}l6 10h-12z\"", x, y - 6.5);
    }
}

/// A name beside the plot, and the place that it belongs to.
struct label {
    std::string text;
    std::size_t series; // `dense_series`: none
    double x, y, at;
};
constexpr std::size_t dense_series = std::numeric_limits<std::size_t>::max();

/// Moves labels apart that would touch, in order.
void spread(std::vector<label>& labels, double bottom) {
    constexpr double line = 18;
    std::sort(labels.begin(), labels.end(), [](const auto& a, const auto& b) { return a.y < b.y; });
    for (std::size_t i = 0; i < labels.size(); ++i)
        labels[i].at = i == 0 ? labels[i].y : std::max(labels[i].y, labels[i - 1].at + line);
    for (std::size_t i = labels.size(); i-- > 0; bottom -= line)
        labels[i].at = std::min(labels[i].at, bottom);
}

std::vector<page::series> drawable(const page::plot& p) {
    std::vector<page::series> all = p.curves;
    for (page::series& s : all) {
        const auto unknown = [](const page::point& q) {
            return !std::isfinite(q.value) || !std::isfinite(q.share);
        };
        s.points.erase(std::remove_if(s.points.begin(), s.points.end(), unknown), s.points.end());
        std::sort(s.points.begin(), s.points.end(),
                  [](const auto& a, const auto& b) { return a.share < b.share; });
    }
    return all;
}

void add_plot(const page::plot& p, const std::vector<page::series>& curves, writer& to) {
    double least = 1, most = 1;
    double low = std::numeric_limits<double>::infinity(), high = -low;
    if (std::isfinite(p.whole)) low = high = p.whole;
    std::size_t longest = 10;
    for (const page::series& s : curves) {
        longest = std::max(longest, s.name.size());
        for (const page::point& q : s.points) {
            least = std::min(least, q.share);
            most = std::max(most, q.share);
            low = std::min(low, q.value);
            high = std::max(high, q.value);
        }
    }
    least = std::min(least, most - 0.05);
    const double room = std::max(0.05 * (high - low), 1e-3 * std::max(1e-3, std::abs(high)));
    const double label_width = std::min(230., 7.6 * static_cast<double>(longest));

    // The names stand on the left, where the series are furthest apart: the axis is on the right.
    constexpr double height = 420, top = 30, bottom = height - 52, right = width - 52;
    const double left = label_width + 18;
    const scale x{least - 0.02, most + 0.01, left, right}, y{low - room, high + room, bottom, top};
    to.add("<h2>{}</h2>\n<p class=\"muted\">{}</p>\n<div class=\"plot\"><svg "
           "viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{} by share of {}\">\n",
           escape(p.title), escape(p.about), width, height, escape(p.metric), escape(p.cost));
    const tick_marks of_y = ticks(y.low, y.high, 6), of_x = ticks(x.low, x.high, 7);
    for (const double v : of_y.at)
        to.add("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
               "<text x=\"{3}\" y=\"{4:.1f}\">{5:.{6}f}</text>\n",
               left, right, y(v), right + 8, y(v) + 4, v, of_y.decimals);
    for (const double v : of_x.at)
        to.add("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
               "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:.{5}f}%</text>\n",
               x(v), bottom, bottom + 5, bottom + 21, 100 * v, std::max(0, of_x.decimals - 2));
    to.add("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n"
           "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">share of {}</text>\n",
           width, top - 14, escape(p.metric), (left + right) / 2, height - 6, escape(p.cost));

    std::vector<label> labels;
    if (std::isfinite(p.whole)) {
        to.add("<line class=\"dense\" x1=\"{0:.1f}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\">"
               "<title>{4}: {3:.4g}</title></line>\n",
               left, right, y(p.whole), p.whole, escape(p.whole_name));
        labels.push_back({p.whole_name, dense_series, left, y(p.whole), 0});
    }
    for (std::size_t i = curves.size(); i-- > 0;) { // the first is drawn last, over the others
        const page::series& s = curves[i];
        if (s.points.empty()) continue;
        const char* const first = i == 0 ? " first" : "";
        to.add("<g style=\"fill:var(--c{0});stroke:var(--c{0})\"><path class=\"curve{1}\" d=\"",
               i % 6, first);
        for (std::size_t k = 0; k < s.points.size(); ++k)
            to.add("{}{:.1f} {:.1f}", k == 0 ? 'M' : 'L', x(s.points[k].share),
                   y(s.points[k].value));
        to.add("\"/>\n");
        for (const page::point& q : s.points)
            to.add("{} class=\"mark\"><title>{}: {:.4g} at {:.1f}% of the "
                   "{}</title></{}>\n",
                   mark(i, x(q.share), y(q.value)), escape(s.name), q.value, 100 * q.share,
                   escape(p.cost),
                   i % 4 == 0   ? "circle"
                   : i % 4 == 1 ? "rect"
                                : "path");
        to.add("</g>\n");
        labels.push_back({s.name, i, x(s.points[0].share), y(s.points[0].value), 0});
    }
    spread(labels, bottom);
    for (const label& l : labels) {
        const bool dense = l.series == dense_series;
        const std::string colour = dense ? "--muted" : fmt::format("--c{}", l.series % 6);
        to.add(
            "<path class=\"leader\" style=\"stroke:var({})\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"/>"
            "<text class=\"name{}\" style=\"fill:var({})\" x=\"{:.1f}\" y=\"{:.1f}\" "
            "text-anchor=\"end\">{}</text>\n",
            colour, left - 6, l.at, l.x - (dense ? 0 : 8), l.y, l.series == 0 ? " first" : "",
            colour, left - 10, l.at + 4.5, escape(l.text));
    }
    to.add("</svg></div>\n");
}

void add_table(const page::plot& p, const std::vector<page::series>& curves, writer& to) {
    to.add("<details><summary>The numbers</summary><table>\n<tr><th></th><th>{}</th>"
           "<th>{}</th></tr>\n",
           escape(p.cost), escape(p.metric));
    if (std::isfinite(p.whole))
        to.add("<tr><td>{}</td><td>100%</td><td>{:.4g}</td></tr>\n", escape(p.whole_name), p.whole);
    for (const page::series& s : curves)
        for (const page::point& q : s.points)
            to.add("<tr><td>{}</td><td>{:.1f}%</td><td>{:.4g}</td></tr>\n", escape(s.name),
                   100 * q.share, q.value);
    to.add("</table></details>\n");
}

} // namespace

void draw(const page::bars& b, writer& to) {
    constexpr double height = 250, left = 46, top = 22, bottom = height - 42;
    const auto layers = static_cast<double>(b.shares.size());
    const double slot = (width - left) / layers, bar = std::min(56., 0.72 * slot);
    const scale y{0, 1, bottom, top};
    to.add("<h2>{0}</h2>\n<p class=\"muted\">{1}</p>\n<div class=\"plot\"><svg "
           "viewBox=\"0 0 {2} {3}\" role=\"img\" aria-label=\"{0}\">\n",
           escape(b.title), escape(b.about), width, height);
    for (const double share : {0., 0.5, 1.})
        to.add("<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
               "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
               left, width, y(share), left - 8, y(share) + 4, percent(share));
    for (std::size_t l = 0; l < b.shares.size(); ++l) {
        const double middle = left + (static_cast<double>(l) + 0.5) * slot, at = y(b.shares[l]);
        to.add("<g><title>layer {}: {:.1f}% of the {}</title>"
               "<rect class=\"track\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\"/>"
               "<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>",
               l, 100 * b.shares[l], escape(b.what), middle - bar / 2, top, bar, bottom - top,
               middle - bar / 2, at, bar, bottom - at);
        const bool fits = bottom - at > 24; // the number, into the bar
        if (slot > 38)
            to.add("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>",
                   fits ? "inside" : "value", middle, fits ? at + 18 : at - 6,
                   percent(b.shares[l]));
        to.add("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>\n", middle,
               bottom + 18, l);
    }
    to.add("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">layer</text>\n</svg></div>\n",
           (left + width) / 2, height - 4);
}

void draw(const page::plot& p, writer& to) {
    const std::vector<page::series> curves = drawable(p);
    if (std::all_of(curves.begin(), curves.end(), [](const auto& s) { return s.points.empty(); }))
        return;
    add_plot(p, curves, to);
    add_table(p, curves, to);
}

} // namespace encoder
