#include "safetensors.hpp"

#include "file.hpp"
#include "numbers.hpp"
#include "output.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <new>
#include <string_view>
#include <tuple>
#include <utility>

namespace encoder {
namespace {

using detail::fail;
using nlohmann::json;
using shape_type = std::vector<std::int64_t>;

#ifdef __BYTE_ORDER__
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "safetensors are little-endian and are read without a change");
#endif

constexpr std::size_t length_bytes = 8;
constexpr std::uint64_t longest_header = 100'000'000; // as in the reference implementation

std::size_t element_size(std::string_view dtype) {
    static constexpr std::pair<std::string_view, std::size_t> sizes[] = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
        {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
        {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8},
    };
    for (const auto& [name, size] : sizes)
        if (name == dtype) return size;
    return 0;
}

constexpr std::pair<data_type, const char*> float_types[] = {
    {data_type::f32, "F32"}, {data_type::f16, "F16"}, {data_type::bf16, "BF16"}};

std::string to_string(const shape_type& shape) {
    std::string text = "[";
    for (const std::int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
    return text + "]";
}

/// The bytes that a tensor needs, in numbers that cannot wrap around.
std::size_t byte_size(const std::filesystem::path& path, const std::string& name,
                      const std::string& dtype, const shape_type& shape) {
    std::size_t bytes = element_size(dtype);
    if (bytes == 0) fail(path, "tensor '", name, "' has the unknown dtype '", dtype, "'");
    for (const std::int64_t n : shape) {
        const auto count = static_cast<std::size_t>(n);
        if (n < 0 || (count > 0 && bytes > std::numeric_limits<std::size_t>::max() / count))
            fail(path, "tensor '", name, "' has the impossible shape ", to_string(shape));
        bytes *= count;
    }
    return bytes;
}

/// bits / 2^shift, to nearest, ties to even. A carry moves into the exponent, as it should.
std::uint32_t round_off(std::uint32_t bits, std::uint32_t shift) {
    return (bits + (1u << (shift - 1)) - 1 + (bits >> shift & 1u)) >> shift;
}

std::uint32_t float_to_half(std::uint32_t bits) {
    const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    constexpr std::uint32_t first_normal = 113u << 23, overflow = 143u << 23; // 2^-14 and 2^16
    if (magnitude >= overflow) return sign | 0x7c00u;
    if (magnitude >= first_normal) return sign | round_off(magnitude - (112u << 23), 13);
    const std::uint32_t shift = 126 - (magnitude >> 23); // to a count of 2^-24
    return shift > 24 ? sign : sign | round_off((magnitude & 0x7fffffu) | 0x800000u, shift);
}

std::uint32_t to_float(data_type type, const std::byte* from) {
    if (type == data_type::f32) return load<std::uint32_t>(from);
    const std::uint32_t bits = load<std::uint16_t>(from);
    return type == data_type::f16 ? half_to_float(bits) : bits << 16;
}

/// The caller has seen to it that `bits` are finite; rounding may still make them infinite.
void from_float(data_type type, std::uint32_t bits, std::byte* to) {
    if (type == data_type::f32) {
        std::memcpy(to, &bits, sizeof bits);
        return;
    }
    const auto rounded = static_cast<std::uint16_t>(type == data_type::f16 ? float_to_half(bits)
                                                                           : round_off(bits, 16));
    std::memcpy(to, &rounded, sizeof rounded);
}

[[noreturn]] void fail_as_not_finite(const std::string& name, std::size_t element, float value,
                                     const std::string& dtype) {
    fail(name, "element ", element, " is ", value, ", which is not finite as ", dtype);
}

/// The next bytes of a file.
void read_bytes(std::ifstream& in, void* to, std::size_t size, const std::filesystem::path& path) {
    in.read(static_cast<char*>(to), static_cast<std::streamsize>(size));
    if (const auto read = static_cast<std::size_t>(in.gcount()); read != size)
        fail(path, "ends ", size - read, " bytes early: it has changed while it was read");
}

/// A file from its data on, and its header, which is JSON.
struct opened_file {
    std::ifstream in;
    json header;
    std::size_t data_size;
};

opened_file open_file(const std::filesystem::path& path) {
    detail::check_is_file(path);
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    if (!in) fail(path, "cannot be opened: ", std::strerror(errno));
    const auto size = static_cast<std::size_t>(in.tellg());
    in.seekg(0);
    std::string begin(std::min<std::size_t>(size, 64), '\0');
    read_bytes(in, begin.data(), begin.size(), path);
    detail::check_is_fetched(path, begin);
    in.seekg(0);
    if (size < length_bytes) fail(path, "has ", size, " bytes, a safetensors file has at least 8");
    std::uint64_t header_size = 0;
    read_bytes(in, &header_size, length_bytes, path);
    if (header_size > size - length_bytes)
        fail(path, "header says ", header_size, " bytes, the file has ", size);
    if (header_size > longest_header)
        fail(path, "header says ", header_size, " bytes, at most ", longest_header, " are allowed");
    std::string text(static_cast<std::size_t>(header_size), '\0');
    read_bytes(in, text.data(), text.size(), path);
    json header = detail::parse_json(path, text);
    if (const auto found = header.find("__metadata__"); found != header.end())
        if (!found->is_object() ||
            !std::all_of(found->begin(), found->end(), std::mem_fn(&json::is_string)))
            fail(path, "__metadata__ is not an object of strings");
    return {std::move(in), std::move(header), size - length_bytes - text.size()};
}

/// An entry of the header, checked by itself. Its tensor is somewhere in data .. data + size.
safetensors_file::entry parse_entry(const std::filesystem::path& path, const std::string& name,
                                    const json& value, const std::byte* data, std::size_t size) {
    const auto field = [&](const char* key, json::value_t type) -> const json& {
        const auto found = value.find(key);
        if (found == value.end() || found->type() != type)
            fail(path, "tensor '", name, "' lacks a valid '", key, "'");
        return *found;
    };
    const auto naturals = [&](const char* key) {
        std::vector<std::int64_t> numbers;
        for (const json& n : field(key, json::value_t::array)) {
            constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
            if (!n.is_number_unsigned() || n.get<std::uint64_t>() > most)
                fail(path, "tensor '", name, "' has ", n.dump(-1, ' ', true), " in its '", key,
                     "'");
            numbers.push_back(n.get<std::int64_t>());
        }
        return numbers;
    };
    const auto dtype = field("dtype", json::value_t::string).get<std::string>();
    const shape_type shape = naturals("shape");
    const auto offsets = naturals("data_offsets");
    if (offsets.size() != 2)
        fail(path, "tensor '", name, "' has ", offsets.size(), " data_offsets, not 2");
    const auto begin = static_cast<std::size_t>(offsets[0]);
    const auto end = static_cast<std::size_t>(offsets[1]);
    if (begin > end || end > size)
        fail(path, "tensor '", name, "' has the data_offsets [", begin, ", ", end,
             "], the file has ", size, " bytes of data");
    const std::size_t needed = byte_size(path, name, dtype, shape);
    if (end - begin != needed)
        fail(path, "tensor '", name, "' has ", end - begin, " bytes, ", dtype, ' ',
             to_string(shape), " needs ", needed);
    return {dtype, shape, data + begin, needed};
}

} // namespace

data_type data_type_of(std::string_view dtype) {
    for (const auto& [type, name] : float_types)
        if (name == dtype) return type;
    return data_type::other;
}

std::map<std::string, std::string> safetensors_metadata(const std::filesystem::path& path) {
    const json header = open_file(path).header;
    const auto found = header.find("__metadata__");
    if (found == header.end()) return {};
    return found->get<std::map<std::string, std::string>>();
}

fingerprint safetensors_fingerprint(const std::filesystem::path& path) {
    opened_file file = open_file(path);
    fingerprint found;
    found.add(file.in, file.data_size);
    if (!file.in) fail(path, "cannot be read");
    return found;
}

safetensors_file::safetensors_file(const std::filesystem::path& path) : path_(path) {
    auto [in, header, data_size] = open_file(path);
    try {
        data_.reset(new std::byte[data_size]); // not written to, so that it costs nothing yet
    } catch (const std::bad_alloc&) {
        fail(path, "there is no memory for its ", data_size, " bytes");
    }
    const std::byte* const data = data_.get();
    for (const auto& [name, value] : header.items())
        if (name != "__metadata__")
            entries_.emplace(name, parse_entry(path, name, value, data, data_size));

    std::vector<const decltype(entries_)::value_type*> in_place;
    for (const auto& e : entries_) in_place.push_back(&e);
    std::sort(in_place.begin(), in_place.end(), [](const auto* a, const auto* b) {
        return std::tie(a->second.data, a->second.bytes) <
               std::tie(b->second.data, b->second.bytes);
    });
    const std::byte* end = data;
    for (const auto* e : in_place) {
        const auto& [name, tensor] = *e;
        if (tensor.data != end)
            fail(path, "tensor '", name, "' begins at byte ", tensor.data - data, " of the data, ",
                 tensor.data < end ? "inside another one, which ends at "
                                   : "after a hole that begins at ",
                 end - data);
        end += tensor.bytes;
    }
    if (end != data + data_size)
        fail(path, "the tensors end at byte ", end - data, " of the data, the file has ",
             data_size);
    read_bytes(in, data_.get(), data_size, path);
}

std::vector<float> safetensors_file::read(const std::string& name, const shape_type& shape) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) fail(path_, "there is no tensor '", name, "'");
    const entry& e = found->second;
    if (e.shape != shape)
        fail(path_, "tensor '", name, "' has the shape ", to_string(e.shape), ", not ",
             to_string(shape));
    const data_type type = data_type_of(e.dtype);
    if (type == data_type::other)
        fail(path_, "tensor '", name, "' is ", e.dtype, ", not F32, F16 or BF16");

    const std::size_t step = element_size(e.dtype);
    std::vector<float> values(e.bytes / step);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint32_t bits = to_float(type, e.data + i * step);
        if (!is_finite(bits))
            fail(path_, "tensor '", name, "' holds NaN or infinity at element ", i);
        std::memcpy(&values[i], &bits, sizeof bits);
    }
    return values;
}

