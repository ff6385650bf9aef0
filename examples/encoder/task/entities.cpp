#include "entities.hpp"

#include <algorithm>
#include <stdexcept>
#include <string_view>

namespace encoder {
namespace {

double ratio(std::size_t part, std::size_t all) {
    return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
}

} // namespace

bool operator==(const entity& a, const entity& b) {
    return a.begin == b.begin && a.end == b.end && a.type == b.type;
}

std::vector<entity> entities_of(const std::vector<std::string>& labels) {
    std::vector<entity> all;
    bool is_open = false; // the last of `all` may go on
    for (std::size_t at = 0; at < labels.size(); ++at) {
        const std::string& label = labels[at];
        const char place = label.empty() ? 'O' : label[0];
        if (std::string_view("BIES").find(place) == std::string_view::npos) {
            is_open = false;
            continue;
        }
        const std::string type = label.substr(label.size() > 1 && label[1] == '-' ? 2 : 1);
        const bool goes_on = is_open && (place == 'I' || place == 'E') && all.back().type == type;
        if (!goes_on) all.push_back({type, at, at});
        all.back().end = at + 1;
        is_open = place == 'B' || place == 'I';
    }
    return all;
}

void entity_counts::add(const std::vector<std::string>& expected,
                        const std::vector<std::string>& given) {
    if (expected.size() != given.size())
        throw std::invalid_argument("a sentence has " + std::to_string(expected.size()) +
                                    " labels, " + std::to_string(given.size()) + " were given");
    const std::vector<entity> is = entities_of(expected), was = entities_of(given);
    there += is.size();
    found += was.size();
    // Both are in the order of their first words, of which no two are the same.
    auto other = was.begin();
    for (const entity& e : is) {
        other = std::find_if(other, was.end(), [&](const entity& x) { return x.begin >= e.begin; });
        if (other != was.end() && *other == e) ++right;
    }
}

double entity_counts::precision() const {
    return ratio(right, found);
}

double entity_counts::recall() const {
    return ratio(right, there);
}

double entity_counts::f1() const {
    return ratio(2 * right, there + found);
}

} // namespace encoder
