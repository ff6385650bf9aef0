// Tensor files: what is read can be written and read again.
#include "files.hpp"

#include "encoder/files/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::folder here;
    const auto path = here.file("tensors", {reinterpret_cast<const char*>(data), size});
    fuzz::unusable([&] {
        const encoder::safetensors_file file(path);
        std::vector<encoder::tensor> tensors;
        for (const auto& named : file.entries()) {
            const std::string& name = named.first;
            const encoder::safetensors_file::entry& entry = named.second;
            tensors.push_back(
                {name, entry.dtype, entry.shape, {entry.data, entry.data + entry.bytes}});
            if (encoder::data_type_of(entry.dtype) == encoder::data_type::other) continue;
            fuzz::unusable([&] {
                const std::vector<float> values = file.read(name, entry.shape);
                const encoder::tensor made = encoder::make_tensor(
                    name, entry.shape, values.data(), encoder::data_type_of(entry.dtype));
                EXPECT(made.bytes == tensors.back().bytes);
            });
        }
        const auto copy = here / "copy";
        encoder::write_safetensors(copy, tensors);
        EXPECT(!fuzz::unusable([&] { encoder::safetensors_file{copy}; }));
        const encoder::safetensors_file again(copy);
        EXPECT(again.entries().size() == tensors.size());
        for (const encoder::tensor& t : tensors) {
            const auto& entry = again.entries().at(t.name);
            EXPECT(entry.dtype == t.dtype && entry.shape == t.shape &&
                   entry.bytes == t.bytes.size());
            EXPECT(t.bytes.empty() || std::memcmp(entry.data, t.bytes.data(), entry.bytes) == 0);
        }
    });
    return 0;
}
