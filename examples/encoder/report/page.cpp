#include "drawing.hpp"
#include "encoder/files/characters.hpp"

#include <algorithm>
#include <array>
#include <cmath>
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
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 1.6rem; }
.maps figure { margin: 0 0 1rem; }
.maps svg { min-width: 0; fill: var(--c0); background: var(--track); }
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

/// Control characters, and what is never a character.
bool is_forbidden(utf8proc_int32_t c) {
    return utf8proc_category(c) == UTF8PROC_CATEGORY_CC || (c & 0xfffe) == 0xfffe ||
           (c >= 0xfdd0 && c <= 0xfdef);
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

} // namespace

std::string escape(const std::string& text) {
    constexpr std::pair<char, const char*> entities[] = {
        {'&', "&amp;"},  {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"},
        {'\'', "&#39;"}, {'\t', "\t"},  {'\n', "\n"}};
    std::string escaped;
    for_characters(text, [&](std::string_view bytes, utf8proc_int32_t character) {
        const auto found = std::find_if(std::begin(entities), std::end(entities),
                                        [&](const auto& e) { return e.first == bytes[0]; });
        if (found != std::end(entities))
            escaped += found->second;
        else if (character < 0 || is_forbidden(character))
            escaped += "\uFFFD";
        else
            escaped += bytes;
    });
    return escaped;
}

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
        if (!b.shares.empty()) draw(b, to);
    for (const page::plot& q : p.plots) draw(q, to);
    for (const page::heat_maps& h : p.heat)
        if (!h.maps.empty()) draw(h, to);
    to.add("</body>\n</html>\n");
    return to.take();
}

} // namespace encoder
