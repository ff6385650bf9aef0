#include "drawing.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace encoder {
namespace {

/// Neighbours of about the same share are one rectangle, which makes the page a tenth as long.
void add_row(const std::vector<double>& row, double y, double width, double height, writer& to) {
    constexpr int levels = 20;
    const auto level = [&](std::size_t i) { // 0 for NaN
        return row[i] > 0 ? static_cast<int>(std::lround(levels * std::min(row[i], 1.))) : 0;
    };
    for (std::size_t i = 0, end; i < row.size(); i = end) {
        for (end = i + 1; end < row.size() && level(end) == level(i);) ++end;
        if (level(i) > 0)
            to.add("<rect x=\"{:g}\" y=\"{:g}\" width=\"{:g}\" height=\"{:g}\" "
                   "fill-opacity=\"{:g}\"/>",
                   width * static_cast<double>(i), y, width * static_cast<double>(end - i), height,
                   static_cast<double>(level(i)) / levels);
    }
}

} // namespace

void draw(const page::heat_maps& h, writer& to) {
    to.add("<h2>{}</h2>\n<p class=\"muted\">{}</p>\n<div class=\"maps\">\n", escape(h.title),
           escape(h.about));
    for (const page::heat_map& m : h.maps) {
        std::size_t widest = 1;
        for (const auto& row : m.rows) widest = std::max(widest, row.size());
        constexpr double width = 320, height = 120;
        const double across = width / static_cast<double>(widest),
                     down = height / static_cast<double>(std::max<std::size_t>(1, m.rows.size()));
        to.add("<figure><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" "
               "shape-rendering=\"crispEdges\">\n",
               width, height, escape(m.name));
        for (std::size_t i = 0; i < m.rows.size(); ++i)
            add_row(m.rows[i], down * static_cast<double>(i), across, down, to);
        to.add("</svg>\n<figcaption>{}</figcaption></figure>\n", escape(m.name));
    }
    to.add("</div>\n");
}

} // namespace encoder
