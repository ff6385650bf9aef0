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
        for (const auto kind : {encoder::unit_kind::head, encoder::unit_kind::filter}) {
            for (std::size_t l = 0; l < dense.model().layers.size(); ++l) times.table(l, kind);
            times.fit(kind);
        }
        times.save();
        EXPECT(!fuzz::unusable([&] { encoder::latency(dense, fuzz::options(file)); }));
    });
    return 0;
}
