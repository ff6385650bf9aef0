// What pruning does, for the eye: one HTML file that needs nothing else.
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
    /// A share for each layer.
    struct bars {
        std::string title, about;
        std::string what; ///< it is the share of, as "tokens are kept"
        std::vector<double> shares;
    };
    struct point {
        double share, value;
    };
    struct series {
        std::string name;
        std::vector<point> points;
    };
    /// Values where only a share of something is left; the first series is the one that matters.
    struct plot {
        std::string title, about;
        std::string cost, metric; ///< names of what shares are of, and of the values
        double whole = std::numeric_limits<double>::quiet_NaN(); ///< the value with all of it
        std::string whole_name;
        std::vector<series> curves;
    };

    struct heat_map {
        std::string name;
        std::vector<std::vector<double>> rows; ///< of shares, the first at the top, of any lengths
    };
    struct heat_maps {
        std::string title, about;
        std::vector<heat_map> maps;
    };

    std::string title, summary;
    std::vector<std::pair<std::string, std::string>> facts; ///< names and values
    std::size_t layers = 0;
    std::vector<text> texts;
    std::vector<bars> charts;
    std::vector<plot> plots;
    std::vector<heat_maps> heat;
};

/// The page, light or dark as the reader's screen is. What there are no data of is left out, and so
/// is a value that is NaN. Throws std::invalid_argument if a text has not as many layers as
/// tokens.
std::string to_html(const page& p);

} // namespace encoder
