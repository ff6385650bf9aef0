// The GGUF file format: keys with values, then tensors, which may be quantised in blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace language {

class gguf_cursor;

/// A GGUF file of version 2 or 3, little-endian. Everything that the file says (counts, lengths,
/// types, alignment, shapes, offsets: in range, aligned, not overlapping) is checked in the
/// constructor; nothing is used before. Keys and names are bytes, whatever their encoding.
///
/// The file is mapped where the system can do that, and then must not be written to as long as one
/// of the copies of this object lives, which share the mapping.
///
/// All errors are encoder::file_error.
class gguf_file {
  public:
    explicit gguf_file(const std::filesystem::path& path);

    bool has(const std::string& key) const;
    std::vector<std::string> keys() const;
    /// The type and the value of `key`, as they stand in the file.
    std::string_view bytes(const std::string& key) const;
    bool is_array(const std::string& key) const;
    /// The value of `key`. Each throws where there is no such key, or where it is of another type.
    std::string text(const std::string& key) const;
    /// Of any type of integers, not negative.
    std::uint64_t number(const std::string& key) const;
    /// F32 or F64, finite.
    double real(const std::string& key) const;
    /// `otherwise` where there is no such key.
    bool flag(const std::string& key, bool otherwise) const;
    /// Arrays, which may be empty.
    std::vector<std::string> texts(const std::string& key) const;
    std::vector<std::uint64_t> numbers(const std::string& key) const;
    std::vector<double> reals(const std::string& key) const; ///< as real

    struct entry {
        std::vector<std::int64_t> shape; ///< outermost first (rows, columns); reversed in the file
        std::uint32_t type;              ///< as numbered in the file; see read
        const std::byte* data;           ///< without alignment
        std::size_t bytes;               ///< 0 for types that read does not know
    };
    /// The tensors. For a type that read does not know it is only checked that the tensor begins
    /// in the file, and not inside another one.
    const std::map<std::string, entry>& entries() const { return entries_; }

    /// Throws if tensor `name` is missing, of another shape, or of a type that read does not know.
    void check(const std::string& name, const std::vector<std::int64_t>& shape) const;
    /// The values of tensor `name`, which must have `shape` and a type of blocks.hpp. Throws as check,
    /// and if it holds NaN or infinity.
    std::vector<float> read(const std::string& name, const std::vector<std::int64_t>& shape) const;

    /// Of tensors, in bytes: a power of two.
    std::uint64_t alignment() const;
    const std::filesystem::path& path() const { return path_; }

  private:
    struct value {
        bool is_array;
        std::uint32_t type; ///< of its elements, if it is an array
        std::uint64_t count;
        std::size_t at;         ///< byte of the file where the first element begins
        std::size_t begin, end; ///< bytes of its type and all of it
    };
    const value* find(const std::string& key) const;
    template <class Is>
    const value& find(const std::string& key, bool is_array, Is is, const char* wanted) const;
    void read_keys(gguf_cursor& file, std::uint64_t count);
    void read_entries(gguf_cursor& file, std::uint64_t count);
    std::uint64_t natural(const std::string& key, const value& v, std::uint64_t element) const;
    double real(const std::string& key, const value& v, std::uint64_t element) const;

    std::filesystem::path path_;
    std::size_t size_ = 0;
    std::shared_ptr<const std::byte> data_; ///< the whole file
    std::map<std::string, value> values_;
    std::map<std::string, entry> entries_;
};

} // namespace language
