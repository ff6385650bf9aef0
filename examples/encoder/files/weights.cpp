#include "weights.hpp"

#include "settings.hpp"

#include <set>

namespace encoder::detail {
namespace {

/// What other programs call the weights in formats that are not read here.
constexpr const char* other_formats[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                         "tf_model.h5", "flax_model.msgpack", "model.onnx"};

/// The file of each tensor.
std::map<std::string, std::string> read_places(const std::filesystem::path& index) {
    const settings places = settings(index).object("weight_map");
    if (places.all().empty()) fail(index, "names no tensors under weight_map");
    std::map<std::string, std::string> files;
    for (const auto& [name, value] : places.all().items()) {
        if (!value.is_string()) fail(index, "names ", value, " as the file of '", name, "'");
        auto file = value.get<std::string>();
        if (file.empty() || !is_inside(file))
            fail(index, "names the file ", value, ", which is not in its folder");
        files.emplace(name, std::move(file));
    }
    return files;
}

} // namespace

std::vector<std::filesystem::path> weight_files(const std::filesystem::path& folder) {
    if (is_file(folder / weights_file) || !is_file(folder / weights_index))
        return {folder / weights_file};
    std::set<std::filesystem::path> all;
    for (const auto& [name, file] : read_places(folder / weights_index)) all.insert(folder / file);
    return {all.begin(), all.end()};
}

stored_weights::stored_weights(const std::filesystem::path& folder) : path_(folder / weights_file) {
    if (is_file(path_)) {
        all_.push_back(std::make_unique<safetensors_file>(path_));
        for (const auto& [name, entry] : all_.back()->entries())
            files_.emplace(name, all_.back().get());
        return;
    }
    if (is_file(folder / weights_index)) {
        path_ = folder / weights_index;
        read_index();
        return;
    }
    for (const char* name : other_formats)
        if (is_file(folder / name))
            fail(folder / name, "has the weights in a format that is not read; write them as ",
                 weights_file,
                 ", which transformers' AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER) "
                 "does");
    check_is_file(path_); // which throws: it is none
}

void stored_weights::read_index() {
    std::map<std::string, const safetensors_file*> opened;
    for (const auto& [name, file] : read_places(path_)) {
        const auto [at, is_new] = opened.emplace(file, nullptr);
        if (is_new) {
            const std::filesystem::path shard = path_.parent_path() / file;
            if (!is_file(shard))
                fail(path_, "names the file '", file, "', which is not there; fetch it");
            all_.push_back(std::make_unique<safetensors_file>(shard));
            at->second = all_.back().get();
        }
        if (at->second->entries().count(name) == 0)
            fail(path_, "names '", file, "' as the file of the tensor '", name,
                 "', which is not in it");
        files_.emplace(name, at->second);
    }
    for (const auto& file : all_)
        for (const auto& [name, entry] : file->entries())
            if (const auto found = files_.find(name);
                found == files_.end() || found->second != file.get())
                fail(file->path(), "holds the tensor '", name, "', which is not there by ",
                     weights_index);
}

std::vector<float> stored_weights::read(const std::string& name,
                                        const std::vector<std::int64_t>& shape) const {
    const auto found = files_.find(name);
    if (found == files_.end()) fail(path_, "there is no tensor '", name, "'");
    return found->second->read(name, shape);
}

} // namespace encoder::detail