tensor make_tensor(std::string name, shape_type shape, const float* values, data_type as) {
    const auto* const type = std::find_if(std::begin(float_types), std::end(float_types),
                                          [as](const auto& t) { return t.first == as; });
    if (type == std::end(float_types)) fail(name, "floats are written as F32, F16 or BF16 only");

    tensor made{std::move(name), type->second, std::move(shape), {}};
    made.bytes.resize(byte_size(made.name, made.name, made.dtype, made.shape));
    const std::size_t step = element_size(made.dtype);
    for (std::size_t i = 0; i < made.bytes.size() / step; ++i) {
        std::byte* const to = made.bytes.data() + i * step;
        const auto bits = bit_cast<std::uint32_t>(values[i]);
        if (is_finite(bits)) from_float(as, bits, to);
        if (!is_finite(bits) || !is_finite(to_float(as, to)))
            fail_as_not_finite(made.name, i, values[i], made.dtype);
    }
    return made;
}

tensor_view::tensor_view(std::string of, shape_type extents, const float* values)
    : name(std::move(of)), dtype("F32"), shape(std::move(extents)),
      data(reinterpret_cast<const std::byte*>(values)), bytes(byte_size(name, name, dtype, shape)) {
    for (std::size_t i = 0; i < bytes / sizeof *values; ++i)
        if (!is_finite(bit_cast<std::uint32_t>(values[i])))
            fail_as_not_finite(name, i, values[i], dtype);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
    write_views(path, {tensors.begin(), tensors.end()}, metadata);
}

