// What dropping tokens does, for the eye: one HTML file that needs nothing else.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace encoder {

struct page {
    /// The tokens of a text as the vocabulary has them, and the layer (from 0) in which each
    /// leaves; the number of layers for those that stay.
    struct text {
        std::vector<std::string> tokens;
        std::vector<std::size_t> layers;
    };
    struct point {
        double macs_ratio, metric;
    };
    struct series {
        std::string name;
        std::vector<point> points;
    };

    std::string title, summary;
    std::vector<std::pair<std::string, std::string>> facts; ///< names and values
    std::vector<text> texts;
    std::vector<double> kept; ///< by layer, the share of all tokens that stays in it
    std::string metric;       ///< its name
    double dense = std::numeric_limits<double>::quiet_NaN(); ///< the metric with all tokens
    std::vector<series> curves; ///< the first is the one that the page is about
};

/// The page, light or dark as the reader's screen is. What there are no data of is left out, and so
/// is a metric that is NaN. Throws std::invalid_argument if a text has not as many layers as
/// tokens.
std::string to_html(const page& p);

} // namespace encoder
