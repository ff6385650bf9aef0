// GGUF files: what is opened can be read, key by key and tensor by tensor.
#include "files.hpp"

#include "language_model/gguf.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    const auto path = here.file("tensors.gguf", {reinterpret_cast<const char*>(data), size});
    fuzz::unusable([&] {
        const language::gguf_file file(path);
        for (const auto& [of, entry] : file.entries()) {
            const std::string& name = of;
            const language::gguf_file::entry& e = entry;
            EXPECT(e.bytes <= size && e.shape.size() >= 1 && e.shape.size() <= 4);
            fuzz::unusable([&] {
                std::int64_t count = 1;
                for (const std::int64_t n : e.shape) count *= n;
                const std::vector<float> values = file.read(name, e.shape);
                EXPECT(values.size() == static_cast<std::size_t>(count));
                for (const float x : values) EXPECT(x - x == 0);
            });
        }
        // Every piece of the input that may be a key.
        for (std::size_t at = 0; at + 8 <= size; ++at) {
            std::uint64_t length;
            std::memcpy(&length, data + at, sizeof length);
            if (length > size - at - 8) continue;
            const std::string key(reinterpret_cast<const char*>(data) + at + 8,
                                  static_cast<std::size_t>(length));
            if (!file.has(key)) continue;
            fuzz::unusable([&] { EXPECT(file.text(key).size() <= size); });
            fuzz::unusable([&] { file.number(key); });
            fuzz::unusable([&] {
                const double x = file.real(key);
                EXPECT(x - x == 0);
            });
            fuzz::unusable([&] { file.flag(key, false); });
            fuzz::unusable([&] { EXPECT(file.texts(key).size() <= size); });
            fuzz::unusable([&] { EXPECT(file.numbers(key).size() <= size); });
            fuzz::unusable([&] { EXPECT(file.reals(key).size() <= size); });
        }
    });
    return 0;
}
