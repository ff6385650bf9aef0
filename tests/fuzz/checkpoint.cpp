// A checkpoint's state.json, behind the arguments of the run, and its weights.safetensors; without
// the latter, weights that fit. What is resumed learns, and is saved so that it can be resumed.
#include "small_run.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::small_run run;
    const std::vector<std::string> parts =
        fuzz::split({reinterpret_cast<const char*>(data), size}, 2);
    run.here.file("resumed/state.json", run.beginning() + parts[0]);
    run.here.file("resumed/weights.safetensors", parts[1].empty() ? run.weights() : parts[1]);

    encoder::network net(run.model);
    encoder::trainer t(net, run.data, run.how);
    if (fuzz::unusable([&] { t.resume(run.here / "resumed"); })) return 0;
    try {
        for (int epochs = 0; !t.done(); ++epochs) {
            EXPECT(epochs < 4);
            t.epoch();
        }
    } catch (const std::runtime_error& e) { // the loss is not finite
        EXPECT(*e.what() != '\0');
        return 0;
    }
    fuzz::unusable([&] { // a weight may be infinite by now
        t.save(run.here / "again");
        EXPECT(!fuzz::unusable([&] {
            encoder::network other(run.model);
            encoder::trainer(other, run.data, run.how).resume(run.here / "again");
        }));
    });
    return 0;
}
