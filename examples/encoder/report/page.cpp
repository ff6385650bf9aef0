#include "page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace encoder {
namespace {

constexpr const char* style = R"(
:root {
  color-scheme: light dark;
  --paper: #fcfbf8; --ink: #1c2126; --muted: #5d6873; --rule: #e4e0d7; --track: #efece4;
  --c0: #14589b; --c1: #b8500f; --c2: #4d7a1f; --c3: #7b4aa8; --c4: #9a3157; --c5: #59636d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e6e8ea; --muted: #98a3ae; --rule: #2c3239; --track: #20252b;
    --c0: #74b6f0; --c1: #f0a05a; --c2: #a3cf70; --c3: #c4a2ec; --c4: #f08cae; --c5: #a9b3bd;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3.5rem 1.5rem 4rem; max-width: 51rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1, h2 { font-family: Charter, "Bitstream Charter", Georgia, serif; line-height: 1.2; }
h1 { margin: 0; font-size: 2.1rem; font-weight: 600; letter-spacing: -.01em; }
h2 { margin: 3.5rem 0 .25rem; font-size: 1.35rem; font-weight: 600; }
p { margin: .4rem 0 1.2rem; }
.muted, figcaption { color: var(--muted); }
.summary { margin-top: .6rem; font-size: 1.1rem; color: var(--muted); }
dl {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1.1rem 1.6rem;
  margin: 2rem 0 0; padding: 1.2rem 0; border: solid var(--rule); border-width: 1px 0;
}
dl div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
dt { font-size: .82rem; color: var(--muted); }
dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1.8rem; }
figcaption { margin-top: .35rem; font-size: .82rem; }
.text { line-height: 2.05; }
.word {
  display: inline-block; vertical-align: top; max-width: 100%; overflow: hidden;
  margin: .16em 0; line-height: 1.72; border-radius: .28em;
}
.word span { display: inline-block; vertical-align: top; }
.word span:first-child { padding-left: .34em; }
.word span:last-child { padding-right: .34em; }
.word span + span { border-left: 1px solid var(--paper); }
.word .special { font-size: .78em; line-height: 2.2; letter-spacing: .03em; }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: .2rem .6rem; font-size: .85rem; }
.legend .word { margin: 0; }
.legend .word span { min-width: 2.1em; padding: 0 .5em; text-align: center; }
.plot { margin-top: 1rem; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; }
svg text { font-size: 13px; fill: var(--muted); font-variant-numeric: tabular-nums; }
svg .value { fill: var(--ink); }
svg .inside { fill: var(--paper); font-weight: 600; }
.grid { stroke: var(--rule); }
.track { fill: var(--track); }
.bar { fill: var(--c0); }
.dense { stroke: var(--muted); stroke-dasharray: 5 4; }
.leader { stroke-width: 1; opacity: .5; }
.curve { fill: none; stroke-width: 1.6; stroke-linejoin: round; opacity: .75; }
.curve.first { stroke-width: 2.8; opacity: 1; }
.mark { stroke: var(--paper); stroke-width: 1.5; }
svg .name { font-weight: 500; }
svg .name.first { font-weight: 700; }
details { margin-top: 1.2rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--muted); }
table { margin-top: .8rem; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem 1.6rem .2rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 500; color: var(--muted); }
)";

std::string escape(const std::string& text) {
    constexpr std::pair<char, const char*> entities[] = {
        {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    std::string escaped;
    for (const char c : text) {
        const auto found = std::find_if(std::begin(entities), std::end(entities),
                                        [c](const auto& e) { return e.first == c; });
        if (found == std::end(entities))
            escaped += c;
        else
            escaped += found->second;
    }
    return escaped;
}

std::string percent(double share) {
    return fmt::format("{:.0f}%", 100 * share);
}

/// What is written, piece by piece.
class writer {
  public:
    template <class... Values>
    void add(fmt::format_string<Values...> format, Values&&... values) {
        fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
    }
    void add_text(const std::string& text) { text_ += text; }
    std::string take() { return std::move(text_); }

  private:
    std::string text_;
};

// Shades of layers, the earliest first: from near the paper's lightness to far from it.
using rgb = std::array<double, 3>;
using ramp = std::array<rgb, 6>;
constexpr ramp light_ramp = {{{242, 239, 228},
                              {214, 230, 178},
                              {127, 203, 184},
                              {52, 152, 188},
                              {36, 92, 160},
                              {21, 33, 92}}};
constexpr ramp dark_ramp = {
    {{32, 37, 43}, {40, 62, 98}, {37, 105, 140}, {60, 157, 160}, {150, 208, 150}, {246, 244, 190}}};

rgb shade(const ramp& r, double at) { // from 0 to 1
    const double place = at * static_cast<double>(r.size() - 1);
    const auto i = std::min(static_cast<std::size_t>(place), r.size() - 2);
    const double t = place - static_cast<double>(i);
    rgb mixed;
    for (std::size_t c = 0; c < 3; ++c) mixed[c] = (1 - t) * r[i][c] + t * r[i + 1][c];
    return mixed;
}

/// Text stands out from light shades in black and from dark ones in white; as WCAG 2 has it, they
/// meet at a luminance of 0.18.
bool is_light(const rgb& c) {
    const auto linear = [](double x) { return std::pow(x / 255, 2.2); };
    return 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]) > 0.18;
}