void write_views(const std::filesystem::path& path, const std::vector<tensor_view>& tensors,
                 const std::map<std::string, std::string>& metadata) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::size_t end = 0;
    for (const tensor_view& t : tensors) {
        const std::size_t begin = end, needed = byte_size(path, t.name, t.dtype, t.shape);
        if (t.bytes != needed)
            fail(path, "tensor '", t.name, "' has ", t.bytes, " bytes, ", t.dtype, ' ',
                 to_string(t.shape), " needs ", needed);
        end += needed;
        const auto [at, is_new] = header.emplace(
            t.name, nlohmann::ordered_json{
                        {"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {begin, end}}});
        if (!is_new) fail(path, "there are two tensors '", t.name, "'");
    }
    std::string text;
    try {
        text = header.dump();
    } catch (const json::exception&) {
        fail(path, "the name of a tensor is not UTF-8");
    }
    text.resize((text.size() + length_bytes - 1) / length_bytes * length_bytes, ' ');

    const std::uint64_t header_size = text.size();
    std::vector<std::string_view> parts = {
        {reinterpret_cast<const char*>(&header_size), length_bytes}, text};
    for (const tensor_view& t : tensors)
        parts.emplace_back(reinterpret_cast<const char*>(t.data), t.bytes);
    write_file(path, parts);
}

} // namespace encoder
