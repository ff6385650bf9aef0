// A file of times by width.
#include "files.hpp"
#include "timed.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    static const fuzz::timed dense(fuzz::small_model());
    const auto file = here.file("times", {reinterpret_cast<const char*>(data), size});
    fuzz::unusable([&] {
        const encoder::latency times(dense, fuzz::options(file));
        EXPECT(times.dense() > 0);
        times.rest();
        const encoder::sublayer_costs costs = times.of_layers();
        const encoder::model& m = dense.model();
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            costs.filters(l);
            const Eigen::Index queries = encoder::number_multiple(m.queries()[l]),
                               values = encoder::number_multiple(m.values()[l]);
            for (Eigen::Index h = 0; h <= m.heads()[l]; ++h)
                for (Eigen::Index q = queries; q <= m.queries()[l]; q += queries)
                    for (Eigen::Index v = values; v <= m.values()[l]; v += values)
                        costs.heads(l, {h, q, v});
        }
        for (const auto kind : {encoder::unit_kind::head, encoder::unit_kind::filter})
            times.fit(kind);
        times.save();
        EXPECT(!fuzz::unusable([&] { encoder::latency(dense, fuzz::options(file)); }));
    });
    return 0;
}