void add_shades(std::size_t layers, const ramp& r, writer& to) {
    for (std::size_t l = 0; l <= layers; ++l) {
        const double at = layers == 0 ? 1 : static_cast<double>(l) / static_cast<double>(layers);
        const rgb c = shade(r, at);
        to.add(".s{}{{background:rgb({:.0f},{:.0f},{:.0f});color:{}}}\n", l, c[0], c[1], c[2],
               is_light(c) ? "#14181c" : "#fff");
    }
}

/// The words of a text, each a box of its pieces.
void add_text(const page::text& t, std::size_t layers, writer& to) {
    if (t.layers.size() != t.tokens.size())
        throw std::invalid_argument(
            fmt::format("a text of {} tokens has layers for {}", t.tokens.size(), t.layers.size()));
    to.add("<figure><div class=\"text\">");
    std::size_t stay = 0;
    for (std::size_t i = 0; i < t.tokens.size(); ++i) {
        const std::string& token = t.tokens[i];
        const bool continues = i > 0 && token.size() > 2 && token.rfind("##", 0) == 0;
        const bool special = token.size() > 2 && token.front() == '[' && token.back() == ']';
        const std::size_t layer = std::min(t.layers[i], layers);
        stay += layer == layers;
        if (!continues) to.add("{}<span class=\"word\">", i > 0 ? "</span> " : "");
        to.add("<span class=\"s{}{}\" title=\"{}: {}\">{}</span>", layer, special ? " special" : "",
               escape(token),
               layer == layers ? std::string("stays to the end")
                               : fmt::format("leaves in layer {}", layer),
               escape(continues ? token.substr(2) : token));
    }
    to.add("{}</div>\n<figcaption>{} of {} tokens stay to the end.</figcaption></figure>\n",
           t.tokens.empty() ? "" : "</span>", stay, t.tokens.size());
}

void add_texts(const page& p, writer& to) {
    const std::size_t layers = p.layers;
    to.add("<h2>Where each token leaves</h2>\n<p class=\"muted\">A token's shade is the layer in "
           "which it leaves the network; point at one to read it.</p>\n<p class=\"legend\">"
           "<span>leaves in layer</span> <span class=\"word\">");
    for (std::size_t l = 0; l < layers; ++l) to.add("<span class=\"s{}\">{}</span>", l, l);
    to.add("</span> <span>or</span> <span class=\"word\"><span class=\"s{}\">stays to the "
           "end</span></span></p>\n",
           layers);
    for (const page::text& t : p.texts) add_text(t, layers, to);
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

void add_bars(const page::bars& b, writer& to) {
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

std::string to_html(const page& p) {
    writer to;
    to.add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
           "name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
           "<title>{}</title>\n<style>",
           escape(p.title));
    to.add_text(style);
    add_shades(p.layers, light_ramp, to);
    to.add("@media (prefers-color-scheme: dark) {{\n");
    add_shades(p.layers, dark_ramp, to);
    to.add("}}\n</style>\n</head>\n<body>\n<h1>{}</h1>\n<p class=\"summary\">{}</p>\n",
           escape(p.title), escape(p.summary));
    if (!p.facts.empty()) {
        to.add("<dl>\n");
        for (const auto& [name, value] : p.facts)
            to.add("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
        to.add("</dl>\n");
    }
    if (!p.texts.empty()) add_texts(p, to);
    for (const page::bars& b : p.charts)
        if (!b.shares.empty()) add_bars(b, to);
    for (const page::plot& q : p.plots) {
        const std::vector<page::series> curves = drawable(q);
        if (std::none_of(curves.begin(), curves.end(),
                         [](const auto& s) { return !s.points.empty(); }))
            continue;
        add_plot(q, curves, to);
        add_table(q, curves, to);
    }
    to.add("</body>\n</html>\n");
    return to.take();
}

} // namespace encoder
