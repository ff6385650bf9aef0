// A file of statistics, whose checksum is made to fit so that the rest is read. What is loaded is
// what is saved again, and gives matrices.
#include "fuzz.hpp"

#include <pare/prune/statistics_file.hpp>

#include <sstream>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    pare::detail::checksum sum;
    sum.add(data, size);
    std::string bytes(reinterpret_cast<const char*>(data), size);
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(sum.value >> (8 * i) & 255);
    std::istringstream file(bytes);
    std::vector<pare::sublayer_statistics> found;
    try {
        found = pare::load_statistics(file);
    } catch (const pare::value_error&) {
        return 0;
    }
    std::ostringstream again;
    pare::save(again, found);
    EXPECT(again.str() == bytes.substr(0, again.str().size()));
    for (pare::sublayer_statistics& s : found) {
        EXPECT(s.inputs.covariance().rows() == s.inputs.inputs());
        EXPECT(s.inputs.covariance_xy().cols() == s.inputs.outputs());
        EXPECT(s.metric.sums().extent(0) == s.metric.sums().extent(1));
        EXPECT(!(s.sums.variance_y() < 0));
    }
    return 0;
}
