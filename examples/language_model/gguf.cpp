#include "gguf.hpp"
#include "blocks.hpp"

#include "encoder/files/file.hpp"
#include "encoder/files/numbers.hpp"

#include <pare/core/fast_math.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#define PARE_HAVE_MMAP
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <fstream>
#include <new>
#endif

namespace language {

using encoder::detail::fail;
using shape_type = std::vector<std::int64_t>;

#ifdef __BYTE_ORDER__
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "GGUF files are little-endian and are read without a change");
#endif

namespace {

// Types of values, as numbered in the file.
enum value_type : std::uint32_t {
    u8_value,
    i8_value,
    u16_value,
    i16_value,
    u32_value,
    i32_value,
    f32_value,
    bool_value,
    string_value,
    array_value,
    u64_value,
    i64_value,
    f64_value,
};
constexpr std::size_t string_bytes = 8; // at least: its length

struct {
    const char* name;
    std::size_t bytes; // of a string: at least
} constexpr value_types[] = {
    {"u8", 1},    {"i8", 1},   {"u16", 2},
    {"i16", 2},   {"u32", 4},  {"i32", 4},
    {"f32", 4},   {"bool", 1}, {"string", string_bytes},
    {"array", 0}, {"u64", 8},  {"i64", 8},
    {"f64", 8},
};

/// A name in a sentence, short.
std::string in_quotes(std::string_view name) {
    constexpr std::size_t most = 100;
    return "'" + std::string(name.substr(0, most)) + (name.size() > most ? "...'" : "'");
}

std::string to_string(const shape_type& shape) {
    std::string text = "[";
    for (const std::int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
    return text + "]";
}

std::pair<std::shared_ptr<const std::byte>, std::size_t> open_file(const std::filesystem::path& p) {
    encoder::detail::check_is_file(p);
#ifdef PARE_HAVE_MMAP
    struct descriptor {
        int number;
        ~descriptor() {
            if (number >= 0) ::close(number);
        }
    };
    const descriptor file{::open(p.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat status {};
    if (file.number < 0 || ::fstat(file.number, &status) != 0)
        fail(p, "cannot be opened: ", std::strerror(errno));
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size == 0) return {nullptr, 0}; // is not mapped
    void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
    if (data == MAP_FAILED) // NOLINT: a macro of the system's, which casts
        fail(p, "its ", size, " bytes cannot be mapped: ", std::strerror(errno));
    const auto unmap = [size](const std::byte* mapped) {
        ::munmap(const_cast<std::byte*>(mapped), size);
    };
    return {{static_cast<const std::byte*>(data), unmap}, size};
#else
    std::ifstream in(p, std::ios::binary | std::ios::ate);
    if (!in) fail(p, "cannot be opened: ", std::strerror(errno));
    const auto size = static_cast<std::size_t>(in.tellg());
    in.seekg(0);
    std::unique_ptr<std::byte[]> data;
    try {
        data.reset(new std::byte[size]);
    } catch (const std::bad_alloc&) {
        fail(p, "there is no memory for its ", size, " bytes");
    }
    in.read(reinterpret_cast<char*>(data.get()), static_cast<std::streamsize>(size));
    if (const auto read = static_cast<std::size_t>(in.gcount()); read != size)
        fail(p, "ends ", size - read, " bytes early: it has changed while it was read");
    return {{data.release(), std::default_delete<const std::byte[]>()}, size};
#endif
}

} // namespace

/// Takes bytes of a file from its begin on, and refuses to leave it.
class gguf_cursor {
  public:
    gguf_cursor(const std::filesystem::path& path, const std::byte* data, std::size_t size,
                std::size_t at = 0)
        : path_(path), data_(data), size_(size), at_(at) {}

    /// What the next bytes are, for the errors.
    void enter(std::string what) { what_ = std::move(what); }

    /// Whether `count` elements of so many bytes, or more, are there.
    void need(std::uint64_t count, std::size_t bytes) const {
        if (count > left() / bytes)
            fail(path_, what_, " needs ", count, " times ", bytes, " bytes at byte ", at_,
                 ", the file has ", size_);
    }
    const std::byte* take(std::uint64_t count, std::size_t bytes) {
        need(count, bytes);
        const std::byte* const from = data_ + at_;
        at_ += static_cast<std::size_t>(count) * bytes;
        return from;
    }
    template <class T>
    T get() {
        return encoder::load<T>(take(1, sizeof(T)));
    }
    std::string_view text() {
        const auto length = get<std::uint64_t>();
        const auto* const from = reinterpret_cast<const char*>(take(length, 1));
        return {from, static_cast<std::size_t>(length)};
    }

    std::size_t at() const { return at_; }
    std::size_t left() const { return size_ - at_; }

  private:
    const std::filesystem::path& path_;
    const std::byte* data_;
    std::size_t size_, at_;
    std::string what_;
};

gguf_file::gguf_file(const std::filesystem::path& path) : path_(path) {
    std::tie(data_, size_) = open_file(path);
    const std::string_view begin(reinterpret_cast<const char*>(data_.get()),
                                 std::min<std::size_t>(size_, 64));
    encoder::detail::check_is_fetched(path, begin);
    constexpr std::string_view magic = "GGUF";
    constexpr std::size_t header = 4 + 4 + 8 + 8;
    if (size_ < header) fail(path, "has ", size_, " bytes, a GGUF file has at least ", header);
    if (begin.substr(0, magic.size()) != magic) fail(path, "does not begin with 'GGUF'");

    gguf_cursor file(path, data_.get(), size_, magic.size());
    const auto version = file.get<std::uint32_t>();
    if (version == 2u << 24 || version == 3u << 24)
        fail(path, "is a big-endian GGUF file, only little-endian ones are read");
    if (version != 2 && version != 3)
        fail(path, "is a GGUF file of version ", version, ", only 2 and 3 are read");
    const auto tensors = file.get<std::uint64_t>(), keys = file.get<std::uint64_t>();
    const auto check_count = [&](std::uint64_t count, const char* what, std::size_t least) {
        if (count > file.left() / least)
            fail(path, "says that it has ", count, ' ', what, ", of which each needs ", least,
                 " bytes or more; the file has ", size_);
    };
    check_count(keys, "keys", string_bytes + 4 + 1);
    check_count(tensors, "tensors", string_bytes + 4 + 8 + 4 + 8);
    read_keys(file, keys);
    read_entries(file, tensors);
}

void gguf_file::read_keys(gguf_cursor& file, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
        file.enter("key " + std::to_string(i + 1) + " of " + std::to_string(count));
        const std::string key(file.text());
        file.enter("the value of key " + in_quotes(key));
        const std::size_t from = file.at();
        value v{false, file.get<std::uint32_t>(), 1, 0, 0, 0};
        const auto check_type = [&](const char* what) {
            if (v.type >= std::size(value_types))
                fail(path_, "key ", in_quotes(key), what, " of the unknown type ", v.type);
        };
        check_type(" is");
        if (v.type == array_value) {
            v = {true, file.get<std::uint32_t>(), file.get<std::uint64_t>(), 0, 0, 0};
            check_type(" is an array");
            if (v.type == array_value)
                fail(path_, "key ", in_quotes(key), " is an array of arrays, which are not read");
        }
        v.at = file.at();
        file.need(v.count, value_types[v.type].bytes);
        if (v.type == string_value) {
            for (std::uint64_t e = 0; e < v.count; ++e) file.text();
        } else {
            const std::byte* const begin = file.take(v.count, value_types[v.type].bytes);
            const std::byte* const end = data_.get() + file.at();
            if (v.type == bool_value &&
                std::any_of(begin, end, [](std::byte b) { return b > std::byte{1}; }))
                fail(path_, "key ", in_quotes(key), " holds a bool that is not 0 or 1");
        }
        v.begin = from;
        v.end = file.at();
        if (!values_.emplace(key, v).second)
            fail(path_, "the key ", in_quotes(key), " stands twice in it");
    }
}

std::uint64_t gguf_file::alignment() const {
    constexpr std::uint64_t usual = 32;
    constexpr const char* key = "general.alignment";
    if (!has(key)) return usual;
    const value& v = find(
        key, false, [](std::uint32_t type) { return type == u32_value; }, "u32");
    const std::uint64_t alignment = encoder::load<std::uint32_t>(data_.get() + v.at);
    if (alignment < 8 || (alignment & (alignment - 1)) != 0)
        fail(path_, "key ", in_quotes(key), " is ", alignment,
             ", not a power of two of at least 8");
    return alignment;
}

namespace {

/// An entry by itself, and where its tensor is in the data, which is not known yet.
struct parsed_entry {
    gguf_file::entry tensor;
    std::uint64_t begin, bytes; // of unknown types: 1, if there are elements
};

parsed_entry parse_entry(const std::filesystem::path& path, const std::string& name,
                         gguf_cursor& file, std::uint64_t alignment) {
    const auto dimensions = file.get<std::uint32_t>();
    if (dimensions < 1 || dimensions > 4)
        fail(path, "tensor ", in_quotes(name), " has ", dimensions, " dimensions, not 1 to 4");
    parsed_entry e{};
    shape_type& shape = e.tensor.shape;
    std::uint64_t elements = 1;
    bool is_possible = true;
    for (std::uint32_t d = 0; d < dimensions; ++d) {
        constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
        const auto n = file.get<std::uint64_t>();
        if (n > most) fail(path, "tensor ", in_quotes(name), " has the impossible dimension ", n);
        is_possible = is_possible && (n == 0 || elements <= most / n);
        elements *= n;
        shape.insert(shape.begin(), static_cast<std::int64_t>(n));
    }
    e.tensor.type = file.get<std::uint32_t>();
    e.begin = file.get<std::uint64_t>();
    e.bytes = elements > 0 ? 1 : 0;
    if (const block_layout* const l = find_layout(e.tensor.type); l != nullptr) {
        if (static_cast<std::uint64_t>(shape.back()) % l->elements != 0)
            fail(path, "tensor ", in_quotes(name), " has rows of ", shape.back(), " elements, ",
                 l->name, " needs a multiple of ", l->elements);
        const std::uint64_t blocks = elements / l->elements;
        is_possible = is_possible && blocks <= std::numeric_limits<std::size_t>::max() / l->bytes;
        e.bytes = blocks * l->bytes;
        e.tensor.bytes = static_cast<std::size_t>(e.bytes);
    }
    if (!is_possible)
        fail(path, "tensor ", in_quotes(name), " has the impossible shape ", to_string(shape));
    if (e.begin % alignment != 0)
        fail(path, "tensor ", in_quotes(name), " begins at byte ", e.begin,
             " of the data, which is not a multiple of the alignment ", alignment);
    return e;
}

} // namespace

void gguf_file::read_entries(gguf_cursor& file, std::uint64_t count) {
    struct place {
        std::uint64_t begin, bytes;
        std::map<std::string, entry>::iterator of;
    };
    std::vector<place> places; // grows with what has been read, not by a count
    const std::uint64_t step = alignment();
    for (std::uint64_t i = 0; i < count; ++i) {
        file.enter("tensor " + std::to_string(i + 1) + " of " + std::to_string(count));
        const std::string name(file.text());
        file.enter("the entry of tensor " + in_quotes(name));
        parsed_entry e = parse_entry(path_, name, file, step);
        const auto [at, is_new] = entries_.emplace(name, std::move(e.tensor));
        if (!is_new) fail(path_, "there are two tensors ", in_quotes(name));
        places.push_back({e.begin, e.bytes, at});
    }

    // What is behind the last entry is padding, and may end with the file.
    const std::uint64_t data_begin =
        std::min<std::uint64_t>((file.at() + step - 1) / step * step, size_);
    const std::uint64_t data_size = size_ - data_begin;
    std::sort(places.begin(), places.end(), [](const place& a, const place& b) {
        return std::tie(a.begin, a.bytes) < std::tie(b.begin, b.bytes);
    });
    std::uint64_t end = 0;
    for (const place& p : places) {
        const std::string& name = p.of->first;
        if (p.begin > data_size || p.bytes > data_size - p.begin)
            fail(path_, "tensor ", in_quotes(name), " needs ", p.bytes, " bytes from byte ",
                 p.begin, " of the data on, the file has ", data_size, " bytes of data");
        if (p.bytes > 0 && p.begin < end)
            fail(path_, "tensor ", in_quotes(name), " begins at byte ", p.begin,
                 " of the data, inside another one, which ends at ", end);
        end = std::max(end, p.begin + p.bytes);
        p.of->second.data = data_.get() + data_begin + p.begin;
    }
}

const gguf_file::value* gguf_file::find(const std::string& key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
}

/// The value of `key`, whose type is such that is(type).
template <class Is>
const gguf_file::value& gguf_file::find(const std::string& key, bool is_array, Is is,
                                        const char* wanted) const {
    const value* const found = find(key);
    if (found == nullptr) fail(path_, "there is no key ", in_quotes(key));
    if (found->is_array != is_array || !is(found->type))
        fail(path_, "key ", in_quotes(key), " is of type ", value_types[found->type].name,
             found->is_array ? "[]" : "", ", not ", wanted, is_array ? "[]" : "");
    return *found;
}

namespace {

bool is_string(std::uint32_t type) {
    return type == string_value;
}

bool is_integer(std::uint32_t type) {
    return type <= i32_value || type == u64_value || type == i64_value;
}

} // namespace

std::uint64_t gguf_file::natural(const std::string& key, const value& v,
                                 std::uint64_t element) const {
    const std::byte* const from =
        data_.get() + v.at + static_cast<std::size_t>(element) * value_types[v.type].bytes;
    std::int64_t number = 0;
    switch (v.type) {
    case u8_value:
        return encoder::load<std::uint8_t>(from);
    case u16_value:
        return encoder::load<std::uint16_t>(from);
    case u32_value:
        return encoder::load<std::uint32_t>(from);
    case u64_value:
        return encoder::load<std::uint64_t>(from);
    case i8_value:
        number = encoder::load<std::int8_t>(from);
        break;
    case i16_value:
        number = encoder::load<std::int16_t>(from);
        break;
    case i32_value:
        number = encoder::load<std::int32_t>(from);
        break;
    default:
        number = encoder::load<std::int64_t>(from);
    }
    if (number < 0)
        fail(path_, "key ", in_quotes(key), " is ", number,
             v.is_array ? " at element " + std::to_string(element) : "",
             ", which must not be negative");
    return static_cast<std::uint64_t>(number);
}

bool gguf_file::has(const std::string& key) const {
    return find(key) != nullptr;
}

std::vector<std::string> gguf_file::keys() const {
    std::vector<std::string> all;
    for (const auto& each : values_) all.push_back(each.first);
    return all;
}

bool gguf_file::is_array(const std::string& key) const {
    const value* const found = find(key);
    return found != nullptr && found->is_array;
}

std::string_view gguf_file::bytes(const std::string& key) const {
    const value* const found = find(key);
    if (found == nullptr) fail(path_, "there is no key ", in_quotes(key));
    return {reinterpret_cast<const char*>(data_.get()) + found->begin, found->end - found->begin};
}

std::string gguf_file::text(const std::string& key) const {
    const value& v = find(key, false, is_string, "string");
    return std::string(gguf_cursor(path_, data_.get(), size_, v.at).text());
}

std::uint64_t gguf_file::number(const std::string& key) const {
    return natural(key, find(key, false, is_integer, "integer"), 0);
}

namespace {

bool is_real(std::uint32_t type) {
    return type == f32_value || type == f64_value;
}

} // namespace

double gguf_file::real(const std::string& key, const value& v, std::uint64_t element) const {
    const std::byte* const from =
        data_.get() + v.at + static_cast<std::size_t>(element) * value_types[v.type].bytes;
    const double x = v.type == f32_value ? static_cast<double>(encoder::load<float>(from))
                                         : encoder::load<double>(from);
    if (!pare::detail::is_finite(x)) fail(path_, "key ", in_quotes(key), " is NaN or infinite");
    return x;
}

double gguf_file::real(const std::string& key) const {
    return real(key, find(key, false, is_real, "f32 or f64"), 0);
}

bool gguf_file::flag(const std::string& key, bool otherwise) const {
    if (!has(key)) return otherwise;
    const value& v = find(
        key, false, [](std::uint32_t type) { return type == bool_value; }, "bool");
    return data_.get()[v.at] != std::byte{0};
}

std::vector<std::string> gguf_file::texts(const std::string& key) const {
    const value& v = find(key, true, is_string, "string");
    gguf_cursor file(path_, data_.get(), size_, v.at);
    std::vector<std::string> all;
    all.reserve(static_cast<std::size_t>(v.count));
    for (std::uint64_t i = 0; i < v.count; ++i) all.emplace_back(file.text());
    return all;
}

std::vector<std::uint64_t> gguf_file::numbers(const std::string& key) const {
    const value& v = find(key, true, is_integer, "integer");
    std::vector<std::uint64_t> all;
    all.reserve(static_cast<std::size_t>(v.count));
    for (std::uint64_t i = 0; i < v.count; ++i) all.push_back(natural(key, v, i));
    return all;
}

std::vector<double> gguf_file::reals(const std::string& key) const {
    const value& v = find(key, true, is_real, "f32 or f64");
    std::vector<double> all;
    all.reserve(static_cast<std::size_t>(v.count));
    for (std::uint64_t i = 0; i < v.count; ++i) all.push_back(real(key, v, i));
    return all;
}

void gguf_file::check(const std::string& name, const shape_type& shape) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) fail(path_, "there is no tensor ", in_quotes(name));
    const entry& e = found->second;
    if (e.shape != shape)
        fail(path_, "tensor ", in_quotes(name), " has the shape ", to_string(e.shape), ", not ",
             to_string(shape));
    if (find_layout(e.type) == nullptr)
        fail(path_, "tensor ", in_quotes(name), " is of type ", e.type, ", not one of ",
             known_layouts());
}

std::vector<float> gguf_file::read(const std::string& name, const shape_type& shape) const {
    check(name, shape);
    const entry& e = entries_.at(name);
    const block_layout* const l = find_layout(e.type);
    std::vector<float> values(e.bytes / l->bytes * l->elements);
    for (std::size_t i = 0; i < values.size(); i += l->elements)
        if (!l->decode(e.data + i / l->elements * l->bytes, values.data() + i))
            fail(path_, "tensor ", in_quotes(name), " holds NaN or infinity at element ", i);
    return values;
}

} // namespace language
