// The safetensors file format: a length, a JSON header, raw little-endian tensors.
#pragma once

#include "fingerprint.hpp"
#include "sentence.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace encoder {

enum class data_type { f32, f16, bf16, other };

/// The type that `dtype` of a safetensors header names.
data_type data_type_of(std::string_view dtype);

/// A tensor with memory of its own.
struct tensor {
    std::string name;
    std::string dtype; ///< as written in the file: "F32", "BF16", "I64", ...
    std::vector<std::int64_t> shape;
    std::vector<std::byte> bytes;
};

/// The same in somebody else's memory.
struct tensor_view {
    tensor_view(const tensor& t)
        : name(t.name), dtype(t.dtype), shape(t.shape), data(t.bytes.data()),
          bytes(t.bytes.size()) {}
    /// Numbers as they are, F32. Throws file_error if one of them is NaN or infinite.
    tensor_view(std::string name, std::vector<std::int64_t> shape, const float* values);

    std::string name, dtype;
    std::vector<std::int64_t> shape;
    const std::byte* data;
    std::size_t bytes;
};

/// A safetensors file in memory. Everything that the header says (length, JSON, dtypes, shapes,
/// offsets: in range, not overlapping, without holes, as long as shape times dtype) is checked in
/// the constructor; nothing is used before.
class safetensors_file {
  public:
    explicit safetensors_file(const std::filesystem::path& path);

    struct entry {
        std::string dtype;
        std::vector<std::int64_t> shape;
        const std::byte* data; ///< without alignment
        std::size_t bytes;
    };
    const std::map<std::string, entry>& entries() const { return entries_; }
    const std::filesystem::path& path() const { return path_; }

    /// The values of tensor `name`, which must have `shape` and be F32, F16 or BF16.
    /// Throws file_error if it is missing, of another shape or type, or holds NaN or infinity.
    std::vector<float> read(const std::string& name, const std::vector<std::int64_t>& shape) const;

  private:
    std::filesystem::path path_;
    std::unique_ptr<std::byte[]> data_;
    std::map<std::string, entry> entries_;
};

/// What stands under "__metadata__" in such a file. Throws file_error.
std::map<std::string, std::string> safetensors_metadata(const std::filesystem::path& path);
/// Of its tensors' bytes, in the order of the file. Throws file_error.
fingerprint safetensors_fingerprint(const std::filesystem::path& path);

/// `values` as a tensor of type `as` (rounded to nearest even for F16 and BF16). Throws file_error
/// if a value is NaN, infinite or too large for the type: read would refuse it.
tensor make_tensor(std::string name, std::vector<std::int64_t> shape, const float* values,
                   data_type as);

/// Writes the tensors in this order, 8-byte aligned header, to `path`. Throws file_error, also,
/// before anything is written, if two tensors share a name or a shape does not fit its bytes.
void write_safetensors(const std::filesystem::path& path, const std::vector<tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
/// The same without a copy in memory.
void write_views(const std::filesystem::path& path, const std::vector<tensor_view>& tensors,
                 const std::map<std::string, std::string>& metadata = {});

} // namespace encoder
